"""Data and estimators that the tests of this folder share. No pytest here: workers import it too."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin

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
