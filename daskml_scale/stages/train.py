"""Train: fit one estimator on the rows of a feature matrix and save the bundle.

One unit. The bundle lies in the store, beside the datasets; the unit's result names it relative to the
store, so that equal runs in different places have equal ledgers. A bundle that is gone or altered is
made again. Everything random gets the workflow's seed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from daskml_scale.artifacts.bundle import save_model
from daskml_scale.artifacts.kind_xgboost import is_ours as is_xgboost
from daskml_scale.artifacts.manifest import FILES, MANIFEST, model_file
from daskml_scale.artifacts.packing import check_savable
from daskml_scale.artifacts.profile import spaced
from daskml_scale.engine.worker import WorkerContext
from daskml_scale.errors import DaskMLError, PlanError
from daskml_scale.plan.records import ALTERED, MISSING, Record, digest, select
from daskml_scale.plan.units import FileId, Parts, Plan, Unit
from daskml_scale.storage import files

from . import boosting, incremental
from .base import Input, Ref, StageBase, StageResult
from .estimator import build_estimator, code_identity, holes, inner_threads
from .inputs import require
from .matrix import FEATURES, check_matrix, load_matrix, matrix_bytes, matrix_inputs, private

CODE = "train-2"
"""Changes whenever the kernel's output changes for the same input."""
UNIT = "model"
_MODELS = (FILES["skops"], FILES["xgboost"])
"""Files of the kinds that can be trained."""


@dataclass(frozen=True)
class TrainStage(StageBase):
    """See the module docstring.

    Attributes
    ----------
    input : str
        URL of the feature matrix.
    bundle : str
        URL of the bundle's folder, below the folder that the ledger is in.
    estimator : mapping, optional
        One import path and its parameters; by default that of the search.
    params_from : str
        URL of the ledger of the search stage whose best parameters are used; empty for none.
    where : str, optional
        Rows to train on; all rows that have a target by default.
    seed : int
        For every ``random_state`` that nothing else sets.
    passes : int
        Passes of ``partial_fit`` over the shards, which need not fit in memory together; 0 fits all rows at once.
    trusted : tuple of str
        Types beyond scikit-learn's that the model may hold; the stages that load it trust them too.
    checkpoint_every : int
        Train XGBoost on the whole cluster, with a checkpoint after so many rounds; 0 is not.
    """

    input: str
    bundle: str
    estimator: Mapping[str, Mapping[str, Any]] | None = None
    params_from: str = ""
    where: str | None = None
    seed: int = 0
    passes: int = 0
    trusted: tuple[str, ...] = ()
    checkpoint_every: int = 0
    kind: str = "train"

    def reads(self) -> Mapping[str, Ref]:
        found = {
            "input": Ref("dataset", self.input),
            **{name: Ref("file", files.join(self.bundle, name)) for name in (*_MODELS, MANIFEST)},
        }
        return {**found, "search": Ref("result", self.params_from)} if self.params_from else found

    def plan(self, inputs: Mapping[str, Input], records: Mapping[str, Record]) -> Plan:
        matrix, search = require(inputs["input"], self.input, self.name), inputs.get("search")
        estimator, params = self._chosen(search)
        fit: dict[str, Any] | None = None
        target, ids = check_matrix(matrix, self.where), matrix_inputs(matrix, self.where)
        rows, width = matrix.variables[FEATURES].shape
        if not self.params_from or search is not None:
            fit = {
                "ids": ids,
                "estimator": estimator,
                "params": params,
                "recipe": matrix.attrs.get("recipe"),
                "schema": {"dtype": matrix.variables[FEATURES].dtype, "target": target},
            }
        parts = Parts(
            code=f"{CODE}, {code_identity(estimator)}",
            parameters=digest(estimator, params, self.where, self.seed, *self._in_parts),
        )
        how = f"{self.passes} passes over shards of" if self.passes else "one fit on"
        parted = self.passes or self.checkpoint_every
        return select(
            [(Unit(UNIT, weight=rows * width), ids)],
            parts,
            self._checked(inputs, records),
            grid=f"{how} up to {rows:,} rows x {width} features",
            memory=incremental.part_bytes(matrix) if parted else matrix_bytes(matrix),
            shared=fit,
        )

    @property
    def _in_parts(self) -> list[Any]:
        """What belongs to the fingerprint of a training in parts."""
        passes = [self.passes] if self.passes else []
        return [*passes, *(["every", self.checkpoint_every] if self.checkpoint_every else [])]

    def _chosen(self, search: Input) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return the estimator mapping, and the parameters set over it."""
        found = search if isinstance(search, Mapping) else {}
        return dict(self.estimator or found.get("estimator") or {}), dict(found.get("best_params") or {})

    def _checked(self, inputs: Mapping[str, Input], records: Mapping[str, Record]) -> Mapping[str, Record]:
        """Return the records; the unit's is marked when its files are gone, or not what it wrote."""
        record = records.get(UNIT)
        if record is None or not isinstance(record.result, Mapping):
            return records
        wrote = record.result["files"]
        now = {name: found.digest for name in wrote if isinstance(found := inputs.get(name), FileId)}
        if wrote == now:
            return records
        return {**records, UNIT: replace(record, status=ALTERED if len(now) == len(wrote) else MISSING)}

    def kernel(self, unit: Unit, worker: WorkerContext) -> dict[str, Any]:
        fit = worker.shared
        if fit is None:
            raise PlanError(f"{self.name}: {self.params_from} holds no result; run the search first")
        relative = self._relative()
        estimator = build_estimator(fit["estimator"], fit["params"], self.seed)
        if self.passes:
            incremental.check(next(iter(fit["estimator"])), estimator)
        if self.checkpoint_every:
            boosting.check(next(iter(fit["estimator"])))
        check_savable(estimator, self.trusted, self.name)  # before the time is spent
        with inner_threads(worker.threads):
            rows, columns, reference = self._fit(estimator, fit, worker)
        training = {
            "fingerprint": self._fingerprint(fit),
            "rows": rows,
            "where": self.where,
            **({"passes": self.passes} if self.passes else {}),
            "params": fit["params"],
            "seed": self.seed,
        }
        bundle = save_model(
            estimator,
            self.bundle,
            recipe=fit["recipe"],
            schema={**fit["schema"], "features": list(columns)},
            training=training,
            reference=reference,
            trusted=self.trusted,
        )
        if self.checkpoint_every:
            boosting.forget(self.ledger)
        return {
            "path": relative,
            "sha256": bundle.sha256,
            "rows": rows,
            "estimator": bundle.manifest["estimator"],
            "params": fit["params"],
            "files": {
                name: files.file_id(files.join(self.bundle, name)).digest
                for name in (model_file(bundle.manifest), MANIFEST)
            },
        }

    def _fingerprint(self, fit: Mapping[str, Any]) -> str:
        known = fit["ids"], fit["estimator"], fit["params"], self.where, self.seed
        return digest(CODE, *known, *(["every", self.checkpoint_every] if self.checkpoint_every else []))

    def _fit(
        self, estimator: Any, fit: Mapping[str, Any], worker: WorkerContext
    ) -> tuple[int, tuple[str, ...], np.ndarray]:
        """Fit; return the number of rows, the names of the features, and rows for the profile."""
        if self.passes:
            rows, columns = incremental.fit(estimator, self.input, self.where, self.passes)
            return rows, columns, incremental.sample(self.input, self.where, rows)
        if self.checkpoint_every:
            rows, columns = boosting.fit(
                estimator, self.input, self.where, every=self.checkpoint_every, seed=self.seed, folder=self.ledger,
                fingerprint=self._fingerprint(fit), threads=worker.threads,
            )  # fmt: skip
            return rows, columns, incremental.sample(self.input, self.where, rows)
        if is_xgboost(estimator) and estimator.get_params().get("n_jobs") is None:
            estimator.set_params(n_jobs=worker.threads)  # it has threads of its own
        X, y, columns = load_matrix(self.input, fit["ids"], self.where, worker)
        try:
            estimator.fit(private(X), private(y))
        except ValueError as error:
            if why := holes(error, estimator, X, columns):
                raise DaskMLError(f"{self.name}: {why}") from error
            raise
        return len(y), columns, X[spaced(len(X))]

    def _relative(self) -> str:
        """Return the bundle's path from the store, the folder that the ledger is in.

        Raises
        ------
        PlanError
            When the bundle is not in the store.
        """
        store = files.normal(self.ledger).rpartition("/")[0]
        bundle = files.normal(self.bundle)
        if not bundle.startswith(f"{store}/"):
            raise PlanError(f"{self.name}: the bundle {bundle} is not in the store {store}; choose a path inside it")
        return bundle[len(store) + 1 :]

    def finish(self, inputs: Mapping[str, Input], records: Mapping[str, Record]) -> StageResult:
        result = {name: value for name, value in records[UNIT].result.items() if name != "files"}
        return StageResult({**result, "model": result["path"].rpartition("/")[2]}, rows=result["rows"])
