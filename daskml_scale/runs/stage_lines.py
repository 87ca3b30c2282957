"""The stages of a run as lines of a terminal: mark, name, bar, units, rate or reuse, time.

Made from records alone, like all that ``show`` draws; nothing here reads a clock. Colour only repeats what is said.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from .state import StageRecord
from .words import clock, speed, took

COLOURS = {
    "succeeded": "green", "ok": "green", "running": "cyan", "queued": "cyan", "partial": "yellow",
    "interrupted": "yellow", "failed": "red", "lost": "red",
}  # fmt: skip
MARKS = {"ok": "✓", "running": "▸", "failed": "✗", "interrupted": "–", "waiting": "·", "skipped": "–"}
ASCII_MARKS = {"ok": "+", "running": ">", "failed": "x", "interrupted": "-", "waiting": ".", "skipped": "-"}


class StageLines:
    """One line per stage: mark, name, bar, units, rate or reuse, time.

    The bar takes what is left, 8 to 24 columns. Where there is little room the bar goes first, then rate and reuse.

    Parameters
    ----------
    quarantined : mapping of str to int, optional
        Stage -> units with rows that have no result.
    """

    def __init__(self, stages: Iterable[StageRecord], quarantined: Mapping[str, int] | None = None) -> None:
        self.stages, self.quarantined = list(stages), quarantined or {}

    def __rich_console__(self, target: Console, options: ConsoleOptions) -> RenderResult:
        marks = MARKS if not options.ascii_only else ASCII_MARKS
        yield _grid(self.stages, self.quarantined, options.max_width, marks)


def _grid(listed: Sequence[StageRecord], quarantined: Mapping[str, int], width: int, marks: Mapping[str, str]) -> Table:
    grid = Table.grid(padding=(0, 2, 0, 0))
    longest = min(24, max((len(stage.name) for stage in listed), default=1))
    grid.add_column(width=1)
    grid.add_column(width=longest, no_wrap=True, overflow="ellipsis")
    bar, pace = width >= longest + 45, width >= longest + 33
    if bar:
        grid.add_column(width=max(8, min(24, width - longest - 45)))
    for _ in range(2 + pace):
        grid.add_column(justify="right", no_wrap=True)
    for stage in listed:
        style = COLOURS.get(stage.state, "dim")
        mark = marks.get(stage.state, " ")
        dim = "dim" if stage.state == "waiting" else ""
        count = f"{stage.done:,}/{stage.units:,}" if stage.units else ""
        cells: list[RenderableType] = [
            Text(mark, style),
            Text(stage.name, dim),
            *([_bar(stage)] if bar else []),
            Text(count),
            *([_pace(stage, quarantined.get(stage.name, 0))] if pace else []),
            Text(_time(stage)),
        ]
        grid.add_row(*cells)
    return grid


def _bar(stage: StageRecord) -> ProgressBar:
    total = 1.0 if stage.state == "ok" else float(max(stage.units, 1))
    done = 1.0 if stage.state == "ok" else float(stage.done)
    style = COLOURS.get(stage.state, "cyan")
    return ProgressBar(total=total, completed=done, complete_style=style, finished_style=style)


def _pace(stage: StageRecord, quarantined: int) -> Text:
    if stage.failed or quarantined:
        told = [Text(f"{stage.failed:,} failed", COLOURS["failed"])] if stage.failed else []
        told += [Text(f"{quarantined:,} {'bad' if told else 'quarantined'}", COLOURS["partial"])] if quarantined else []
        return Text(" ").join(told)
    if stage.state == "running":
        return Text(speed(stage.rate))
    if stage.state in ("ok", "interrupted") and stage.reused:
        return Text("reused" if stage.reused == stage.units else f"{stage.reused:,} reused")
    return Text()


def _time(stage: StageRecord) -> str:
    if stage.state == "running":
        return f"{clock(stage.eta)} left" if stage.eta is not None else clock(stage.seconds)
    return "" if stage.state == "waiting" else took(stage.seconds)
