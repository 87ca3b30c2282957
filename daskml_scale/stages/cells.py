"""What a column of a file holds: numbers, times, true and false, or text. Pure.

A column is of a kind when all its values are; one value that is not makes it text. Where the others are
of one kind, that is hardly meant: a ``Doubt`` says which value it was.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from daskml_scale.spec.expressions import Values
from daskml_scale.storage import tables

_ISO = r"^\d{4}-\d{2}-\d{2}([T ]\d{2}:\d{2}(:\d{2}(\.\d+)?)?(Z|[+-]\d{2}:?\d{2})?)?$"
_SAMPLE = 200
"""Values looked at to guess what a column of text should be."""
_FIRST, _LAST = "1678-01-01", "2261-12-31T23:59:59"
"""Ends of what 64-bit nanoseconds can tell; pandas wraps beyond them without a word."""
_REASONS = {
    "time": "is not a time in ISO 8601",
    "number": "is not a number",
    "whole": "does not fit into 64 bits",
    "flag": "is neither True nor False",
    "ages": f"is a time outside the years {_FIRST[:4]} to {_LAST[:4]}",
}


@dataclass(frozen=True, slots=True)
class Doubt:
    """Why a column whose values are of one kind, but for some, became text.

    Attributes
    ----------
    value : str
        The first value of another kind.
    row : int
        Its row, from 0.
    reason : str
        What it is not.
    bad, good : int
        Values of another kind, and of the kind.
    """

    value: str
    row: int
    reason: str
    bad: int
    good: int


def typed(series: Any) -> tuple[Values, Doubt | None]:
    """Return a column of a DataFrame by its content, and why it is text if that is hardly meant.

    Parameters
    ----------
    series : pandas.Series, shape (rows,)
        Numbered from 0.

    Returns
    -------
    Values
        Numbers as they are; times as datetime64[ns] in UTC; float64 for true and false; else a category.
    Doubt or None
    """
    import pandas as pd

    if pd.api.types.is_bool_dtype(series.dtype):
        return np.asarray(series, dtype="float64"), None
    if pd.api.types.is_numeric_dtype(series.dtype):
        return np.asarray(series), None
    present = series.dropna()
    if not len(present):
        return np.full(len(series), np.nan), None
    if pd.api.types.infer_dtype(present, skipna=False) == "boolean":  # beside empty cells
        return series.astype("float64").to_numpy(), None
    kind = _meant(present.iloc[:: max(1, len(present) // _SAMPLE)].astype(str))
    doubt = None
    if kind == "time":
        times = pd.to_datetime(present, utc=True, format="ISO8601", errors="coerce")
        wrong, reason = times.isna(), "time"
        if not wrong.any():
            wrong, reason = ~times.between(pd.Timestamp(_FIRST, tz="UTC"), pd.Timestamp(_LAST, tz="UTC")), "ages"
        if not wrong.any():
            found = times.dt.tz_convert(None).dt.as_unit("ns").reindex(series.index)
            return np.asarray(found.to_numpy(), dtype="datetime64[ns]"), None
        doubt = _doubt(present, wrong, reason)
    elif kind == "number":
        numbers = pd.to_numeric(present.astype(str), errors="coerce")
        doubt = _doubt(present, numbers.isna(), "number") or _doubt(present, numbers.abs() >= 2.0**63, "whole")
    elif kind == "flag":
        doubt = _doubt(present, ~_flags(present), "flag")
    return tables.categorize(series.where(series.isna(), series.astype(str))), doubt


def _meant(sample: Any) -> str:
    """Return what most values of a sample are: ``time``, ``number`` or ``flag``; empty for text."""
    import pandas as pd

    if sample.str.match(_ISO).mean() > 0.5:
        return "time"
    if pd.to_numeric(sample, errors="coerce").notna().mean() > 0.5:
        return "number"
    return "flag" if _flags(sample).mean() > 0.5 else ""


def _flags(series: Any) -> Any:
    return series.astype(str).str.lower().isin(("true", "false"))


def _doubt(present: Any, wrong: Any, reason: str) -> Doubt | None:
    """Return the doubt over the first value that is wrong; none when no value is, or most are (text is meant then)."""
    bad = int(wrong.sum())
    if not bad or 2 * bad >= len(present):
        return None
    first = int(np.argmax(np.asarray(wrong)))
    return Doubt(str(present.iloc[first])[:60], int(present.index[first]), _REASONS[reason], bad, len(present) - bad)
