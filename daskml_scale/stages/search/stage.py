"""Search: score settings of an estimator on a feature matrix. A unit is one trial on one split.

Settings are drawn from the seed and the trial's number alone, or suggested from the scores so far
(`passes`), and each unit carries its own setting in its fingerprint: more trials reuse the earlier ones,
and a changed setting runs alone. A fit that fails is a trial without a score, as in scikit-learn; the stage
fails when no trial has one. This module writes nothing: the scores are the ledger's records.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from daskml_scale.engine.worker import WorkerContext
from daskml_scale.errors import PlanError, SpecError, StoreError, UnitsFailedError
from daskml_scale.events import Score
from daskml_scale.plan.records import OK, Record, digest, fingerprint, select
from daskml_scale.plan.units import Outcome, Parts, Plan, Snapshot, Unit
from daskml_scale.spec.expressions import column
from daskml_scale.spec.searching import EarlyStopping, Grid, Optuna, Predefined, Random, Refit, TimeSplit
from daskml_scale.spec.space import Distribution, seed_from
from daskml_scale.stages.base import Input, Ref, StageBase, StageResult
from daskml_scale.stages.estimator import build_estimator, code_identity, holes, inner_threads
from daskml_scale.stages.features.stage import fold_features
from daskml_scale.stages.inputs import require
from daskml_scale.stages.matrix import (
    FEATURES,
    Matrix,
    all_seen,
    check_unseen,
    load_rows,
    matrix_bytes,
    matrix_inputs,
    private,
    read_rows,
)
from daskml_scale.storage import stores
from daskml_scale.storage.tables import kind_of

from .fidelity import rows_of
from .passes import Step, key_of, step_key, steps, summarize
from .splits import AnySplit, Split, column_of, count_splits, fold_numbers, make_splits
from .stage_check import check

CODE = "search-1"
MAX_PARAMS = 200
"""Letters of a setting that the page shows."""
_REMEDY = (
    "keep them from fitting it with fit_where: in the features stage, or fit it per fold: folds: {count: 5} there and "
    "split: {refit: {}} here"
)


@dataclass(frozen=True)
class SearchStage(StageBase):
    """See the module docstring; the fields are those of ``SearchSpec``.

    Attributes
    ----------
    input : str
        URL of the feature matrix.
    seed : int
        Of the workflow: settings, folds and every ``random_state`` that is not given derive from it.
    """

    input: str
    estimator: Mapping[str, Mapping[str, Any]]
    space: Mapping[str, Distribution]
    sampler: Random | Grid | Optuna
    scoring: str
    split: AnySplit
    seed: int = 0
    early_stopping: EarlyStopping | None = None
    kind: str = "search"

    def reads(self) -> Mapping[str, Ref]:
        return {"matrix": Ref("dataset", self.input)}

    def plan(self, inputs: Mapping[str, Input], records: Mapping[str, Record]) -> Plan:
        plan = self.projected(inputs, records)
        if plan.units:
            check(self)
        return plan

    def projected(self, inputs: Mapping[str, Input], records: Mapping[str, Record]) -> Plan:
        """Return the plan without building the estimator, which takes seconds to import."""
        matrix = require(inputs["matrix"], self.input, self.name)
        self._check_seen(matrix)
        ids = matrix_inputs(matrix, self._where(), self._columns(), self._variables())
        for read in self._columns():
            if isinstance(self.split, TimeSplit) and kind_of(matrix.variables[read]) != "time":
                raise PlanError(f"{self.name}: split.time.of: {read!r} is not a time; use kfold, or name a time column")
        parts = self._parts()
        splits = self._count_splits()
        wanted, later = self._steps(records, parts, ids)
        units = [
            (Unit(step_key(step, split), (dict(step.params), split, step.resource)), self._inputs(ids, step))
            for step in wanted
            for split in range(splits)
        ]
        trials = len({step.trial for step in wanted})
        return select(
            units,
            parts,
            records,
            grid=f"{_count(trials, 'trial')} x {_count(splits, 'split')} of {matrix.rows:,} rows",
            memory=matrix_bytes(matrix),
            shared=ids,
            rows=matrix.rows,
            later=later * splits,
        )

    def _parts(self) -> Parts:
        more = () if self.early_stopping is None else (self.early_stopping.resource,)
        return Parts(
            code=f"{CODE}, {code_identity(self.estimator)}",
            parameters=digest(self.estimator, self.scoring, self.split, self.seed, *more),
        )

    def _inputs(self, ids: str, step: Step) -> str:
        return digest(ids, dict(step.params), *([] if step.resource is None else [step.resource]))

    def _steps(self, records: Mapping[str, Record], parts: Parts | None, ids: str) -> tuple[list[Step], int]:
        """Return what is to be run as far as the valid records tell; all records are valid without ``parts``."""
        splits = range(self._count_splits())
        told: dict[tuple[int, int], Step] = {}

        def score(trial: int, rung: int) -> float | bool | None:
            found = [records.get(key_of(trial, rung, split, self._rungs)) for split in splits]
            step = told.get((trial, rung))
            if parts is not None and step is not None:
                now = [fingerprint(parts, step_key(step, split), self._inputs(ids, step)) for split in splits]
                found = [
                    each if each is not None and each.status == OK and each.fingerprint == print_now else None
                    for each, print_now in zip(found, now, strict=True)
                ]
            if any(each is None for each in found):
                return False
            return summarize(trial, {}, [each.result for each in found if each is not None])["score"]  # type: ignore[no-any-return]

        while True:  # each turn checks the fingerprints of one pass more
            try:
                found, later = steps(self.space, self.sampler, self.early_stopping, self.seed, score)
            except ValueError as error:
                raise SpecError(str(error), path="space") from None
            if parts is None or (self.early_stopping is None and not isinstance(self.sampler, Optuna)):
                return found, later
            new = {(step.trial, step.rung): step for step in found}
            if new.keys() == told.keys():
                return found, later
            told.update(new)

    @property
    def _rungs(self) -> bool:
        return self.early_stopping is not None

    def _count_splits(self) -> int:
        known = count_splits(self.split)
        return known if known is not None else _folds_of(self)

    def kernel(self, unit: Unit, worker: WorkerContext) -> dict[str, Any]:
        from sklearn.metrics import get_scorer

        params, split, resource = unit.payload
        features = fold_features(split) if isinstance(self.split, Refit) else FEATURES
        matrix = load_rows(self.input, worker.shared, self._where(), worker, self._columns(), features)
        estimator = build_estimator(self.estimator, params, seed_from(self.seed, unit.key))
        try:
            train, test = self._splits(matrix, estimator, worker)[split]
            if not isinstance(self.split, Refit):
                check_unseen(self.input, None if matrix.seen is None else matrix.seen[test], "to score on", _REMEDY)
            train = self._limited(estimator, train, split, resource)
            with inner_threads(worker.threads):
                estimator.fit(private(matrix.X, train), private(matrix.y, train))
                score = float(get_scorer(self.scoring)(estimator, private(matrix.X, test), private(matrix.y, test)))
        except (MemoryError, PlanError):
            raise  # the machine's failure, not the trial's, runs again; a leak is nobody's score
        except Exception as error:
            why = holes(error, estimator, matrix.X, matrix.columns) or f"{type(error).__name__}: {error}"
            return {"score": None, "error": " ".join(why.split())[:500]}
        return {"score": score} if math.isfinite(score) else {"score": None, "error": f"the score is {score}"}

    def trial_scores(self, outcomes: Sequence[Outcome], records: Sequence[Record]) -> tuple[Score, ...]:
        splits, result = self._count_splits(), []
        payloads = {outcome.unit.key: outcome.unit.payload for outcome in outcomes}
        for record in records:
            _, trial, *rest = record.unit.split("/")  # see `passes.key_of`
            split = int(rest[-1])
            rung = int(rest[1]) if rest[0] == "rung" else 0
            score = (record.result or {}).get("score")
            params = "" if split else ", ".join(f"{name}={value}" for name, value in payloads[record.unit][0].items())
            result.append(Score(int(trial), rung, split, splits, score, params[:MAX_PARAMS]))
        return tuple(result)

    def finish(self, inputs: Mapping[str, Input], records: Mapping[str, Record]) -> StageResult:
        last: dict[int, Step] = {step.trial: step for step in self._steps(records, None, "")[0]}
        trials = [
            self._trial(step, [records[step_key(step, split)].result for split in range(self._count_splits())])
            for step in last.values()
        ]
        scored = [trial for trial in trials if trial["score"] is not None]
        failed = [trial for trial in trials if trial["score"] is None]
        if not scored:
            raise UnitsFailedError(
                f"{self.name}: all {len(trials)} trials failed; change the estimator, the space or the split. "
                f"First: {failed[0]['params']}: {failed[0]['error']}"
            )
        best = max(scored, key=lambda trial: (trial.get("resource", 0), trial["score"], -trial["trial"]))
        result = {
            "best_params": best["params"],
            "best_score": best["score"],
            "best_trial": best["trial"],
            "scoring": self.scoring,
            "estimator": {path: dict(params) for path, params in self.estimator.items()},
            "trials": trials,
        }
        warnings = [f"{len(failed)} of {len(trials)} trials failed; first: {failed[0]['error']}"] if failed else []
        matrix = inputs["matrix"]
        return StageResult(result, matrix.rows if isinstance(matrix, Snapshot) else 0, tuple(warnings))

    def _trial(self, step: Step, results: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        params = dict(step.params)
        if step.resource is None:
            return summarize(step.trial, params, results)
        stopping = self.early_stopping
        if stopping is not None and stopping.resource != "n_samples":
            params[stopping.resource] = step.resource
        return {**summarize(step.trial, params, results), "rung": step.rung, "resource": step.resource}

    def _limited(self, estimator: Any, train: Any, split: int, resource: int | None) -> Any:
        """Give a trial of a lower rung its part of the resource: set the parameter, or return fewer rows."""
        if resource is None or self.early_stopping is None:
            return train
        if self.early_stopping.resource == "n_samples":
            rows = np.arange(train.start, train.stop) if isinstance(train, slice) else train
            return rows_of(rows, split, resource)
        estimator.set_params(**{self.early_stopping.resource: resource})
        return train

    def _check_seen(self, matrix: Snapshot) -> None:
        """Refuse what would score rows that the recipe has seen, where that is known without reading any.

        Raises
        ------
        PlanError
        """
        if isinstance(self.split, Refit):
            if not matrix.attrs.get("folds"):
                raise PlanError(
                    f"{self.name}: split: refit needs a recipe that is fitted per fold; give the features stage that "
                    f"writes {self.input} folds: {{count: 5}} (and steps that learn)"
                )
        elif all_seen(matrix):
            check_unseen(self.input, np.ones(matrix.rows, dtype=bool), "to score on", _REMEDY)

    def _variables(self) -> tuple[str, ...]:
        """Return the variables of features that are read in place of the common ones."""
        return tuple(map(fold_features, range(self._count_splits()))) if isinstance(self.split, Refit) else ()

    def _columns(self) -> tuple[str, ...]:
        read = column_of(self.split)
        return () if read is None else (read,)

    def _where(self) -> str | None:
        """Rows from ``validate_until`` on are not read at all."""
        if not isinstance(self.split, TimeSplit):
            return None
        return f"{column(self.split.time.of)} < time('{self.split.time.validate_until}')"

    def _splits(self, matrix: Matrix, estimator: Any, worker: WorkerContext) -> list[Split]:
        key = ("splits", self.input, worker.shared, digest(self.split, self.estimator, self.seed))
        size = 16 * self._count_splits() * len(matrix.y)
        return worker.cache.get(key, lambda: make_splits(self.split, matrix, estimator, self.seed), size)


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'s'[: number != 1]}"


def _folds_of(stage: SearchStage) -> int:
    """Return the number of folds that a column of the matrix, or the recipe of its features, has."""
    split = stage.split
    try:
        if isinstance(split, Refit):
            return int(stores.open_group(stage.input, "r").attrs.get("folds", 1))
        assert isinstance(split, Predefined)
        matrix = read_rows(stage.input, None, [split.predefined.of])
    except StoreError:
        return 1  # not written yet: a dry run
    folds = fold_numbers(matrix, split.predefined.of)
    return len(np.unique(folds[folds >= 0]))
