"""Training on a matrix that no worker can hold: ``partial_fit`` over its shards, in the order of the table.

One shard is in memory at a time, and the order is always the same, so equal runs give equal models.
The classes are collected in a first pass over the target alone. Nothing here writes.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

import numpy as np

from daskml_scale.artifacts.profile import spaced
from daskml_scale.errors import PlanError, SpecError
from daskml_scale.plan.units import Snapshot, row_ranges

from .matrix import FEATURES, columns_of, read_part


def check(path: str, estimator: Any) -> None:
    """Refuse an estimator that cannot learn in parts.

    Raises
    ------
    SpecError
    """
    if not hasattr(estimator, "partial_fit"):
        raise SpecError(
            f"{path} has no partial_fit, it learns from all rows at once; leave partial_fit away, or use "
            "sklearn.linear_model.SGDClassifier, SGDRegressor, sklearn.naive_bayes.GaussianNB, ..."
        )


def part_bytes(snapshot: Snapshot) -> int:
    """Return the projected peak bytes of learning shard by shard: the rows, the chosen ones, a float64 copy."""
    features = snapshot.variables[FEATURES]
    rows = min(features.shape[0], features.write_unit[0])
    return rows * int(np.prod(features.shape[1:])) * (2 * features.itemsize + 8) + 64 * rows


def parts(url: str, where: str | None) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield the wanted rows of each shard, in order: X of shape (rows, features), y of float64; none is empty."""
    for start, stop in ranges(url):
        X, y = read_part(url, where, start, stop)
        if len(y):
            yield X, y


def classes(url: str, where: str | None) -> np.ndarray:
    """Return the sorted values of the target of all wanted rows.

    Raises
    ------
    PlanError
        When no row is wanted.
    """
    found = [np.unique(read_part(url, where, start, stop, features=False)[1]) for start, stop in ranges(url)]
    values = np.unique(np.concatenate(found)) if found else np.empty(0)
    if not len(values):
        raise PlanError(
            f"{url}: no row{f' where: {where}' if where else ''} has a value of the target; nothing to learn"
        )
    return values


def fit(estimator: Any, url: str, where: str | None, passes: int) -> tuple[int, tuple[str, ...]]:
    """Fit an estimator by passes over all shards.

    Returns
    -------
    rows : int
        Learnt from in each pass.
    columns : tuple of str
        Names of the features.
    """
    known = classes(url, where)
    takes = "classes" in inspect.signature(estimator.partial_fit).parameters
    rows = 0
    for number in range(passes):
        for X, y in parts(url, where):
            rows += len(y) if number == 0 else 0
            estimator.partial_fit(X, y, **({"classes": known} if takes else {}))
    return rows, columns_of(url)


def sample(url: str, where: str | None, rows: int) -> np.ndarray:
    """Return evenly spaced rows of what was learnt from, as many as a profile is made from."""
    step, before, found = spaced(rows).step, 0, []
    for X, _ in parts(url, where):
        found.append(X[-before % step :: step])
        before += len(X)
    return np.concatenate(found)


def ranges(url: str) -> list[tuple[int, int]]:
    """Return the rows of each shard of a matrix."""
    from daskml_scale.storage import stores

    features = stores.open_group(url, "r")[FEATURES]
    return row_ranges(features.shape[0], (features.shards or features.chunks)[0])
