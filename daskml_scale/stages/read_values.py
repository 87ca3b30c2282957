"""The values of a column of one block, once it is known what the column of the table holds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from daskml_scale.spec.expressions import Coded, Values

from .read_types import Kind, indexed, instants, is_text


def typed(column: Any, kind: Kind) -> Values:
    """Return an Arrow column of a block as the table holds it, shape (rows,)."""
    import pandas as pd
    import pyarrow as pa

    if kind.kind == "text":
        return _coded(column, kind.labels)
    rows = len(column)
    if kind.kind == "none" or column.null_count == rows:
        if kind.kind == "time":
            return np.full(rows, np.datetime64("NaT", "ns"))
        return np.full(rows, np.nan) if kind.kind != "int" else np.empty(0, dtype="int64")
    text = is_text(column.type)
    if kind.kind == "time":
        if text:
            found = instants(pd.Series(column.to_pylist(), dtype=object)).dt.tz_convert(None).dt.as_unit("ns")
            return np.asarray(found.to_numpy(), dtype="datetime64[ns]")
        zoned = pa.types.is_timestamp(column.type) and column.type.tz
        return np.asarray(column.cast(pa.timestamp("ns", zoned or None)).to_numpy(), dtype="datetime64[ns]")
    if text:
        series = pd.Series(column.to_pylist(), dtype=object)
        series = series.str.lower().map({"true": 1.0, "false": 0.0}) if kind.kind == "flag" else pd.to_numeric(series)
        return np.asarray(series, dtype="int64" if kind.kind == "int" else "float64")
    if kind.kind == "int":
        return np.asarray(column.to_numpy(), dtype="int64")
    return np.asarray(column.cast(pa.float64()).to_numpy(), dtype="float64")


def _coded(column: Any, labels: Sequence[str]) -> Coded:
    import pandas as pd
    import pyarrow as pa

    if not len(column) or pa.types.is_null(column.type):
        return Coded(np.full(len(column), -1, dtype="int32"), tuple(labels))
    texts, codes = indexed(column)
    places = pd.Index(list(labels), dtype=object).get_indexer(pd.Index(texts, dtype=object))
    return Coded(np.append(places, -1).astype("int32")[codes], tuple(labels))
