"""The only module that touches scikit-learn's private parts (1.8 and 1.9; ``tests/search`` holds the contract).

``BaseSearchCV.fit`` is scikit-learn's own code here, statement for statement: validation, routing,
splitting, ranking, refit and callbacks stay exact in every version. Only the name ``Parallel`` that it
looks up is replaced, so that its (candidate, split) calls go wherever the caller sends them.
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from types import FunctionType
from typing import Any, TypeAlias

import numpy as np
import sklearn
from sklearn.base import _fit_context, clone
from sklearn.model_selection._search import BaseSearchCV
from sklearn.model_selection._validation import _fit_and_score
from sklearn.utils.parallel import _FuncWrapper

from daskml_scale.errors import DaskMLError

Scored: TypeAlias = dict[str, Any]
"""What ``_fit_and_score`` returns: test_scores, train_scores, n_test_samples, fit_time, score_time, fit_error."""
Call: TypeAlias = tuple[Callable[..., Scored], tuple[Any, ...], dict[str, Any]]
"""(function, (estimator, X, y), keywords) as scikit-learn hands them to its ``Parallel``."""
_OF_CALL = ("train", "test", "parameters", "split_progress", "candidate_progress", "caller", "callback_ctx")
"""Keywords that differ between the calls of one round, or that workers have no use for."""


def fit_with(run: Callable[[list[Call]], list[Scored]]) -> Callable[..., Any]:
    """Return ``BaseSearchCV.fit`` as a function (search, X, y, **params) whose fits and scores are made by ``run``.

    Parameters
    ----------
    run : callable
        Takes the calls of one round, candidate by candidate; returns their results in the same order.

    Raises
    ------
    DaskMLError
        When this version of scikit-learn is built differently.
    """
    body = inspect.unwrap(BaseSearchCV.fit)
    if "Parallel" not in body.__code__.co_names:
        raise DaskMLError(f"scikit-learn {sklearn.__version__} is not supported here; install scikit-learn>=1.8,<1.10")

    class Parallel:
        def __init__(self, **options: Any) -> None: ...

        def __enter__(self) -> Parallel:
            return self

        def __exit__(self, *error: object) -> None: ...

        def __call__(self, calls: Iterable[Call]) -> list[Scored]:
            return run(list(calls))

    names = {**body.__globals__, "Parallel": Parallel}
    fit = FunctionType(body.__code__, names, "fit", body.__defaults__, body.__closure__)
    return _fit_context(prefer_skip_nested_validation=False)(fit)  # type: ignore[no-any-return]


@dataclass(frozen=True, slots=True)
class Round:
    """One round of a search as it is sent to the workers: everything that its calls share, once.

    Attributes
    ----------
    estimator : object
        Unfitted; cloned for each fit.
    candidates : sequence of dict
        Parameters by candidate number.
    splits : sequence of (train, test)
        Row numbers, by split number.
    options : dict
        The other keywords of ``_fit_and_score``: scorer, fit and score parameters, error_score, verbose.
    config, filters :
        scikit-learn's configuration and the warning filters of the caller, which the fits see too.
    """

    estimator: Any
    X: Any
    y: Any
    candidates: Sequence[dict[str, Any]]
    splits: Sequence[tuple[Any, Any]]
    options: dict[str, Any]
    config: dict[str, Any]
    filters: Sequence[Any]

    def fit_and_score(self, candidate: int, split: int) -> Scored:
        """Make one fit and its scores, exactly as scikit-learn's ``Parallel`` would."""
        train, test = self.splits[split]
        call = _FuncWrapper(_fit_and_score).with_config_and_warning_filters(self.config, self.filters)
        result: Scored = call(
            clone(self.estimator),
            self.X,
            self.y,
            train=train,
            test=test,
            parameters=self.candidates[candidate],
            split_progress=(split, len(self.splits)),
            candidate_progress=(candidate, len(self.candidates)),
            **self.options,
        )
        return result

    def lost(self, split: int, reason: str) -> Scored:
        """Return what a fit is worth whose worker died: ``error_score``, as for a fit that raised."""
        score: Any = self.options["error_score"]
        scorer = self.options["scorer"]
        scores = dict.fromkeys(scorer._scorers, score) if hasattr(scorer, "_scorers") else score
        result = {"fit_error": reason, "test_scores": scores, "fit_time": 0.0, "score_time": 0.0}
        if self.options["return_train_score"]:
            result["train_scores"] = dict(scores) if isinstance(scores, dict) else scores
        return {**result, "n_test_samples": len(np.asarray(self.splits[split][1]))}


def gather(calls: Sequence[Call]) -> Round:
    """Return the round that calls make up, candidate by candidate, each over the same splits."""
    _, (estimator, X, y), first = calls[0]
    n_splits: int = first["split_progress"][1]
    filters = getattr(warnings, "_get_filters", lambda: warnings.filters)()
    return Round(
        estimator=estimator,
        X=X,
        y=y,
        candidates=[keywords["parameters"] for _, _, keywords in calls[::n_splits]],
        splits=[(keywords["train"], keywords["test"]) for _, _, keywords in calls[:n_splits]],
        options={name: value for name, value in first.items() if name not in _OF_CALL},
        config=sklearn.get_config(),
        filters=list(filters),
    )


def has_callbacks(search: Any) -> bool:
    """Return whether scikit-learn callbacks (1.9) are set on a search, or handed down by what it is part of."""
    return bool(getattr(search, "_skl_callbacks", None))


def constraints(search_class: type[Any]) -> dict[str, Any]:
    """Return the parameter constraints of a search with a ``client`` more, which is whatever the caller says."""
    return {**search_class._parameter_constraints, "client": "no_validation"}
