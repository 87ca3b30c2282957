"""Evaluate: metrics of a saved model on rows of a feature matrix that have a target.

One unit. The numbers are scikit-learn's; where a metric is not defined (one class only, a regressor,
calibration of several classes) it is refused with the reason instead of being left out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from daskml_scale.artifacts.bundle import MANIFEST, Bundle, call, load_estimator, read_manifest
from daskml_scale.engine.worker import WorkerContext
from daskml_scale.errors import PlanError, UsageError
from daskml_scale.plan.records import Record, digest, select
from daskml_scale.plan.units import FileId, Parts, Plan, Unit
from daskml_scale.storage import files

from .base import Input, Ref, StageBase, StageResult
from .features.planner import require
from .matrix import FEATURES, load_matrix, matrix_bytes, matrix_inputs, private

CODE = "evaluate-1"
"""Changes whenever the kernel's output changes for the same input."""
UNIT = "metrics"
BINS = 10
"""Of the calibration table, equally wide from 0 to 1."""


@dataclass(frozen=True)
class EvaluateStage(StageBase):
    """See the module docstring.

    Attributes
    ----------
    input : str
        URL of the feature matrix.
    bundle : str
        URL of the bundle's folder.
    metrics : tuple of str
        Of ``roc_auc``, ``average_precision``, ``log_loss``, ``brier``, ``accuracy``, ``calibration``.
    where : str, optional
        Rows to score.
    trusted : tuple of str
        Types that the model file may hold beyond scikit-learn's.
    """

    input: str
    bundle: str
    metrics: tuple[str, ...]
    where: str | None = None
    trusted: tuple[str, ...] = ()
    kind: str = "evaluate"

    def reads(self) -> Mapping[str, Ref]:
        return {"input": Ref("dataset", self.input), "bundle": Ref("file", files.join(self.bundle, MANIFEST))}

    def plan(self, inputs: Mapping[str, Input], records: Mapping[str, Record]) -> Plan:
        matrix, found = require(inputs["input"], self.input, self.name), inputs["bundle"]
        bundle = Bundle(self.bundle, read_manifest(self.bundle), self.trusted) if isinstance(found, FileId) else None
        ids = matrix_inputs(matrix, self.where)
        rows, width = matrix.variables[FEATURES].shape
        model = "" if bundle is None else bundle.sha256
        parts = Parts(code=CODE, model=model, parameters=digest(self.metrics, self.where))
        return select(
            [(Unit(UNIT), ids)],
            parts,
            records,
            grid=f"one scoring of up to {rows:,} rows x {width} features",
            memory=matrix_bytes(matrix),
            shared=None if bundle is None else (ids, bundle),
        )

    def kernel(self, unit: Unit, worker: WorkerContext) -> dict[str, Any]:
        if worker.shared is None:
            raise PlanError(
                f"{self.name}: {self.input} or {self.bundle} does not exist; run the stages that write them"
            )
        ids, bundle = worker.shared
        X, y, columns = load_matrix(self.input, ids, self.where, worker)
        if columns != bundle.features:
            raise UsageError(
                f"{self.name}: the matrix has features {list(columns)}, the model {bundle.name} was trained on "
                f"{list(bundle.features)}; evaluate it on the matrix of its own features stage"
            )
        estimator = worker.cache.get(
            ("model", bundle.sha256), lambda: load_estimator(bundle.path, bundle.sha256, bundle.trusted)
        )
        scores = Scores(estimator, X, y, bundle)
        return {"metrics": {name: METRICS[name](scores) for name in self.metrics}, "rows": len(y)}

    def finish(self, inputs: Mapping[str, Input], records: Mapping[str, Record]) -> StageResult:
        return StageResult(records[UNIT].result, rows=records[UNIT].result["rows"])


class Scores:
    """True classes and what a model says of them.

    Parameters
    ----------
    estimator : fitted classifier
    X : ndarray, shape (rows, features)
    y : ndarray of float64, shape (rows,)
    bundle : Bundle

    Raises
    ------
    UsageError
        When the model is not a classifier, or ``y`` holds a class that it does not know.
    """

    def __init__(self, estimator: Any, X: np.ndarray, y: np.ndarray, bundle: Bundle) -> None:
        kind = type(estimator).__name__
        self.name, self.classes, self.y = bundle.name, np.asarray(bundle.classes), y
        if len(self.classes) < 2:
            raise UsageError(
                f"the metrics are of classifiers; {self.name} is a {kind} with {len(self.classes)} classes"
            )
        unknown = np.setdiff1d(y, self.classes)
        if len(unknown):
            raise UsageError(
                f"the target has the value {unknown[0]!r}, {self.name} was trained on classes {self.classes.tolist()}"
            )
        self.binary = len(self.classes) == 2
        self._call: Callable[[str], np.ndarray] = lambda method: call(estimator, method, private(X), bundle.features)
        self._has_proba = hasattr(estimator, "predict_proba")
        self._proba: np.ndarray | None = None

    @property
    def predicted(self) -> np.ndarray:
        """Shape (rows,)."""
        return self._call("predict")

    @property
    def proba(self) -> np.ndarray:
        """Shape (rows, classes)."""
        if self._proba is None:
            self._proba = self._call("predict_proba")
        return self._proba

    def ranking(self, metric: str) -> np.ndarray:
        """Return what orders the rows: of the second class, or of each class; refuses rows of one class only."""
        present = np.unique(self.y)
        if len(present) < len(self.classes):
            raise UsageError(
                f"{metric} needs rows of every class {self.classes.tolist()}; the {len(self.y):,} rows have only "
                f"{present.tolist()}: choose other rows by `where`"
            )
        values = self.proba if self._has_proba else self._call("decision_function")
        return values[:, 1] if self.binary and values.ndim == 2 else values


def _roc_auc(scores: Scores) -> float:
    from sklearn.metrics import roc_auc_score

    values = scores.ranking("roc_auc")
    if scores.binary:
        return float(roc_auc_score(scores.y == scores.classes[1], values))
    return float(roc_auc_score(scores.y, values, multi_class="ovr", labels=scores.classes))


def _average_precision(scores: Scores) -> float:
    from sklearn.metrics import average_precision_score

    values = scores.ranking("average_precision")
    truth = scores.y[:, None] == scores.classes
    return float(average_precision_score(truth[:, 1] if scores.binary else truth, values))


def _log_loss(scores: Scores) -> float:
    from sklearn.metrics import log_loss

    return float(log_loss(scores.y, scores.proba, labels=scores.classes))


def _brier(scores: Scores) -> float:
    from sklearn.metrics import brier_score_loss

    return float(brier_score_loss(scores.y, scores.proba, labels=scores.classes))


def _accuracy(scores: Scores) -> float:
    return float(np.mean(scores.predicted == scores.y))


def _calibration(scores: Scores) -> list[dict[str, Any]]:
    """Return one entry per bin of the probability of the second class: what was said, what happened, how often."""
    if not scores.binary:
        raise UsageError(f"calibration is of two classes; {scores.name} has {scores.classes.tolist()}")
    said, happened = scores.proba[:, 1], scores.y == scores.classes[1]
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


METRICS: dict[str, Callable[[Scores], Any]] = {
    "roc_auc": _roc_auc,
    "average_precision": _average_precision,
    "log_loss": _log_loss,
    "brier": _brier,
    "accuracy": _accuracy,
    "calibration": _calibration,
}
