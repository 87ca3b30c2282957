"""What ``validate`` keeps of a chunk: small statistics of every column, merged in the order of the chunks.

One reading of a chunk gives all that the rules and the profile need, except uniqueness. Counts, extremes and
histograms merge in any order; means and correlations by Chan, Golub & LeVeque (1983) in the order of the
chunks. A bucket of a histogram is 2**-4 of its value wide. Infinite values are counted apart.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from daskml_scale.spec.expressions import Coded, Values, missing
from daskml_scale.spec.rules import Range, Rising

from .features.summary import Histogram, Moments, bucket_of, edge_of

CORRELATED = 24
"""Most numeric columns whose correlations are computed: the first ones."""
_COARSE = 6
"""Bits by which buckets are wider than those that quantile steps use."""


def scan(columns: Mapping[str, Values], rules: Sequence[Any], start: int, rows: int) -> dict[str, Any]:
    """Return the statistics of the rows [start, start + rows): a small JSON value.

    Parameters
    ----------
    columns : mapping of name to Values of shape (rows,)
    rules : sequence
        Of all kinds; ``Range`` and ``Rising`` look at rows.
    """
    found: dict[str, Any] = {"rows": rows, "columns": {name: _column(values) for name, values in columns.items()}}
    found["rules"] = {
        str(position): _out_of_range(rule, columns, start) if isinstance(rule, Range) else _falls(rule, columns, start)
        for position, rule in enumerate(rules)
        if isinstance(rule, (Range, Rising))
    }
    names = numeric(columns)
    if len(names) > 1:
        found["together"] = [part.tolist() for part in _together([columns[name] for name in names])]
    return found


def numeric(columns: Mapping[str, Values]) -> list[str]:
    """Return the columns whose correlations are computed."""
    chosen = [name for name, values in columns.items() if not isinstance(values, Coded) and values.dtype.kind in "iufb"]
    return chosen[:CORRELATED]


def _column(values: Values) -> dict[str, Any]:
    if isinstance(values, Coded):
        present = values.codes[values.codes >= 0]
        return {"missing": len(values) - len(present), "labels": Histogram.of(present.astype("int64")).pack()}
    if values.dtype.kind == "M":
        there = values[~np.isnat(values)].astype("datetime64[ns]").view("int64")
        ends = [int(there.min()), int(there.max())] if len(there) else None
        return {"missing": len(values) - len(there), "ends": ends}
    numbers = values.astype("float64")
    finite = numbers[np.isfinite(numbers)]
    return {
        "missing": int(np.isnan(numbers).sum()),
        "infinite": int(np.isinf(numbers).sum()),
        "moments": list(vars(Moments.of(numbers)).values()),
        "buckets": Histogram.of(_coarse(finite)).pack(),
    }


def _coarse(values: np.ndarray) -> np.ndarray:
    buckets = bucket_of(values)
    return np.asarray(np.sign(buckets) * (np.abs(buckets) >> _COARSE))


def edges(coarse: np.ndarray) -> np.ndarray:
    """Return the edges of coarse buckets towards 0, float64."""
    return edge_of(coarse << _COARSE)


def _out_of_range(rule: Range, columns: Mapping[str, Values], start: int) -> dict[str, Any]:
    options, values = rule.range, np.asarray(columns[rule.range.of])
    low = values < (-np.inf if options.least is None else options.least)
    out = low | (values > (np.inf if options.most is None else options.most))
    if not out.any():
        return {"count": 0}
    row = int(np.flatnonzero(out)[0])
    return {"count": int(out.sum()), "row": start + row, "value": f"{float(values[row]):g}"}


def _falls(rule: Rising, columns: Mapping[str, Values], start: int) -> dict[str, Any]:
    """Return how often the value falls, and the first and last row with a value: what a neighbour needs."""
    values = np.asarray(columns[rule.rising.of])
    rows = np.flatnonzero(~missing(values))
    if not len(rows):
        return {"count": 0}
    numbers = values[rows].astype("datetime64[ns]").view("int64") if values.dtype.kind == "M" else values[rows]
    keys = [_plain(columns[name])[rows] for name in rule.rising.match]
    same = np.ones(len(rows) - 1, dtype=bool)
    for key in keys:
        same &= key[1:] == key[:-1]
    bad = same & ((numbers[1:] <= numbers[:-1]) if rule.rising.strictly else (numbers[1:] < numbers[:-1]))
    ends = [[numbers[at].item(), [key[at].item() for key in keys], start + int(rows[at])] for at in (0, -1)]
    found = {"count": int(bad.sum()), "first": ends[0], "last": ends[1]}
    return found if not bad.any() else {**found, "row": start + int(rows[1:][bad][0])}


def _plain(values: Values) -> np.ndarray:
    if isinstance(values, Coded):
        return values.codes
    return values.astype("datetime64[ns]").view("int64") if values.dtype.kind == "M" else values


def falls(parts: Sequence[Mapping[str, Any]], *, strictly: bool) -> tuple[int, int | None]:
    """Return how often a value falls over all chunks, their borders included, and the first row where it does."""
    count, first, before = 0, None, None
    for part in parts:
        if "first" not in part:
            continue
        value, key, row = part["first"]
        if before is not None and before[1] == key and (value <= before[0] if strictly else value < before[0]):
            count += 1
            first = row if first is None else first
        count += part["count"]
        first = part.get("row") if first is None else first
        before = part["last"]
    return count, first


def _together(columns: Sequence[Values]) -> list[np.ndarray]:
    """Return, for every pair of columns over the rows in which both are: count, mean, squares, products.

    Each of shape (columns, columns); entry (i, j) is of column i where column j is present too.
    """
    values = np.stack([np.asarray(column, dtype="float64") for column in columns], axis=1)
    there = np.isfinite(values)
    shift = np.where(there.any(axis=0), np.where(there, values, 0).sum(axis=0) / np.maximum(1, there.sum(axis=0)), 0.0)
    centred, here = np.where(there, values - shift, 0.0), there.astype("float64")
    count, total = here.T @ here, centred.T @ here
    safe = np.maximum(count, 1)
    squares = np.square(centred).T @ here - total**2 / safe
    products = centred.T @ centred - total * total.T / safe
    return [count, np.where(count > 0, shift[:, None] + total / safe, 0.0), np.maximum(squares, 0), products]


def correlations(parts: Sequence[Any]) -> np.ndarray:
    """Return Pearson's correlation of every pair, over the rows in which both are; NaN where it is not defined."""
    merged: list[np.ndarray] | None = None
    for part in parts:
        one = [np.asarray(each, dtype="float64") for each in part]
        merged = one if merged is None else _merged(merged, one)
    if merged is None:
        return np.empty((0, 0))
    _, _, squares, products = merged
    with np.errstate(all="ignore"):
        found = products / np.sqrt(squares * squares.T)
    return np.clip(np.where((squares > 0) & (squares.T > 0), found, np.nan), -1, 1)


def _merged(one: Sequence[np.ndarray], other: Sequence[np.ndarray]) -> list[np.ndarray]:
    count = one[0] + other[0]
    share = other[0] / np.maximum(count, 1)
    delta = other[1] - one[1]
    delta = np.where((one[0] > 0) & (other[0] > 0), delta, 0.0)
    mean = np.where(one[0] > 0, one[1] + delta * share, other[1])
    weight = one[0] * share
    return [count, mean, one[2] + other[2] + delta**2 * weight, one[3] + other[3] + delta * delta.T * weight]
