"""Metrics of predictions: what each needs of a model, and its number. Pure; the numbers are scikit-learn's.

Where a metric is not defined (one class only, a regressor, calibration of several classes) it is
refused with the reason instead of being left out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from daskml_scale.errors import UsageError

BINS = 10
"""Of the calibration table, equally wide from 0 to 1."""


@dataclass(frozen=True, eq=False)
class Scored:
    """True values of some rows and what a model says of them.

    Attributes
    ----------
    name : str
        Of the model, for messages.
    classes : ndarray, shape (classes,)
        Empty for a regressor.
    y : ndarray of float64, shape (rows,)
    predicted : ndarray, shape (rows,), optional
    proba : ndarray of float, shape (rows, classes), optional
    decision : ndarray of float, shape (rows,) or (rows, classes), optional
    """

    name: str
    classes: np.ndarray
    y: np.ndarray
    predicted: np.ndarray | None = None
    proba: np.ndarray | None = None
    decision: np.ndarray | None = None

    def take(self, rows: np.ndarray) -> Scored:
        """Return some of the rows, also several times."""

        def of(values: np.ndarray | None) -> np.ndarray | None:
            return None if values is None else values[rows]

        return Scored(self.name, self.classes, self.y[rows], of(self.predicted), of(self.proba), of(self.decision))

    @property
    def binary(self) -> bool:
        return len(self.classes) == 2

    def check_classes(self, metric: str) -> None:
        """Refuse rows that lack a class.

        Raises
        ------
        UsageError
        """
        present = np.unique(self.y)
        if len(present) < len(self.classes):
            raise UsageError(
                f"{metric} needs rows of every class {self.classes.tolist()}; the {len(self.y):,} rows have only "
                f"{present.tolist()}: choose other rows by `where`"
            )

    def ranking(self, metric: str) -> np.ndarray:
        """Return what orders the rows: of the second class, or of each class."""
        self.check_classes(metric)
        values = self.proba if self.proba is not None else self.decision
        assert values is not None
        return values[:, 1] if self.binary and values.ndim == 2 else values


@dataclass(frozen=True, slots=True)
class Metric:
    """One number, or one table.

    Attributes
    ----------
    of : Scored -> JSON
    needs : tuple of str
        Methods; the first that the model has is called.
    classes : bool
        Whether it is of classifiers; else of regressors.
    table : bool
        Whether it gives a table instead of a number.
    lower : bool
        Whether a lower number is better.
    """

    of: Callable[[Scored], Any]
    needs: tuple[str, ...]
    classes: bool = True
    table: bool = False
    lower: bool = False


def check(model: str, classes: Sequence[Any], names: Iterable[str]) -> None:
    """Refuse metrics that are not for this kind of model.

    Raises
    ------
    UsageError
        Naming those that are.
    """
    for name in names:
        if METRICS[name].classes and len(classes) < 2:
            kind = "a regressor" if not len(classes) else f"a classifier of {len(classes)} class"
            fitting = ", ".join(other for other, metric in METRICS.items() if not metric.classes)
            raise UsageError(f"{name} is a metric of classifiers, {model} is {kind}; use {fitting}")
        if not METRICS[name].classes and len(classes):
            fitting = ", ".join(other for other, metric in METRICS.items() if metric.classes)
            raise UsageError(f"{name} is a metric of regressors, {model} is a classifier; use {fitting}")


def score(call: Callable[[str], np.ndarray], has: Callable[[str], bool], empty: Scored, names: Iterable[str]) -> Scored:
    """Return all that some metrics need; every method of the model is called once.

    Parameters
    ----------
    call : callable
        Gives the output of a method of the model for all rows.
    has : callable
        Says whether the model has a method.
    empty : Scored
        Classes and true values.
    names : iterable of str
        Of :data:`METRICS`.

    Raises
    ------
    UsageError
        When a metric is not for this kind of model, or a true value is no class of it.
    """
    names = tuple(names)
    check(empty.name, empty.classes.tolist(), names)
    unknown = np.setdiff1d(empty.y, empty.classes) if len(empty.classes) else np.empty(0)
    if len(unknown):
        raise UsageError(
            f"the target has the value {unknown[0]!r}, {empty.name} was trained on classes {empty.classes.tolist()}"
        )
    methods = {next((m for m in METRICS[name].needs if has(m)), METRICS[name].needs[0]) for name in names}
    found = {method: call(method) for method in sorted(methods)}
    return replace(
        empty,
        predicted=found.get("predict"),
        proba=found.get("predict_proba"),
        decision=found.get("decision_function"),
    )


def _roc_auc(scored: Scored) -> float:
    from sklearn.metrics import roc_auc_score

    values = scored.ranking("roc_auc")
    if scored.binary:
        return float(roc_auc_score(scored.y == scored.classes[1], values))
    return float(roc_auc_score(scored.y, values, multi_class="ovr", labels=scored.classes))


def _average_precision(scored: Scored) -> float:
    from sklearn.metrics import average_precision_score

    values = scored.ranking("average_precision")
    truth = np.asarray(np.equal.outer(scored.y, scored.classes))
    return float(average_precision_score(truth[:, 1] if scored.binary else truth, values))


def _log_loss(scored: Scored) -> float:
    from sklearn.metrics import log_loss

    return float(log_loss(scored.y, scored.proba, labels=scored.classes))


def _brier(scored: Scored) -> float:
    from sklearn.metrics import brier_score_loss

    return float(brier_score_loss(scored.y, scored.proba, labels=scored.classes))


def _accuracy(scored: Scored) -> float:
    return float(np.mean(np.asarray(scored.predicted == scored.y)))


def _balanced_accuracy(scored: Scored) -> float:
    scored.check_classes("balanced_accuracy")
    hit = np.asarray(scored.predicted == scored.y)
    return float(np.mean([hit[scored.y == label].mean() for label in scored.classes]))


def _f1(scored: Scored) -> float:
    """Of the second class of two; the plain mean over several classes."""
    from sklearn.metrics import f1_score

    labels = scored.classes[1:] if scored.binary else scored.classes
    return float(f1_score(scored.y, scored.predicted, labels=labels, average="macro", zero_division=0.0))


def calibration(scored: Scored) -> list[dict[str, Any]]:
    """Return one entry per bin of the probability of the second class: what was said, what happened, how often."""
    if not scored.binary:
        raise UsageError(f"calibration is of two classes; {scored.name} has {scored.classes.tolist()}")
    assert scored.proba is not None
    said, happened = scored.proba[:, 1], scored.y == scored.classes[1]
    bins = np.minimum((said * BINS).astype("int64"), BINS - 1)
    table = []
    for number in range(BINS):
        chosen = bins == number
        rows = int(chosen.sum())
        table.append(
            {
                "from": number / BINS,
                "to": (number + 1) / BINS,
                "predicted": float(said[chosen].mean()) if rows else None,
                "observed": float(happened[chosen].mean()) if rows else None,
                "rows": rows,
            }
        )
    return table


def _r2(scored: Scored) -> float:
    from sklearn.metrics import r2_score

    if len(scored.y) < 2 or np.ptp(scored.y) == 0:
        raise UsageError(f"r2 needs rows with different targets; all {len(scored.y):,} rows have the same")
    return float(r2_score(scored.y, scored.predicted))


def _errors(scored: Scored) -> np.ndarray:
    assert scored.predicted is not None
    return np.asarray(np.subtract(scored.predicted, scored.y, dtype="float64"))


METRICS: dict[str, Metric] = {
    "roc_auc": Metric(_roc_auc, ("predict_proba", "decision_function")),
    "average_precision": Metric(_average_precision, ("predict_proba", "decision_function")),
    "log_loss": Metric(_log_loss, ("predict_proba",), lower=True),
    "brier": Metric(_brier, ("predict_proba",), lower=True),
    "accuracy": Metric(_accuracy, ("predict",)),
    "balanced_accuracy": Metric(_balanced_accuracy, ("predict",)),
    "f1": Metric(_f1, ("predict",)),
    "calibration": Metric(calibration, ("predict_proba",), table=True),
    "r2": Metric(_r2, ("predict",), classes=False),
    "mean_error": Metric(lambda scored: float(_errors(scored).mean()), ("predict",), classes=False),
    "mean_absolute_error": Metric(
        lambda scored: float(np.abs(_errors(scored)).mean()), ("predict",), classes=False, lower=True
    ),
    "median_absolute_error": Metric(
        lambda scored: float(np.median(np.abs(_errors(scored)))), ("predict",), classes=False, lower=True
    ),
    "root_mean_squared_error": Metric(
        lambda scored: float(np.sqrt((_errors(scored) ** 2).mean())), ("predict",), classes=False, lower=True
    ),
}
"""By the names that workflow files use."""
