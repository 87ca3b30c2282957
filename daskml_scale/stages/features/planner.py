"""The pure side of running a recipe: what must be scanned first, which rows a range needs, what it costs.

``RecipePlanner`` plans the fitting pass; when that is in the ledger, ``read`` folds it into a ``Ready``
recipe that answers for any range of rows. Shared by ``features``, ``predict`` and ``Recipe``. No I/O.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from daskml_scale.errors import PlanError
from daskml_scale.plan.memory import RowNeed, Share
from daskml_scale.plan.records import Record, digest, select
from daskml_scale.plan.units import Parts, Plan, Snapshot, Unit, row_key, row_ranges
from daskml_scale.spec.recipe_checks import check_steps
from daskml_scale.spec.steps import Lookup, dump_step
from daskml_scale.spec.steps_categories import TargetMean

from . import checks
from .learning import lessons
from .program import Program, joined_columns
from .statistics import Bounds, Ranges, learn
from .transformer import RowTransformer, StoredTable, Table

CODE = "features-2"
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
    """

    program: Program
    rows: Snapshot
    tables: Mapping[str, Snapshot] = field(default_factory=dict)
    where: str | None = None
    sources: Mapping[str, Table] = field(default_factory=dict)
    own_in_memory: frozenset[str] = frozenset()

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
        if columns and self.chunks:
            size = self.chunks[0][1]
            for start, stop in self.chunks:
                read = digest((start, stop), self.rows.row_ids(columns, start, stop))
                units.append((Unit(row_key(start, size, "fit"), ("rows", start, stop), stop - start), read))
        for position, step in enumerate(self.program.steps):
            if isinstance(step, Lookup):
                table = self.tables[step.table]
                read = digest(dump_step(step), _all_ids(table, joined_columns(step)))
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
        need = self._scan_need()
        fields = {
            "shared": self.transformer,
            "rows": self.rows.rows,
            "grid": f"{len(self.chunks):,} chunks to scan",
            "memory": need.total,
            "need": need,
            **plan,
        }
        return select(self.scan_units(), self.scan_parts(), records, **fields)

    def scan_parts(self) -> Parts:
        """Return what all units of the fitting pass share in their fingerprints."""
        learns = self.program.learns
        lesson = [self.program.steps[position] for position in _lesson(self.program)] if learns else []
        parameters = [
            self.program.ordinal if self.program.categories is None else None,
            self.where if learns else None,
            [self.program.known_at, sorted(self.program.windows)] if self.program.trailing else None,
            *[dump_step(step) for step in lesson],
            *[self.program.target for step in lesson if isinstance(step, TargetMean)],
        ]
        return Parts(code=CODE, parameters=digest(parameters))

    def _scan_need(self) -> RowNeed:
        rows = max((stop - start for start, stop in self.chunks), default=0)
        columns = self.program.scan_columns(self.where)
        own = RowNeed(
            rows, [Share("scanning", f"the columns ({len(columns):,})", 16 * rows * len(columns))], (), "chunk"
        )
        return max(own, RowNeed(rows, (), self.joined_shares(), "chunk"), key=_total)

    def joined_shares(self) -> list[Share]:
        """Return what the other tables take in a worker."""
        return [
            Share("holding", f"table {name}", 2 * 8 * self.tables[name].rows * (len(columns) + 2))
            for name, columns in self.program.tables.items()
        ]

    def read(self, records: Mapping[str, Record]) -> Ready:
        """Return the fitted recipe and its bounds from the records of the fitting pass."""
        keys = [unit.key for unit, _ in self.scan_units() if unit.key.startswith("fit/")]
        return self.fold([records[key].result for key in keys])

    def fold(self, scans: Sequence[Mapping[str, Any]]) -> Ready:
        """Return the fitted recipe and its bounds from the statistics of all chunks, in order.

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
        program = learn(self.program, scans, self.withheld)
        bounds = Bounds.merge(program, self.chunks, scans) if program.trailing and self.chunks else None
        return Ready(program, self, bounds)

    @cached_property
    def transformer(self) -> RowTransformer:
        """The recipe bound to its tables, as it is now (fitted or not)."""
        return self.bind(self.program)

    def bind(self, program: Program) -> RowTransformer:
        """Return a recipe bound to these tables."""

        def table(name: str, snapshot: Snapshot, columns: Sequence[str]) -> Table:
            return self.sources.get(name) or StoredTable(snapshot.url, digest(_all_ids(snapshot, columns)))

        tables = {name: table(name, self.tables[name], columns) for name, columns in program.tables.items()}
        rows = self.sources.get("") or StoredTable(self.rows.url)
        return RowTransformer(program, rows, tables, self.where, self.own)


@dataclass(frozen=True, eq=False)
class Ready:
    """A fitted recipe that knows its table.

    Attributes
    ----------
    program : Program
    planner : RecipePlanner
    bounds : Bounds or None
        ``None`` when no step looks at other rows of the table.
    """

    program: Program
    planner: RecipePlanner
    bounds: Bounds | None

    @cached_property
    def transformer(self) -> RowTransformer:
        """Runs the recipe on a range of rows; picklable, the ``shared`` of a plan."""
        return self.planner.bind(self.program)

    def halo(self, start: int, stop: int) -> Ranges:
        """Return the rows that trailing windows of rows [start, stop) may reach."""
        return self.bounds.halo(start, stop) if self.bounds is not None else ()

    def inputs(self, start: int, stop: int, also: Sequence[str] = ()) -> str:
        """Return the digest of the ids of all stored objects that rows [start, stop) depend on.

        Parameters
        ----------
        also : sequence of str
            Other columns of the same rows that the caller reads.
        """
        halo, rows = self.halo(start, stop), self.planner.rows
        own = rows.row_ids((*self.program.row_columns, *also), start, stop)
        around = [rows.row_ids(self.program.event_columns, first, last) for first, last in halo]
        return digest((start, stop), own, halo, around, self._joined_ids, self.planner.own)

    @cached_property
    def _joined_ids(self) -> str:
        used = self.program.tables
        return digest([(name, _all_ids(self.planner.tables[name], columns)) for name, columns in sorted(used.items())])

    def need(self, ranges: Sequence[tuple[int, int]], itemsize: int = 4) -> RowNeed | None:
        """Return the projected memory of the features of the largest of some ranges of rows, ``None`` without any.

        Decoded columns, float64 features, the result; the halo with its search keys; the other tables.
        """
        return max((self._need(start, stop, itemsize) for start, stop in ranges), key=_total, default=None)

    def _need(self, start: int, stop: int, itemsize: int) -> RowNeed:
        rows, features, columns = stop - start, self.program.features, self.program.row_columns
        around = sum(last - first for first, last in self.halo(start, stop))
        shares = [
            Share("reading", f"the columns ({len(columns):,})", rows * 8 * len(columns)),
            Share("writing", f"the features ({len(features):,})", rows * (8 + itemsize) * len(features)),
        ]
        if around:
            each = 8 * len(self.program.event_columns) + 48
            shares.append(Share("holding", f"the {around:,} rows before it that windows reach", around * each))
        return RowNeed(rows, shares, self.planner.joined_shares(), "matrix.shard")


def _total(need: RowNeed) -> int:
    return need.total


def require(snapshot: object, url: str, stage: str) -> Snapshot:
    """Return an input that must exist by now.

    Raises
    ------
    PlanError
    """
    if isinstance(snapshot, Snapshot):
        return snapshot
    raise PlanError(f"{stage}: {url} does not exist; run the stage that writes it, or check the URL")


def _lesson(program: Program) -> list[int]:
    """Return the positions of the steps that decide what is kept of a chunk."""
    found = lessons(program.steps)
    return sorted({*found.learn, *found.compute})


def _all_ids(snapshot: Snapshot, columns: Sequence[str]) -> list[tuple[str, tuple[str, ...]]]:
    return [(name, snapshot.ids.get(name, ())) for name in columns]
