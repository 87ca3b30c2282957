"""Kernels of the steps that look at other rows: lookup, as-of, trailing windows.

Match columns are compared by value and categories by label, never by code: two tables may be coded
differently. A missing key matches nothing. A window's value depends on the rows inside the window
only, added in one order (time, then table order): not on chunks, and not on later rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from daskml_scale.errors import DaskMLError
from daskml_scale.spec.base import nanoseconds
from daskml_scale.spec.expressions import Coded, Values, missing
from daskml_scale.spec.steps import AsOf, Lookup, Trailing

from .kernels import numbers


def _plain(column: np.ndarray) -> np.ndarray:
    """Return a column as sortable numbers; whole numbers stay exact."""
    if column.dtype.kind == "M":
        return column.astype("datetime64[ns]").view("int64")
    return column.astype("float64" if column.dtype.kind == "f" else "int64")


def _find(distinct: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Return the position of each value in a sorted array, -1 where it is not in it."""
    if not len(distinct):
        return np.full(len(values), -1)
    at = np.minimum(np.searchsorted(distinct, values), len(distinct) - 1)
    return np.where(distinct[at] == values, at, -1)


class _Part:
    """Values of one match column, numbered."""

    def __init__(self, column: Values) -> None:
        self.labels: dict[str, int] | None = None
        self.distinct = np.empty(0)
        if isinstance(column, Coded):
            self.labels = {label: code for code, label in enumerate(column.labels)}
            self.size = len(column.labels)
        else:
            self.distinct = np.unique(_plain(column)[~missing(column)])
            self.size = len(self.distinct)

    def encode(self, column: Values) -> np.ndarray:
        if isinstance(column, Coded) != (self.labels is not None):
            raise TypeError("a category matches categories only")
        if isinstance(column, Coded):
            assert self.labels is not None
            table = np.array([self.labels.get(label, -1) for label in column.labels] + [-1])
            return table[np.where(column.codes < 0, -1, column.codes)]
        return np.where(missing(column), -1, _find(self.distinct, _plain(column)))


class Keys:
    """The distinct combinations of some match columns, numbered from 0.

    Parameters
    ----------
    columns : sequence of Values, each of shape (rows,)
        None gives one combination: everything matches.
    """

    def __init__(self, columns: Sequence[Values], rows: int) -> None:
        self._parts = [_Part(column) for column in columns]
        self._combined: list[np.ndarray] = []
        codes = np.zeros(rows, dtype="int64")
        for part, column in zip(self._parts, columns, strict=True):
            codes = self._joined(codes, part, column)
            self._combined.append(np.unique(codes[codes >= 0]))
            codes = _find(self._combined[-1], codes)
        self.size = len(self._combined[-1]) if self._combined else 1
        self.own = codes
        """Number of each row's own combination, -1 where a part is missing."""

    @staticmethod
    def _joined(codes: np.ndarray, part: _Part, column: Values) -> np.ndarray:
        new = part.encode(column)
        return np.where((codes < 0) | (new < 0), -1, codes * part.size + new)

    def encode(self, columns: Sequence[Values], rows: int) -> np.ndarray:
        """Return the number of each row's combination, -1 where it is not among them; shape (rows,)."""
        codes = np.zeros(rows, dtype="int64")
        for part, distinct, column in zip(self._parts, self._combined, columns, strict=True):
            codes = _find(distinct, self._joined(codes, part, column))
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
        used = np.flatnonzero((groups >= 0) & ~np.isnat(times))
        self._distinct, rank = np.unique(_plain(times[used]), return_inverse=True)
        keys = groups[used] * (len(self._distinct) + 1) + rank + 1
        order = np.argsort(keys, kind="stable")
        self.order: np.ndarray = used[order]
        """Rows of the events, in the order of the timeline."""
        self._keys = keys[order]

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
        rank = np.searchsorted(self._distinct, _plain(instants), "right" if inclusive else "left")
        return np.searchsorted(self._keys, groups * (len(self._distinct) + 1) + rank, "right")

    def places(self, events: int, rows: np.ndarray) -> np.ndarray:
        """Return where ``rows`` of the events stand in the timeline, -1 for those left out; shape (rows,)."""
        where = np.full(events + 1, -1)  # the last one is for rows that are no event
        where[self.order] = np.arange(len(self.order))
        return np.asarray(where[rows])

    @property
    def nbytes(self) -> int:
        return int(self.order.nbytes + self._keys.nbytes + self._distinct.nbytes)


@dataclass(frozen=True, eq=False)
class Join:
    """Another table, prepared for a lookup or as-of step; built once per process.

    Attributes
    ----------
    rows : ndarray of int
        Lookup: row of each key. As-of: empty.
    taken : list of ndarray of float64, each of shape (rows of the other table,)
    """

    keys: Keys
    rows: np.ndarray
    timeline: Timeline | None
    taken: list[np.ndarray]

    @property
    def nbytes(self) -> int:
        own = sum(array.nbytes for array in self.taken) + self.keys.own.nbytes + self.rows.nbytes
        return int(own + (self.timeline.nbytes if self.timeline else 0))


def prepare(step: Lookup | AsOf, columns: Mapping[str, Values], position: int = 0) -> Join:
    """Prepare another table for a step.

    Raises
    ------
    DaskMLError
        When a lookup's key is not unique there.
    """
    taken = [numbers(columns[name]) for name in step.take]
    if isinstance(step, AsOf):
        times = np.asarray(columns[step.their_time])
        keys = Keys([columns[name] for name in step.match], len(times))
        return Join(keys, np.empty(0, dtype="int64"), Timeline(keys.own, times), taken)
    name = step.their_key or step.key
    column = columns[name]
    keys = Keys([column], len(column))
    present = np.flatnonzero(keys.own >= 0)
    found = keys.own[present]
    counts = np.bincount(found, minlength=keys.size)
    if (counts > 1).any():
        row = int(present[found == int(np.argmax(counts > 1))][0])
        value = column.labels[int(column.codes[row])] if isinstance(column, Coded) else column[row].item()
        raise DaskMLError(
            f"steps[{position}].lookup: table {step.table!r} has {int(counts.max())} rows with {name} = {value!r}, and "
            f"{int((counts > 1).sum())} such keys; a lookup key is unique: remove the duplicates, or use as_of"
        )
    rows = np.empty(keys.size, dtype="int64")
    rows[found] = present
    return Join(keys, rows, None, taken)


def lookup(step: Lookup, join: Join, columns: Mapping[str, Values]) -> list[np.ndarray]:
    """Return the values of the other table by key, NaN without a match; one array per name taken."""
    column = columns[step.key]
    codes = join.keys.encode([column], len(column))
    return _take(join, join.rows[codes] if len(join.rows) else codes, codes >= 0)


def as_of(
    step: AsOf,
    join: Join,
    columns: Mapping[str, Values],
    known_at: np.ndarray,
    itself: np.ndarray | None = None,
) -> list[np.ndarray]:
    """Return the last values recorded at or before ``known_at``, NaN without a match; one array per name taken.

    Parameters
    ----------
    itself : ndarray of int, shape (rows,), optional
        The row of the other table that is the row itself: the one before it counts in its place.
    """
    assert join.timeline is not None
    groups = join.keys.encode([columns[name] for name in step.match], len(known_at))
    stop = join.timeline.count(groups, known_at)
    if step.tolerance is None:
        start = join.timeline.count(groups, np.full(len(known_at), np.datetime64("NaT", "ns")))
    else:
        earliest = known_at - np.timedelta64(nanoseconds(step.tolerance), "ns")
        start = join.timeline.count(groups, earliest, inclusive=False)
    order = join.timeline.order
    if not len(order):
        return _take(join, stop, np.zeros(len(stop), dtype=bool))
    if itself is not None:
        stop = stop - ((stop > start) & (order[np.maximum(stop - 1, 0)] == itself))
    found = stop > start
    return _take(join, order[np.where(found, stop - 1, 0)], found)


def _take(join: Join, rows: np.ndarray, found: np.ndarray) -> list[np.ndarray]:
    if not found.any():
        return [np.full(len(found), np.nan) for _ in join.taken]
    rows = np.where(found, rows, 0)
    return [np.where(found, values[rows], np.nan) for values in join.taken]


def trailing(
    step: Trailing,
    columns: Mapping[str, Values],
    known_at: np.ndarray,
    events: Mapping[str, Values],
    itself: np.ndarray | None = None,
) -> list[np.ndarray]:
    """Return a statistic of earlier rows over windows that end at ``known_at``; one array per window.

    Parameters
    ----------
    columns : mapping of match column to Values of shape (rows,)
    known_at : ndarray of datetime64, shape (rows,)
    events : mapping of column to Values of shape (events,)
        The earlier rows, in table order: at least all whose ``at`` lies in a window.
    itself : ndarray of int, shape (rows,), optional
        Which event is the row itself, -1 for none: it is left out of its own window.
    """
    of, times = events[step.of], np.asarray(events[step.at])
    keys = Keys([events[name] for name in step.match], len(times))
    timeline = Timeline(np.where(missing(of), -1, keys.own), times)
    groups = keys.encode([columns[name] for name in step.match], len(known_at))
    values = np.ones(len(times)) if step.stat == "count" else numbers(of)
    values = values[timeline.order]
    stop = timeline.count(groups, known_at)
    place = np.full(len(known_at), -1) if itself is None else timeline.places(len(times), itself)
    features = []
    for window in step.windows:
        start = timeline.count(groups, known_at - np.timedelta64(nanoseconds(window), "ns"))
        start = np.minimum(start, stop)  # a window that begins before 1677 would wrap around
        inside = (place >= start) & (place < stop)
        count = (stop - start - inside).astype("float64")
        if step.stat == "count":
            features.append(count)
            continue
        # What lies on either side of the row itself: its own value must not even round the sum.
        total = window_sums(values, start, np.where(inside, place, stop))
        total[inside] += window_sums(values, place[inside] + 1, stop[inside])
        if step.stat == "mean":
            with np.errstate(invalid="ignore", divide="ignore"):
                total = total / count
        features.append(total)
    return features


def window_sums(values: np.ndarray, start: np.ndarray, stop: np.ndarray) -> np.ndarray:
    """Return the sum of ``values[start:stop]`` for every window; 0 for an empty one.

    Each sum adds the elements of its window and nothing else (a difference of running sums would not:
    one NaN or 1e300 spoils all later rows, and rounding depends on where the table was cut). Equal
    windows are added once; sorting the rest keeps the gaps between them disjoint, so the cost is that
    of the windows' elements.
    """
    width = len(values) + 1
    windows, row = np.unique(start * width + stop, return_inverse=True)
    bounds = np.empty(2 * len(windows), dtype="int64")
    bounds[0::2], bounds[1::2] = np.divmod(windows, width)
    if not len(windows):
        return np.zeros(len(start))
    with np.errstate(all="ignore"):
        sums = np.add.reduceat(np.append(values, 0.0), bounds)[0::2]
    return np.where(bounds[1::2] > bounds[0::2], sums, 0.0)[row]
