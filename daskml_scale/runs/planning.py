"""Plan a whole workflow without writing anything: what would run, what is reused, and why.

A stage whose input another stage of the same run will write is planned from that input's expected schema.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from daskml_scale import html
from daskml_scale.engine.task import described
from daskml_scale.engine.worker import WorkerContext
from daskml_scale.errors import PlanError, SpecError
from daskml_scale.plan.dag import order
from daskml_scale.plan.records import RETRY, Record, to_record
from daskml_scale.plan.units import Outcome, Plan, Snapshot, Unit
from daskml_scale.spec.workflow import StageSpec, TrainSpec, Workflow
from daskml_scale.stages.base import Input, Stage
from daskml_scale.stages.failures import failure
from daskml_scale.stages.graph import LIMIT, StageGraph
from daskml_scale.stages.inputs import checked_records, gather
from daskml_scale.stages.registry import Builder
from daskml_scale.storage import files
from daskml_scale.storage.ledger import Ledger
from daskml_scale.storage.stores import dataset_of

from .check import checked
from .state import StageRecord

LOOKED_AT = 256 << 20
"""Bytes of sources that a dry run reads: with more of them, what follows is not planned yet."""


@dataclass(frozen=True, slots=True)
class StagePlanRow:
    """One stage of a dry run.

    Attributes
    ----------
    units : int
        To run, later passes included.
    memory : int
        Projected bytes per task.
    reasons : mapping
        Why units run -> how many.
    note : str
        What could not be known yet.
    graph : StageGraph or None
        The pass that would run first, as a Dask graph; ``None`` where it is planned later.
    """

    name: str
    kind: str
    units: int
    reused: int
    later: int
    grid: str
    memory: int
    reasons: Mapping[str, int] = field(default_factory=dict)
    note: str = ""
    graph: StageGraph | None = field(default=None, repr=False, compare=False)

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        found = asdict(replace(self, graph=None))
        del found["graph"]
        return found

    def to_stage(self) -> StageRecord:
        """Return it as the registry keeps the stages of a run that has not begun."""
        known = self.units + self.reused
        return StageRecord(self.name, self.kind, units=known, done=self.reused, reused=self.reused)

    def to_dask(self, limit: int | None = LIMIT) -> list[Any]:
        """Return the first units as ``dask.delayed`` objects: see `StageGraph.to_dask`."""
        return self._planned().to_dask(limit)

    def visualize(self, path: str | os.PathLike[str] | None = None, limit: int = LIMIT) -> Any:
        """Draw the first units as a task graph: see `StageGraph.visualize`."""
        return self._planned().visualize(path, limit)

    def _planned(self) -> StageGraph:
        if self.graph is None:
            raise PlanError(f"{self.name} has no graph yet: {self.note or 'nothing is planned'}")
        return self.graph


@contextmanager
def of_stage(name: str) -> Iterator[None]:
    """Say of which stage a specification is wrong, where only its own keys are known."""
    try:
        yield
    except SpecError as error:
        raise error.below(f"stages.{name}") from error.__cause__


@dataclass(frozen=True)
class Planned:
    """One stage as a dry run found it.

    Attributes
    ----------
    plan : Plan or None
        ``None`` where it cannot be planned before the stages that it waits for have run.
    records : mapping
        Of its ledger.
    """

    row: StagePlanRow
    stage: Stage
    plan: Plan | None
    records: Mapping[str, Record]
    writes: Snapshot | None = None
    """Expected schema of the output, when it will be written."""
    scan: Plan | None = None
    """The pass before ``plan`` that only looked at the source, where it was run for this plan."""


class PlanRows(list[StagePlanRow]):
    """The stages of a dry run; a notebook shows them as a table."""

    def _repr_html_(self) -> str:
        rows = [(row.name, row.kind, row.units, row.reused, row.later, row.grid, _why(row)) for row in self]
        return html.table(("stage", "kind", "to run", "reused", "later", "grid", "why"), rows, title="Plan")


def _why(row: StagePlanRow) -> str:
    return row.note or ", ".join(f"{reason} {count:,}" for reason, count in row.reasons.items())


def plan(workflow: Workflow, store: str, *, base: Path, modules: Path | None = None) -> PlanRows:
    """Plan every stage without writing anything: what would run, what is reused, and why."""
    return PlanRows(found.row for found in planned(workflow, store, base=base, modules=modules))


def planned(workflow: Workflow, store: str, *, base: Path, modules: Path | None = None) -> Iterator[Planned]:
    """Plan the stages in their order without writing anything; see the module docstring."""
    planner = Planner(workflow, store, base=base, modules=modules)
    for name in order(workflow):
        yield planner.one(name)


def planned_by(workflow: str | Path) -> Iterator[Planned]:
    """Plan the stages of a workflow of that name or path, in its own store."""
    loaded = checked(workflow)
    with loaded.placing():
        yield from planned(loaded.model, loaded.model.store, base=Path.cwd(), modules=loaded.folder)


class Planner:
    """Plans the stages of a workflow one by one, in their order.

    Parameters
    ----------
    again : collection of str
        Stages of which everything is done again.
    looked_at : int
        Bytes of sources that are read for a plan.
    quick : bool
        Leave out checks that import an estimator.
    """

    def __init__(
        self,
        workflow: Workflow,
        store: str,
        *,
        base: Path,
        modules: Path | None = None,
        again: Collection[str] = (),
        looked_at: int = LOOKED_AT,
        quick: bool = False,
    ) -> None:
        self.workflow, self.again, self.looked_at, self.quick = workflow, again, looked_at, quick
        self.builder = Builder(workflow, files.normal(store), base, modules)
        self.expected: dict[str, Snapshot] = {}
        self.running: set[str] = set()
        self.stale: list[str] = []

    def one(self, name: str) -> Planned:
        """Plan a stage."""
        stage, spec = self.builder.build(name), self.workflow.stages[name]
        with of_stage(name):
            found = self._dry(stage, spec)
        if found.row.units or found.row.later:
            self.running.add(name)
            self.stale += [self.builder.dataset(name), self.builder.ledger(name)]
            self.stale += [self.builder.model(name)] if isinstance(spec, TrainSpec) else []
        if found.writes is not None:
            self.expected[self.builder.dataset(name)] = found.writes
        return found

    def _inputs(self, stage: Stage) -> dict[str, Input]:
        """Return the inputs of a stage as they will be when it is its turn, as far as that is known."""
        inputs: dict[str, Input] = dict(gather(stage.reads(), stage.ledger))
        for key, ref in stage.reads().items():
            found_now = inputs[key]
            if ref.kind == "dataset" and ref.url in self.expected:
                inputs[key] = self.expected[ref.url]
            elif isinstance(found_now, Snapshot) and ref.url in self.stale:
                inputs[key] = replace(found_now, ids={})
            elif ref.kind != "dataset" and any(ref.url == url or ref.url.startswith(f"{url}/") for url in self.stale):
                inputs[key] = None  # this run will write it anew
        return inputs

    def _not_known_yet(self, stage: Stage) -> bool:
        """Return whether nobody knows yet what a dataset that the stage reads will be; there may be one of before."""
        read = {ref.url for ref in stage.reads().values() if ref.kind == "dataset"}
        return bool(read.intersection(self.stale).difference(self.expected))

    def _dry(self, stage: Stage, spec: StageSpec) -> Planned:
        waits_for = sorted(self.running.intersection(spec.references().values()))
        inputs, records = self._inputs(stage), checked_records(Ledger(stage.ledger))
        if stage.name in self.again:
            records = records.marked(dict.fromkeys(records, RETRY))
        if waits_for and self._not_known_yet(stage):
            return _planned_later(stage, records, waits_for)
        make = getattr(stage, "projected", stage.plan) if self.quick else stage.plan
        try:
            found, scan = self._looked_through(stage, lambda seen: make(inputs, seen), records)
        except PlanError as error:
            if not waits_for:
                raise
            why = "" if "does not exist" in str(error) else f": {error}"  # of course not: a stage before it writes it
            return _planned_later(stage, records, waits_for, why)
        scanned = len(scan.units) if scan is not None else 0
        if waits_for and None in inputs.values():  # an estimator, say, that nobody knows yet: no code was compared
            reasons = Counter({why: count for why, count in found.reasons.items() if why != "code changed"})
            reasons["input changed"] += found.reasons.get("code changed", 0)
            found = replace(found, reasons=dict(+reasons))
        snapshot = None
        if found.template is not None and (found.units or scanned):
            snapshot = found.template.snapshot(dataset_of(stage.ledger))
        note = f"its input is written by {', '.join(waits_for)}" if waits_for else ""
        units = len(found.units) + scanned + found.later
        row = StagePlanRow(
            stage.name, stage.kind, units, found.reused - scanned, found.later, found.grid, found.memory, found.reasons,
            note, StageGraph(stage, found),
        )  # fmt: skip
        return Planned(row, stage, found, records, snapshot, scan)

    def _looked_through(
        self, stage: Stage, make: Callable[[Mapping[str, Record]], Plan], records: Mapping[str, Record]
    ) -> tuple[Plan, Plan | None]:
        """Return a plan, and the passes that only looked at the source and were run for it."""
        found, looked = make(records), list[Plan]()
        while _only_looks(found, self.looked_at):
            looked.append(found)
            records = {**records, **_seen(stage, found)}
            found = make(records)
        scan = _together(looked)
        if scan is not None:
            found = replace(found, reasons=dict(Counter(found.reasons) + Counter(scan.reasons)))
        return found, scan


def _planned_later(stage: Stage, records: Mapping[str, Record], waits_for: list[str], why: str = "") -> Planned:
    note = f"planned after {', '.join(waits_for)}{why}"
    return Planned(StagePlanRow(stage.name, stage.kind, 0, 0, 1, "", 0, {}, note), stage, None, records)


def _only_looks(found: Plan, most: int) -> bool:
    """Return whether a pass of a dry run writes nothing and is soon done: a plan needs what it finds."""
    looks = all(unit.key.partition("/")[0] in ("hash", "scan", "index", "text") for unit in found.units)
    return bool(found.units) and looks and sum(unit.weight for unit in found.units) <= most


def _seen(stage: Stage, found: Plan) -> dict[str, Record]:
    """Run the units that look at a source here, without committing them."""
    context = WorkerContext(shared=found.shared, threads=len(os.sched_getaffinity(0)))
    records = [to_record(_outcome(stage, unit, context), found) for unit in found.units]
    failed = [record for record in records if record.error]
    if failed:
        raise failure(stage.name, failed, len(records))
    return {record.unit: record for record in records}


def _outcome(stage: Stage, unit: Unit, context: WorkerContext) -> Outcome:
    """Run a unit here: the engine would import Dask, to measure what it returned."""
    try:
        return Outcome(unit, stage.kernel(unit, context))
    except Exception as raised:
        why = described(raised)
        return Outcome(unit, None, why.error, why.traceback)


def _together(looked: list[Plan]) -> Plan | None:
    """Return passes that only looked as one."""
    if not looked:
        return None
    units = tuple(unit for one in looked for unit in one.units)
    reasons = sum((Counter(one.reasons) for one in looked), Counter[str]())
    return replace(looked[0], units=units, keys=looked[-1].keys, reasons=dict(reasons))
