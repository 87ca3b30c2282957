"""The pure side of running a recipe: what must be scanned first, which rows a range needs, what it costs.

``RecipePlanner`` plans the fitting pass; when that is in the ledger, ``read`` folds it into a ``Ready``
recipe that answers for any range of rows. Shared by ``features``, ``predict`` and ``Recipe``. No I/O.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from daskml_scale.errors import PlanError
from daskml_scale.plan.records import Record, after, digest, select
from daskml_scale.plan.units import Parts, Plan, Snapshot, Unit, row_key, row_ranges
from daskml_scale.spec.expressions import names
from daskml_scale.spec.recipe_checks import check_steps
from daskml_scale.spec.steps import Lookup, dump_step
from daskml_scale.spec.steps_categories import TargetMean
from daskml_scale.spec.steps_learned import Aggregate, Function, SklearnStep
from daskml_scale.stages.functions import Sent

from . import calling, checks, estimators, memory
from .bounds import Bounds
from .learning import lessons
from .program import Program, joined_columns
from .ready import Ready as Ready
from .ready import all_ids
from .seen import Seen
from .statistics import at_their_steps, learn
from .transformer import MemoryTable, RowTransformer, StoredTable, Table

CODE = "features-7"
"""Changes whenever a kernel's output changes for the same input."""


@dataclass(frozen=True, eq=False)
class RecipePlanner:
    """A recipe and the schemas of its tables.

    Attributes
    ----------
    program : Program
        Unfitted, then the pass learns from the rows of ``where``; or fitted, then it only finds bounds.
    rows : Snapshot
    tables : mapping of name to Snapshot
    where : str or None
    sources : mapping of name to Table
        Tables that do not lie in a store (of the Python API), ``""`` being the rows.
    own_in_memory : frozenset of str
        Tables that are the rows themselves, where one of the two is in memory.
    folders : tuple of Path
        Where the user's modules are looked for, before the installed ones.
    """

    program: Program
    rows: Snapshot
    tables: Mapping[str, Snapshot] = field(default_factory=dict)
    where: str | None = None
    sources: Mapping[str, Table] = field(default_factory=dict)
    own_in_memory: frozenset[str] = frozenset()
    folders: tuple[Path, ...] = ()

    def check(self) -> None:
        """Refuse a recipe that does not fit its tables.

        Raises
        ------
        SpecError
        """
        program = self.program
        check_steps(
            program.steps,
            known_at=program.known_at,
            target=program.target,
            tables=self.tables,
            derived_from=self.rows.attrs.get("derived_from") or {},
        )
        others = {name: checks.kinds(snapshot) for name, snapshot in self.tables.items()}
        checks.check(program, checks.kinds(self.rows), others, self.where)
        checks.check_own_tables(program.steps, self.own, self.withheld)
        for position, step in enumerate(program.steps):
            if isinstance(step, SklearnStep) and program.categories is None:
                estimators.build(step, position)
            if isinstance(step, Function) and (fitted := program.learnt.get(str(position))):
                calling.check_code(step, position, self.functions[step.call], fitted)

    @cached_property
    def functions(self) -> dict[str, Sent]:
        """The user's functions by their paths."""
        return calling.functions_of(self.program.steps, self.folders)

    @cached_property
    def identity(self) -> str:
        """Digest of what the table holds in the columns read at the row; empty where it cannot be told."""
        columns, source = self.program.row_columns, self.sources.get("")
        if isinstance(source, MemoryTable):
            return MemoryTable({name: source.columns[name] for name in columns}).version
        return digest(self.rows.rows, self.rows.row_ids(columns, 0, self.rows.rows)) if self.rows.known else ""

    @cached_property
    def withheld(self) -> tuple[str, ...]:
        """Columns whose value at the row itself never counts; those of ``fit`` for a fitted recipe."""
        program = self.program
        if program.categories is not None:
            return program.withheld
        return checks.withheld(program.target, program.known_at, self.rows.attrs.get("derived_from") or {})

    @cached_property
    def own(self) -> frozenset[str]:
        """The joined tables that are the rows themselves: the same URL, or the same content in what is read."""
        found = set(self.own_in_memory)
        for name, columns in self.program.tables.items():
            table = self.tables[name]
            ids = [table.ids.get(column) for column in columns]
            same = all(ids) and ids == [self.rows.ids.get(column) for column in columns]
            if table.url and (table.url == self.rows.url or (same and table.rows == self.rows.rows)):
                found.add(name)
        return frozenset(found)

    @cached_property
    def chunks(self) -> list[tuple[int, int]]:
        """Row ranges of the fitting pass: the stored objects of the columns that the recipe reads."""
        used = {*self.program.row_columns, *self.program.event_columns} & set(self.rows.variables)
        sizes = [self.rows.variables[name].write_unit[0] for name in used]
        return row_ranges(self.rows.rows, max(sizes, default=max(1, self.rows.rows)))

    def scan_units(self) -> list[tuple[Unit, str]]:
        """Return the units of the fitting pass with the digests of their inputs; empty when nothing must be known."""
        units = []
        columns = self.program.scan_columns(self.where)
        if (columns or self.program.learns) and self.chunks:
            size = self.chunks[0][1]
            for start, stop in self.chunks:
                total = self._total
                read = digest((start, stop, *([total] * bool(total))), self.rows.row_ids(columns, start, stop))
                units.append((Unit(row_key(start, size, "fit"), ("rows", start, stop, total), stop - start), read))
        for position, step in enumerate(self.program.steps):
            if isinstance(step, Lookup):
                table = self.tables[step.table]
                read = digest(dump_step(step), all_ids(table, joined_columns(step)))
                units.append((Unit(f"keys/{position:08d}", ("keys", position), max(1, table.rows)), read))
        return units

    def scan(self, records: Mapping[str, Record], **plan: Any) -> Plan:
        """Return the plan of the fitting pass; without units when it is done or not needed.

        Parameters
        ----------
        records : mapping
            Of the stage's ledger.
        **plan
            Other fields of :class:`Plan`.
        """
        need = memory.of_scan(self)
        fields = {
            "shared": self.transformer,
            "rows": self.rows.rows,
            "grid": f"{len(self.chunks):,} chunks to scan",
            "memory": need.total,
            "need": need,
            **plan,
        }
        scan = select(self.scan_units(), self.scan_parts(), records, **fields)
        if scan.units or not self._fits_models or not self.rows.known:
            return scan
        ready = self.fold(self._scans(records))
        need = memory.of_transformers(self)
        fields |= {"shared": ready.transformer, "memory": need.total, "need": need, "grid": "transformers to fit"}
        return after(scan, select(self.model_units(ready), self.scan_parts(), records, **fields))

    @property
    def _total(self) -> int:
        """Rows of the table where the statistics of a chunk depend on it: contiguous folds are parts of it."""
        folds = self.program.folds if self.program.learns else None
        return self.rows.rows if folds is not None and folds.by is None else 0

    @property
    def _fits_models(self) -> bool:
        return self.program.categories is None and bool(self.program.estimators)

    def model_units(self, ready: Ready) -> list[tuple[Unit, str]]:
        """Return the units that fit transformers of scikit-learn, when the statistics are known.

        Parameters
        ----------
        ready : Ready
            The recipe as it is fitted without them.
        """
        program, where = self.program, self.where
        also = (*(names(where) if where else ()), *([program.target] if program.target else []))
        columns = tuple(dict.fromkeys((*program.row_columns, *also, *self._fold_columns)))
        units = []
        for position in program.estimators if self._fits_models else ():
            step = program.steps[position]
            assert isinstance(step, SklearnStep)
            chunks = estimators.sampled(step, self.chunks, ready.learnt_rows)
            parts = [(start, stop, ready.halo(start, stop)) for start, stop in chunks]
            made = program.made_before(position).intersection(step.of)
            read = digest(
                dump_step(step),
                [(start, stop, self.rows.row_ids(columns, start, stop), self._total) for start, stop, _ in parts],
                [ready.inputs(start, stop) for start, stop, _ in parts] if made else None,
                [ready.program.hash, ready.program.by_fold] if made else None,
                program.folds,
            )
            weight = max(1, sum(stop - start for start, stop in chunks))
            payload = ("model", position, tuple(parts), columns, self._total)
            units.append((Unit(f"models/{position:08d}", payload, weight), read))
        return units

    @property
    def _fold_columns(self) -> tuple[str, ...]:
        folds = self.program.folds
        return () if folds is None or folds.by is None else (folds.by,)

    def scan_parts(self) -> Parts:
        """Return what all units of the fitting pass share in their fingerprints."""
        learns = self.program.learns
        lesson = [self.program.steps[position] for position in _lesson(self.program)] if learns else []
        parameters = [
            self.program.ordinal if self.program.categories is None else None,
            self.where if learns else None,
            [self.program.known_at, sorted(self.program.windows)] if self.program.trailing else None,
            *[dump_step(step) for step in lesson],
            *[self.program.target for step in lesson if isinstance(step, (TargetMean, Aggregate))],
            *[calling.identity(self.functions[step.call]) for step in lesson if isinstance(step, Function)],
            *[dump_step(step) for step in self.program.carried.values()],
            *([self.program.folds] if learns and self.program.folds is not None else []),
        ]
        return Parts(code=CODE, parameters=digest(parameters))

    def read(self, records: Mapping[str, Record]) -> Ready:
        """Return the fitted recipe and its bounds from the records of the fitting pass."""
        models = {}
        if self._fits_models:
            models = {str(at): records[f"models/{at:08d}"].result for at in self.program.estimators}
        return self.fold(self._scans(records), models)

    def _scans(self, records: Mapping[str, Record]) -> list[Mapping[str, Any]]:
        keys = [unit.key for unit, _ in self.scan_units() if unit.key.startswith("fit/")]
        return [at_their_steps(self.program, records[key].result) for key in keys]

    def fold(self, scans: Sequence[Mapping[str, Any]], models: Mapping[str, Mapping[str, Any]] | None = None) -> Ready:
        """Return the fitted recipe and its bounds from the statistics of all chunks, in order.

        Parameters
        ----------
        models : mapping of position to mapping, optional
            The fitted transformers of scikit-learn.

        Raises
        ------
        PlanError
            When there are rows and ``where`` selects none of them.
        """
        if self.program.learns and self.where and self.rows.rows and not sum(found["learnt"] for found in scans):
            raise PlanError(
                f"none of the {self.rows.rows:,} rows{f' of {self.rows.url}' if self.rows.url else ''} is selected by "
                f"{self.where!r}: the recipe has nothing to learn from; widen the condition"
            )
        program = learn(self.program, scans, self.withheld, {**(models or {}), **self._codes})
        if self.program.learns:
            program = replace(program, seen=Seen.merge(self.identity, self.chunks, scans).to_json())
        bounds = Bounds.merge(program, self.chunks, scans) if program.trailing and self.chunks else None
        return Ready(program, self, bounds, tuple(found.get("learnt", 0) for found in scans))

    @property
    def _codes(self) -> dict[str, dict[str, Any]]:
        """The code of the user's functions, as something that is learnt."""
        steps = enumerate(self.program.steps)
        return {
            str(at): {"all": calling.identity(self.functions[s.call])} for at, s in steps if isinstance(s, Function)
        }

    @cached_property
    def transformer(self) -> RowTransformer:
        """The recipe bound to its tables, as it is now (fitted or not)."""
        return self.bind(self.program)

    def bind(self, program: Program, bounds: Bounds | None = None) -> RowTransformer:
        """Return a recipe bound to these tables."""

        def table(name: str, snapshot: Snapshot, columns: Sequence[str]) -> Table:
            return self.sources.get(name) or StoredTable(snapshot.url, digest(all_ids(snapshot, columns)))

        tables = {name: table(name, self.tables[name], columns) for name, columns in program.tables.items()}
        rows = self.sources.get("") or StoredTable(self.rows.url)
        carrying = bounds.carrying if bounds is not None else None
        return RowTransformer(program, rows, tables, self.where, self.own, self.functions, carrying, self.rows.rows)


def _lesson(program: Program) -> list[int]:
    """Return the positions of the steps that decide what is kept of a chunk."""
    found = lessons(program.steps)
    return sorted({*found.learn, *found.compute})
