"""Statistics of windows of an array, many at a time: sums, extremes, standard deviations.

A window [start, stop) is put together from blocks of 1, 2, 4, ... elements, each made once for the whole array:
n windows of at most m elements cost n log m operations, whatever their order. Only blocks inside a window are
joined, in an order that its length alone decides. So a result depends on the elements of its window and on nothing
else, to the bit: not on how the table was cut, not on an infinite or huge value beside it (a difference of running
sums would), and rounding grows with log m. Elements that do not count are taken out first, so those left are finite.
Where the windows lie is worked out once for all statistics of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np

Columns: TypeAlias = tuple[np.ndarray, ...]
_TURN = 1 << 15
"""Windows that are made together."""


class Present:
    """The elements of an array that count.

    Sums and extremes are made of all elements, of which those that do not count are *filled* with what changes
    nothing: then many windows are of one length. Where that is not possible the others are taken out, and the windows
    of the array become windows of what is left.

    Parameters
    ----------
    here : ndarray of bool, shape (elements,)
    """

    def __init__(self, here: np.ndarray) -> None:
        self._here = None if here.all() else here
        self._until = np.zeros(0 if self._here is None else len(here) + 1, dtype="int64")
        if self._here is not None:
            np.cumsum(here, out=self._until[1:])

    def counts(self, start: np.ndarray, stop: np.ndarray) -> np.ndarray:
        """Return how many elements of every window count, float64."""
        return self.windows(start, stop).counts()

    def filled(self, array: np.ndarray, neutral: float) -> np.ndarray:
        """Return the array with ``neutral`` for what does not count: -0.0 in sums, an infinity in extremes."""
        return array if self._here is None else np.where(self._here, array, neutral)

    def values(self, array: np.ndarray) -> np.ndarray:
        """Return the elements of an array that count."""
        return array if self._here is None else array[self._here]

    def windows(self, start: np.ndarray, stop: np.ndarray) -> Windows:
        """Return the windows ``[start, stop)`` of the array."""
        if self._here is None:
            return Windows(start, stop)
        return Windows(self._until.take(start), self._until.take(stop))


class Windows:
    """Many windows ``[start, stop)`` of arrays of one length; one that ends before it begins is empty.

    Parameters
    ----------
    start, stop : ndarray of int, shape (windows,)
    """

    def __init__(self, start: np.ndarray, stop: np.ndarray) -> None:
        self._start, self._length = start, np.maximum(stop - start, 0)

    def counts(self) -> np.ndarray:
        """Return how many elements every window has, float64."""
        return np.asarray(self._length, dtype="float64")

    def sums(self, values: np.ndarray) -> np.ndarray:
        """Return the sum of every window of finite values; 0 for an empty one."""
        (found,) = self._made(lambda turn: _joined(_Sums(), values, turn))
        found[self._length == 0] = 0.0
        return found

    def extremes(self, values: np.ndarray, *, largest: bool) -> np.ndarray:
        """Return the smallest or largest of the values, of which none is NaN; NaN for an empty window."""
        (found,) = self._made(lambda turn: (_extremes(np.maximum if largest else np.minimum, values, turn),))
        found[self._length == 0] = np.nan
        return found

    def spreads(self, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the sums, and the standard deviations (divisor n - 1; NaN for fewer than two), of finite values.

        A deviation is NaN, too, where the sum of its window is beyond float64.
        """
        total, squares = self._made(lambda turn: _joined(_Spreads(), values, turn))
        total[self._length == 0] = 0.0
        with np.errstate(all="ignore"):
            squares /= self._length - 1
            np.sqrt(squares, out=squares)
        squares[self._length < 2] = np.nan
        return total, squares

    def _made(self, make: Callable[[_Turn], Columns]) -> Columns:
        with np.errstate(over="ignore", invalid="ignore"):
            parts = [make(turn) for turn in self._turns]
        return parts[0] if len(parts) == 1 else tuple(map(np.concatenate, zip(*parts, strict=True)))

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
    low, high : int
        Elements that they reach.
    bits : int
        Blocks of up to ``2 ** (bits - 1)`` elements fit into a window.
    start, length : ndarray of int, shape (windows,)
    """

    low: int
    high: int
    bits: int
    start: np.ndarray
    length: np.ndarray

    @cached_property
    def often(self) -> list[int]:
        """Lengths that many windows have, the most frequent first.

        It is cheaper to make all windows of such a length than those asked for.
        """
        counts = np.bincount(self.length)
        many = 16 * counts >= max(128, self.high - self.low)
        many[:1] = False
        return sorted(np.flatnonzero(many).tolist(), key=lambda each: -counts[each])

    @cached_property
    def rest(self) -> np.ndarray:
        """Windows of other lengths."""
        others = np.ones(len(self.length), dtype=bool)
        for each in self.often:
            others &= self.length != each
        return np.flatnonzero(others)

    @cached_property
    def steps(self) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """For blocks of 1, 2, 4, ... elements, which of ``rest`` have one, where, and the elements before it."""
        lengths, start = self.length.take(self.rest), self.start.take(self.rest)
        found = []
        for bit in range(self.bits):
            having = np.flatnonzero((lengths & (1 << bit)) != 0)
            before = lengths.take(having) & ((1 << bit) - 1)
            found.append((having, start.take(having) + before, before))
        return found

    @cached_property
    def shorter(self) -> list[np.ndarray]:
        """For blocks of 1, 2, 4, ... elements but the widest, the windows of which that is the widest."""
        some = np.flatnonzero(self.length < 1 << max(0, self.bits - 1))
        width = np.frexp(self.length.take(some))[1] - 1  # exact: lengths are far below 2**53
        return [some[width == bit] for bit in range(self.bits - 1)]


def _turn(start: np.ndarray, length: np.ndarray) -> _Turn:
    low = int(start.min()) if len(start) else 0
    high = int((start + length).max(initial=low))
    return _Turn(low, high, int(length.max(initial=0)).bit_length(), start - low, length)


def _extremes(pick: Any, values: np.ndarray, turn: _Turn) -> np.ndarray:
    """Return the extremes of windows: a window is two blocks, the widest at its start and the widest at its end."""
    if not turn.bits:
        return np.full(len(turn.length), np.nan)
    blocks, shorter = values[turn.low : turn.high], []
    for bit, rows in enumerate(turn.shorter):
        start = turn.start.take(rows)
        shorter.append(pick(blocks.take(start), blocks.take(start + turn.length.take(rows) - (1 << bit))))
        blocks = pick(blocks[: -(1 << bit)], blocks[1 << bit :])
    # What is too short for the widest blocks is made of any, and then overwritten.
    end = turn.start + turn.length
    end -= 1 << (turn.bits - 1)
    found: np.ndarray = pick(blocks.take(turn.start, mode="clip"), blocks.take(end, mode="clip"))
    for rows, made in zip(turn.shorter, shorter, strict=True):
        found[rows] = made
    return found


class _Sums:
    """Sums of blocks, of windows, and of both together: how `_joined` puts windows together."""

    columns = 1
    """How many are known of a window."""
    asked: tuple[int, ...] = (0,)
    """Which of them are asked for."""

    def doubled(self, blocks: Columns, half: int) -> Columns:
        """Return what is known of all blocks of ``2 * half`` elements, from that of blocks of ``half``."""
        (total,) = blocks
        return (total[:-half] + total[half:],)

    def window(self, block: Columns, size: int) -> Columns:
        """Return what is known of windows that are one block of ``size`` elements."""
        return block

    def joined(self, one: Columns, ones: int | np.ndarray, block: Columns, size: int) -> Columns:
        """Return what is known of windows of ``ones`` elements, with a block of ``size`` behind them.

        Nothing (no elements, -0.0 in every column) with a block is that block.
        """
        return (one[0] + block[0],)


class _Spreads(_Sums):
    """Sums and sums of squared deviations (Chan, Golub & LeVeque 1983); of windows means, too, which stand between.

    Blocks know their sums, of which halves and doubles are exact; only windows whose lengths are no powers of two need
    means: equal values have no deviation, however many there are.
    """

    columns = 3
    asked = (0, 2)

    def doubled(self, blocks: Columns, half: int) -> Columns:
        total, *squares = blocks
        first, second = total[:-half], total[half:]
        apart = second - first
        apart *= apart
        apart *= 0.5 / half
        for each in squares:  # single elements have none
            apart += each[:-half]
            apart += each[half:]
        return first + second, apart

    def window(self, block: Columns, size: int) -> Columns:
        total, *squares = block
        return total, total / size, squares[0] if squares else np.zeros(len(total))

    def joined(self, one: Columns, ones: int | np.ndarray, block: Columns, size: int) -> Columns:
        total, mean, squares = one
        apart = block[0] / size
        apart -= mean
        step = apart * (size / (ones + size))
        apart *= ones  # first: what is joined to nothing does not overflow
        apart *= step
        apart += squares
        for each in block[1:]:
            apart += each
        step += mean
        return total + block[0], step, apart


def _joined(known: _Sums, values: np.ndarray, turn: _Turn) -> Columns:
    """Return what is asked for of every window of a turn."""
    rest = tuple(np.full(len(turn.rest), -0.0) for _ in range(known.columns))
    blocks: Columns = (values[turn.low : turn.high],)
    whole: dict[int, Columns] = {}
    for bit, (rows, places, before) in enumerate(turn.steps):
        size = 1 << bit
        if bit:
            blocks = known.doubled(blocks, size // 2)
        for each in turn.often:
            if each & size:
                lower = each & (size - 1)
                after = _cut(blocks, lower, None)
                some = _cut(whole[each], 0, len(after[0])) if lower else ()
                whole[each] = known.joined(some, lower, after, size) if lower else known.window(blocks, size)
        if len(rows):
            done = tuple(each.take(rows) for each in rest)
            new = known.joined(done, before, tuple(each.take(places) for each in blocks), size)
            for into, made in zip(rest, new, strict=True):
                into[rows] = made
    return tuple(_gathered(turn, {each: whole[each][at] for each in turn.often}, rest[at]) for at in known.asked)


def _gathered(turn: _Turn, whole: Mapping[int, np.ndarray], rest: np.ndarray) -> np.ndarray:
    """Return one column of all windows: those of frequent lengths, of which all are made, and the others."""
    found = np.empty(len(turn.length))
    for number, each in enumerate(turn.often):
        if number:
            windows = np.flatnonzero(turn.length == each)
            found[windows] = whole[each].take(turn.start.take(windows))
        else:  # all are taken to be of the most frequent length, and the others then overwritten
            found = whole[each].take(turn.start, mode="clip")
    found[turn.rest] = rest
    return found


def _cut(columns: Columns, start: int, stop: int | None) -> Columns:
    return tuple(each[start:stop] for each in columns)
