"""Data and estimators that the tests of this folder share. No pytest here: workers import it too."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin

from daskml_scale.plan.units import Template, Variable
from daskml_scale.storage import stores, tables

NAMES = ("a", "b", "c", "d")


def matrix(rows: int = 300, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return X of shape (rows, 4) with missing values in column 1, and y of 0.0 and 1.0."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(rows, len(NAMES))).astype("float32")
    y = (X[:, 0] + 0.5 * rng.normal(size=rows) > 0).astype("float64")
    X[::7, 1] = np.nan
    return X, y


class Fragile(ClassifierMixin, BaseEstimator):
    """Gives column 0 as the probability of class 1; refuses a batch in which it exceeds ``limit``."""

    def __init__(self, limit: float = 2.0) -> None:
        self.limit = limit

    def fit(self, X: Any, y: Any) -> Fragile:
        self.classes_ = np.unique(y)
        self.n_features_in_ = np.shape(X)[1]
        return self

    def predict_proba(self, X: np.ndarray) -> np.ndarray:
        first = np.asarray(X)[:, 0].astype("float64")
        if np.any(first > self.limit):
            raise ValueError(f"value {first.max():.3f} above the limit {self.limit}")
        return np.stack([1 - first, first], axis=1)

    def predict(self, X: np.ndarray) -> np.ndarray:
        return self.classes_[(self.predict_proba(X)[:, 1] > 0.5).astype(int)]


def write_matrix(url: str, X: np.ndarray, y: np.ndarray, names: tuple[str, ...] = NAMES, chunk: int = 100) -> None:
    """Write a feature matrix as the ``features`` stage does; row key ``when``: one row per hour from 2013-01-01."""
    rows, width = X.shape
    times = np.datetime64("2013-01-01", "ns") + np.arange(rows) * np.timedelta64(1, "h")
    kind = tables.column_type(times)
    variables = {
        "features": Variable("float32", ("row", "feature"), (rows, width), (chunk, width)),
        "feature": Variable("string", ("feature",), (width,), (width,)),
        "late": Variable("float64", ("row",), (rows,), (chunk,)),
        "when": kind.variable("row", rows, chunk),
    }
    attrs = {"target": "late", "row_key": ["when"], "recipe": {"steps": []}, "recipe_hash": "r1"}
    stores.create(url, Template("row", rows, variables, attrs, small={"feature": list(names)}))
    values = {"features": X, "late": y, "when": tables.encode(times, kind)}
    for start in range(0, rows, chunk):
        stores.write_region(url, start, {name: array[start : start + chunk] for name, array in values.items()})
