"""How a trial gets more of its resource: further calls, trees, iterations or rows, from where it stopped.

* ``partial_fit``: one unit of resource is one pass over the rows to train on; the model goes on.
* a parameter such as ``n_estimators``: set to the new total; the model goes on where the estimator can
  (``warm_start`` of ensembles, continuation of XGBoost), else it is fitted anew.
* ``chunks``: one unit of resource is one stored chunk of X; the model goes on to the next one.
* ``n_samples``: fitted anew on more rows; those of a smaller rung are among those of a larger one.

Nothing here decides who gets more, and nothing is scored.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from daskml_scale.errors import UsageError

from . import chunk_training

Kind = Literal["whole", "partial_fit", "warm_start", "xgboost", "parameter", "n_samples", "chunks"]


@dataclass(frozen=True, slots=True)
class Fidelity:
    """What grows from rung to rung.

    Attributes
    ----------
    kind : str
        ``whole`` is a single full fit.
    parameter : str
        Its name in ``get_params``; empty for passes and rows.
    prefix : str
        Of the parameters of the last step of a pipeline (``model__``).
    """

    kind: Kind
    parameter: str = ""
    prefix: str = ""

    @property
    def goes_on(self) -> bool:
        """Whether a model is kept between rungs."""
        return self.kind in ("partial_fit", "chunks", "warm_start", "xgboost")

    def train(self, model: Any, X: Any, y: Any, start: int, stop: int, more: Mapping[str, Any], classes: Any) -> Any:
        """Train a model that has had ``start`` of the resource until it has had ``stop``; return it.

        Parameters
        ----------
        X, y : array-like
            For ``n_samples`` the rows of this rung already; for ``chunks`` a `chunks.View` of those from ``start``.
        more : mapping
            Fit parameters, of these rows.
        classes : ndarray or None
            All classes of the target, for ``partial_fit`` of classifiers.
        """
        if self.kind == "partial_fit":
            known = {} if classes is None else {"classes": classes}
            for _ in range(start, stop):
                model.partial_fit(X, y, **known, **more)
            return model
        if self.kind == "chunks":
            return chunk_training.train(model, X, y, more, classes)
        if self.kind == "xgboost":
            before = {"xgb_model": model.get_booster()} if start else {}
            return model.set_params(n_estimators=stop - start).fit(X, y, **before, **more)
        if self.kind == "warm_start":
            model.set_params(**{f"{self.prefix}warm_start": True, self.parameter: stop})
        elif self.kind == "parameter":
            model.set_params(**{self.parameter: stop})
        return model.fit(X, **more) if y is None else model.fit(X, y, **more)

    def of(self, params: Mapping[str, Any], resource: int) -> dict[str, Any]:
        """Return the parameters of a trial together with what it had of its resource, if that is a parameter."""
        return {**params, self.parameter: resource} if self.parameter else dict(params)


def fidelity(estimator: Any, resource: str) -> Fidelity:
    """Return what ``resource`` means for an estimator.

    Parameters
    ----------
    resource : str
        ``auto``, ``n_samples``, ``partial_fit``, ``chunks`` or the name of a parameter.

    Raises
    ------
    UsageError
        When the estimator has no such thing.
    """
    last, prefix = estimator, ""
    if hasattr(estimator, "steps") and hasattr(estimator, "named_steps"):
        name, last = estimator.steps[-1]
        prefix = f"{name}__"
    xgboost = not prefix and hasattr(last, "get_booster")
    known = estimator.get_params(deep=True)
    if resource == "auto":
        growing = _growing(last)
        if growing and (xgboost or f"{prefix}warm_start" in known):
            return fidelity(estimator, prefix + growing)
        return fidelity(estimator, "partial_fit" if hasattr(estimator, "partial_fit") else "n_samples")
    if resource == "n_samples":
        return Fidelity("n_samples")
    if resource in ("partial_fit", "chunks"):
        if not hasattr(estimator, "partial_fit"):
            raise UsageError(f"resource={resource!r}: {type(estimator).__name__} has no partial_fit; use 'n_samples'")
        return Fidelity("partial_fit" if resource == "partial_fit" else "chunks")
    if resource not in known:
        raise UsageError(
            f"resource={resource!r} is no parameter of {type(estimator).__name__}; give 'n_samples', 'partial_fit', "
            "'chunks' or one of its parameters, such as 'n_estimators'"
        )
    if xgboost and resource == "n_estimators":
        return Fidelity("xgboost", resource)
    if resource == prefix + (_growing(last) or "?") and f"{prefix}warm_start" in known:
        return Fidelity("warm_start", resource, prefix)
    return Fidelity("parameter", resource)


def _growing(estimator: Any) -> str:
    """Return the parameter that says how many stages an ensemble has in all, or an empty string."""
    params = estimator.get_params(deep=False)
    if "n_estimators" in params:
        return "n_estimators"
    # max_iter of other estimators with warm_start is how many steps more they take.
    return "max_iter" if type(estimator).__name__.startswith("HistGradientBoosting") else ""


def most(kind: Fidelity, estimator: Any, rows: int, wanted: int | str) -> int:
    """Return the largest resource of a trial; ``rows`` are those to train on, or their chunks.

    Raises
    ------
    UsageError
        When it cannot be known.
    """
    if isinstance(wanted, int) and not isinstance(wanted, bool) and wanted >= 1:
        return wanted if kind.kind != "n_samples" else min(wanted, rows)
    if wanted != "auto":
        raise UsageError(f"max_resources is {wanted!r}; give a positive whole number or 'auto'")
    if kind.kind in ("n_samples", "chunks"):
        return rows
    given = estimator.get_params(deep=True).get(kind.parameter) if kind.parameter else None
    if kind.kind == "xgboost" and given is None:
        return 100
    if not isinstance(given, (int, np.integer)) or given < 1:
        raise UsageError(f"max_resources='auto' is not known for {kind.parameter or kind.kind}; give a number")
    return int(given)


def rows_of(train: np.ndarray, split: int, count: int) -> np.ndarray:
    """Return ``count`` of the rows to train on; a smaller count gives the first of the same."""
    train = np.asarray(train)
    if train.dtype == bool:
        train = np.flatnonzero(train)
    if count >= len(train):
        return train
    taken: np.ndarray = np.sort(np.random.RandomState(split).permutation(len(train))[:count])
    chosen: np.ndarray = train[taken]
    return chosen
