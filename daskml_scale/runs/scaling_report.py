"""Scaling for people: why the number of workers changed, what other numbers would have done, and what bounds a run."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from daskml_scale.events import Scaled
from daskml_scale.scaling.laws import Law, fit

from .event_log import read
from .replay import Capacity, Load, speeds
from .show import columns, pairs
from .words import clock, plural, took

COUNTS = tuple(2**power for power in range(13))
"""Workers of the replays: 1 to 4,096."""
BAR = 24


@dataclass(frozen=True, slots=True)
class Bound:
    """What limits a run with so many workers.

    Attributes
    ----------
    seconds : float
        Of the replay.
    efficiency : float
        Speed-up per worker, of the replay.
    amdahl, gunther : float
        The same, as the fitted laws have it.
    what : str
        What most of the time goes to.
    """

    workers: int
    seconds: float
    efficiency: float
    amdahl: float
    gunther: float
    what: str


@dataclass(frozen=True, slots=True)
class Report:
    """How a run scales.

    Attributes
    ----------
    work, serial, longest : float
        Seconds: of all units, of the driver beside them, and of the longest unit of every stage together (no number
        of workers is faster than the last two).
    measured : tuple of (workers, seconds)
        Of the run itself.
    """

    work: float
    serial: float
    longest: float
    measured: tuple[int, float]
    amdahl: Law
    gunther: Law
    bounds: tuple[Bound, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form; numbers that are infinite become null."""
        found = asdict(self)
        for name, law in (("amdahl", self.amdahl), ("gunther", self.gunther)):
            more = {"most_workers": law.most, "most_speed_up": law.speed_up}
            found[name] |= {key: value if math.isfinite(value) else None for key, value in more.items()}
        return found


def decisions(log: Path) -> list[Scaled]:
    """Return the scaling decisions of a run's log, oldest first."""
    return [event for event in read(log) if isinstance(event, Scaled)] if log.exists() else []


def explained(found: Sequence[Scaled], started: float) -> RenderableType:
    """Return decisions as a table, times since the start of the run."""
    if not found:
        return Text(
            "No scaling decisions: the run started no cluster, its cluster has no `scaling:` section, or the number of "
            "its workers never had to change."
        )
    header = ("after", "class", "have", "starting", "need", "backlog", "rule", "why")
    rows = [
        (
            clock(max(0.0, event.time - started)),
            event.worker_class or "-",
            f"{event.have:,}",
            f"{event.starting:,}",
            f"{event.need:,}",
            took(event.backlog_seconds),
            event.rule or "-",
            event.reason,
        )
        for event in found
    ]
    return columns(header, rows, ("after", "have", "starting", "need", "backlog"))


def capacities(rows: Sequence[Capacity], loads: Sequence[Load]) -> RenderableType:
    """Return simulated runs as a table with bars of their time."""
    header = ("max", "time", "worker-hours", "cost", "idle", "started", "unused", "preempted", "")
    slowest = max((row.seconds for row in rows if math.isfinite(row.seconds)), default=1.0)
    cells = [
        (
            f"{row.maximum:,}",
            took(row.seconds) if math.isfinite(row.seconds) else "never ends",
            f"{row.worker_hours:,.3g}",
            f"{row.cost:.4g}" if row.cost else "-",
            f"{row.idle:.0%}",
            f"{row.started:,}",
            f"{row.unused:,}",
            f"{row.preempted:,}",
            "█" * max(1, round(BAR * row.seconds / slowest)) if math.isfinite(row.seconds) else "",
        )
        for row in rows
    ]
    units, work = sum(len(load.seconds) for load in loads), sum(load.work for load in loads)
    notes = ", ".join(f"{load.stage} ({load.note})" for load in loads)
    end = f"Simulated from {plural(units, 'unit')} of {took(work)} of work: {notes}."
    return Group(columns(header, cells, header[:-1]), Text(), Text(end))


def report(loads: Sequence[Load]) -> Report:
    """Replay a run with 1 to 4,096 workers and fit both laws to it."""
    found = speeds(loads, COUNTS)
    work, serial = sum(load.work for load in loads), sum(load.serial for load in loads)
    longest = sum(max(load.seconds, default=0.0) for load in loads)
    points = [(float(count), work / seconds) for count, seconds in found]
    # Where nothing is gained any more, more of the same points would be all that the fit sees.
    useful = [p for n, p in enumerate(points) if n < 4 or p[1] > 1.02 * points[n - 1][1]]
    amdahl, gunther = fit(useful, coherence=False), fit(useful)
    one = found[0][1]
    bounds = tuple(
        Bound(
            count,
            seconds,
            one / seconds / count,
            amdahl.efficiency(count),
            gunther.efficiency(count),
            _bound(loads, count, serial, longest),
        )
        for count, seconds in found
    )
    measured = (max((load.workers for load in loads), default=0), sum(load.wall for load in loads))
    return Report(work, serial, longest, measured, amdahl, gunther, bounds)


def _bound(loads: Sequence[Load], workers: int, serial: float, longest: float) -> str:
    """Return what most of the time goes to: work, the driver, long units, or too few of them."""
    shared = sum(load.work for load in loads) / workers
    if shared >= max(serial, longest):
        return "work: more workers help"
    if serial >= longest:
        slowest = max(loads, key=lambda load: load.serial)
        return f"the driver: {took(serial)} beside the units, most of it in {slowest.stage}"
    stage = max(loads, key=lambda load: max(load.seconds, default=0.0))
    if workers > len(stage.seconds):
        return f"{stage.stage} has only {plural(len(stage.seconds), 'unit')}"
    return f"the longest unit of {stage.stage}: {took(max(stage.seconds))}"


def reported(found: Report) -> RenderableType:
    """Return a report for people."""
    header = ("workers", "time", "speed-up", "efficiency", "Amdahl", "Gunther", "bound by")
    one = found.bounds[0].seconds
    useful = [row.seconds < 0.99 * found.bounds[n - 1].seconds for n, row in enumerate(found.bounds)]
    last = max((n for n, gained in enumerate(useful) if gained), default=0) + 2
    cells = [
        (
            f"{row.workers:,}",
            took(row.seconds),
            f"{one / row.seconds:,.1f}",
            f"{row.efficiency:.0%}",
            f"{row.amdahl:.0%}",
            f"{row.gunther:.0%}",
            row.what,
        )
        for row in found.bounds[: last + 1]
    ]
    workers, wall = found.measured
    facts = [
        ("measured", f"{took(wall)} with {plural(workers, 'worker')}" if wall else "not in the log of this run"),
        ("work", f"{took(found.work)} in units, {took(found.serial)} of the driver beside them"),
        ("Amdahl", f"serial share {found.amdahl.sigma:.2%}: at most {_times(found.amdahl.speed_up)}"),
        (
            "Gunther",
            f"contention {found.gunther.sigma:.2%}, coherence {found.gunther.kappa:.2g}: at most "
            f"{_times(found.gunther.speed_up)}"
            + (f" with {found.gunther.most:,.0f} workers" if math.isfinite(found.gunther.most) else ""),
        ),
    ]
    facts += [("beyond", "more workers change nothing")] if last + 1 < len(found.bounds) else []
    return Group(columns(header, cells, header[:-1]), Text(), pairs(facts))


def _times(speed_up: float) -> str:
    return f"{speed_up:,.1f} times as fast as one worker" if math.isfinite(speed_up) else "any speed-up"
