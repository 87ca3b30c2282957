"""What a run cost beside its seconds: CPU of driver and scheduler, tasks sent and in flight, memory, busy slots.

CPU seconds of a process hardly depend on who else uses the machine, unlike seconds on the clock.
"""

from __future__ import annotations

import itertools
import multiprocessing
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import psutil
from distributed.diagnostics.plugin import SchedulerPlugin

from .common import SLOTS, Counts, Runner

TENTHS = 10


class Moment(NamedTuple):
    """Seconds of CPU so far, and tasks."""

    driver: float
    scheduler: float
    tasks: int


class Watch:
    """Follows one client and its scheduler, which is another process of this machine.

    Parameters
    ----------
    client : distributed.Client
    """

    def __init__(self, client: Any) -> None:
        self.client = client
        client.register_plugin(_tasks(), name="tasks")
        self.scheduler = psutil.Process(client.run_on_scheduler(os.getpid))

    def now(self) -> Moment:
        """Return where the counters are; the most tasks in flight are counted from here."""
        sent, _ = self._tasks()
        times = self.scheduler.cpu_times()
        return Moment(time.process_time(), times.user + times.system, sent)

    def since(self, before: Moment, calls: int) -> Counts:
        """Return what was sent and spent since a moment."""
        driver, times = time.process_time(), self.scheduler.cpu_times()
        sent, _ = self._tasks()
        return {
            "tasks": sent - before.tasks,
            "us of driver a call": (driver - before.driver) / calls * 1e6,
            "us of scheduler a call": (times.user + times.system - before.scheduler) / calls * 1e6,
        }

    def most(self) -> int:
        """Return the most tasks in flight since the last look."""
        return self._tasks()[1]

    def _tasks(self) -> tuple[int, int]:
        found: tuple[int, int] = self.client.run_on_scheduler(_read)
        return found


def _read(dask_scheduler: Any) -> tuple[int, int]:
    plugin = dask_scheduler.plugins["tasks"]
    most, plugin.most = plugin.most, len(plugin.live)
    return plugin.sent, most


def _tasks() -> Any:
    """Return a plugin that goes to the scheduler by value: it need not find this module."""

    class Tasks(SchedulerPlugin):  # type: ignore[misc]
        idempotent = True

        def __init__(self) -> None:
            self.sent = self.most = 0
            self.live: set[Any] = set()

        def update_graph(self, scheduler: Any, *, tasks: Sequence[Any], **more: Any) -> None:
            self.sent += len(tasks)

        def transition(self, key: Any, start: str, finish: str, *args: Any, **more: Any) -> None:
            if finish in ("processing", "queued", "no-worker"):
                self.live.add(key)
                self.most = max(self.most, len(self.live))
            elif finish in ("memory", "erred", "forgotten"):
                self.live.discard(key)

    return Tasks()


def timing(function: Callable[[Path], Sequence[Any]], count: int, watch: Watch | None = None) -> Runner:
    """Return a runner that checks the number of results, and counts what calls took and what it cost around them."""

    def run(folder: Path) -> Counts:
        before = watch.now() if watch is not None else None
        started = time.perf_counter()
        found = function(folder)
        taken = time.perf_counter() - started
        if len(found) != count:
            raise RuntimeError(f"{len(found)} results of {count} calls")
        cost = watch.since(before, count) if watch is not None and before is not None else {}
        return {"seconds": taken, **busy(found, taken), **cost}

    return run


def busy(found: Sequence[Any], taken: float) -> Counts:
    """Return the share of the slots' time inside calls, where calls return (seconds, seconds of CPU)."""
    if not found or not isinstance(found[0], tuple):
        return {}
    clock, cpu = (sum(each) / (SLOTS * taken) * 100 for each in zip(*found, strict=True))
    return {"% busy": clock, **({"% CPU": cpu} if cpu else {})}


def fresh(measure: Callable[..., Counts], *arguments: Any) -> Counts:
    """Measure in a new process: one that ran something else already has memory to reuse."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
        return process.submit(measure, *arguments).result()


def growth(give: Callable[[Iterator[bytes]], Iterable[object]], count: int, size: int) -> Counts:
    """Send payloads from a generator through ``give``; return how this process grew and how even its CPU time is."""
    process = psutil.Process()
    base = peak = process.memory_info().rss
    started, marks = time.perf_counter(), [time.process_time()]

    def payloads() -> Iterator[bytes]:
        nonlocal peak
        for number in range(count):
            if number % 1000 == 0:
                peak = max(peak, process.memory_info().rss)
            yield number.to_bytes(size, "little")

    done = 0
    for _ in give(payloads()):
        done += 1
        if done % (count // TENTHS) == 0:
            marks.append(time.process_time())
            peak = max(peak, process.memory_info().rss)
    if done != count:
        raise RuntimeError(f"{done} results of {count} payloads")
    spent = [after - before for before, after in itertools.pairwise(marks)]
    return {
        "seconds": time.perf_counter() - started,
        "MB more in the driver": (peak - base) / 1e6,
        "us of driver a call": (marks[-1] - marks[0]) / count * 1e6,
        "CPU of last / first tenth": spent[-1] / max(spent[0], 1e-9),
    }
