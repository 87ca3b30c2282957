"""CSV files: their first line, and their rows as a pandas DataFrame. Plain or compressed, of one or several files.

What is no CSV file is one ``PlanError`` that names the file and the remedy. What the columns hold is
for ``cells`` to say; nothing here writes.
"""

from __future__ import annotations

import bz2
import csv
import gzip
import lzma
import warnings
import zipfile
import zlib
from collections.abc import Callable, Sequence
from io import TextIOWrapper
from pathlib import Path
from typing import Any, TextIO

from daskml_scale.errors import PlanError
from daskml_scale.storage import files

COMPRESSED = (".zip", ".gz", ".bz2", ".xz")


def read_csv(url: str, as_text: Sequence[str] = ()) -> Any:
    """Read a CSV file, plain or compressed, as a pandas DataFrame.

    Parameters
    ----------
    url : str
    as_text : sequence of str
        Columns whose values are left as they are written.

    Raises
    ------
    PlanError
        When it is not a CSV file with a header, or names a column twice.
    """
    import pandas as pd

    header(url)
    path = files.local_path(url)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)
            return pd.read_csv(
                path, compression="infer", low_memory=False, index_col=False, dtype=dict.fromkeys(as_text, str)
            )
    except pd.errors.ParserWarning:
        raise PlanError(
            f"{path}: rows have more values than the first line has names (a comma at the end?); mend one of them"
        ) from None
    except UnicodeDecodeError as error:
        raise PlanError(f"{path} is not a readable CSV file: {error}; save it as UTF-8") from None
    except OSError as error:
        raise PlanError(f"{path} cannot be read: {error.strerror or error}") from None
    except Exception as error:  # pandas raises many kinds: ParserError, EOFError, BadZipFile, ...
        raise PlanError(f"{path} is not a readable CSV file: {type(error).__name__}: {error}") from None


def read_together(urls: Sequence[str]) -> tuple[Any, list[int]]:
    """Read files of the same columns as one DataFrame, one below the other.

    Returns
    -------
    DataFrame
        Rows numbered from 0.
    list of int
        Rows of each file.

    Raises
    ------
    PlanError
        When one cannot be read, or has other columns than the first.
    """
    import pandas as pd

    check_headers(urls)
    frames = [read_csv(url) for url in urls]
    rows = [len(frame) for frame in frames]
    if len(frames) == 1:
        return frames[0], rows
    # Where files disagree on what a column holds, every value counts as it is written: 1, not 1.0.
    kinds = {name: {_kind(frame[name]) for frame in frames} - {""} for name in frames[0].columns}
    mixed = [name for name, found in kinds.items() if len(found) > 1]
    if mixed:
        frames = [read_csv(url, mixed) for url in urls]
    return pd.concat([frame[list(frames[0].columns)] for frame in frames], ignore_index=True), rows


def _kind(series: Any) -> str:
    """Return what pandas took a column for; empty for one without values."""
    import pandas as pd

    present = series.dropna()
    if not len(present):
        return ""
    found = pd.api.types.infer_dtype(present, skipna=False)
    return "number" if found in ("integer", "floating", "mixed-integer-float") else found


def check_headers(urls: Sequence[str]) -> tuple[str, ...]:
    """Return the column names of files that are read together, in the order of the first.

    Raises
    ------
    PlanError
        When a file has no header, or other columns than the first.
    """
    first = header(urls[0])
    for url in urls[1:]:
        other = header(url)
        if set(other) != set(first):
            odd = sorted(set(first).symmetric_difference(other))[0]
            has, lacks = (urls[0], url) if odd in first else (url, urls[0])
            raise PlanError(
                f"{files.local_path(has)} has a column {odd!r} and {files.local_path(lacks)} has none; "
                "files that are read together have the same columns"
            )
    return first


def header(url: str) -> tuple[str, ...]:
    """Return the column names of a CSV file, reading its first line only (without pandas: checks must be quick).

    Raises
    ------
    PlanError
        When there is no such line, or a column is named twice or not at all.
    """
    path = files.local_path(url)
    try:
        with _open_text(path) as lines:
            found = next((row for row in csv.reader(lines) if row), [])
    except OSError as error:
        raise PlanError(f"{path} cannot be read: {error.strerror or error}") from None
    except UnicodeDecodeError as error:
        raise PlanError(f"{path} is not a readable CSV file: {error}; save it as UTF-8") from None
    except (ValueError, csv.Error, zipfile.BadZipFile, EOFError, zlib.error, lzma.LZMAError) as error:
        raise PlanError(f"{path} is not a readable CSV file: {type(error).__name__}: {error}") from None
    if not found:
        raise PlanError(f"{path} is empty: a CSV file starts with a line of column names")
    twice = sorted({name for name in found if found.count(name) > 1})
    if twice:
        raise PlanError(f"{path}: the first line names column {twice[0]!r} twice; rename one of them")
    unnamed = [position for position, name in enumerate(found, 1) if not name.strip()]
    if unnamed:
        raise PlanError(f"{path}: column {unnamed[0]} has no name in the first line; name it (a comma at the end?)")
    return tuple(found)


def _open_text(path: Path) -> TextIO:
    """Open a file for reading text, unpacked by its suffix."""
    openers: dict[str, Callable[..., Any]] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
    if path.suffix == ".zip":
        archive = zipfile.ZipFile(path)
        members = [name for name in archive.namelist() if not name.startswith("__MACOSX/")]
        if len(members) != 1:
            raise ValueError(f"an archive of {len(members)} files; it must hold one")
        return TextIOWrapper(archive.open(members[0]), encoding="utf-8-sig", newline="")
    opened: TextIO = openers.get(path.suffix, open)(path, "rt", encoding="utf-8-sig", newline="")
    return opened
