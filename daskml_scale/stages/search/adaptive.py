"""``AshaSearchCV`` and ``HyperbandSearchCV``: searches that stop bad trials early, without waiting for anyone.

scikit-learn's ``BaseSearchCV.fit`` prepares the rows, splits and scorers and makes ``cv_results_`` and the
best index of what the coordinator found; the last fit is ours, since a trial's resource is no parameter
of ``fit``. What runs next is `plan.asha`'s decision.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from sklearn.base import clone, is_classifier
from sklearn.model_selection import ParameterSampler
from sklearn.model_selection._search import BaseSearchCV
from sklearn.utils import check_random_state

from daskml_scale.errors import UsageError
from daskml_scale.plan.asha import Halving, Ladder, Mode, brackets, one_ladder
from daskml_scale.spec.space import draw_trials

from . import _compat
from ._compat import Call, Round, Scored
from .base import OWN, OWN_PARAMETERS, OnDask
from .fidelity import Fidelity, fidelity, most
from .fits import Runner
from .log import FitLog
from .spaces import is_yaml, read
from .trials import Coordinator, Sampler, Trial

_ADAPTIVE = ("n_trials", "resource", "min_resources", "max_resources", "factor", "mode", "random_state")

_ABOUT = (
    """
    Every trial begins with ``min_resources``; whenever a slot is free, the best trial that has not gone on and is
    among the best ``1 / factor`` of its rung goes on with ``factor`` times as much, up to ``max_resources``.
    There is no barrier: nothing waits for the slowest trial of a rung. Which trials go on may depend on the order
    in which results arrive; parameters are drawn by trial number and do not.

    Parameters
    ----------
    estimator : estimator
    param_distributions : dict or list of dict
        Lists and scipy distributions, as for ``RandomizedSearchCV``; or a YAML space (a path, or its values such as
        ``{"loguniform": [0.01, 10], "when": {"kernel": ["rbf"]}}``).
N_TRIALS    resource : str
        ``n_samples`` (rows), ``partial_fit`` (passes over the rows; the model goes on), or a parameter such as
        ``n_estimators`` (the model goes on with ``warm_start`` or in XGBoost, else is fitted anew). ``auto`` takes
        the number of trees or stages of an ensemble, else ``partial_fit``, else ``n_samples``.
    min_resources, max_resources : int or "auto"
        Of a trial. ``auto``: all rows, or the estimator's own value of the parameter; and a ``factor**3``-th of it.
    factor : float
    mode : {"promotion", "stopping"}
        ``stopping``: a trial goes on at once or never; no paused model is kept.
    scoring : str, callable or None
        A single metric.
    refit : bool
        Whether to train the best parameters with ``max_resources`` on all rows.
    cv, error_score, return_train_score, random_state, verbose
        As in scikit-learn.
"""
    + OWN_PARAMETERS
    + """
    Attributes
    ----------
    cv_results_ : dict
        One row per trial with the scores of its highest rung; ``n_resources``, ``rung``, ``bracket``.
        ``rank_test_score`` compares scores whatever the rung; the best trial is the best of the highest rung.
    history_ : list of dict
        Each rung of each trial in the order of its end: trial, bracket, rung, resource, score, seconds, elapsed.
    """
)


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
        self._grows = grows
        coordinator = Coordinator(
            runner, work, Halving(ladders, mode), self._sampler(work, runner.log, ladders), grows, self._judged()
        )
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
        routed = self._get_routed_params_for_fit(params)
        index = self.best_index_
        resource = int(self.cv_results_["n_resources"][index])
        grows: Fidelity = self._grows
        model = clone(self.estimator).set_params(**clone(self.best_params_, safe=False))
        began = time.time()
        classes = np.unique(y) if is_classifier(model) and y is not None else None
        kind = grows if grows.kind in ("partial_fit", "xgboost") else Fidelity("whole")
        self.best_estimator_ = kind.train(model, X, y, 0, resource, routed.estimator.fit, classes)
        self.refit_time_ = time.time() - began
        if hasattr(self.best_estimator_, "feature_names_in_"):
            self.feature_names_in_ = self.best_estimator_.feature_names_in_

    @staticmethod
    def _select_best_index(refit: Any, refit_metric: str, results: Mapping[str, Any]) -> int:
        """Return the best of the trials that came furthest."""
        rungs = np.asarray(results["n_resources"])
        scores = np.where(rungs == rungs.max(), results[f"mean_test_{refit_metric}"], -np.inf)
        return int(np.argmax(np.where(np.isnan(scores), -np.inf, scores))) if np.isfinite(scores).any() else 0


class Drawn:
    """Parameters drawn once, by trial number; those of an earlier run under ``out=`` come first."""

    def __init__(self, space: Any, trials: int, state: Any, log: FitLog | None, search: str) -> None:
        self.log = log
        self.raw: dict[int, Any] = {}
        if log is not None:
            log.asked(search)
        space = read(space)
        if is_yaml(space):
            seed = state if isinstance(state, (int, np.integer)) else check_random_state(state).randint(2**31)
            self.settings = draw_trials(space, trials, int(seed))
        else:
            self.settings = list(ParameterSampler(space, trials, random_state=state))

    def ask(self, trial: int) -> dict[str, Any] | None:
        known = None if self.log is None else self.log.params_of(trial)
        if known is not None:
            return known
        return self.settings[trial] if trial < len(self.settings) else None

    def report(self, trial: int, resource: int, scores: Any) -> None: ...

    def end(self, trial: int, resource: int, scores: Any, stopped: bool) -> None: ...

    def keep(self, log: FitLog) -> None: ...


def checked_number(name: str, parameter: str, value: Any, least: float) -> None:
    """Refuse what is no number of at least so much.

    Raises
    ------
    UsageError
    """
    if isinstance(value, bool) or not isinstance(value, (int, float, np.number)) or not value >= least:
        raise UsageError(f"{name}: {parameter} is {value!r}; give a number of at least {least:g}")


class AshaSearchCV(Adaptive):
    __doc__ = (
        "Asynchronous successive halving over drawn parameters (Li et al., MLSys 2020).\n"
        + _ABOUT.replace("N_TRIALS", "    n_trials : int\n        Trials that start.\n")
    )  # fmt: skip

    _parameter_constraints: ClassVar[dict[str, Any]] = _compat.constraints(
        BaseSearchCV, (*OWN, *_ADAPTIVE, "param_distributions")
    )

    def __init__(
        self,
        estimator: Any,
        param_distributions: Any,
        *,
        n_trials: int = 64,
        resource: str = "auto",
        min_resources: int | str = "auto",
        max_resources: int | str = "auto",
        factor: float = 3,
        mode: Mode = "promotion",
        scoring: Any = None,
        refit: bool = True,
        cv: Any = None,
        verbose: int = 0,
        random_state: Any = None,
        error_score: Any = np.nan,
        return_train_score: bool = False,
        client: Any | None = None,
        out: str | os.PathLike[str] | None = None,
        resources: Mapping[str, float] | None = None,
        time_budget: float | None = None,
        trial_timeout: float | None = None,
    ) -> None:
        super().__init__(
            estimator,
            scoring=scoring,
            refit=refit,
            cv=cv,
            verbose=verbose,
            error_score=error_score,
            return_train_score=return_train_score,
        )
        self.param_distributions = param_distributions
        self.n_trials = n_trials
        self.resource = resource
        self.min_resources = min_resources
        self.max_resources = max_resources
        self.factor = factor
        self.mode = mode
        self.random_state = random_state
        self.client = client
        self.out = out
        self.resources = resources
        self.time_budget = time_budget
        self.trial_timeout = trial_timeout

    def _check_own(self) -> None:
        super()._check_own()
        name = type(self).__name__
        checked_number(name, "n_trials", self.n_trials, 1)
        check_halving(self)

    def _ladders(self, least: int, largest: int) -> list[Ladder]:
        return one_ladder(int(self.n_trials), least, largest, float(self.factor))

    def _plan(self, work: Round) -> tuple[Fidelity, list[Ladder], Mode]:
        kind, least, largest = resources_of(self, work)
        return kind, self._ladders(least, largest), self.mode

    def _sampler(self, work: Round, log: FitLog | None, ladders: Sequence[Ladder]) -> Sampler:
        trials = sum(ladder.trials for ladder in ladders)
        search = "" if log is None else log.head(work, type(self).__name__, self.param_distributions, self.random_state)
        return Drawn(self.param_distributions, trials, self.random_state, log, search)


class HyperbandSearchCV(AshaSearchCV):
    __doc__ = (
        "Hyperband (Li et al., JMLR 2018): several asynchronous halvings that start with more and more resource.\n"
        + _ABOUT.replace("N_TRIALS", "")
    )  # fmt: skip

    def __init__(
        self,
        estimator: Any,
        param_distributions: Any,
        *,
        resource: str = "auto",
        min_resources: int | str = "auto",
        max_resources: int | str = "auto",
        factor: float = 3,
        mode: Mode = "promotion",
        scoring: Any = None,
        refit: bool = True,
        cv: Any = None,
        verbose: int = 0,
        random_state: Any = None,
        error_score: Any = np.nan,
        return_train_score: bool = False,
        client: Any | None = None,
        out: str | os.PathLike[str] | None = None,
        resources: Mapping[str, float] | None = None,
        time_budget: float | None = None,
        trial_timeout: float | None = None,
    ) -> None:
        super().__init__(
            estimator,
            param_distributions,
            resource=resource,
            min_resources=min_resources,
            max_resources=max_resources,
            factor=factor,
            mode=mode,
            scoring=scoring,
            refit=refit,
            cv=cv,
            verbose=verbose,
            random_state=random_state,
            error_score=error_score,
            return_train_score=return_train_score,
            client=client,
            out=out,
            resources=resources,
            time_budget=time_budget,
            trial_timeout=trial_timeout,
        )

    def _ladders(self, least: int, largest: int) -> list[Ladder]:
        return brackets(least, largest, float(self.factor))


def check_halving(search: Any) -> None:
    """Check what all searches with rungs take.

    Raises
    ------
    UsageError
    """
    name = type(search).__name__
    checked_number(name, "factor", search.factor, 1)
    if search.factor == 1:
        raise UsageError(f"{name}: factor is 1, which stops nobody; give 2, 3 or 4")
    if search.mode not in ("promotion", "stopping"):
        raise UsageError(f"{name}: mode is {search.mode!r}; give 'promotion' or 'stopping'")
    if not (search.scoring is None or isinstance(search.scoring, str) or callable(search.scoring)):
        raise UsageError(f"{name}: scoring must be a single metric to decide by: a name or a callable")
    if not isinstance(search.resource, str):
        raise UsageError(f"{name}: resource is {search.resource!r}; give 'n_samples', 'partial_fit' or a parameter")
    fidelity(search.estimator, search.resource)


def resources_of(search: Any, work: Round) -> tuple[Fidelity, int, int]:
    """Return what grows, the least and the most of it.

    Raises
    ------
    UsageError
        When the numbers cannot be, or the resource is searched over itself.
    """
    kind = fidelity(search.estimator, search.resource)
    rows = min(len(np.flatnonzero(train) if np.asarray(train).dtype == bool else train) for train, _ in work.splits)
    largest = most(kind, search.estimator, rows, search.max_resources)
    least = search.min_resources
    if least == "auto":
        least = max(1, round(largest / search.factor**3))
        if kind.kind == "n_samples":
            least = min(largest, max(least, 20))
    if not isinstance(least, (int, np.integer)) or not 1 <= least <= largest:
        raise UsageError(f"{type(search).__name__}: min_resources is {least!r}; give a number from 1 to {largest}")
    spaces = getattr(search, "param_distributions", None)
    for space in spaces if isinstance(spaces, list) else [spaces]:
        if kind.parameter and isinstance(space, Mapping) and kind.parameter in space:
            raise UsageError(
                f"{type(search).__name__}: {kind.parameter} is the resource and cannot be searched as well"
            )
    return kind, int(least), largest
