"""The earlier events of each row: where they lie in the order of entity and time, worked out once for many steps.

It depends on the time column, the match columns and the rows alone, so steps that share these share it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property

import numpy as np

from daskml_scale.spec.expressions import Values

from .keys import Keys, plain
from .timeline import MISSING, Timeline


class Past:
    """See the module docstring.

    Parameters
    ----------
    at : str
        Time column of the events.
    match : sequence of str
        Columns that an event has in common with a row.
    columns : mapping of match column to Values of shape (rows,)
    known_at : ndarray of datetime64, shape (rows,)
        Events up to then count.
    events : mapping of column to Values of shape (events,)
        In table order.
    own : ndarray of int, shape (rows,), optional
        Which event each row is, -1 for none.
    counted : ndarray of bool, shape (events,), optional
        Which events there are at all; by default all.
    each : bool
        Whether the rows are the events, one for one, and each is known at its own time.

    Attributes
    ----------
    timeline : Timeline
    stop : ndarray of int, shape (rows,)
        Place in the timeline after the newest event of each row.
    """

    def __init__(
        self,
        at: str,
        match: Sequence[str],
        columns: Mapping[str, Values],
        known_at: np.ndarray,
        events: Mapping[str, Values],
        own: np.ndarray | None = None,
        counted: np.ndarray | None = None,
        each: bool = False,
    ) -> None:
        self._times = np.asarray(events[at])
        keys = Keys([events[name] for name in match], len(self._times))
        self.timeline = Timeline(keys.own if counted is None else np.where(counted, keys.own, -1), self._times)
        self._each = each and self.timeline.whole and counted is None
        if self._each:
            self._groups = keys.own
        elif own is not None and (own >= 0).all():
            self._groups = keys.own[own]
        else:
            self._groups = keys.encode([columns[name] for name in match], len(known_at))
        self._known_at = plain(known_at)
        self._starts: dict[int | None, np.ndarray] = {}
        self.stop = self.timeline.of_each() if self._each else self.timeline.count(self._groups, known_at)

    def start(self, span: int | None) -> np.ndarray:
        """Return the place of the oldest event of each row within ``span`` ns, ``None`` for all; shape (rows,)."""
        if span not in self._starts:
            if span is None:
                found = self.timeline.first(self._groups)
            elif self._each and self.timeline.even:
                found = self.timeline.before_each(self._groups, span)
            else:  # what would begin before 1677 does not wrap around: it begins before all events
                earliest = np.maximum(self._known_at, MISSING + span) - span
                found = self.timeline.count(self._groups, earliest.view("datetime64[ns]"))
            self._starts[span] = found
        return self._starts[span]

    def places(self, own: np.ndarray) -> np.ndarray:
        """Return where the events ``own`` stand in the timeline, -1 where there is none."""
        return self.timeline.places(len(self._times), own)

    @cached_property
    def times(self) -> np.ndarray:
        """Instants of the events in the order of the timeline, ns since 1970."""
        return self.timeline.arranged(plain(self._times))
