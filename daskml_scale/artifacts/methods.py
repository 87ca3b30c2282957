"""How an estimator is called, and what its methods give: the schema of a bundle.

A plan reads the schema from the bundle: it must know what predictions look like before a model is
loaded. The shapes are those seen on two rows of zeros when the model is saved; a method that refuses
zeros is left out. Nothing here reads or writes.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from daskml_scale.errors import UsageError

METHODS = ("predict", "predict_proba", "decision_function", "transform")


def call(estimator: Any, method: str, matrix: np.ndarray, features: Sequence[str]) -> np.ndarray:
    """Call a method of an estimator on a feature matrix, named if the estimator was fitted on names.

    Returns
    -------
    ndarray, shape (rows, ...)
        Sparse results are made dense; the probabilities of several outputs are stacked, NaN beyond the classes of one.

    Raises
    ------
    UsageError
        When the estimator has no such method.
    """
    function = getattr(estimator, method, None)
    if function is None:
        has = [name for name in METHODS if hasattr(estimator, name)]
        raise UsageError(f"{type(estimator).__name__} has no method {method!r}; it has {', '.join(has) or 'none'}")
    if hasattr(estimator, "feature_names_in_"):
        import pandas as pd

        return _dense(function(pd.DataFrame(matrix, columns=list(features))))
    return _dense(function(matrix))


def _dense(given: Any) -> np.ndarray:
    if isinstance(given, list) and given and np.ndim(given[0]) == 2:
        width = max(np.shape(one)[1] for one in given)
        padded = [np.pad(one, [(0, 0), (0, width - np.shape(one)[1])], constant_values=np.nan) for one in given]
        return np.stack(padded, axis=1)
    return np.asarray(given.toarray() if hasattr(given, "toarray") else given)


def schema_of(estimator: Any, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the schema of a fitted estimator; what is given goes before what is read off it.

    Returns
    -------
    dict
        ``features`` (names), ``classes``, ``dtype`` of the matrix, ``target``, and ``outputs``:
        method -> ``shape`` of one row, ``dtype``, and ``columns`` where the estimator names them.
    """
    names = getattr(estimator, "feature_names_in_", None)
    if names is None:
        names = [f"x{number}" for number in range(int(getattr(estimator, "n_features_in_", 0)))]
    found = {
        "features": [str(name) for name in names],
        "classes": _plain(getattr(estimator, "classes_", ())),
        "dtype": "float64",
        "target": "",
        **given,
    }
    return {"outputs": _outputs(estimator, found["features"]), **found}


def _plain(classes: Any) -> list[Any]:
    """Return class labels as JSON: one list, or one per output."""
    if hasattr(classes, "tolist"):
        found: list[Any] = classes.tolist()
        return found
    return [_plain(item) if hasattr(item, "tolist") and np.ndim(item) else item for item in classes]


def _outputs(estimator: Any, features: Sequence[str]) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for method in METHODS if features else ():
        if not hasattr(estimator, method):
            continue
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                given = call(estimator, method, np.zeros((2, len(features))), features)
        except Exception:
            continue
        if given.shape[:1] == (2,):
            kind = "str" if given.dtype.kind in "OU" else given.dtype.name
            found[method] = {"shape": list(given.shape[1:]), "dtype": kind}
    if len(found.get("transform", {}).get("shape", ())) == 1:
        names = _names_out(estimator)
        if len(names) == found["transform"]["shape"][0]:
            found["transform"]["columns"] = names
    return found


def _names_out(estimator: Any) -> list[str]:
    try:
        return [str(name) for name in estimator.get_feature_names_out()]
    except Exception:
        return []
