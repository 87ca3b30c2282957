"""The stage kind ``map``: a Python function over a range, a list, rows of a table or files; a row per item.

Pass one calls the function; a unit is ``chunk`` items, and its result lies in the ledger. Pass two writes the
table ``<stage>.zarr`` from the ledger, so that later stages can read it. Files are units of their own, known by
their content, so only new and changed ones run again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from daskml_scale.engine.worker import WorkerContext
from daskml_scale.errors import PlanError
from daskml_scale.plan.records import Record, Written, after, digest, select
from daskml_scale.plan.units import FileId, Parts, Plan, Snapshot, Template, Unit, row_key, row_ranges
from daskml_scale.spec.expressions import Coded, Values
from daskml_scale.spec.items import AnyItems, MapFiles, MapList, MapRange, MapRows
from daskml_scale.spec.workflow import ROWS_PER_CHUNK
from daskml_scale.storage import stores, tables

from . import map_table
from .base import Input, Ref, StageBase, StageResult
from .code import code_digest
from .functions import Sent, find
from .inputs import require

CODE = "map-1"
"""Changes whenever the kernel's output changes for the same input."""
TABLE = "table"
"""Key of the unit that writes the table."""
MOST_UNITS = 1_000_000
ROWS_PER_UNIT = 1_000
_CELL = 64
"""Bytes of a cell as a Python object, about."""


@dataclass(frozen=True)
class MapStage(StageBase):
    """See the module docstring.

    Attributes
    ----------
    function : str
        ``module:name``.
    folders : tuple of Path
        Where modules of the user are looked for, before the installed ones.
    source : str
        URL of the table, or the absolute pattern of the files; empty for a range and a list.
    """

    function: str
    folders: tuple[Path, ...]
    over: AnyItems
    source: str = ""
    chunk: int | None = None
    retry: Mapping[str, int] = field(default_factory=dict)
    kind: str = "map"

    def reads(self) -> Mapping[str, Ref]:
        if isinstance(self.over, MapRows):
            return {"rows": Ref("dataset", self.source)}
        return {"files": Ref("files", self.source)} if isinstance(self.over, MapFiles) else {}

    def plan(self, inputs: Mapping[str, Input], records: Mapping[str, Record]) -> Plan:
        function = find(self.function, self.folders)
        units, what = self._units(inputs)
        rows = self._rows(inputs)
        calls = select(
            units,
            Parts(code=digest(CODE, code_digest(function).hex())),
            records,
            grid=f"{what} in {len(units):,} unit{'s'[: len(units) != 1]}",
            memory=self._memory(inputs),
            shared=Sent(function, self.folders),
            later=1,
            rows=rows,
        )
        if calls.units:
            return calls
        found = self._columns(inputs, [records[key].result for key in calls.keys])
        if not found:
            return calls
        return after(calls, self._table(inputs, found, [records[key].digest for key in calls.keys], records))

    def _table(
        self,
        inputs: Mapping[str, Input],
        found: Mapping[str, Values],
        ids: Sequence[str],
        records: Mapping[str, Record],
    ) -> Plan:
        """Return the plan of the second pass: one unit that writes the columns."""
        rows = self._rows(inputs)
        kinds = {name: tables.column_type(values) for name, values in found.items()}
        table = inputs.get("rows")
        dim = table.dim if isinstance(table, Snapshot) else "row"
        template = Template(
            dim,
            rows,
            {name: kind.variable(dim, rows, ROWS_PER_CHUNK) for name, kind in kinds.items()},
            {"function": self.function},
        )
        return select(
            [(Unit(TABLE, (0, rows), rows), digest(list(ids)))] if rows else [],
            Parts(code=CODE, schema=digest(dim, {name: kind.dtype for name, kind in kinds.items()})),
            records,
            grid=f"a table of {rows:,} rows x {len(kinds)} columns",
            memory=rows * len(kinds) * 16,
            shared={name: tables.encode(values, kinds[name]) for name, values in found.items()},
            template=template,
            rows=rows,
        )

    def _size(self) -> int:
        return self.chunk or (ROWS_PER_UNIT if isinstance(self.over, MapRows) else 1)

    def _rows(self, inputs: Mapping[str, Input]) -> int:
        match self.over:
            case MapRange():
                return len(_range(self.over))
            case MapList():
                return len(self.over.list)
            case MapRows():
                return self._snapshot(inputs).rows
        return len(self._files(inputs))

    def _units(self, inputs: Mapping[str, Input]) -> tuple[list[tuple[Unit, str]], str]:
        """Return the units with the digest of what each reads, and what they are, for people."""
        if isinstance(self.over, MapFiles):
            found = self._files(inputs)
            what = f"{len(found):,} file{'s'[: len(found) != 1]}"
            return [
                (Unit(f"file/{name}", each.url, max(1.0, each.size)), each.digest) for name, each in found.items()
            ], what
        rows = self._rows(inputs)
        what = f"{rows:,} {'row' if isinstance(self.over, MapRows) else 'item'}{'s'[: rows != 1]}"
        if (count := -(-rows // self._size())) > MOST_UNITS:
            raise PlanError(
                f"{self.name}: {what} in {count:,} units, more than {MOST_UNITS:,}; set chunk: to at least "
                f"{-(-rows // MOST_UNITS):,} (items that are committed together)"
            )
        ranges = row_ranges(rows, self._size())
        keys = [row_key(start, self._size(), "items") for start, _ in ranges]
        units = [Unit(key, span, span[1] - span[0]) for key, span in zip(keys, ranges, strict=True)]
        reads = [self._identity(inputs, start, stop) for start, stop in ranges]
        return list(zip(units, reads, strict=True)), what

    def _identity(self, inputs: Mapping[str, Input], start: int, stop: int) -> str:
        match self.over:
            case MapRange():
                part = _range(self.over)[start:stop]
                return digest(part.start, part.stop, part.step)
            case MapList():
                return digest(self.over.list[start:stop])
            case MapRows():
                columns = tuple(self.over.rows.columns)
                return digest(columns, start, stop, self._snapshot(inputs).row_ids(columns, start, stop))
        raise AssertionError(self.over)

    def _snapshot(self, inputs: Mapping[str, Input]) -> Snapshot:
        table = require(inputs["rows"], self.source, self.name)
        assert isinstance(self.over, MapRows)
        for name in self.over.rows.columns:
            variable = table.variables.get(name)
            if variable is None or variable.dims != (table.dim,):
                columns = [other for other, found in table.variables.items() if found.dims == (table.dim,)]
                raise PlanError(f"{self.name}: {table.url} has no column {name!r}; it has {', '.join(columns)}")
        return table

    def _files(self, inputs: Mapping[str, Input]) -> Mapping[str, FileId]:
        """Return the files by their name below the pattern's fixed part."""
        found = inputs["files"]
        if not isinstance(found, Mapping) or not found:
            raise PlanError(f"{self.name}: no file matches {self.source}; check `over.files`")
        return found

    def _memory(self, inputs: Mapping[str, Input]) -> int:
        if not isinstance(self.over, MapRows):
            return 0
        table = self._snapshot(inputs)
        read = max(table.variables[name].write_unit[0] for name in self.over.rows.columns)
        return (min(read, table.rows) * 8 * 3 + self._size() * _CELL) * len(self.over.rows.columns)

    def _columns(self, inputs: Mapping[str, Input], blocks: Sequence[Any]) -> dict[str, Values]:
        """Return the columns of the table: what the items are, then what the function returned."""
        own: dict[str, Values] = {}
        match self.over:
            case MapRange():
                own["item"] = map_table.typed(self.name, "item", list(_range(self.over)))
            case MapList() if all(isinstance(item, (str, int, float)) for item in self.over.list):
                own["item"] = map_table.typed(self.name, "item", self.over.list)
            case MapFiles():
                own["file"] = map_table.typed(self.name, "file", list(self._files(inputs)))
        return {**own, **map_table.columns(self.name, blocks)}

    def kernel(self, unit: Unit, worker: WorkerContext) -> Any:
        if unit.key == TABLE:
            return Written(stores.write_region(self.out, 0, worker.shared), rows=unit.payload[1])
        rows = []
        for item in self._items(unit.payload):
            try:
                rows.append(map_table.row(worker.shared(item)))
            except Exception as error:
                error.add_note(f"This was item {item!r} of stage {self.name}."[:1000])
                raise
        return map_table.block(rows)

    def _items(self, payload: Any) -> Iterator[Any]:
        """Yield the items of a unit."""
        match self.over:
            case MapFiles():
                yield payload
            case MapRange():
                yield from _range(self.over)[payload[0] : payload[1]]
            case MapList():
                yield from islice(self.over.list, *payload)
            case MapRows():
                names = self.over.rows.columns
                columns = tables.read_columns(self.source, names, *payload)
                lists = [_plain_list(columns[name]) for name in names]
                if len(names) == 1:
                    yield from lists[0]
                else:
                    yield from (dict(zip(names, values, strict=True)) for values in zip(*lists, strict=True))

    def finish(self, inputs: Mapping[str, Input], records: Mapping[str, Record]) -> StageResult:
        return StageResult({"items": self._rows(inputs)}, rows=self._rows(inputs))


def _range(over: MapRange) -> range:
    return range(*over.range) if isinstance(over.range, list) else range(over.range)


def _plain_list(values: Values) -> list[Any]:
    """Return a column as Python numbers, text (``None`` is missing) or ``numpy.datetime64``."""
    if isinstance(values, Coded):
        labels = [*values.labels, None]
        return [labels[code] for code in values.codes.tolist()]
    return list(values) if values.dtype.kind == "M" else values.tolist()
