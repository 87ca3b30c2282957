"""``AshaSearchCV`` and ``HyperbandSearchCV``: searches that stop bad trials early, without waiting for anyone.

Here are their parameters, their rungs and how their trials are drawn; how they run is in `adaptive_base`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from daskml_scale.plan.asha import Ladder, Mode, brackets, one_ladder

from . import _compat
from ._compat import BaseSearchCV, Round
from .adaptive_base import Adaptive
from .base import OWN, OWN_PARAMETERS
from .fidelity import Fidelity
from .log import FitLog
from .resources import check_halving, check_trials, resources_of, trials_of
from .spaces import drawn
from .trial import Sampler

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
        Lists and scipy distributions, as for ``RandomizedSearchCV``, and Optuna's; or a YAML space (a path, or its
        values such as ``{"loguniform": [0.01, 10], "when": {"kernel": ["rbf"]}}``).
N_TRIALS    resource : str
        ``n_samples`` (rows), ``partial_fit`` (passes over the rows; the model goes on), ``chunks`` (stored chunks of
        X, given to ``partial_fit`` one after the other; X may exceed a worker's memory), or a parameter such as
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


class Drawn:
    """Parameters drawn once, by trial number; those of an earlier run under ``out=`` come first."""

    learns = False

    def __init__(self, space: Any, trials: int, state: Any, log: FitLog | None, search: str) -> None:
        self.log = log
        self.raw: dict[int, Any] = {}
        if log is not None:
            log.asked(search)
        self.settings: list[dict[str, Any]] = []
        self._drawn = drawn(space, trials, state)

    def ask(self, trial: int) -> dict[str, Any] | None:
        known = None if self.log is None else self.log.params_of(trial)
        if known is not None:
            return known
        while len(self.settings) <= trial and (settings := next(self._drawn, None)) is not None:
            self.settings.append(settings)
        return self.settings[trial] if trial < len(self.settings) else None

    def report(self, trial: int, resource: int, scores: Any) -> None: ...

    def end(self, trial: int, resource: int, scores: Any, stopped: bool) -> None: ...

    def state(self) -> bytes | None:
        return None


class AshaSearchCV(Adaptive):
    __doc__ = (
        "Asynchronous successive halving over drawn parameters (Li et al., MLSys 2020).\n"
        + _ABOUT.replace(
            "N_TRIALS",
            "    n_trials : int or None\n"
            "        Trials that start. None: as many as ``time_budget`` lets start; no slot waits for the slowest\n"
            "        trials of the last rungs.\n",
        )
    )  # fmt: skip

    _parameter_constraints: ClassVar[dict[str, Any]] = _compat.constraints(
        BaseSearchCV, (*OWN, *_ADAPTIVE, "param_distributions")
    )

    def __init__(
        self,
        estimator: Any,
        param_distributions: Any,
        *,
        n_trials: int | None = 64,
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
        check_trials(self)
        check_halving(self)

    def _ladders(self, least: int, largest: int) -> list[Ladder]:
        return one_ladder(trials_of(self), least, largest, float(self.factor))

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
