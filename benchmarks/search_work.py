"""What the searches of the benchmarks fit: estimators that take a known time, and texts."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, RegressorMixin

from .calls import spin


class Spinning(RegressorMixin, BaseEstimator):  # type: ignore[misc]
    """Computes for a number of steps, then predicts a constant."""

    def __init__(self, steps: int = 1000, constant: float = 0.0) -> None:
        self.steps, self.constant = steps, constant

    def fit(self, X: Any, y: Any) -> Spinning:
        spin(self.steps)
        self.fitted_ = True
        return self

    def predict(self, X: Any) -> np.ndarray:
        return np.full(len(X), self.constant)


class Raising(Spinning):
    """Does not fit."""

    def fit(self, X: Any, y: Any) -> Spinning:
        raise ValueError("this estimator does not fit")


def steps_for(seconds: float) -> int:
    """Return how many steps `spin` takes for so long on this machine."""
    began = time.perf_counter()
    spin(1_000_000)
    return max(1, round(1_000_000 * seconds / (time.perf_counter() - began)))


def texts(count: int) -> tuple[list[str], np.ndarray]:
    """Return made-up texts of 60 words and their class."""
    rng = np.random.default_rng(0)
    words = np.array([f"word{number}" for number in range(5000)])
    chances = 1.0 / np.arange(1, 5001)
    target = rng.integers(0, 2, count)
    found = []
    for kind in target:
        rows = rng.choice(5000, 60, p=chances / chances.sum())
        found.append(" ".join(words[np.where(rng.random(60) < 0.05, 4000 + kind * 400 + rows % 400, rows)]))
    return found, target
