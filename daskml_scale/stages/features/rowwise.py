"""Features of the steps that look at the row itself, learnt or not: one dispatch for fitting and transforming.

A step that learns is given what it learnt, a JSON value made by ``learning``. Every value depends on its
own row alone. The numbers are computed by the library of the arrays (`kernels.namespace`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from types import MappingProxyType
from typing import Any, TypeAlias

import numpy as np

from daskml_scale.spec.expressions import Coded, Values, evaluate
from daskml_scale.spec.step_base import Step
from daskml_scale.spec.steps import Cyclical, DateParts, Keep
from daskml_scale.spec.steps_categories import Count, Hashing, OneHot, TargetMean
from daskml_scale.spec.steps_learned import Function
from daskml_scale.spec.steps_numeric import (
    PCA,
    Bin,
    Cast,
    Clip,
    Compute,
    Impute,
    Interactions,
    Log,
    MinMax,
    Rename,
    Robust,
    Standardize,
)  # fmt: skip

from . import calling, kernels, target_mean
from .kernels import by_label, device, namespace, numbers, spread
from .sources import coded

Functions: TypeAlias = Mapping[str, Callable[..., Any]]
"""The user's functions by their paths."""


def rowwise(
    step: Step,
    columns: Mapping[str, Values],
    learnt: Any,
    rows: int,
    functions: Functions = MappingProxyType({}),
) -> list[np.ndarray]:
    """Return the features of one step, float64 or bool, each of shape (rows,).

    Parameters
    ----------
    step : Step
        Of one of the kinds that look at one row at a time.
    columns : mapping of column or earlier feature to Values of shape (rows,)
    learnt : JSON value or None
        What the step learnt in ``fit``.

    Raises
    ------
    TypeError
        When the step is of another kind.
    """
    match step:
        case DateParts():
            return kernels.date_parts(np.asarray(columns[step.of]), step.parts, step.zone)
        case Cyclical():
            pairs = zip(step.of, step.periods, strict=True)
            return [wave for name, period in pairs for wave in kernels.cyclical(numbers(columns[name]), period)]
        case Keep():
            return [numbers(columns[name]) for name in step.of]
        case Compute():
            return [_computed(text, columns, rows) for text in step.features.values()]
        case OneHot():
            return one_hot(coded(columns[step.of]), step, step.levels or learnt["levels"])
        case Cast():
            return [cast(columns[name], step.to) for name in step.of]
        case Function():
            return calling.call(step, functions[step.call], columns, rows)
        case Hashing():
            return hashing(coded(columns[step.of]), step)
        case TargetMean():
            return target_mean.encode(step, columns, learnt)
        case Count():
            return [counts(coded(columns[name]), learnt[name], step.share) for name in step.of]
    values = [numbers(columns[name]) for name in step.reads()]
    match step:
        case Rename():
            return values
        case Interactions():
            with np.errstate(over="ignore", invalid="ignore"):
                return [one * other for one, other in combinations(values, 2)]
        case PCA():
            return _project(values, learnt)
        case Impute():
            return _imputed(step, values, learnt)
    with np.errstate(all="ignore"):
        return [_scaled(step, name, array, learnt) for name, array in zip(step.reads(), values, strict=True)]


def _scaled(step: Step, name: str, values: np.ndarray, learnt: Any) -> np.ndarray:
    xp = namespace(values)
    match step:
        case Standardize() | Robust():
            centre, scale = learnt[name]
            return (values - centre) / scale  # type: ignore[no-any-return]
        case MinMax():
            first, last = learnt[name]
            width = spread(last - first)
            return (values - first) / width * (step.high - step.low) + step.low  # type: ignore[no-any-return]
        case Log():
            result = xp.log1p(values) if step.plus_one else xp.log(values)
            return xp.where(result == -xp.inf, xp.nan, result)  # type: ignore[no-any-return]
        case Clip():
            return xp.clip(values, step.low, step.high)  # type: ignore[no-any-return]
        case Bin():
            inner = xp.asarray(learnt[name][1:-1], dtype=xp.float64, device=device(values))
            found = xp.astype(xp.searchsorted(inner, values, side="right"), xp.float64)
            return xp.where(xp.isnan(values), xp.nan, found)  # type: ignore[no-any-return]
    raise TypeError(f"{type(step).__name__} has no kernel")


def _imputed(step: Impute, values: list[np.ndarray], learnt: Any) -> list[np.ndarray]:
    fills = [step.value if learnt is None else learnt[name] for name in step.of]
    xp = namespace(values[0])
    absent = [xp.isnan(array) for array in values]
    filled = [
        xp.where(gone, xp.nan if fill is None else float(fill), array)
        for array, gone, fill in zip(values, absent, fills, strict=True)
    ]
    return filled + [xp.astype(gone, xp.float64) for gone in absent if step.indicator]


def _computed(text: str, columns: Mapping[str, Values], rows: int) -> np.ndarray:
    return np.broadcast_to(numbers(evaluate(text, columns)), (rows,))


def _project(values: list[np.ndarray], learnt: Any) -> list[np.ndarray]:
    """Return components; each is a sum in the order of the columns, whatever the number of rows."""
    found = []
    with np.errstate(all="ignore"):
        centred = [column - mean for column, mean in zip(values, learnt["mean"], strict=True)]
        for component in learnt["components"]:
            total = centred[0] * component[0]
            for column, weight in zip(centred[1:], component[1:], strict=True):
                total = total + column * weight
            found.append(total)
    return found


def one_hot(column: Coded, step: OneHot, levels: Sequence[str]) -> list[np.ndarray]:
    """Return an indicator per level, bool, and one for all other categories if the step has one."""
    xp, codes = namespace(column.codes), {label: code for code, label in enumerate(column.labels)}
    # A level that the column does not know gets a code that no row has.
    found = [column.codes == codes.get(level, len(codes)) for level in levels]
    if step.unknown == "other":
        known = set(levels)
        other = by_label(column, [float(label not in known) for label in column.labels], 0.0)
        found.append(xp.astype(other, xp.bool))
    return found


def cast(column: Values, to: str) -> np.ndarray:
    """Return values as a type holds them, float64; NaN where it does not."""
    if isinstance(column, Coded):
        values = by_label(column, [_parsed(label) for label in column.labels], np.nan)
    else:
        values = numbers(column)
    xp = namespace(values)
    if to == "bool":
        return xp.where(xp.isnan(values), xp.nan, xp.astype(values != 0, xp.float64))  # type: ignore[no-any-return]
    if to in ("float32", "float64"):
        with np.errstate(over="ignore"):
            return xp.astype(xp.astype(values, getattr(xp, to)), xp.float64)  # type: ignore[no-any-return]
    limits = np.iinfo(to)
    whole = xp.trunc(values)
    # float64 rounds the largest int64 and uint64 up: what equals that does not fit.
    fits = (whole >= float(limits.min)) & (whole < float(limits.max) + 1)
    return xp.where(fits, whole + 0.0, xp.nan)  # type: ignore[no-any-return]


def _parsed(label: str) -> float:
    try:
        return float(label)
    except ValueError:
        return np.nan


def hashing(column: Coded, step: Hashing) -> list[np.ndarray]:
    """Return 1 (or the hash's sign) in the bucket of each row's category, as ``sklearn.FeatureHasher``."""
    from sklearn.utils import murmurhash3_32

    hashes = [int(murmurhash3_32(label, seed=0, positive=False)) for label in column.labels]
    buckets = [abs(value) % step.buckets for value in hashes]
    signs = [-1.0 if step.signed and value < 0 else 1.0 for value in hashes]
    return [
        by_label(column, [sign * (own == bucket) for own, sign in zip(buckets, signs, strict=True)], 0.0)
        for bucket in range(step.buckets)
    ]


def counts(column: Coded, learnt: Mapping[str, Any], share: bool) -> np.ndarray:
    """Return how often each row's category was seen in ``fit``, or its share of those seen."""
    total = max(1, learnt["rows"]) if share else 1
    return by_label(column, [learnt["counts"].get(label, 0) / total for label in column.labels], np.nan)
