"""What a run would take with other numbers of workers: its recorded units, played again on a simulated cluster.

Units come from the ledgers of a run, or from the plan of a workflow with durations that are remembered. Stages follow
one another as ``execute`` runs them; what the driver needed beside the units (planning, committing) is kept as a pause.
The policy is the one of live clusters. Not modelled: transfers, slower storage when more workers read it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from daskml_scale import events
from daskml_scale.errors import UsageError
from daskml_scale.scaling.demand import Shape
from daskml_scale.scaling.fleet import run_fleet
from daskml_scale.scaling.policy import Limits
from daskml_scale.scaling.scalers import BacklogScaler, FixedScaler
from daskml_scale.scaling.usage import Supply, Usage
from daskml_scale.scaling.workload import Batch
from daskml_scale.stages.durations import remembered
from daskml_scale.storage.ledger import Ledger

from .event_log import read
from .ledgers import found_in
from .planning import Planned
from .state import RunRecord

MOST_TASKS = 40_000
"""Tasks of a simulation; more units than that are joined, as the dispatcher joins them."""


@dataclass(frozen=True, slots=True)
class Load:
    """One stage as work to be done.

    Attributes
    ----------
    seconds : tuple of float
        Of each unit.
    serial : float
        Seconds of the driver beside them, measured; 0 when unknown.
    wall : float
        Seconds that the stage took; 0 when it has not run.
    workers : int
        That did its units.
    note : str
        Where the durations come from.
    """

    stage: str
    seconds: tuple[float, ...]
    serial: float = 0.0
    wall: float = 0.0
    workers: int = 0
    note: str = ""

    @property
    def work(self) -> float:
        """Worker-seconds of all units."""
        return sum(self.seconds)


@dataclass(frozen=True, slots=True)
class Capacity:
    """A simulated run with at most so many workers.

    Attributes
    ----------
    seconds : float
        Until the last unit is done.
    worker_hours, cost : float
        From asking for the workers to the end.
    idle : float
        Share of the paid slots' time without work, start-up included.
    """

    maximum: int
    seconds: float
    worker_hours: float
    cost: float
    idle: float
    started: int
    unused: int
    preempted: int
    timeline: tuple[tuple[float, int, int, int], ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form, without the timeline."""
        found = asdict(self)
        del found["timeline"]
        return found


def recorded(run: RunRecord, log: Path) -> list[Load]:
    """Return the stages of a run in their order, with the seconds of every unit that its ledgers hold.

    Raises
    ------
    UsageError
        When its store holds no ledger with finished units.
    """
    ledgers = found_in(run.store)
    names = [name for name in (stage.name for stage in run.stages) if name in ledgers] or list(ledgers)
    walls, sums = _measured(log)
    loads = []
    for name in names:
        records = [record for record in Ledger(ledgers[name]).records().values() if not record.error]
        workers = {record.worker for record in records}
        seconds = tuple(record.seconds for record in records)
        wall, ran = walls.get(name, 0.0), sums.get(name, 0.0)
        busy = max(ran / max(1, len(workers)), max(seconds, default=0.0) if ran else 0.0)
        loads.append(Load(name, seconds, max(0.0, wall - busy), wall, len(workers), "recorded"))
    if not any(load.work > 0 for load in loads):
        raise UsageError(
            f"{run.store} holds no finished units, so there is nothing to play again; run the workflow first"
        )
    return loads


def _measured(log: Path) -> tuple[dict[str, float], dict[str, float]]:
    """Return the wall seconds and the kernel seconds of each stage, of its last turn in a log."""
    walls: dict[str, float] = {}
    sums: dict[str, float] = {}
    if log.exists():
        for event in read(log):
            if isinstance(event, events.StageStarted):
                sums[event.stage] = 0.0
            elif isinstance(event, events.UnitsCommitted):
                sums[event.stage] = sums.get(event.stage, 0.0) + event.seconds
            elif isinstance(event, events.StageFinished):
                walls[event.stage] = event.seconds
    return walls, sums


def projected(stages: Iterable[Planned], given: Mapping[str, float]) -> list[Load]:
    """Return what a workflow would run now.

    Parameters
    ----------
    stages : iterable of Planned
        As of a dry run.
    given : mapping of stage to seconds
        Of one unit, instead of what is remembered.

    Raises
    ------
    UsageError
        When nothing is known of a stage's durations, or there is nothing to run.
    """
    loads, unknown, names = [], [], []
    for planned in stages:
        row, name = planned.row, planned.row.name
        names.append(name)
        if not row.units:
            continue
        each, note = _each(planned, given.get(name))
        if each is None:
            unknown.append(name)
        else:
            weights = [unit.weight for unit in planned.plan.units] if planned.plan is not None else []
            weights += [1.0] * (row.units - len(weights))
            loads.append(Load(name, tuple(each * weight for weight in weights), note=note))
    if wrong := sorted(set(given) - set(names)):
        raise UsageError(f"--seconds {wrong[0]}=...: no such stage; there are {', '.join(names)}")
    if unknown:
        raise UsageError(
            f"nothing is known of how long units of {', '.join(unknown)} take; run the workflow once on a part of the "
            f"data, or say it: --seconds {unknown[0]}=0.5"
        )
    if not loads:
        raise UsageError("everything is up to date: nothing would run; give a run instead (daskml-scale list)")
    return loads


def _each(planned: Planned, given: float | None) -> tuple[float | None, str]:
    """Return the seconds of one unit (of weight one), and where they come from."""
    if given is not None:
        return given, "given"
    known = [record.seconds for record in planned.records.values() if not record.error and record.seconds > 0]
    stage, plan = planned.stage, planned.plan
    if plan is not None:
        found = remembered(stage.ledger, (stage.kind, plan.parts.code, plan.parts.parameters))
        if found is not None:
            return found, "remembered"
    return (sum(known) / len(known), "mean of its ledger") if known else (None, "")


def batches(loads: Sequence[Load]) -> list[Batch]:
    """Return stages as batches, one after the other."""
    found: list[Batch] = []
    for load in loads:
        seconds = _joined(load.seconds)
        hint = load.work / len(seconds) if seconds else None
        if seconds:
            after = (len(found) - 1,) if found else ()
            found.append(Batch(load.stage, seconds, after=after, hint=hint, delay=load.serial))
        elif found:
            found[-1] = replace(found[-1], delay=found[-1].delay + load.serial)
    return found


def _joined(seconds: Sequence[float]) -> list[float]:
    size = -(-len(seconds) // MOST_TASKS)
    return [sum(seconds[start : start + size]) for start in range(0, len(seconds), size)] if seconds else []


def capacity(
    loads: Sequence[Load],
    maxima: Sequence[int],
    shape: Shape,
    startup: float,
    supply: Supply,
    limits: Limits,
    seed: int,
) -> list[Capacity]:
    """Simulate a run for each maximum of workers."""
    work = batches(loads)
    rows = []
    for maximum in maxima:
        bound = replace(limits, maximum=maximum, minimum=min(limits.minimum, maximum))
        scaler = BacklogScaler((shape,), {shape.name: bound}, {shape.name: startup})
        used = run_fleet(work, (shape,), scaler, supply, seed=seed, close=True, most=30 * 86400.0)
        rows.append(_row(maximum, used))
    return rows


def _row(maximum: int, used: Usage) -> Capacity:
    return Capacity(
        maximum, used.makespan, used.worker_seconds / 3600, used.cost, used.idle, used.started, used.unused,
        used.preempted, used.timeline,
    )  # fmt: skip


def speeds(loads: Sequence[Load], counts: Sequence[int], threads: int = 1) -> list[tuple[int, float]]:
    """Return (workers, seconds) of runs with a fixed number of workers that are all there at once."""
    work, shape = batches(loads), Shape("worker", threads)
    found = []
    for count in counts:
        used = run_fleet(work, (shape,), FixedScaler(shape, count), Supply((0.0, 0.0)), close=True, most=1e9)
        found.append((count, used.makespan))
    return found
