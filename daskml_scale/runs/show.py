"""What the command line prints: tables and lines as rich renderables, made from plain records.

Nothing here decides, reads a clock or opens a file. Colour only repeats what the text says. All text
is set literally: nothing in a name or a message is taken for markup.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import IO, TYPE_CHECKING, Any

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from .costs import Bill
from .stage_lines import COLOURS, StageLines
from .state import RunRecord, StageRecord
from .words import clock, command, near, plural, size, took

if TYPE_CHECKING:
    from daskml_scale.deploy.findings import Finding

WIDE = 1000
"""Columns where there is no terminal: nothing is cut that a program may read."""


def console(stream: IO[str]) -> Console:
    """Return a console on a stream that prints text literally, and without a terminal never cuts it."""
    width = None if stream.isatty() else WIDE
    return Console(file=stream, width=width, markup=False, highlight=False, emoji=False, soft_wrap=False)


def write(picture: RenderableType, stream: IO[str]) -> None:
    """Print a renderable; where there is no terminal, without padding at the ends of lines."""
    target = console(stream)
    if target.is_terminal:
        target.print(picture)
        return
    with target.capture() as captured:
        target.print(picture)
    stream.write("".join(f"{line.rstrip()}\n" for line in captured.get().splitlines()))
    stream.flush()


def text(line: str) -> RenderableType:
    """Return one literal line."""
    return Text(line)


def columns(header: Sequence[str], rows: Iterable[Sequence[str | Text]], numbers: Iterable[str] = ()) -> Table:
    """Return a borderless table; the columns named in ``numbers`` are set right.

    Where there is little room the last column wraps, or the first if the last holds numbers.
    """
    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
    right = set(numbers)
    wraps = header[0] if header[-1] in right else header[-1]
    for name in header:
        table.add_column(name, justify="right" if name in right else "left", no_wrap=name != wraps, overflow="fold")
    for row in rows:
        table.add_row(*(cell if isinstance(cell, Text) else Text(cell) for cell in row))
    return table


def state_text(state: str) -> Text:
    """Return a state in its colour."""
    return Text(state, style=COLOURS.get(state, ""))


def summary(run: Mapping[str, Any], here: str = "") -> RenderableType:
    """Return the end of a run: a table of stages, metrics, reuse, where the results are.

    Parameters
    ----------
    run : mapping
        ``RunSummary.to_dict()``.
    here : str
        The working directory.
    """
    stages: Sequence[Mapping[str, Any]] = run["stages"]
    rows = [
        (row["name"], f"{row['units']:,}", f"{row['reused']:,}", f"{row['seconds']:.1f}", _new_rows(row))
        for row in stages
    ]
    header = ("stage", "units", "reused", "seconds", "rows/s")
    parts: list[RenderableType] = [columns(header, rows, header[1:]), Text()]
    metrics = {name: value for name, value in run["metrics"].items() if isinstance(value, (int, float))}
    if metrics:
        parts.append(pairs([(name, f"{value:.4f}") for name, value in metrics.items()]))
        parts.append(Text())
    parts.append(Text(_sentence(run, stages)))
    if spent := cost(run.get("cost") or {}):
        parts.append(Text(spent))
    parts += [Text(f"skipped: {name}: {why}") for name, why in (run.get("skipped") or {}).items()]
    warnings = [(row["name"], text) for row in stages for text in row.get("warnings", ())]
    parts += [Text(f"warning: {name}: {text.removeprefix(name + ': ')}", "yellow") for name, text in warnings]
    parts.append(Text(f"Results: {near(run['store'], here)} (these numbers: summary.json there)"))
    return Group(*parts)


def cost(found: Mapping[str, float]) -> str:
    """Return what a run cost and saved in a sentence; empty when there is nothing to say."""
    said = [f"{took(found['worker_seconds'])} of work"] if found.get("worker_seconds", 0) >= 0.05 else []
    said += [f"{took(found['saved_seconds'])} saved by reuse"] if found.get("saved_seconds", 0) >= 0.05 else []
    said += [f"cost {found['money']:.4g}"] if found.get("money") else []
    each = found.get("per_thousand_predictions")
    said += [f"{each:.2g} per 1,000 predictions"] if each else []
    return f"Workers: {', '.join(said)}." if said else ""


def bills(found: Sequence[Bill], by: str) -> RenderableType:
    """Return the table of what groups of runs cost."""
    if not found:
        return Text("No runs yet.")
    header = (by, "runs", "work", "idle", "start-up", "saved", "money")
    rows = [
        (
            bill.group,
            f"{bill.runs:,}",
            took(bill.worker_seconds),
            f"{bill.idle_share:.0%}",
            took(bill.startup_seconds),
            took(bill.saved_seconds),
            f"{bill.money:.4g}" if bill.money else "-",
        )
        for bill in found
    ]
    return columns(header, rows, header[1:])


def _new_rows(row: Mapping[str, Any]) -> str:
    """Rows per second of what was not reused; reused rows took no time."""
    units, fresh = row["units"], row["units"] - row["reused"]
    if not units or not fresh or not row["rows"] or row["seconds"] <= 0:
        return "-"
    return f"{row['rows'] * fresh / units / row['seconds']:,.0f}"


def _sentence(run: Mapping[str, Any], stages: Sequence[Mapping[str, Any]]) -> str:
    units, reused = sum(row["units"] for row in stages), sum(row["reused"] for row in stages)
    bad = sum(row.get("bad_rows", 0) for row in stages)
    if units and reused == units:
        done = f"Everything was up to date: all {plural(units, 'unit')} were reused ({took(run['seconds'])})."
    else:
        kept = f", {reused:,} of {plural(units, 'unit')} reused" if reused else ""
        done = f"Done in {took(run['seconds'])}{kept}."
    predicted = f" Predictions for {plural(run['rows_predicted'], 'row')}." if run["rows_predicted"] else ""
    held = f" {plural(bad, 'row')} could not be predicted and are marked as missing." if bad else ""
    return done + predicted + held


def plan(rows: Iterable[Any]) -> RenderableType:
    """Return the table of a dry run from ``StagePlanRow`` records."""
    listed = list(rows)
    header = ("stage", "kind", "units", "reused", "memory", "grid and why")
    cells = [
        (row.name, row.kind, f"{row.units:,}", f"{row.reused:,}", size(row.memory), _why(row)) for row in listed
    ]  # fmt: skip
    units, reused = sum(row.units for row in listed), sum(row.reused for row in listed)
    if units:
        end = f"{plural(units, 'unit')} to run, {reused:,} reused. Nothing was written. Memory is per task."
    else:
        end = f"Everything is up to date: all {plural(reused, 'unit')} would be reused. Nothing was written."
    return Group(columns(header, cells, ("units", "reused", "memory")), Text(), Text(end))


def _why(row: Any) -> str:
    total, alike = row.units + row.reused, len(row.reasons) == 1 and not row.reused
    reasons = ", ".join(
        reason if alike else f"{count:,} of {plural(total, 'unit')}: {reason}" for reason, count in row.reasons.items()
    )
    return "; ".join(part for part in (row.grid, reasons, row.note) if part)


def status(run: RunRecord, now: float, here: str = "") -> RenderableType:
    """Return one run: state, stages, what it said last, where to look, how to go on.

    Parameters
    ----------
    now : float
        Seconds since the epoch.
    here : str
        The working directory; a command to copy names another one.
    """
    title = Text.assemble((run.id, "bold"), "  ", state_text(run.state), f"  {_since(run, now)}")
    facts = [("workflow", near(run.source, here)), ("store", near(run.store, here)), ("cluster", run.cluster)]
    facts += [("labels", ", ".join(f"{key}={value}" for key, value in run.labels.items()))] if run.labels else []
    facts += [("process", f"{run.pid} on {run.host}")] if run.pid and run.state in ("running", "lost") else []
    facts += [("log", run.log)] if run.log else []
    facts += [("message", run.message)] if run.message else []
    facts += [("cost", spent.removeprefix("Workers: "))] if (spent := cost(run.summary.get("cost") or {})) else []
    parts: list[RenderableType] = [title, pairs(facts)]
    if run.stages:
        parts += [Text(), StageLines(run.stages if run.live else _stopped(run.stages))]
    if run.state in ("lost", "failed", "interrupted"):
        gone = "Its process is gone; committed work stays. " if run.state == "lost" else ""
        parts += [Text(), Text(f"{gone}Go on with: {command(run.command, run.cwd, here)}")]
    return Group(*parts)


def _stopped(stages: Iterable[StageRecord]) -> list[StageRecord]:
    """A stage of a run without a process does not run, whatever was heard of it last."""
    return [replace(stage, state="interrupted") if stage.state == "running" else stage for stage in stages]


def _since(run: RunRecord, now: float) -> str:
    if run.state == "queued":
        return f"since {clock(max(0.0, now - run.created))}"
    if run.state == "running":
        return f"for {clock(max(0.0, now - (run.started or now)))}"
    if run.state == "lost":
        silent = now - run.lease_until
        return f"no sign of life for {clock(silent)}" if silent > 0 else "just now"
    return (
        f"after {took(max(0.0, (run.finished or 0.0) - (run.started or run.finished or 0.0)))}, {moment(run.finished)}"
    )


def runs(records: Iterable[RunRecord], now: float, here: str = "") -> RenderableType:
    """Return the table of runs."""
    listed = list(records)
    if not listed:
        return Text("No runs yet.")
    header = ("run", "state", "started", "stages", "time", "store")
    rows = [
        (
            run.id,
            state_text(run.state),
            moment(run.started or run.created),
            _stages_done(run),
            _spent(run, now),
            near(run.store, here),
        )
        for run in listed
    ]
    return columns(header, rows, ("stages", "time"))


def _stages_done(run: RunRecord) -> str:
    return f"{sum(stage.state == 'ok' for stage in run.stages)}/{len(run.stages)}" if run.stages else "-"


def _spent(run: RunRecord, now: float) -> str:
    if run.started is None:
        return "-"
    end = run.finished if run.finished is not None else min(now, run.lease_until)
    return clock(max(0.0, end - run.started))


def moment(time: float | None) -> str:
    """Return a time (seconds since the epoch) for reading, to the minute."""
    return f"{datetime.fromtimestamp(time):%Y-%m-%d %H:%M}" if time is not None else "-"


def findings(found: Iterable[Finding]) -> Table:
    """Return what a check found: whether it is well, what was looked at, what it is, what to do."""
    rows = []
    for one in found:
        state = "ok" if one.ok else "failed"
        told = f"{one.said}: {one.remedy}" if one.remedy else one.said
        rows.append((Text(state, style=COLOURS[state]), one.what, told))
    return columns(("", "what", "found"), rows)


def pairs(listed: Iterable[tuple[str, str]]) -> Table:
    """Return names and values, one pair a line."""
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    for name, value in listed:
        grid.add_row(Text(name), Text(value))
    return grid
