"""Kernels of the steps on the history of an entity. What a history is: ``spec.steps_history``.

A value depends on the events of the row's own history only, taken in one order (time, then table order):
not on chunks, not on other entities, not on anything recorded after ``known_at``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from daskml_scale.spec.base import nanoseconds
from daskml_scale.spec.expressions import Values
from daskml_scale.spec.steps_history import (
    CarriedStep,
    Diff,
    ExponentialMean,
    ForwardFill,
    HistoryStep,
    Lag,
    Rolling,
    Since,
)

from .carried import NEVER, State, counts_for, decay
from .kernels import numbers
from .past import Past
from .windows import Present, Windows

_BLOCK = 1 << 20
"""Most events of windows that are looked at together."""


@dataclass(frozen=True, eq=False)
class _Histories:
    """Where the history of each row lies in the timeline.

    Attributes
    ----------
    start, stop : ndarray of int, shape (rows,)
        Events [start, stop) of the timeline.
    own : ndarray of bool, shape (rows,)
        Whether the newest event is the row itself.
    values : ndarray of float64, shape (events + 1,)
        In the order of the timeline; the last one is NaN, for no event.
    past : Past
    """

    start: np.ndarray
    stop: np.ndarray
    own: np.ndarray
    values: np.ndarray
    past: Past

    @property
    def times(self) -> np.ndarray:
        """Instants of the events, ns since 1970, in the order of the timeline."""
        return self.past.times

    def at(self, places: np.ndarray) -> np.ndarray:
        """Return values at places of the timeline, NaN where a place is not in the row's history."""
        return np.asarray(self.values[np.where((places >= self.start) & (places < self.stop), places, -1)])

    def last(self, wanted: np.ndarray) -> np.ndarray:
        """Return the place of the newest event that is wanted, -1 where the history has none; shape (rows,)."""
        newest = np.maximum.accumulate(np.append(-1, np.where(wanted, np.arange(len(wanted)), -1)))[self.stop]
        return np.where((self.stop > self.start) & (newest >= self.start), newest, -1)


def history(
    step: HistoryStep,
    columns: Mapping[str, Values],
    known_at: np.ndarray,
    events: Mapping[str, Values],
    itself: np.ndarray | None,
    *,
    hidden: bool = False,
    before: State | None = None,
    rows: np.ndarray | None = None,
    past: Past | None = None,
) -> list[np.ndarray]:
    """Return the features of a step, float64, each of shape (rows,).

    Parameters
    ----------
    columns : mapping of match column to Values of shape (rows,)
    known_at : ndarray of datetime64, shape (rows,)
    events : mapping of column to Values of shape (events,)
        Rows of the table, in table order: at least all whose ``at`` lies in ``(known_at - within, known_at]``.
    itself : ndarray of int, shape (rows,), optional
        Which event is the row itself, -1 for none.
    hidden : bool
        Whether the row's own value never counts: it is the target or goes with it.
    before : State, optional
        What is carried to each row, for a step without ``within``: of shape (rows,).
    rows : ndarray of int, shape (events,), optional
        With ``before``: numbers of the events in the table, -1 for those that are in ``before`` already.
    past : Past, optional
        Of these rows and events.
    """
    if isinstance(step, CarriedStep) and step.within is None:
        assert before is not None
        assert rows is not None
        return [_carried(step, columns, known_at, events, itself, hidden=hidden, before=before, rows=rows)]
    found = _histories(step, columns, known_at, events, itself, hidden=hidden, past=past)
    with np.errstate(all="ignore"):
        match step:
            case Lag():
                return [found.at(found.stop - found.own - lag) for lag in step.lags]
            case Diff():
                newest = found.at(found.stop - 1)
                return [newest - found.at(found.stop - 1 - lag) for lag in step.lags]
            case Rolling():
                made = _rolling(found, step.events, step.stats)
                return [made[stat] for stat in step.stats]
            case ExponentialMean():
                return [_exponential(found, known_at, nanoseconds(step.half_life))]
            case Since():
                place = found.last(~np.isnan(found.values[:-1]) & (found.values[:-1] != 0))
                seconds = (known_at.astype("datetime64[ns]").view("int64") - np.append(found.times, 0)[place]) / 1e9
                return [np.where(place < 0, np.nan, seconds)]
            case ForwardFill():
                return [found.values[found.last(~np.isnan(found.values[:-1]))]]
    raise TypeError(f"{type(step).__name__} has no kernel")


def _histories(
    step: HistoryStep,
    columns: Mapping[str, Values],
    known_at: np.ndarray,
    events: Mapping[str, Values],
    itself: np.ndarray | None,
    *,
    hidden: bool,
    past: Past | None = None,
    counted: np.ndarray | None = None,
) -> _Histories:
    past = past or Past(step.at, step.match, columns, known_at, events, counted=counted)
    start, stop = past.start(None if step.within is None else nanoseconds(step.within)), past.stop
    values = np.append(past.timeline.arranged(numbers(events[step.of])), np.nan)
    own = np.zeros(len(stop), dtype=bool)
    if itself is not None:
        place = past.places(itself)
        inside = (place >= start) & (place < stop)
        stop = np.where(inside, place if hidden else place + 1, stop)
        own = own if hidden else inside
    return _Histories(start, stop, own, values, past)


def _carried(
    step: CarriedStep,
    columns: Mapping[str, Values],
    known_at: np.ndarray,
    events: Mapping[str, Values],
    itself: np.ndarray | None,
    *,
    hidden: bool,
    before: State,
    rows: np.ndarray,
) -> np.ndarray:
    """Return the feature of a step without a bound: what is carried, and then the events that are read."""
    found = _histories(step, columns, known_at, events, itself, hidden=hidden, counted=rows >= 0)
    place = found.last(counts_for(step, found.values[:-1]))
    here = State(
        np.where(place < 0, NEVER, np.append(found.times, NEVER)[place]),
        np.where(place < 0, -1, np.append(found.past.timeline.arranged(rows), -1)[place]),
        *_weighed(step, found, place),
    )
    now = before.joined(here, step)
    with np.errstate(all="ignore"):
        match step:
            case ExponentialMean():
                return np.asarray(now.total / now.weight)
            case Since():
                asked = known_at.astype("datetime64[ns]").view("int64")
                return np.where(now.time == NEVER, np.nan, (asked - np.where(now.time == NEVER, 0, now.time)) / 1e9)
    return np.where(now.time == NEVER, np.nan, now.total)


def _weighed(step: CarriedStep, found: _Histories, place: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return weighted sums and weights as of the newest event of each row; for a forward fill its value."""
    if not isinstance(step, ExponentialMean):
        return found.values[place] if isinstance(step, ForwardFill) else np.zeros(len(place)), np.zeros(len(place))
    total, weight = np.zeros(len(place)), np.zeros(len(place))
    newest = np.append(found.times, NEVER)[place]
    for first, last, row, value, times in _windows(found):
        share = decay(step, times, newest[first:last][row])
        with np.errstate(over="ignore", invalid="ignore"):
            total[first:last] = np.bincount(row, share * value, minlength=last - first)
        weight[first:last] = np.bincount(row, share, minlength=last - first)
    return total, weight


def _rolling(found: _Histories, events: int, stats: Sequence[str]) -> dict[str, np.ndarray]:
    """Return statistics of the newest ``events`` events; infinite values are counted, and else do not count."""
    values, stop = found.values[:-1], found.stop
    start = np.maximum(found.start, stop - events)
    made: dict[str, np.ndarray] = {}
    if "count" in stats:
        made["count"] = Present(~np.isnan(values)).counts(start, stop)
    present, windows = Present(np.isfinite(values)), Windows(start, stop)
    left = present.windows(start, stop)
    count = left.counts()
    if "std" in stats:
        total, made["std"] = left.spreads(present.values(values))
    elif not {"sum", "mean"}.isdisjoint(stats):
        total = windows.sums(present.filled(values, -0.0))
    if not {"sum", "mean"}.isdisjoint(stats):
        made["mean"] = total / count
        total[count == 0] = np.nan
        made["sum"] = total
    for stat, largest in (("min", False), ("max", True)):
        if stat in stats:
            made[stat] = windows.extremes(present.filled(values, -np.inf if largest else np.inf), largest=largest)
            made[stat][count == 0] = np.nan
    return made


def _exponential(found: _Histories, known_at: np.ndarray, half_life: int) -> np.ndarray:
    """Return the weighted mean of each history; weights count from its newest event, so that none overflows."""
    newest = np.append(found.times, 0)[found.last(np.isfinite(found.values[:-1]))]
    result = np.full(len(known_at), np.nan)
    for first, last, row, value, times in _windows(found):
        weight = np.exp2((times - newest[first:last][row]) / half_life)
        total = np.bincount(row, weight * value, minlength=last - first)
        result[first:last] = total / np.bincount(row, weight, minlength=last - first)
    return result


def _windows(found: _Histories) -> Iterator[tuple[int, int, np.ndarray, np.ndarray, np.ndarray]]:
    """Yield rows [first, last) with the row (from first), value and time of every event of their histories."""
    lengths = np.maximum(found.stop - found.start, 0)
    for first, last in _blocks(lengths):
        start, length = found.start[first:last], lengths[first:last]
        row = np.repeat(np.arange(last - first), length)
        place = np.arange(len(row)) - np.repeat(np.cumsum(length) - length, length) + start[row]
        value = found.values[place]
        used = np.isfinite(value)
        yield first, last, row[used], value[used], found.times[place[used]]


def _blocks(lengths: np.ndarray) -> Iterator[tuple[int, int]]:
    """Cut rows where the events of their histories exceed a block; one row is never cut."""
    until = np.cumsum(lengths)
    first = 0
    while first < len(lengths):
        before = until[first - 1] if first else 0
        last = max(first + 1, int(np.searchsorted(until, before + _BLOCK, "right")))
        yield first, last
        first = last
