"""From files to blocks of rows: a row group of Parquet, a piece of a CSV file, a whole compressed one.

A block is read by one worker at a time, and is what is read again when a file changes. ``Reading`` says how
blocks become columns; it travels to the workers once and holds no data. What follows another block in the
table is said by ``Pieces``.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
from blake3 import blake3

from daskml_scale.engine.worker import Cache, memory_limit
from daskml_scale.errors import PlanError, StoreError
from daskml_scale.plan.records import digest
from daskml_scale.spec.expressions import Coded, Values, evaluate, names
from daskml_scale.storage import files, tables

from . import csv_files, parquet_files, read_types
from .csv_files import COMPRESSED, Opening, shown
from .file_patterns import Source, first_of
from .parquet_files import Footer
from .read_types import Kind, Seen

BLOCK = 16 << 20
"""Bytes of a piece of a CSV file."""
LEAST = 64 << 10
"""Bytes of the smallest piece, of which a sample is taken."""
HOLD = 128 << 20
"""Most bytes of blocks that a process holds, where an eighth of its memory is more."""
HELD = Cache(limit=HOLD)
"""Blocks that this process read last: chunks of the table share them."""
_GROWTH = {"csv": 8, "packed": 24, "parquet": 4}
"""Bytes in memory while a block is read, per byte of it."""
SUFFIXES = {
    "parquet": (".parquet", ".parq", ".pq"), "netcdf": (".nc", ".nc4", ".cdf", ".netcdf", ".h5"), "zarr": (".zarr",),
}  # fmt: skip


def format_of(url: str) -> str:
    """Return the format that a file's name ends in; any other is CSV."""
    return next((name for name, ends in SUFFIXES.items() if url.rstrip("/").lower().endswith(ends)), "csv")


@dataclass(frozen=True, slots=True)
class File:
    """A file of rows.

    Attributes
    ----------
    name : str
        In the keys of units: its path below the fixed part of the pattern.
    about : Opening or Footer
        What it begins or ends with.
    """

    name: str
    source: Source
    about: Opening | Footer

    @property
    def format(self) -> str:
        return "parquet" if isinstance(self.about, Footer) else "csv"

    @property
    def columns(self) -> tuple[str, ...]:
        """Names, in the order of the file."""
        return tuple(self.about.types) if isinstance(self.about, Footer) else self.about.names

    @property
    def packed(self) -> bool:
        return self.source.url.endswith(COMPRESSED)

    @property
    def shown(self) -> str:
        return shown(self.source.url)


@dataclass(frozen=True, slots=True)
class Block:
    """Rows of one file that are read together.

    Attributes
    ----------
    file : int
        Place of the file in the ``Reading``.
    number : int
        Of the block in its file.
    start, stop : int
        Bytes of a CSV file, ``stop`` 0 for all that follow; the row group of a Parquet file.
    nbytes : int
        Of the file, decoded where the file says so.
    """

    file: int
    number: int
    start: int
    stop: int
    nbytes: int


@lru_cache(maxsize=10_000)
def _about(url: str, content: str, format: str) -> Opening | Footer:
    return parquet_files.footer(url) if format == "parquet" else csv_files.opening(url)


def opened(named: Mapping[str, Source], format: str = "") -> tuple[File, ...]:
    """Look at the first line, or the footer, of every file; kept in this process while the file does not change.

    Raises
    ------
    PlanError
        When one is no such file.
    """

    def one(item: tuple[str, Source]) -> File:
        name, source = item
        content = f"{source.size}-{source.stamp}" if source.stamp else source.digest
        return File(name, source, _about(source.url, content, format or format_of(source.url)))

    with ThreadPoolExecutor(8) as pool:
        return tuple(pool.map(one, named.items()))


def check_columns(found: Sequence[File], columns: Sequence[str] | None) -> None:
    """Refuse files of other columns, or of other types, than the first.

    Parameters
    ----------
    columns : sequence of str, optional
        Those that are read; all by default.

    Raises
    ------
    PlanError
        Names both files, the column and the remedy.
    """
    first = found[0]
    for other in found[1:]:
        if other.format != first.format:
            raise PlanError(
                f"{first.shown} is {first.format} and {other.shown} is {other.format}; read them in two stages, or say "
                "`format:`"
            )
        odd = set(first.columns).symmetric_difference(other.columns)
        odd &= set(columns) if columns is not None else odd
        if odd:
            name = min(odd)
            has, lacks = (first, other) if name in first.columns else (other, first)
            raise PlanError(
                f"{has.shown} has a column {name!r} and {lacks.shown} has none; files that are read together have the "
                "same columns: add it, or leave it out by `columns:`"
            )
    footers = [(one.shown, one.about) for one in found if isinstance(one.about, Footer)]
    parquet_files.check_types(footers, columns if columns is not None else first.columns)


def first_columns(urls: Sequence[str], format: str = "") -> tuple[str, ...] | None:
    """Return the columns of the first of the files; ``None`` for a bucket, which is not looked at yet, and for a cube.

    Raises
    ------
    PlanError
        When it is no such file.
    """
    source = first_of(urls[0]) if files.is_local(urls[0]) else None
    kind = format or format_of(urls[0])
    if source is None or kind in ("netcdf", "zarr"):
        return None
    about = _about(source.url, source.digest, kind)
    return tuple(about.types) if isinstance(about, Footer) else about.names


def to_cut(file: File, size: int) -> list[tuple[int, int]]:
    """Return the pieces of a plain CSV file whose quotes must be counted before it is cut; none of a small one."""
    if not isinstance(file.about, Opening) or file.packed or file.source.size - file.about.start <= size:
        return []
    start, stop = file.about.start, file.source.size
    return [(at, min(at + size, stop)) for at in range(start, stop, size)]


def look(url: str, first: int, stop: int, start: int, size: int) -> csv_files.Seen:
    """Look at bytes [first, stop) of a CSV file whose rows begin at ``start``."""
    data = csv_files.read_bytes(url, max(start, first - 1), min(size, stop + 1))
    before = data[0] if first > start else 10
    after = data[-1] if stop < size else 10
    return csv_files.look(data[first - max(start, first - 1) :][: stop - first], first, before, after)


def blocks_of(place: int, file: File, pieces: Sequence[csv_files.Seen] = ()) -> list[Block]:
    """Return the blocks of a file.

    Parameters
    ----------
    place : int
        Of the file in the ``Reading``.
    pieces : sequence of csv_files.Seen
        What ``look`` saw, where ``to_cut`` asked for it.
    """
    if isinstance(file.about, Footer):
        return [Block(place, number, number, number + 1, size) for number, (_, size) in enumerate(file.about.groups)]
    start, size = file.about.start, file.source.size
    if not pieces:
        return [Block(place, 0, start, 0, size)]
    return [Block(place, number, a, b, b - a) for number, (a, b) in enumerate(csv_files.cuts(pieces, start, size))]


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
        columns = {name: read_types.typed(found[name], self.kinds[name]) for name in self.keep}
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


class unchanged:
    """Refuse what was read when the file is not the one that was planned, before or after."""

    def __init__(self, source: Source) -> None:
        self.source = source

    def __enter__(self) -> None:
        self._check()

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        if kind is None or issubclass(kind, PlanError):
            self._check()

    def _check(self) -> None:
        found = files.stat(self.source.url)
        if found != (self.source.size, self.source.stamp):
            raise StoreError(
                f"{shown(self.source.url)} changed while being read; wait until it is written, then run again"
                if found
                else f"{shown(self.source.url)} vanished while being read; put it back, then run again"
            )


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
