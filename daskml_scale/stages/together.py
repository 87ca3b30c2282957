"""Small units predicted in one call, where a row's value does not depend on the rows beside it.

A forest of 300 trees takes almost as long for 100 rows as for 1,000. So the first of some small units of a task
predicts the rows of the units after it, too, and these find their values made. Only for scikit-learn's forests: they
add up their trees in order, so that the value of a row is the same to the bit whatever else is in the matrix; a
matrix product gives no such promise. Where the joint call fails, each unit is predicted alone, and its bad rows found.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from daskml_scale.engine.worker import WorkerContext
from daskml_scale.plan.units import Unit

from .estimator import limited
from .scoring import Model

ROWS = 2_048
"""Most rows of one call; a unit of more than half of them is predicted alone."""
UNITS, SECONDS = 64, 0.2
"""Most units of one call, and how long they are read: a task that takes too long gives back what it did not start."""
_FORESTS = "sklearn.ensemble._forest"

Read = Callable[[Unit], tuple[Any, ...]]


def made(
    unit: Unit, model: Model, worker: WorkerContext, read: Read, clock: Callable[[], float] = time.monotonic
) -> tuple[tuple[Any, ...], np.ndarray | None]:
    """Return what ``read`` gives for a unit, features first, and what the model gives for them, if that is made.

    Parameters
    ----------
    read : callable (unit) -> (features of shape (rows, features) or None, ...)
    """
    overlap = worker.overlap
    if overlap is None or not _one_by_one(model, worker):
        return worker.read(unit, read), None
    found: tuple[tuple[Any, ...], np.ndarray | None] | None = overlap.kept.pop(unit.key, None)
    if found is not None:
        return found
    until = clock() + SECONDS
    units, parts, rows = [unit], [worker.read(unit, read)], unit.weight
    for other in overlap.following(unit):
        rows += other.weight
        if rows > ROWS or len(units) == UNITS or clock() > until:
            break
        if other.key.partition("/")[0] != unit.key.partition("/")[0]:
            break
        try:
            parts.append(worker.read(other, read))
        except Exception:
            break  # its own call will say so
        units.append(other)
    if len(units) == 1:
        return parts[0], None
    overlap.joined(units)
    values = _predicted(model, worker, [part[0] for part in parts])
    for other, part, value in zip(units[1:], parts[1:], values[1:], strict=True):
        overlap.kept[other.key] = part, value
    return parts[0], values[0]


def _one_by_one(model: Model, worker: WorkerContext) -> bool:
    """Return whether the model gives each row its value by itself."""
    if model.function is not None or model.exported is not None or model.bundle.kind != "skops":
        return False
    estimator = model.estimator(worker.cache)
    method = getattr(type(estimator), model.method, None)
    return getattr(method, "__module__", "") == _FORESTS and getattr(estimator, "n_jobs", None) in (None, 1)


def _predicted(model: Model, worker: WorkerContext, features: list[Any]) -> list[np.ndarray | None]:
    """Return the model's values for each matrix, from one call; ``None`` where there are none."""
    nothing: list[np.ndarray | None] = [None] * len(features)
    if any(X is None for X in features):
        return nothing
    estimator = model.estimator(worker.cache)
    try:
        with limited(estimator, worker.threads):
            found = model.call(estimator, np.concatenate(features))
    except Exception:
        return nothing  # a row is to blame, or the model: looked for where bad rows are counted
    return list(np.split(found, np.cumsum([len(X) for X in features])[:-1]))
