"""The module that touches scikit-learn's private parts, with `bins` (1.8 and 1.9; ``tests/search`` holds the contract).

``BaseSearchCV.fit`` is scikit-learn's own code here, statement for statement: validation, routing,
splitting, ranking, refit and callbacks stay exact in every version. Only the name ``Parallel`` that it
looks up is replaced, so that its (candidate, split) calls go wherever the caller sends them.
"""

from __future__ import annotations

import inspect
import time
import traceback
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import FunctionType
from typing import Any, TypeAlias

import joblib
import numpy as np
import sklearn
from sklearn.base import _fit_context, clone, is_classifier
from sklearn.experimental import enable_halving_search_cv  # noqa: F401  # the two Halving searches hide behind it
from sklearn.model_selection import _search_successive_halving as halving
from sklearn.model_selection._search import BaseSearchCV as BaseSearchCV
from sklearn.model_selection._validation import _fit_and_score, _score
from sklearn.utils import _safe_indexing
from sklearn.utils.metaestimators import _safe_split
from sklearn.utils.parallel import _FuncWrapper
from sklearn.utils.validation import _check_method_params

from daskml_scale.errors import DaskMLError

from .chunks import View, by_chunk, in_blocks, numbers_of

Scored: TypeAlias = dict[str, Any]
"""What ``_fit_and_score`` returns: test_scores, train_scores, n_test_samples, fit_time, score_time, fit_error."""
Call: TypeAlias = tuple[Callable[..., Scored], tuple[Any, ...], dict[str, Any]]
"""(function, (estimator, X, y), keywords) as scikit-learn hands them to its ``Parallel``."""
LOST = ("WorkerLost", "PoisonedUnit")
"""How the error of a fit starts that its workers died of."""
HalvingGridSearchCV, HalvingRandomSearchCV = halving.HalvingGridSearchCV, halving.HalvingRandomSearchCV
Note: TypeAlias = Callable[[Any], None]
"""Receives the rows that a fit is given: first those to train on, then those to score on."""
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
    caller, contexts :
        The search and the context of each call, where scikit-learn callbacks follow the fits.
    """

    estimator: Any
    X: Any
    y: Any
    candidates: Sequence[dict[str, Any]]
    splits: Sequence[tuple[Any, Any]]
    options: dict[str, Any]
    config: dict[str, Any]
    filters: Sequence[Any]
    caller: Any = None
    contexts: Sequence[Any] = ()

    def fit_and_score(
        self, candidate: int, split: int, *, prepare: Callable[[Any], None] | None = None, note: Note | None = None
    ) -> Scored:
        """Make one fit and its scores, exactly as scikit-learn's ``Parallel`` would.

        Parameters
        ----------
        prepare : callable, optional
            Called with the clone of the estimator before it gets its parameters.
        note : callable, optional
        """
        train, test = self.splits[split]
        estimator = clone(self.estimator)
        if prepare is not None:
            prepare(estimator)
        function = _fit_and_score if note is None else _noting(note)
        call = _FuncWrapper(function).with_config_and_warning_filters(self.config, self.filters)
        result: Scored = call(
            estimator, self.X, self.y, train=train, test=test, parameters=self.candidates[candidate],
            split_progress=(split, len(self.splits)), candidate_progress=(candidate, len(self.candidates)),
            **self.options, **self._told(candidate * len(self.splits) + split),
        )  # fmt: skip
        return result

    def _told(self, call: int) -> dict[str, Any]:
        return {"caller": self.caller, "callback_ctx": self.contexts[call]} if self.contexts else {}

    def segment(
        self,
        params: dict[str, Any],
        split: int,
        train: Callable[..., Any],
        *,
        rows: Any = None,
        model: Any = None,
        prepare: Callable[[Any], None] | None = None,
        note: Note | None = None,
        parts: Sequence[np.ndarray] | None = None,
    ) -> tuple[Scored, Any]:
        """Train a model further and score it; what its training raises counts as in `fit_and_score`.

        Parameters
        ----------
        train : callable (model, X, y, fit parameters, classes) -> model
        rows : array of int, optional
            Train on these instead of all rows of the split.
        model : object, optional
            Goes on from here; by default a clone of the estimator with ``params``.
        parts : sequence of array of int, optional
            Train on these rows of a stored X instead, given as a `chunks.View`; the rows to score on are one too.
        """
        call = _FuncWrapper(_segment).with_config_and_warning_filters(self.config, self.filters)
        noted = note or (lambda rows: None)
        found: tuple[Scored, Any] = call(self, params, split, train, rows, model, prepare, noted, parts)
        return found

    def lost(self, split: int, reason: str) -> Scored:
        """Return what a fit is worth whose worker died: ``error_score``, as for a fit that raised."""
        return self._without_scores(split, self.options["error_score"], reason)

    def untried(self, split: int) -> Scored:
        """Return what stands for a fit that was not made: a score of nan, and no error."""
        return self._without_scores(split, float("nan"), None)

    def split_digests(self) -> list[str]:
        """Return a digest of the rows of each split."""
        return [joblib.hash([np.asarray(train), np.asarray(test)]) for train, test in self.splits]

    def _without_scores(self, split: int, score: float, reason: str | None) -> Scored:
        names = getattr(self.options["scorer"], "_scorers", None)
        scores = [score if names is None else dict.fromkeys(names, score) for _ in ("test", "train")]
        result = {"fit_error": reason, "test_scores": scores[0], "fit_time": 0.0, "score_time": 0.0}
        if self.options["return_train_score"]:
            result["train_scores"] = scores[1]
        return {**result, "n_test_samples": len(np.asarray(self.splits[split][1]))}


def _noting(note: Note) -> Callable[..., Scored]:
    """Return ``_fit_and_score`` with the rows that it takes told to ``note``."""

    def taking(*args: Any) -> Any:
        found = _safe_split(*args)
        note(found[0])
        return found

    names = {**_fit_and_score.__globals__, "_safe_split": taking}
    function = FunctionType(_fit_and_score.__code__, names, "_fit_and_score", None, None)
    function.__kwdefaults__ = _fit_and_score.__kwdefaults__
    return function


def _segment(
    work: Round,
    params: dict[str, Any],
    split: int,
    train: Callable[..., Any],
    wanted: Any,
    model: Any,
    prepare: Callable[[Any], None] | None,
    note: Note,
    parts: Sequence[np.ndarray] | None,
) -> tuple[Scored, Any]:
    given, test = work.splits[split]
    rows = given if wanted is None else wanted
    rows = rows if parts is None else np.concatenate(parts)
    options, X, y = work.options, work.X, work.y
    of_fit = _check_method_params(X, params=options["fit_params"] or {}, indices=rows)
    of_score = options["score_params"] or {}
    if model is None:
        model = clone(work.estimator).set_params(**clone(params, safe=False))
    if prepare is not None:
        prepare(model)
    if parts is None:
        X_train, y_train = _safe_split(model, X, y, rows)
        X_test, y_test = _safe_split(model, X, y, test, rows)
    else:
        X_train, X_test = View(X, parts), View(X, by_chunk(X, numbers_of(test)))
        y_train, y_test = (None if y is None else _safe_indexing(y, of) for of in (rows, test))
    note(X_train)
    note(X_test)
    classes = np.unique(y) if is_classifier(model) and y is not None else None
    started = time.time()
    try:
        model = train(model, X_train, y_train, of_fit, classes)
    except Exception:
        if options["error_score"] == "raise":
            raise
        return {**work.lost(split, traceback.format_exc()), "fit_time": time.time() - started}, None
    fitted = time.time()
    scorer, error_score = options["scorer"], options["error_score"]

    def score(X_of: Any, y_of: Any, indices: Any) -> Any:
        taken = _check_method_params(X, params=of_score, indices=indices)
        return _score(model if parts is None else in_blocks(model), X_of, y_of, scorer, taken, error_score)

    found = {"fit_error": None, "fit_time": fitted - started, "test_scores": score(X_test, y_test, test)}
    found["score_time"] = time.time() - fitted
    if options["return_train_score"]:
        found["train_scores"] = score(X_train, y_train, rows)
    return {**found, "n_test_samples": len(np.asarray(test))}, model


def params_of(X: Any, params: Mapping[str, Any], rows: np.ndarray) -> dict[str, Any]:
    """Return fit parameters of some rows: what has as many rows as X is cut."""
    found: dict[str, Any] = _check_method_params(X, params=params, indices=rows)
    return found


def gather(calls: Sequence[Call]) -> Round:
    """Return the round that calls make up, candidate by candidate, each over the same splits."""
    _, (estimator, X, y), first = calls[0]
    n_splits: int = first["split_progress"][1]
    filters = getattr(warnings, "_get_filters", lambda: warnings.filters)()
    told = has_callbacks(first.get("caller"))
    return Round(
        estimator=estimator,
        X=X,
        y=y,
        candidates=[keywords["parameters"] for _, _, keywords in calls[::n_splits]],
        splits=[(keywords["train"], keywords["test"]) for _, _, keywords in calls[:n_splits]],
        options={name: value for name, value in first.items() if name not in _OF_CALL},
        config=sklearn.get_config(),
        filters=list(filters),
        caller=first["caller"] if told else None,
        contexts=[keywords["callback_ctx"] for _, _, keywords in calls] if told else (),
    )


def has_callbacks(search: Any) -> bool:
    """Return whether scikit-learn callbacks (1.9) are set on a search, or handed down by what it is part of."""
    return bool(getattr(search, "_skl_callbacks", None))


def fit_params(search: Any, params: dict[str, Any]) -> dict[str, Any]:
    """Return those parameters of a search's ``fit`` that go to ``fit`` of its estimator."""
    found: dict[str, Any] = search._get_routed_params_for_fit(params).estimator.fit
    return found


def metrics(search: Any) -> list[str]:
    """Return the names of several metrics, sorted."""
    return sorted(search._get_scorers()[0]._scorers)


def constraints(search_class: type[Any], own: Iterable[str]) -> dict[str, Any]:
    """Return the parameter constraints of a search with parameters more that scikit-learn does not check."""
    return {**search_class._parameter_constraints, **dict.fromkeys(own, "no_validation")}
