"""Predict cells as rows of a matrix: those of which everything is missing are left out, and stay missing."""

from __future__ import annotations

from typing import Any

import numpy as np

from daskml_scale.engine.worker import WorkerContext

from .isolate import BadRows
from .scoring import Model


def predict_cells(
    model: Model, X: np.ndarray, worker: WorkerContext, limit: int, columns: Any = slice(None)
) -> tuple[np.ndarray, np.ndarray, BadRows]:
    """Predict rows of cells; those of which all ``columns`` are missing stay missing. See ``Model.values``."""
    present = np.flatnonzero(~absent(X[:, columns]))
    if len(present) == len(X):
        return model.values(lambda start, stop: X[start:stop], len(X), worker, limit)
    some = X[present]
    found, state, among = model.values(lambda start, stop: some[start:stop], len(some), worker, limit)
    values = np.full((len(X), *model.output.shape), model.output.missing, dtype=model.output.dtype)
    status = np.zeros(len(X), dtype="uint8")
    values[present], status[present] = found, state
    bad = BadRows(among.limit)
    bad.status = {int(present[row]): code for row, code in among.status.items()}
    bad.reasons = {int(present[row]): text for row, text in among.reasons.items()}
    return values, status, bad


def absent(X: np.ndarray) -> np.ndarray:
    """Return which rows hold nothing but missing values; the rest of a row is looked at where its first is missing."""
    found = np.isnan(X[:, 0])
    some = np.flatnonzero(found)
    found[some] = np.isnan(X[some]).all(axis=1)
    return np.asarray(found)
