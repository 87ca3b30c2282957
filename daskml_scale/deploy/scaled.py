"""A ``SpecCluster`` whose workers belong to classes: names, growth, safe shrinking, replacement.

What it changes in distributed's: a number in a worker's name is never used again; shrinking retires
workers by name and releases only those whose data is safe elsewhere (distributed#4069); a worker that
dies is replaced under a new name; ``adapt()`` follows the backlog. It starts no processes: a backend
gives each class a template of a ``ProcessInterface``.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable, Generator, Iterable, Mapping
from typing import Any

from distributed.core import Status
from distributed.deploy.cluster import Cluster
from distributed.deploy.spec import SpecCluster
from distributed.utils import NoOpAwaitable

from daskml_scale import events
from daskml_scale.errors import ClusterError, UsageError
from daskml_scale.scaling.demand import Shape
from daskml_scale.scaling.policy import Limits
from daskml_scale.spec.cluster import OwnSpec

from .members import log_failure

logger = logging.getLogger(__name__)

PAUSES = (0.0, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
"""Seconds before the n-th replacement in a row of workers that died before they were ready."""
CLOSE_SECONDS = 20.0
"""Time for an orderly close; then processes are ended."""


class ScaledCluster(SpecCluster):  # type: ignore[misc]
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
        self.spec, self.limits, self.sink = spec, dict(limits), sink
        self.templates: dict[str, dict[str, Any]] = {}
        self.leaving: set[str] = set()
        self._adapt_at_start = adapt and spec.scaling is not None
        self._numbers = dict.fromkeys(spec.classes, 0)
        self._settled = False
        self._early_deaths = 0
        try:
            super().__init__(**kwargs)
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

    # Classes and names

    @property
    def shapes(self) -> list[Shape]:
        """What a worker of each class offers, in the order of the specification."""
        return [
            Shape(name, item.threads, dict(item.resources), item.price_per_hour)
            for name, item in self.spec.classes.items()
        ]

    @property
    def planned(self) -> dict[str, str]:
        """Worker name -> class, of every worker that should exist."""
        return {name: entry["options"]["worker_class"] for name, entry in self.worker_spec.items()}

    def new_worker_spec(self, worker_class: str | None = None) -> dict[str, dict[str, Any]]:
        """Return {name: template} of one more worker of a class (the first class when not named)."""
        chosen = worker_class or next(iter(self.spec.classes))
        name = f"{chosen}-{self._numbers[chosen]}"
        self._numbers[chosen] += 1
        return {name: self.templates[chosen]}

    def use_templates(self, templates: Mapping[str, dict[str, Any]]) -> None:
        """Set what workers are made of and plan those of the start (a backend calls it once).

        A template has ``cls`` and ``options`` as in ``SpecCluster`` and ``memory``, the bytes of a worker;
        ``options["worker_class"]`` names the class.
        """
        self.templates = dict(templates)
        self.new_spec = next(iter(self.templates.values()))
        for name in self.templates:
            limits = self.limits[name]
            for _ in range(limits.minimum if self._adapt_at_start else limits.maximum):
                self.worker_spec.update(self.new_worker_spec(name))

    # Growing and shrinking

    def add_workers(self, worker_class: str, count: int) -> list[str]:
        """Plan workers and start them in the background; return their names. On the event loop only."""
        names: list[str] = []
        for _ in range(count):
            fresh = self.new_worker_spec(worker_class)
            self.worker_spec.update(fresh)
            names.extend(fresh)
        self._correct_soon()
        return names

    async def retire(self, names: Iterable[str], busy: bool = False) -> list[str]:
        """Retire workers by name and release those that the scheduler confirms.

        Parameters
        ----------
        busy : bool
            Also those with tasks; the tasks run again elsewhere.

        Returns
        -------
        list of str
            The released ones. The rest stays: it had work, or nobody could take its data.
        """
        wanted = [name for name in names if name in self.worker_spec and name not in self.leaving]
        if not wanted:
            return []
        self.leaving.update(wanted)
        try:
            released = list(await self.scheduler_comm.daskml_retire(names=wanted, busy=busy))
            for name in released:
                self.worker_spec.pop(name, None)
        finally:
            self.leaving.difference_update(wanted)
        if released:
            await self._correct_state()
        return released

    async def cancel(self, names: Iterable[str]) -> None:
        """Give up workers that have not arrived; those that just did stay."""
        for name in set(names) - self.observed:
            self.worker_spec.pop(name, None)
        await self._correct_state()

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
        if memory is not None:
            from dask.utils import parse_bytes

            n = max(n, -(-parse_bytes(memory) // self.templates[chosen]["memory"]))
        if cores is not None:
            n = max(n, -(-cores // self.spec.classes[chosen].threads))
        from .adaptive import BacklogAdaptive

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
        from .adaptive import BacklogAdaptive, limits_with

        name = next(iter(self.limits))
        threads, memory = self.spec.classes[name].threads, self.templates[name]["memory"]
        fewest = [minimum, _share(minimum_cores, threads, math.ceil), _share(minimum_memory, memory, math.ceil)]
        most = [maximum, _share(maximum_cores, threads, math.floor), _share(maximum_memory, memory, math.floor)]
        minimum = max((number for number in fewest if number is not None), default=None)
        maximum = min((number for number in most if number is not None), default=None)
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

    def _correct_soon(self) -> None:
        if self.status == Status.running:
            self._correct_state().add_done_callback(log_failure)

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


def _share(wanted: str | float | None, each: int, rounded: Callable[[float], int]) -> int | None:
    """Return how many workers make up so many cores or bytes."""
    if wanted is None:
        return None
    from dask.utils import parse_bytes

    return rounded((parse_bytes(wanted) if isinstance(wanted, str) else wanted) / each)
