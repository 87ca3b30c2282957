"""What the steps that learn keep of a chunk, and what they make of all chunks: one pass for the whole recipe.

A step may learn from table columns and from what steps that learn nothing make of them; these are computed
during the pass. What a learning step makes is not known before the pass ends, with one exception: the
statistics of an imputed column follow from those of the column and its number of missing values.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np

from daskml_scale.errors import DaskMLError, SpecError
from daskml_scale.spec.expressions import Coded, Values
from daskml_scale.spec.step_base import EventStep, Step
from daskml_scale.spec.steps import AsOf, Cyclical, DateParts, Keep, Lookup
from daskml_scale.spec.steps_categories import Count, OneHot, TargetMean
from daskml_scale.spec.steps_learned import Aggregate, Function
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

from . import aggregate, target_mean
from .kernels import numbers, spread
from .rowwise import Functions, rowwise
from .sketches import Categories
from .summary import DISTINCT, Moments, Summary, comoments, merge_comoments

_STATELESS = (DateParts, Cyclical, Keep, Rename, Cast, Log, Clip, Interactions, Compute, Impute, Function)
"""Steps whose features can be computed during the fitting pass; ``Impute`` where it learns nothing."""


@dataclass(frozen=True)
class Lessons:
    """Which steps learn, and what the pass must read and compute for them.

    Attributes
    ----------
    learn : tuple of int
        Positions of the steps that learn from this module's statistics.
    compute : frozenset of int
        Positions of the steps whose features those need.
    columns : tuple of str
        Table columns read.
    fills : mapping of (position, name) to int
        Position of the impute step whose column a step learns from.
    """

    learn: tuple[int, ...]
    compute: frozenset[int]
    columns: tuple[str, ...]
    fills: Mapping[tuple[int, str], int]


def learns(step: Step) -> bool:
    """Return whether a step learns from the statistics of this module."""
    if isinstance(step, Impute):
        return step.by != "constant"
    if isinstance(step, OneHot):
        return step.levels is None
    return isinstance(step, (Standardize, MinMax, Robust, Bin, Count, TargetMean, PCA, Aggregate))


def reads_rows(step: Step) -> bool:
    """Return whether a step looks at the row itself only, so that it may read features of earlier steps."""
    return not isinstance(step, (Lookup, AsOf, EventStep, Aggregate))


def lessons(steps: tuple[Step, ...]) -> Lessons:
    """Work out what the fitting pass must do.

    Raises
    ------
    SpecError
        When a step would learn from what an earlier one learns, or from other rows.
    """
    sources: dict[str, tuple[frozenset[str], frozenset[int]] | None] = {}
    imputed: dict[str, int] = {}
    learn: list[int] = []
    columns: dict[str, None] = {}
    compute: set[int] = set()
    fills: dict[tuple[int, str], int] = {}
    for position, step in enumerate(steps):
        found = [sources.get(name, (frozenset({name}), frozenset())) for name in step.reads()]
        if isinstance(step, Aggregate):
            learn.append(position)
            columns.update(dict.fromkeys((*step.of, *step.reads())))
        elif learns(step):
            learn.append(position)
            for name, source in zip(step.reads(), found, strict=True):
                if source is None or (name in imputed and isinstance(step, (Impute, PCA))):
                    raise SpecError(_two_passes(steps, position, name), path=f"steps[{position}].{step.step}.of")
                columns.update(dict.fromkeys(sorted(source[0])))
                compute |= source[1]
                if name in imputed:
                    fills[position, name] = imputed[name]
        stateless = isinstance(step, _STATELESS)
        known = [source for source in found if source is not None]
        filled = not imputed.keys().isdisjoint(step.reads())
        for name in step.outputs():
            imputed.pop(name, None)
            if stateless and not learns(step) and not filled and len(known) == len(found):
                reads = frozenset().union(*(source[0] for source in known))
                sources[name] = (reads, frozenset({position}).union(*(source[1] for source in known)))
            elif isinstance(step, Impute) and learns(step) and name in step.of:
                imputed[name] = position  # its source stays the column with missing values
            else:
                sources[name] = None
    return Lessons(tuple(learn), frozenset(compute), tuple(columns), fills)


def _two_passes(steps: Sequence[Step], position: int, name: str) -> str:
    maker = max(number for number in range(position) if name in steps[number].outputs())
    return (
        f"{steps[position].step} would learn from {name!r} as steps[{maker}].{steps[maker].step} makes it, which is "
        "not known before fitting ends; a recipe is fitted in one pass: learn from the table's column, or from what "
        "log, clip, compute and impute make of it, or write these features first and fit a second recipe on them"
    )


def scan_steps(
    steps: tuple[Step, ...],
    columns: Mapping[str, Values],
    rows: int,
    target: str | None = None,
    functions: Functions = MappingProxyType({}),
) -> dict[str, Any]:
    """Return the statistics of one chunk's rows, those that may be learnt from: step position -> JSON value."""
    plan, found = lessons(steps), {}
    current: dict[str, Values] = dict(columns)
    known: dict[str, tuple[Values, Moments]] = {}
    for position, step in enumerate(steps):
        if isinstance(step, TargetMean):
            assert target is not None
            found[str(position)] = target_mean.scan(step, columns, numbers(columns[target]))
        elif isinstance(step, Aggregate):
            found[str(position)] = aggregate.scan(step, columns)
        elif position in plan.learn:
            found[str(position)] = _scan(step, current, known)
        elif position in plan.compute:
            current.update(zip(step.outputs(), rowwise(step, current, None, rows, functions), strict=True))
    return found


def _scan(step: Step, columns: Mapping[str, Values], known: dict[str, tuple[Values, Moments]]) -> Any:
    """Return what a step learns from; ``known`` are the moments of columns that other steps asked for."""
    if isinstance(step, (Count, OneHot)):
        return {name: labels(columns[name]).to_json() for name in step.reads()}
    arrays = {name: numbers(columns[name]) for name in step.reads()}
    if isinstance(step, PCA):
        count, mean, products = comoments(np.stack(list(arrays.values()), axis=1))
        return [count, mean.tolist(), products.tolist()]
    asked = _asked(step)
    for name, array in arrays.items():
        if name not in known or known[name][0] is not columns[name]:
            known[name] = (columns[name], Moments.of(array))
    return {name: Summary.of(array, asked, known[name][1]).to_json() for name, array in arrays.items()}


def _asked(step: Step) -> tuple[str, ...]:
    match step:
        case Robust() | Impute(by="median") | Bin(by="quantile"):
            return ("buckets",)
        case Impute(by="most_frequent"):
            return ("values",)
    return ()


def labels(column: Values) -> Categories:
    """Return the counts of a category column."""
    if not isinstance(column, Coded):
        raise TypeError(f"a column of {column.dtype} is not a category")
    return Categories.of(column)


def learn_steps(steps: tuple[Step, ...], scans: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Return what every step learnt from the statistics of all chunks, in unit order: position -> JSON value.

    Raises
    ------
    DaskMLError
        When the most frequent value is asked of a column with too many distinct values.
    """
    plan, chunks = lessons(steps), list(scans)
    learnt: dict[str, Any] = {}
    for position in plan.learn:
        step, parts = steps[position], [chunk[str(position)] for chunk in chunks]
        if isinstance(step, Count):
            learnt[str(position)] = {name: _counted(parts, name).to_json() for name in step.of}
        elif isinstance(step, OneHot):
            learnt[str(position)] = _levels(step, _counted(parts, step.of))
        elif isinstance(step, Aggregate):
            learnt[str(position)] = aggregate.learn(step, position, parts)
        elif isinstance(step, TargetMean):
            learnt[str(position)] = target_mean.learn(step, parts)
        elif isinstance(step, PCA):
            learnt[str(position)] = _components(step, parts)
        else:
            found: dict[str, Any] = {}
            for name in step.reads():
                summary = Summary.merged([Summary.from_json(part[name]) for part in parts])
                maker = plan.fills.get((position, name))
                fill = None if maker is None else learnt[str(maker)][name]
                found[name] = _learn(step, position, name, summary if fill is None else summary.filled(fill))
            learnt[str(position)] = found
    return learnt


def _learn(step: Step, position: int, name: str, summary: Summary) -> Any:
    moments = summary.moments
    match step:
        case Impute():
            return _fill(step, position, name, summary) if moments.count else None
        case Standardize():
            return [moments.mean, moments.deviation or 1.0]
        case MinMax():
            return [moments.low, moments.high]
        case _ if not moments.count:
            return [0.0, 1.0]
        case Robust():
            assert summary.buckets is not None
            lower, middle, upper = summary.buckets.quantiles([0.25, 0.5, 0.75], moments)
            return [middle, spread(upper - lower)]
        case Bin(by="width"):
            return np.unique(np.linspace(moments.low, moments.high, step.bins + 1)).tolist()
        case Bin():
            assert summary.buckets is not None
            return np.unique(summary.buckets.quantiles(np.linspace(0, 1, step.bins + 1).tolist(), moments)).tolist()
    raise TypeError(f"{type(step).__name__} learns nothing")


def _fill(step: Impute, position: int, name: str, summary: Summary) -> float:
    if step.by == "mean":
        return summary.moments.mean
    if step.by == "median":
        assert summary.buckets is not None
        return summary.buckets.quantiles([0.5], summary.moments)[0]
    if summary.values is None:
        raise DaskMLError(
            f"steps[{position}].impute: column {name!r} has more than {DISTINCT:,} distinct values, too many to count; "
            "use by: median or by: mean"
        )
    return float(summary.values.keys[int(np.argmax(summary.values.counts))])


def _counted(parts: Sequence[Mapping[str, Any]], name: str) -> Categories:
    return Categories.merged(Categories.from_json(part[name]) for part in parts)


def _levels(step: OneHot, found: Categories) -> dict[str, Any]:
    """Return the levels that are frequent enough, sorted, the names of their features, and how many there are."""
    least = step.least * found.rows if step.least < 1 else step.least
    frequent = [label for label, rows in found.counts.items() if rows >= least]
    levels = sorted(sorted(frequent, key=lambda label: (-found.counts[label], label))[: step.most])
    return {"levels": levels, "names": list(step.names(levels)), "categories": found.cardinality}


def _components(step: PCA, parts: Sequence[Any]) -> dict[str, Any]:
    """Return mean and components, the largest loading of each positive, as scikit-learn's ``PCA``."""
    width = len(step.of)
    total = (0, np.zeros(width), np.zeros((width, width)))
    for count, mean, products in parts:
        total = merge_comoments(total, (count, np.asarray(mean), np.asarray(products)))
    vectors = np.linalg.eigh(total[2] / max(1, total[0] - 1))[1][:, ::-1].T[: step.components]
    largest = np.abs(vectors).argmax(axis=1)
    signs = np.sign(vectors[np.arange(len(vectors)), largest])
    return {"mean": total[1].tolist(), "components": (vectors * signs[:, None]).tolist()}
