"""Beyond one number per metric: intervals by the bootstrap, one row per slice, two models side by side. Pure.

Rows are drawn with replacement from the seed alone, the same rows for both models: the interval of
their difference is of pairs, and much narrower than the two intervals suggest. The bootstrap takes
rows as independent; rows that repeat each other make its intervals too narrow.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from daskml_scale.errors import UsageError
from daskml_scale.spec.expressions import Coded, Values, missing
from daskml_scale.spec.space import seed_from

from .metrics import METRICS, Scored

LEVEL = 0.95
"""Share of resamples within an interval."""
MOST_SLICES = 100
"""Values of a column to slice by; more are no table to read."""


def measure(scored: Scored, metrics: Sequence[str]) -> dict[str, Any]:
    """Return metric -> number or table; refuses what is not defined."""
    return {name: METRICS[name].of(scored) for name in metrics}


def intervals(
    scored: Scored, other: Scored | None, metrics: Sequence[str], resamples: int, seed: int
) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """Return 95 % percentile intervals of the metrics, and of their differences to another model's.

    Parameters
    ----------
    scored, other : Scored
        Of the same rows, in the same order.
    metrics : sequence of str
        Tables have no interval and are left out.
    resamples : int
    seed : int

    Returns
    -------
    tuple of two mappings of metric to [low, high]
        A metric that is not defined on a resample (no row of a class) takes the other resamples.
    """
    names = [name for name in metrics if not METRICS[name].table]
    own: dict[str, list[float]] = {name: [] for name in names}
    apart: dict[str, list[float]] = {name: [] for name in names}
    rng = np.random.default_rng(seed_from(seed, "bootstrap"))
    rows = len(scored.y)
    for _ in range(resamples):
        drawn = rng.integers(0, rows, rows)
        one, two = scored.take(drawn), None if other is None else other.take(drawn)
        for name in names:
            value = _or_none(one, name)
            if value is None:
                continue
            own[name].append(value)
            if two is not None:
                apart[name].append(value - METRICS[name].of(two))
    return _bounds(own), _bounds(apart)


def against(
    own: Mapping[str, Any], theirs: Mapping[str, Any], name: str, apart: Mapping[str, list[float]]
) -> dict[str, Any]:
    """Return the comparison with another model: its metrics, ours minus theirs, and intervals of the differences."""
    difference = {metric: own[metric] - theirs[metric] for metric in own if not METRICS[metric].table}
    found = {"model": name, "metrics": dict(theirs), "difference": difference}
    return {**found, "intervals": dict(apart)} if apart else found


def _bounds(found: dict[str, list[float]]) -> dict[str, list[float]]:
    tail = (1 - LEVEL) / 2
    return {
        name: [float(bound) for bound in np.quantile(values, [tail, 1 - tail])]
        for name, values in found.items()
        if values
    }


def _or_none(scored: Scored, name: str) -> Any:
    """Return a metric, or None where it is not defined on these rows."""
    try:
        value = METRICS[name].of(scored)
    except UsageError:
        return None
    return value if METRICS[name].table or np.isfinite(value) else None


def sliced(scored: Scored, column: str, values: Values, metrics: Sequence[str]) -> list[dict[str, Any]]:
    """Return one entry per value of a column: value, rows and metrics, None where a metric is not defined.

    Times are taken by calendar month; rows whose value is missing are the last entry.

    Raises
    ------
    UsageError
        When the column has more than :data:`MOST_SLICES` values.
    """
    names = [name for name in metrics if not METRICS[name].table]
    table = []
    for value, rows in groups(column, values):
        part = scored.take(rows)
        table.append({"value": value, "rows": len(rows), "metrics": {name: _or_none(part, name) for name in names}})
    return table


def groups(column: str, values: Values) -> Iterator[tuple[Any, np.ndarray]]:
    """Yield each value of a column and the rows that have it, those without a value last, as ``None``.

    Raises
    ------
    UsageError
        When there are more than :data:`MOST_SLICES` values.
    """
    absent = missing(values)
    if isinstance(values, Coded):
        keys, labels = values.codes, dict(enumerate(values.labels))
    elif values.dtype.kind == "M":
        keys = values.astype("datetime64[M]")
        labels = {}
    else:
        keys, labels = values, {}
    found = np.unique(keys[~absent])
    if len(found) > MOST_SLICES:
        raise UsageError(
            f"{column!r} has {len(found):,} values, at most {MOST_SLICES} can be sliced by; "
            "derive a column with fewer values in the ingest stage"
        )
    for key in found:
        yield labels.get(key, _plain(key)), np.flatnonzero((keys == key) & ~absent)
    if absent.any():
        yield None, np.flatnonzero(absent)


def _plain(key: np.generic) -> Any:
    return str(key) if key.dtype.kind == "M" else key.item()
