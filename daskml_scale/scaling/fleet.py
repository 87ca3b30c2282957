"""A cluster that grows and shrinks, as discrete events: what a scaling policy costs, before anybody pays.

Workers start slowly, fail to arrive, are preempted; tasks wait for tasks, need resources, and run again when their
worker goes. Whoever decides (`Scaler`) is asked at fixed intervals and sees what a scheduler would see. No wall clock:
equal seeds give equal runs. Transfers of data and the scheduler's own cost are not modelled (`simulate` is about the
latter).
"""

from __future__ import annotations

import heapq
import math
from collections import deque
from collections.abc import Sequence
from typing import Any

from .demand import Shape, WorkerView
from .usage import Orders, Scaler, Seen, Supply, Usage
from .workload import Batch, Prefix

_SUBMIT, _ARRIVE, _END, _PREEMPT, _RELEASE, _BEAT = range(6)
BEAT_SECONDS = 1.0
"""Between two heartbeats; they fall between two looks of the scaler, as on a real cluster they mostly do."""
Needs = tuple[tuple[str, float], ...]


class _Worker:
    __slots__ = ("alive", "asked", "fails", "name", "ready", "running", "since", "used", "view", "where")

    def __init__(self, name: str, where: Shape, asked: float, fails: bool) -> None:
        self.name, self.where, self.asked, self.fails = name, where, asked, fails
        self.ready, self.alive, self.used = False, True, False
        self.since: float | None = None
        self.running: dict[int, tuple[Batch, float, float]] = {}
        self.view: WorkerView | None = None

    def seen(self) -> WorkerView:
        if self.view is None:
            self.view = WorkerView(self.name, self.ready, self.since, asked=None if self.ready else self.asked)
        return self.view


class Fleet:
    """One simulation; see `run_fleet`."""

    def __init__(self, batches: Sequence[Batch], shapes: Sequence[Shape], supply: Supply, seed: int) -> None:
        import numpy as np

        self.random: Any = np.random.default_rng(seed)
        self.batches, self.supply = batches, supply
        self.shapes = {shape.name: shape for shape in shapes}
        self.workers: dict[str, dict[str, _Worker]] = {shape.name: {} for shape in shapes}
        self.queues: dict[Needs, deque[tuple[Batch, float]]] = {}
        self.spare: dict[_Worker, None] = {}
        """Workers with a free thread, longest free first."""
        self.prefixes: dict[str, Prefix] = {}
        self.events: list[tuple[float, int, int, Any]] = []
        self.left = {id(batch): len(batch.seconds) for batch in batches}
        self.unfinished = sum(self.left.values())
        self.released: set[int] = set()
        self.directions: dict[str, int] = {}
        self.paid = dict.fromkeys(self.shapes, 0.0)
        self.counts = dict.fromkeys(("started", "unused", "failed", "preempted", "reversals", "reruns"), 0)
        self.now = self.last = self.work = self.slot_seconds = 0.0
        self.pushed = self.running = 0
        self.done: dict[str, float] = {}
        self.timeline: list[tuple[float, int, int, int]] = []
        for batch in batches:
            self.push(batch.at, _SUBMIT, batch)
        self.push(BEAT_SECONDS / 2, _BEAT, None)

    def push(self, at: float, kind: int, what: Any) -> None:
        self.pushed += 1  # events of one moment keep their order
        heapq.heappush(self.events, (at, self.pushed, kind, what))

    def advance(self, until: float) -> None:
        """Let everything happen up to a time."""
        while self.events and self.events[0][0] <= until:
            self.now, _, kind, what = heapq.heappop(self.events)
            if kind == _END:
                self.ended(*what)
            elif kind == _SUBMIT:
                self.submitted(what)
            elif kind == _RELEASE:
                self.release(what)
            elif kind == _BEAT:
                self.beat()
            elif kind == _ARRIVE:
                self.arrived(what)
            elif what.alive:
                self.counts["preempted"] += 1
                self.remove(what)
        self.now = until

    def beat(self) -> None:
        """Workers tell how long their tasks have been running."""
        for prefix in self.prefixes.values():
            prefix.heartbeat(self.now)
        if self.unfinished:
            self.push(self.now + BEAT_SECONDS, _BEAT, None)

    # Tasks

    def submitted(self, batch: Batch) -> None:
        prefix = self.prefixes.setdefault(batch.prefix, Prefix(batch.prefix, batch.needs, batch.hint))
        prefix.units += len(batch.seconds)
        self.released.add(id(batch))
        if not any(self.left[id(self.batches[before])] for before in batch.after):
            self.push(self.now + batch.delay, _RELEASE, batch)

    def release(self, batch: Batch) -> None:
        self.prefixes[batch.prefix].queued += len(batch.seconds)
        queue = self.queues.setdefault(batch.needs, deque())
        queue.extend((batch, seconds) for seconds in batch.seconds)
        self.refill()

    def refill(self) -> None:
        """Let everybody with a free thread look again."""
        spare, self.spare = self.spare, {}
        for worker in spare:
            self.fill(worker)

    def fill(self, worker: _Worker) -> None:
        """Start what a worker can run; whoever has a thread left waits for more."""
        if not worker.alive:
            return
        for needs in sorted(self.queues, reverse=True):  # special work first: others may run plain work
            queue, most = self.queues[needs], worker.where.slots(dict(needs))
            here = sum(batch.needs == needs for batch, _, _ in worker.running.values()) if needs else 0
            while queue and len(worker.running) < worker.where.threads and here < most:
                self.start(worker, *queue.popleft())
                here += 1
        if len(worker.running) < worker.where.threads:
            self.spare[worker] = None

    def start(self, worker: _Worker, batch: Batch, seconds: float) -> None:
        self.pushed += 1
        worker.running[self.pushed] = (batch, seconds, self.now)
        if worker.since is not None or not worker.used:
            worker.since, worker.used, worker.view = None, True, None
        prefix = self.prefixes[batch.prefix]
        prefix.queued -= 1
        prefix.started(self.now)
        self.running += 1
        heapq.heappush(self.events, (self.now + seconds, self.pushed, _END, (worker, self.pushed)))

    def ended(self, worker: _Worker, number: int) -> None:
        found = worker.running.pop(number, None)
        if found is None:
            return  # its worker went before
        batch, seconds, began = found
        self.running -= 1
        self.unfinished -= 1
        self.work += seconds
        self.last = self.now
        self.prefixes[batch.prefix].ended(began, seconds)
        self.left[id(batch)] -= 1
        if not self.left[id(batch)]:
            self.done[batch.job] = self.now
            self.follow(batch)
        full = len(worker.running) + 1 >= worker.where.threads
        if not worker.running:
            worker.since, worker.view = self.now, None
        if full or any(self.queues.values()):
            self.spare.pop(worker, None)
            self.fill(worker)

    def follow(self, batch: Batch) -> None:
        """Release what waited for a batch."""
        for other in self.batches:
            waits = id(other) in self.released and any(self.batches[before] is batch for before in other.after)
            if waits and not any(self.left[id(self.batches[before])] for before in other.after):
                self.push(self.now + other.delay, _RELEASE, other)

    # Workers

    def launch(self, name: str, count: int) -> None:
        low, high = self.supply.startup
        for _ in range(count):
            fails = bool(self.supply.fail) and self.random.random() < self.supply.fail
            worker = _Worker(f"{name}-{self.counts['started']}", self.shapes[name], self.now, fails)
            self.counts["started"] += 1
            self.workers[name][worker.name] = worker
            if not fails:
                self.push(self.now + low + (high - low) * self.random.random(), _ARRIVE, worker)

    def arrived(self, worker: _Worker) -> None:
        if not worker.alive:
            return
        worker.ready, worker.since, worker.view = True, self.now, None
        if math.isfinite(self.supply.lifetime):
            self.push(self.now + self.random.exponential(self.supply.lifetime), _PREEMPT, worker)
        self.fill(worker)

    def remove(self, worker: _Worker) -> None:
        """A worker goes; its tasks run again elsewhere."""
        worker.alive = False
        name = worker.where.name
        del self.workers[name][worker.name]
        self.paid[name] += self.now - worker.asked
        self.counts["failed"] += worker.fails
        self.counts["unused"] += not worker.used and not worker.fails
        self.spare.pop(worker, None)
        for batch, seconds, began in worker.running.values():
            self.running -= 1
            self.counts["reruns"] += 1
            self.prefixes[batch.prefix].lost(began)
            self.prefixes[batch.prefix].queued += 1
            self.queues[batch.needs].appendleft((batch, seconds))
        again = bool(worker.running)
        worker.running = {}
        if again:
            self.refill()

    def obey(self, orders: Orders) -> None:
        """Carry out what was decided."""
        changed: dict[str, int] = {}
        for name, count in orders.launch.items():
            if count:
                self.launch(name, count)
                changed[name] = 1
        for gone in (*orders.cancel, *orders.retire):
            owners = self.workers[gone.rpartition("-")[0]]
            if gone in owners:
                changed.setdefault(gone.rpartition("-")[0], -1)
                self.remove(owners[gone])
        for name, direction in changed.items():
            self.counts["reversals"] += self.directions.get(name, direction) != direction
            self.directions[name] = direction

    def seen(self) -> Seen:
        views = {name: [worker.seen() for worker in members.values()] for name, members in self.workers.items()}
        return Seen([p.demand() for p in self.prefixes.values() if p.units], views, self.prefixes)

    def note(self) -> None:
        have = [worker for members in self.workers.values() for worker in members.values()]
        self.timeline.append((self.now, len(have), sum(worker.ready for worker in have), self.running))


def run_fleet(
    batches: Sequence[Batch],
    shapes: Sequence[Shape],
    scaler: Scaler,
    supply: Supply | None = None,
    *,
    seed: int = 0,
    close: bool = False,
    most: float = 86_400.0,
) -> Usage:
    """Simulate a cluster until its work is done and its workers are released.

    Parameters
    ----------
    batches : sequence of Batch
    shapes : sequence of Shape
        Classes of workers.
    scaler : Scaler
    close : bool
        The cluster closes with the last task, as that of a run does; otherwise time counts until the scaler has
        released everybody or changed nothing for ten minutes.
    most : float
        Simulated seconds after which it is given up.
    """
    fleet = Fleet(batches, shapes, supply or Supply(), seed)
    now = quiet = 0.0
    while now <= most:
        fleet.advance(now)
        if not fleet.unfinished and (close or not any(fleet.workers.values()) or now - quiet > 600):
            break
        orders = scaler.step(fleet.seen(), now)
        if orders.launch or orders.retire or orders.cancel:
            quiet = now
            fleet.obey(orders)
        fleet.note()
        now += scaler.interval
    if close and not fleet.unfinished:
        fleet.now = fleet.last  # the last look came a moment later
    return _usage(fleet)


def _usage(fleet: Fleet) -> Usage:
    for members in fleet.workers.values():
        for worker in list(members.values()):
            fleet.remove(worker)
    paid = sum(fleet.paid.values())
    slots = sum(seconds * fleet.shapes[name].threads for name, seconds in fleet.paid.items())
    return Usage(
        makespan=math.inf if fleet.unfinished else fleet.last,
        worker_seconds=paid,
        cost=sum(seconds * fleet.shapes[name].price for name, seconds in fleet.paid.items()) / 3600,
        task_seconds=fleet.work,
        idle=1.0 - fleet.work / slots if slots else 0.0,
        timeline=tuple(fleet.timeline),
        done=dict(fleet.done),
        **fleet.counts,
    )
