"""Carries out the scaling policy on a live cluster: read, decide, apply, tell.

Twice a second it reads the backlog from the scheduler, asks ``scaling.policy`` per class, starts workers
by name, and retires idle ones through the scheduler, which confirms each before it is released
(distributed's own ``Adaptive`` closes also those that could not save their data). The decision itself
is nowhere here. An error is logged once and the next tick tries again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from distributed.deploy.adaptive import Adaptive

from daskml_scale import events
from daskml_scale.scaling.demand import WorkerView, assign, read
from daskml_scale.scaling.policy import ClassSnapshot, Decision, State, decide, learnt_startup
from daskml_scale.spec.base import seconds
from daskml_scale.spec.cluster import Budget

if TYPE_CHECKING:
    from .scaled import ScaledCluster

logger = logging.getLogger(__name__)


class BacklogAdaptive(Adaptive):  # type: ignore[misc]
    """Follows the backlog of a `ScaledCluster`; the limits are the cluster's.

    Parameters
    ----------
    cluster : ScaledCluster
    interval : str
        Time between two looks.

    Attributes
    ----------
    startups : dict
        Class -> seconds from asking for a worker to its registration, learnt.
    spent : float
        Money that the cluster's workers have cost since this object was made.
    decisions : dict
        Class -> last `Decision`.
    """

    def __init__(self, cluster: ScaledCluster, interval: str = "500ms") -> None:
        self.startups = {name: seconds(item.startup) for name, item in cluster.spec.classes.items()}
        self.spent = 0.0
        self.decisions: dict[str, Decision] = {}
        self._states: dict[str, State] = {}
        self._asked: dict[str, float] = {}
        self._refused: dict[str, float] = {}
        self._told: dict[str, tuple[str, ...]] = {}
        self._last: float | None = None
        self._complaint = ""
        self._infeasible: tuple[str, ...] = ()
        self._jobs: set[asyncio.Task[None]] = set()
        self._adapting = False
        super().__init__(cluster, interval=interval)

    async def adapt(self) -> None:
        """Look once and act. Never raises."""
        if self._adapting:
            return
        self._adapting = True
        try:
            raw = await self.scheduler.daskml_backlog()
            for decision in self._decide(raw):
                self._apply(decision)
                await self._tell(decision, raw["time"])
            await self._tell_infeasible(raw["time"])
            self._complaint = ""
        except Exception as error:
            complaint = f"{type(error).__name__}: {error}"
            if complaint != self._complaint:
                logger.warning("scaling of cluster %s skipped a step: %s", self.cluster.name, complaint)
            self._complaint = complaint
        finally:
            self._adapting = False

    def _decide(self, raw: Mapping[str, Any]) -> list[Decision]:
        """Decide for every class; state changes happen only here."""
        cluster, now = self.cluster, float(raw["time"])
        now = now if self._last is None else max(now, self._last)
        demands, workers = read(raw, cluster.planned, cluster.leaving)
        shapes = {shape.name: shape for shape in cluster.shapes}
        self._learn(workers, now)
        given, self._infeasible = assign(demands, list(shapes.values()))
        cost = sum(shape.price * len(workers.get(name, ())) for name, shape in shapes.items())
        self.spent += cost * (0.0 if self._last is None else now - self._last) / 3600
        self._last = now
        decisions = []
        for name, shape in shapes.items():
            own = shape.price * len(workers.get(name, ()))
            limits = replace(cluster.limits[name], spend=self._spend(cost - own))
            view = self._view(workers.get(name, []), now)
            snapshot = ClassSnapshot(shape, view, given[name], self.startups[name])
            decision, self._states[name] = decide(snapshot, limits, self._states.get(name, State()), now)
            cost += shape.price * decision.launch
            self.decisions[name] = decision
            decisions.append(decision)
        return decisions

    def _spend(self, others: float) -> float | None:
        """Return the money per hour that a class may cost, given what the others do."""
        budget = self.cluster.spec.scaling.budget if self.cluster.spec.scaling else Budget()
        if budget.total is not None and self.spent >= budget.total:
            return 0.0
        return None if budget.per_hour is None else budget.per_hour - others

    def _view(self, workers: list[WorkerView], now: float) -> list[WorkerView]:
        """Hide that a worker is idle when its retirement was refused a short while ago."""
        self._refused = {name: until for name, until in self._refused.items() if until > now}
        return [replace(worker, idle_since=None) if worker.name in self._refused else worker for worker in workers]

    def _learn(self, workers: Mapping[str, list[WorkerView]], now: float) -> None:
        """Measure start-ups: from the first look at a starting worker to the first at it registered."""
        starting = {view.name for views in workers.values() for view in views if not view.ready}
        for name, views in workers.items():
            for view in views:
                if view.ready and view.name in self._asked:
                    self.startups[name] = learnt_startup(self.startups[name], now - self._asked[view.name])
        self._asked = {name: self._asked.get(name, now) for name in starting}

    def _apply(self, decision: Decision) -> None:
        """Start and retire in the background, so that the next look is not late."""
        if decision.launch and self._last is not None:
            names = self.cluster.add_workers(decision.worker_class, decision.launch)
            self._asked.update(dict.fromkeys(names, self._last))
        if decision.cancel:
            self._background(self.cluster.cancel(decision.cancel))
        if decision.retire:
            self._background(self._retire(decision.retire))

    async def _retire(self, names: tuple[str, ...]) -> None:
        released = await self.cluster.retire(names)
        if self._last is not None:
            window = max(limits.window for limits in self.cluster.limits.values())
            self._refused.update(dict.fromkeys(set(names) - set(released), self._last + window))

    def _background(self, work: Any) -> None:
        task = asyncio.ensure_future(work)
        self._jobs.add(task)
        task.add_done_callback(self._finished)

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._jobs.discard(task)
        if not task.cancelled() and task.exception() is not None:
            logger.warning("workers could not be retired: %s", task.exception())

    async def _tell(self, decision: Decision, now: float) -> None:
        """Publish a decision that changes something, or the first that a limit holds back in a backlog."""
        told = self._told.get(decision.worker_class, ())
        if not decision.changes and (not decision.caps or decision.caps == told):
            if not decision.backlog_seconds:
                self._told.pop(decision.worker_class, None)  # the next backlog may be held back again
            return
        self._told[decision.worker_class] = decision.caps or told
        await self._publish(
            events.Scaled(
                time=now,
                worker_class=decision.worker_class,
                have=decision.have,
                need=decision.need,
                backlog_seconds=decision.backlog_seconds,
                reason="; ".join(decision.reasons),
            )
        )

    async def _tell_infeasible(self, now: float) -> None:
        if self._infeasible != self._told.get("", ()):
            self._told[""] = self._infeasible
            for reason in self._infeasible:
                logger.warning("%s", reason)
                await self._publish(
                    events.Scaled(time=now, worker_class="", have=0, need=0, backlog_seconds=0.0, reason=reason)
                )

    async def _publish(self, event: events.Scaled) -> None:
        self.cluster.sink(event)
        await self.scheduler.log_event(topic=events.TOPIC, msg=event.to_dict())
