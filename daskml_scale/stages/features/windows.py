"""Statistics of windows of an array, many at a time: sums, extremes, standard deviations.

A window [start, stop) is put together from blocks of 1, 2, 4, ... elements, each made once for the whole array:
n windows of at most m elements cost n log m operations, whatever their order. Only blocks inside a window are
joined, in an order that its length alone decides. So a result depends on the elements of its window and on nothing
else, to the bit: not on how the table was cut, not on an infinite or huge value beside it (a difference of running
sums would), and rounding grows with log m. Where the windows lie is worked out once for all statistics of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias

import numpy as np

Columns: TypeAlias = tuple[np.ndarray, ...]
Join: TypeAlias = "Callable[[Columns, int | np.ndarray, Columns, int], Columns]"
"""What is known of neighbouring parts, each with its number of elements -> the same of both together."""
_TURN = 1 << 15
"""Windows that are made together."""


class Windows:
    """Many windows ``[start, stop)`` of arrays of one length; one that ends before it begins is empty.

    Parameters
    ----------
    start, stop : ndarray of int, shape (windows,)
    """

    def __init__(self, start: np.ndarray, stop: np.ndarray) -> None:
        self._start, self._stop = start, stop
        self._length = np.maximum(stop - start, 0)

    def counts(self, here: np.ndarray) -> np.ndarray:
        """Return how many elements of ``here`` are true, float64; 0 for an empty window."""
        if here.all():
            return np.asarray(self._length, dtype="float64")
        until = np.zeros(len(here) + 1, dtype="int64")
        np.cumsum(here, out=until[1:])
        return np.asarray(np.maximum(until[self._stop] - until[self._start], 0), dtype="float64")

    def sums(self, values: np.ndarray) -> np.ndarray:
        """Return the sum of every window; 0 for an empty one."""
        return self._joined(lambda one, _, other, __: (one[0] + other[0],), (values,))[0]

    def extremes(self, values: np.ndarray, *, largest: bool) -> np.ndarray:
        """Return the smallest or largest element that is not NaN; NaN where there is none."""
        pick = np.fmax if largest else np.fmin
        found = self._joined(lambda one, _, other, __: (pick(one[0], other[0]),), (values,))[0]
        found[self._length == 0] = np.nan
        return found

    def deviations(self, values: np.ndarray, count: np.ndarray) -> np.ndarray:
        """Return the standard deviation (divisor n - 1) without NaN; NaN for fewer than two elements.

        Parameters
        ----------
        count : ndarray of float64, shape (windows,)
            What :meth:`counts` says of the elements that are not NaN.
        """
        here = ~np.isnan(values)
        zeros = np.zeros(len(values))
        if here.all():
            squares = self._joined(_moments, (values, zeros))[1]
        else:
            columns = (np.where(here, values, 0.0), zeros, here.astype("float64"))
            squares = self._joined(_counted_moments, columns)[1]
        with np.errstate(all="ignore"):
            return np.where(count > 1, np.sqrt(squares / (count - 1)), np.nan)

    def _joined(self, join: Join, columns: Columns) -> Columns:
        """Return what is known of every window; 0 of an empty one. ``columns`` is what is known of single elements."""
        parts = [_of_turn(join, columns, turn) for turn in self._turns]
        if len(parts) == 1:
            return parts[0]
        return tuple(np.concatenate(found) for found in zip(*parts, strict=True))

    @cached_property
    def _turns(self) -> list[_Turn]:
        """Windows that follow one another are taken in turns, so that what they share stays near the processor."""
        start, count = self._start, len(self._start)
        size = count if (start[1:] < start[:-1]).any() else _TURN
        return [
            _turn(start[first : first + size], self._length[first : first + size])
            for first in range(0, max(1, count), max(1, size))
        ]


@dataclass(frozen=True, eq=False)
class _Turn:
    """Where the windows of one turn lie, places counted from ``low``.

    Attributes
    ----------
    count : int
        Windows.
    low, high : int
        Elements that they reach.
    often : mapping of length to (rows, places)
        Windows of a length that many have: it is cheaper to make all windows of that length than those asked for.
    steps : sequence of sequence of (rows, places, elements before them)
        For blocks of 1, 2, 4, ... elements, the other windows that have one; ``None`` where it is their first.
    """

    count: int
    low: int
    high: int
    often: dict[int, tuple[np.ndarray, np.ndarray]]
    steps: list[list[tuple[np.ndarray, np.ndarray, np.ndarray | None]]]


def _turn(start: np.ndarray, length: np.ndarray) -> _Turn:
    low = int(start.min()) if len(start) else 0
    high = int((start + length).max(initial=low))
    counts = np.bincount(length)
    many = 16 * counts >= max(128, high - low)
    many[:1] = False
    often = {}
    for each in np.flatnonzero(many).tolist():
        rows = np.flatnonzero(length == each)
        often[each] = rows, start[rows] - low
    rest = np.flatnonzero(~many[length]) if len(often) else np.arange(len(length))
    lengths, at = length[rest], start[rest] - low
    bits = int(length.max(initial=0)).bit_length()
    return _Turn(len(length), low, high, often, [list(_step(rest, lengths, at, 1 << bit)) for bit in range(bits)])


def _step(
    rows: np.ndarray, lengths: np.ndarray, start: np.ndarray, width: int
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray | None]]:
    """Yield the windows that have a block of this width: where it is their first, and where others lie before it."""
    having = np.flatnonzero(lengths & width)
    done = lengths[having] & (width - 1)  # elements of the narrower blocks
    first, later = np.flatnonzero(done == 0), np.flatnonzero(done)
    if len(first):
        yield rows[having[first]], start[having[first]], None
    if len(later):
        some, before = having[later], done[later]
        yield rows[some], start[some] + before, before


def _of_turn(join: Join, columns: Columns, turn: _Turn) -> Columns:
    found = tuple(np.zeros(turn.count) for _ in columns)
    columns = _cut(columns, turn.low, turn.high)
    whole: dict[int, Columns] = {}
    with np.errstate(all="ignore"):
        for bit, steps in enumerate(turn.steps):
            width = 1 << bit
            if width > 1:
                half = width // 2
                columns = join(_cut(columns, 0, -half), half, _cut(columns, half, None), half)
            for each in turn.often:
                if each & width:
                    done = each & (width - 1)
                    after = _cut(columns, done, None)
                    before = _cut(whole[each], 0, len(after[0])) if done else ()
                    whole[each] = join(before, done, after, width) if done else columns
            for rows, places, done_before in steps:
                new = tuple(each[places] for each in columns)
                if done_before is not None:
                    new = join(tuple(each[rows] for each in found), done_before, new, width)
                for into, made in zip(found, new, strict=True):
                    into[rows] = made
    for each, (rows, places) in turn.often.items():
        for into, made in zip(found, whole[each], strict=True):
            into[rows] = made[places]
    return found


def _cut(columns: Columns, start: int, stop: int | None) -> Columns:
    return tuple(each[start:stop] for each in columns)


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
