"""Which rows a range of rows can reach: first and last instants, and entities, of every chunk of a table.

They are not learnt but found in the same pass, and tell which chunks the event steps of a row range must read
(its halo) and what is carried to it from the chunks before. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from .carried import Carried
from .program import Program

_NEVER = (2**63 - 1, -(2**63))
"""First and last instant of a chunk that has none."""

Ranges = tuple[tuple[int, int], ...]
"""Row ranges [start, stop) in rising order."""


@dataclass(frozen=True, eq=False)
class Bounds:
    """First and last instants and entities of every chunk; times in ns since 1970.

    Attributes
    ----------
    edges : ndarray of int, shape (chunks + 1,)
        Chunk c holds rows [edges[c], edges[c + 1]).
    known_at : ndarray of int, shape (2, chunks)
    at : mapping of time column to ndarray of int, shape (2, chunks)
    windows : mapping of (time column, match columns, carried) to int
        Longest window, ns; it means nothing where the history is carried.
    match : mapping of match column to ndarray of float64, shape (2, chunks)
        Smallest and largest value; NaN in a chunk without any.
    carried : mapping of position to Carried
    """

    edges: np.ndarray
    known_at: np.ndarray
    at: Mapping[str, np.ndarray]
    windows: Mapping[tuple[str, tuple[str, ...], bool], int]
    match: Mapping[str, np.ndarray] = field(default_factory=dict)
    carried: Mapping[int, Carried] = field(default_factory=dict)

    @classmethod
    def merge(cls, program: Program, ranges: Sequence[tuple[int, int]], scans: Sequence[Mapping[str, Any]]) -> Bounds:
        """Join the statistics of all chunks, in unit order."""

        def ends(values: Iterable[list[int] | None]) -> np.ndarray:
            return np.array([value or _NEVER for value in values], dtype="int64").reshape(-1, 2).T

        def extents(values: Iterable[list[float] | None]) -> np.ndarray:
            return np.array([value or (np.nan, np.nan) for value in values], dtype="float64").reshape(-1, 2).T

        at = {name: ends(found["at"][name] for found in scans) for name in program.times}
        return cls(
            np.array([0, *(stop for _, stop in ranges)]),
            ends(found["known_at"] for found in scans),
            at,
            program.windows,
            {name: extents(found["match"][name] for found in scans) for name in program.matched},
            {
                number: Carried.merge(step, number, at[step.at][1], [found["carried"][str(number)] for found in scans])
                for number, step in program.carried.items()
            },
        )

    def chunks(self, start: int, stop: int) -> tuple[int, int]:
        """Return the chunks [first, last) that hold rows [start, stop)."""
        first, last = np.searchsorted(self.edges, [start, stop - 1], "right") - 1
        return int(first), int(last) + 1

    def before(self, name: str, start: int, stop: int) -> int:
        """Return the instant before which nothing in rows [start, stop) lies or is looked at, by a time column."""
        first, last = self.chunks(start, stop)
        return int(min(self.known_at[0, first:last].min(), self.at[name][0, first:last].min()))

    def halo(self, start: int, stop: int) -> Ranges:
        """Return the rows that event steps of rows [start, stop) may reach: whole chunks, neighbours joined."""
        first, last = self.chunks(start, stop)
        earliest = int(self.known_at[0, first:last].min())
        latest = int(self.known_at[1, first:last].max())
        if earliest > latest:
            return ()
        reached = np.zeros(len(self.edges) - 1, dtype=bool)
        for (name, match, carries), window in self.windows.items():
            low, high = self.at[name]
            if carries:
                looked = high >= self.before(name, start, stop)
            else:
                looked = high > max(earliest - window, _NEVER[1])
            reached |= looked & (low <= latest) & self._meets(match, first, last)
        return joined((int(self.edges[c]), int(self.edges[c + 1])) for c in np.flatnonzero(reached))

    def _meets(self, match: Sequence[str], first: int, last: int) -> np.ndarray:
        """Return which chunks may hold entities of chunks [first, last)."""
        found = np.ones(len(self.edges) - 1, dtype=bool)
        for name in match:
            low, high = self.match[name]
            here_low, here_high = low[first:last], high[first:last]
            if np.isnan(here_low).all():
                return np.zeros_like(found)
            found &= (low <= np.nanmax(here_high)) & (high >= np.nanmin(here_low))
        return found

    def digest(self, start: int, stop: int) -> list[str]:
        """Return the digests of what is carried to the entities of rows [start, stop), step by step."""
        first, last = self.chunks(start, stop)
        found = self.carried.values()
        return [each.digest(first, last, self.before(each.step.at, start, stop)) for each in found]

    @cached_property
    def carrying(self) -> Bounds | None:
        """What the carried steps need on a worker; ``None`` without such a step."""
        return self if self.carried else None


def joined(ranges: Iterable[tuple[int, int]]) -> Ranges:
    """Join ranges in rising order where one ends and the next begins."""
    result: list[tuple[int, int]] = []
    for start, stop in ranges:
        if result and result[-1][1] == start:
            result[-1] = (result[-1][0], stop)
        else:
            result.append((start, stop))
    return tuple(result)
