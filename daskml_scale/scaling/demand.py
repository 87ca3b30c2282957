"""Who asks for workers, and which class of workers can serve it.

The records between the scheduler's snapshot (``engine.backlog``) and the policy, and pure functions: ``read`` turns
plain data into records, ``assign`` gives each demand to the cheapest class that can run it. Nothing here knows Dask or
a clock.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Demand:
    """Work of one kind: a stage, or the tasks of one prefix of other code.

    Attributes
    ----------
    name : str
        For the reasons.
    units : int
        Not finished, running ones included.
    runnable : int
        Could run now, running ones included.
    seconds : float or None
        Of one unit; ``None`` when nobody knows yet.
    resources : mapping
        What one task needs.
    """

    name: str
    units: int
    runnable: int
    seconds: float | None = None
    resources: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Shape:
    """What one worker of a class offers.

    Attributes
    ----------
    threads : int
        Tasks at a time.
    price : float
        Per worker and hour.
    """

    name: str
    threads: int = 1
    resources: Mapping[str, float] = field(default_factory=dict)
    price: float = 0.0

    def slots(self, wanted: Mapping[str, float]) -> int:
        """Return how many tasks that need ``wanted`` one worker runs at a time; 0 when none."""
        return slots(self.threads, self.resources, wanted)


def slots(threads: int, resources: Mapping[str, float], wanted: Mapping[str, float]) -> int:
    """Return how many tasks that need ``wanted`` a worker with these threads and resources runs at a time."""
    limits = [math.floor(resources.get(name, 0.0) / need) for name, need in wanted.items() if need > 0]
    return min([threads, *limits])


@dataclass(frozen=True, slots=True)
class WorkerView:
    """One worker that runs or was asked for.

    Attributes
    ----------
    ready : bool
        Whether it is registered with the scheduler.
    idle_since : float or None
        Seconds, the clock of ``now``; ``None`` while it has work.
    unique_bytes : int
        Bytes of results that only it holds.
    nbytes, memory : int
        Bytes of all results that it holds, and its limit (0: none).
    asked : float or None
        When it was asked for, the clock of ``now``; of those that start.
    """

    name: str
    ready: bool = True
    idle_since: float | None = None
    unique_bytes: int = 0
    nbytes: int = 0
    memory: int = 0
    asked: float | None = None


_HERE = ("running", "paused")
_GOING = ("stopping", "stopped", "closing", "closing_gracefully", "closed", "failed")
"""Words of ``distributed.core.Status``; a worker that has any other has registered and does not run yet."""


def read(
    raw: Mapping[str, Any],
    planned: Mapping[str, str],
    leaving: Iterable[str] = (),
    groups: Mapping[str, Sequence[str]] | None = None,
) -> tuple[list[Demand], dict[str, list[WorkerView]]]:
    """Turn the scheduler's snapshot into demands and workers by class.

    Parameters
    ----------
    raw : mapping
        As ``engine.backlog.snapshot`` gives it.
    planned : mapping of str to str
        Worker name -> class, of every worker that should exist; those the scheduler does not list, or lists
        before they run, are starting.
    leaving : iterable of str
        Names being retired: no longer counted.
    groups : mapping, optional
        Planned name -> names of its workers, where one entry stands for several.
    """
    demands = [_of_stage(row) for row in raw["stages"]] + [_of_tasks(row) for row in raw["tasks"]]
    gone = set(leaving)
    registered = {row["name"]: row for row in raw["workers"]}
    workers: dict[str, list[WorkerView]] = {name: [] for name in planned.values()}
    for name, worker_class in planned.items():
        if name in gone:
            continue
        members = (groups or {}).get(name, (name,))
        rows = [registered[member] for member in members if member in registered]
        if any(row["status"] in _HERE for row in rows):
            workers[worker_class].append(_view(name, rows))
        elif not any(row["status"] in _GOING for row in rows):
            workers[worker_class].append(WorkerView(name, ready=False))
    return [demand for demand in demands if demand.units > 0], workers


def _view(name: str, rows: Sequence[Mapping[str, Any]]) -> WorkerView:
    """Return one entry's workers as one: idle since the last of them is."""
    since = [row["idle_since"] for row in rows]
    return WorkerView(
        name,
        True,
        None if None in since else max(since),
        sum(row["unique_bytes"] for row in rows),
        sum(row.get("bytes", 0) for row in rows),
        sum(row.get("memory_limit", 0) for row in rows),
    )


def _of_stage(row: Mapping[str, Any]) -> Demand:
    units = int(row["units_left"])
    runnable = min(units, max(row["runnable"], row["in_flight"]))
    return Demand(str(row["stage"]), units, runnable, row["seconds_per_unit"], row["resources"])


def _of_tasks(row: Mapping[str, Any]) -> Demand:
    runnable = row["ready"] + row["processing"]
    return Demand(f"{row['prefix']} tasks", runnable + row["waiting"], runnable, row["seconds"], row["resources"])


def assign(demands: Iterable[Demand], shapes: Sequence[Shape]) -> tuple[dict[str, list[Demand]], tuple[str, ...]]:
    """Give each demand to the class that serves it at the lowest price per slot.

    At equal prices the class with fewer special resources wins (plain work stays off GPU workers), then
    the one named first.

    Returns
    -------
    demands : dict
        Class -> its demands; every class is there.
    infeasible : tuple of str
        One sentence per demand that no class can run; it never causes workers.
    """
    given: dict[str, list[Demand]] = {shape.name: [] for shape in shapes}
    infeasible = []
    for demand in demands:
        fitting = [shape for shape in shapes if shape.slots(demand.resources) > 0]
        if fitting:
            best = min(fitting, key=lambda shape: (shape.price / shape.slots(demand.resources), len(shape.resources)))
            given[best.name].append(demand)
        else:
            needs = ", ".join(f"{name} {amount:g}" for name, amount in sorted(demand.resources.items()))
            infeasible.append(
                f"{demand.name}: a task needs {needs} and no class of this cluster offers that "
                f"(classes: {', '.join(_offer(shape) for shape in shapes)})"
            )
    return given, tuple(infeasible)


UNKNOWN_SECONDS = 0.5
"""What a unit of unknown duration counts for in `backlog_seconds`: Dask's ``unknown-task-duration``."""


def backlog_seconds(raw: Mapping[str, Any], shapes: Sequence[Shape]) -> dict[str, float]:
    """Return class -> seconds of work per worker slot, for a gauge.

    Without classes, and for what none of them can run, the names of the needed resources are the class:
    ``gpu``; ``cpu`` when nothing is needed. Unknown durations count half a second each, so that somebody who
    scales by the gauge starts the first worker.
    """
    demands, _ = read({**raw, "workers": ()}, {})
    given, _ = assign(demands, shapes) if shapes else ({}, ())
    found = {shape.name: 0.0 for shape in shapes}
    owners = {id(demand): name for name, listed in given.items() for demand in listed}
    for demand in demands:
        name = owners.get(id(demand)) or "+".join(sorted(key.lower() for key in demand.resources)) or "cpu"
        each = UNKNOWN_SECONDS if demand.seconds is None else demand.seconds
        found[name] = found.get(name, 0.0) + demand.units * each
    return found


def _offer(shape: Shape) -> str:
    have = ", ".join(f"{name} {amount:g}" for name, amount in sorted(shape.resources.items()))
    return f"{shape.name} with {have}" if have else f"{shape.name} without resources"
