"""CSV files: their first line, blocks of whole rows, and the rows of a block as an Arrow table. Plain or compressed.

A plain file is cut at line ends, of which only the quotes before tell whether they end a row: ``look`` counts
the quotes of a piece of the file for both possible beginnings, ``cuts`` joins the pieces. A file whose quotes
do not stand as they should is read whole, as a compressed one is. What is no CSV file is one ``PlanError``
that names the file, the row and the remedy. What the columns hold is for ``read_types`` to say.
"""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import lzma
import zipfile
import zlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

import numpy as np

from daskml_scale.errors import PlanError, StoreError
from daskml_scale.storage import files

COMPRESSED = (".zip", ".gz", ".bz2", ".xz")
_BOM = b"\xef\xbb\xbf"
_QUOTE, _LINE, _RETURN, _COMMA = 34, 10, 13, 44
_MISSING = [
    "", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN", "<NA>", "N/A", "NA",
    "NULL", "NaN", "None", "n/a", "nan", "null",
]  # fmt: skip
"""What pandas takes for missing."""


class Opening(NamedTuple):
    """The first line of a file: the names, and where the rows begin (bytes, unpacked)."""

    names: tuple[str, ...]
    start: int


class Seen(NamedTuple):
    """A piece of a file, for a beginning outside of quotes and for one within them.

    Attributes
    ----------
    odd : bool
        Whether it holds an odd number of quotes.
    ends : tuple of int
        Where the first row that begins in it begins, in bytes of the file; -1 where none does.
    regular : tuple of bool
        Whether every quote begins or ends a value.
    """

    odd: bool
    ends: tuple[int, int]
    regular: tuple[bool, bool]


def header(url: str) -> tuple[str, ...]:
    """Return the column names of a CSV file, reading its first line only (without pandas: checks must be quick).

    Raises
    ------
    PlanError
        When there is no such line, or a column is named twice or not at all.
    """
    return opening(url).names


def opening(url: str) -> Opening:
    """Return the first line of a CSV file; errors as in :func:`header`."""
    read = 0

    def lines(text: io.TextIOWrapper) -> Iterator[str]:
        nonlocal read
        for line in text:
            read += len(line.encode())
            yield line

    with readable(url), _unpacked(url) as raw:
        start = raw.read(3)
        skipped = len(_BOM) if start == _BOM else 0
        raw.seek(skipped)
        with io.TextIOWrapper(raw, encoding="utf-8", newline="") as text:
            names = next((row for row in csv.reader(lines(text)) if row), [])
    where = shown(url)
    if not names:
        raise PlanError(
            f"{where} is empty: a CSV file starts with a line of column names; write one, or leave the file out"
        )
    if any("\0" in name for name in names):
        raise PlanError(f"{where} is not a readable CSV file: its first line holds NUL bytes; is it another format?")
    other = next((mark for mark in (";", "\t") if len(names) == 1 and mark in names[0]), None)
    if other is not None:
        raise PlanError(
            f"{where}: the first line has no comma and {other!r} between its names; write the file with commas, by "
            f"pandas.read_csv(..., sep={other!r}).to_csv(..., index=False)"
        )
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise PlanError(f"{where}: the first line names column {twice[0]!r} twice; rename one of them")
    unnamed = [position for position, name in enumerate(names, 1) if not name.strip()]
    if unnamed:
        raise PlanError(f"{where}: column {unnamed[0]} has no name in the first line; name it (a comma at the end?)")
    return Opening(tuple(names), skipped + read)


def shown(url: str) -> str:
    """Return a URL as people know it: a local one as its path."""
    return str(files.local_path(url)) if files.is_local(url) else url


@contextmanager
def readable(url: str) -> Iterator[None]:
    """Turn what a file that is none raises into one ``PlanError``."""
    where = shown(url)
    try:
        yield
    except (PlanError, StoreError):
        raise
    except OSError as error:
        raise PlanError(f"{where} cannot be read: {error.strerror or error}") from None
    except UnicodeDecodeError as error:
        raise PlanError(f"{where} is not a readable CSV file: {error}; save it as UTF-8") from None
    except (ValueError, csv.Error, zipfile.BadZipFile, EOFError, zlib.error, lzma.LZMAError) as error:
        raise PlanError(f"{where} is not a readable CSV file: {type(error).__name__}: {error}") from None


@contextmanager
def _unpacked(url: str) -> Iterator[Any]:
    """Open a file for reading bytes, unpacked by its suffix; the packed one below is closed with it."""
    openers: dict[str, Callable[..., Any]] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
    suffix = next((end for end in COMPRESSED if url.endswith(end)), "")
    with ExitStack() as stack:
        raw: Any = stack.enter_context(files.open_read(url))
        if suffix == ".zip":
            archive = stack.enter_context(zipfile.ZipFile(raw))
            members = [name for name in archive.namelist() if not name.startswith("__MACOSX/")]
            if len(members) != 1:
                raise ValueError(f"an archive of {len(members)} files; it must hold one")
            raw = stack.enter_context(archive.open(members[0]))
        elif suffix:
            raw = stack.enter_context(openers[suffix](raw, "rb"))
        yield raw


def read_bytes(url: str, start: int, stop: int | None = None) -> bytes:
    """Return bytes [start, stop) of a file, unpacked; all from ``start`` on by default."""
    with readable(url), _unpacked(url) as raw:
        raw.seek(start)
        data: bytes = raw.read(-1 if stop is None else stop - start)
        return data


def look(data: bytes, first: int, before: int, after: int) -> Seen:
    """Look at a piece of a file: its quotes and line ends.

    Parameters
    ----------
    data : bytes
        The piece.
    first : int
        Its place in the file.
    before, after : int
        The bytes around it; a line end where there is none.
    """
    values = np.frombuffer(data, dtype="u1")
    quotes, ends = np.flatnonzero(values == _QUOTE), np.flatnonzero(values == _LINE)
    around = np.concatenate([[before], values, [after]]) if len(quotes) else values
    starts, regular = [], []
    for inside in (0, 1):
        outside = ends[(np.searchsorted(quotes, ends) + inside) % 2 == 0]
        starts.append(first + int(outside[0]) + 1 if len(outside) else -1)
        opens = (np.arange(len(quotes)) + inside) % 2 == 0
        beside = np.where(opens, around[quotes], around[quotes + 2]) if len(quotes) else quotes
        regular.append(bool(np.isin(beside, (_QUOTE, _LINE, _RETURN, _COMMA)).all()))
    return Seen(bool(len(quotes) % 2), (starts[0], starts[1]), (regular[0], regular[1]))


def cuts(pieces: Sequence[Seen], start: int, size: int) -> list[tuple[int, int]]:
    """Return the blocks of whole rows of a file, in bytes; one of everything when its quotes are irregular.

    Parameters
    ----------
    pieces : sequence of Seen
        Of the whole file from ``start`` on, in order.
    """
    inside, borders = 0, [start]
    for number, piece in enumerate(pieces):
        if not piece.regular[inside]:
            return [(start, size)]
        if number and piece.ends[inside] >= 0:
            borders.append(piece.ends[inside])
        inside ^= int(piece.odd)
    if inside:
        return [(start, size)]
    borders = sorted({border for border in borders if border < size} | {start})
    return list(zip(borders, [*borders[1:], size], strict=True))


def parse(
    data: bytes, names: Sequence[str], where: str, *, keep: Sequence[str], text: Collection[str] = (), row: int = 1
) -> Any:
    """Return the rows of a block as a ``pyarrow.Table``, each column of the type that Arrow takes it for.

    Parameters
    ----------
    data : bytes
        Whole rows.
    names : sequence of str
        Of all columns.
    where : str
        The file, for errors.
    keep : sequence of str
        Columns to return.
    text : collection of str
        Columns that are left as they are written.
    row : int
        Number of the first row in the file.

    Raises
    ------
    PlanError
        For a row of another length, a quote that is not closed, and bytes that are not UTF-8.
    """
    import pyarrow as pa
    import pyarrow.csv as arrow

    if not data.strip(b"\r\n"):
        return pa.table({name: pa.nulls(0) for name in keep})
    ragged: list[Any] = []

    def refuse(found: Any) -> str:
        ragged.append(found)
        return "error"

    def read(content: bytes, wanted: Sequence[str], types: Mapping[str, Any]) -> Any:
        return arrow.read_csv(
            pa.py_buffer(content),
            read_options=arrow.ReadOptions(column_names=list(names), use_threads=False, block_size=len(content) + 1),
            parse_options=arrow.ParseOptions(newlines_in_values=True, invalid_row_handler=refuse),
            convert_options=arrow.ConvertOptions(
                column_types=types, include_columns=list(wanted), null_values=_MISSING, strings_can_be_null=True,
                true_values=["True", "TRUE", "true"], false_values=["False", "FALSE", "false"],
            ),
        )  # fmt: skip

    try:
        found = read(data, keep, dict.fromkeys(text, pa.string()))
        if b'"' in data:
            # What comes after a quote that is never closed would be swallowed.
            last = read(data + b"\n" + b",".join([b"end"] * len(names)), names[:1], {names[0]: pa.string()})
            if last[0][-1].as_py() != "end":
                raise PlanError(f"{where} is not a readable CSV file: a quote is opened and never closed; close it")
    except (pa.ArrowInvalid, pa.ArrowCapacityError) as error:
        if ragged:
            raise PlanError(_ragged(ragged[0], where, row, len(names))) from None
        remedy = "; save it as UTF-8" if "UTF8" in str(error) else ""
        raise PlanError(f"{where} is not a readable CSV file: {' '.join(str(error).split())[:300]}{remedy}") from None
    broken = [field.name for field in found.schema if pa.types.is_binary(field.type)]
    if broken:
        raise PlanError(f"{where} is not a readable CSV file: column {broken[0]!r} is not UTF-8; save it as UTF-8")
    return found


def _ragged(bad: Any, where: str, row: int, wanted: int) -> str:
    number = f"row {row - 1 + bad.number:,}" if bad.number else "a row"
    hint = " (a comma at the end?)" if bad.actual_columns == wanted + 1 else ""
    hint = " (a quote that is never closed?)" if bad.text.count('"') % 2 else hint
    return (
        f"{where}: {number} has {bad.actual_columns} values and the first line has {wanted} names{hint}: "
        f"{bad.text[:80]!r}; mend one of them"
    )
