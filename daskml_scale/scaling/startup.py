"""How long workers take to arrive, and what to do when they do not. Pure.

Many are asked for at once and the fastest arrive first: what is learnt on the way is too short, and a deviation, as of
TCP's round trips, would give up the slower half (it did). So the mean is learnt from groups that are complete, a start
is given up after twice the longest that was ever seen, and each try that brings nobody doubles the pause before the
next one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

LEAST_PATIENCE = 30.0
"""Seconds before a start is given up at the earliest: processes on a busy machine start late without being lost."""
PATIENCE = 2.0
"""In units of the longest start."""
SPREAD = 1.5
"""Longest start that is believed possible before any was seen, in units of the guess."""
MOST_PAUSE = 600.0
"""Longest pause between two tries, seconds."""
GAIN = 0.5
"""Weight of a group of starts in the mean."""


@dataclass(frozen=True, slots=True)
class Startup:
    """Start-ups of one class, as learnt so far.

    Attributes
    ----------
    mean, longest : float
        Seconds from asking for a worker to its registration.
    misses : int
        Tries in a row that were given up.
    until : float
        No worker is asked for before this time.
    """

    mean: float = 2.0
    longest: float = 3.0
    misses: int = 0
    until: float = float("-inf")

    @classmethod
    def guess(cls, seconds: float) -> Startup:
        """Return what is believed before the first arrival."""
        return cls(seconds, SPREAD * seconds)

    @property
    def patience(self) -> float:
        """Seconds after which a worker that has not arrived is given up."""
        return max(LEAST_PATIENCE, PATIENCE * self.longest)

    def arrived(self, seconds: float) -> Startup:
        """Return what is believed after one more arrival; it ends a pause."""
        return Startup(self.mean, max(self.longest, seconds))

    def learnt(self, seconds: Sequence[float]) -> Startup:
        """Return what is believed when all have arrived that were asked for together."""
        return replace(self, mean=max(0.0, self.mean + GAIN * (sum(seconds) / len(seconds) - self.mean)))

    def missed(self, now: float) -> Startup:
        """Return what is believed after a try was given up: nobody is asked for during a pause that doubles."""
        pause = min(MOST_PAUSE, self.patience * 2.0 ** min(self.misses, 10))
        return replace(self, misses=self.misses + 1, until=now + pause)
