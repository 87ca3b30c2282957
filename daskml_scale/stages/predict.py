"""Predict: every row of a raw table, from a saved bundle alone: its recipe makes the features.

Pass one finds what the recipe must know of the table (bounds for trailing windows); pass two writes
one output shard per unit. A worker process loads the model once. A row that cannot be predicted is
written as missing with a status, and its reason is in the ledger; more of them than ``max_bad`` fail
the stage. The model's hash is part of every fingerprint: another model predicts everything again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from daskml_scale.artifacts.bundle import Bundle, load_model
from daskml_scale.artifacts.manifest import MANIFEST, read_manifest
from daskml_scale.engine.worker import WorkerContext
from daskml_scale.errors import PlanError
from daskml_scale.plan.memory import RowNeed, Share, larger
from daskml_scale.plan.records import Record, Written, after, digest, select
from daskml_scale.plan.units import FileId, Parts, Plan, Reads, Snapshot, Unit, row_key
from daskml_scale.spec.workflow import MatrixOut
from daskml_scale.storage import files, stores

from .base import Input, Ref, StageBase, StageResult
from .features.planner import CODE as FEATURES_CODE
from .features.planner import Ready, RecipePlanner
from .functions import Sent, asked
from .inputs import require
from .isolate import GIVE_UP, NOT_A_ROWS_FAULT
from .matrix import FEATURE_NAMES, FEATURES
from .model_output import Output
from .optimise import ROWS, Pruned
from .outputs import Layout, bad_counts, concluded
from .scoring import Job, MatrixRows, Model, without_target
from .together import made
from .trial import TRIAL, faster_job, job_trial, with_trial
from .watch import SEEN, Watch, added, check_watched

CODE = "predict-1"
"""Changes whenever the kernel's output changes for the same input."""


@dataclass(frozen=True)
class PredictStage(StageBase):
    """See the module docstring.

    Attributes
    ----------
    input : str
        URL of the raw table; of a feature matrix for a bundle without a recipe.
    bundle : str
        URL of the bundle's folder.
    tables : mapping of name to URL
        Tables of the recipe's joins.
    method : str
        ``predict``, ``predict_proba``, ``decision_function``, ``transform``, or the name of ``function``.
    function : Sent, optional
        Called as ``function(estimator, X)`` in place of a method.
    output : mapping, optional
        ``name``, ``dtype``, ``dim`` and ``columns`` of the output, where the bundle does not tell.
    matrix : MatrixOut
        Chunks, shards and type of the output; by default the table's chunks and float32.
    max_bad : int
        Rows that may fail.
    on_error : str
        ``quarantine`` (rows that fail are missing, with a status), or ``raise``: the first fails its unit.
    trusted : tuple of str
        Types that the model file may hold beyond scikit-learn's.
    expected : mapping, optional
        The recipe that the model will have, for plans before it is trained.
    watched : bool
        Count features and predictions in the bins of training, for ``monitor``.
    slices : tuple of str
        Columns of the table: count for each of their values too.
    resources : mapping, optional
        Dask resources that each task needs.
    optimise : tuple of str
        Of ``optimise.WAYS``: tried on real rows by a unit of their own, before all others.
    folders : tuple of Path
        Where modules of the recipe's own functions are looked for, before the installed ones.
    """

    input: str
    bundle: str
    tables: Mapping[str, str] = field(default_factory=dict)
    method: str = "predict"
    function: Sent | None = None
    output: Mapping[str, Any] | None = None
    matrix: MatrixOut = field(default_factory=MatrixOut)
    max_bad: int = 0
    on_error: str = "quarantine"
    trusted: tuple[str, ...] = ()
    expected: Mapping[str, Any] | None = None
    watched: bool = False
    slices: tuple[str, ...] = ()
    resources: Mapping[str, float] | None = None
    optimise: tuple[str, ...] = ()
    folders: tuple[Path, ...] = ()
    kind: str = "predict"

    def reads(self) -> Mapping[str, Ref]:
        return {
            "input": Ref("dataset", self.input),
            "bundle": Ref("file", files.join(self.bundle, MANIFEST)),
            **{f"tables.{name}": Ref("dataset", url) for name, url in self.tables.items()},
        }

    def plan(self, inputs: Mapping[str, Input], records: Mapping[str, Record]) -> Plan:
        table = require(inputs["input"], self.input, self.name)
        if not isinstance(inputs["bundle"], FileId):
            return self._before_training(Layout.of(table, self.matrix), inputs, records)
        bundle = Bundle(self.bundle, read_manifest(self.bundle), self.trusted)
        output = Output.of("" if self.function else self.method, bundle.schema, self.matrix.dtype, self.output)
        model, layout = Model(bundle, self.method, output, self.function), Layout.of(table, self.matrix, output)
        if self.watched:
            check_watched(self.name, bundle, self.input, table.variables, self.slices)
        if bundle.recipe is None:
            return self._checked(self._rows(layout, model, records))
        planner = self._planner(table, bundle.recipe, inputs)
        scan = planner.scan(records)
        if scan.units:
            template = None if table.known else layout.template(model.output, model.attrs)
            grid = f"{scan.grid}, then {layout.grid}"
            return replace(scan, later=len(layout.ranges), grid=grid, template=template)
        return self._checked(after(scan, self._recipe_rows(layout, model, planner, records)))

    def _planner(self, table: Snapshot, recipe: Mapping[str, Any], inputs: Mapping[str, Input]) -> RecipePlanner:
        """Return the recipe's planner; the target is not read, new rows need not have one."""
        program = without_target(recipe)
        absent = [name for name in program.tables if name not in self.tables]
        if absent:
            raise PlanError(
                f"{self.name}: the recipe of {self.bundle} joins the tables {', '.join(program.tables)}; "
                f"name {', '.join(absent)} in `tables`"
            )
        tables = {
            name: require(inputs[f"tables.{name}"], self.tables[name], self.name) for name in program.tables
        }  # fmt: skip
        planner = RecipePlanner(program, table, tables, folders=self.folders)
        planner.check()
        return planner

    def _before_training(self, layout: Layout, inputs: Mapping[str, Input], records: Mapping[str, Record]) -> Plan:
        """Return the plan of a dry run whose model is not trained yet: units and grid, no work."""
        units = [(Unit(row_key(start, layout.shard), None, stop - start), "") for start, stop in layout.ranges]
        columns = len(layout.table.variables)
        need = RowNeed(layout.shard, [Share("reading", f"the columns ({columns:,})", layout.shard * 8 * 3 * columns)])
        rows = larger(select(units, Parts(code=CODE), records, grid=layout.grid, rows=layout.table.rows), need)
        if self.expected is None:
            return rows
        planner = self._planner(layout.table, self.expected, inputs)
        scan = planner.scan(records)
        features = Ready(planner.program, planner, None).need([(0, layout.shard)], 8)
        if scan.units:
            scan = replace(scan, later=len(units), grid=f"{scan.grid}, then {layout.grid}")
            return larger(larger(scan, need), features)
        return after(scan, larger(rows, features))

    def _recipe_rows(self, layout: Layout, model: Model, planner: RecipePlanner, records: Mapping[str, Record]) -> Plan:
        """Return the plan of the second pass over a raw table."""
        ready, also = planner.read(records), tuple(layout.copied)
        units = [
            (self._unit(start, stop, layout, ready.halo(start, stop)), ready.inputs(start, stop, also))
            for start, stop in layout.ranges
        ]
        job = Job(model, ready.transformer, also)
        return self._optimised(units, layout, job, ready.need(layout.ranges, 8), records)

    def _optimised(
        self,
        units: Sequence[tuple[Unit, Reads]],
        layout: Layout,
        job: Job,
        need: RowNeed | None,
        records: Mapping[str, Record],
    ) -> Plan:
        """Return the plan of all rows; before it, that of the unit that tries the faster ways on some."""
        if not self.optimise or not units:
            return self._select(units, layout, job, need, records)
        start, stop, halo = units[0][0].payload
        one = Unit(TRIAL, (start, min(stop, start + ROWS), halo))
        parts = Parts(
            code=f"{CODE}, {FEATURES_CODE}",
            model=digest(job.model.bundle.sha256),
            parameters=digest(asked(self.method, self.function), self.optimise),
        )
        first = select(
            [(one, units[0][1])], parts, records, shared=job, grid=f"a trial, then {layout.grid}", need=need,
            memory=need.total if need else 0,
        )  # fmt: skip
        if first.units:
            return replace(first, later=len(units), template=layout.template(job.model.output, job.model.attrs))
        job = faster_job(job, records[TRIAL].result, self.out)
        return after(first, self._select(units, layout, job, need, records))

    def _rows(self, layout: Layout, model: Model, records: Mapping[str, Record]) -> Plan:
        """Return the plan over a feature matrix, for a bundle without a recipe."""
        width, also, table = layout.matrix_width(model.bundle), tuple(layout.copied), layout.table
        made_by, names = table.attrs.get("recipe_hash", ""), (FEATURES, *also)

        def read(start: int, stop: int) -> str:
            return digest(made_by, (start, stop), table.row_ids(names, start, stop, later=True))

        wait = not all(isinstance(table.later(name), tuple) for name in names)
        units = [
            (self._unit(start, stop, layout), partial(read, start, stop) if wait else read(start, stop))
            for start, stop in layout.ranges
        ]
        source = MatrixRows(self.input, model.bundle.features, digest(layout.table.ids.get(FEATURE_NAMES, ())))
        job = Job(model, source, also)
        need = RowNeed(layout.shard, [Share("reading", FEATURES, layout.shard * 16 * width)])
        return self._optimised(units, layout, job, need, records)

    @staticmethod
    def _unit(start: int, stop: int, layout: Layout, halo: Any = ()) -> Unit:
        return Unit(row_key(start, layout.shard), (start, stop, halo), stop - start)

    def _select(
        self, units: Sequence[tuple[Unit, Reads]], layout: Layout, job: Job, need: RowNeed | None,
        records: Mapping[str, Record],
    ) -> Plan:  # fmt: skip
        output = job.model.output
        if need is not None:
            written = Share("writing", output.name, layout.shard * 16 * (1 + output.size))
            model = Share("holding", "the model", job.model.nbytes)
            need = replace(need, shares=(*need.shares, written), fixed=(*need.fixed, model))
        return select(
            units,
            Parts(
                code=f"{CODE}, {FEATURES_CODE}",
                model=digest(job.model.bundle.sha256, job.model.recipe_hash),
                parameters=digest(
                    asked(self.method, self.function),
                    *([[*self.slices], job.model.bundle.profile] if self.watched else []),
                    *([job.model.exported, isinstance(job.source, Pruned)] if self.optimise else []),
                ),
                schema=layout.schema(output),
            ),
            records,
            shared=job,
            template=layout.template(output, job.model.attrs),
            grid=layout.grid,
            memory=need.total if need else 0,
            need=need,
            rows=layout.table.rows,
        )

    def _checked(self, plan: Plan) -> Plan:
        """Refuse a model file that is altered or not trusted before any unit runs."""
        if plan.units:
            load_model(self.bundle, trusted=self.trusted)
        return plan

    def kernel(self, unit: Unit, worker: WorkerContext) -> Any:
        job = worker.shared
        if job is None:
            raise PlanError(f"{self.name}: {self.bundle} does not exist; train the model first, or check the path")
        if unit.key == TRIAL:
            return job_trial(self.optimise, job, unit.payload, self.out, worker)
        if not unit.key.startswith("rows/"):
            return job.scan_unit(unit, worker.cache)
        start, stop, halo = unit.payload
        limit = 0 if self.on_error == "raise" else max(self.max_bad, GIVE_UP)
        (ready, copied), scores = made(unit, job.model, worker, lambda unit: self._read(unit, job, worker))
        profile = job.model.bundle.profile if self.watched else None
        watch = None if profile is None else Watch.of(profile, self.method, self.input, self.slices, start, stop)
        values, status, bad = job.values(start, stop, halo, worker, limit, watch, ready, scores)
        arrays = {job.model.output.name: values, "status": status, **copied}
        found = bad_counts(status, bad.first(start)) if bad.status or watch else None
        if watch is not None and found is not None:
            found[SEEN] = watch.result(values)
        rows = stop - start
        return worker.write(lambda: Written(stores.write_region(self.out, start, arrays), rows=rows, result=found))

    def _read(self, unit: Unit, job: Job, worker: WorkerContext) -> tuple[np.ndarray | None, dict[str, stores.Stored]]:
        """Return the features of a unit, none where a row is to blame, and where its key columns are stored."""
        start, stop, halo = unit.payload
        copied = {name: stores.Stored(self.input, name, start, stop) for name in job.copied}
        try:
            return job.matrix(start, stop, halo, worker.cache), copied
        except NOT_A_ROWS_FAULT:
            raise
        except Exception:
            return None, copied  # found row by row, where bad rows are counted

    def finish(self, inputs: Mapping[str, Input], records: Mapping[str, Record]) -> StageResult:
        units = [record for key, record in sorted(records.items()) if key.startswith("rows/")]
        rows = sum(record.rows for record in units)
        if self.watched:
            stores.put_json(self.out, SEEN, added(record.result[SEEN] for record in units if record.result))
        result = concluded(self.name, self.method, rows, [record.result for record in units], self.max_bad)
        return with_trial(result, self.name, records)
