"""A large cluster as a discrete-event model: can one scheduler and one driver keep its slots busy?

Nobody has 1,000 workers at hand for a test, and task sizes are decided by pure functions: so the real
``plan.batching`` runs here against a model of what is around it. Driver and scheduler are servers with a
measured cost per task (and per unit, for the driver) that serve messages in the order of arrival; a task
occupies a slot for the seconds of its units and a little more. What comes out is simulated, and every
report says so. The model knows no failures, no transfers of data and no differences between workers.
"""

from __future__ import annotations

import heapq
import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from daskml_scale.plan.batching import MAX_UNITS, Batching, Probes, take_uniform, window

Draw = Callable[[float, int], tuple[float, float]]
"""(time, number of units) -> (their seconds, the sum of the squares of their seconds)."""
FIRST_SECONDS = 30.0
_ARRIVE, _READY, _RETURN, _SETTLED, _TOLD, _DRIVE = range(6)


@dataclass(frozen=True, slots=True)
class Costs:
    """What dispatching costs, in seconds; defaults as measured on a slow core.

    Attributes
    ----------
    scheduler : float
        Scheduler time per task, half when it comes and half when it is done.
    driver : float
        Driver time per task, half to send it and half to take its result.
    driver_unit : float
        Driver time per unit, in halves as well.
    latency : float
        One message, one way.
    worker : float
        Time of a slot per task beside its units.
    heartbeats : float
        Share of the scheduler's time that it takes to know of 1,000 workers: one heartbeat of 0.24 ms every 6 s each,
        and its own loops.
    """

    scheduler: float = 0.0017
    driver: float = 0.0012
    driver_unit: float = 3e-6
    latency: float = 0.0005
    worker: float = 0.001
    heartbeats: float = 0.06


@dataclass(frozen=True, slots=True)
class Report:
    """What a simulated run was like.

    Attributes
    ----------
    seconds : float
        Simulated time; the shares are of it, filling included.
    tasks, units : int
        Sent, and finished.
    scheduler, driver : float
        Share of the time in which each was at work.
    slots : float
        Share of the slots' time that was spent on units.
    first : float
        The same in the first 30 s.
    task_seconds : (float, float)
        Median and 99th percentile of the seconds of tasks.
    batching : Batching
        As it was at the end.
    """

    seconds: float
    tasks: int
    units: int
    scheduler: float
    driver: float
    slots: float
    first: float
    task_seconds: tuple[float, float]
    batching: Batching
    simulated: bool = True


def simulate(
    slots: int,
    draw: Draw,
    *,
    seconds: float = 300.0,
    units: float = math.inf,
    costs: Costs | None = None,
    batching: Batching | None = None,
    max_units: int = MAX_UNITS,
) -> Report:
    """Run a cluster of ``slots`` for ``seconds``, or until ``units`` are done, and report how busy it was.

    Parameters
    ----------
    draw : callable
        How long units take, see `constant` and `lognormal`.
    batching : Batching, optional
        Give a duration to start as with a remembered one.
    max_units : int
        In one task; 1 is what plain Dask does.
    """
    costs = costs or Costs()
    model = _Model(slots, draw, costs, batching or Batching(overhead=costs.scheduler), seconds, units, max_units)
    model.run()
    return model.report()


@dataclass
class _Model:
    """State of one simulation; times in seconds. Slots are alike, so the idle ones are only counted."""

    slots: int
    draw: Draw
    costs: Costs
    batching: Batching
    horizon: float
    left: float
    max_units: int
    now: float = 0.0
    idle: int = 0
    in_flight: int = 0
    finished: int = 0
    scheduler_free: float = 0.0
    scheduler_work: float = 0.0
    driver_work: float = 0.0
    driver_rests: bool = False
    busy: float = 0.0
    busy_first: float = 0.0
    pushed: int = 0
    events: list[tuple[float, int, int, int]] = field(default_factory=list)
    queued: deque[int] = field(default_factory=deque)
    """Tasks that the scheduler holds for the next idle slot."""
    done: deque[int] = field(default_factory=deque)
    """Tasks whose end the driver has not seen yet."""
    counts: list[int] = field(default_factory=list)
    """Units of every task."""
    ends: dict[int, float] = field(default_factory=dict)
    waits: dict[int, float] = field(default_factory=dict)
    """Seconds that the slot of a task had waited for it."""
    probes: Probes = field(default_factory=Probes)
    probing: dict[int, int] = field(default_factory=dict)
    """Number of each probe in flight."""
    spent: dict[int, tuple[float, float]] = field(default_factory=dict)
    """(seconds, squares) of tasks that were started."""

    def run(self) -> None:
        self.idle = self.slots
        self.drive()
        while self.events:
            at, _, kind, task = heapq.heappop(self.events)
            if at > self.horizon:
                self.now = self.horizon
                return
            self.now = at
            if kind == _DRIVE:
                self.drive()
            elif kind == _ARRIVE:
                self.serve(_READY, task)
            elif kind == _RETURN:
                self.serve(_SETTLED, task)
            elif kind == _READY:
                self.ready(task)
            elif kind == _SETTLED:
                self.settled(task)
            else:
                self.told(task)

    def push(self, at: float, kind: int, task: int = -1) -> None:
        self.pushed += 1  # events of one moment keep their order
        heapq.heappush(self.events, (at, self.pushed, kind, task))

    def serve(self, then: int, task: int) -> None:
        """The scheduler handles a message after all earlier ones."""
        work = self.costs.scheduler / 2 / (1 - self.costs.heartbeats)
        self.scheduler_free = max(self.scheduler_free, self.now) + work
        self.scheduler_work += work
        self.push(self.scheduler_free, then, task)

    def ready(self, task: int) -> None:
        if self.idle:
            self.idle -= 1
            self.start(task)
        else:
            self.queued.append(task)

    def start(self, task: int, after: int = -1) -> None:
        """A slot gets a task, maybe as the next one ``after`` another."""
        self.spent[task] = self.draw(self.now, self.counts[task])
        seconds = self.spent[task][0]
        begin = self.now + self.costs.latency + self.costs.worker
        if after >= 0:
            self.waits[task] = begin - self.ends.pop(after)
        self.ends[task] = begin + seconds
        self.busy += max(0.0, min(begin + seconds, self.horizon) - begin)
        self.busy_first += max(0.0, min(begin + seconds, FIRST_SECONDS, self.horizon) - begin)
        self.push(begin + seconds + self.costs.latency, _RETURN, task)

    def settled(self, task: int) -> None:
        if self.queued:
            self.start(self.queued.popleft(), after=task)
        else:
            self.idle += 1
        self.push(self.now + self.costs.latency, _TOLD, task)

    def told(self, task: int) -> None:
        self.done.append(task)
        if self.driver_rests:
            self.driver_rests = False
            self.drive()

    def drive(self) -> None:
        """One step of the driver: take a result if there is one, else send a task if there is room."""
        if self.done:
            task = self.done.popleft()
            seconds, squares = self.spent[task]
            count = self.counts[task]
            self.batching = self.batching.measured(seconds, count, squares=squares, slots=self.slots)
            if task in self.waits:
                self.batching = self.batching.waited(self.waits.pop(task))
            if task in self.probing:
                self.probes.end(self.probing.pop(task))
            self.in_flight -= 1
            self.finished += count
            self.work(count)
        elif self.left > 0 and self.in_flight < window(self.slots, self.batching.per_slot):
            overtaken = self.probes.overtaken(self.now)
            waiting = MAX_UNITS if math.isinf(self.left) else int(self.left)
            count = take_uniform(
                self.batching,
                waiting,
                left=self.left,
                slots=self.slots,
                overtaken=overtaken,
                max_units=self.max_units,
            )
            if self.batching.seconds_per_weight is None:
                self.probing[len(self.counts)] = self.probes.sent(self.now)
            self.left -= count
            self.counts.append(count)
            self.in_flight += 1
            self.push(self.work(count) + self.costs.latency, _ARRIVE, len(self.counts) - 1)
        else:
            self.driver_rests = True

    def work(self, units: int) -> float:
        """Keep the driver busy; return when it is free."""
        work = (self.costs.driver + self.costs.driver_unit * units) / 2
        self.driver_work += work
        self.push(self.now + work, _DRIVE)
        return self.now + work

    def report(self) -> Report:
        seconds = sorted(seconds for seconds, _ in self.spent.values()) or [0.0]
        beyond = max(0.0, self.scheduler_free - self.now)
        return Report(
            seconds=self.now,
            tasks=len(self.counts),
            units=self.finished,
            scheduler=(self.scheduler_work - beyond) / self.now + self.costs.heartbeats,
            driver=self.driver_work / self.now,
            slots=self.busy / self.now / self.slots,
            first=self.busy_first / min(self.now, FIRST_SECONDS) / self.slots,
            task_seconds=(seconds[len(seconds) // 2], seconds[len(seconds) * 99 // 100]),
            batching=self.batching,
        )


def constant(seconds: float) -> Draw:
    """Return units that all take ``seconds``."""
    return lambda now, count: (seconds * count, seconds * seconds * count)


def lognormal(mean: float, sigma: float = 2.0, seed: int = 0) -> Draw:
    """Return units of lognormal seconds with this mean; ``sigma`` is that of their logarithm.

    Sums of many units are drawn as one lognormal of the same mean and variance (Fenton, 1960).
    """
    import numpy as np

    random = np.random.default_rng(seed)
    location = math.log(mean) - sigma * sigma / 2
    relative = math.expm1(sigma * sigma)
    second = mean * mean * (1 + relative)

    def draw(now: float, count: int) -> tuple[float, float]:
        if count <= 256:
            seconds = random.lognormal(location, sigma, count)
            return float(seconds.sum()), float(np.square(seconds).sum())
        width = math.log1p(relative / count)
        return float(random.lognormal(math.log(mean * count) - width / 2, math.sqrt(width))), second * count

    return draw
