"""``OptunaSearchCV``: any Optuna sampler suggests, the cluster runs, and nobody waits for a round to end.

The study lives in this process, which asks and tells; workers never see it. Two segments per slot are
asked for ahead, so that a slow sampler is hidden behind running fits. With ``pruning`` a trial runs up the
rungs of an asynchronous halving and Optuna learns that it was pruned.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from daskml_scale.errors import UsageError
from daskml_scale.plan.asha import Ladder, Mode, one_ladder

from . import _compat
from ._compat import BaseSearchCV, Round
from .adaptive_base import Adaptive
from .asked import Asked, Constraints
from .base import OWN, OWN_PARAMETERS
from .fidelity import Fidelity
from .log import FitLog
from .resources import check_halving, check_trials, resources_of, trials_of
from .spaces import Suggested, read
from .trial import Sampler, Trial, mean_scores
from .trials import Coordinator

_MORE = (
    "param_distributions", "n_trials", "sampler", "study", "constraints", "pruning", "resource", "min_resources",
    "max_resources", "factor", "random_state",
)  # fmt: skip


class OptunaSearchCV(Adaptive):
    __doc__ = (
        """Search with an Optuna sampler (TPE by default), on a Dask cluster when there is one.

    Parameters
    ----------
    estimator : estimator
    param_distributions : dict, list of dict, str or callable
        Values are lists, Optuna distributions, or scipy's uniform, loguniform and randint; a list of dicts is a choice
        among spaces; a str is the path of a YAML space; a function of an Optuna trial suggests by itself and returns
        the parameters.
    n_trials : int or None
        None: as many as ``time_budget`` lets start.
    sampler : optuna sampler, optional
        ``TPESampler(seed=random_state)`` by default. Not together with ``study``.
    study : optuna.Study, optional
        Its trials are known to the sampler from the start, and it receives the new ones. A direction
        ``minimize`` gets the scores with their sign turned.
    constraints : callable, optional
        Takes a dict with ``params``, ``scores`` and ``resource`` of a trial, returns name -> value; a trial is
        feasible when no value is above 0. The best trial is the best feasible one.
    pruning : bool
        Stop trials early: each runs up rungs of its resource as in `AshaSearchCV` with ``mode="stopping"``.
    resource, min_resources, max_resources, factor
        As in `AshaSearchCV`, for ``pruning``.
    scoring : str, callable, list or dict
        Several metrics are several objectives, all maximised; then ``refit`` names the one that the best trial is
        chosen by, or is False.
    refit : bool or str
    cv, error_score, return_train_score, random_state, verbose
        As in scikit-learn.
"""
        + OWN_PARAMETERS
        + """
    Attributes
    ----------
    study_ : optuna.Study
    pareto_ : ndarray of int
        Rows of ``cv_results_`` that no other row surpasses in all objectives (several objectives only).
    cv_results_ : dict
        One row per trial; ``feasible`` with ``constraints``.
    history_ : list of dict
    """
    )

    _parameter_constraints: ClassVar[dict[str, Any]] = _compat.constraints(BaseSearchCV, (*OWN, *_MORE))

    def __init__(
        self,
        estimator: Any,
        param_distributions: Any,
        *,
        n_trials: int | None = 64,
        sampler: Any = None,
        study: Any = None,
        constraints: Constraints | None = None,
        pruning: bool = False,
        resource: str = "auto",
        min_resources: int | str = "auto",
        max_resources: int | str = "auto",
        factor: float = 3,
        scoring: Any = None,
        refit: bool | str = True,
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
        self.sampler = sampler
        self.study = study
        self.constraints = constraints
        self.pruning = pruning
        self.resource = resource
        self.min_resources = min_resources
        self.max_resources = max_resources
        self.factor = factor
        self.random_state = random_state
        self.client = client
        self.out = out
        self.resources = resources
        self.time_budget = time_budget
        self.trial_timeout = trial_timeout

    @property
    def _several(self) -> bool:
        return isinstance(self.scoring, (list, tuple, set, Mapping))

    def _check_own(self) -> None:
        name = type(self).__name__
        try:
            import optuna  # noqa: F401
        except ImportError:
            raise UsageError(f"{name} needs Optuna: pip install 'daskml-scale[search]'") from None
        super()._check_own()
        check_trials(self)
        if self.study is not None and self.sampler is not None:
            raise UsageError(f"{name}: give sampler or study, not both; a study has a sampler")
        if self.constraints is not None and not callable(self.constraints):
            raise UsageError(f"{name}: constraints is a {type(self.constraints).__name__}; give a callable")
        if self.pruning:
            self.mode: Mode = "stopping"
            check_halving(self)
        if self._several and self.refit is True:
            raise UsageError(f"{name}: with several objectives refit must name the one to choose by, or be False")
        Suggested(read(self.param_distributions))

    def _plan(self, work: Round) -> tuple[Fidelity, list[Ladder], Mode]:
        trials = trials_of(self)
        if not self.pruning:
            return Fidelity("whole"), [Ladder((1,), trials)], "stopping"
        kind, least, largest = resources_of(self, work)
        return kind, one_ladder(trials, least, largest, float(self.factor)), "stopping"

    def _judged(self) -> str:
        if not self._several:
            return ""
        return self.refit if isinstance(self.refit, str) else self._names()[0]

    def _names(self) -> list[str]:
        return _compat.metrics(self) if self._several else [""]

    def _sampler(self, work: Round, log: FitLog | None, ladders: Sequence[Ladder]) -> Sampler:
        import optuna

        names = self._names()
        seed = self.random_state if isinstance(self.random_state, (int, np.integer)) else None
        study = self.study
        if study is None:
            sampler = self.sampler if self.sampler is not None else optuna.samplers.TPESampler(seed=seed)
            before = optuna.logging.get_verbosity()
            optuna.logging.set_verbosity(optuna.logging.WARNING)
            study = optuna.create_study(sampler=sampler, directions=["maximize"] * len(names))
            optuna.logging.set_verbosity(before)
        if len(study.directions) != len(names):
            raise UsageError(f"study has {len(study.directions)} objectives and scoring has {len(names)} metrics")
        self.study_ = study
        asked = Asked(
            study,
            Suggested(read(self.param_distributions)),
            trials_of(self),
            self.constraints,
            self._judged(),
            names,
        )
        if log is not None:
            space = self.param_distributions
            asked.resume(log, log.head(work, type(self).__name__, space, self.random_state, self.pruning))
        return asked

    def _found(self, trials: Sequence[Trial], coordinator: Coordinator) -> None:
        super()._found(trials, coordinator)
        asked = coordinator.sampler
        assert isinstance(asked, Asked)
        self._feasible = np.array([asked.feasible.get(trial.number, True) for trial in trials])
        if self._several:
            scores = np.array([[mean_scores(t.scored)[name] for name in asked.names] for t in trials])
            self.pareto_ = np.flatnonzero(pareto(scores) & self._feasible)

    def _fit(self, runner: Any, X: Any, y: Any, params: dict[str, Any]) -> Any:
        wanted = self.refit
        if self._several or self.constraints is not None:
            self.refit = False
        try:
            super()._fit(runner, X, y, params)
        finally:
            self.refit = wanted
        if self.constraints is not None:
            self.cv_results_["feasible"] = self._feasible
        if (self._several and isinstance(wanted, str)) or (self.constraints is not None and not self._several):
            self._choose(wanted if self._several else "score")
            if wanted:
                self._refit(X, y, params)
        return self

    def _choose(self, metric: Any) -> None:
        """Choose the best feasible trial by a metric, among those that came furthest."""
        results = self.cv_results_
        eligible = self._feasible if self._feasible.any() else np.ones(len(self._feasible), bool)
        reached = np.where(eligible, results["n_resources"], -1)
        scores = np.where(reached == reached.max(), np.nan_to_num(results[f"mean_test_{metric}"], nan=-np.inf), -np.inf)
        self.best_index_ = int(np.argmax(scores))
        self.best_score_ = results[f"mean_test_{metric}"][self.best_index_]
        self.best_params_ = results["params"][self.best_index_]


def pareto(scores: np.ndarray) -> np.ndarray:
    """Return which rows no other row surpasses: at least as high everywhere and higher somewhere.

    Parameters
    ----------
    scores : ndarray, shape (trials, objectives)
        A row with nan is no candidate.
    """
    known = ~np.isnan(scores).any(axis=1)
    found: np.ndarray = known.copy()
    for row in np.flatnonzero(known):
        others = scores[known]
        found[row] = not np.any((others >= scores[row]).all(axis=1) & (others > scores[row]).any(axis=1))
    return found
