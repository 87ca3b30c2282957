"""What the log of a run says for its report: when stages worked, how fast, why, with what result. One pass, bounded."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from daskml_scale.events import (
    ClusterStarted,
    Event,
    Scaled,
    StageFinished,
    StagePlanned,
    StageStarted,
    UnitsCommitted,
    Warned,
)

from .event_log import path_of, read

MOST_ROWS = 200
"""Scaling decisions, and warnings, in a report."""
MOST_POINTS = 2000
"""Of the throughput; beyond, every second one is forgotten and the rest is told half as often."""


@dataclass
class Logged:
    """What is read from a log; times in seconds since the epoch.

    Attributes
    ----------
    why : dict of stage to Counter of reason
    timeline : list of dict
        ``stage``, ``start``, ``end``, ``state``, of every time that a stage worked.
    done : list of (time, units)
        Units committed so far, all stages together.
    results : dict of stage to the result of its last end
    quarantined : Counter of stage
        Units with rows that have no result, since the stage started last.
    """

    why: dict[str, Counter[str]] = field(default_factory=dict)
    warnings: list[dict[str, Any]] = field(default_factory=list)
    scaling: list[dict[str, Any]] = field(default_factory=list)
    timeline: list[dict[str, Any]] = field(default_factory=list)
    done: list[tuple[float, int]] = field(default_factory=list)
    results: dict[str, Any] = field(default_factory=dict)
    quarantined: Counter[str] = field(default_factory=Counter)
    dashboard: str = ""
    units: int = 0
    _every: float = 0.0

    def take(self, event: Event) -> None:
        """Fold an event."""
        if isinstance(event, StagePlanned):
            self.why.setdefault(event.stage, Counter()).update(event.reasons)
        elif isinstance(event, Warned) and len(self.warnings) < MOST_ROWS:
            self.warnings.append({"stage": event.stage, "message": event.message})
        elif isinstance(event, Scaled):
            self.scaling.append(event.to_dict())
            del self.scaling[:-MOST_ROWS]
        elif isinstance(event, ClusterStarted):
            self.dashboard = event.dashboard
        elif isinstance(event, StageStarted):
            self.quarantined.pop(event.stage, None)
            self.timeline.append({"stage": event.stage, "start": event.time, "end": event.time, "state": "running"})
        elif isinstance(event, UnitsCommitted):
            self._commit(event)
        elif isinstance(event, StageFinished):
            self._finish(event)

    def _commit(self, event: UnitsCommitted) -> None:
        self.units += event.units + event.failed
        self.quarantined[event.stage] += event.quarantined
        if not self.done or event.time - self.done[-1][0] >= self._every:
            self.done.append((event.time, self.units))
        else:
            self.done[-1] = event.time, self.units
        if len(self.done) > MOST_POINTS:
            self.done = self.done[::2]
            self._every = 2 * max(self._every, (self.done[-1][0] - self.done[0][0]) / MOST_POINTS)

    def _finish(self, event: StageFinished) -> None:
        mine = next((row for row in reversed(self.timeline) if row["stage"] == event.stage), None)
        if mine is not None:
            mine.update(end=event.time, state=event.state)
        if event.state == "ok":
            self.results[event.stage] = dict(event.result)

    def throughput(self, points: int = 120) -> list[tuple[float, float]]:
        """Return (seconds since the first start, units per second) in equal spans."""
        if len(self.done) < 2:
            return []
        first = min([self.done[0][0], *(row["start"] for row in self.timeline)])
        span = max((self.done[-1][0] - first) / points, 1.0)
        counts: Counter[int] = Counter()
        before = 0
        for time, units in self.done:
            counts[int((time - first) / span)] += units - before
            before = units
        return [((at + 0.5) * span, counts[at] / span) for at in range(max(counts) + 1)]


def logged(home: Path, run: str) -> Logged:
    """Return what the log of a run says; nothing where it is gone."""
    path = path_of(home, run)
    found = Logged()
    listed: Iterable[Event] = read(path) if path.exists() else ()
    for event in listed:
        found.take(event)
    return found
