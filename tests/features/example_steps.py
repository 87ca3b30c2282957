"""One example of every step kind, on a table in which some columns are known in time and others only later."""

from __future__ import annotations

import numpy as np

from daskml_scale.spec.expressions import Coded, Values

START = np.datetime64("2013-03-31T00:00", "ns")  # the day on which summer time begins in Paris
KNOWN_AT = "due - minutes(30)"
TARGET = "late"
EVENT = {"of": "late", "at": "done", "match": ["place"]}

EXAMPLES: dict[str, dict] = {
    "aggregate": {"of": ["late"], "by": ["place"], "stats": ["mean", "std", "count"], "fold_by": "number"},
    "as_of": {"table": "past", "match": ["place"], "their_time": "done", "take": ["late"]},
    "bin": {"of": "size", "by": "quantile", "bins": 4},
    "cast": {"of": ["size"], "to": "int16"},
    "clip": {"of": "size", "low": -1.0, "high": 1.0},
    "compute": {"features": {"double": "size * 2"}},
    "count": {"of": "place"},
    "cyclical": {"of": "size", "periods": [3.0]},
    "date_parts": {"of": "due", "parts": ["hour", "dayofyear"], "zone": "Europe/Paris"},
    "diff": {**EVENT, "within": "3h", "lags": [1]},
    "exponential_mean": {**EVENT, "half_life": "1h"},
    "forward_fill": EVENT,
    "function": {"call": "example_functions:doubled", "of": ["size"], "makes": ["more"]},
    "hashing": {"of": "place", "buckets": 4},
    "impute": {"of": "size", "indicator": True},
    "interactions": {"of": ["size", "width"]},
    "keep": {"of": "size"},
    "lag": {**EVENT, "within": "3h", "lags": [1, 2]},
    "log": {"of": "size"},
    "lookup": {"table": "sites", "key": "place", "take": ["area"]},
    "min_max": {"of": "size"},
    "one_hot": {"of": "place"},
    "ordinal": {"of": "place"},
    "pca": {"of": ["size", "width"], "components": 1},
    "rename": {"of": {"length": "size"}},
    "robust": {"of": "size"},
    "rolling": {**EVENT, "within": "3h", "events": 3, "stats": ["mean", "max"]},
    "since": EVENT,
    "sklearn": {"of": ["size", "width"], "transformer": {"sklearn.impute.SimpleImputer": {}}, "prefix": "full_"},
    "standardize": {"of": "size"},
    "target_mean": {"of": "place", "fold_by": "number"},
    "trailing": {**EVENT, "windows": ["2h"]},
}
"""Step name -> settings. Whatever looks at other rows looks at what is recorded later at the row itself."""


def columns(rows: int, seed: int = 0) -> dict[str, Values]:
    """Return a table of which ``late`` and ``done`` are known only later."""
    rng = np.random.default_rng(seed)
    due = START + np.sort(rng.integers(0, 600, rows)) * np.timedelta64(1, "m")
    return {
        "due": due,
        "done": due + rng.integers(-60, 120, rows) * np.timedelta64(1, "m"),
        "place": Coded(rng.integers(-1, 3, rows).astype("int32"), ("c", "a", "b")),
        "number": np.arange(rows),
        "size": np.where(rng.random(rows) < 0.1, np.nan, rng.normal(size=rows)),
        "width": rng.normal(size=rows),
        "late": np.where(rng.random(rows) < 0.1, np.nan, rng.integers(0, 3, rows).astype("float64")),
    }


def tables(own: dict[str, Values]) -> dict[str, dict[str, Values]]:
    """Return the tables that the examples join: ``past`` is the table itself."""
    return {
        "past": own,
        "sites": {"place": Coded(np.arange(3, dtype="int32"), ("a", "b", "c")), "area": np.array([1.0, 2.0, 3.0])},
    }
