"""Progress while a run works: bars on a terminal, plain lines elsewhere, both from the same fold of events.

A view takes events on the run's main thread and only shows them. It must never break the run: once
its stream cannot be written (a closed pipe or terminal), it goes silent.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from types import TracebackType
from typing import IO, TypeVar

from rich.console import Group, RenderableType
from rich.live import Live
from rich.text import Text

from daskml_scale import logs
from daskml_scale.dashboard.progress import Progress, StageProgress, fold
from daskml_scale.events import (
    ClusterStarted,
    Event,
    RunFinished,
    RunStarted,
    StageFinished,
    StagePlanned,
    StageStarted,
    UnitsCommitted,
    Warned,
)
from daskml_scale.plan.records import NEW

from .show import console
from .stage_lines import StageLines
from .state import stage_records
from .words import clock, plural, speed, took

LINE_EVERY = 10.0
"""Seconds between plain lines about units."""
STOPPING = "stopping; what is committed stays (Ctrl-C again leaves at once)"

T = TypeVar("T")
V = TypeVar("V", bound="Silent")


class Silent:
    """Shows nothing. Base of the views: a context manager with a ``sink``."""

    def __enter__(self: V) -> V:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave the terminal as it was."""

    def sink(self, event: Event) -> None:
        """Take an event."""

    def note(self, text: str) -> None:
        """Say that something beside the work went wrong."""

    def stopping(self) -> None:
        """Say that the run is being stopped. Called from a signal handler."""

    def abandon(self) -> None:
        """Put the terminal right; the process ends with the next statement. Called from a signal handler."""


class Lines(Silent):
    """Plain lines: one when a stage starts and ends, and about units at most every ten seconds."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream
        self._progress = Progress()
        self._last = 0.0

    def sink(self, event: Event) -> None:
        self._progress = fold(self._progress, event)
        due = event.time - self._last >= LINE_EVERY
        text = line(self._progress, event, due=due)
        if text is None:
            return
        if isinstance(event, (StageStarted, UnitsCommitted)):
            self._last = event.time
        self._say(text, event)

    def note(self, text: str) -> None:
        self._write(f"warning: {text}\n")

    def stopping(self) -> None:
        self._write(f"{STOPPING}\n")

    def _say(self, text: str, event: Event) -> None:
        self._write(f"{datetime.fromtimestamp(event.time):%H:%M:%S} {text}\n")

    def _write(self, text: str) -> None:
        try:
            self._stream.write(text)
            self._stream.flush()
        except (OSError, ValueError, RuntimeError):  # closed, or a signal came amid a write
            return


class Documents(Lines):
    """The same lines as JSON objects, for who collects the output of containers (see `logs`)."""

    def sink(self, event: Event) -> None:
        super().sink(event)
        if isinstance(event, RunFinished):
            self._say(f"{event.state} after {took(event.seconds)}" + f": {event.message}" * bool(event.message), event)

    def note(self, text: str) -> None:
        self._write(self._line(time.time(), "warning", text, {}))

    def stopping(self) -> None:
        self._write(self._line(time.time(), "warning", STOPPING, {}))

    def _say(self, text: str, event: Event) -> None:
        more = {"run": event.run, "event": event.kind, "stage": getattr(event, "stage", "")}
        level = "warning" if isinstance(event, Warned) else "info"
        told = {name: value for name, value in more.items() if value}
        self._write(self._line(event.time, level, text.removeprefix("warning: "), told))

    def _line(self, when: float, level: str, text: str, more: dict[str, str]) -> str:
        run = {"run": self._progress.run} if self._progress.run else {}
        return logs.line(when, level, "daskml_scale.run", text, {**run, **more}) + "\n"


def line(progress: Progress, event: Event, *, due: bool) -> str | None:
    """Return the plain line about an event, or ``None``.

    Parameters
    ----------
    progress : Progress
        With the event folded in.
    due : bool
        Whether a line about units may be written.
    """
    if isinstance(event, RunStarted):
        return f"{event.run or event.workflow}: {plural(len(event.stages), 'stage')} -> {event.store}"
    if isinstance(event, ClusterStarted):
        return f"cluster {event.cluster}: {event.dashboard or 'no dashboard'}"
    if isinstance(event, Warned):
        of = f"{event.stage}: " if event.stage else ""  # a cluster's is of no stage
        return f"warning: {of}{event.message.removeprefix(of)}"
    stage = progress.stage(getattr(event, "stage", ""))
    if stage is None:
        return None
    if isinstance(event, StageStarted):
        return f"{stage.name}: started ({event.stage_kind})"
    if isinstance(event, StagePlanned) and event.units and (due or _repeats(event)):
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in event.reasons.items())
        why = f" ({reasons})" if reasons else ""
        return f"{stage.name}: {plural(event.units, 'unit')} to run{why}, {stage.reused:,} reused"
    if isinstance(event, UnitsCommitted) and due:
        return _pace(stage, event.time)
    if isinstance(event, StageFinished) and event.state == "skipped":
        return f"{stage.name}: skipped: {event.message}"
    return _end(stage) if isinstance(event, StageFinished) else None


def _repeats(event: Event) -> bool:
    """Return whether units run again that have run before: why is told at once, however often."""
    return isinstance(event, StagePlanned) and any(reason != NEW for reason in event.reasons)


def _pace(stage: StageProgress, now: float) -> str:
    eta = stage.eta(now)
    left = f"{clock(eta)} left" if eta is not None else ""
    failed = f"{stage.failed:,} failed" if stage.failed else ""
    count = f"{stage.ready:,}/{stage.total:,} units"
    return f"{stage.name}: " + ", ".join(filter(None, (count, failed, speed(stage.rate(now)), left)))


def _end(stage: StageProgress) -> str:
    if stage.state != "ok":
        return f"{stage.name}: {stage.state} after {took(stage.wall)}, {stage.ready:,}/{stage.total:,} units"
    rows = plural(stage.rows, "row") if stage.rows else ""
    units = f"{plural(stage.total, 'unit')} ({stage.reused:,} reused)"
    return f"{stage.name}: done in {took(stage.wall)}, " + ", ".join(filter(None, (units, rows)))


@dataclass(frozen=True, slots=True)
class Window:
    """Which stages fit: ``before`` and ``after`` are left out.

    Attributes
    ----------
    before, shown, after : int
        Numbers of stages.
    """

    before: int
    shown: int
    after: int


def window(states: Sequence[str], height: int) -> Window:
    """Return the stages to show in ``height`` lines, two of them kept for what is left out.

    Stages that are over leave first; the first unfinished one stays, with one finished above it.
    """
    if len(states) <= height:
        return Window(0, len(states), 0)
    room = max(1, height - 2)
    active = next((n for n, state in enumerate(states) if state in ("running", "waiting")), len(states))
    start = max(0, min(active - (room > 1), len(states) - room))
    return Window(start, room, len(states) - start - room)


class Bars(Silent):
    """Bars on a terminal, redrawn a few times a second; they vanish when the run ends well."""

    def __init__(self, stream: IO[str], *, now: Callable[[], float] = time.time) -> None:
        self._console = console(stream)
        self._fd = stream.fileno()
        self._now = now
        self._progress = Progress()
        self._stopping = False
        self._live = Live(console=self._console, get_renderable=self._draw, refresh_per_second=5, redirect_stdout=False)

    def __enter__(self) -> Bars:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.transient = error is None
        self._guarded(self._live.stop)

    def sink(self, event: Event) -> None:
        self._progress = fold(self._progress, event)
        if isinstance(event, (Warned, ClusterStarted)) or _repeats(event):
            self._print(line(self._progress, event, due=True) or "", "yellow" if isinstance(event, Warned) else "")

    def note(self, text: str) -> None:
        self._print(f"warning: {text}", "yellow")

    def stopping(self) -> None:
        self._stopping = True

    def abandon(self) -> None:
        os.write(self._fd, b"\x1b[?25h\n")  # rich hid the cursor

    def _print(self, text: str, style: str) -> None:
        self._guarded(lambda: self._console.print(Text(text, style)))

    def _guarded(self, write: Callable[[], T]) -> T | None:
        try:
            return write()
        except (OSError, SystemExit):  # rich turns a broken pipe into an exit
            return None

    def _draw(self) -> RenderableType:
        return picture(self._progress, self._now(), self._console.height, stopping=self._stopping)


def picture(progress: Progress, now: float, height: int, *, stopping: bool = False) -> RenderableType:
    """Return what a terminal of ``height`` lines shows of a run at ``now``."""
    stages = stage_records(progress, now)
    shown = window([stage.state for stage in stages], height - 3)
    name = progress.run or progress.workflow or "starting"
    parts: list[RenderableType] = [Text.assemble((name, "bold"), f"  {clock(progress.elapsed(now))}")]
    if shown.before:
        parts.append(Text(f"  {plural(shown.before, 'stage')} above", "dim"))
    held = {stage.name: stage.quarantined for stage in progress.stages}
    parts.append(StageLines(stages[shown.before : shown.before + shown.shown], held))
    if shown.after:
        parts.append(Text(f"  {plural(shown.after, 'stage')} below", "dim"))
    if stopping:
        parts.append(Text(STOPPING, "yellow"))
    return Group(*parts)


def view(stream: IO[str], *, quiet: bool = False) -> Silent:
    """Return the view for a stream: bars on a capable terminal, lines elsewhere, JSON if asked for; none when quiet."""
    if quiet:
        return Silent()
    if logs.as_json():
        return Documents(stream)
    if stream.isatty() and os.environ.get("TERM", "dumb") not in ("dumb", "unknown"):
        return Bars(stream)
    return Lines(stream)
