"""Replicas of what people scale Dask with today, for `benchmarks.scaling`: pure, on the simulated cluster.

``adaptive_target`` follows ``distributed.Scheduler.adaptive_target`` (2026.8) term by term; a test holds it against the
real one. The recommendations are those of ``AdaptiveCore``; the operator is ``dask-kubernetes``' controller.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from daskml_scale.scaling.demand import WorkerView
from daskml_scale.scaling.usage import Orders, Seen
from daskml_scale.scaling.workload import Prefix

UNKNOWN = 0.5
"""``distributed.scheduler.unknown-task-duration``, seconds."""


@dataclass(frozen=True, slots=True)
class Tasks:
    """Tasks of one prefix: queued (or without a worker), sent to workers, and ``TaskPrefix``' knowledge of them."""

    queued: int
    processing: int
    average: float = -1.0
    longest: float = -1.0

    @property
    def seconds(self) -> float:
        """``Scheduler._get_prefix_duration``."""
        if self.average >= 0:
            return self.average
        return 2 * self.longest if self.longest > 0 else UNKNOWN


def adaptive_target(tasks: Sequence[Tasks], threads: Sequence[int], target_duration: float = 5.0) -> int:
    """Return the workers that Dask wants, before its scale-down rule; memory is not full.

    Parameters
    ----------
    tasks : sequence of Tasks
        In the order of their priority: of the queued ones Dask looks at a hundred.
    threads : sequence of int
        Of each worker.
    """
    ready = sum(row.queued for row in tasks)
    looked, queued_occupancy = 0, 0.0
    for row in tasks:
        count = min(row.queued, 100 - looked)
        looked += count
        queued_occupancy += count * row.seconds
    if ready > 100:
        queued_occupancy *= ready / 100
    occupancy = sum(row.processing * row.seconds for row in tasks)
    cpu = math.ceil((occupancy + queued_occupancy) / target_duration)
    every = ready + sum(row.processing for row in tasks)
    if every <= cpu:
        cpu = every
    if threads:
        cpu = math.ceil(cpu / sum(threads) * len(threads))
    elif ready:
        cpu = max(1, cpu)
    return cpu


def tasks_of(prefixes: Sequence[Prefix]) -> list[Tasks]:
    """Return what the scheduler of a simulated cluster knows."""
    return [Tasks(p.queued, p.processing, p.average, p.longest) for p in prefixes if p.queued or p.processing]


class AdaptiveScaler:
    """``distributed.deploy.Adaptive`` on workers of one kind.

    Parameters
    ----------
    name : str
        Of the class; Dask knows one only.
    threads : int
    """

    interval = 1.0

    def __init__(
        self,
        name: str,
        threads: int,
        maximum: int,
        minimum: int = 0,
        target_duration: float = 5.0,
        wait_count: int = 3,
    ) -> None:
        self.name, self.threads, self.maximum, self.minimum = name, threads, maximum, minimum
        self.target_duration, self.wait_count = target_duration, wait_count
        self.counts: dict[str, int] = {}

    def step(self, seen: Seen, now: float) -> Orders:
        """Return what one ``adapt()`` would do."""
        views = seen.workers[self.name]
        ready = [view for view in views if view.ready]
        target = self.target(seen, ready)
        if target >= len(views):
            self.counts.clear()
            return Orders({self.name: target - len(views)})
        pending = [view.name for view in views if not view.ready]
        closing = pending[: len(views) - target]
        if target < len(views) - len(closing):
            closing += [view.name for view in _to_close(ready, len(ready) - target)]
        self.counts = {name: self.counts.get(name, 0) + 1 for name in closing}
        firm = {name for name, count in self.counts.items() if count >= self.wait_count}
        self.counts = {name: count for name, count in self.counts.items() if name not in firm}
        absent = set(pending)
        return Orders(
            {}, [name for name in closing if name in firm - absent], [n for n in closing if n in firm & absent]
        )

    def target(self, seen: Seen, ready: Sequence[WorkerView]) -> int:
        """``safe_target``: with the rule that only idle workers are given up."""
        rows = tasks_of(list(seen.prefixes.values()))
        target = adaptive_target(rows, [self.threads] * len(ready), self.target_duration)
        if target < len(ready):
            idle = sum(view.idle_since is not None for view in ready)
            target = len(ready) - idle
        return max(self.minimum, min(self.maximum, target))


class OperatorScaler(AdaptiveScaler):
    """The autoscaler of dask-kubernetes 2026.3: every 5 s, at most a quarter down, 15 s between two changes.

    It retires the workers started last, whatever they do; pending ones are not preferred.
    """

    interval = 5.0
    changed = -math.inf

    def step(self, seen: Seen, now: float) -> Orders:
        """Return what one turn of its controller would do."""
        views = seen.workers[self.name]
        target = self.target(seen, [view for view in views if view.ready])
        if target > len(views):
            self.changed = now
            return Orders({self.name: target - len(views)})
        if target == len(views) or now - self.changed < 15:
            return Orders()
        self.changed = now
        last = list(views)[max(target, math.floor(0.75 * len(views))) :]
        return Orders({}, [v.name for v in last if v.ready], [v.name for v in last if not v.ready])


def _to_close(ready: Sequence[WorkerView], count: int) -> list[WorkerView]:
    """``Scheduler.workers_to_close(n=count)``: idle ones first."""
    return sorted(ready, key=lambda view: view.idle_since is None)[: max(0, count)]
