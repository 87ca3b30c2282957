"""How features and predictions were distributed in training: what ``monitor`` compares a prediction with. Pure.

Of each feature the counts in bins: between 20 quantiles, below the least and above the largest value; or, of
few different values, one bin per value. Bins are fixed by training, so counts of any rows add up. At most
:data:`ROWS` rows are looked at, evenly spaced.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import numpy as np

from .methods import call

BINS = 20
"""Quantiles of a feature with many values."""
ROWS = 50_000
"""Rows that a profile is made from."""
_METHODS = ("predict", "predict_proba")


def profiled(reference: Any, model: Any, schema: Mapping[str, Any]) -> dict[str, Any]:
    """Return the profile of training rows, and of what the model says of them.

    Parameters
    ----------
    reference : array of shape (rows, features), or mapping
        A mapping is a profile already.
    model : object
        Fitted.
    schema : mapping
        Of the bundle.

    Returns
    -------
    dict
        ``rows``; ``features`` and ``outputs`` (method -> one entry per column): lists of ``name``, ``edges``,
        ``counts`` (one more than edges) and ``missing``.
    """
    if isinstance(reference, Mapping):
        return dict(reference)
    X = np.asarray(reference)[spaced(len(reference))]
    names = [str(name) for name in schema["features"]]
    found: dict[str, Any] = {
        "rows": len(X),
        "features": [entry(name, X[:, column]) for column, name in enumerate(names)],
        "outputs": {},
    }
    for method in _METHODS:
        if not len(X) or not hasattr(model, method):
            continue
        with suppress(Exception):  # a model that refuses some of its training rows has no profile of predictions
            values = call(model, method, X.copy(), names)
            found["outputs"][method] = output_entries(values, schema.get("classes") or ())
    return found


def spaced(rows: int) -> slice:
    """Return which of so many rows a profile is made from."""
    return slice(None, None, max(1, -(-rows // ROWS)))


def output_entries(values: np.ndarray, classes: Sequence[Any]) -> list[dict[str, Any]]:
    """Return one entry per column of an output, as float32: the type that predictions are stored in.

    Text is counted by the place of its class.
    """
    if values.dtype.kind in "OU":
        place = {str(label): number for number, label in enumerate(classes)}
        values = np.asarray([place.get(str(value), np.nan) for value in values.ravel()]).reshape(values.shape)
    flat = values.reshape(len(values), -1).astype("float32")
    return [entry(str(column), flat[:, column]) for column in range(flat.shape[1])]


def entry(name: str, values: np.ndarray) -> dict[str, Any]:
    """Return bins and counts of one column, shape (rows,)."""
    edges = edges_of(values)
    counts = count(values, edges)
    return {"name": name, "edges": edges.tolist(), "counts": counts[1:], "missing": counts[0]}


def edges_of(values: np.ndarray) -> np.ndarray:
    """Return the sorted edges of the bins of a column; empty when no value is present."""
    present = values[np.isfinite(values)].astype("float64")
    if not len(present):
        return np.empty(0)
    found = np.unique(present)
    if len(found) > BINS + 1:
        found = np.unique(np.quantile(present, np.linspace(0, 1, BINS + 1)))
    return np.asarray(np.append(found, np.nextafter(found[-1], np.inf)))


def count(values: np.ndarray, edges: np.ndarray) -> list[int]:
    """Return how many values are missing, and how many are in each bin: ``len(edges) + 2`` counts."""
    absent = np.isnan(values)
    places = np.searchsorted(edges, values[~absent].astype("float64", copy=False), side="right")
    return [int(absent.sum()), *np.bincount(places, minlength=len(edges) + 1).tolist()]


def counted(columns: np.ndarray, entries: Sequence[Mapping[str, Any]]) -> list[list[int]]:
    """Return the counts of each column of an array of shape (rows, columns)."""
    return [count(columns[:, number], np.asarray(one["edges"])) for number, one in enumerate(entries)]
