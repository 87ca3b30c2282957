"""A table of one small file in memory: typed, derived and sorted as a whole; and what derived columns hold."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from daskml_scale.errors import PlanError
from daskml_scale.plan.units import row_ranges
from daskml_scale.spec.expressions import Coded, Values, evaluate, names
from daskml_scale.storage import tables

from . import merged_types, read_values
from .ingest_blocks import Reading, nbytes
from .ingest_files import BLOCK, File
from .merged_types import Part
from .parquet_files import Footer
from .read_types import Kind


@dataclass(frozen=True, slots=True)
class Table:
    """The rows of a file, typed, derived and sorted.

    Attributes
    ----------
    columns : mapping of name to Values, each of shape (rows,)
    kinds : mapping of name to ColumnType
        How they are stored.
    doubts : tuple of str
        Why columns became text although most of their values are of another kind.
    """

    columns: Mapping[str, Values]
    kinds: Mapping[str, tables.ColumnType]
    doubts: tuple[str, ...]

    @property
    def nbytes(self) -> int:
        return nbytes(self.columns)

    def result(self, chunk: int) -> dict[str, Any]:
        """Return the result of the scan, as JSON."""
        rows = len(next(iter(self.columns.values())))
        return {
            "rows": rows,
            # What each chunk will hold: one of the same rows is not written again when the file changes elsewhere.
            "blocks": [self._content(start, stop) for start, stop in row_ranges(rows, chunk)],
            "bytes": self.nbytes,
            "columns": {
                name: {"dtype": kind.dtype, "attrs": dict(kind.attrs), "fill": kind.fill}
                for name, kind in self.kinds.items()
            },
            "doubts": list(self.doubts),
        }

    def _content(self, start: int, stop: int) -> str:
        """Return the digest of rows [start, stop)."""
        hasher = hashlib.blake2b(digest_size=20)
        for name, values in self.columns.items():
            hasher.update(f"{name}\0".encode())
            hasher.update(np.ascontiguousarray(_array(values)[start:stop]).tobytes())
        return hasher.hexdigest()


def alone(file: File) -> bool:
    """Return whether a file is small enough to be worked on as a whole."""
    if isinstance(file.about, Footer):
        return len(file.about.groups) <= 1 and sum(size for _, size in file.about.groups) <= BLOCK
    return file.source.size <= BLOCK


def table_of(reading: Reading, origin: str, by: Sequence[str]) -> Table:
    """Read, type, derive and sort the rows of a file of at most one block.

    Parameters
    ----------
    origin : str
        The file as the user named it.
    by : sequence of str
        Columns that order the rows.

    Raises
    ------
    PlanError
        When it cannot be parsed, or a column is not of the kind that is asked of it.
    StoreError
        When the file is not, or not any more, the one that was planned.
    """
    found, seen = reading.seen(0) if reading.blocks else (None, {})
    rows = len(found) if found is not None else 0
    parts = [Part(origin, 0, seen)] if seen else []
    kinds, doubts = {}, {}
    for name in reading.keep:
        kinds[name], doubt = merged_types.merge(parts, name)
        if doubt:
            doubts[name] = doubt
    columns = {
        name: np.empty(0) if found is None else read_values.typed(found[name], kinds[name]) for name in reading.keep
    }
    for name, text in reading.derive:
        columns[name] = derived(name, text, columns, doubts, rows, rows, origin)
        doubts.pop(name, None)
    for name in by:
        if name in doubts:
            raise PlanError(f"row.sort_by: {doubts[name]}, or do not sort by it")
    order = np.lexsort(tuple(_array(columns[name]) for name in reversed(by))) if by else np.arange(rows)
    made = {name for name, _ in reading.derive}
    stored = {
        name: tables.column_type(values) if name in made or kinds[name].kind == "time" else kinds[name].stored()
        for name, values in columns.items()
    }
    return Table({name: values[order] for name, values in columns.items()}, stored, tuple(doubts.values()))


def derived(
    name: str,
    text: str,
    columns: Mapping[str, Values],
    doubts: Mapping[str, str],
    rows: int,
    total: int,
    origin: str,
) -> np.ndarray:
    """Return a derived column, shape (rows,).

    Parameters
    ----------
    doubts : mapping of column to str
        Why columns are text.
    total : int
        Rows of the whole table.

    Raises
    ------
    PlanError
        When the expression does not fit what the columns hold.
    """
    try:
        values = np.broadcast_to(evaluate(text, columns), (rows,))
    except ValueError as error:
        why = "; ".join(doubts[column] for column in names(text) if column in doubts)
        if not total:
            why = "there are no rows, so what the columns hold cannot be told: add rows"
        raise PlanError(f"{origin}: derive.{name}: {why or error}") from None
    if values.dtype.kind == "m":
        raise PlanError(f"{origin}: derive.{name} is a span of time; derive an instant or a number")
    return values


def derived_kinds(reading: Reading, doubts: Mapping[str, str], total: int, origin: str) -> dict[str, Kind]:
    """Return what derived columns hold, from the kinds of the others alone; errors as in :func:`derived`."""
    columns: dict[str, Values] = {name: _empty(reading.kinds[name]) for name in reading.keep}
    found = {}
    for name, text in reading.derive:
        values = derived(name, text, columns, doubts, 0, total, origin)
        kind = {"M": "time", "i": "int", "u": "int"}.get(values.dtype.kind, "float")
        columns[name], found[name] = values, Kind(kind)
    return found


def _empty(kind: Kind) -> Values:
    if kind.kind == "text":
        return Coded(np.empty(0, dtype="int32"), kind.labels)
    return np.empty(0, dtype={"time": "datetime64[ns]", "int": "int64"}.get(kind.kind, "float64"))


def _array(values: Values) -> np.ndarray:
    return values.codes if isinstance(values, Coded) else values
