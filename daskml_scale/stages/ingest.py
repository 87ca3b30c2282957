"""Ingest: a CSV file becomes a table: one row dimension, sorted, coded categories, CF times.

Pass one reads the file once and finds the schema (rows, types, labels); pass two writes the chunks,
each worker process parsing the file at most once. The file must fit into a worker's memory, decoded;
the plan says how much that is and refuses before it runs.
"""

from __future__ import annotations

import bz2
import csv
import gzip
import lzma
import re
import warnings
import zipfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from io import TextIOWrapper
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from daskml_scale.engine.worker import WorkerContext
from daskml_scale.errors import PlanError
from daskml_scale.plan.records import Record, Written, after, digest, select
from daskml_scale.plan.units import FileId, Parts, Plan, Template, Unit, row_key, row_ranges
from daskml_scale.spec.expressions import Coded, Values, evaluate, names
from daskml_scale.spec.workflow import RowSpec
from daskml_scale.storage import files, stores, tables

from .base import Input, Ref, StageBase

CODE = "ingest-1"
"""Changes whenever the kernel's output changes for the same input."""
MAX_LABELS = 100_000
"""Most labels of a category column: they live in the metadata that every reader loads."""
_ISO = re.compile(r"^\d{4}-\d{2}-\d{2}([T ]\d{2}:\d{2}(:\d{2}(\.\d+)?)?(Z|[+-]\d{2}:?\d{2})?)?$")
_COMPRESSED = (".zip", ".gz", ".bz2", ".xz")


@dataclass(frozen=True)
class IngestStage(StageBase):
    """See the module docstring.

    Attributes
    ----------
    source : str
        URL of the file.
    origin : str
        The source as the user named it, kept as an attribute of the table.
    """

    source: str
    origin: str
    row: RowSpec
    columns: tuple[str, ...] | None = None
    derive: tuple[tuple[str, str], ...] = ()
    kind: str = "ingest"

    def reads(self) -> Mapping[str, Ref]:
        return {"source": Ref("file", self.source)}

    def plan(self, inputs: Mapping[str, Input], records: Mapping[str, Record]) -> Plan:
        source = inputs["source"]
        if not isinstance(source, FileId):
            raise PlanError(f"{self.name}: {self.source} does not exist; check `source`")
        parameters = digest(self.columns, self.derive, self.row.sort_by)
        decoded = source.size * (12 if self.source.endswith(_COMPRESSED) else 4)
        scan = select(
            [(Unit("scan", weight=source.size), source.digest)],
            Parts(code=CODE, parameters=parameters),
            records,
            grid=f"one scan of {source.size / 2**20:,.1f} MiB",
            memory=decoded,
            shared=source.digest,
            later=1,
        )
        if scan.units:
            return scan
        schema = records["scan"].result
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
            (Unit(row_key(start, chunk), (start, stop), stop - start), source.digest)
            for start, stop in row_ranges(rows, chunk)
        ]
        parts = Parts(code=CODE, parameters=parameters, schema=digest(schema["columns"], self.row.dim, chunk))
        plan = select(
            units,
            parts,
            records,
            grid=f"{len(units)} chunk{'s'[: len(units) != 1]} of {chunk:,} rows x {len(kinds)} columns",
            memory=2 * schema["bytes"],
            shared=(source.digest, schema["columns"]),
            template=template,
            rows=rows,
        )
        return after(scan, plan)

    def kernel(self, unit: Unit, worker: WorkerContext) -> Any:
        if unit.key == "scan":
            table = self._table(worker, worker.shared)
            return {
                "rows": len(next(iter(table.values()))),
                "bytes": _nbytes(table),
                "columns": {
                    name: {"dtype": kind.dtype, "attrs": dict(kind.attrs), "fill": kind.fill}
                    for name, kind in ((name, _type_of(name, values)) for name, values in table.items())
                },
            }
        source_digest, columns = worker.shared
        table = self._table(worker, source_digest)
        start, stop = unit.payload
        encoded = {
            name: tables.encode(table[name][start:stop], tables.ColumnType(**kind)) for name, kind in columns.items()
        }
        return Written(stores.write_region(self.out, start, encoded), rows=stop - start)

    def _table(self, worker: WorkerContext, source_digest: str) -> dict[str, Values]:
        key = ("ingest", source_digest, digest(self.columns, self.derive, self.row.sort_by))
        return worker.cache.get(key, self.read, size=_nbytes)

    def read(self) -> dict[str, Values]:
        """Read, type, derive and sort the whole file.

        Raises
        ------
        PlanError
            When it cannot be parsed, or names a column that it does not have.
        """
        frame = read_csv(self.source)
        table: dict[str, Values] = {}
        for name in self.columns if self.columns is not None else frame.columns:
            if name not in frame.columns:
                raise PlanError(f"{self.origin} has no column {name!r}; it has {', '.join(map(str, frame.columns))}")
            if "/" in name or name in (".", "..", "zarr.json") or name.startswith("__"):
                raise PlanError(
                    f"{self.origin}: column {name!r} cannot name a stored array; rename it there, "
                    "or leave it out by `columns`"
                )
            table[str(name)] = _typed(frame[name])
        rows = len(frame)
        for name, text in self.derive:
            values = np.broadcast_to(evaluate(text, table), (rows,))
            if values.dtype.kind == "m":
                raise PlanError(f"{self.name}: derive.{name} is a span of time; derive an instant or a number")
            table[name] = values
        order = _sort_order(table, self.row.sort_by, rows, self.origin)
        return {name: values[order] for name, values in table.items()}


def read_csv(url: str) -> Any:
    """Read a CSV file, plain or compressed, as a pandas DataFrame.

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
            return pd.read_csv(path, compression="infer", low_memory=False, index_col=False)
    except pd.errors.ParserWarning:
        raise PlanError(
            f"{path}: rows have more values than the first line has names (a comma at the end?); mend one of them"
        ) from None
    except OSError as error:
        raise PlanError(f"{path} cannot be read: {error.strerror or error}") from None
    except Exception as error:  # pandas raises many kinds: ParserError, UnicodeDecodeError, BadZipFile, ...
        raise PlanError(f"{path} is not a readable CSV file: {type(error).__name__}: {error}") from None


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
            found = next(csv.reader(lines), [])
    except OSError as error:
        raise PlanError(f"{path} cannot be read: {error.strerror or error}") from None
    except (ValueError, csv.Error, zipfile.BadZipFile, EOFError, zlib.error, lzma.LZMAError) as error:
        raise PlanError(f"{path} is not a readable CSV file: {type(error).__name__}: {error}") from None
    if not found:
        raise PlanError(f"{path} is empty: a CSV file starts with a line of column names")
    twice = sorted({name for name in found if found.count(name) > 1 or not name.strip()})
    if twice:
        raise PlanError(f"{path}: the first line must name every column once; found {twice[0]!r} twice or unnamed")
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


def _typed(series: Any) -> Values:
    """Return a column by its content: number, time (ISO 8601) or category."""
    import pandas as pd

    if pd.api.types.is_bool_dtype(series.dtype):
        return np.asarray(series, dtype="float64")
    if pd.api.types.is_numeric_dtype(series.dtype):
        return np.asarray(series)
    present = series.dropna()
    sample = present.iloc[:: max(1, len(present) // 50)].astype(str)
    if len(present) and sample.str.match(_ISO).all():
        try:
            times = pd.to_datetime(series, utc=True, format="ISO8601")
            return np.asarray(times.dt.tz_convert(None).dt.as_unit("ns").to_numpy())
        except ValueError:
            pass  # something among them is no time, or beyond the years 1677 to 2262: it is text
    if not len(present):
        return np.full(len(series), np.nan)
    return tables.categorize(series.where(series.isna(), series.astype(str)))


def _type_of(name: str, values: Values) -> tables.ColumnType:
    labels = getattr(values, "labels", ())
    if len(labels) > MAX_LABELS:
        raise PlanError(
            f"column {name!r} has {len(labels):,} distinct texts, more than {MAX_LABELS:,}; "
            "leave it out by `columns:`, or turn it into a number before"
        )
    return tables.column_type(values)


def _sort_order(table: Mapping[str, Values], by: list[str], rows: int, origin: str) -> np.ndarray:
    """Return the stable order by the named columns, the first one first."""
    for name in by:
        if name not in table:
            raise PlanError(f"row.sort_by: {origin} has no column {name!r}; it has {', '.join(table)}")
    if not by:
        return np.arange(rows)
    return np.lexsort(tuple(_array(table[name]) for name in reversed(by)))


def _nbytes(table: Mapping[str, Values]) -> int:
    return sum(_array(values).nbytes for values in table.values())


def _array(values: Values) -> np.ndarray:
    return values.codes if isinstance(values, Coded) else values
