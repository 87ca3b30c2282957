"""Parquet files: their footer, and the rows of a row group as an Arrow table.

Types are declared here, so files are compared before anything is read. What cannot be a column of a table is one
``PlanError`` that names the file, the column and the remedy.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

from daskml_scale.errors import PlanError, StoreError
from daskml_scale.storage import files

from .csv_files import shown

_INDEX = re.compile(r"__index_level_\d+__")
"""What pandas calls an index without a name: row numbers of some frame, which no other reader shows as a column."""


class Footer(NamedTuple):
    """What a file says of itself.

    Attributes
    ----------
    types : mapping of column to Arrow's name of its type
    groups : tuple of (rows, bytes decoded)
        Of each row group.
    """

    types: dict[str, str]
    groups: tuple[tuple[int, int], ...]


@contextmanager
def _opened(url: str) -> Iterator[Any]:
    import pyarrow as pa
    import pyarrow.parquet as parquet

    where = shown(url)
    try:
        with files.open_read(url) as raw, parquet.ParquetFile(raw, pre_buffer=True) as file:
            yield file
    except (PlanError, StoreError):
        raise
    except pa.ArrowException as error:
        text = " ".join(str(error).split())[:200]
        raise PlanError(f"{where} is not a readable Parquet file: {text}; write it again, or leave it out") from None
    except OSError as error:
        raise PlanError(f"{where} cannot be read: {error.strerror or error}") from None


def footer(url: str) -> Footer:
    """Return what a Parquet file says of itself, reading its last bytes only.

    Raises
    ------
    PlanError
        When it is none, or names a column twice.
    """
    with _opened(url) as file:
        schema, about = file.schema_arrow, file.metadata
        twice = sorted({name for name in schema.names if schema.names.count(name) > 1})
        if twice:
            raise PlanError(f"{shown(url)} names column {twice[0]!r} twice; rename one of them")
        groups = [about.row_group(number) for number in range(about.num_row_groups)]
        return Footer(
            {field.name: str(field.type) for field in schema if not _INDEX.fullmatch(field.name)},
            tuple((group.num_rows, group.total_byte_size) for group in groups),
        )


def family(kind: str) -> str:
    """Return what values of an Arrow type are: ``number``, ``flag``, ``time``, ``text``, ``none``; else empty.

    Parameters
    ----------
    kind : str
        Arrow's name of the type.
    """
    if kind.startswith(("int", "uint")) or kind in ("halffloat", "float", "double"):
        return "number"
    if kind.startswith(("timestamp", "date32", "date64")):
        return "zoned time" if "tz=" in kind else "time"
    if kind.startswith("dictionary<values="):
        return family(kind.removeprefix("dictionary<values=").partition(",")[0])
    return {"bool": "flag", "string": "text", "large_string": "text", "string_view": "text", "null": "none"}.get(
        kind, ""
    )


def check_types(footers: Sequence[tuple[str, Footer]], columns: Sequence[str]) -> None:
    """Refuse files that hold other types than each other, before anything is read.

    Parameters
    ----------
    footers : sequence of (file as people know it, Footer)
    columns : sequence of str
        Those that are read.

    Raises
    ------
    PlanError
        Names both files, the column, both types and the remedy.
    """
    known: dict[str, tuple[str, str, str]] = {}
    for where, found in footers:
        for name in columns:
            kind = found.types[name]
            what = family(kind)
            if not what:
                raise PlanError(
                    f"{where}: column {name!r} is {kind}, which cannot be a column of a table; write it as numbers, "
                    "times or text, or leave it out by `columns:`"
                )
            if what == "none":
                continue
            first, its, of = known.setdefault(name, (where, kind, what))
            if of != what:
                raise PlanError(
                    f"{where}: column {name!r} is {kind}, and {its} in {first}; {_remedy(of, what)}, or leave it out "
                    "by `columns:`"
                )


def _remedy(one: str, other: str) -> str:
    if {one, other} == {"time", "zoned time"}:
        return "write both with a time zone, or both without one (taken as UTC)"
    return "write both as one type"


def read(url: str, group: int, keep: Sequence[str]) -> Any:
    """Return the rows of a row group as a ``pyarrow.Table``; dictionaries as the text that they stand for."""
    import pyarrow as pa

    with _opened(url) as file:
        table = file.read_row_group(group, columns=list(keep), use_threads=False)
    for place, column in enumerate(table.schema):
        if pa.types.is_dictionary(column.type):
            table = table.set_column(place, column.name, table[column.name].cast(column.type.value_type))
        elif pa.types.is_string_view(column.type):
            table = table.set_column(place, column.name, table[column.name].cast(pa.string()))
    return table.select(list(keep))
