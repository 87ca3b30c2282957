"""Carries out the scaling policy on a live cluster: read, decide, apply, tell.

Twice a second it reads the backlog from the scheduler, asks ``scaling.controller``, starts workers by name, and
retires idle ones through the scheduler, which confirms each before it is released (distributed's own ``Adaptive``
closes also those that could not save their data). The decision itself is nowhere here. An error is logged once and
the next tick tries again; a scheduler that has lost the backlog plugin, because it was started anew, gets it back.

``cluster.adapt(Adaptive=BacklogAdaptive, maximum=20)`` works on any ``SpecCluster``; our own clusters use it by
themselves.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from distributed.core import Status
from distributed.deploy.adaptive import Adaptive
from distributed.metrics import time
from distributed.protocol.pickle import dumps

from daskml_scale import events
from daskml_scale.engine.backlog import NAME, BacklogPlugin
from daskml_scale.errors import ClusterError, UsageError
from daskml_scale.scaling.controller import Controller, Money
from daskml_scale.scaling.demand import WorkerView, read
from daskml_scale.scaling.limits import money_of
from daskml_scale.scaling.news import news
from daskml_scale.scaling.policy import Decision, Limits
from daskml_scale.spec.base import seconds

from .members import UNLIMITED, Members

logger = logging.getLogger(__name__)


class BacklogAdaptive(Adaptive):  # type: ignore[misc]
    """Follows the backlog of a cluster.

    Parameters
    ----------
    cluster : ScaledCluster or distributed.SpecCluster
        Ours brings its limits; the following arguments but ``interval`` are for others.
    interval : str or float
        Time between two looks.
    minimum, maximum : int
        Workers.
    target_duration : str or float, optional
        Time in which the backlog should be done, 30 s by default (``Adaptive``'s name for our horizon).
    wait_count : int, optional
        Looks that a worker must be idle for before it goes; by default 20 s.
    startup : str or float
        First guess of the time from asking for a worker to its arrival; measured afterwards.
    sink : callable, optional
        Receives `events.Scaled`, on the event loop's thread.

    Attributes
    ----------
    controller : Controller
        What was learnt, spent and decided.
    log : deque of (time, change)
        As ``Adaptive.log``: ``{"status": "up", "n": workers}`` or ``{"status": "down", "workers": names}``.
    """

    state = "inactive"
    _adapting: bool

    def __init__(
        self,
        cluster: Any,
        interval: str | float = "500ms",
        minimum: int | None = None,
        maximum: float | None = None,
        target_duration: str | float | None = None,
        wait_count: int | None = None,
        startup: str | float = "10s",
        sink: events.Sink = events.ignore,
        **options: Any,
    ) -> None:
        if options:
            raise UsageError(
                f"BacklogAdaptive has no option {', '.join(sorted(options))}; workers that must go together are a "
                "'group' of the cluster's worker_spec, and how much memory stays free is the policy's matter"
            )
        self._told: dict[str, frozenset[str]] = {}
        self._told_infeasible: tuple[str, ...] = ()
        self._refused: dict[str, float] = {}
        self._asked: dict[str, float] = {}
        self._jobs: set[asyncio.Task[None]] = set()
        self._last: float | None = None
        self._complaint = ""
        self._installed = False
        super().__init__(None, minimum=minimum, maximum=maximum)  # reads the defaults of Dask's configuration
        if hasattr(cluster, "shapes"):  # ours
            self.members, self.sink = cluster, cluster.sink
            startups = {name: seconds(item.startup) for name, item in cluster.spec.classes.items()}
            money = money_of(cluster.spec)
        else:
            limits = limits_with(Limits(), interval, self.minimum, self.maximum, target_duration, wait_count)
            self.members, self.sink, money = Members(cluster, limits), sink, Money()
            startups = dict.fromkeys(self.members.limits, seconds(startup) if isinstance(startup, str) else startup)
        self.controller = Controller(self.members.shapes, self.members.limits, startups, money)
        super().__init__(cluster, interval=interval, minimum=self.minimum, maximum=self.maximum)

    @property
    def spent(self) -> float:
        """Money that the cluster's workers have cost since this object was made."""
        return self.controller.spent

    async def adapt(self) -> None:
        """Look once and act. Never raises."""
        if self._adapting:
            return
        self._adapting = True
        try:
            raw = await self._look()
            for decision in self._decide(raw):
                self._apply(decision)
                await self._tell(decision, raw["time"])
            await self._tell_infeasible(raw["time"])
            self._complaint = ""
        except Exception as error:
            complaint = f"{type(error).__name__}: {error}"
            if complaint != self._complaint and self.cluster.status == Status.running:
                logger.warning("scaling of cluster %s skipped a step: %s", self.cluster.name, complaint)
            self._complaint = complaint
        finally:
            self._adapting = False

    async def _look(self) -> Mapping[str, Any]:
        """Read the backlog; a scheduler without the plugin (not ours, or started anew) gets it first."""
        known, self._installed = self._installed, False  # unless this works
        raw: Mapping[str, Any] | None = await self.scheduler.daskml_backlog() if known else None
        if raw is None:  # what a scheduler answers that has no such handler
            await self.scheduler.register_scheduler_plugin(plugin=dumps(BacklogPlugin()), name=NAME, idempotent=True)
            raw = await self.scheduler.daskml_backlog()
        if raw is None:
            raise ClusterError("the scheduler does not tell its backlog, although it has the plugin")
        self._installed = True
        if not raw.get("classes"):
            shapes = [
                {"name": s.name, "threads": s.threads, "resources": dict(s.resources), "price": s.price}
                for s in self.controller.shapes.values()
            ]
            await self.scheduler.daskml_classes(classes=shapes)
        return raw

    def _decide(self, raw: Mapping[str, Any]) -> list[Decision]:
        """Decide for every class; state changes happen only here."""
        members, now = self.members, float(raw["time"])
        groups: Mapping[str, tuple[str, ...]] = {}
        if isinstance(members, Members):
            members.learn(raw["workers"])
            self.controller.know(members.shapes)
            groups = members.groups
        planned = members.planned
        demands, workers = read(raw, planned, members.leaving, groups)
        self._last = now
        self._asked = {name: at for name, at in self._asked.items() if name in planned}
        self._refused = {name: until for name, until in self._refused.items() if until > now}
        views = {name: [self._view(view) for view in listed] for name, listed in workers.items()}
        return self.controller.step(demands, views, now)

    def _view(self, worker: WorkerView) -> WorkerView:
        """Say since when it starts; hide that it is idle when its retirement was refused a short while ago."""
        if not worker.ready:
            return replace(worker, asked=self._asked.get(worker.name))
        return replace(worker, idle_since=None) if worker.name in self._refused else worker

    def _apply(self, decision: Decision) -> None:
        """Start and retire in the background, so that the next look is not late."""
        if decision.launch and self._last is not None:
            names = self.members.add_workers(decision.worker_class, decision.launch)
            self._asked.update(dict.fromkeys(names, self._last))
            self.log.append((time(), {"status": "up", "n": len(self.members.planned)}))
        if decision.cancel:
            self._background(self.members.cancel(decision.cancel))
        if decision.retire:
            self._background(self._retire(decision.retire))
        if decision.stop:
            self._background(self.members.retire(decision.stop, busy=True))
        if gone := [*decision.retire, *decision.cancel, *decision.stop]:
            self.log.append((time(), {"status": "down", "workers": gone}))

    async def _retire(self, names: tuple[str, ...]) -> None:
        released = await self.members.retire(names)
        if self._last is not None:
            window = max(limits.window for limits in self.members.limits.values())
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
        """Publish a decision that is news."""
        name = decision.worker_class
        told, self._told[name] = news(decision, self._told.get(name, frozenset()))
        if not told:
            return
        await self._publish(
            events.Scaled(
                time=now,
                worker_class=decision.worker_class,
                have=decision.have,
                need=decision.need,
                starting=decision.starting,
                backlog_seconds=decision.backlog_seconds,
                rule=decision.rule,
                reason="; ".join(decision.reasons),
            )
        )

    async def _tell_infeasible(self, now: float) -> None:
        infeasible = self.controller.infeasible
        if infeasible != self._told_infeasible:
            self._told_infeasible = infeasible
            for reason in infeasible:
                logger.warning("%s", reason)
                await self._publish(
                    events.Scaled(
                        time=now, worker_class="", have=0, need=0, backlog_seconds=0.0, rule="infeasible", reason=reason
                    )
                )

    async def _publish(self, event: events.Scaled) -> None:
        self.sink(event)
        await self.scheduler.log_event(topic=events.TOPIC, msg=event.to_dict())


def limits_with(
    limits: Limits,
    interval: str | float,
    minimum: float | None,
    maximum: float | None,
    target_duration: str | float | None,
    wait_count: int | None,
) -> Limits:
    """Return limits changed by the arguments of ``Adaptive``; ``None`` changes nothing."""
    from dask.utils import parse_timedelta

    if minimum is not None:
        limits = replace(limits, minimum=int(minimum))
    if maximum is not None:
        limits = replace(limits, maximum=max(1, int(min(maximum, UNLIMITED))))
    if target_duration is not None:
        limits = replace(limits, horizon=float(parse_timedelta(target_duration)))
    if wait_count is not None:
        idle = wait_count * float(parse_timedelta(interval))
        limits = replace(limits, keep_idle=idle, window=idle)
    return limits


def bounds(fewest: Sequence[Any], most: Sequence[Any], threads: int, memory: int) -> tuple[float | None, float | None]:
    """Return the least and most workers that arguments of ``Adaptive`` amount to; ``None`` where nothing is said.

    Parameters
    ----------
    fewest, most : (workers, cores, memory)
        Each may be ``None``; memory also as text.
    threads, memory : int
        Threads, and bytes, of a worker.
    """

    def said(limits: Sequence[Any], rounded: Callable[[float], int]) -> list[float]:
        workers, cores, size = limits
        found = (workers, workers_for(cores, threads, rounded), workers_for(size, memory, rounded))
        return [number for number in found if number is not None]

    return max(said(fewest, math.ceil), default=None), min(said(most, math.floor), default=None)


def workers_for(wanted: str | float | None, each: int, rounded: Callable[[float], int]) -> int | None:
    """Return how many workers make up so many cores or bytes."""
    if wanted is None:
        return None
    from dask.utils import parse_bytes

    return rounded((parse_bytes(wanted) if isinstance(wanted, str) else wanted) / each)
