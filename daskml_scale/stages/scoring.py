"""A saved model applied to rows: loaded once per process, failing rows found and set apart.

``Model`` is what a unit of ``predict`` and a block of a lazy prediction share: bundle, method, output.
It is small and picklable; the estimator itself never travels. Nothing here writes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from daskml_scale.artifacts.bundle import Bundle, call, load_estimator
from daskml_scale.engine.worker import Cache, WorkerContext
from daskml_scale.errors import PlanError
from daskml_scale.storage import stores

from .estimator import inner_threads
from .features.program import Program
from .features.transformer import RowTransformer
from .functions import Sent
from .isolate import NOT_A_ROWS_FAULT, BadRows, isolate
from .matrix import FEATURE_NAMES, FEATURES
from .model_output import Output
from .outputs import BAD_INPUT, MODEL_ERROR, OK


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
    """

    bundle: Bundle
    method: str
    output: Output
    function: Sent | None = None

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
        """Return the estimator, loaded once per process under the hash of its file."""
        bundle = self.bundle
        key = ("model", bundle.sha256)
        return cache.get(key, lambda: load_estimator(bundle.path, bundle.sha256, bundle.trusted), self.nbytes)

    def values(
        self, read: Callable[[int, int], np.ndarray], rows: int, worker: WorkerContext, limit: int
    ) -> tuple[np.ndarray, np.ndarray, BadRows]:
        """Predict ``rows`` rows.

        Parameters
        ----------
        read : callable (start, stop) -> ndarray, shape (stop - start, features)
            Makes the features of some of the rows.
        rows : int
        worker : WorkerContext
        limit : int
            More bad rows than this fail all of them.

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
            with inner_threads(worker.threads):
                scored = self._scored(estimator, X, some, bad)
            for good, raw in scored:
                values[good], status[good] = self.output.encode(raw), OK
        if values.dtype.kind == "f":
            finite = np.isfinite(values).all(axis=tuple(range(1, values.ndim)))
            for row in np.flatnonzero(~finite & (status == OK)).tolist():
                bad.add(row, MODEL_ERROR, f"the model gave {values[row].tolist()}")
                values[row] = self.output.missing
        for row, code in bad.status.items():
            status[row] = code
        return values, status, bad

    def _scored(self, estimator: Any, X: np.ndarray, rows: np.ndarray, bad: BadRows) -> list[tuple[np.ndarray, Any]]:
        """Predict a batch in one call; where that fails, the rows that are finite in one, the others in halves.

        The first call gets a read-only view: what an estimator scales in place must not be scaled again
        when the batch is tried once more. Later calls get copies of their own.
        """
        first = X.view()
        first.flags.writeable = False
        try:
            return [(rows, self._call(estimator, first))]
        except NOT_A_ROWS_FAULT:
            raise
        except Exception:
            finite = np.isfinite(X).all(axis=1)
        done = []
        for part in (np.flatnonzero(finite), np.flatnonzero(~finite)):

            def call(start: int, stop: int, part: np.ndarray = part) -> np.ndarray:
                return self._call(estimator, X[part[start:stop]])

            done += isolate(call, rows[part], MODEL_ERROR, bad)
        return done

    def _call(self, estimator: Any, X: np.ndarray) -> np.ndarray:
        if self.function is None:
            raw = call(estimator, self.method, X, self.bundle.features)
        else:
            raw = np.asarray(self.function(estimator, X))
        if raw.shape != (len(X), *self.output.shape):
            raise PlanError(
                f"{self.method} of {self.bundle.name} gives an array of shape {raw.shape}, expected "
                f"{('rows', *map(str, self.output.shape))}; declare the output's columns"
            )
        return raw


@dataclass(frozen=True)
class MatrixRows:
    """A stored feature matrix in place of raw rows: the source of a model without a recipe."""

    url: str
    features: tuple[str, ...]

    def matrix(self, start: int, stop: int, halo: Any, cache: Cache, dtype: str) -> np.ndarray:
        """Return the features of rows [start, stop), shape (rows, features).

        Raises
        ------
        PlanError
            When they are not those of the model, in its order.
        """
        names = tuple(map(str, stores.read_raw(self.url, FEATURE_NAMES, 0, len(self.features))[0]))
        if names != self.features:
            raise PlanError(f"{self.url} has features {list(names)}, the model was trained on {list(self.features)}")
        return stores.read_raw(self.url, FEATURES, start, stop)[0].astype(dtype, copy=False)


@dataclass(frozen=True)
class Job:
    """What every unit of the second pass needs; sent once per worker process."""

    model: Model
    source: RowTransformer | MatrixRows
    copied: tuple[str, ...] = ()
    """Columns copied as stored."""

    def values(
        self, start: int, stop: int, halo: Any, worker: WorkerContext, limit: int
    ) -> tuple[np.ndarray, np.ndarray, BadRows]:
        """Predict rows [start, stop) of the table. See :meth:`Model.values`."""
        dtype = str(self.model.bundle.schema["dtype"])

        def read(first: int, last: int) -> np.ndarray:
            return self.source.matrix(start + first, start + last, halo, worker.cache, dtype)

        return self.model.values(read, stop - start, worker, limit)


def without_target(recipe: Mapping[str, Any]) -> Program:
    """Return a bundle's recipe for rows whose target is not known yet."""
    return replace(Program.from_dict(recipe), target=None)
