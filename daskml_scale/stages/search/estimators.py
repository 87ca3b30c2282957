"""scikit-learn's four searches with their fits as units: on a cluster, logged under ``out=``, sharing work.

All derive from scikit-learn's classes, so everything but ``BaseSearchCV.fit`` is inherited (see `base`).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import numpy as np
from sklearn import model_selection

from . import _compat
from .base import OWN, SHARED, OnDask
from .fits import TimeIsUpError


class _Rounds:
    """What both Halving searches add: their rounds share the data, and end when the time is spent."""

    _many_rounds = True

    def _run_search(self, evaluate_candidates: Callable[..., Any], *, callback_ctx: Any = None) -> None:
        def evaluate(*args: Any, **more: Any) -> Any:
            found = evaluate_candidates(*args, **more)
            if self._runner is not None and self._runner.spent:  # type: ignore[attr-defined]
                raise TimeIsUpError
            return found

        more = {} if callback_ctx is None else {"callback_ctx": callback_ctx}
        try:
            super()._run_search(evaluate, **more)  # type: ignore[misc]
        except TimeIsUpError:
            self.n_iterations_ = len(self.n_resources_)  # type: ignore[attr-defined]
            self.n_remaining_candidates_ = self.n_candidates_[-1]  # type: ignore[attr-defined]


class GridSearchCV(model_selection.GridSearchCV, OnDask):  # type: ignore[misc]
    __doc__ = "Exhaustive search over parameter values, on a Dask cluster when there is one.\n" + SHARED

    _parameter_constraints: ClassVar[dict[str, Any]] = _compat.constraints(model_selection.GridSearchCV, OWN)

    def __init__(
        self,
        estimator: Any,
        param_grid: Any,
        *,
        scoring: Any = None,
        n_jobs: int | None = None,
        refit: bool | str | Callable[..., int] = True,
        cv: Any = None,
        verbose: int = 0,
        pre_dispatch: int | str = "2*n_jobs",
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
            param_grid,
            scoring=scoring,
            n_jobs=n_jobs,
            refit=refit,
            cv=cv,
            verbose=verbose,
            pre_dispatch=pre_dispatch,
            error_score=error_score,
            return_train_score=return_train_score,
        )
        self.client = client
        self.out = out
        self.resources = resources
        self.time_budget = time_budget
        self.trial_timeout = trial_timeout


class RandomizedSearchCV(model_selection.RandomizedSearchCV, OnDask):  # type: ignore[misc]
    __doc__ = "Search over drawn parameter values, on a Dask cluster when there is one.\n" + SHARED

    _parameter_constraints: ClassVar[dict[str, Any]] = _compat.constraints(model_selection.RandomizedSearchCV, OWN)

    def __init__(
        self,
        estimator: Any,
        param_distributions: Any,
        *,
        n_iter: int = 10,
        scoring: Any = None,
        n_jobs: int | None = None,
        refit: bool | str | Callable[..., int] = True,
        cv: Any = None,
        verbose: int = 0,
        pre_dispatch: int | str = "2*n_jobs",
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
            n_iter=n_iter,
            scoring=scoring,
            n_jobs=n_jobs,
            refit=refit,
            cv=cv,
            verbose=verbose,
            pre_dispatch=pre_dispatch,
            random_state=random_state,
            error_score=error_score,
            return_train_score=return_train_score,
        )
        self.client = client
        self.out = out
        self.resources = resources
        self.time_budget = time_budget
        self.trial_timeout = trial_timeout


class HalvingGridSearchCV(_Rounds, _compat.HalvingGridSearchCV, OnDask):  # type: ignore[misc]
    __doc__ = "Successive halving over a grid, on a Dask cluster when there is one.\n" + SHARED

    _parameter_constraints: ClassVar[dict[str, Any]] = _compat.constraints(_compat.HalvingGridSearchCV, OWN)

    def __init__(
        self,
        estimator: Any,
        param_grid: Any,
        *,
        factor: float = 3,
        resource: str = "n_samples",
        max_resources: int | str = "auto",
        min_resources: int | str = "exhaust",
        aggressive_elimination: bool = False,
        cv: Any = 5,
        scoring: Any = None,
        refit: bool | Callable[..., int] = True,
        error_score: Any = np.nan,
        return_train_score: bool = True,
        random_state: Any = None,
        n_jobs: int | None = None,
        verbose: int = 0,
        client: Any | None = None,
        out: str | os.PathLike[str] | None = None,
        resources: Mapping[str, float] | None = None,
        time_budget: float | None = None,
        trial_timeout: float | None = None,
    ) -> None:
        super().__init__(
            estimator,
            param_grid,
            factor=factor,
            resource=resource,
            max_resources=max_resources,
            min_resources=min_resources,
            aggressive_elimination=aggressive_elimination,
            cv=cv,
            scoring=scoring,
            refit=refit,
            error_score=error_score,
            return_train_score=return_train_score,
            random_state=random_state,
            n_jobs=n_jobs,
            verbose=verbose,
        )
        self.client = client
        self.out = out
        self.resources = resources
        self.time_budget = time_budget
        self.trial_timeout = trial_timeout


class HalvingRandomSearchCV(_Rounds, _compat.HalvingRandomSearchCV, OnDask):  # type: ignore[misc]
    __doc__ = "Successive halving over drawn parameter values, on a Dask cluster when there is one.\n" + SHARED

    _parameter_constraints: ClassVar[dict[str, Any]] = _compat.constraints(_compat.HalvingRandomSearchCV, OWN)

    def __init__(
        self,
        estimator: Any,
        param_distributions: Any,
        *,
        n_candidates: int | str = "exhaust",
        factor: float = 3,
        resource: str = "n_samples",
        max_resources: int | str = "auto",
        min_resources: int | str = "smallest",
        aggressive_elimination: bool = False,
        cv: Any = 5,
        scoring: Any = None,
        refit: bool | Callable[..., int] = True,
        error_score: Any = np.nan,
        return_train_score: bool = True,
        random_state: Any = None,
        n_jobs: int | None = None,
        verbose: int = 0,
        client: Any | None = None,
        out: str | os.PathLike[str] | None = None,
        resources: Mapping[str, float] | None = None,
        time_budget: float | None = None,
        trial_timeout: float | None = None,
    ) -> None:
        super().__init__(
            estimator,
            param_distributions,
            n_candidates=n_candidates,
            factor=factor,
            resource=resource,
            max_resources=max_resources,
            min_resources=min_resources,
            aggressive_elimination=aggressive_elimination,
            cv=cv,
            scoring=scoring,
            refit=refit,
            error_score=error_score,
            return_train_score=return_train_score,
            random_state=random_state,
            n_jobs=n_jobs,
            verbose=verbose,
        )
        self.client = client
        self.out = out
        self.resources = resources
        self.time_budget = time_budget
        self.trial_timeout = trial_timeout
