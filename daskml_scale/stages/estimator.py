"""Estimators from a workflow file: ``{sklearn.linear_model.Ridge: {alpha: 2}}`` to an unfitted object.

Every name is checked before anything is built, and an error names the nearest known one. A
``random_state`` that is not given gets the caller's seed, so results never depend on the worker.
Only classes with scikit-learn's estimator methods are called; nothing is evaluated.
"""

from __future__ import annotations

import difflib
import hashlib
import importlib
import inspect
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from daskml_scale.errors import SpecError


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return ``"; did you mean 'alpha'?"`` for the nearest known name, or an empty string."""
    by_case = {other.casefold(): other for other in known}
    close = difflib.get_close_matches(name.casefold(), list(by_case), n=1, cutoff=0.5)
    return f"; did you mean {by_case[close[0]]!r}?" if close else ""


def import_estimator(path: str) -> type[Any]:
    """Return the estimator class at an import path such as ``sklearn.linear_model.Ridge``.

    Raises
    ------
    SpecError
        When the module or class is not there, or is not a scikit-learn estimator.
    """
    module_name, _, name = path.rpartition(".")
    if not module_name:
        raise SpecError(f"{path!r} is not an import path; write module.Class, for example sklearn.linear_model.Ridge")
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise SpecError(f"{path}: cannot import ({error}); check the name, or install its package") from None
    found = getattr(module, name, None)
    if found is None:
        classes = [known for known in dir(module) if inspect.isclass(getattr(module, known, None))]
        raise SpecError(f"{path}: {module_name} has no {name!r}{did_you_mean(name, classes)}")
    wanted = ("fit", "get_params", "set_params")
    if not inspect.isclass(found) or not all(callable(getattr(found, method, None)) for method in wanted):
        raise SpecError(f"{path} is not a scikit-learn estimator: a class with {', '.join(wanted)}")
    return found


def build_estimator(mapping: Mapping[str, Mapping[str, Any]], params: Mapping[str, Any], seed: int) -> Any:
    """Return an unfitted estimator.

    Parameters
    ----------
    mapping : mapping
        One import path and its constructor parameters.
    params : mapping
        Parameters set over those, as ``set_params`` takes them (``step__name`` reaches inside).
    seed : int
        Given to every ``random_state`` that neither ``mapping`` nor ``params`` sets.

    Raises
    ------
    SpecError
        When the class cannot be imported or built, or has no such parameter.
    """
    ((path, fixed),) = mapping.items()
    estimator_class = import_estimator(path)
    accepted = inspect.signature(estimator_class).parameters
    open_ended = _open_ended(estimator_class)
    direct = {name: value for name, value in fixed.items() if open_ended or name in accepted}
    try:
        estimator = estimator_class(**direct)
    except Exception as error:
        raise SpecError(f"{path}: cannot be built with {direct}: {error}") from None
    wanted = {name: value for name, value in {**fixed, **params}.items() if name not in direct or name in params}
    check_parameters(path, estimator, wanted)
    try:
        estimator.set_params(**wanted)
    except ValueError as error:
        raise SpecError(f"{path}: {error}") from None
    seeds = [name for name in estimator.get_params(deep=True) if name.rpartition("__")[2] == "random_state"]
    return estimator.set_params(**{name: seed for name in seeds if name not in fixed and name not in params})


def check_parameters(path: str, estimator: Any, names: Iterable[str]) -> None:
    """Check that an estimator has all these parameters.

    Raises
    ------
    SpecError
        Naming the first that it has not, and the nearest that it has.
    """
    known = estimator.get_params(deep=True)
    for name in names:
        if name not in known and not _open_ended(type(estimator)):
            nearest = did_you_mean(name, known)
            raise SpecError(f"{path} has no parameter {name!r}{nearest}; known: {', '.join(sorted(known))}")


def _open_ended(estimator_class: type[Any]) -> bool:
    """Return whether a class takes any keyword (XGBoost's do)."""
    return any(p.kind is p.VAR_KEYWORD for p in inspect.signature(estimator_class).parameters.values())


@lru_cache(maxsize=1)
def _pools() -> Any:
    import sklearn.ensemble  # noqa: F401  # loads the OpenMP runtime and BLAS, which the controller must find
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()


@contextmanager
def inner_threads(count: int) -> Iterator[None]:
    """Limit the BLAS and OpenMP pools of this process to ``count`` threads."""
    with _pools().limit(limits=count):
        yield


@contextmanager
def limited(model: Any, threads: int) -> Iterator[None]:
    """Limit a model to so many threads while the block runs: pools of its own too, where it has some."""
    if hasattr(model, "use_threads"):
        model.use_threads(threads)
    with inner_threads(threads):
        yield


def code_identity(estimator: Mapping[str, Any]) -> str:
    """Return what code an estimator is: its package's version, or the digest of its module's source.

    Part of the fingerprints of ``search`` and ``train``: another scikit-learn, or an edited class of the
    user's, fits again.
    """
    from importlib.metadata import PackageNotFoundError, packages_distributions, version
    from importlib.util import find_spec

    path = next(iter(estimator), "")
    package, module = path.partition(".")[0], path.rpartition(".")[0]
    try:
        names = ["scikit-learn"] if package == "sklearn" else packages_distributions().get(package, [])
        if names:
            return f"{names[0]} {version(names[0])}"
        found = find_spec(module) if module else None
        source = Path(found.origin).read_bytes() if found is not None and found.origin else b""
    except (ImportError, ValueError, OSError, PackageNotFoundError):
        return ""  # the check of the estimator says what is wrong with it
    return hashlib.blake2b(source, digest_size=20).hexdigest()


def holes(error: Exception, estimator: Any, X: np.ndarray, columns: Sequence[str]) -> str:
    """Return which features hold what an estimator says it cannot take, and what helps; empty for other errors."""
    if not isinstance(error, ValueError) or not re.search(r"\bNaN\b|infinity|missing value", str(error)):
        return ""
    found = [(name, int((~np.isfinite(X[:, at])).sum())) for at, name in enumerate(columns)]
    bad = sorted(((name, rows) for name, rows in found if rows), key=lambda pair: -pair[1])
    if not bad:
        return ""
    listed = ", ".join(f"{name} ({rows:,})" for name, rows in bad[:10]) + ", ..." * (len(bad) > 10)
    return (
        f"{type(estimator).__name__} takes no missing or infinite values; features with some in the {len(X):,} rows "
        f"({len(bad)} of {len(columns)}): {listed}; fill them by impute steps (by: constant fills what a lookup, as_of "
        "or window made), or take an estimator that knows missing values, such as HistGradientBoosting"
    )
