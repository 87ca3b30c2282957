"""A ``SpecCluster`` whose workers belong to classes: ``scale`` and ``adapt``, start, replacement, end.

What it changes in distributed's, besides what `classes` does: a worker that dies is replaced under a new name;
``adapt()`` follows the backlog. It starts no processes: a backend gives each class a template of a
``ProcessInterface``.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Generator, Iterable, Mapping
from typing import Any

from distributed.core import Status
from distributed.deploy.cluster import Cluster
from distributed.deploy.spec import SpecCluster
from distributed.utils import NoOpAwaitable

from daskml_scale import events
from daskml_scale.errors import ClusterError, UsageError
from daskml_scale.scaling.policy import Limits
from daskml_scale.spec.cluster import OwnSpec

from .classes import ClassedCluster

logger = logging.getLogger(__name__)

PAUSES = (0.0, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
"""Seconds before the n-th replacement in a row of workers that died before they were ready."""
CLOSE_SECONDS = 20.0
"""Time for an orderly close; then processes are ended."""


class ScaledCluster(ClassedCluster):
    """Workers in classes, scaled by their backlog.

    Parameters
    ----------
    spec : OwnSpec
    limits : mapping
        Class -> `Limits` of this backend (maxima resolved).
    adapt : bool
        Follow the backlog from the start; otherwise every class has its maximum.
    sink : callable, optional
        Receives `events.Scaled`, on the event loop's thread.
    **kwargs
        Of ``SpecCluster``.
    """

    def __init__(
        self,
        spec: OwnSpec,
        limits: Mapping[str, Limits],
        *,
        adapt: bool = True,
        sink: events.Sink = events.ignore,
        **kwargs: Any,
    ) -> None:
        self.sink = sink
        self._settled = False
        self._early_deaths = 0
        try:
            super().__init__(spec, limits, adapt=adapt, **kwargs)
            if not self.called_from_running_loop:
                self.sync(self._settle)
        except BaseException:
            self._abandon()
            raise

    def _abandon(self) -> None:
        """Clean up after a failed or interrupted start."""
        runner = getattr(self, "_loop_runner", None)
        if runner is not None and not self.called_from_running_loop:
            self.close(timeout=30)

    # Growing and shrinking

    def scale(
        self, n: int = 0, memory: Any = None, cores: int | None = None, worker_class: str | None = None
    ) -> NoOpAwaitable | None:
        """Have ``n`` workers of a class (the first when not named) and stop adapting.

        Shrinking takes idle workers first and moves the data of busy ones; it happens in the background.

        Parameters
        ----------
        n : int
        memory : str, optional
            Enough workers for this much memory instead, such as ``"16 GiB"``.
        cores : int, optional
            Enough workers for these threads instead.
        """
        if self.status in (Status.closing, Status.closed, Status.failed):
            self.worker_spec.clear()
            return NoOpAwaitable() if self.asynchronous else None
        chosen = worker_class or next(iter(self.spec.classes))
        if chosen not in self.spec.classes:
            raise UsageError(f"no class {chosen!r} in cluster {self.spec.name}; it has {', '.join(self.spec.classes)}")
        from .adaptive import BacklogAdaptive, workers_for

        enough = (
            workers_for(memory, self.templates[chosen]["memory"], math.ceil),
            workers_for(cores, self.spec.classes[chosen].threads, math.ceil),
        )
        n = max(n, *(number or 0 for number in enough))
        if isinstance(self._adaptive, BacklogAdaptive):  # another policy scales through this method
            self._adaptive.stop(reason="scale() was called")
        self.loop.add_callback(self._scale_to, chosen, n)
        return NoOpAwaitable() if self.asynchronous else None

    scale_up = scale

    async def scale_down(self, workers: Iterable[str]) -> None:
        """Retire these workers (what distributed's own ``Adaptive`` calls)."""
        await self.retire(workers, busy=True)

    async def _scale_to(self, worker_class: str, n: int) -> None:
        members = [name for name, owner in self.planned.items() if owner == worker_class and name not in self.leaving]
        surplus = len(members) - n
        if surplus <= 0:
            self.add_workers(worker_class, -surplus)
            return
        raw = await self.scheduler_comm.daskml_backlog()
        rank = {row["name"]: (1, row["idle_since"] is None, row["unique_bytes"]) for row in raw["workers"]}
        members.sort(key=lambda name: rank.get(name, (0, False, 0)))
        absent = [name for name in members[:surplus] if name not in rank]
        await self.cancel(absent)
        asked = members[len(absent) : surplus]
        kept = set(asked) - set(await self.retire(asked, busy=True))
        if kept:
            logger.warning("%s stay: nobody could take their data", ", ".join(sorted(kept)))

    def adapt(
        self,
        Adaptive: Any = None,
        minimum: float | None = None,
        maximum: float | None = None,
        minimum_cores: int | None = None,
        maximum_cores: int | None = None,
        minimum_memory: str | None = None,
        maximum_memory: str | None = None,
        target_duration: str | float | None = None,
        wait_count: int | None = None,
        interval: str | float = "500ms",
        **kwargs: Any,
    ) -> Any:
        """Follow the backlog within the limits of the specification.

        Parameters
        ----------
        Adaptive : type, optional
            Another policy; by default `BacklogAdaptive`.
        minimum, maximum : int, optional
            Override the limits of the first class; also as cores or memory.
        target_duration : str or float, optional
            Override its horizon.
        wait_count : int, optional
            Override its idle time, in intervals.
        interval : str or float
            Time between two looks.
        **kwargs
            Of another adaptive class.
        """
        from .adaptive import BacklogAdaptive, bounds, limits_with

        name = next(iter(self.limits))
        fewest, most = (minimum, minimum_cores, minimum_memory), (maximum, maximum_cores, maximum_memory)
        minimum, maximum = bounds(fewest, most, self.spec.classes[name].threads, self.templates[name]["memory"])
        if Adaptive not in (None, BacklogAdaptive):
            extra = {"target_duration": target_duration, "wait_count": wait_count, "interval": interval, **kwargs}
            known = {key: value for key, value in extra.items() if value is not None}
            return super().adapt(Adaptive=Adaptive, minimum=minimum or 0, maximum=maximum or math.inf, **known)
        maximum = None if maximum == math.inf else maximum
        self.limits[name] = limits_with(self.limits[name], interval, minimum, maximum, target_duration, wait_count)
        return Cluster.adapt(self, Adaptive=BacklogAdaptive, interval=interval, **kwargs)

    # Life and death

    async def _prepare(self) -> None:
        """Make what the processes need, and call `use_templates`. A backend says what."""

    async def _release(self) -> None:
        """Remove what `_prepare` made, when every process is gone. A backend says what."""

    async def _start(self) -> None:
        if not self.templates:
            await self._prepare()
        try:
            await super()._start()
        except RuntimeError as error:
            raise ClusterError(f"cluster {self.spec.name} did not start: {error.__cause__ or error}") from error

    def __await__(self) -> Generator[Any, Any, ScaledCluster]:
        yield from SpecCluster.__await__(self)
        yield from self._settle().__await__()
        return self

    async def _settle(self) -> None:
        """Wait for the workers of the start; from then on lost ones are replaced."""
        if self._settled:
            return
        first: ClusterError | None = None
        for process in list(self.workers.values()):
            try:
                await process.wait_ready()
            except ClusterError as error:
                first = first or error
        if first is not None and not any(process.ready for process in self.workers.values()):
            raise first
        while not {name for name, process in self.workers.items() if process.ready} <= self.observed:
            await asyncio.sleep(0.01)  # the news takes a moment from the scheduler to here
        self._settled = True
        for process in [process for process in self.workers.values() if process.code is not None]:
            self.worker_ended(process)
        if self._adapt_at_start:
            self.adapt()

    def worker_ended(self, process: Any) -> None:
        """Forget a worker that is gone; replace it unless that was intended. On the event loop only."""
        if not self._settled or self.status != Status.running:
            return
        self.workers.pop(process.name, None)
        if self.worker_spec.pop(process.name, None) is None or process.dismissed:
            return
        self._early_deaths = 0 if process.address else self._early_deaths + 1
        pause = PAUSES[min(self._early_deaths, len(PAUSES) - 1)]
        fresh = self.new_worker_spec(process.worker_class)
        self.worker_spec.update(fresh)
        logger.warning(
            "worker %s is gone (%s); %s replaces it",
            process.name, process.failure or f"exit code {process.code}", *fresh,
        )  # fmt: skip
        self.loop.call_later(pause, self._correct_soon)

    def scheduler_lost(self) -> None:
        """Close what is left: without its scheduler a cluster cannot go on. On the event loop only."""
        if self.status == Status.running:
            logger.error("the scheduler of cluster %s is gone: the cluster closes", self.name)
            self.shutdown_scheduler = False  # there is nobody to ask
            self.loop.add_callback(self._close)

    def _update_worker_status(self, op: str, msg: Any) -> None:
        # Not SpecCluster's, which would start a worker again under its old name.
        if op == "remove":
            info = self.scheduler_info["workers"].get(msg)
            if info is None:
                return
            from dask.config import get
            from dask.utils import parse_timedelta

            delay = parse_timedelta(get("distributed.deploy.lost-worker-timeout"))
            self.loop.call_later(delay, self._end_if_lost, info["name"])
        Cluster._update_worker_status(self, op, msg)

    def _end_if_lost(self, name: str) -> None:
        """End a process that the scheduler gave up; its end has it replaced."""
        if name in self.workers and name not in self.observed:
            self.workers[name].kill()

    async def _close(self) -> None:
        for process in self._created:
            if not process.ready:
                process.kill()  # do not wait for the start of what will not be used
        try:
            await asyncio.wait_for(super()._close(), CLOSE_SECONDS)
        except AssertionError:
            pass  # Dask's, of a worker that was being replaced or given up just then: it is ended below
        except TimeoutError:
            logger.warning("cluster %s did not close within %g s and is ended", self.name, CLOSE_SECONDS)
        finally:
            for process in filter(None, (self.scheduler, *self._created)):
                await process.close()
            await Cluster._close(self)
            await self._release()
