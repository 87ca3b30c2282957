"""The ``features`` stage: fit a recipe on the rows of ``fit_where``, write the matrix of all rows.

Pass one scans each input chunk for small statistics and checks the keys of lookup tables; pass two
writes one output shard per unit, reading its rows and the halo that trailing windows reach. A changed
chunk re-runs its own scan and the shards that read it, and all shards only when the recipe itself
learnt something else. Prediction runs the same recipe through ``planner`` and ``transformer``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from daskml_scale.engine.worker import WorkerContext
from daskml_scale.errors import PlanError
from daskml_scale.plan.memory import larger
from daskml_scale.plan.records import Record, Written, after, digest, select
from daskml_scale.plan.units import Parts, Plan, Snapshot, Template, Unit, Variable, row_key, row_ranges
from daskml_scale.spec.workflow import FeaturesSpec, MatrixOut
from daskml_scale.stages.base import Input, Ref, StageBase, StageResult
from daskml_scale.stages.inputs import require
from daskml_scale.storage import stores

from .kernels import numbers
from .planner import CODE, Ready, RecipePlanner
from .program import Program
from .seen import Seen
from .transformer import RowTransformer

FEATURES, NAMES, FOLD = "features", "feature", "fold"


def fold_features(number: int) -> str:
    """Return the variable of the features under the recipe that did not see a fold."""
    return f"{FEATURES}_without_{number}"


@dataclass(frozen=True)
class FeaturesStage(StageBase):
    """See the module docstring.

    Attributes
    ----------
    input : str
        URL of the table.
    tables : mapping of name to URL
    program : Program
        The recipe; a fitted one is applied as it is.
    fit_where : str or None
    matrix : MatrixOut
        Chunks, shards and type of the matrix.
    write : bool
        False: fit only.
    folders : tuple of Path
        Where the user's modules are looked for, before the installed ones.
    """

    input: str
    program: Program
    tables: Mapping[str, str] = field(default_factory=dict)
    fit_where: str | None = None
    matrix: MatrixOut = field(default_factory=MatrixOut)
    write: bool = True
    folders: tuple[Path, ...] = ()
    kind: str = "features"

    @classmethod
    def of(
        cls,
        spec: FeaturesSpec,
        *,
        name: str,
        ledger: str,
        input: str,
        tables: Mapping[str, str],
        folders: tuple[Path, ...] = (),
    ) -> FeaturesStage:
        """Return the stage of a workflow's spec; ``input`` and ``tables`` are URLs."""
        program = Program(tuple(spec.steps), spec.known_at, spec.target, folds=spec.folds)
        return cls(name, ledger, input, program, dict(tables), spec.fit_where, spec.out, folders=folders)

    def reads(self) -> Mapping[str, Ref]:
        return {
            "input": Ref("dataset", self.input),
            **{
                f"tables.{name}": Ref("dataset", self.tables[name])
                for name in self.program.tables
                if name in self.tables
            },
        }

    def planner(self, inputs: Mapping[str, Input]) -> RecipePlanner:
        """Return the planner on the gathered inputs, after checking that the recipe fits them."""
        rows = require(inputs["input"], self.input, self.name)
        tables = {
            name: require(inputs[f"tables.{name}"], url, self.name)
            for name, url in self.tables.items()
            if f"tables.{name}" in inputs
        }
        planner = RecipePlanner(self.program, rows, tables, self.fit_where, folders=self.folders)
        planner.check()
        return planner

    def plan(self, inputs: Mapping[str, Input], records: Mapping[str, Record]) -> Plan:
        planner = self.planner(inputs)
        scan = planner.scan(records)
        if not self.write:
            return scan
        layout = Layout.of(planner.rows, self.program, self.matrix)
        if scan.units:
            # An input that is not written yet has no ids: a dry run, which wants the expected schema now.
            template = None if planner.rows.known else layout.template(self.program)
            grid = f"{scan.grid}, then {layout.grid}"
            # How far windows reach is not known yet: the second pass is projected without its halo.
            rows = Ready(self.program, planner, None).need([(0, layout.shard)], np.dtype(self.matrix.dtype).itemsize)
            return larger(replace(scan, later=len(layout.ranges), grid=grid, template=template), rows)
        ready = planner.read(records)
        # Only now it is known what the features are called, and whose rows the recipe has seen.
        return after(scan, self._rows(ready, Layout.of(planner.rows, ready.program, self.matrix, ready.saw), records))

    def _rows(self, ready: Ready, layout: Layout, records: Mapping[str, Record]) -> Plan:
        """Return the plan of the second pass."""
        also = tuple(layout.copied)
        units = [
            (Unit(row_key(start, layout.shard), (start, stop, ready.halo(start, stop)), stop - start),
             ready.inputs(start, stop, also))
            for start, stop in layout.ranges
        ]  # fmt: skip
        recipe = ready.program.to_dict()
        model = ready.program.hash
        parts = Parts(
            code=CODE,
            model=digest(model, layout.fits) if layout.fits else model,
            parameters=digest(recipe["steps"], recipe["known_at"], recipe["target"]),
            schema=layout.schema,
        )
        need = ready.need(layout.ranges, np.dtype(self.matrix.dtype).itemsize)
        return select(
            units,
            parts,
            records,
            shared=(ready.transformer, layout.row_key, layout.fits),
            template=layout.template(ready.program),
            grid=layout.grid,
            memory=need.total if need else 0,
            need=need,
            rows=layout.rows,
        )

    def kernel(self, unit: Unit, worker: WorkerContext) -> Any:
        if not unit.key.startswith("rows/"):
            scanner: RowTransformer = worker.shared
            return scanner.scan_unit(unit, worker.cache)
        transformer, row_key, fits = worker.shared
        start, stop, halo = unit.payload
        # Keys are copied as stored: the same codes, units and fill.
        arrays: dict[str, Any] = {name: stores.Stored(self.input, name, start, stop) for name in row_key}
        programs = [transformer.program, *(transformer.program.fold(number) for number in range(fits))]
        matrices = transformer.matrices(programs, start, stop, halo, worker.cache, self.matrix.dtype)
        arrays.update(zip([FEATURES, *map(fold_features, range(fits))], matrices, strict=True))
        if fits:
            arrays[FOLD] = transformer.folds(start, stop)
        if target := self.program.target:
            arrays[target] = numbers(transformer.rows.read([target], start, stop)[target])
        return Written(stores.write_region(self.out, start, arrays), rows=stop - start)

    def finish(self, inputs: Mapping[str, Input], records: Mapping[str, Record]) -> StageResult:
        planner = self.planner(inputs)
        program = planner.read(records).program
        if self.write and stores.get_json(self.out, "recipe") != program.to_dict():
            stores.put_json(self.out, "recipe", program.to_dict())
        rows = planner.rows.rows
        return StageResult({"features": len(program.features), "rows": rows, "recipe_hash": program.hash}, rows)


@dataclass(frozen=True, eq=False)
class Layout:
    """How a feature matrix is stored.

    Attributes
    ----------
    copied : mapping of name to Variable
        The target and the key columns of the table, on the grid of the matrix.
    chunk, shard : int
        Rows per chunk, and per unit of work.
    fits : int
        Folds for which there is a matrix too, of the recipe that did not see them.
    saw : Seen or None
        Rows of the table that the recipe learnt from.
    """

    rows: int
    dim: str
    features: tuple[str, ...]
    target: str
    row_key: tuple[str, ...]
    copied: Mapping[str, Variable]
    chunk: int
    shard: int
    dtype: str
    fits: int = 0
    saw: Seen | None = None

    @classmethod
    def of(cls, table: Snapshot, program: Program, matrix: MatrixOut, saw: Seen | None = None) -> Layout:
        """Decide the layout: by default the table's own chunks.

        Parameters
        ----------
        saw : Seen, optional
            The rows of this very table that the recipe learnt from.

        Raises
        ------
        PlanError
            When a column of the table bears the name of a variable of the matrix.
        """
        rows, target = table.rows, program.target or ""
        row_key = tuple(name for name in table.attrs.get("row_key") or () if name in table.variables)
        here = program.learns or saw is not None  # it will learn from these rows, or it did
        fits = program.folds.count if program.folds is not None and here else 0
        made = {FEATURES, NAMES, *([FOLD] if fits else [])}
        taken = made.intersection({table.dim, target, *row_key})
        if taken:
            raise PlanError(
                f"{min(taken)!r} is a variable of every feature matrix; give that column of {table.url} another name"
            )
        own = max((found.write_unit[0] for found in table.variables.values() if found.dims == (table.dim,)), default=1)
        chunk, shard = grid(rows, own, matrix.chunk, matrix.shard)
        layout = cls(rows, table.dim, program.features, target, row_key, {}, chunk, shard, matrix.dtype, fits, saw)
        copied = {name: layout.column(table.variables[name]) for name in row_key}
        if target:
            copied[target] = layout.column(Variable("float64", (table.dim,), (rows,), (1,)))
        return replace(layout, copied=copied)

    @property
    def ranges(self) -> list[tuple[int, int]]:
        """Rows of every unit."""
        return row_ranges(self.rows, self.shard)

    @property
    def grid(self) -> str:
        units = len(self.ranges)
        return f"{units:,} shard{'s'[: units != 1]} of {self.shard:,} rows x {len(self.features):,} features"

    def column(self, variable: Variable) -> Variable:
        """Return a column of the table on the grid of the matrix."""
        shards = None if self.shard == self.chunk else (self.shard,)
        return replace(variable, shape=(self.rows,), chunks=(self.chunk,), shards=shards)

    @property
    def schema(self) -> str:
        """Digest of all but the number of rows."""
        copied = [(name, found.dtype, dict(found.attrs)) for name, found in sorted(self.copied.items())]
        more = [self.fits] if self.fits else []
        return digest(
            self.dim, self.features, self.target, self.row_key, copied, self.chunk, self.shard, self.dtype, *more
        )

    def template(self, program: Program) -> Template:
        """Return the dataset to create."""
        width = len(self.features)
        across = max(1, width)
        shards = None if self.shard == self.chunk else (self.shard, across)
        features = Variable(self.dtype, (self.dim, NAMES), (self.rows, width), (self.chunk, across), shards)
        variables = {
            FEATURES: features,
            **{fold_features(number): features for number in range(self.fits)},
            **({FOLD: self.column(Variable("int8", (self.dim,), (self.rows,), (1,)))} if self.fits else {}),
            NAMES: Variable("string", (NAMES,), (width,), (across,)),
            **self.copied,
        }
        attrs = {
            "target": self.target,
            "row_key": list(self.row_key),
            "recipe": program.alone().to_dict(),
            "recipe_hash": program.hash,
            **({"saw": self.saw.here()} if self.saw is not None else {}),
            **({"folds": self.fits} if self.fits else {}),
        }
        return Template(self.dim, self.rows, variables, attrs, {NAMES: list(self.features)})


def grid(rows: int, own: int, chunk: int | None, shard: int | None) -> tuple[int, int]:
    """Return rows per chunk and per shard, the shard a multiple of the chunk and neither beyond the table.

    Parameters
    ----------
    own : int
        Rows per stored object of the table: the default.
    """
    inner = chunk or shard or own
    outer = shard or max(inner, own // inner * inner)
    inner = max(1, min(inner, rows))
    return inner, max(inner, min(outer // inner, -(-rows // inner)) * inner)
