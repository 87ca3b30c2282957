"""Ingest: CSV files become a table: one row dimension, sorted, coded categories, CF times.

Pass one reads the files once and finds the schema (rows, types, labels) and what each chunk will hold;
pass two writes the chunks that are new or differ, each worker process parsing the files at most once.
They must fit into a worker's memory, decoded; the plan says how much that is and refuses before it runs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from daskml_scale.engine.worker import WorkerContext
from daskml_scale.errors import PlanError, SpecError, StoreError
from daskml_scale.plan.records import Record, Written, after, digest, select
from daskml_scale.plan.units import FileId, Parts, Plan, Template, Unit, row_key, row_ranges
from daskml_scale.spec.explain import unknown
from daskml_scale.spec.expressions import Coded, Values, evaluate, names
from daskml_scale.spec.workflow import RowSpec
from daskml_scale.storage import files, stores, tables

from .base import Input, Ref, StageBase, StageResult
from .cells import Doubt, typed
from .csv_files import COMPRESSED, check_headers, read_together
from .csv_files import header as header

CODE = "ingest-3"
"""Changes whenever the kernel's output changes for the same input."""
MAX_LABELS = 100_000
"""Most labels of a category column: they live in the metadata that every reader loads."""


@dataclass(frozen=True, slots=True)
class Table:
    """The rows of the files, typed, derived and sorted.

    Attributes
    ----------
    columns : mapping of name to Values, each of shape (rows,)
    doubts : mapping of name to str
        Why a column became text although most of its values are of another kind.
    """

    columns: Mapping[str, Values]
    doubts: Mapping[str, str]

    @property
    def nbytes(self) -> int:
        return sum(_array(values).nbytes for values in self.columns.values())


@dataclass(frozen=True)
class IngestStage(StageBase):
    """See the module docstring.

    Attributes
    ----------
    source : str
        URL of the file.
    origin : str
        The source as the user named it, kept as an attribute of the table.
    more : tuple of str
        URLs of further files of the same columns; their rows follow.
    """

    source: str
    origin: str
    row: RowSpec
    columns: tuple[str, ...] | None = None
    derive: tuple[tuple[str, str], ...] = ()
    more: tuple[str, ...] = ()
    kind: str = "ingest"

    @property
    def sources(self) -> tuple[str, ...]:
        """All files, in the order of their rows."""
        return (self.source, *self.more)

    def reads(self) -> Mapping[str, Ref]:
        return {f"sources[{number}]": Ref("file", url) for number, url in enumerate(self.sources)}

    def plan(self, inputs: Mapping[str, Input], records: Mapping[str, Record]) -> Plan:
        found = [inputs[name] for name in self.reads()]
        sources = [source for source in found if isinstance(source, FileId)]
        if len(sources) < len(found):
            absent = self.sources[found.index(None)]
            raise PlanError(f"{self.name}: {absent} does not exist; check `source`")
        size, content = sum(source.size for source in sources), tuple(source.digest for source in sources)
        parameters = digest(self.columns, self.derive, self.row.sort_by, self.row.chunk)
        decoded = sum(source.size * (12 if source.url.endswith(COMPRESSED) else 4) for source in sources)
        scan = select(
            [(Unit("scan", weight=size), digest(content))],
            Parts(code=CODE, parameters=parameters),
            records,
            grid=f"one scan of {size / 2**20:,.1f} MiB",
            memory=decoded,
            shared=content,
            later=1,
        )
        if scan.units:
            self.check()
            return scan
        return after(scan, self._chunks(records["scan"].result, content, parameters, records))

    def _chunks(
        self, schema: Mapping[str, Any], content: tuple[str, ...], parameters: str, records: Mapping[str, Record]
    ) -> Plan:
        """Return the plan of the second pass."""
        rows, chunk = schema["rows"], min(self.row.chunk, max(1, schema["rows"]))
        kinds = {name: tables.ColumnType(**kind) for name, kind in schema["columns"].items()}
        template = Template(
            self.row.dim,
            rows,
            {name: kind.variable(self.row.dim, rows, chunk) for name, kind in kinds.items()},
            {
                "row_key": list(self.row.sort_by),
                "source": self.origin,
                "derived_from": {name: list(names(text)) for name, text in self.derive},
            },
        )
        units = [
            (Unit(row_key(start, chunk), (start, stop), stop - start), read)
            for (start, stop), read in zip(row_ranges(rows, chunk), schema["blocks"], strict=True)
        ]
        parts = Parts(code=CODE, parameters=parameters, schema=digest(schema["columns"], self.row.dim, chunk))
        return select(
            units,
            parts,
            records,
            grid=f"{len(units)} chunk{'s'[: len(units) != 1]} of {chunk:,} rows x {len(kinds)} columns",
            memory=2 * schema["bytes"],
            shared=(content, schema["columns"]),
            template=template,
            rows=rows,
        )

    def check(self) -> None:
        """Check the names of all columns against the first lines of the files.

        Raises
        ------
        SpecError
            When a column is named that they do not have.
        PlanError
            When a file has no header, or a column's name cannot be that of a stored array.
        """
        have = check_headers(self.sources)
        known = list(self.columns or have)
        wanted = [(f"columns[{number}]", name, have) for number, name in enumerate(self.columns or ())]
        for derived, text in self.derive:
            wanted += [(f"derive.{derived}", name, tuple(known)) for name in names(text)]
            known.append(derived)
        wanted += [(f"row.sort_by[{number}]", name, tuple(known)) for number, name in enumerate(self.row.sort_by)]
        for path, name, there in wanted:
            if name not in there:
                raise SpecError(unknown("column", name, there), file=self.origin, path=path)
        for name in self.columns or have:
            if "/" in name or name in (".", "..", "zarr.json") or name.startswith("__"):
                raise PlanError(
                    f"{self.origin}: column {name!r} cannot name a stored array; rename it there, "
                    "or leave it out by `columns`"
                )

    def kernel(self, unit: Unit, worker: WorkerContext) -> Any:
        if unit.key == "scan":
            table = self._table(worker, worker.shared)
            rows = len(next(iter(table.columns.values())))
            kinds = {name: self._type_of(name, values, table.doubts) for name, values in table.columns.items()}
            return {
                "rows": rows,
                # What each chunk will hold: one of the same rows is not written again when the files change elsewhere.
                "blocks": [_content(table, start, stop) for start, stop in row_ranges(rows, max(1, self.row.chunk))],
                "bytes": table.nbytes,
                "columns": {
                    name: {"dtype": kind.dtype, "attrs": dict(kind.attrs), "fill": kind.fill}
                    for name, kind in kinds.items()
                },
                "doubts": list(table.doubts.values()),
            }
        content, columns = worker.shared
        found = self._table(worker, content).columns
        start, stop = unit.payload
        encoded = {
            name: tables.encode(found[name][start:stop], tables.ColumnType(**kind)) for name, kind in columns.items()
        }
        return Written(stores.write_region(self.out, start, encoded), rows=stop - start)

    def finish(self, inputs: Mapping[str, Input], records: Mapping[str, Record]) -> StageResult:
        return StageResult(
            rows=sum(record.rows for record in records.values()), warnings=tuple(records["scan"].result["doubts"])
        )

    def _table(self, worker: WorkerContext, content: Sequence[str]) -> Table:
        key = ("ingest", tuple(content), digest(self.columns, self.derive, self.row.sort_by))
        return worker.cache.get(key, lambda: self.read(content), size=lambda table: table.nbytes)

    def read(self, content: Sequence[str]) -> Table:
        """Read, type, derive and sort the files.

        Parameters
        ----------
        content : sequence of str
            Digests of the files that were planned.

        Raises
        ------
        PlanError
            When one cannot be parsed, or a column is not of the kind that is asked of it.
        StoreError
            When one is not, or not any more, the file that was planned.
        """
        before = [files.stat(url) for url in self.sources]
        now = [files.file_id(url).digest for url in self.sources]
        frame, lengths = read_together(self.sources)
        changed = [
            url
            for url, planned, found, stat in zip(self.sources, content, now, before, strict=True)
            if planned != found or files.stat(url) != stat
        ]
        if changed:
            raise StoreError(f"{changed[0]} changed while being read; wait until it is written, then run again")
        columns: dict[str, Values] = {}
        doubts: dict[str, str] = {}
        for name in self.columns if self.columns is not None else map(str, frame.columns):
            columns[name], doubt = typed(frame[name])
            if doubt is not None:
                doubts[name] = self._told(name, doubt, lengths)
        for name, text in self.derive:
            columns[name] = self._derived(name, text, columns, doubts, len(frame))
            doubts.pop(name, None)
        order = self._order(columns, doubts, len(frame))
        return Table({name: values[order] for name, values in columns.items()}, doubts)

    def _told(self, name: str, doubt: Doubt, lengths: Sequence[int]) -> str:
        """Return a doubt for people: file, column, value and row, the first row after the header being row 1."""
        row, number = doubt.row, 0
        while row >= lengths[number]:
            row, number = row - lengths[number], number + 1
        source = self.origin if len(self.sources) == 1 else self.sources[number]
        more = f" (nor are {doubt.bad - 1:,} other values)" if doubt.bad > 1 else ""
        return (
            f"{source}: column {name!r} became text, a category: {doubt.value!r} in row {row + 1:,} {doubt.reason}"
            f"{more}, {doubt.good:,} values are; mend it, or leave the cell empty"
        )

    def _derived(
        self, name: str, text: str, columns: Mapping[str, Values], doubts: Mapping[str, str], rows: int
    ) -> np.ndarray:
        try:
            values = np.broadcast_to(evaluate(text, columns), (rows,))
        except ValueError as error:
            why = "; ".join(doubts[column] for column in names(text) if column in doubts)
            if not rows:
                why = "there are no rows, so what the columns hold cannot be told: add rows"
            raise PlanError(f"{self.origin}: derive.{name}: {why or error}") from None
        if values.dtype.kind == "m":
            raise PlanError(f"{self.name}: derive.{name} is a span of time; derive an instant or a number")
        return values

    def _order(self, columns: Mapping[str, Values], doubts: Mapping[str, str], rows: int) -> np.ndarray:
        """Return the stable order by the named columns, the first one first."""
        by = self.row.sort_by
        for name in by:
            if name in doubts:
                raise PlanError(f"row.sort_by: {doubts[name]}, or do not sort by it")
        return np.lexsort(tuple(_array(columns[name]) for name in reversed(by))) if by else np.arange(rows)

    def _type_of(self, name: str, values: Values, doubts: Mapping[str, str]) -> tables.ColumnType:
        labels = getattr(values, "labels", ())
        if len(labels) > MAX_LABELS:
            why = doubts.get(name) or "leave it out by `columns:`, or turn it into a number before"
            raise PlanError(f"column {name!r} has {len(labels):,} distinct texts, more than {MAX_LABELS:,}; {why}")
        try:
            return tables.column_type(values)
        except PlanError as error:
            raise PlanError(f"{self.origin}: column {name!r}: {error}") from None


def _content(table: Table, start: int, stop: int) -> str:
    """Return the digest of rows [start, stop)."""
    hasher = hashlib.blake2b(digest_size=20)
    for name, values in table.columns.items():
        hasher.update(f"{name}\0".encode())
        hasher.update(np.ascontiguousarray(_array(values)[start:stop]).tobytes())
    return hasher.hexdigest()


def _array(values: Values) -> np.ndarray:
    return values.codes if isinstance(values, Coded) else values
