"""Shared pipeline prefixes on a worker: what one fit transformed, the next one with the same steps takes.

A pipeline is given a ``memory`` of ours, the hook that scikit-learn documents for this. It follows the
rows from step to step: as long as every step so far is deterministic, the rows are known by the chain of
steps that made them, without hashing them. Whoever computes with kept rows gets a copy of its own, so that
a step which changes its input in place disturbs nobody; between two kept steps they are only lent. The
seconds that were saved are counted and belong to the fit's time. Kept transforms are bounded in bytes, least
recently used first out.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from daskml_scale.engine.worker import Cache

from .log import identity
from .rows import can_be_copied, copied, size_of

SHARE = 0.2
"""Of the memory of a worker that kept transforms may take."""
MOST_BYTES = 1 << 30
KEPT = Cache(limit=MOST_BYTES)
"""The transforms that this process keeps."""
_NOTHING: Any = object()


def chain(estimator: Any, params: dict[str, Any], rows: tuple[int, ...]) -> tuple[str, ...]:
    """Return a key per leading step of a pipeline that may be shared; none for anything else.

    Parameters
    ----------
    estimator : object
        Unfitted; it is cloned.
    params : dict
        Of one candidate.
    rows : tuple of int
        Shape of X.
    """
    from sklearn.base import clone
    from sklearn.pipeline import Pipeline

    if type(estimator) is not Pipeline or estimator.memory is not None or "memory" in params:
        return ()
    try:
        made = clone(estimator).set_params(**clone(params, safe=False))
    except Exception:
        return ()  # the fit itself says what is wrong with the parameters
    keys = []
    for _, step in made.steps[:-1]:
        if step is None or isinstance(step, str):
            continue
        if not deterministic(step, rows):
            break
        try:
            keys.append(identity(step))
        except Exception:
            break
    return tuple(keys)


def deterministic(step: Any, rows: tuple[int, ...] = ()) -> bool:
    """Return whether a transformer gives the same every time; where nobody can tell, it does not."""
    from sklearn.decomposition import PCA
    from sklearn.utils import get_tags

    try:
        parts = [step, *(part for part in step.get_params(deep=True).values() if hasattr(part, "get_params"))]
        parts = [part for part in parts if not inspect.isclass(part)]
        if any(get_tags(part).non_deterministic and not hasattr(part, "random_state") for part in parts):
            return False
    except Exception:
        return False
    for part in parts:
        if isinstance(part, PCA) and part.random_state is None and _exact_pca(part, rows):
            continue
        if getattr(part, "random_state", 0) is None:
            return False
        if "mutual_info" in getattr(getattr(part, "score_func", None), "__name__", ""):
            return False
    return True


def _exact_pca(step: Any, rows: tuple[int, ...]) -> bool:
    if step.svd_solver in ("full", "covariance_eigh"):
        return True
    return step.svd_solver == "auto" and len(rows) == 2 and rows[1] <= 1000 and rows[0] >= 20 * rows[1]


class Sharing:
    """The ``memory`` of one pipeline for one fit.

    Parameters
    ----------
    kept : Cache
    root : tuple
        Names the rows that the fit is given: equal roots mean equal rows.
    keys : sequence of str
        One for each leading step that may be shared, see `chain`.

    Attributes
    ----------
    fitting, scoring : float
        Seconds that others spent on what this fit took from them.
    """

    def __init__(self, kept: Cache, root: tuple[Any, ...], keys: Sequence[str]) -> None:
        self.kept, self.root, self.keys = kept, root, list(keys)
        self.at = self.wrapped = 0
        self.fitting = self.scoring = 0.0
        self._known: dict[int, tuple[Any, tuple[Any, ...]]] = {}
        self._given: list[Any] = []
        self._lent: dict[int, Any] = {}

    def note(self, rows: Any) -> None:
        """Learn what the fit trains on, and then what it is scored on."""
        self._given.append(rows)
        self._name(rows, (*self.root, "train" if len(self._given) == 1 else "test"))

    def cache(self, function: Callable[..., Any], **more: Any) -> Callable[..., Any]:
        """Return a function that fits and transforms, or takes what is kept (called by the pipeline)."""
        return partial(self._fitted, function)

    def _name(self, rows: Any, token: tuple[Any, ...]) -> Any:
        self._known[id(rows)] = (rows, token)  # the reference keeps the id from being used again
        return rows

    def _token(self, rows: Any) -> tuple[Any, ...] | None:
        found = self._known.get(id(rows))
        return None if found is None else found[1]

    def _lend(self, rows: Any, on: bool) -> Any:
        """Return kept rows: as they are, not to be written, where the next step is kept too; else a copy."""
        if not on or type(rows) is not np.ndarray:
            return copied(rows)
        lent = rows.view()
        lent.flags.writeable = False
        self._lent[id(lent)] = lent
        return lent

    def _own(self, rows: Any) -> Any:
        """Return rows to compute with: a copy of lent ones."""
        return copied(rows) if id(rows) in self._lent else rows

    def _fitted(self, function: Callable[..., Any], step: Any, X: Any, y: Any, **more: Any) -> Any:
        token = self._token(X)
        if token is None or self.at >= len(self.keys) or any((more.get("params") or {}).values()):
            self.at = len(self.keys)
            return function(step, self._own(X), y, **more)
        token = (*token, self.keys[self.at])
        self.at += 1
        before = self.fitting

        def fit() -> tuple[Any, Any, float]:
            release = self._share_children(step, token)
            found, seconds = _timed(lambda: function(step, self._own(X), y, **more))
            release()
            return found[0], found[1], seconds + self.fitting - before

        rows, fitted, seconds, new = self._take(token, fit, self.at < len(self.keys))
        self.fitting = self.fitting if new else before + seconds
        self.wrapped = self.at
        return self._name(rows, token), self._transforming(fitted, token, self.at)

    def _take(
        self, token: tuple[Any, ...], make: Callable[[], tuple[Any, Any, float]], lend: bool = False
    ) -> tuple[Any, Any, float, bool]:
        """Return kept rows, what made them, the seconds that it took, and whether that was just now."""
        made: list[Any] = []

        def load() -> tuple[Any, Any, float]:
            made.append(make())
            found: tuple[Any, Any, float] = made[0]
            return found if can_be_copied(found[0]) else (_NOTHING, None, 0.0)

        rows, fitted, seconds = self.kept.get(token, load, size_of)
        if rows is _NOTHING:  # no kind of rows that can be copied: everyone makes their own
            rows, fitted, seconds = made[0] if made else make()
            return rows, fitted, seconds, True
        return self._lend(rows, lend), copy.copy(fitted), seconds, bool(made)

    def _transforming(self, fitted: Any, token: tuple[Any, ...], place: int) -> Any:
        """Have a fitted step take kept transforms of the rows that it is scored on."""
        if fitted is None or not hasattr(fitted, "transform"):
            return fitted
        transform = fitted.transform

        def taking(X: Any, **params: Any) -> Any:
            of = self._token(X)
            if of is None or params:
                return transform(self._own(X), **params)
            after = (*of, "then", token)

            def make() -> tuple[Any, Any, float]:
                rows, seconds = _timed(lambda: transform(self._own(X)))
                return rows, None, seconds

            rows, _, seconds, new = self._take(after, make, place < self.wrapped)
            self.scoring += 0.0 if new else seconds
            return self._name(rows, after)

        fitted = copy.copy(fitted)
        fitted.transform = taking
        return fitted

    def _share_children(self, step: Any, token: tuple[Any, ...]) -> Callable[[], None]:
        """Have the parts of a union or of a column transformer share too; return what undoes it."""
        from sklearn.compose import ColumnTransformer
        from sklearn.pipeline import FeatureUnion

        if type(step) not in (FeatureUnion, ColumnTransformer) or step.n_jobs not in (None, 1):
            return lambda: None
        union = type(step) is FeatureUnion
        parts = [
            (part, None if union else entry[2])
            for entry in (step.transformer_list if union else step.transformers)
            if not isinstance(part := entry[1], str) and hasattr(part, "fit_transform") and deterministic(part)
        ]
        changed = []
        for part, columns in parts:
            try:
                own = (*token[:-1], "part", identity(columns), identity(part))
            except Exception:
                continue
            if union:
                part.fit_transform = partial(self._child, part, own)
                changed.append((part, "fit_transform"))
            else:  # it clones its parts
                part.__sklearn_clone__ = partial(self._clone_of_child, part, own)
                changed.append((part, "__sklearn_clone__"))

        def undo() -> None:
            for part, name in changed:
                vars(part).pop(name, None)

        return undo

    def _clone_of_child(self, part: Any, token: tuple[Any, ...]) -> Any:
        fresh = type(part).__sklearn_clone__(part)
        fresh.fit_transform = partial(self._child, fresh, token)
        return fresh

    def _child(self, part: Any, token: tuple[Any, ...], X: Any, y: Any = None, **params: Any) -> Any:
        vars(part).pop("fit_transform", None)
        if params:
            return part.fit_transform(X, y, **params)

        def make() -> tuple[Any, Any, float]:
            rows, seconds = _timed(lambda: part.fit_transform(X, y))
            return rows, copy.copy(part), seconds

        rows, fitted, seconds, new = self._take(token, make)
        if not new:
            vars(part).update(vars(fitted))
            self.fitting += seconds
        return rows


def separated(pipeline: Any) -> Any:
    """Return a pipeline without its ties to a fit that shared: it can be kept, sent and used elsewhere."""
    if isinstance(getattr(pipeline, "memory", None), Sharing):
        pipeline.memory = None
        for _, step in pipeline.steps:
            if hasattr(step, "__dict__"):
                vars(step).pop("transform", None)
    return pipeline


def _timed(function: Callable[[], Any]) -> tuple[Any, float]:
    import time

    started = time.perf_counter()
    found = function()
    return found, time.perf_counter() - started


def bound(memory: int) -> None:
    """Bound what this process keeps by its memory limit in bytes; 0 is unknown."""
    KEPT.limit = min(MOST_BYTES, int(memory * SHARE)) if memory else MOST_BYTES
