"""Kernels of the steps on grids: NumPy arrays in, NumPy arrays out, whatever the block.

A value depends on its own cell's neighbourhood alone, so results do not depend on how a cube is chunked; a
climatology is merged from the statistics of blocks of time (Chan et al. 1983) in their order. Missing is NaN.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import product

import numpy as np

Span = tuple[int, int]
"""[start, stop) along a dimension."""


def coarsened(values: np.ndarray, sizes: Sequence[int], stat: str) -> np.ndarray:
    """Return blocks of ``sizes`` cells joined into one; missing cells are left out.

    Parameters
    ----------
    values : ndarray, shape (n * size, ...) along every dimension
    sizes : sequence of int
        Per dimension, 1 where nothing is joined.
    stat : of mean, sum, min, max
        As xarray's ``coarsen``: the sum of no values is 0, the others of none are NaN.
    """
    split = [part for length, size in zip(values.shape, sizes, strict=True) for part in (length // size, size)]
    blocks = values.reshape(split)
    axes = tuple(range(1, 2 * values.ndim, 2))
    here = ~np.isnan(blocks)
    if stat in ("min", "max"):
        fill, join = (np.inf, np.min) if stat == "min" else (-np.inf, np.max)
        found = join(np.where(here, blocks, fill), axis=axes)
        return np.where(here.any(axis=axes), found, np.nan)
    total = np.where(here, blocks, 0.0).sum(axis=axes)
    if stat == "sum":
        return np.asarray(total)
    count = here.sum(axis=axes)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def moments(values: np.ndarray, groups: np.ndarray, slots: int) -> tuple[np.ndarray, np.ndarray]:
    """Return count and mean of each group of times of a block.

    Parameters
    ----------
    values : ndarray, shape (times, ...)
    groups : ndarray of int, shape (times,)
        Negative: the time does not count.
    slots : int
        At least the number of groups that occur; those come in rising order.

    Returns
    -------
    ndarray of int32 and of float64, each of shape (slots, ...)
    """
    count = np.zeros((slots, *values.shape[1:]), dtype="int32")
    mean = np.zeros((slots, *values.shape[1:]))
    for slot, group in enumerate(present(groups)):
        chosen = values[groups == group]
        here = ~np.isnan(chosen)
        count[slot] = here.sum(axis=0)
        total = np.where(here, chosen, 0.0).sum(axis=0, dtype="float64")
        mean[slot] = total / np.maximum(count[slot], 1)
    return count, mean


def present(groups: np.ndarray) -> list[int]:
    """Return the groups that occur, rising."""
    return [int(group) for group in np.unique(groups) if group >= 0]


def climatology(
    parts: Iterable[tuple[Sequence[int], np.ndarray, np.ndarray]], total: int, shape: Sequence[int]
) -> np.ndarray:
    """Merge the moments of blocks of time, in their order, into the mean of every group.

    Parameters
    ----------
    parts : iterable of (groups that occur, count, mean)
        As :func:`moments` gives them.
    total : int
        Groups.
    shape : sequence of int
        Of one group.

    Returns
    -------
    ndarray of float64, shape (total, *shape)
        NaN where a group has no value.
    """
    counts: dict[int, np.ndarray] = {}
    means: dict[int, np.ndarray] = {}
    for groups, count, mean in parts:
        for slot, group in enumerate(groups):
            more = count[slot].astype("int64")
            if group not in counts:
                counts[group], means[group] = more, mean[slot].copy()
                continue
            both = counts[group] + more
            means[group] += (mean[slot] - means[group]) * (more / np.maximum(both, 1))
            counts[group] = both
    found = np.full((total, *shape), np.nan)
    for group, mean in means.items():
        found[group] = np.where(counts[group] > 0, mean, np.nan)
    return found


def anomalies(values: np.ndarray, groups: np.ndarray, means: np.ndarray) -> np.ndarray:
    """Return values (times, ...) less the mean of their group (groups, ...)."""
    return np.asarray(values - means[groups])


def shifted(values: np.ndarray, offset: int, own: Span, wanted: Span) -> np.ndarray:
    """Return the values ``offset`` places away along the first dimension; NaN where there is none.

    Parameters
    ----------
    values : ndarray, shape (own, ...)
    offset : int
        Negative for earlier ones.
    own, wanted : (start, stop)
        What ``values`` covers, and what is asked for.
    """
    found = np.full((wanted[1] - wanted[0], *values.shape[1:]), np.nan)
    first, last = max(own[0], wanted[0] + offset), min(own[1], wanted[1] + offset)
    if first < last:
        at = first - offset - wanted[0]
        found[at : at + last - first] = values[first - own[0] : last - own[0]]
    return found


def window(
    values: np.ndarray, sizes: Mapping[int, int], own: Sequence[Span], wanted: Sequence[Span], stat: str
) -> np.ndarray:
    """Return a statistic of the cells around each wanted cell; see ``spec.steps_grid.Window``.

    Parameters
    ----------
    values : ndarray
    sizes : mapping of axis to int
        Cells to either side.
    own, wanted : sequence of (start, stop)
        Per axis: what ``values`` covers, and what is asked for. What it does not cover lies beyond the edge.
    stat : of mean, min, max, std
    """
    wide = _around(values, sizes, own, wanted)
    shape = tuple(stop - start for start, stop in wanted)
    views = [
        wide[tuple(slice(at, at + length) for at, length in zip(offset, shape, strict=True))]
        for offset in product(*(range(2 * sizes.get(axis, 0) + 1) for axis in range(values.ndim)))
    ]
    if stat in ("min", "max"):
        join = np.fmin if stat == "min" else np.fmax
        return np.asarray(join.reduce(views, axis=0, initial=np.nan))
    count, total = np.zeros(shape), np.zeros(shape)
    for view in views:
        here = ~np.isnan(view)
        count += here
        total += np.where(here, view, 0.0)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = total / count
        if stat == "mean":
            return mean
        squares = np.zeros(shape)
        for view in views:
            squares += np.where(np.isnan(view), 0.0, np.square(view - mean))
        return np.asarray(np.sqrt(squares / count))


def _around(values: np.ndarray, sizes: Mapping[int, int], own: Sequence[Span], wanted: Sequence[Span]) -> np.ndarray:
    """Return exactly the wanted cells and those around them, NaN beyond the edge."""
    cut, pads = [], []
    for axis, ((own_start, own_stop), (start, stop)) in enumerate(zip(own, wanted, strict=True)):
        first, last = start - sizes.get(axis, 0), stop + sizes.get(axis, 0)
        low, high = max(first, own_start), min(last, own_stop)
        cut.append(slice(low - own_start, high - own_start))
        pads.append((low - first, last - high))
    return np.pad(values[tuple(cut)], pads, constant_values=np.nan)
