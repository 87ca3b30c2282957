"""What searches have in common whose trials are not known before they run.

scikit-learn's ``BaseSearchCV.fit`` prepares the rows, splits and scorers and makes ``cv_results_`` and the
best index of what the coordinator found; the last fit is ours, since a trial's resource is no parameter
of ``fit``. What runs next is `plan.asha`'s decision.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from sklearn.base import clone, is_classifier

from daskml_scale.plan.asha import Halving, Ladder, Mode

from . import _compat, chunk_training
from ._compat import Call, Round, Scored
from .base import OnDask
from .fidelity import Fidelity
from .fits import Runner
from .log import FitLog
from .resources import available
from .trial import Sampler, Trial
from .trials import Coordinator

FIRST = 64
"""Trials that start before one is promoted, where there is no time budget."""


class _Prepared(Exception):  # no error: it carries what scikit-learn prepared
    def __init__(self, calls: list[Call]) -> None:
        super().__init__()
        self.calls = calls


class Adaptive(OnDask):
    """What searches have in common whose trials are not known before they run."""

    _drawn_by_us = True
    history_: list[dict[str, Any]]
    refit: Any

    def _needs_us(self, X: Any) -> bool:
        return True

    def _fit(self, runner: Runner, X: Any, y: Any, params: dict[str, Any]) -> Any:
        answers: list[Scored] = []
        wanted, self.refit = self.refit, False

        def run(calls: list[Call]) -> list[Scored]:
            if not answers:
                raise _Prepared(calls)
            return answers

        self._answers = answers
        try:
            _compat.fit_with(run)(self, X, y, **params)
        finally:
            self.refit = wanted
            del self._answers
        if wanted:
            self._refit(X, y, params)
        return self

    def _run_search(self, evaluate_candidates: Callable[..., Any]) -> None:
        runner = self._runner
        assert runner is not None
        try:
            evaluate_candidates([{}])
        except _Prepared as prepared:
            work = _compat.gather(prepared.calls)
        grows, ladders, mode = self._plan(work)
        self._grows, self._available = grows, available(self, grows, work)
        sampler = self._sampler(work, runner.log, ladders)
        # Whoever learns, or has little time, needs results of the last rung early.
        first = 0 if sampler.learns or self.time_budget is not None else FIRST
        coordinator = Coordinator(runner, work, Halving(ladders, mode, first), sampler, grows, self._judged())
        trials = coordinator.run()
        self.history_ = coordinator.history
        for trial in trials:
            self._answers.extend(trial.scored)
        self._found(trials, coordinator)
        more = {
            "n_resources": [trial.resource for trial in trials],
            "rung": [trial.rung for trial in trials],
            "bracket": [trial.bracket for trial in trials],
        }
        evaluate_candidates([grows.of(trial.params, trial.resource) for trial in trials], more_results=more)

    def _judged(self) -> str:
        return ""

    def _found(self, trials: Sequence[Trial], coordinator: Coordinator) -> None:
        """Take over what only the coordinator knows."""

    def _plan(self, work: Round) -> tuple[Fidelity, list[Ladder], Mode]:
        raise TypeError(f"{type(self).__name__} says nothing of rungs")

    def _sampler(self, work: Round, log: FitLog | None, ladders: Sequence[Ladder]) -> Sampler:
        raise TypeError(f"{type(self).__name__} suggests nothing")

    def _refit(self, X: Any, y: Any, params: dict[str, Any]) -> None:
        """Train the best parameters on all rows, as far as the best trial went."""
        index = self.best_index_
        resource = int(self.cv_results_["n_resources"][index])
        grows: Fidelity = self._grows
        model = clone(self.estimator).set_params(**clone(self.best_params_, safe=False))
        began = time.time()
        classes = np.unique(y) if is_classifier(model) and y is not None else None
        more = _compat.fit_params(self, params)
        if grows.kind == "chunks":
            model = chunk_training.train_on_all(model, X, y, resource / self._available, more, classes)
        else:
            kind = grows if grows.kind in ("partial_fit", "xgboost") else Fidelity("whole")
            model = kind.train(model, X, y, 0, resource, more, classes)
        self.best_estimator_ = model
        self.refit_time_ = time.time() - began
        if hasattr(self.best_estimator_, "feature_names_in_"):
            self.feature_names_in_ = self.best_estimator_.feature_names_in_

    @staticmethod
    def _select_best_index(refit: Any, refit_metric: str, results: Mapping[str, Any]) -> int:
        """Return the best of the trials that came furthest."""
        rungs = np.asarray(results["n_resources"])
        scores = np.where(rungs == rungs.max(), results[f"mean_test_{refit_metric}"], -np.inf)
        return int(np.argmax(np.where(np.isnan(scores), -np.inf, scores))) if np.isfinite(scores).any() else 0
