"""What all searches have in common: where their fits go, what they keep, how long they may take.

``OnDask`` stands behind scikit-learn's own class and before ``BaseSearchCV`` in the order of bases: the
class runs its own ``fit``, and only the innermost one is ours, which is scikit-learn's code with another
``Parallel`` (see `_compat`). Without a client, and without anything that needs us, nothing is replaced.
"""

from __future__ import annotations

import copy
import os
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from daskml_scale.engine.client import current_client
from daskml_scale.errors import UsageError

from . import plots, report
from ._compat import BaseSearchCV, fit_with, has_callbacks
from .beyond import all_here
from .fits import Runner
from .live import shown
from .log import FitLog, checked
from .prefixes import chain
from .stored import StoredRows, taken
from .told import told

if TYPE_CHECKING:
    import pandas as pd

OWN_PARAMETERS = """    client : distributed.Client, optional
        Where to run; the default client of this process when there is one.
    out : str or path, optional
        URL of a folder in which every finished fit is kept as it comes. The same search again, after a crash or
        with more candidates, makes only the fits that are not there. Fits are known by code, parameters, rows
        and scorer.
    resources : mapping, optional
        Dask resources that each fit needs: ``{"GPU": 1}``.
    time_budget : float, optional
        Seconds after which no more fits are waited for; candidates without all their scores count as nan. A fit that
        runs on a worker then ends there by itself (or by ``trial_timeout``).
    trial_timeout : float, optional
        Seconds that one fit and its scores may take; longer ones fail as if they had raised `TimeoutError`
        (between two steps of Python: a single long compiled call ends first).
"""
SHARED = (
    """
    It is scikit-learn's class of the same name, and takes its parameters and some more. Every
    (candidate, split) is one unit of work on the cluster; tiny fits share tasks, and very small problems
    stay in this process. Candidates of a ``Pipeline`` whose first steps are equal and deterministic share
    these steps. ``cv_results_`` equals scikit-learn's to the bit, the times aside, as long as the estimator's
    result does not depend on the number of BLAS threads or on a global random state.

    * X, y and fit parameters are sent once to each worker process, which keeps one copy.
    * ``n_jobs`` and ``pre_dispatch`` have no effect on a cluster; without one they do what they do in
      scikit-learn, but with ``out``, ``time_budget`` or ``trial_timeout`` fits run one after the other.
    * With ``error_score="raise"`` the first exception of a fit is raised as it is, at once; no fit that raised
      runs again. A fit whose worker died three times (of its memory, say) counts as failed.
    * ``verbose`` above 1 prints on the workers, and warnings of fits are shown in their logs.
    * ``fit_time`` includes the time of shared steps.
    * Copies and pickles of a search leave the client out.

    Parameters
    ----------
"""
    + OWN_PARAMETERS
)
OWN = ("client", "out", "resources", "time_budget", "trial_timeout")
"""Parameters that our searches have beside scikit-learn's."""


class OnDask(BaseSearchCV):  # type: ignore[misc]
    """Base of our searches, last among their bases."""

    client: Any
    out: Any
    resources: Mapping[str, float] | None
    time_budget: float | None
    trial_timeout: float | None
    _many_rounds = False
    _runner: Runner | None = None

    def fit(self, X: Any, y: Any = None, **params: Any) -> Any:
        """Run fit with all sets of parameters, as ``fit`` of scikit-learn's class does.

        Parameters
        ----------
        X : array-like, sparse matrix, DataFrame or list of shape (n_samples, ...)
            Or a lazy array of a dataset in a store, which workers read themselves, split by split; other Dask arrays
            are computed.
        y : array-like of shape (n_samples,) or (n_samples, n_outputs), optional
        **params
            Passed to ``fit`` of the estimator, the scorer and the splitter (``sample_weight``, ``groups``).

        Returns
        -------
        self

        Raises
        ------
        UsageError
            When an argument of ours is wrong, or scikit-learn callbacks are set and workers are on other machines.
        ConflictError
            When another process writes to ``out``.
        Exception
            What a fit raised, under ``error_score="raise"``.
        """
        self._check_own()
        X, y = taken(X, y)
        client = self.client if self.client is not None else _default_client()
        if client is None and not self._needs_us(X) and not self._asks_for_more():
            return super().fit(X, y, **params)
        if client is not None and has_callbacks(self) and not all_here(client):
            raise UsageError(
                f"{type(self).__name__}: scikit-learn callbacks reach fits of other processes, but not of other "
                "machines; call set_callbacks() without arguments, or fit without a client"
            )
        name = type(self).__name__
        log = None if self.out is None else FitLog(self.out, name)
        runner = Runner(
            name, client, self.resources, self.time_budget, self.trial_timeout, log, rounds=self._many_rounds,
            judged=self.refit if isinstance(self.refit, str) else "",
        )  # fmt: skip
        self._runner = runner
        try:
            verbose = self.verbose > 0
            with told(name, client, here=not verbose) as page, shown(name, verbose) as runner.live:
                runner.live.told = page
                return self._fit(runner, X, y, params)
        finally:
            self._runner = None
            runner.close()
            if log is not None:
                log.close()

    def _fit(self, runner: Runner, X: Any, y: Any, params: dict[str, Any]) -> Any:
        return fit_with(runner)(self, X, y, **params)

    def _asks_for_more(self) -> bool:
        return not (self.out is None and self.time_budget is None and self.trial_timeout is None)

    def _needs_us(self, X: Any) -> bool:
        """Whether fits in this process share work, and nobody asked for joblib."""
        from joblib import effective_n_jobs

        if isinstance(X, StoredRows):
            return True
        if has_callbacks(self):
            return False
        if self.n_jobs not in (None, 1) or effective_n_jobs(self.n_jobs) != 1:
            return False
        try:
            return bool(chain(self.estimator, {}, tuple(getattr(X, "shape", ()))))
        except Exception:
            return False

    def _check_own(self) -> None:
        name = type(self).__name__
        if self.out is not None:
            checked(self.out)
        for parameter in ("time_budget", "trial_timeout"):
            value = getattr(self, parameter)
            if value is not None and not (isinstance(value, (int, float)) and value > 0):
                raise UsageError(f"{name}: {parameter} is {value!r}; give a positive number of seconds")
        if self.client is not None and not (hasattr(self.client, "submit") and hasattr(self.client, "scheduler_info")):
            raise UsageError(f"{name}: client is a {type(self.client).__name__}; give a distributed Client")
        wanted = self.resources
        if wanted is not None and not (
            isinstance(wanted, Mapping) and all(isinstance(v, (int, float)) and v > 0 for v in wanted.values())
        ):
            raise UsageError(f"{name}: resources is {wanted!r}; give amounts by name, such as {{'GPU': 1}}")

    def results(self) -> pd.DataFrame:
        """Return the trials, best first: rank and scores, how far each came, parameters, times."""
        return report.results(self)

    def plot_history(self, to: str | os.PathLike[str] | None = None) -> Any:
        """Return a Bokeh figure of the scores in the order of the trials' ends; ``to`` keeps it as .html or .png."""
        return plots.history(self, to)

    def plot_rungs(self, to: str | os.PathLike[str] | None = None) -> Any:
        """Return a Bokeh figure of each trial's score over its resource (searches with rungs)."""
        return plots.rungs(self, to)

    def plot_importance(self, to: str | os.PathLike[str] | None = None) -> Any:
        """Return a Bokeh figure of how much of the scores' variation each parameter explains."""
        return plots.importances(self, to)

    def _repr_mimebundle_(self, **more: Any) -> dict[str, str]:
        found: dict[str, str] = super()._repr_mimebundle_(**more)
        if "text/html" in found and hasattr(self, "cv_results_"):
            found["text/html"] += report.table_html(self)
        return found

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "client": None, "_runner": None}

    def __sklearn_clone__(self) -> Any:
        # clone() deep-copies parameters; a client is a connection and stays the same object.
        plain = copy.copy(self)
        cloned = super(OnDask, plain).__sklearn_clone__()
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
