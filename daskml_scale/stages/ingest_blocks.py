"""Blocks of files as rows of a table: how each becomes columns, and what lies below what.

A block is read by one worker at a time, and is what is read again when a file changes. ``Reading`` says how
blocks become columns; it travels to the workers once and holds no data. What follows another block in the
table is said by ``Pieces``. What a block is, is for ``ingest_files`` to say.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
from blake3 import blake3

from daskml_scale.engine.worker import Cache, memory_limit
from daskml_scale.errors import PlanError
from daskml_scale.plan.records import digest
from daskml_scale.spec.expressions import Coded, Values, evaluate, names
from daskml_scale.storage import tables

from . import csv_files, parquet_files, read_types, read_values
from .ingest_files import Block, File, unchanged
from .read_types import Kind, Seen

HOLD = 128 << 20
"""Most bytes of blocks that a process holds, where an eighth of its memory is more."""
HELD = Cache(limit=HOLD)
"""Blocks that this process read last: chunks of the table share them."""
_GROWTH = {"csv": 8, "packed": 24, "parquet": 4}
"""Bytes in memory while a block is read, per byte of it."""


@dataclass(frozen=True)
class Reading:
    """How the blocks of files become the columns of a table.

    Attributes
    ----------
    files, blocks : tuple
    keep : tuple of str
        Columns to read.
    derive : tuple of (name, expression)
    kinds : mapping of name to Kind
        Of the columns read; empty before it is known.
    raw : tuple of frozenset
        Per block, the columns to be read as text although the table holds something else.
    """

    files: tuple[File, ...]
    blocks: tuple[Block, ...]
    keep: tuple[str, ...]
    derive: tuple[tuple[str, str], ...] = ()
    kinds: Mapping[str, Kind] = field(default_factory=dict)
    raw: tuple[frozenset[str], ...] = ()

    def key(self, number: int) -> str:
        """Return the last part of the keys of a block's units."""
        block = self.blocks[number]
        return f"{self.files[block.file].name}/{block.number:06d}"

    def id(self, number: int) -> str:
        """Return what identifies a block: its file's content and its place in it."""
        block = self.blocks[number]
        return digest(self.files[block.file].source.digest, block.start, block.stop)

    def memory(self, number: int) -> int:
        """Return the projected bytes of reading a block."""
        block = self.blocks[number]
        file = self.files[block.file]
        return block.nbytes * _GROWTH["packed" if file.packed else file.format]

    def where(self, number: int) -> str:
        """Return a block for people."""
        block = self.blocks[number]
        file = self.files[block.file]
        if file.format == "parquet":
            return f"{file.shown}: row group {block.number}"
        return file.shown if block.stop == 0 else f"{file.shown}: bytes {block.start:,} to {block.stop:,}"

    def arrow(self, number: int, text: frozenset[str] = frozenset(), only: Sequence[str] | None = None) -> Any:
        """Read a block as a ``pyarrow.Table``.

        Raises
        ------
        PlanError
            When it cannot be parsed.
        StoreError
            When the file is not, or not any more, the one that was planned.
        """
        block = self.blocks[number]
        file, keep = self.files[block.file], self.keep if only is None else only
        url = file.source.url
        with unchanged(file.source):
            if file.format == "parquet":
                return parquet_files.read(url, block.start, keep)
            data = csv_files.read_bytes(url, block.start, block.stop or None)
        return csv_files.parse(data, file.columns, self.where(number), keep=keep, text=text)

    def seen(self, number: int) -> tuple[Any, dict[str, Seen]]:
        """Return a block as a ``pyarrow.Table``, text as it is written, and what its columns hold."""
        table = self.arrow(number)
        raw = [name for name in self.keep if self._seen(number, name, table[name]) is None]
        table, found = self._as_text(number, table, raw), {}
        for name in self.keep:
            one = self._seen(number, name, table[name], raw=name in raw)
            assert one is not None
            found[name] = one
        return table, found

    def scan(self, number: int) -> dict[str, Any]:
        """Return what a block holds, as JSON: rows, bytes, digest of the content, and ``Seen`` of each column."""
        table, found = self.seen(number)
        columns = {name: one.to_json() for name, one in found.items()}
        return {"rows": len(table), "bytes": table.nbytes, "digest": _content(table), "columns": columns}

    def _seen(self, number: int, name: str, column: Any, raw: bool = False) -> Seen | None:
        try:
            return read_types.seen(column, raw=raw)
        except PlanError as error:
            raise PlanError(f"{self.files[self.blocks[number].file].shown}: column {name!r}: {error}") from None

    def _as_text(self, number: int, table: Any, names: Sequence[str]) -> Any:
        """Replace columns by what is written in the file."""
        if not names or self.files[self.blocks[number].file].format == "parquet":
            return table
        again = self.arrow(number, frozenset(names), names)
        for name in names:
            table = table.set_column(table.column_names.index(name), name, again[name])
        return table

    def labels(self, number: int, names: Sequence[str]) -> dict[str, list[str]]:
        """Return the distinct texts of columns that are text elsewhere, as they are written here, sorted."""
        table = self.arrow(number, frozenset(names), names)
        return {
            name: sorted(table[name].drop_null().unique().to_pylist())[: read_types.MAX_LABELS + 1] for name in names
        }

    def table(self, number: int) -> dict[str, Values]:
        """Return a block's columns as the table holds them, derived ones too; from memory when just read."""
        HELD.limit = min(HOLD, memory_limit() // 8 or HOLD)
        key = ("block", self.id(number), self.keep, self._meaning)
        return HELD.get(key, lambda: self._table(number), size=nbytes)

    @cached_property
    def _meaning(self) -> str:
        return digest([(name, kind.kind, kind.labels) for name, kind in self.kinds.items()], self.derive)

    def _table(self, number: int) -> dict[str, Values]:
        text = frozenset(name for name, kind in self.kinds.items() if kind.kind == "text" and name in self.keep)
        raw = self.raw[number].intersection(self.keep) if self.raw else frozenset()
        found = self.arrow(number, text | raw)
        columns = {name: read_values.typed(found[name], self.kinds[name]) for name in self.keep}
        return self.derived(columns, len(found))

    def derived(self, columns: dict[str, Values], rows: int) -> dict[str, Values]:
        """Return columns with the derived ones."""
        for name, text in self.derive:
            columns[name] = np.broadcast_to(evaluate(text, columns), (rows,))
        return columns

    def encoded(self, number: int) -> dict[str, np.ndarray]:
        """Return a block's columns as they are stored."""
        return self._stored(self.table(number))

    def fresh(self, number: int) -> dict[str, np.ndarray]:
        """Return the same, read now and kept nowhere: for passes that need every block once."""
        return self._stored(self._table(number))

    def _stored(self, columns: Mapping[str, Values]) -> dict[str, np.ndarray]:
        return {name: tables.encode(values, self.kinds[name].plain()) for name, values in columns.items()}

    def only(self, wanted: Sequence[str]) -> Reading:
        """Return the reading of a few columns, and of those that they are derived from."""
        needed = set(wanted)
        for name, text in reversed(self.derive):
            if name in needed:
                needed.update(names(text))
        derive = tuple(one for one in self.derive if one[0] in needed)
        return replace(self, keep=tuple(name for name in self.keep if name in needed), derive=derive)


def nbytes(columns: Mapping[str, Values]) -> int:
    """Return the bytes that columns take."""
    arrays = [values.codes if isinstance(values, Coded) else values for values in columns.values()]
    return sum(array.nbytes for array in arrays)


def _content(table: Any) -> str:
    """Return the digest of the values of a block, however they were written."""
    import pyarrow as pa

    hasher = blake3()
    for name in table.column_names:
        column = table[name].combine_chunks()
        hasher.update(f"{name}\0{column.type}\0{len(column)}\0".encode())
        if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
            coded = column.dictionary_encode()
            hasher.update("\0".join(coded.dictionary.to_pylist()).encode())
            column = coded.indices
        if column.null_count:
            hasher.update(np.packbits(column.is_null().to_numpy(zero_copy_only=False)).data)
        if pa.types.is_null(column.type):
            continue
        if pa.types.is_boolean(column.type):
            column = column.cast(pa.int8())
        elif pa.types.is_temporal(column.type):
            column = column.cast(pa.int32() if pa.types.is_date32(column.type) else pa.int64())
        column = column.fill_null(0) if column.null_count else column
        hasher.update(np.ascontiguousarray(column.to_numpy(zero_copy_only=False)).view("uint8").data)
    return hasher.hexdigest(20)


@dataclass(frozen=True)
class Pieces:
    """What the rows of a table are made of, one piece below the other.

    Attributes
    ----------
    rows : tuple of int
        Of each piece.
    ids : tuple of str
        What identifies the content of each.
    """

    rows: tuple[int, ...]
    ids: tuple[str, ...]

    @cached_property
    def starts(self) -> list[int]:
        """First row of each piece, and the number of all rows."""
        return [0, *np.cumsum(self.rows, dtype="int64").tolist()]

    def parts(self, start: int, stop: int, starts: Sequence[int]) -> Iterator[tuple[int, int, int]]:
        """Yield (piece, first row in it, row after the last in it) for rows [start, stop)."""
        place = bisect_right(starts, start) - 1
        while place < len(self.rows) and starts[place] < stop:
            first, last = max(start, starts[place]) - starts[place], min(stop, starts[place + 1]) - starts[place]
            if last > first:
                yield place, first, last
            place += 1

    def reads(self, start: int, stop: int, starts: Sequence[int]) -> str:
        """Return the digest of what rows [start, stop) are made of."""
        return digest([(self.ids[piece], first, last) for piece, first, last in self.parts(start, stop, starts)])
