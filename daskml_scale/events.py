"""The one event vocabulary: what happened, as frozen records that survive JSON.

Progress bars, the registry, the JSONL log, the summary and the dashboard page are folds of
these events and hold no other truth. ``to_dict`` and ``from_dict`` are inverse. Times are
seconds since the epoch (float). This module does no I/O and reads no clock.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, ClassVar, NamedTuple

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
        data = asdict(self)
        for name in _REBUILD.get(type(self), ()):  # the transport refuses named tuples
            if data[name] is not None:
                data[name] = tuple(tuple(row) if isinstance(row, tuple) else row for row in data[name])
        return {"event": self.kind, **data}


class CellGrid(NamedTuple):
    """A map of units: an N-dimensional grid, in cells of one or more units.

    Attributes
    ----------
    name : str
        What the units are: ``rows``, ``fit``, ``block``.
    shape, step : tuple of int
        Units per dimension, and per cell along it.
    """

    name: str
    shape: tuple[int, ...]
    step: tuple[int, ...]

    @property
    def counts(self) -> tuple[int, ...]:
        """Cells per dimension."""
        return tuple(-(-size // step) for size, step in zip(self.shape, self.step, strict=True))


class Cell(NamedTuple):
    """What happened in one cell of a map.

    Attributes
    ----------
    at : int
        Number of the cell, in C order.
    done, failed, quarantined : int
        Units; quarantined ones are among those done.
    seconds : float
        Kernel seconds of these units.
    unit, worker, why : str
        Of the unit that says most: the last that failed, else the last one. ``why`` says why it ran, or failed.
    """

    at: int
    done: int
    failed: int
    quarantined: int
    seconds: float
    unit: str
    worker: str
    why: str


class Score(NamedTuple):
    """The score of a trial on one split.

    Attributes
    ----------
    split, splits : int
        Number of the split, and how many there are.
    score : float or None
        ``None`` when the fit failed.
    params : str
        The setting as text; only with split 0.
    """

    trial: int
    rung: int
    split: int
    splits: int
    score: float | None
    params: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RunStarted(Event):
    kind: ClassVar[str] = "run_started"
    workflow: str
    store: str
    stages: tuple[tuple[str, str], ...] = ()
    """(name, kind) in the order in which they will run."""
    edges: tuple[tuple[str, str], ...] = ()
    """(stage, stage that reads what it wrote)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterStarted(Event):
    """The run's cluster is up; a run that reuses everything starts none."""

    kind: ClassVar[str] = "cluster_started"
    cluster: str
    dashboard: str
    """Link to this run's page; empty without a dashboard."""
    seconds: float = 0.0
    """From asking for it to its being there."""
    logs: str = ""
    """Folder or file with what its workers write; empty where that is the output of the run itself."""


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
    cells: CellGrid | None = None
    """Where the units of this pass are on a map; absent where they have no place."""
    todo: tuple[int, ...] = ()
    """Units to run in each cell; empty when all of them are to run, or none."""


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
    quarantined: int = 0
    """Of the units that are done, those with rows that have no result."""
    cost: float = 0.0
    """Price of all workers since the stage had units to run; 0 without prices."""
    cells: tuple[Cell, ...] = ()
    """What was done where on the map of the pass; only for who watches, not in logs."""
    scores: tuple[Score, ...] = ()
    """Of trials of a search."""


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
    bad_rows: int = 0
    """Rows without a result."""
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


def _pairs(rows: Iterable[Any]) -> tuple[tuple[str, str], ...]:
    return tuple((str(one), str(other)) for one, other in rows)


_REBUILD: dict[type[Event], dict[str, Callable[[Any], Any]]] = {
    RunStarted: {"stages": _pairs, "edges": _pairs},
    StagePlanned: {
        "cells": lambda row: CellGrid(str(row[0]), tuple(map(int, row[1])), tuple(map(int, row[2]))),
        "todo": lambda row: tuple(map(int, row)),
    },
    UnitsCommitted: {
        "cells": lambda rows: tuple(Cell(*row) for row in rows),
        "scores": lambda rows: tuple(Score(*row) for row in rows),
    },
}
"""Fields that JSON turns into lists."""


def from_dict(data: Mapping[str, Any]) -> Event | None:
    """Rebuild an event; ``None`` for an unknown kind (a newer writer), unknown keys are dropped."""
    cls = EVENTS.get(str(data.get("event")))
    if cls is None:
        return None
    known = {f.name for f in fields(cls)}
    values = {key: value for key, value in data.items() if key in known}
    for name, rebuild in _REBUILD.get(cls, {}).items():
        if values.get(name) is not None:
            values[name] = rebuild(values[name])
    return cls(**values)


def ignore(event: Event) -> None:
    """The sink that does nothing."""
