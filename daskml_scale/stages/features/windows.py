"""Statistics of windows of an array, many at a time: sums, extremes, standard deviations.

A window [start, stop) is put together from blocks of 1, 2, 4, ... elements, each made once for the whole array:
n windows of at most m elements cost n log m operations, whatever their order. Only blocks inside a window are
joined, in an order that its length alone decides. So a result depends on the elements of its window and on nothing
else, to the bit: not on how the table was cut, not on an infinite or huge value beside it (a difference of running
sums would), and rounding grows with log m.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np

Columns: TypeAlias = tuple[np.ndarray, ...]
Join: TypeAlias = "Callable[[Columns, int | np.ndarray, Columns, int], Columns]"
"""What is known of neighbouring parts, each with its number of elements -> the same of both together."""
_TURN = 1 << 15
"""Windows that are made together."""


def window_counts(here: np.ndarray, start: np.ndarray, stop: np.ndarray) -> np.ndarray:
    """Return how many elements of ``here[start:stop]`` are true, float64; 0 for an empty window."""
    if here.all():
        return np.asarray(np.maximum(stop - start, 0), dtype="float64")
    until = np.zeros(len(here) + 1, dtype="int64")
    np.cumsum(here, out=until[1:])
    return np.asarray(np.maximum(until[stop] - until[start], 0), dtype="float64")


def window_sums(values: np.ndarray, start: np.ndarray, stop: np.ndarray) -> np.ndarray:
    """Return the sum of ``values[start:stop]`` for every window; 0 for an empty one."""
    return _joined(lambda one, _, other, __: (one[0] + other[0],), (values,), start, stop)[0]


def window_extremes(values: np.ndarray, start: np.ndarray, stop: np.ndarray, *, largest: bool) -> np.ndarray:
    """Return the smallest or largest of ``values[start:stop]`` that is not NaN; NaN where there is none."""
    pick = np.fmax if largest else np.fmin
    found = _joined(lambda one, _, other, __: (pick(one[0], other[0]),), (values,), start, stop)[0]
    return np.where(stop > start, found, np.nan)


def window_deviations(values: np.ndarray, start: np.ndarray, stop: np.ndarray) -> np.ndarray:
    """Return the standard deviation (divisor n - 1) of ``values[start:stop]`` without NaN; NaN for fewer than two."""
    here = ~np.isnan(values)
    count = window_counts(here, start, stop)
    zeros = np.zeros(len(values))
    if here.all():
        squares = _joined(_moments, (values, zeros), start, stop)[1]
    else:
        columns = (np.where(here, values, 0.0), zeros, here.astype("float64"))
        squares = _joined(_counted_moments, columns, start, stop)[1]
    with np.errstate(all="ignore"):
        return np.where(count > 1, np.sqrt(squares / (count - 1)), np.nan)


def _moments(one: Columns, ones: int | np.ndarray, other: Columns, others: int) -> Columns:
    """Join mean and sum of squared deviations of two parts (Chan, Golub & LeVeque 1983)."""
    return _chan(one, ones, other, others / (ones + others))


def _counted_moments(one: Columns, _: int | np.ndarray, other: Columns, __: int) -> Columns:
    """Do the same where elements are missing; the third column counts those that are there."""
    count = one[2] + other[2]
    return *_chan(one, one[2], other, other[2] / np.maximum(count, 1.0)), count


def _chan(one: Columns, ones: int | np.ndarray, other: Columns, share: float | np.ndarray) -> Columns:
    apart = other[0] - one[0]
    mean = apart * share
    apart *= ones  # first: what is joined to nothing does not overflow
    apart *= mean
    apart += one[1]
    apart += other[1]
    mean += one[0]
    return mean, apart


def _joined(join: Join, columns: Columns, start: np.ndarray, stop: np.ndarray) -> Columns:
    """Return what is known of every window; 0 of an empty one. ``columns`` is what is known of single elements.

    Windows that follow one another are taken in turns, so that what they share stays near the processor.
    """
    if len(start) <= _TURN or (start[1:] < start[:-1]).any():
        return _of_turn(join, columns, start, stop)
    parts = []
    for first in range(0, len(start), _TURN):
        begin, end = start[first : first + _TURN], stop[first : first + _TURN]
        low = int(begin[0])
        near = _cut(columns, low, max(low, int(end.max())))
        parts.append(_of_turn(join, near, begin - low, end - low))
    return tuple(np.concatenate(found) for found in zip(*parts, strict=True))


def _of_turn(join: Join, columns: Columns, start: np.ndarray, stop: np.ndarray) -> Columns:
    length = np.maximum(stop - start, 0)
    found = tuple(np.zeros(len(length)) for _ in columns)
    size = len(columns[0])
    # Where many windows have one length, it is cheaper to make all windows of that length than those asked for.
    often = [int(each) for each in np.flatnonzero(16 * np.bincount(length) >= max(128, size)) if each]
    rest = np.flatnonzero(~np.isin(length, often)) if often else np.arange(len(length))
    lengths, at = length[rest], start[rest]
    whole: dict[int, Columns] = {}
    with np.errstate(all="ignore"):
        for bit in range(int(length.max(initial=0)).bit_length()):
            width = 1 << bit
            if width > 1:
                half = width // 2
                columns = join(_cut(columns, 0, -half), half, _cut(columns, half, None), half)
            for each in often:
                if each & width:
                    done = each & (width - 1)
                    columns_after = _cut(columns, done, None)
                    before = _cut(whole[each], 0, len(columns_after[0])) if done else ()
                    whole[each] = join(before, done, columns_after, width) if done else columns
            _extend(join, found, columns, width, rest, lengths, at)
    for each in often:
        rows = np.flatnonzero(length == each)
        places = start[rows]
        for into, made in zip(found, whole[each], strict=True):
            into[rows] = made[places]
    return found


def _extend(
    join: Join, found: Columns, blocks: Columns, width: int, rows: np.ndarray, lengths: np.ndarray, start: np.ndarray
) -> None:
    """Join a block to each of the windows ``rows`` that have one of this width."""
    having = np.flatnonzero(lengths & width)
    done = lengths[having] & (width - 1)  # elements before it, those of the narrower blocks
    at = start[having] + done
    for own in (np.flatnonzero(done == 0), np.flatnonzero(done)):
        if not len(own):
            continue
        which, new = rows[having[own]], tuple(each[at[own]] for each in blocks)
        if done[own[0]]:
            new = join(tuple(each[which] for each in found), done[own], new, width)
        for into, made in zip(found, new, strict=True):
            into[which] = made


def _cut(columns: Columns, start: int, stop: int | None) -> Columns:
    return tuple(each[start:stop] for each in columns)
