"""``GridSearchCV`` and ``RandomizedSearchCV``: scikit-learn's own, with their fits on a Dask cluster.

Both derive from scikit-learn's classes, so everything but ``fit`` is inherited, and ``fit`` runs
scikit-learn's code with another ``Parallel`` (see ``_compat``). Without a cluster nothing is replaced.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
from sklearn import model_selection

from daskml_scale.engine.client import current_client
from daskml_scale.errors import UsageError

from ._compat import constraints, fit_with, has_callbacks
from .fits import run_on

_SHARED = """
    It is scikit-learn's class of the same name, and takes its parameters and one more. Every
    (candidate, split) is one unit of work on the cluster; tiny fits share tasks. ``cv_results_``
    equals scikit-learn's to the bit, the times aside, as long as the estimator's result does not
    depend on the number of BLAS threads or on a global random state.

    * X, y and fit parameters are sent once to each worker process, which keeps one copy.
    * ``n_jobs`` and ``pre_dispatch`` have no effect on a cluster; without one they do what they do
      in scikit-learn, whose ``fit`` then runs unchanged. So it does inside a Dask task, unless
      ``client`` is given.
    * With ``error_score="raise"`` the first exception of a fit is raised as it is, at once; no fit
      that raised runs again. A fit whose worker died three times counts as failed.
    * ``verbose`` above 1 prints on the workers, and warnings of fits are shown in their logs.
    * Copies and pickles of a search leave the client out.

    Parameters
    ----------
    client : distributed.Client, optional
        Where to run; the default client of this process when there is one.
"""


class _OnDask:
    """What both searches add to scikit-learn's: the client, and where the fits go."""

    client: Any

    def fit(self, X: Any, y: Any = None, **params: Any) -> Any:
        """Run fit with all sets of parameters, as ``fit`` of scikit-learn's class does.

        Parameters
        ----------
        X : array-like, sparse matrix, DataFrame or list of shape (n_samples, ...)
        y : array-like of shape (n_samples,) or (n_samples, n_outputs), optional
        **params
            Passed to ``fit`` of the estimator, the scorer and the splitter (``sample_weight``, ``groups``).

        Returns
        -------
        self

        Raises
        ------
        UsageError
            When scikit-learn callbacks are set: they cannot follow the fits to a cluster.
        Exception
            What a fit raised, under ``error_score="raise"``.
        """
        client = self.client if self.client is not None else _default_client()
        if client is None:
            return super().fit(X, y, **params)  # type: ignore[misc]
        if has_callbacks(self):
            raise UsageError(
                f"{type(self).__name__}: scikit-learn callbacks do not reach fits on a cluster; "
                "call set_callbacks() without arguments, or fit without a client"
            )
        name = type(self).__name__
        return fit_with(lambda calls: run_on(client, calls, name))(self, X, y, **params)

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "client": None}  # type: ignore[dict-item]

    def __sklearn_clone__(self) -> Any:
        # clone() deep-copies parameters; a client is a connection and stays the same object.
        plain = copy.copy(self)
        cloned = super(_OnDask, plain).__sklearn_clone__()  # type: ignore[misc]
        cloned.client = self.client
        return cloned


def _default_client() -> Any | None:
    """Return the default client, but none inside a task: waiting there for tasks could wait for ever."""
    if "distributed" in sys.modules:
        from distributed import get_worker

        try:
            get_worker()
        except ValueError:
            return current_client()
    return None


class GridSearchCV(_OnDask, model_selection.GridSearchCV):  # type: ignore[misc]
    __doc__ = "Exhaustive search over parameter values, on a Dask cluster when there is one.\n" + _SHARED

    _parameter_constraints: ClassVar[dict[str, Any]] = constraints(model_selection.GridSearchCV)

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


class RandomizedSearchCV(_OnDask, model_selection.RandomizedSearchCV):  # type: ignore[misc]
    __doc__ = "Search over drawn parameter values, on a Dask cluster when there is one.\n" + _SHARED

    _parameter_constraints: ClassVar[dict[str, Any]] = constraints(model_selection.RandomizedSearchCV)

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
