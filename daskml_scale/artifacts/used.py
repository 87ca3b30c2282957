"""Which features a fitted model looks at: those that it ignores need not be read. Pure.

Known of linear models (coefficients that are not 0), trees and their ensembles, and XGBoost. Of any other
model it is not known, and everything is read.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np


def used_features(model: Any, width: int) -> list[int] | None:
    """Return the positions of the features that a model looks at, sorted; ``None`` when all, or not known.

    Parameters
    ----------
    model : object
        A fitted estimator, or a loaded model of another kind.
    width : int
        Number of its features.
    """
    found = _of_booster(model) if hasattr(model, "booster") else _of_estimator(model)
    if found is None:
        return None
    used = sorted({int(position) for position in found})
    return used if len(used) < width else None


def _of_estimator(model: Any) -> Iterable[int] | None:
    module = type(model).__module__
    if not module.startswith("sklearn."):
        return None
    if module.startswith("sklearn.linear_model") and hasattr(model, "coef_"):
        coefficients = np.atleast_2d(model.coef_.toarray() if hasattr(model.coef_, "toarray") else model.coef_)
        return np.flatnonzero((coefficients != 0).any(axis=0))
    if hasattr(model, "_predictors"):
        parts = [
            predictor.nodes["feature_idx"][predictor.nodes["is_leaf"] == 0]
            for stage in model._predictors
            for predictor in stage
        ]
        return _joined(parts)
    if hasattr(getattr(model, "tree_", None), "feature"):
        return _split_on(model)
    trees = getattr(model, "estimators_", None)
    if module.startswith("sklearn.ensemble") and trees is not None:
        flat = np.ravel(np.asarray(trees, dtype=object))
        if len(flat) and all(hasattr(tree, "tree_") for tree in flat) and not hasattr(model, "estimators_features_"):
            return _joined([_split_on(tree) for tree in flat]) if _starts_plain(model) else None
    return None


def _starts_plain(model: Any) -> bool:
    """Return whether nothing but its trees looks at the features (gradient boosting may start from a model)."""
    return getattr(model, "init", None) in (None, "zero")


def _split_on(tree: Any) -> np.ndarray:
    features = tree.tree_.feature
    return np.asarray(features[features >= 0])


def _joined(parts: list[np.ndarray]) -> np.ndarray:
    return np.unique(np.concatenate(parts)) if parts else np.empty(0, dtype=int)


def _of_booster(model: Any) -> Iterable[int] | None:
    """Return what the trees of a booster split on; ``None`` for a linear one, which has no splits."""
    try:
        scores = model.booster.get_score(importance_type="weight")
    except Exception:
        return None
    names = {name: position for position, name in enumerate(model.names)}
    if not scores or '"gblinear"' in model.booster.save_config():
        return None
    return [names[name] if name in names else int(name.removeprefix("f")) for name in scores]
