"""The least that a process can do to predict chunks of a matrix: read, predict, write. No engine, no record.

Imported by processes of `inference`, and by Ray's actors in another environment: nothing of ours here.
"""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import zarr
from threadpoolctl import threadpool_limits

Part = tuple[str, str, str, str, int, list[int]]


def create(out: str, rows: int, chunk: int, method: str) -> None:
    """Create the arrays that are written: values, and a status per row."""
    group = zarr.open_group(out, mode="w")
    width = {"predict_proba": (2,), "copy": (32,)}.get(method, ())
    group.create_array("probability", shape=(rows, *width), chunks=(chunk, *width), dtype="float32")
    group.create_array("status", shape=(rows,), chunks=(chunk,), dtype="uint8")


def loaded(path: str) -> Any:
    """Return the model of a pickle that the benchmark wrote."""
    with open(path, "rb") as file:
        return pickle.load(file)


def one(arrays: tuple[Any, Any, Any], model: Any, method: str, start: int, chunk: int) -> None:
    """Read, predict and write one chunk; ``copy`` writes what it read, ``first`` its first column."""
    features, values, status = arrays
    X = features[start : start + chunk]
    found = X if method == "copy" else X[:, 0] if method == "first" else getattr(model, method)(X)
    values[start : start + chunk] = np.asarray(found, dtype="float32")
    status[start : start + chunk] = 1


def opened(url: str, out: str) -> tuple[Any, Any, Any]:
    """Return the arrays of features, values and status."""
    group = zarr.open_group(out, mode="r+")
    return zarr.open_group(url, mode="r")["features"], group["probability"], group["status"]


def work(part: Part) -> None:
    """Do the chunks of one process."""
    url, out, path, method, chunk, starts = part
    with threadpool_limits(1):
        model = None if method in ("copy", "first") else loaded(path)
        arrays = opened(url, out)
        for start in starts:
            one(arrays, model, method, start, chunk)
