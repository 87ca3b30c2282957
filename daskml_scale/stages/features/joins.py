"""Kernels of the steps that look at other rows: lookup, as-of, trailing windows.

A window's value depends on the rows inside the window only, in one order (time, then table order): not on
chunks, and not on later rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from daskml_scale.errors import DaskMLError
from daskml_scale.spec.base import nanoseconds
from daskml_scale.spec.expressions import Coded, Values, missing
from daskml_scale.spec.steps import AsOf, Lookup, Trailing

from .kernels import numbers
from .keys import Keys
from .past import Past
from .timeline import Timeline
from .windows import Present, Windows

_ROWS = 1 << 16
"""Rows that are looked for together: what is worked out for them stays near the processor."""


@dataclass(frozen=True, eq=False)
class Join:
    """Another table, prepared for a lookup or as-of step; built once per process.

    Attributes
    ----------
    rows : ndarray of int
        Lookup: row of each key. As-of: empty.
    taken : list of ndarray of float64, each of shape (rows of the other table + 1,)
        As-of: those of the timeline, in its order. The last one is NaN, for no row.
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
        timeline = Timeline(keys.own, times)
        return Join(keys, np.empty(0, dtype="int64"), timeline, _ended([timeline.arranged(values) for values in taken]))
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
    return Join(keys, rows, None, _ended(taken))


def _ended(taken: list[np.ndarray]) -> list[np.ndarray]:
    return [np.append(values, np.nan) for values in taken]


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
    match = {name: columns[name] for name in step.match}
    made = [np.empty(len(known_at)) for _ in join.taken]
    for first in range(0, len(known_at), _ROWS):
        part = slice(first, first + _ROWS)
        some = {name: column[part] for name, column in match.items()}
        found = _as_of(step, join, some, known_at[part], None if itself is None else itself[part])
        for into, values in zip(made, found, strict=True):
            into[part] = values
    return made


def _as_of(
    step: AsOf, join: Join, columns: Mapping[str, Values], known_at: np.ndarray, itself: np.ndarray | None
) -> list[np.ndarray]:
    assert join.timeline is not None
    groups = join.keys.encode([columns[name] for name in step.match], len(known_at))
    stop = join.timeline.count(groups, known_at)
    if step.tolerance is None:
        start = join.timeline.first(groups)
    else:
        earliest = known_at - np.timedelta64(nanoseconds(step.tolerance), "ns")
        start = join.timeline.count(groups, earliest, inclusive=False)
    order = join.timeline.order
    if itself is not None and len(order):
        stop = stop - ((stop > start) & (order[np.maximum(stop - 1, 0)] == itself))
    found = stop > start
    return _take(join, stop - 1, found)


def _take(join: Join, rows: np.ndarray, found: np.ndarray) -> list[np.ndarray]:
    rows = rows if found.all() else np.where(found, rows, -1)
    return [values.take(rows) for values in join.taken]


def trailing(
    step: Trailing,
    columns: Mapping[str, Values],
    known_at: np.ndarray,
    events: Mapping[str, Values],
    itself: np.ndarray | None = None,
    past: Past | None = None,
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
    past : Past, optional
        Of these rows and events.
    """
    past = past or Past(step.at, step.match, columns, known_at, events)
    column = events[step.of]
    counts = ~missing(column) if step.stat == "count" else np.isfinite(numbers(column))
    present = Present(past.timeline.arranged(counts))
    values = None if step.stat == "count" else present.filled(past.timeline.arranged(numbers(column)), -0.0)
    own = None if itself is None else past.places(itself)
    features = []
    for window in step.windows:
        start, stop = past.start(nanoseconds(window)), past.stop
        middle, inside = stop, np.empty(0, dtype="int64")
        if own is not None:
            # What lies on either side of the row itself: its own value must not even round the sum.
            inside = np.flatnonzero((own >= start) & (own < stop))
            middle = stop.copy()
            middle[inside] = own[inside]
        behind = middle[inside] + 1, stop[inside]
        count = present.counts(start, middle)
        count[inside] += present.counts(*behind)
        if values is None:
            features.append(count)
            continue
        total = Windows(start, middle).sums(values)
        total[inside] += Windows(*behind).sums(values)
        total[count == 0] = 0.0
        with np.errstate(invalid="ignore", divide="ignore"):
            features.append(total if step.stat == "sum" else total / count)
    return features
