"""Search: score settings of an estimator on a feature matrix. A unit is one trial on one split.

Settings are drawn from the seed and the trial's number alone, and each unit carries its own setting in
its fingerprint: more trials reuse the earlier ones, and a changed setting runs alone. A fit that fails
is a trial without a score, as in scikit-learn; the stage fails when no trial has one. This module
writes nothing: the scores are the ledger's records.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from daskml_scale.engine.worker import WorkerContext
from daskml_scale.errors import PlanError, SpecError, UnitsFailedError
from daskml_scale.plan.records import Record, digest, select
from daskml_scale.plan.units import Parts, Plan, Snapshot, Unit
from daskml_scale.spec.expressions import evaluate
from daskml_scale.spec.space import Distribution, draw_trials, grid, seed_from
from daskml_scale.spec.workflow import Folds, Grid, Random, SearchSpec, TimeSplit
from daskml_scale.stages.base import Input, Ref, StageBase, StageResult
from daskml_scale.stages.estimator import (
    build_estimator,
    check_parameters,
    code_identity,
    did_you_mean,
    inner_threads,
)
from daskml_scale.stages.matrix import Matrix, load_rows, matrix_bytes, matrix_inputs, private
from daskml_scale.storage.tables import kind_of

CODE = "search-1"
Split: TypeAlias = "tuple[slice | np.ndarray, slice | np.ndarray]"
"""Rows to train on, rows to score on."""


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
    sampler: Random | Grid
    scoring: str
    split: TimeSplit | Folds
    seed: int = 0
    kind: str = "search"

    def reads(self) -> Mapping[str, Ref]:
        return {"matrix": Ref("dataset", self.input)}

    def plan(self, inputs: Mapping[str, Input], records: Mapping[str, Record]) -> Plan:
        matrix = inputs["matrix"]
        if not isinstance(matrix, Snapshot):
            raise PlanError(f"{self.name}: {self.input} does not exist; run the stage that writes it")
        ids = matrix_inputs(matrix, self._where(), self._columns())
        for column in self._columns():
            if kind_of(matrix.variables[column]) != "time":
                raise PlanError(
                    f"{self.name}: split.time.of: {column!r} is not a time; use kfold, or name a time column"
                )
        trials, splits = settings(self), count_splits(self.split)
        units = [
            (Unit(unit_key(trial, split), (params, split)), digest(ids, params))
            for trial, params in enumerate(trials)
            for split in range(splits)
        ]
        plan = select(
            units,
            Parts(
                code=f"{CODE}, {code_identity(self.estimator)}",
                parameters=digest(self.estimator, self.scoring, self.split, self.seed),
            ),
            records,
            grid=f"{_count(len(trials), 'trial')} x {_count(splits, 'split')} of {matrix.rows:,} rows",
            memory=matrix_bytes(matrix),
            shared=ids,
            rows=matrix.rows,
        )
        if plan.units:
            check(self)
        return plan

    def kernel(self, unit: Unit, worker: WorkerContext) -> dict[str, Any]:
        from sklearn.metrics import get_scorer

        params, split = unit.payload
        matrix = load_rows(self.input, worker.shared, self._where(), worker, self._columns())
        estimator = build_estimator(self.estimator, params, seed_from(self.seed, unit.key))
        try:
            train, test = self._splits(matrix, estimator, worker)[split]
            with inner_threads(worker.threads):
                estimator.fit(private(matrix.X, train), private(matrix.y, train))
                score = float(get_scorer(self.scoring)(estimator, private(matrix.X, test), private(matrix.y, test)))
        except MemoryError:
            raise  # the machine's failure, not the trial's: it runs again
        except Exception as error:
            return {"score": None, "error": " ".join(f"{type(error).__name__}: {error}".split())[:500]}
        return {"score": score} if math.isfinite(score) else {"score": None, "error": f"the score is {score}"}

    def finish(self, inputs: Mapping[str, Input], records: Mapping[str, Record]) -> StageResult:
        splits = range(count_splits(self.split))
        trials = [
            summarize(number, params, [records[unit_key(number, split)].result for split in splits])
            for number, params in enumerate(settings(self))
        ]
        scored = [trial for trial in trials if trial["score"] is not None]
        failed = [trial for trial in trials if trial["score"] is None]
        if not scored:
            raise UnitsFailedError(
                f"{self.name}: all {len(trials)} trials failed; change the estimator, the space or the split. "
                f"First: {failed[0]['params']}: {failed[0]['error']}"
            )
        best = max(scored, key=lambda trial: (trial["score"], -trial["trial"]))
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

    def _columns(self) -> tuple[str, ...]:
        return (self.split.time.of,) if isinstance(self.split, TimeSplit) else ()

    def _where(self) -> str | None:
        """Rows from ``validate_until`` on are not read at all."""
        if isinstance(self.split, Folds):
            return None
        return f"{self.split.time.of} < time('{self.split.time.validate_until}')"

    def _splits(self, matrix: Matrix, estimator: Any, worker: WorkerContext) -> list[Split]:
        key = ("splits", self.input, worker.shared, digest(self.split, self.estimator, self.seed))
        size = 16 * count_splits(self.split) * len(matrix.y)
        return worker.cache.get(key, lambda: make_splits(self.split, matrix, estimator, self.seed), size)


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'s'[: number != 1]}"


def unit_key(trial: int, split: int) -> str:
    """Return the key of one unit."""
    return f"trial/{trial:04d}/split/{split}"


def count_splits(split: TimeSplit | Folds) -> int:
    """Return how many times each setting is fitted and scored."""
    return split.kfold.folds if isinstance(split, Folds) else 1


def settings(stage: SearchStage) -> list[dict[str, Any]]:
    """Return the settings to try, by trial number."""
    if isinstance(stage.sampler, Grid):
        return _grid(stage.space)
    return draw_trials(stage.space, stage.sampler.random.trials, stage.seed)


def _grid(space: Mapping[str, Distribution]) -> list[dict[str, Any]]:
    try:
        return grid(space)
    except ValueError as error:
        raise SpecError(str(error), path="space") from None


def check(spec: SearchSpec | SearchStage) -> None:
    """Check all that can be known without data: estimator, its parameters, the space's names, the scoring.

    Raises
    ------
    SpecError
        Naming the key path, the value and the nearest known name.
    """
    from sklearn.metrics import get_scorer_names

    if isinstance(spec.sampler, Grid):
        _grid(spec.space)
    ((path, _),) = spec.estimator.items()
    try:
        estimator = build_estimator(spec.estimator, {}, 0)
    except SpecError as error:
        raise error.at(path="estimator") from None
    for name in spec.space:
        try:
            check_parameters(path, estimator, [name])
        except SpecError as error:
            raise error.at(path=f"space.{name}") from None
    scorers = get_scorer_names()
    if spec.scoring not in scorers:
        nearest = did_you_mean(spec.scoring, scorers)
        raise SpecError(f"unknown scoring {spec.scoring!r}{nearest}; known: {', '.join(scorers)}", path="scoring")


def make_splits(split: TimeSplit | Folds, matrix: Matrix, estimator: Any, seed: int) -> list[Split]:
    """Return the rows to train and to score on, split by split; a pure function of its arguments.

    Raises
    ------
    ValueError
        When one of them has no rows.
    """
    if isinstance(split, TimeSplit):
        of = split.time.of
        first, last = (
            evaluate(f"time('{until}')", {}) for until in (split.time.train_until, split.time.validate_until)
        )
        times = np.asarray(matrix.keys[of])
        parts = [_rows(times < first), _rows((times >= first) & (times < last))]
        for rows, said in zip(parts, (f"before {first}", f"from {first} to {last}"), strict=True):
            if rows == slice(0, 0):
                raise ValueError(f"no row with a target has {of} {said}")
        return [(parts[0], parts[1])]
    return list(_folds(split, estimator, matrix.y, seed).split(matrix.X, matrix.y))


def _folds(split: Folds, estimator: Any, y: np.ndarray, seed: int) -> Any:
    from sklearn.base import is_classifier
    from sklearn.model_selection import KFold, StratifiedKFold
    from sklearn.utils.multiclass import type_of_target

    folds, shuffle = split.kfold.folds, split.kfold.shuffle
    if not shuffle:
        return KFold(folds)
    is_class = is_classifier(estimator) and type_of_target(y) in ("binary", "multiclass")
    return (StratifiedKFold if is_class else KFold)(folds, shuffle=True, random_state=seed_from(seed, "folds"))


def _rows(chosen: np.ndarray) -> slice | np.ndarray:
    """Return rows as a slice where they are contiguous, so that taking them copies nothing."""
    numbers = np.flatnonzero(chosen)
    if not len(numbers):
        return slice(0, 0)
    first, stop = int(numbers[0]), int(numbers[-1]) + 1
    return slice(first, stop) if stop - first == len(numbers) else numbers


def summarize(number: int, params: Mapping[str, Any], results: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return one trial: the mean of its scores, or none where a split has none."""
    scores = [result["score"] for result in results]
    errors = [str(result["error"]) for result in results if result["score"] is None]
    trial = {
        "trial": number,
        "params": dict(params),
        "score": None if errors else float(np.mean(scores)),
        "scores": scores,
    }
    return {**trial, "error": errors[0]} if errors else trial
