"""The shapes that a model's methods give, seen on two rows of zeros when it is saved.

A plan reads them from the bundle: it must know the schema of the predictions before a model is loaded.
A method that refuses zeros is left out. Nothing here reads or writes.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

METHODS = ("predict", "predict_proba", "decision_function", "transform")


def outputs(estimator: Any, width: int, call: Callable[[str, np.ndarray], np.ndarray]) -> dict[str, dict[str, Any]]:
    """Return method -> ``shape`` of one row and ``dtype``; ``columns`` too where the estimator names them.

    Parameters
    ----------
    estimator : fitted estimator
    width : int
        Number of features.
    call : callable
        Calls a method on a matrix.
    """
    found: dict[str, dict[str, Any]] = {}
    zeros = np.zeros((2, width), dtype="float64")
    for method in METHODS if width else ():
        if not hasattr(estimator, method):
            continue
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                given = call(method, zeros.copy())
        except Exception:
            continue
        if given.shape[:1] == (2,):
            kind = "str" if given.dtype.kind in "OU" else given.dtype.name
            found[method] = {"shape": list(given.shape[1:]), "dtype": kind}
    if len(found.get("transform", {}).get("shape", ())) == 1:
        names = _names(estimator)
        if len(names) == found["transform"]["shape"][0]:
            found["transform"]["columns"] = names
    return found


def _names(estimator: Any) -> list[str]:
    try:
        return [str(name) for name in estimator.get_feature_names_out()]
    except Exception:
        return []
