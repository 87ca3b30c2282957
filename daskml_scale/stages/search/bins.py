"""The bins of histogram gradient boosting, found once per worker for rows that many trials train on.

A rung of few trees spends most of its time on them: for 240,000 rows of 23 columns as much as on fifteen trees, and a
model that goes on finds them again at every rung. The estimator is given what it would have computed: rows, weights
and the mapper's parameters are known by content, so results are the same to the bit. What is kept is bounded in bytes
(`prefixes.KEPT`). Like `_compat`, this module touches private parts of scikit-learn (``_bin_data`` and
``_bin_mapper``); a contract test holds them. Where they are gone, nothing is shared.
"""

from __future__ import annotations

import copy
import hashlib
import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from daskml_scale.engine.worker import Cache

from .log import identity


@contextmanager
def shared_bins(model: Any, kept: Cache) -> Iterator[None]:
    """Have a booster, or a pipeline that ends in one, take kept bins while the block runs; others are left alone."""
    booster = _booster(model)
    if booster is None:
        yield
        return
    find = type(booster)._bin_data
    signature = inspect.signature(find)

    def bins(*args: Any, **more: Any) -> Any:
        given = signature.bind(booster, *args, **more).arguments
        if not given["is_training_data"]:
            return find(booster, *args, **more)
        key = ("bins", _digest(given["X"]), _digest(given.get("sample_weight")), identity(vars(booster._bin_mapper)))

        def load() -> tuple[np.ndarray, Any]:
            found: np.ndarray = find(booster, *args, **more)
            found.flags.writeable = False  # several fits read it
            return found, booster._bin_mapper

        rows, mapper = kept.get(key, load, lambda found: int(found[0].nbytes))
        booster._bin_mapper = copy.copy(mapper)
        return rows

    booster._bin_data = bins
    try:
        yield
    finally:
        vars(booster).pop("_bin_data", None)


def _booster(model: Any) -> Any | None:
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
    from sklearn.pipeline import Pipeline

    last = model.steps[-1][1] if type(model) is Pipeline else model
    if type(last) not in (HistGradientBoostingClassifier, HistGradientBoostingRegressor):
        return None
    find = getattr(type(last), "_bin_data", None)
    return last if find is not None and {"X", "is_training_data"} <= set(inspect.signature(find).parameters) else None


def _digest(values: Any) -> str:
    """Return a digest of an array's values in their layout, some 50 ms for 45 MB."""
    if values is None:
        return ""
    array = np.asarray(values)
    found = hashlib.blake2b(f"{array.dtype} {array.shape} {array.flags.f_contiguous}".encode(), digest_size=16)
    found.update(np.ascontiguousarray(array.T if array.flags.f_contiguous else array).data)
    return found.hexdigest()
