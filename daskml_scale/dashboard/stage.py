"""How far one stage is: counts, rate and remaining time, folded from its events.

``next_stage`` is the whole behaviour. A stage may plan several passes, whose counts add up;
``StageStarted`` begins anew and ``StageFinished`` brings the final counts. Pure: methods that depend
on the time take ``now``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

from daskml_scale.dashboard import bounds
from daskml_scale.events import StageFinished, StagePlanned, StageStarted, UnitsCommitted

_HORIZON = 30.0
"""Seconds over which a rate is averaged; longer when commits are rarer than that."""

StageEvent: TypeAlias = StageStarted | StagePlanned | UnitsCommitted | StageFinished


@dataclass(frozen=True, slots=True)
class Pace:
    """Exponentially weighted units and seconds; their ratio is the rate.

    Both are forgotten alike, so the ratio is right from the first commit on and needs no warm-up.

    Attributes
    ----------
    units : float
        Units, old ones weighing less.
    span : float
        Seconds, old ones weighing less.
    since, clock : float
        When counting started, and up to when it has been brought (seconds since the epoch).
    commits : int
        Events counted.
    """

    units: float = 0.0
    span: float = 0.0
    since: float = 0.0
    clock: float = 0.0
    commits: int = 0

    def at(self, now: float) -> Pace:
        """Return the same pace brought forward to ``now``."""
        elapsed = max(0.0, now - self.clock)
        horizon = max(_HORIZON, 5 * (self.clock + elapsed - self.since) / max(1, self.commits))
        kept = math.exp(-elapsed / horizon)
        return replace(
            self,
            units=self.units * kept,
            span=self.span * kept + horizon * (1 - kept),
            clock=self.clock + elapsed,
        )

    def resume(self, now: float) -> Pace:
        """Return the pace from ``now`` on; the pause before it does not count."""
        return replace(self, since=self.since or now, clock=max(self.clock, now))

    def add(self, units: int, now: float) -> Pace:
        """Return the pace after ``units`` more at ``now``."""
        pace = (self if self.since else self.resume(now)).at(now)
        return replace(pace, units=pace.units + units, commits=pace.commits + 1)


@dataclass(frozen=True, slots=True)
class StageProgress:
    """One stage. ``done + failed <= units`` always; reused units are not in ``units``.

    Attributes
    ----------
    name, kind : str
    state : str
        waiting | running | ok | failed | interrupted
    units : int
        Units to run in all passes planned so far.
    done, failed : int
        Of these, committed and given up.
    reused : int
        Units whose earlier output is still valid.
    later : int
        Units expected in passes that are not planned yet (an estimate).
    quarantined : int
        Of those done, units with rows that have no result.
    worse : float
        When the last of them was committed, seconds since the epoch.
    rows : int
        Rows committed; once finished, all rows of the stage.
    bad_rows : int
        Rows without a result, once finished.
    seconds : float
        Kernel seconds summed over units.
    cost : float
        Price of all workers while the stage had units to run.
    started, wall : float
        When it started (seconds since the epoch), and the wall seconds once finished.
    reasons : mapping of str to int
        Why units run.
    message : str
    pace : Pace
    """

    name: str
    kind: str = ""
    state: str = "waiting"
    units: int = 0
    done: int = 0
    failed: int = 0
    reused: int = 0
    later: int = 0
    quarantined: int = 0
    worse: float = 0.0
    rows: int = 0
    bad_rows: int = 0
    seconds: float = 0.0
    cost: float = 0.0
    started: float = 0.0
    wall: float = 0.0
    reasons: Mapping[str, int] = field(default_factory=dict)
    message: str = ""
    pace: Pace = field(default_factory=Pace)

    @property
    def finished(self) -> bool:
        return self.state not in ("waiting", "running")

    @property
    def ready(self) -> int:
        """Units with valid output: reused or committed."""
        return self.reused + self.done

    @property
    def total(self) -> int:
        """All units that are known or expected."""
        return self.reused + self.units + self.later

    @property
    def left(self) -> int:
        """Units still to run, expected ones included."""
        return self.units - self.done - self.failed + self.later

    @property
    def fraction(self) -> float:
        """Share of the work that is over, 0 to 1. A stage that ended well without units is whole."""
        if self.state == "ok":
            return 1.0
        return (self.ready + self.failed) / self.total if self.total else 0.0

    def elapsed(self, now: float) -> float:
        """Return the wall seconds so far."""
        if self.finished:
            return self.wall
        return max(0.0, now - self.started) if self.started else 0.0

    def rate(self, now: float) -> float:
        """Return units per second: recent while running, the mean once finished; 0 when unknown."""
        if self.finished:
            return (self.done + self.failed) / self.wall if self.wall > 0 else 0.0
        if self.state != "running" or not self.pace.commits:
            return 0.0
        pace = self.pace.at(now)
        return pace.units / pace.span if pace.span > 0 else 0.0

    def eta(self, now: float) -> float | None:
        """Return the seconds that the stage still needs; ``None`` when unknown or not running."""
        rate = self.rate(now)
        if self.state != "running" or rate <= 0 or not self.left:
            return None
        return min(self.left / rate, 1e9)


def next_stage(stage: StageProgress, event: StageEvent) -> StageProgress:
    """Return the stage after ``event``, a cleaned event of this stage."""
    if isinstance(event, StageStarted):
        return StageProgress(stage.name, event.stage_kind, "running", started=event.time)
    if isinstance(event, StageFinished):
        return _finish(stage, event)
    stage = replace(stage, state="running", started=stage.started or event.time)
    if isinstance(event, StagePlanned):
        return _plan(stage, event)
    over = stage.done + stage.failed + event.units + event.failed
    return replace(
        stage,
        done=stage.done + event.units,
        failed=stage.failed + event.failed,
        units=max(stage.units, over),  # the event of the plan may have been lost
        rows=stage.rows + event.rows,
        seconds=stage.seconds + event.seconds,
        quarantined=stage.quarantined + event.quarantined,
        worse=event.time if event.quarantined else stage.worse,
        cost=max(stage.cost, event.cost),
        pace=stage.pace.add(event.units + event.failed, event.time),
    )


def _plan(stage: StageProgress, event: StagePlanned) -> StageProgress:
    reasons = dict(stage.reasons)
    for reason, units in bounds.tally(event.reasons).items():
        reasons[reason] = reasons.get(reason, 0) + units
    return replace(
        stage,
        units=stage.units + event.units,
        reused=stage.reused + event.reused,
        later=event.later,
        reasons=bounds.tally(reasons),
        pace=stage.pace.resume(event.time) if event.units else stage.pace,
    )


def _finish(stage: StageProgress, event: StageFinished) -> StageProgress:
    stage = replace(
        stage,
        state=event.state or "ok",
        wall=event.seconds,
        rows=event.rows or stage.rows,
        bad_rows=event.bad_rows,
        cost=event.cost or stage.cost,
        started=stage.started or max(0.0, event.time - event.seconds),
        message=event.message,
    )
    if stage.state != "ok":
        return stage
    reused = min(event.reused, event.units)
    units = event.units - reused
    failed = min(stage.failed, units)
    return replace(stage, units=units, done=units - failed, failed=failed, reused=reused, later=0)


def stage_from_dict(data: Mapping[str, Any]) -> StageProgress:
    """Rebuild a stage from its dict; unknown keys are dropped."""
    own = bounds.known(StageProgress, data)
    own["units"] = max(own.get("units", 0), own.get("done", 0) + own.get("failed", 0))
    pace = Pace(**bounds.known(Pace, data.get("pace", {})))
    return StageProgress(**own, pace=pace, reasons=bounds.tally(data.get("reasons")))
