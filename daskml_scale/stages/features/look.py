"""What the steps of a recipe look at for a range of rows, and the matrix that their features become."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from daskml_scale.spec.expressions import Values
from daskml_scale.spec.step_base import EventStep

from .bounds import Ranges
from .past import Past
from .sources import Table, concatenate

_BLOCK = 1 << 19
"""Bytes of a matrix that are filled together: they stay near the processor."""


@dataclass(frozen=True, eq=False)
class Look:
    """What the steps look at for rows [start, stop).

    Attributes
    ----------
    halo : sequence of (start, stop)
        Rows of the table that event steps may reach.
    rows : mapping of column to Values of shape (stop - start,)
    known_at : ndarray of datetime64, shape (stop - start,)
    events : mapping of column to Values
        The rows of ``halo``, one range after the other.
    asked : str
        The expression of ``known_at``.
    """

    start: int
    stop: int
    halo: Ranges
    rows: Mapping[str, Values]
    known_at: np.ndarray
    events: Mapping[str, Values]
    asked: str = ""
    _pasts: dict[tuple[str, ...], Past] = field(default_factory=dict)

    def past(self, step: EventStep) -> Past:
        """Return where the events of a step lie for each row; steps on the same histories share it."""
        key = (step.at, *step.match)
        if key not in self._pasts:
            own = places(self.halo, self.start, self.stop)
            each = self.asked.strip() == step.at and tuple(self.halo) == ((self.start, self.stop),)
            self._pasts[key] = Past(step.at, step.match, self.rows, self.known_at, self.events, own, each=each)
        return self._pasts[key]


def places(ranges: Ranges, start: int, stop: int) -> np.ndarray:
    """Return the places of rows [start, stop) in the joined ``ranges``, -1 where a row is in none; shape (rows,)."""
    found = np.full(stop - start, -1)
    before = 0
    for first, last in ranges:
        low, high = max(first, start), min(last, stop)
        if low < high:
            found[low - start : high - start] = np.arange(before + low - first, before + high - first)
        before += last - first
    return found


def read_events(
    table: Table, names: Sequence[str], halo: Ranges, start: int, stop: int, rows: Mapping[str, Values]
) -> dict[str, Values]:
    """Return columns of the rows of ``halo``; what is among ``rows``, those of [start, stop), is not read again."""
    known = [name for name in names if name in rows]
    pieces: list[Mapping[str, Values]] = []
    for first, last in halo or ((0, 0),):
        if not first <= start < stop <= last:
            pieces.append(table.read(names, first, last))
            continue
        before = [table.read(known, first, start)] if first < start else []
        after = [table.read(known, stop, last)] if stop < last else []
        joined = {name: concatenate([piece[name] for piece in (*before, rows, *after)]) for name in known}
        fresh = [name for name in names if name not in rows]
        pieces.append({**joined, **table.read(fresh, first, last)})
    return {name: concatenate([piece[name] for piece in pieces]) for name in names}


def stacked(columns: Sequence[np.ndarray], rows: int, dtype: str) -> np.ndarray:
    """Return columns side by side, of shape (rows, columns)."""
    out = np.empty((rows, len(columns)), dtype=dtype)
    size = max(256, _BLOCK // max(1, out.itemsize * len(columns)))
    with np.errstate(over="ignore", invalid="ignore"):
        for first in range(0, rows, size):
            block = out[first : first + size]
            for number, column in enumerate(columns):
                block[:, number] = column[first : first + size]
    return out
