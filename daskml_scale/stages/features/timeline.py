"""Rows found by entity and instant: match columns as numbers, and events in the order of entity, then time.

Match columns are compared by value and categories by label, never by code: two tables may be coded
differently. A missing key matches nothing. Numbers and instants in a narrow range are found by a table, and a
table that is sorted already is not sorted again; what is found never depends on which way was taken.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np

from daskml_scale.spec.expressions import Coded, Values, missing

_MISSING = -(2**63)
"""A missing instant as a number."""
_UNITS = (10**9, 10**6, 10**3, 1)
"""Units that instants may be whole numbers of, in ns."""
_LARGEST = 2**62
"""Search keys stay below it."""
_BLOCK = 1024
"""Rising values that are searched for together."""


def plain(column: np.ndarray) -> np.ndarray:
    """Return a column as sortable numbers; whole numbers stay exact."""
    if column.dtype.kind == "M":
        return column.astype("datetime64[ns]").view("int64")
    return column.astype("float64" if column.dtype.kind == "f" else "int64", copy=False)


def count_up_to(keys: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Return how many of some rising keys are at most each of the rising ``wanted``, as ``numpy.searchsorted`` does.

    Each block of values is looked for among the keys between its ends: half the steps, and those near the processor.
    """
    if len(wanted) < 4 * _BLOCK:
        return np.asarray(np.searchsorted(keys, wanted, "right"))
    found = np.empty(len(wanted), dtype="int64")
    ends = [*np.searchsorted(keys, wanted[::_BLOCK], "right").tolist(), len(keys)]
    for number, first in enumerate(range(0, len(wanted), _BLOCK)):
        low, high = ends[number], ends[number + 1]
        part = slice(first, first + _BLOCK)
        found[part] = keys[low:high].searchsorted(wanted[part], "right")
        found[part] += low
    return found


class _Distinct:
    """The distinct values of an array, numbered in rising order."""

    def __init__(self, values: np.ndarray) -> None:
        self._low = 0
        self._table = self._values = np.empty(0, dtype="int64")
        if not len(values):
            self.size = 0
            return
        low, high = values.min(), values.max()
        if values.dtype.kind == "i" and int(high) - int(low) < 4 * len(values) + 1024:
            self._low = int(low)
            seen = np.zeros(int(high) - int(low) + 1, dtype=bool)
            seen[values - low] = True
            self._table = np.where(seen, np.cumsum(seen) - 1, -1)
            self.size = int(seen.sum())
        else:
            self._values = np.unique(values)
            self.size = len(self._values)

    def find(self, values: np.ndarray) -> np.ndarray:
        """Return the number of each value, -1 where it is not among them."""
        if not self.size:
            return np.full(len(values), -1)
        if not len(self._table) or values.dtype.kind != "i":
            known = self._values if len(self._values) else self._low + np.flatnonzero(self._table >= 0)
            at = np.minimum(np.searchsorted(known, values), len(known) - 1)
            return np.where(known[at] == values, at, -1)
        # A difference that wraps around is never within the table: it is the right one modulo 2**64.
        place = values - self._low
        inside = place.view("uint64") < len(self._table)
        if inside.all():
            return np.asarray(self._table[place])
        return np.where(inside, self._table[np.where(inside, place, 0)], -1)


class _Part:
    """Values of one match column, numbered."""

    def __init__(self, column: Values) -> None:
        self.labels: tuple[str, ...] | None = None
        if isinstance(column, Coded):
            self.labels = column.labels
            self.size = len(column.labels)
        else:
            absent, values = missing(column), plain(column)
            self._distinct = _Distinct(values[~absent] if absent.any() else values)
            self.size = self._distinct.size

    def encode(self, column: Values) -> np.ndarray:
        if isinstance(column, Coded) != (self.labels is not None):
            raise TypeError("a category matches categories only")
        if isinstance(column, Coded):
            assert self.labels is not None
            if column.labels == self.labels:
                return np.asarray(np.maximum(column.codes, -1), dtype="int64")
            known = {label: code for code, label in enumerate(self.labels)}
            table = np.array([known.get(label, -1) for label in column.labels] + [-1])
            return np.asarray(table[np.maximum(column.codes, -1)])
        found, absent = self._distinct.find(plain(column)), missing(column)
        return np.where(absent, -1, found) if absent.any() else found


class Keys:
    """The distinct combinations of some match columns, numbered from 0.

    Parameters
    ----------
    columns : sequence of Values, each of shape (rows,)
        None gives one combination: everything matches.
    """

    def __init__(self, columns: Sequence[Values], rows: int) -> None:
        self._parts = [_Part(column) for column in columns]
        self._combined: list[_Distinct] = []
        codes = np.zeros(rows, dtype="int64")
        for part, column in zip(self._parts, columns, strict=True):
            codes = self._joined(codes, part, column)
            if self._numbered:
                break
            absent = codes < 0
            self._combined.append(_Distinct(codes[~absent] if absent.any() else codes))
            codes = self._combined[-1].find(codes)
        self.size = self._parts[0].size if self._numbered else self._combined[-1].size if self._combined else 1
        self.own = codes
        """Number of each row's own combination, -1 where a part is missing."""

    @property
    def _numbered(self) -> bool:
        """Whether the first part is all there is and its values, not being labels, are numbered without a gap."""
        return len(self._parts) == 1 and self._parts[0].labels is None

    def _joined(self, codes: np.ndarray, part: _Part, column: Values) -> np.ndarray:
        new = part.encode(column)
        if part is self._parts[0]:
            return new
        return np.where((codes < 0) | (new < 0), -1, codes * part.size + new)

    def encode(self, columns: Sequence[Values], rows: int) -> np.ndarray:
        """Return the number of each row's combination, -1 where it is not among them; shape (rows,)."""
        if self._numbered:
            return self._parts[0].encode(columns[0])
        codes = np.zeros(rows, dtype="int64")
        for part, distinct, column in zip(self._parts, self._combined, columns, strict=True):
            codes = distinct.find(self._joined(codes, part, column))
        return codes


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
        used = (groups >= 0) & (instants != _MISSING)
        self._whole = bool(used.all())
        """Whether all events are in the timeline, in the order in which they were given."""
        self.order: np.ndarray = np.arange(len(groups)) if self._whole else np.flatnonzero(used)
        """Rows of the events, in the order of the timeline."""
        if not self._whole:
            groups, instants = groups[self.order], instants[self.order]
        self._groups = int(groups.max(initial=-1)) + 1
        self._learn(instants)
        self._keys = groups * self._span + self._ranks(instants)
        if (self._keys[1:] < self._keys[:-1]).any():
            self._whole = False
            order = self._sorted(groups, instants)
            self.order, self._keys = self.order[order], self._keys[order]

    def _learn(self, instants: np.ndarray) -> None:
        """Choose how an instant becomes a number from 0 (before all events) to the span - 1 (the last event)."""
        self._ticks: np.ndarray | None = None
        self._low, self._unit, self._span = 0, 1, 1
        if not len(instants):
            return
        low, high = int(instants.min()), int(instants.max())
        self._unit = next(unit for unit in _UNITS if unit == 1 or bool((instants // unit * unit == instants).all()))
        self._low = low // self._unit - 1
        self._span = high // self._unit - self._low + 1
        if self._span * max(1, self._groups) >= _LARGEST:
            self._ticks = np.unique(instants)
            self._span = len(self._ticks) + 1

    def _ranks(self, instants: np.ndarray, *, inclusive: bool = True) -> np.ndarray:
        if self._ticks is not None:
            return np.searchsorted(self._ticks, instants, "right" if inclusive else "left")
        if not inclusive:
            instants = np.where(instants == _MISSING, instants, instants - 1)
        # Clipped before the subtraction, which would wrap around.
        ticks = np.clip(instants // self._unit, self._low, self._low + self._span - 1)
        return np.asarray(ticks - self._low)

    def _sorted(self, groups: np.ndarray, instants: np.ndarray) -> np.ndarray:
        if self._groups <= 2**16 and not (instants[1:] < instants[:-1]).any():
            return np.argsort(groups.astype("uint16"), kind="stable")  # by radix
        return np.argsort(self._keys, kind="stable")

    def arranged(self, values: np.ndarray) -> np.ndarray:
        """Return a column of the events in the order of the timeline."""
        return values if self._whole else values[self.order]

    @cached_property
    def _firsts(self) -> np.ndarray:
        """Place of the first event of each group, of a group beyond them, and for no group."""
        firsts = np.searchsorted(self._keys, np.arange(self._groups) * self._span)
        return np.append(firsts, [len(self._keys), 0])

    def first(self, groups: np.ndarray) -> np.ndarray:
        """Return how many events of the timeline lie in lower groups; shape (rows,). No group has none."""
        return np.asarray(self._firsts[np.minimum(groups, self._groups)])

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
        wanted = groups * self._span + self._ranks(plain(instants), inclusive=inclusive)
        if np.array_equal(wanted, self._keys):  # each event asks for itself: no search is needed
            ends = np.flatnonzero(np.append(wanted[1:] != wanted[:-1], len(wanted) > 0)) + 1
            return np.asarray(np.repeat(ends, np.diff(ends, prepend=0)))
        if not (wanted[1:] < wanted[:-1]).any():
            return count_up_to(self._keys, wanted)
        if len(wanted) < 1024 or self._groups > 2**16 - 2:
            return np.asarray(np.searchsorted(self._keys, wanted, "right"))
        # In the order of the groups the search goes through the keys once, and most often finds them at hand.
        order = np.argsort((np.clip(groups, -1, self._groups) + 1).astype("uint16"), kind="stable")
        wanted = wanted[order]
        rising = not (wanted[1:] < wanted[:-1]).any()
        found = np.empty(len(wanted), dtype="int64")
        found[order] = count_up_to(self._keys, wanted) if rising else np.searchsorted(self._keys, wanted, "right")
        return found

    def places(self, events: int, rows: np.ndarray) -> np.ndarray:
        """Return where ``rows`` of the events stand in the timeline, -1 for those left out; shape (rows,)."""
        if self._whole:
            return rows
        where = np.full(events + 1, -1)  # the last one is for rows that are no event
        where[self.order] = np.arange(len(self.order))
        return np.asarray(where[rows])

    @property
    def nbytes(self) -> int:
        ticks = 0 if self._ticks is None else self._ticks.nbytes
        return int(self.order.nbytes + self._keys.nbytes + ticks)
