"""The unit that tries faster ways on real rows, before all others of a prediction: tables and cubes alike.

Its result is a list with one entry per way, which the plan of the other units reads from the ledger. An
exported model is written beside the predictions, and is used by its hash.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from daskml_scale.engine.worker import WorkerContext
from daskml_scale.plan.records import Record
from daskml_scale.storage import files, stores

from .base import StageResult
from .estimator import limited
from .features.transformer import RowTransformer
from .optimise import Exported, Pruned, exported, told, tried
from .scoring import Job, Model

TRIAL = "optimise"
"""Key of the unit."""


def url_of(out: str) -> str:
    """Return where the exported model of a dataset of predictions lies."""
    return stores.beside(out, "onnx")


def trial(
    ways: Sequence[str],
    model: Model,
    X: np.ndarray,
    out: str,
    worker: WorkerContext,
    fewer: Callable[[], np.ndarray] | str,
) -> list[dict[str, Any]]:
    """Try the wanted ways on some rows; return what came of each.

    Parameters
    ----------
    X : ndarray, shape (rows, features)
    out : str
        URL of the predictions.
    fewer : callable, or str
        Makes the same rows without the features that the model ignores; or why that cannot be.
    """
    estimator = model.estimator(worker.cache)
    found = []
    with limited(estimator, worker.threads):
        if "columns" in ways:
            found.append(_columns(model, estimator, X, fewer))
        if "onnx" in ways:
            found.append(_onnx(model, estimator, X, url_of(out)))
    return found


def job_trial(ways: Sequence[str], job: Job, payload: Any, out: str, worker: WorkerContext) -> list[dict[str, Any]]:
    """Try the wanted ways on rows of a table: ``payload`` is (start, stop, halo)."""
    start, stop, halo = payload
    schema, source = job.model.bundle.schema, job.source
    fewer: Callable[[], np.ndarray] | str = "a matrix is read in whole rows"
    if isinstance(source, RowTransformer) and "uses" in schema:
        less = Pruned.of(source, schema["uses"])
        fewer = lambda: less.matrix(start, stop, halo, worker.cache, str(schema["dtype"]))  # noqa: E731
    return trial(ways, job.model, job.matrix(start, stop, halo, worker.cache), out, worker, fewer)


def faster_job(job: Job, found: Sequence[Mapping[str, Any]], out: str) -> Job:
    """Return the job in the ways that a trial found to be the same."""
    job = replace(job, model=faster(job.model, found, out))
    if not fewer_columns(found) or not isinstance(job.source, RowTransformer):
        return job
    return replace(job, source=Pruned.of(job.source, job.model.bundle.schema["uses"]))


def faster(model: Model, found: Sequence[Mapping[str, Any]], out: str) -> Model:
    """Return the model in the way that a trial found to be the same."""
    for one in found:
        if one["used"] and one["way"] == "onnx":
            return replace(model, exported=Exported(url_of(out), one["sha256"], model.bundle.classes))
    return model


def fewer_columns(found: Sequence[Mapping[str, Any]]) -> bool:
    """Return whether a trial found that columns may be left out."""
    return any(one["used"] and one["way"] == "columns" for one in found)


def with_trial(result: StageResult, stage: str, records: Mapping[str, Record]) -> StageResult:
    """Return the result of a prediction with what came of its trial, where there was one."""
    if TRIAL not in records:
        return result
    found = records[TRIAL].result
    warnings = (*result.warnings, *told(stage, found))
    return replace(result, result={**result.result, "optimised": found}, warnings=warnings)


def _columns(model: Model, estimator: Any, X: np.ndarray, fewer: Callable[[], np.ndarray] | str) -> dict[str, Any]:
    used = model.bundle.schema.get("uses")
    if used is None or isinstance(fewer, str):
        why = fewer if isinstance(fewer, str) else "the model uses all features, or it is not known which"
        return {"way": "columns", "used": False, "reason": why}
    return tried(
        "columns",
        lambda: model.call(estimator, X.copy()),
        lambda: model.call(estimator, fewer()),
        features=len(used),
    )


def _onnx(model: Model, estimator: Any, X: np.ndarray, url: str) -> dict[str, Any]:
    data = b""

    def other() -> np.ndarray:
        nonlocal data
        if model.function is not None:
            raise TypeError("a function is called with the estimator itself")
        data = exported(model.bundle, estimator, X)
        files.write_bytes(url, data)
        made = Exported(url, hashlib.sha256(data).hexdigest(), model.bundle.classes)
        return replace(model, exported=made).call(made.load(), X.copy())

    one = tried("onnx", lambda: model.call(estimator, X.copy()), other)
    return {**one, "sha256": hashlib.sha256(data).hexdigest()} if one["used"] else one
