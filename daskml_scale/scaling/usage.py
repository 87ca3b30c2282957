"""What a simulated cluster is given, what it shows to whoever decides, and what it did."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from .demand import Demand, WorkerView
from .workload import Prefix


@dataclass(frozen=True, slots=True)
class Supply:
    """How workers come and go.

    Attributes
    ----------
    startup : (float, float)
        Shortest and longest seconds from asking for a worker to its arrival; uniform between them.
    fail : float
        Share of the workers asked for that never arrive.
    lifetime : float
        Mean seconds until a worker is preempted (exponential); infinite: never.
    """

    startup: tuple[float, float] = (60.0, 120.0)
    fail: float = 0.0
    lifetime: float = math.inf


@dataclass(frozen=True, slots=True)
class Seen:
    """What a scheduler knows: the input of a decision."""

    demands: Sequence[Demand]
    workers: Mapping[str, Sequence[WorkerView]]
    prefixes: Mapping[str, Prefix]


@dataclass(frozen=True, slots=True)
class Orders:
    """What to do now: workers to ask for by class, names to retire (their tasks run again) or give up."""

    launch: Mapping[str, int] = field(default_factory=dict)
    retire: Sequence[str] = ()
    cancel: Sequence[str] = ()


class Scaler(Protocol):
    """Decides how many workers there should be."""

    interval: float

    def step(self, seen: Seen, now: float) -> Orders:
        """Return what to do."""
        ...


@dataclass(frozen=True, slots=True)
class Usage:
    """What a simulated cluster did.

    Attributes
    ----------
    makespan : float
        Seconds until the last task was done; infinite when it never was.
    worker_seconds : float
        Paid for: from asking for a worker to its release, the time after the last task included.
    cost : float
        The same in money.
    task_seconds : float
        Spent on tasks that counted.
    started, unused, failed, preempted : int
        Workers asked for; of these those that ran no task though they could have arrived; that never arrived; that
        were taken away.
    reversals : int
        Changes of direction: from growing to shrinking or back, per class.
    reruns : int
        Tasks that ran again because their worker went.
    idle : float
        Share of the paid slots' time without a task.
    timeline : tuple of (time, workers, ready, busy slots)
    done : mapping of job to seconds
        When each job's last task was done.
    """

    makespan: float
    worker_seconds: float
    cost: float
    task_seconds: float
    started: int
    unused: int
    failed: int
    preempted: int
    reversals: int
    reruns: int
    idle: float
    timeline: tuple[tuple[float, int, int, int], ...] = ()
    done: Mapping[str, float] = field(default_factory=dict)
