"""Files of rows and the blocks that they are cut into: a row group of Parquet, a piece of a CSV file, a compressed one.

A file is known by its first line or its footer, which a process looks at once while the file does not change. What
blocks hold is for ``ingest_blocks`` to read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache

from daskml_scale.errors import PlanError, StoreError
from daskml_scale.storage import files

from . import csv_files, parquet_files
from .csv_files import COMPRESSED, Opening, shown
from .file_patterns import Source, first_of
from .parquet_files import Footer

BLOCK = 16 << 20
"""Bytes of a piece of a CSV file."""
LEAST = 64 << 10
"""Bytes of the smallest piece, of which a sample is taken."""
SUFFIXES = {
    "parquet": (".parquet", ".parq", ".pq"), "netcdf": (".nc", ".nc4", ".cdf", ".netcdf", ".h5"), "zarr": (".zarr",),
}  # fmt: skip

_OTHERS = {
    ".xlsx": "excel", ".xls": "excel", ".json": "json", ".jsonl": "json", ".ndjson": "json", ".feather": "feather",
    ".arrow": "feather", ".orc": "orc", ".dta": "stata", ".sas7bdat": "sas",
}  # fmt: skip
"""Endings of files of rows that are neither CSV nor Parquet, and what pandas calls them."""


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
    if format in ("netcdf", "zarr"):
        raise PlanError(f"{shown(url)} is {format} by its name, which becomes a cube; give chunks: instead of row:")
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
        return File(name, source, _about(source.url, content, format or _of_rows(source.url)))

    with ThreadPoolExecutor(8) as pool:
        return tuple(pool.map(one, named.items()))


def _of_rows(url: str) -> str:
    """Return the format of a file of rows by its name; raise where it is one that is not read."""
    reader = next((reader for end, reader in _OTHERS.items() if url.lower().endswith(end)), None)
    if reader is not None:
        raise PlanError(
            f"{shown(url)} is neither CSV nor Parquet by its name; make one of it, such as by "
            f"pandas.read_{reader}(...).to_parquet(...), or say `format: csv` where it is CSV under this name"
        )
    return format_of(url)


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
    about = _about(source.url, source.digest, format or _of_rows(source.url))
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
