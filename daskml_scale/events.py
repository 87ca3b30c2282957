"""The one event vocabulary: what happened, as frozen records that survive JSON.

Progress bars, the registry, the JSONL log, the summary and the dashboard page are folds of
these events and hold no other truth. ``to_dict`` and ``from_dict`` are inverse. Times are
seconds since the epoch (float). This module does no I/O and reads no clock.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, ClassVar

TOPIC = "daskml-workflow"
"""Dask event topic on which a driver publishes to the scheduler."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Base of all events."""

    kind: ClassVar[str] = ""
    time: float
    """When, seconds since the epoch."""
    run: str = ""
    """Run id; empty for work started from Python without a run."""

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-able dict with the key ``event`` naming the class."""
        return {"event": self.kind, **asdict(self)}


@dataclass(frozen=True, slots=True, kw_only=True)
class RunStarted(Event):
    kind: ClassVar[str] = "run_started"
    workflow: str
    store: str
    stages: tuple[tuple[str, str], ...] = ()
    """(name, kind) in the order in which they will run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterStarted(Event):
    """The run's cluster is up; a run that reuses everything starts none."""

    kind: ClassVar[str] = "cluster_started"
    cluster: str
    dashboard: str
    """Link to this run's page; empty without a dashboard."""
    seconds: float = 0.0
    """From asking for it to its being there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StageStarted(Event):
    kind: ClassVar[str] = "stage_started"
    stage: str
    stage_kind: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StagePlanned(Event):
    """A pass of a stage was planned. A stage may plan several passes; counts are those of this pass."""

    kind: ClassVar[str] = "stage_planned"
    stage: str
    units: int
    """Units to run in this pass."""
    reused: int
    """Units of this pass whose committed output is still valid."""
    later: int = 0
    """Units expected in later passes (an estimate)."""
    reasons: Mapping[str, int] = field(default_factory=dict)
    """Why units run: reason -> units."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UnitsCommitted(Event):
    """A ledger segment was made durable."""

    kind: ClassVar[str] = "units_committed"
    stage: str
    units: int
    """Units that are done; failed ones are not among them."""
    failed: int = 0
    rows: int = 0
    seconds: float = 0.0
    """Sum of kernel seconds of these units."""
    reasons: Mapping[str, int] = field(default_factory=dict)
    """Why units failed: exception class -> units."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StageFinished(Event):
    kind: ClassVar[str] = "stage_finished"
    stage: str
    state: str
    """ok | failed | interrupted | skipped"""
    seconds: float
    """Wall seconds of the whole stage."""
    units: int
    """Units of the stage, reused ones included."""
    reused: int
    rows: int = 0
    """Rows written or read by this stage, reused ones included."""
    result: Mapping[str, Any] = field(default_factory=dict)
    """Small JSON result: metrics, best parameters, a model's path."""
    message: str = ""
    worker_seconds: float = 0.0
    """Kernel seconds of the units that ran, summed over workers."""
    saved_seconds: float = 0.0
    """Kernel seconds that the reused units took when they ran."""
    idle_share: float = 0.0
    """Part of the slots' time in which no kernel ran, 0 to 1."""
    cost: float = 0.0
    """Price of all workers while the stage had units to run; 0 without prices."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scaled(Event):
    """A scaling decision that changed something, or that a cap prevented."""

    kind: ClassVar[str] = "scaled"
    worker_class: str
    have: int
    """Workers of the class that run or start."""
    need: int
    """Workers asked for after the decision."""
    backlog_seconds: float
    reason: str
    starting: int = 0
    """Of those that it has, not there yet."""
    rule: str = ""
    """The rule or cap that set the number, see `scaling.records.Decision`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Warned(Event):
    kind: ClassVar[str] = "warned"
    stage: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFinished(Event):
    kind: ClassVar[str] = "run_finished"
    state: str
    """succeeded | failed | partial | interrupted | cancelled"""
    seconds: float
    exit_code: int
    message: str = ""


Sink = Callable[[Event], None]
"""Receives every event, one at a time; scaling decisions come from a cluster's thread. What it raises ends the run."""

EVENTS: dict[str, type[Event]] = {
    cls.kind: cls
    for cls in (
        RunStarted,
        ClusterStarted,
        StageStarted,
        StagePlanned,
        UnitsCommitted,
        StageFinished,
        Scaled,
        Warned,
        RunFinished,
    )
}


def from_dict(data: Mapping[str, Any]) -> Event | None:
    """Rebuild an event; ``None`` for an unknown kind (a newer writer), unknown keys are dropped."""
    cls = EVENTS.get(str(data.get("event")))
    if cls is None:
        return None
    known = {f.name for f in fields(cls)}
    values = {key: value for key, value in data.items() if key in known}
    if cls is RunStarted:
        values["stages"] = tuple((str(name), str(kind)) for name, kind in values.get("stages", ()))
    return cls(**values)


def ignore(event: Event) -> None:
    """The sink that does nothing."""
