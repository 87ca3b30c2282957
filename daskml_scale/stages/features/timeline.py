"""Rows found by entity and instant: events in the order of entity, then time, with one search key for both.

A table that is sorted already is not sorted again, and where many rows are looked for, an index leads near each of
them; what is found never depends on which way was taken.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np

from .keys import plain

MISSING = -(2**63)
"""A missing instant as a number."""
_UNITS = (10**9, 10**6, 10**3, 1)
"""Units that instants may be whole numbers of, in ns."""
_LARGEST = 2**62
"""Search keys stay below it."""
_BLOCK = 1024
"""Rising values that are searched for together."""
_FEW = 1024
"""For fewer values an index of the events is not worth its making."""


def count_up_to(keys: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Return how many of some rising keys are at most each of the rising ``wanted``, as ``numpy.searchsorted`` does.

    Each block of values is looked for among the keys between its ends: half the steps, and those near the processor.
    """
    if len(wanted) < 4 * _BLOCK:
        return np.asarray(np.searchsorted(keys, wanted, "right"))
    if len(wanted) == len(keys) and (lag := _usual_lag(keys, wanted)):
        return _lagging(keys, wanted, lag)
    found = np.empty(len(wanted), dtype="int64")
    ends = [*np.searchsorted(keys, wanted[::_BLOCK], "right").tolist(), len(keys)]
    for number, first in enumerate(range(0, len(wanted), _BLOCK)):
        low, high = ends[number], ends[number + 1]
        part = slice(first, first + _BLOCK)
        found[part] = keys[low:high].searchsorted(wanted[part], "right")
        found[part] += low
    return found


def _usual_lag(keys: np.ndarray, wanted: np.ndarray) -> int:
    """Return by how many places most of the ``wanted``, as many as there are keys, lie before their own, give or take
    one: regular readings, looked back from. 0 where there is no such number.
    """
    step = 64
    lags = np.arange(0, len(wanted), step) - np.searchsorted(keys, wanted[::step], "right")
    usual = int(np.median(lags))
    return usual if 0 < usual < len(keys) // 2 and 4 * np.count_nonzero(abs(lags - usual) < 2) > 3 * len(lags) else 0


def _lagging(keys: np.ndarray, wanted: np.ndarray, lag: int) -> np.ndarray:
    """Return what `count_up_to` does; only where ``lag`` is wrong by more than one it is searched for."""
    first, size = lag + 2, len(keys)
    late = wanted[first:]
    found = np.empty(size, dtype="int64")
    near = found[first:]
    near[:] = np.arange(1, size - lag - 1)
    near += keys[1 : size - lag - 1] <= late
    near += keys[2 : size - lag] <= late
    wrong = np.ones(size, dtype=bool)
    wrong[first:] = (keys[: size - lag - 2] > late) | (keys[3 : size - lag + 1] <= late)
    others = np.flatnonzero(wrong)
    found[others] = np.searchsorted(keys, wanted[others], "right")
    return found


class Timeline:
    """Events sorted by group, then time, then table order, with one search key for group and time.

    Parameters
    ----------
    groups : ndarray of int, shape (events,)
        Negative: the event is left out.
    times : ndarray of datetime64, shape (events,)
        Missing: the event is left out.
    """

    def __init__(self, groups: np.ndarray, times: np.ndarray) -> None:
        instants = plain(times)
        used = (groups >= 0) & (instants != MISSING)
        self.whole = bool(used.all())
        """Whether all events are in the timeline, in the order in which they were given."""
        self.order: np.ndarray = np.arange(len(groups)) if self.whole else np.flatnonzero(used)
        """Rows of the events, in the order of the timeline."""
        if not self.whole:
            groups, instants = groups[self.order], instants[self.order]
        self._groups = int(groups.max(initial=-1)) + 1
        ranks = self._learnt(instants)
        self._keys = groups * self._span
        self._keys += ranks
        if (self._keys[1:] < self._keys[:-1]).any():
            order = self._sorted(groups, instants)
            self.order = order if self.whole else self.order[order]
            self._keys, self.whole = self._keys[order], False

    def _learnt(self, instants: np.ndarray) -> np.ndarray:
        """Choose how an instant becomes a number from 0 (before all events) to the span - 1 (the last event).

        Returns
        -------
        ndarray of int, shape (events,)
            Those of the events.
        """
        self._ticks: np.ndarray | None = None
        self._low, self._unit, self._span = 0, 1, 1
        if not len(instants):
            return instants
        low, high = int(instants.min()), int(instants.max())
        for self._unit in _UNITS:
            whole = instants // self._unit
            if self._unit == 1 or np.array_equal(whole * self._unit, instants):
                break
        self._low = low // self._unit - 1
        self._span = high // self._unit - self._low + 1
        if self._span * max(1, self._groups) >= _LARGEST:
            self._ticks = np.unique(instants)
            self._span = len(self._ticks) + 1
            return self._ranks(instants)
        return np.asarray(whole - self._low)

    def _ranks(self, instants: np.ndarray, *, inclusive: bool = True) -> np.ndarray:
        if self._ticks is not None:
            return np.searchsorted(self._ticks, instants, "right" if inclusive else "left")
        if not inclusive:
            instants = np.where(instants == MISSING, instants, instants - 1)
        # Clipped before the subtraction, which would wrap around.
        ticks = instants // self._unit
        np.maximum(ticks, self._low, out=ticks)
        np.minimum(ticks, self._low + self._span - 1, out=ticks)
        ticks -= self._low
        return np.asarray(ticks)

    def _sorted(self, groups: np.ndarray, instants: np.ndarray) -> np.ndarray:
        if self._groups <= 2**16 and not (instants[1:] < instants[:-1]).any():
            return np.argsort(groups.astype("uint16"), kind="stable")  # by radix
        return np.argsort(self._keys, kind="stable")

    def arranged(self, values: np.ndarray) -> np.ndarray:
        """Return a column of the events in the order of the timeline."""
        return values if self.whole else values.take(self.order)

    @cached_property
    def _firsts(self) -> np.ndarray:
        """Place of the first event of each group, of a group beyond them, and for no group."""
        firsts = np.searchsorted(self._keys, np.arange(self._groups) * self._span)
        return np.append(firsts, [len(self._keys), 0])

    def first(self, groups: np.ndarray) -> np.ndarray:
        """Return how many events of the timeline lie in lower groups; shape (rows,). No group has none."""
        return np.asarray(self._firsts.take(np.minimum(groups, self._groups)))

    def count(self, groups: np.ndarray, instants: np.ndarray, *, inclusive: bool = True) -> np.ndarray:
        """Return how many events of the timeline lie before each (group, instant), lower groups included.

        Parameters
        ----------
        groups : ndarray of int, shape (rows,)
        instants : ndarray of datetime64, shape (rows,)
            A missing one lies before all events of its group.
        inclusive : bool
            Whether an event at the instant itself counts.
        """
        groups = np.minimum(groups, self._groups)  # all groups beyond are one: a larger number could wrap around
        ranks = self._ranks(plain(instants), inclusive=inclusive)
        wanted = groups * self._span + ranks
        if np.array_equal(wanted, self._keys):  # each event asks for itself: no search is needed
            return self.of_each()
        if not (wanted[1:] < wanted[:-1]).any():
            return count_up_to(self._keys, wanted)
        if len(wanted) < _FEW or not len(self._keys):
            return np.asarray(np.searchsorted(self._keys, wanted, "right"))
        return self._near(groups, ranks, wanted)

    @property
    def even(self) -> bool:
        """Whether search keys are as far apart as the instants of their events."""
        return self._ticks is None

    def of_each(self) -> np.ndarray:
        """Return what `count` says of the events themselves, in the order of the timeline."""
        apart = self._keys[1:] != self._keys[:-1]
        if apart.all():
            return np.arange(1, len(self._keys) + 1)
        ends = np.flatnonzero(np.append(apart, len(self._keys) > 0)) + 1
        return np.asarray(np.repeat(ends, np.diff(ends, prepend=0)))

    def before_each(self, groups: np.ndarray, span: int) -> np.ndarray:
        """Return what `count` says of ``span`` ns before each of the events; of an `even` timeline.

        Parameters
        ----------
        groups : ndarray of int, shape (events,)
            Those of the events, in the order of the timeline.
        """
        wanted = self._keys + -span // self._unit
        np.maximum(wanted, groups * self._span, out=wanted)
        return count_up_to(self._keys, wanted)

    @cached_property
    def _index(self) -> tuple[int, np.ndarray, np.ndarray]:
        """How many events lie before each span of time of each group: twice as many spans as events, or a few more.

        Returns
        -------
        shift : int
            A number of an instant becomes that of its span without its lowest ``shift`` bits.
        until : ndarray of int, shape ((spans + 1) * groups,)
            Span after span, each for all groups: rows that ask about one time look at neighbours.
        ended : ndarray of int, shape (events + 1,)
            The search keys, and one that is larger than any.
        """
        events, groups = len(self._keys), np.repeat(np.arange(self._groups), np.diff(self._firsts[:-1]))
        shift = (self._span * self._groups // max(1, 2 * events)).bit_length()
        width = ((self._span - 1) >> shift) + 1
        spans = (self._keys - groups * self._span) >> shift
        spans += groups * width
        by_group = np.zeros(self._groups * width + 1, dtype="int32" if events < 2**31 else "int64")
        np.cumsum(np.bincount(spans, minlength=self._groups * width), dtype=by_group.dtype, out=by_group[1:])
        until = np.empty((width + 1, self._groups), dtype=by_group.dtype)
        until[:-1] = by_group[:-1].reshape(self._groups, width).T
        until[-1] = by_group[width::width]
        ended = np.append(self._keys, 2**63 - 1)
        self._keys = ended[:-1]  # held once
        return shift, until.ravel(), ended

    def _near(self, groups: np.ndarray, ranks: np.ndarray, wanted: np.ndarray) -> np.ndarray:
        """Return how many keys are at most each of the ``wanted``, by bisection within its span of time."""
        shift, until, ended = self._index
        known = not groups.size or (groups.min() >= 0 and groups.max() < self._groups)
        span = ranks >> shift
        span *= self._groups
        span += groups if known else np.clip(groups, 0, self._groups - 1)
        low = until.take(span)
        # What lies in a later span is later than what is looked for; most spans have one event or none.
        before = ended.take(low) <= wanted
        found = low.astype("int64")
        found += before
        rows = np.flatnonzero(before)
        low, high = found.take(rows), until.take(span.take(rows) + self._groups)
        left = np.flatnonzero(low < high)
        rows, low, high = rows.take(left), low.take(left), high.take(left)
        sought = wanted.take(rows)
        while len(rows):
            middle = low + ((high - low) >> 1)
            before = ended.take(middle) <= sought
            low, high = np.where(before, middle + 1, low), np.where(before, high, middle)
            found[rows] = low
            left = np.flatnonzero(low < high)
            rows, low, high, sought = rows.take(left), low.take(left), high.take(left), sought.take(left)
        if not known:
            found[groups < 0] = 0
            found[groups >= self._groups] = len(self._keys)
        return np.asarray(found)

    def places(self, events: int, rows: np.ndarray) -> np.ndarray:
        """Return where ``rows`` of the events stand in the timeline, -1 for those left out; shape (rows,)."""
        if self.whole:
            return rows
        where = np.full(events + 1, -1)  # the last one is for rows that are no event
        where[self.order] = np.arange(len(self.order))
        return np.asarray(where[rows])

    @property
    def nbytes(self) -> int:
        ticks = 0 if self._ticks is None else self._ticks.nbytes
        return int(self.order.nbytes + self._keys.nbytes + self._index[1].nbytes + ticks)
