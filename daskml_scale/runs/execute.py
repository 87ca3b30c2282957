"""Run or plan a whole workflow: its stages in order, in one store, under one lock.

What was done lives in the stages' ledgers, so running again is resuming. This module starts no
cluster and knows no terminal: the client, when it is first needed, and the sink of events are given.
"""

from __future__ import annotations

import os
import platform
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from daskml_scale import events
from daskml_scale.engine.dispatch import dispatch
from daskml_scale.errors import DaskMLError, Exit, PlanError, SpecError, UnitsFailedError
from daskml_scale.plan.dag import order
from daskml_scale.plan.records import Record, to_record
from daskml_scale.plan.units import Plan, Snapshot
from daskml_scale.spec.workflow import EvaluateSpec, PredictSpec, StageSpec, TrainSpec, Workflow
from daskml_scale.stages.base import Input, Stage, StageResult
from daskml_scale.stages.failures import failure
from daskml_scale.stages.graph import LIMIT, StageGraph
from daskml_scale.stages.registry import Builder
from daskml_scale.stages.run import StageRow, accounted, checked_records, gather
from daskml_scale.storage import files
from daskml_scale.storage.ledger import Ledger
from daskml_scale.storage.lock import hold
from daskml_scale.storage.stores import dataset_of

LOOKED_AT = 256 << 20
"""Bytes of sources that a dry run reads: with more of them, what follows is not planned yet."""
PACKAGES = ("daskml-scale", "dask", "distributed", "zarr", "xarray", "numpy", "pandas", "scikit-learn")


@dataclass(frozen=True, slots=True)
class RunSummary:
    """The end of a run, also written to ``summary.json`` in its store.

    Attributes
    ----------
    state : str
        ``succeeded``, or ``partial`` when rows were quarantined within ``max_bad``.
    metrics : mapping
        Of the evaluate stages; with several of them the keys are ``<stage>.<metric>``.
    rows_predicted : int
    seconds : float
        Wall time of the run.
    cost : mapping
        ``worker_seconds`` of kernels, ``saved_seconds`` by reuse, ``money`` (0 without prices), and
        ``per_thousand_predictions``, of those that were made by this run.
    """

    run: str
    workflow: str
    store: str
    state: str
    stages: tuple[StageRow, ...] = ()
    metrics: Mapping[str, Any] = field(default_factory=dict)
    rows_predicted: int = 0
    versions: Mapping[str, str] = field(default_factory=dict)
    seconds: float = 0.0
    cost: Mapping[str, float] = field(default_factory=dict)

    @property
    def exit_code(self) -> int:
        return int(Exit.PARTIAL if self.state == "partial" else Exit.OK)

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {**asdict(self), "stages": [asdict(row) for row in self.stages]}

    def __repr__(self) -> str:
        units, reused = sum(r.units for r in self.stages), sum(r.reused for r in self.stages)
        return f"<Run {self.run or self.workflow}: {self.state}, {units} units, {reused} reused, {self.seconds:.1f} s>"

    def _repr_html_(self) -> str:
        from daskml_scale import html

        rows = [
            (row.name, row.kind, row.units, row.reused, f"{row.seconds:.1f}", f"{row.rows:,}") for row in self.stages
        ]
        stages = html.table(("stage", "kind", "units", "reused", "seconds", "rows"), rows, title=repr(self))
        scalars = [(name, f"{value:.4f}") for name, value in self.metrics.items() if isinstance(value, float)]
        return stages + (html.table(("metric", "value"), scalars) if scalars else "")


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


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that results depend on."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


@contextmanager
def _of_stage(name: str) -> Iterator[None]:
    """Say of which stage a specification is wrong, where only its own keys are known."""
    try:
        yield
    except SpecError as error:
        raise error.below(f"stages.{name}") from error.__cause__


def execute(
    workflow: Workflow,
    store: str,
    *,
    base: Path,
    modules: Path | None = None,
    client: Callable[[], Any] | None = None,
    sink: events.Sink = events.ignore,
    run: str = "",
) -> RunSummary:
    """Run every stage of a workflow, or what is left of it.

    Parameters
    ----------
    workflow : Workflow
    store : str
        URL of the store.
    base : Path
        Folder that relative sources are resolved from.
    modules : Path, optional
        Folder of the workflow's file: Python beside it is found there.
    client : callable, optional
        Gives the Dask client; called when the first unit must run. Without it, this process runs them.
    sink : callable, optional
    run : str, optional
        Run id.

    Raises
    ------
    DaskMLError
        The first error; what was committed before stays and is reused by the next run.
    """
    store = files.normal(store)
    builder = Builder(workflow, store, base, modules)
    names = order(workflow)
    stages = [builder.build(name) for name in names]
    started = time.time()
    results: dict[str, StageResult] = {}
    rows: list[StageRow] = []
    with hold(store, f"run {run or workflow.name}"):
        sink(
            events.RunStarted(
                time=started, run=run, workflow=workflow.name, store=store,
                stages=tuple((stage.name, stage.kind) for stage in stages),
            )
        )  # fmt: skip
        try:
            for stage in stages:
                with _of_stage(stage.name):
                    _refuse_incomplete(stage, {dataset_of(s.ledger): s.name for s in stages if _lacks_rows(results, s)})
                    results[stage.name], row = accounted(stage, client=client, sink=sink, run=run)
                rows.append(row)
            bad = sum(result.bad_rows for result in results.values())
            summary = RunSummary(
                run=run,
                workflow=workflow.name,
                store=store,
                state="partial" if bad else "succeeded",
                stages=tuple(rows),
                metrics=_metrics(workflow, {name: result.result for name, result in results.items()}),
                rows_predicted=sum(row.rows for row in rows if isinstance(workflow.stages[row.name], PredictSpec)),
                versions=versions(),
                seconds=time.time() - started,
                cost=_cost(rows),
            )
            files.write_json(files.join(store, "summary.json"), summary.to_dict())
        except BaseException as error:
            state, code = ("failed", Exit.FAILED) if isinstance(error, Exception) else ("interrupted", Exit.INTERRUPTED)
            code = error.exit_code if isinstance(error, DaskMLError) else code
            sink(_finished(started, run, state, code, str(error) or type(error).__name__))
            raise
        sink(_finished(started, run, summary.state, Exit(summary.exit_code), f"{bad} bad rows" if bad else ""))
    return summary


def _cost(rows: Sequence[StageRow]) -> dict[str, float]:
    """Return what a run cost, and what it saved by reuse."""
    found = {
        "worker_seconds": sum(row.worker_seconds for row in rows),
        "saved_seconds": sum(row.saved_seconds for row in rows),
        "money": sum(row.cost for row in rows),
    }
    predicted = [row for row in rows if row.kind == "predict" and row.cost_per_thousand]
    if predicted:
        made = sum(row.cost / row.cost_per_thousand for row in predicted)
        found["per_thousand_predictions"] = sum(row.cost for row in predicted) / made
    return found


def _refuse_incomplete(stage: Stage, incomplete: Mapping[str, str]) -> None:
    """Refuse to go on from a dataset that lacks rows.

    Raises
    ------
    UnitsFailedError
        Naming the stage that has units set aside.
    """
    for ref in stage.reads().values():
        if ref.url in incomplete:
            raise UnitsFailedError(
                f"{stage.name}: it reads {incomplete[ref.url]}, of which rows are missing (units set aside because "
                "they ended their worker every time); give its workers more memory or mend the input, and run again"
            )


def _lacks_rows(results: Mapping[str, StageResult], stage: Stage) -> bool:
    return stage.name in results and results[stage.name].missing > 0


def _finished(started: float, run: str, state: str, code: Exit, message: str) -> events.RunFinished:
    now = time.time()
    return events.RunFinished(
        time=now, run=run, state=state, seconds=now - started, exit_code=int(code), message=message
    )


def _metrics(workflow: Workflow, results: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    evaluated = [name for name in results if isinstance(workflow.stages[name], EvaluateSpec)]
    found: dict[str, Any] = {}
    for name in evaluated:
        for metric, value in results[name].get("metrics", {}).items():
            found[metric if len(evaluated) == 1 else f"{name}.{metric}"] = value
    return found


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
        with _of_stage(name):
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
        row = StagePlanRow(
            stage.name, stage.kind, 0, 0, 1, "", 0, {}, f"planned after {', '.join(waits_for)}: {error}"
        )  # fmt: skip
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
