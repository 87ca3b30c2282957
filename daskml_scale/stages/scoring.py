"""A saved model applied to rows: loaded once per process, failing rows found and set apart.

``Model`` is what a unit of ``predict`` and a block of a lazy prediction share: bundle, method, output.
It is small and picklable; the estimator itself never travels. Nothing here writes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np

from daskml_scale.artifacts.bundle import Bundle, call
from daskml_scale.engine.worker import Cache, WorkerContext
from daskml_scale.errors import PlanError
from daskml_scale.storage import stores

from .estimator import limited
from .features.program import Program
from .features.transformer import RowTransformer
from .functions import Sent
from .isolate import BadRows, isolate
from .matrix import FEATURE_NAMES, FEATURES
from .model_output import Output
from .optimise import Exported, Pruned
from .outputs import BAD_INPUT, MODEL_ERROR, OK
from .refusals import OtherLength, Said, remembered, scored
from .watch import Watch


@dataclass(frozen=True)
class Model:
    """A bundle and what is asked of it.

    Attributes
    ----------
    bundle : Bundle
    method : str
        Of the estimator, or the name of ``function``.
    output : Output
    function : Sent, optional
        Called as ``function(estimator, X)`` in place of a method.
    exported : Exported, optional
        Used in place of the estimator.
    """

    bundle: Bundle
    method: str
    output: Output
    function: Sent | None = None
    exported: Exported | None = None

    @property
    def nbytes(self) -> int:
        """Estimate of the loaded estimator: its file holds arrays as they are, and small nodes as text."""
        return 4 * int(self.bundle.manifest.get("size", 0))

    @property
    def recipe_hash(self) -> str:
        """As in the attributes of the feature matrix; empty without a recipe."""
        recipe = self.bundle.recipe
        return "" if recipe is None else Program.from_dict(recipe).hash

    @property
    def attrs(self) -> dict[str, str]:
        """Attributes of a dataset of predictions: where they come from."""
        return {
            "model": self.bundle.name,
            "model_sha256": self.bundle.sha256,
            "recipe_hash": self.recipe_hash,
            "method": self.method,
        }

    def estimator(self, cache: Cache) -> Any:
        """Return the estimator, loaded and warmed up once per process under the hash of its file."""
        bundle, other = self.bundle, self.exported
        if other is not None:
            return cache.get(("onnx", other.sha256), lambda: warmed(other.load(), bundle), self.nbytes)
        return cache.get(("model", bundle.sha256), lambda: warmed(bundle.load(), bundle), self.nbytes)

    def values(
        self,
        read: Callable[[int, int], np.ndarray],
        rows: int,
        worker: WorkerContext,
        limit: int,
        watch: Watch | None = None,
        made: np.ndarray | None = None,
    ) -> tuple[np.ndarray, np.ndarray, BadRows]:
        """Predict ``rows`` rows.

        Parameters
        ----------
        read : callable (start, stop) -> ndarray, shape (stop - start, features)
            Makes the features of some of the rows; where they are writeable they belong to this call.
        rows : int
        worker : WorkerContext
        limit : int
            More bad rows than this fail all of them.
        watch : Watch, optional
            Sees the features that were made.
        made : ndarray, optional
            What the model gave for these rows, where it was asked before.

        Returns
        -------
        values : ndarray of the stored type, shape (rows, ...)
            Missing where a row is bad.
        status : ndarray of uint8, shape (rows,)
        bad : BadRows

        Raises
        ------
        DaskMLError
            When more than ``limit`` rows are bad, or the model's output has another shape.
        """
        bad = BadRows(limit)
        values = np.full((rows, *self.output.shape), self.output.missing, dtype=self.output.dtype)
        status = np.zeros(rows, dtype="uint8")
        estimator = self.estimator(worker.cache)
        for some, X in isolate(read, np.arange(rows), BAD_INPUT, bad):
            if watch is not None:
                watch.see(some, X)
            if made is not None:
                found = [(some, made[some])]
            else:
                with limited(estimator, worker.threads):
                    found = self._scored(estimator, X, some, bad, self._said())
            for good, raw in found:
                where = slice(None) if len(good) == rows else good
                values[where], status[where] = self.output.encode(raw), OK
        _mark(status, bad)
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            finite = np.isfinite(values).all(axis=tuple(range(1, values.ndim)), where=self.output.expected)
            for row in np.flatnonzero(~finite & (status == OK)).tolist():
                bad.add(row, MODEL_ERROR, f"the model gave {values[row].tolist()}")
            _mark(status, bad)
        values[list(bad.status)] = self.output.missing
        return values, status, bad

    def _scored(
        self, estimator: Any, X: np.ndarray, rows: np.ndarray, bad: BadRows, said: Said
    ) -> list[tuple[np.ndarray, np.ndarray]]:
        """Predict a batch; see `refusals.scored`."""
        return scored(
            lambda part: self.call(estimator, part), X, rows, bad, said, f"{self.method} of {self.bundle.name}"
        )

    def _said(self) -> Said:
        """Return what this model is known to refuse in this process; nothing is remembered of a function."""
        if self.function is not None:
            return {}
        return remembered(self.bundle.sha256, "" if self.exported is None else self.exported.sha256, self.method)

    def call(self, estimator: Any, X: np.ndarray) -> np.ndarray:
        """Return what is asked of the estimator, checked: shape (rows, ...).

        Raises
        ------
        PlanError
            When values have another shape.
        ValueError
            When there are more of them, or fewer, than rows: some of the rows may be to blame.
        """
        if self.function is None:
            raw = call(estimator, self.method, X, self.bundle.features)
        else:
            raw = np.asarray(self.function(estimator, X))
        if raw.ndim and raw.shape[1:] == self.output.shape and len(raw) != len(X):
            raise OtherLength(f"{len(X):,} rows went in and {len(raw):,} came out")
        if raw.shape != (len(X), *self.output.shape):
            raise PlanError(
                f"{self.method} of {self.bundle.name} gives an array of shape {raw.shape}, expected "
                f"{('rows', *map(str, self.output.shape))}; declare the output's columns"
            )
        return raw


def _mark(status: np.ndarray, bad: BadRows) -> None:
    if bad.status:
        status[list(bad.status)] = list(bad.status.values())


def warmed(model: Any, bundle: Bundle) -> Any:
    """Return a loaded model after it predicted one row: sessions, kernels and device memory are made now.

    What one row of zeros does to it is no concern of the rows to come.
    """
    if bundle.kind != "skops" or hasattr(model, "session"):
        with suppress(Exception):
            call(model, "predict", np.zeros((1, len(bundle.features)), dtype=bundle.schema["dtype"]), bundle.features)
    return model


@dataclass(frozen=True)
class MatrixRows:
    """A stored feature matrix in place of raw rows: the source of a model without a recipe.

    Attributes
    ----------
    version : str
        Of the names that lie in the store: a process looks at them once.
    """

    url: str
    features: tuple[str, ...]
    version: str

    def matrix(self, start: int, stop: int, halo: Any, cache: Cache, dtype: str) -> np.ndarray:
        """Return the features of rows [start, stop), shape (rows, features).

        Raises
        ------
        PlanError
            When they are not those of the model, in its order.
        """
        names = _names(self.url, len(self.features), self.version)
        if names != self.features:
            raise PlanError(f"{self.url} has features {list(names)}, the model was trained on {list(self.features)}")
        return stores.read_raw(self.url, FEATURES, start, stop)[0].astype(dtype, copy=False)


@lru_cache(maxsize=64)
def _names(url: str, count: int, version: str) -> tuple[str, ...]:
    return tuple(map(str, stores.read_raw(url, FEATURE_NAMES, 0, count)[0]))


@dataclass(frozen=True)
class Job:
    """What every unit of the second pass needs; sent once per worker process."""

    model: Model
    source: RowTransformer | MatrixRows | Pruned
    copied: tuple[str, ...] = ()
    """Columns copied as stored."""

    def matrix(self, start: int, stop: int, halo: Any, cache: Cache) -> np.ndarray:
        """Return the features of rows [start, stop)."""
        return self.source.matrix(start, stop, halo, cache, str(self.model.bundle.schema["dtype"]))

    def values(
        self,
        start: int,
        stop: int,
        halo: Any,
        worker: WorkerContext,
        limit: int,
        watch: Watch | None = None,
        ready: np.ndarray | None = None,
        made: np.ndarray | None = None,
    ) -> tuple[np.ndarray, np.ndarray, BadRows]:
        """Predict rows [start, stop) of the table; ``ready`` are their features, if read. See `Model.values`."""

        def read(first: int, last: int) -> np.ndarray:
            if ready is not None:
                return ready[first:last]
            return self.matrix(start + first, start + last, halo, worker.cache)

        return self.model.values(read, stop - start, worker, limit, watch, made)


def without_target(recipe: Mapping[str, Any]) -> Program:
    """Return a bundle's recipe for rows whose target is not known yet."""
    return replace(Program.from_dict(recipe), target=None)
