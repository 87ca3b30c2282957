"""Evaluate: metrics of a saved model on rows of a feature matrix that have a target.

One unit. ``metrics`` gives the numbers, ``score_tables`` intervals, slices and the comparison with
another model on the same rows. Nothing is written but the unit's result.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from daskml_scale.artifacts.bundle import Bundle, call
from daskml_scale.artifacts.manifest import MANIFEST, read_manifest
from daskml_scale.artifacts.registry import Registry
from daskml_scale.engine.worker import WorkerContext
from daskml_scale.errors import DaskMLError, PlanError, UsageError
from daskml_scale.plan.records import Record, digest, select
from daskml_scale.plan.units import FileId, Parts, Plan, Unit
from daskml_scale.storage import files

from .base import Input, Ref, StageBase, StageResult
from .curves import curves
from .estimator import holes, inner_threads
from .inputs import require
from .matrix import FEATURES, Matrix, all_seen, check_unseen, load_rows, matrix_bytes, matrix_inputs, private
from .metrics import Scored, check, score
from .score_tables import against, intervals, measure, sliced

CODE = "evaluate-1"
"""Changes whenever the kernel's output changes for the same input."""
UNIT = "metrics"
_REMEDY = "keep them from fitting it with fit_where: in the features stage, or evaluate on other rows with where:"
_APART = (
    "; a champion of other features is not compared: leave champion: out, and choose by daskml-scale models promote"
)


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
        Of ``metrics.METRICS``.
    where : str, optional
        Rows to score.
    trusted : tuple of str
        Types that the model files may hold beyond scikit-learn's.
    slices : tuple of str
        Columns of the row key, or the target: the metrics for each of their values too.
    bootstrap : int
        Resamples for 95 % intervals; 0 gives none.
    against : str
        URL of the folder of another bundle to compare with; empty for none.
    store, champion : str
        URL of a store, and a name in its registry: compare with that champion, or, for the champion itself,
        with the one before it. Empty for none.
    seed : int
        Of the resamples.
    """

    input: str
    bundle: str
    metrics: tuple[str, ...]
    where: str | None = None
    trusted: tuple[str, ...] = ()
    slices: tuple[str, ...] = ()
    bootstrap: int = 0
    against: str = ""
    store: str = ""
    champion: str = ""
    seed: int = 0
    kind: str = "evaluate"

    def reads(self) -> Mapping[str, Ref]:
        bundles = {"bundle": self.bundle, **({"against": self.against} if self.against else {})}
        found = {name: Ref("file", files.join(folder, MANIFEST)) for name, folder in bundles.items()}
        if self.champion:
            found["champion"] = Ref("file", Registry(self.store).file(self.champion))
        return {"input": Ref("dataset", self.input), **found}

    def plan(self, inputs: Mapping[str, Input], records: Mapping[str, Record]) -> Plan:
        matrix = require(inputs["input"], self.input, self.name)
        folders = [self.bundle, *([self.against] if self.against else [])]
        there = all(isinstance(inputs[name], FileId) for name in ("bundle", *(["against"] if self.against else [])))
        bundles = [Bundle(folder, read_manifest(folder), self.trusted) for folder in folders] if there else []
        if bundles and self.champion:
            bundles += self._rival(bundles[0].sha256)
        for bundle in bundles:
            check(bundle.name, bundle.classes, self.metrics)
        if all_seen(matrix):
            check_unseen(self.input, np.ones(matrix.rows, dtype=bool), "to evaluate on", _REMEDY)
        ids = matrix_inputs(matrix, self.where, self.slices)
        rows, width = matrix.variables[FEATURES].shape
        more = (self.slices, self.bootstrap, self.bootstrap and self.seed)
        parts = Parts(
            code=CODE,
            model=digest(*(b.sha256 for b in bundles)) if len(bundles) > 1 else "".join(b.sha256 for b in bundles),
            parameters=digest(self.metrics, self.where, *(more if any(more) else ())),
        )
        return select(
            [(Unit(UNIT), ids)],
            parts,
            records,
            grid=f"one scoring of up to {rows:,} rows x {width} features",
            memory=matrix_bytes(matrix),
            shared=(ids, bundles) if bundles else None,
        )

    def kernel(self, unit: Unit, worker: WorkerContext) -> dict[str, Any]:
        if worker.shared is None:
            raise PlanError(
                f"{self.name}: {self.input} or {self.bundle} does not exist; run the stages that write them"
            )
        ids, bundles = worker.shared
        matrix = load_rows(self.input, ids, self.where, worker, self.slices)
        check_unseen(self.input, matrix.seen, "to evaluate on", _REMEDY)
        with inner_threads(worker.threads):
            scored, *others = (self._score(bundle, matrix, worker) for bundle in bundles)
        other = others[0] if others else None
        result: dict[str, Any] = {"metrics": measure(scored, self.metrics), "rows": len(scored.y)}
        own, apart = intervals(scored, other, self.metrics, self.bootstrap, self.seed)
        if drawn := curves(scored):
            result["curves"] = drawn
        if self.bootstrap:
            result["intervals"] = own
        if self.slices:
            result["slices"] = {name: sliced(scored, name, matrix.keys[name], self.metrics) for name in self.slices}
        if other is not None:
            result["against"] = against(result["metrics"], measure(other, self.metrics), other.name, apart)
        return result

    def _rival(self, sha256: str) -> list[Bundle]:
        """Return the champion to beat, if there is one."""
        registry = Registry(self.store)
        found = registry.shelf(self.champion).rival(sha256)
        if found is None:
            return []
        folder = registry.bundle(self.champion, found.number)
        return [Bundle(folder, read_manifest(folder), self.trusted)]

    def _score(self, bundle: Bundle, matrix: Matrix, worker: WorkerContext) -> Scored:
        """Return what a model says of all rows."""
        if matrix.columns != bundle.features:
            raise UsageError(
                f"{self.name}: the matrix has features {list(matrix.columns)}, the model {bundle.name} was trained on "
                f"{list(bundle.features)}; evaluate it on the matrix of its own features stage"
                f"{_APART * bool(self.champion)}"
            )
        estimator = worker.cache.get(("model", bundle.sha256), bundle.load)
        empty = Scored(bundle.name, np.asarray(bundle.classes), matrix.y)
        try:
            return score(
                lambda method: call(estimator, method, private(matrix.X), bundle.features),
                lambda method: hasattr(estimator, method),
                empty,
                self.metrics,
            )
        except ValueError as error:
            if why := holes(error, estimator, matrix.X, matrix.columns):
                raise DaskMLError(f"{self.name}: {why}") from error
            raise

    def finish(self, inputs: Mapping[str, Input], records: Mapping[str, Record]) -> StageResult:
        return StageResult(records[UNIT].result, rows=records[UNIT].result["rows"])
