"""The work of a simulated cluster: batches of tasks, and what a scheduler learns of them while they run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from .demand import Demand

PRIOR = 4
"""Tasks that a remembered duration counts for."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Tasks of one kind that may run at the same time.

    Attributes
    ----------
    prefix : str
        Their name; durations are learnt by it.
    seconds : sequence of float
        Of each task.
    at : float
        When they are submitted.
    after : tuple of int
        Batches (by position) that must be done before; submitted tasks that wait are known to come.
    needs : tuple of (resource, amount)
    hint : float or None
        Seconds of a task as remembered from an earlier run.
    job : str
        Whose they are.
    delay : float
        Seconds that the driver takes before they can run, for planning and the like.
    """

    prefix: str
    seconds: Sequence[float]
    at: float = 0.0
    after: tuple[int, ...] = ()
    needs: tuple[tuple[str, float], ...] = ()
    hint: float | None = None
    job: str = "job"
    delay: float = 0.0


@dataclass(slots=True)
class Prefix:
    """What is known of the tasks of one name.

    ``average`` and ``longest`` follow distributed's ``TaskPrefix``: a running mean of weight one half, forgotten when
    a running task has taken twice as long; and the longest time that a task was seen running.
    """

    name: str
    needs: tuple[tuple[str, float], ...] = ()
    hint: float | None = None
    units: int = 0
    queued: int = 0
    processing: int = 0
    ends: int = 0
    total: float = 0.0
    average: float = -1.0
    longest: float = -1.0
    begun: dict[float, int] = field(default_factory=dict)
    """Start time -> tasks that run since then, oldest first."""

    def started(self, now: float) -> None:
        """A task starts."""
        self.processing += 1
        self.begun[now] = self.begun.get(now, 0) + 1

    def ended(self, began: float, seconds: float) -> None:
        """A task is done."""
        self.lost(began)
        self.units -= 1
        self.ends += 1
        self.total += seconds
        self.average = seconds if self.average < 0 else 0.5 * (seconds + self.average)

    def lost(self, began: float) -> None:
        """A task no longer runs."""
        self.processing -= 1
        self.begun[began] -= 1
        if not self.begun[began]:
            del self.begun[began]

    def heartbeat(self, now: float) -> None:
        """Workers tell how long their tasks have been running."""
        if self.begun:
            elapsed = now - next(iter(self.begun))
            self.longest = max(self.longest, elapsed)
            if elapsed > 2 * self.average:
                self.average = -1.0

    @property
    def known(self) -> float | None:
        """Seconds of a task as our dispatcher knows them: remembered, then measured."""
        if self.hint is not None:
            return (PRIOR * self.hint + self.total) / (PRIOR + self.ends)
        if self.ends:
            return self.total / self.ends
        return 2 * self.longest if self.longest > 0 else None

    def demand(self) -> Demand:
        """Return the backlog as our policy sees it."""
        return Demand(self.name, self.units, self.queued + self.processing, self.known, dict(self.needs))
