"""What is in flight: batches of units, the tasks that they are, copies that race, and how long units take.

Records only: what happens to them is decided in `flight`.
"""

from __future__ import annotations

import statistics
from collections import deque
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from daskml_scale.plan.batching import Batching
from daskml_scale.plan.units import Unit

from .task import Rows


@dataclass(slots=True)
class Race:
    """Units that are in flight more than once: the first result of each counts."""

    size: int
    copies: int = 1
    done: set[str] = field(default_factory=set)
    tasks: set[str] = field(default_factory=set)


@dataclass(slots=True)
class Batch:
    """Units that go out together, for the ``attempt``-th time."""

    units: list[Unit]
    attempt: int = 1
    suspect: bool = False
    race: Race | None = None
    at: str = ""
    """Address of the worker that should take it, if it can."""

    @property
    def unanswered(self) -> list[Unit]:
        """Those that have no result yet: a copy may have brought it."""
        return self.units if self.race is None else [unit for unit in self.units if unit.key not in self.race.done]

    def again(self) -> Batch:
        """Return it as it goes out the next time, to any worker."""
        return Batch(self.units, self.attempt + 1, self.suspect, self.race)


@dataclass(slots=True)
class Task:
    """A batch on the cluster since ``sent`` (monotonic seconds)."""

    batch: Batch
    future: Any
    sent: float


@dataclass(slots=True)
class Pace:
    """How long units take: from it follow the size of the next task, and when a task is late.

    Attributes
    ----------
    samples : deque of float
        Seconds per weight of some finished units, for their median.
    """

    batching: Batching
    samples: deque[float] = field(default_factory=lambda: deque(maxlen=256))

    @property
    def usual(self) -> float | None:
        """Seconds per weight that are usual; ``None`` when nothing has finished."""
        if not self.samples:
            return None
        return max(statistics.median(self.samples), self.batching.seconds_per_weight or 0.0)

    def measure(self, units: list[Unit], rows: Rows, slots: int) -> None:
        """Learn from units that a task finished."""
        seconds = np.frombuffer(rows.nanoseconds, np.int64) / 1e9
        if not seconds.size:
            return
        weights = np.array([unit.weight for unit in units])
        weights[weights <= 0] = 1.0
        each = seconds / weights
        self.batching = self.batching.measured(
            float(seconds.sum()), float(weights.sum()), squares=float((seconds * each).sum()), slots=slots
        )
        self.samples.extend(each[:: max(1, len(each) // 8)].tolist())
