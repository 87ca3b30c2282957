"""Shared pipeline prefixes on a worker: what one fit transformed, the next one with the same steps takes.

A pipeline is given a ``memory`` of ours, the hook that scikit-learn documents for this. It follows the
rows from step to step: as long as every step so far is deterministic, the rows are known by the chain of
steps that made them, without hashing them. Each fit gets a copy of its own, so that a step which changes
its input in place disturbs nobody. The seconds that were saved are counted and belong to the fit's time.
Kept transforms are bounded in bytes, least recently used first out.
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
    depth : int
        Leading steps that may be shared.

    Attributes
    ----------
    fitting, scoring : float
        Seconds that others spent on what this fit took from them.
    """

    def __init__(self, kept: Cache, root: tuple[Any, ...], depth: int) -> None:
        self.kept, self.root, self.left = kept, root, depth
        self.fitting = self.scoring = 0.0
        self._known: dict[int, tuple[Any, tuple[Any, ...]]] = {}
        self._given: list[Any] = []

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

    def _fitted(self, function: Callable[..., Any], step: Any, X: Any, y: Any, **more: Any) -> Any:
        token = self._token(X)
        if token is None or self.left <= 0 or any((more.get("params") or {}).values()):
            self.left = 0
            return function(step, X, y, **more)
        self.left -= 1
        token = (*token, identity(step))
        before = self.fitting

        def fit() -> tuple[Any, Any, float]:
            release = self._share_children(step, token)
            found, seconds = _timed(lambda: function(step, X, y, **more))
            release()
            return found[0], found[1], seconds + self.fitting - before

        rows, fitted, seconds, new = self._take(token, fit)
        self.fitting = self.fitting if new else before + seconds
        return self._name(rows, token), self._transforming(fitted, token)

    def _take(self, token: tuple[Any, ...], make: Callable[[], tuple[Any, Any, float]]) -> tuple[Any, Any, float, bool]:
        """Return a copy of kept rows, what made them, the seconds that it took, and whether that was just now."""
        made: list[Any] = []

        def load() -> tuple[Any, Any, float]:
            made.append(make())
            found: tuple[Any, Any, float] = made[0]
            return found if _copy(found[0]) is not _NOTHING else (_NOTHING, None, 0.0)

        rows, fitted, seconds = self.kept.get(token, load, _size)
        if rows is _NOTHING:  # no kind of rows that can be copied: everyone makes their own
            rows, fitted, seconds = made[0] if made else make()
            return rows, fitted, seconds, True
        return _copy(rows), copy.copy(fitted), seconds, bool(made)

    def _transforming(self, fitted: Any, token: tuple[Any, ...]) -> Any:
        """Have a fitted step take kept transforms of the rows that it is scored on."""
        if fitted is None or not hasattr(fitted, "transform"):
            return fitted
        transform = fitted.transform

        def taking(X: Any, **params: Any) -> Any:
            of = self._token(X)
            if of is None or params:
                return transform(X, **params)
            after = (*of, "then", token)

            def make() -> tuple[Any, Any, float]:
                rows, seconds = _timed(lambda: transform(X))
                return rows, None, seconds

            rows, _, seconds, new = self._take(after, make)
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


def _copy(rows: Any) -> Any:
    """Return a copy in the same layout (another one changes the last bits of sums), or `_NOTHING`."""
    from scipy import sparse

    if type(rows) is np.ndarray and rows.dtype != object:
        return rows.copy(order="K")
    if sparse.issparse(rows) or _is_frame(rows):
        return rows.copy()
    return _NOTHING


def _is_frame(rows: Any) -> bool:
    return type(rows).__module__.partition(".")[0] == "pandas" and hasattr(rows, "memory_usage")


def _size(found: tuple[Any, Any, float]) -> int:
    rows, fitted, _ = found
    return _bytes(rows) + sum(map(_bytes, vars(fitted).values() if hasattr(fitted, "__dict__") else ()))


def _bytes(value: Any) -> int:
    if _is_frame(value):
        return int(np.sum(value.memory_usage(deep=True)))
    if isinstance(value, dict):
        return 200 * len(value)
    arrays: Sequence[Any] = [getattr(value, name, None) for name in ("data", "indices", "indptr")]
    if isinstance(value, np.ndarray):
        return int(value.nbytes)
    return sum(int(each.nbytes) for each in arrays if isinstance(each, np.ndarray)) or 100


def bound(memory: int) -> None:
    """Bound what this process keeps by its memory limit in bytes; 0 is unknown."""
    KEPT.limit = min(MOST_BYTES, int(memory * SHARE)) if memory else MOST_BYTES
