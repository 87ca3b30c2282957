"""Curves of a classifier of two classes, thin enough to keep: ROC, precision and recall, calibration. Pure.

The numbers are scikit-learn's; of a long curve equally spaced points are kept, its ends always.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .metrics import Scored, calibration

POINTS = 101


def curves(scored: Scored) -> dict[str, Any]:
    """Return the curves of the rows scored; empty where they are not defined.

    Returns
    -------
    dict
        ``roc``: pairs of false and true positive rate. ``precision_recall``: pairs of recall and precision.
        ``calibration``: as the metric of that name, where the model gives probabilities.
    """
    from sklearn.metrics import precision_recall_curve, roc_curve

    values = scored.proba if scored.proba is not None else scored.decision
    if not scored.binary or values is None or len(np.unique(scored.y)) < 2:
        return {}
    truth = scored.y == scored.classes[1]
    ranks = scored.ranking("roc_auc")
    if not np.isfinite(ranks).all():
        return {}
    false, true, _ = roc_curve(truth, ranks)
    precision, recall, _ = precision_recall_curve(truth, ranks)
    found: dict[str, Any] = {"roc": _thin(false, true), "precision_recall": _thin(recall[::-1], precision[::-1])}
    if scored.proba is not None:
        found["calibration"] = calibration(scored)
    return found


def _thin(x: np.ndarray, y: np.ndarray) -> list[list[float]]:
    """Return at most ``POINTS`` points of a curve, equally spaced along it."""
    along = np.concatenate([[0.0], np.cumsum(np.abs(np.diff(x)) + np.abs(np.diff(y)))])
    wanted = np.searchsorted(along, np.linspace(0.0, along[-1], POINTS))
    chosen = np.unique(np.concatenate([[0], np.minimum(wanted, len(x) - 1), [len(x) - 1]]))
    return [[round(float(x[at]), 6), round(float(y[at]), 6)] for at in chosen]
