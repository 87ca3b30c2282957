"""Plan a whole workflow without writing anything: what would run, what is reused, and why.

A stage whose input another stage of the same run will write is planned from that input's expected schema.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from daskml_scale.engine.dispatch import dispatch
from daskml_scale.errors import PlanError, SpecError
from daskml_scale.plan.dag import order
from daskml_scale.plan.records import Record, to_record
from daskml_scale.plan.units import Plan, Snapshot
from daskml_scale.spec.workflow import StageSpec, TrainSpec, Workflow
from daskml_scale.stages.base import Input, Stage
from daskml_scale.stages.failures import failure
from daskml_scale.stages.graph import LIMIT, StageGraph
from daskml_scale.stages.registry import Builder
from daskml_scale.stages.run import checked_records, gather
from daskml_scale.storage import files
from daskml_scale.storage.ledger import Ledger
from daskml_scale.storage.stores import dataset_of

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


def plan(workflow: Workflow, store: str, *, base: Path, modules: Path | None = None) -> list[StagePlanRow]:
    """Plan every stage without writing anything: what would run, what is reused, and why."""
    return [found.row for found in planned(workflow, store, base=base, modules=modules)]


def planned(workflow: Workflow, store: str, *, base: Path, modules: Path | None = None) -> Iterator[Planned]:
    """Plan the stages in their order without writing anything.

    A stage whose input will be written by this very run is planned from the input's expected schema.
    """
    builder = Builder(workflow, files.normal(store), base, modules)
    expected: dict[str, Snapshot] = {}
    running: set[str] = set()
    stale: list[str] = []
    for name in order(workflow):
        stage, spec = builder.build(name), workflow.stages[name]
        with of_stage(name):
            found = _dry(stage, spec, expected, running, stale)
        if found.row.units or found.row.later:
            running.add(name)
            stale += [builder.dataset(name), builder.ledger(name)]
            stale += [builder.model(name)] if isinstance(spec, TrainSpec) else []
        if found.writes is not None:
            expected[builder.dataset(name)] = found.writes
        yield found


def _dry(
    stage: Stage, spec: StageSpec, expected: Mapping[str, Snapshot], running: set[str], stale: list[str]
) -> Planned:
    """Plan one stage of a dry run."""
    waits_for = sorted(running.intersection(spec.references().values()))
    inputs: dict[str, Input] = dict(gather(stage.reads(), stage.ledger))
    for key, ref in stage.reads().items():
        found_now = inputs[key]
        if ref.kind == "dataset" and ref.url in expected:
            inputs[key] = expected[ref.url]
        elif isinstance(found_now, Snapshot) and ref.url in stale:
            inputs[key] = replace(found_now, ids={})
        elif ref.kind != "dataset" and any(ref.url == url or ref.url.startswith(f"{url}/") for url in stale):
            inputs[key] = None  # this run will write it anew
    records = checked_records(Ledger(stage.ledger))
    try:
        found = stage.plan(inputs, records)
        looked: list[Plan] = []
        seen = dict(records)
        while _only_looks(found):
            looked.append(found)
            seen.update(_seen(stage, found))
            found = stage.plan(inputs, seen)
        scan = _together(looked)
        scanned = len(scan.units) if scan is not None else 0
        if scan is not None:
            found = replace(found, reasons=dict(Counter(found.reasons) + Counter(scan.reasons)))
    except PlanError as error:
        if not waits_for:
            raise
        why = "" if "does not exist" in str(error) else f": {error}"  # of course not: a stage before it writes it
        note = f"planned after {', '.join(waits_for)}{why}"
        row = StagePlanRow(stage.name, stage.kind, 0, 0, 1, "", 0, {}, note)
        return Planned(row, stage, None, records)
    snapshot = None
    if found.template is not None and (found.units or scanned):
        snapshot = found.template.snapshot(dataset_of(stage.ledger))
    note = f"its input is written by {', '.join(waits_for)}" if waits_for else ""
    units = len(found.units) + scanned + found.later
    row = StagePlanRow(
        stage.name,
        stage.kind,
        units,
        found.reused - scanned,
        found.later,
        found.grid,
        found.memory,
        found.reasons,
        note,
        StageGraph(stage, found),
    )
    return Planned(row, stage, found, records, snapshot, scan)


def _only_looks(found: Plan) -> bool:
    """Return whether a pass of a dry run writes nothing and is soon done: a plan needs what it finds."""
    looks = all(unit.key.partition("/")[0] in ("hash", "scan", "index", "text") for unit in found.units)
    return bool(found.units) and looks and sum(unit.weight for unit in found.units) <= LOOKED_AT


def _seen(stage: Stage, found: Plan) -> dict[str, Record]:
    """Run the units that look at a source here, without committing them."""
    records = [
        to_record(outcome, found)
        for group in dispatch(stage.kernel, found.shared, found.units, name=stage.name)
        for outcome in group
    ]
    failed = [record for record in records if record.error]
    if failed:
        raise failure(stage.name, failed, len(records))
    return {record.unit: record for record in records}


def _together(looked: list[Plan]) -> Plan | None:
    """Return passes that only looked as one."""
    if not looked:
        return None
    units = tuple(unit for one in looked for unit in one.units)
    reasons = Counter[str]()
    for one in looked:
        reasons.update(one.reasons)
    return replace(looked[0], units=units, keys=looked[-1].keys, reasons=dict(reasons))
