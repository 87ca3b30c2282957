"""What is left to do, as the scheduler knows it: the input of every scaling decision.

``BacklogPlugin`` runs on the scheduler. Dispatchers tell it about their stages through
``BacklogReporter``; tasks of other code are counted as they change state, in constant time per
transition. The cluster reads both through the handler ``daskml_backlog`` and retires workers through
``daskml_retire``, which refuses busy ones on the spot, where the answer cannot be out of date.

The module is a preload (``dask_setup``). It decides nothing and never scans ``scheduler.tasks``
after its start.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from typing import Any

from distributed.diagnostics.plugin import SchedulerPlugin
from distributed.metrics import thread_time, time

from daskml_scale.scaling.demand import Shape, backlog_seconds, slots

from . import backlog_rows as rows
from .backlog_rows import COLUMN, MAX_KEYS, PROCESSING, Bucket, bucket_of
from .client import KEY_PREFIX
from .results import OPERATION, pass_on

logger = logging.getLogger(__name__)

NAME = "daskml-backlog"
"""Of the plugin on the scheduler."""
TOPIC = "daskml-backlog"
"""Dask event topic on which dispatchers report."""
MAX_ROWS = 1000
"""Stages kept; the one reported longest ago is dropped first."""
MAX_IDLE = 64
"""Addresses of workers with a free slot that a dispatcher is told."""
HEARD_SECONDS = 10.0
"""A worker not heard of for so long counts as busy: it would not start a task."""


class BacklogPlugin(SchedulerPlugin):  # type: ignore[misc]
    """Bounded record of reported stages and of the other tasks by prefix, resources and state.

    Attributes
    ----------
    stages : dict
        (client id, dispatcher id) -> row, see `reporter.BacklogReporter.report`; in order of the last report.
    counts : dict
        Bucket -> [waiting for other tasks, could run now, sent to a worker].
    idle : dict
        Worker address -> time since when it has nothing to do, seconds since the epoch.
    left : int
        Tasks, of anybody, that have left a worker since the start: done, failed or lost.
    """

    name = NAME
    idempotent = True

    def __init__(self) -> None:
        self.stages: dict[tuple[str, str], dict[str, Any]] = {}
        self.counts: dict[Bucket, list[int]] = {}
        self.idle: dict[str, float] = {}
        self.left = 0
        self.classes: list[dict[str, Any]] = []
        """Worker classes (name, threads, resources, price) as who scales has told them."""

    async def start(self, scheduler: Any) -> None:
        """Count what is there already and offer the handlers."""
        self.scheduler = scheduler
        self._retiring = asyncio.Lock()
        self.stages.clear()
        self._recount()
        scheduler.handlers.update(self._handlers())
        scheduler.stream_handlers[OPERATION] = self._result

    def _handlers(self) -> dict[str, Any]:
        return {
            "daskml_backlog": self.snapshot,
            "daskml_retire": self.retire,
            "daskml_report": self.report,
            "daskml_flight": self.flight,
            "daskml_classes": self.set_classes,
        }

    async def close(self) -> None:
        """Withdraw the handlers."""
        for handler in self._handlers():
            self.scheduler.handlers.pop(handler, None)
        # The handler of results stays: a stream that brings what nobody handles would be closed.

    def _result(self, worker: str, client: str, key: str, result: Any) -> None:
        pass_on(self.scheduler, client, key, result)

    def restart(self, scheduler: Any) -> None:
        """Forget stages: their tasks were cancelled, and who still runs reports again."""
        self.stages.clear()
        self._recount()

    def _recount(self) -> None:
        self.counts.clear()
        for task in self.scheduler.tasks.values():
            column = COLUMN.get(task.state)
            if column is not None and not _ours(task.key):
                self.counts.setdefault(bucket_of(task), [0, 0, 0])[column] += 1

    def transition(self, key: Any, start: str, finish: str, *args: Any, **kwargs: Any) -> None:
        """Follow one task (the hot path: no loops)."""
        left, entered = COLUMN.get(start), COLUMN.get(finish)
        if left is entered is None:
            return
        task = self.scheduler.tasks.get(key)
        if task is None:
            return
        self.left += left == PROCESSING
        if entered == PROCESSING and task.processing_on is not None:
            self.idle.pop(task.processing_on.address, None)
        if left == entered or _ours(key):
            return
        bucket = bucket_of(task)
        row = self.counts.get(bucket)
        if row is None:
            row = self.counts[bucket] = [0, 0, 0]
        if left is not None:
            row[left] -= 1
        if entered is not None:
            row[entered] += 1
        elif not (row[0] or row[1] or row[2]):
            del self.counts[bucket]

    def add_worker(self, scheduler: Any, worker: str) -> None:
        """Start the idle clock of a new worker."""
        self.idle[worker] = time()

    def remove_worker(self, scheduler: Any, worker: str, **kwargs: Any) -> None:
        """Forget a worker."""
        self.idle.pop(worker, None)

    def remove_client(self, scheduler: Any, client: str) -> None:
        """Forget the stages of a driver that is gone."""
        for row in [row for row in self.stages if row[0] == client]:
            del self.stages[row]

    def log_event(self, topic: str, msg: Any) -> None:
        """Take a report as an event; anything malformed is ignored."""
        if topic == TOPIC:
            self._take(msg)

    def report(self, message: Any) -> dict[str, Any]:
        """Take the report of a dispatcher and tell it what it may use.

        Returns
        -------
        dict
            ``slots``: tasks with these resources that the cluster runs at a time; ``others``: weights of the
            other stages that have work; ``idle``: addresses of workers with a free slot, at most `MAX_IDLE`;
            ``passes_on``: small results may be sent ahead (`results`); ``left``: tasks that have left a worker
            so far, and ``cpu``: seconds of CPU that the thread of the scheduler's event loop has used.
        """
        key = self._take(message)
        needs = dict((message.get("resources") if isinstance(message, Mapping) else None) or {})
        total = 0
        idle: list[str] = []
        now = time()
        for worker in self.scheduler.running:
            most = slots(worker.nthreads, worker.resources, needs)
            total += most
            if len(idle) < MAX_IDLE and len(worker.processing) < most and now - worker.last_seen < HEARD_SECONDS:
                idle.append(worker.address)
        others = [row["weight"] for other, row in self.stages.items() if other != key and row["runnable"] > 0]
        return {
            "slots": total, "others": others, "idle": idle, "passes_on": True, "left": self.left, "cpu": thread_time(),
        }  # fmt: skip

    def _take(self, msg: Any) -> tuple[str, str] | None:
        try:
            row = rows.of_stage(msg)
            key = (row["client"], str(msg.get("id", row["stage"])))
        except (AttributeError, KeyError, TypeError, ValueError):
            logger.debug("ignored a malformed backlog report: %r", msg)
            return None
        self.stages.pop(key, None)
        if row["units_left"] > 0 and not msg.get("closed"):
            self.stages[key] = row
            if len(self.stages) > MAX_ROWS:
                del self.stages[next(iter(self.stages))]
        return key

    def seconds_by_class(self) -> dict[str, float]:
        """Return class -> seconds of work per worker slot (see `demand.backlog_seconds`)."""
        shapes = [Shape(row["name"], row["threads"], row["resources"], row["price"]) for row in self.classes]
        return backlog_seconds({"stages": list(self.stages.values()), "tasks": self._task_rows()}, shapes)

    def set_classes(self, classes: Sequence[Mapping[str, Any]]) -> None:
        """Take the worker classes, for the gauge of the backlog."""
        self.classes = [dict(row) for row in classes]

    def flight(self, keys: Sequence[str]) -> list[dict[str, Any]]:
        """Return where tasks are: state, worker's address and name, seconds since it was heard of."""
        now = time()
        return [rows.of_place(self.scheduler.tasks.get(key), now) for key in keys]

    def snapshot(self) -> dict[str, Any]:
        """Return the backlog and the workers as plain data (see the module function `snapshot`)."""
        now = time()
        return {
            "time": now,
            "stages": [dict(row) for row in self.stages.values()],
            "tasks": self._task_rows(),
            "workers": [rows.of_worker(worker, now, self.idle) for worker in self.scheduler.workers.values()],
            "classes": bool(self.classes),
        }

    def _task_rows(self) -> list[dict[str, Any]]:
        prefixes = self.scheduler.task_prefixes
        return [rows.of_tasks(bucket, counts, prefixes.get(bucket[0])) for bucket, counts in self.counts.items()]

    async def retire(self, names: Sequence[str], busy: bool = False) -> list[str]:
        """Move the data of workers elsewhere and close them.

        Parameters
        ----------
        names : sequence of str
            Worker names.
        busy : bool
            Also workers that have tasks; those tasks run again elsewhere.

        Returns
        -------
        list of str
            Names of the workers that are retired. The others stay as they were: they had work, or
            nobody could take their data.
        """
        # Dask takes a replica on another worker that is leaving for a safe one, and both go.
        async with self._retiring:
            return await self._retire(set(names), busy)

    async def _retire(self, wanted: set[str], busy: bool) -> list[str]:
        workers = list(self.scheduler.workers.values())
        for plugin in list(self.scheduler.plugins.values()):  # a shuffle keeps its workers
            workers = workers if busy else plugin.valid_workers_downscaling(self.scheduler, workers)
        found: list[str] = []
        for together in _apart([worker for worker in workers if str(worker.name) in wanted]):
            free = [worker.address for worker in together if busy or not (worker.processing or worker.actors)]
            if free:
                retired = await self.scheduler.retire_workers(workers=free, close_workers=True, remove=True)
                found += [str(info["name"]) for info in retired.values()]
        return found


def _apart(leaving: list[Any]) -> list[list[Any]]:
    """Return workers in groups that may leave at once: one by one where several hold what nobody else does."""
    going = set(leaving)
    for worker in leaving:
        for number, task in enumerate(worker.has_what):
            if number == MAX_KEYS or (len(task.who_has or ()) > 1 and going.issuperset(task.who_has)):
                return [[each] for each in leaving]
    return [leaving] if leaving else []


def _ours(key: Any) -> bool:
    head = key[0] if isinstance(key, tuple) and key else key
    return isinstance(head, str) and head.startswith(KEY_PREFIX)


def snapshot(scheduler: Any) -> dict[str, Any]:
    """Return the backlog and the workers of a scheduler that has the plugin, as plain data.

    Returns
    -------
    dict
        ``time`` (seconds since the epoch), ``stages`` (rows of `BacklogReporter.report`), ``tasks`` (of
        other code: prefix, resources, waiting, ready, processing, seconds each or ``None``),
        ``workers`` (address, name, nthreads, resources, status, processing, long_running, bytes,
        memory_limit, unique_bytes, idle_since) and ``classes`` (whether they were told).
    """
    result: dict[str, Any] = scheduler.plugins[NAME].snapshot()
    return result


def read_backlog(client: Any) -> dict[str, Any]:
    """Return `snapshot` of the scheduler of a client."""
    raw = client.sync(client.scheduler.daskml_backlog)
    # The transport turns lists into tuples.
    return {name: list(value) if isinstance(value, tuple) else value for name, value in raw.items()}


async def dask_setup(scheduler: Any) -> None:
    """Install the plugin (the preload hook); the scheduler starts it afterwards."""
    scheduler.add_plugin(BacklogPlugin(), name=NAME, idempotent=True)
