"""The profile of a table: missing values, extremes, histograms, top categories, correlations. Pure.

From the merged statistics of all chunks; a JSON document that is written beside the run, for reports.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from daskml_scale.plan.units import Variable
from daskml_scale.storage.tables import kind_of

from .features.summary import Histogram, Moments
from .validate_statistics import CORRELATED, correlations, edges

FORMAT = 1
BINS = 40
"""Most bins of a histogram."""
TOP = 20
"""Most categories that are named."""
SHARES = (0.05, 0.25, 0.5, 0.75, 0.95)


def profile(scans: Sequence[Mapping[str, Any]], variables: Mapping[str, Variable]) -> dict[str, Any]:
    """Return the profile of a table.

    Parameters
    ----------
    scans : sequence
        Statistics of all chunks, in order.
    variables : mapping of column to Variable
        Schemas of the columns.

    Returns
    -------
    dict
        ``rows``; ``columns``: name -> ``kind``, ``missing`` (count), and by kind ``first``, ``last`` (ISO 8601);
        ``top`` (label, rows), ``distinct``; ``mean``, ``std``, ``min``, ``max``, ``infinite``, ``quantiles`` (within
        2**-4 of the value) and ``histogram`` (``edges`` towards 0 and ``counts``); ``correlations``: ``columns``
        and ``values``.
    """
    rows = sum(scan["rows"] for scan in scans)
    columns = {
        name: _column([scan["columns"][name] for scan in scans], variable, rows) for name, variable in variables.items()
    }
    numeric = [name for name, found in columns.items() if found["kind"] == "number"][:CORRELATED]
    values = correlations([scan["together"] for scan in scans if "together" in scan])
    return {
        "format": FORMAT,
        "rows": rows,
        "columns": columns,
        "correlations": {"columns": numeric if len(values) else [], "values": _rounded(values)},
    }


def _column(parts: Sequence[Mapping[str, Any]], variable: Variable, rows: int) -> dict[str, Any]:
    kind = kind_of(variable)
    gone = sum(part["missing"] for part in parts)
    found = {"kind": kind, "dtype": variable.dtype, "missing": gone, "missing_share": gone / rows if rows else 0.0}
    if kind == "category":
        return {**found, **_category(parts, variable)}
    if kind == "time":
        ends = [part["ends"] for part in parts if part["ends"]]
        first, last = (
            _instant(choose(end[at] for end in ends)) if ends else None for at, choose in enumerate((min, max))
        )
        return {**found, "first": first, "last": last}
    return {**found, **_number(parts)}


def labels(parts: Sequence[Mapping[str, Any]]) -> Histogram:
    """Return code -> rows of a category, over all chunks."""
    return Histogram.merged([Histogram.unpack(part["labels"]) for part in parts])


def _category(parts: Sequence[Mapping[str, Any]], variable: Variable) -> dict[str, Any]:
    counted, names = labels(parts), variable.attrs["categories"]
    order = np.lexsort((counted.keys, -counted.counts))[:TOP]
    top = [[names[int(counted.keys[at])], int(counted.counts[at])] for at in order]
    return {"distinct": len(counted.keys), "top": top}


def _instant(nanoseconds: int) -> str:
    return str(np.datetime64(nanoseconds, "ns")).removesuffix(".000000000")


def _number(parts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    moments = Moments()
    for part in parts:
        moments = moments.merged(Moments(*part["moments"]))
    infinite = sum(part["infinite"] for part in parts)
    if not moments.count:
        return {"infinite": infinite, "mean": None, "std": None, "min": None, "max": None}
    counted = Histogram.merged([Histogram.unpack(part["buckets"]) for part in parts])
    until = np.cumsum(counted.counts)
    places = np.searchsorted(until, [share * (until[-1] - 1) for share in SHARES], "right")
    middle = np.clip(edges(counted.keys[places]), moments.low, moments.high)
    return {
        "infinite": infinite,
        "mean": moments.mean,
        "std": moments.deviation,
        "min": moments.low,
        "max": moments.high,
        "quantiles": dict(zip(map(str, SHARES), middle.tolist(), strict=True)),
        "histogram": _histogram(counted),
    }


def _histogram(counted: Histogram) -> dict[str, Any]:
    """Join neighbouring buckets so that few are left, each of about as many buckets."""
    cuts = np.unique(np.linspace(0, len(counted.keys), min(BINS, len(counted.keys)) + 1).astype(int))
    counts = np.add.reduceat(counted.counts, cuts[:-1])
    return {"edges": edges(counted.keys[cuts[:-1]]).tolist(), "counts": counts.tolist()}


def _rounded(values: np.ndarray) -> list[list[float | None]]:
    return [[None if np.isnan(value) else round(float(value), 6) for value in row] for row in values]
