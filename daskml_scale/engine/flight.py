"""The tasks of one dispatch that are on a cluster, and what to do when something happens to them.

* A kernel that raises fails its own unit; a retry policy may send it again.
* A lost worker is infrastructure: its units run again in a child process of a worker, where a unit that ends
  the process three times is found out (`suspects`).
* A task that took much longer than it was meant to returns what it has; the rest goes out again.
* With idle slots and nothing left to send, a task that runs much longer than its units usually do is sent
  a second time; the first result of each unit counts.
* A lost scheduler takes every task in flight with it: their units go out again to the scheduler that comes
  back, or to a new cluster.
* Without any progress for a long time the state is written down and silent workers are restarted.

All methods run on the caller's thread; what comes back from the cluster enters through a queue.
"""

from __future__ import annotations

import contextlib
import pickle
import queue
import time
import uuid
import warnings
from collections import deque
from collections.abc import Callable, Iterator
from itertools import chain
from typing import Any

from daskml_scale.errors import ClusterError
from daskml_scale.plan.batching import Batching, window

from .batches import Batch, Pace, Race, Task
from .client import KEY_PREFIX, lacking, reconnected
from .lookahead import LookAhead
from .outcomes import Finished, Outcomes, failed
from .reporter import BacklogReporter
from .results import Arrivals
from .sender import Sender
from .task import Failure, Kernel, Rows, unpacked
from .watchdog import stall_seconds, unstick

LOST_WORKERS = 10
"""Workers that may be lost, or schedulers, while they hold a unit; then the unit fails."""
LOST_SCHEDULERS = 5
"""Schedulers that may be lost one after the other without any progress between."""
FLUSH_SECONDS = 1.0
"""Longest time that a finished unit waits to be yielded."""
FLUSH_BYTES = 64 << 20
POLL_SECONDS = 0.5
LACKING_SECONDS = 10.0
"""Without any progress at first, after which it is said when no worker has the resources that tasks need."""
PATIENCE = 4.0
"""Times its meant duration after which a task starts no further unit, and a second at least."""
STRAGGLER = 3.0
"""Times the usual duration after which a task is sent a second time to an idle slot."""
STRAGGLER_SECONDS = 1.0
WAITS_FOR_NOTHING = "the source of units waits for outcomes, and no unit is in flight"
COPIES = 3
"""Most copies of a unit in flight."""


class Flight:
    """The state of one dispatch on a cluster; see `dispatch.dispatch` for the parameters."""

    def __init__(
        self,
        kernel: Kernel,
        shared: Any,
        ahead: LookAhead,
        *,
        name: str,
        client: Any,
        resources: dict[str, float],
        batching: Batching,
        retry: dict[str, int],
        weight: float,
        reconnect: Callable[[], Any] | None,
        tell: Callable[[str], None] | None,
        check: Callable[[], None],
    ) -> None:
        self.sender, self.pace = Sender(kernel, shared, resources), Pace(batching)
        self.ahead, self.name, self.resources = ahead, name, resources
        self.retry, self.weight, self.reconnect = retry, weight, reconnect
        self.tell, self.check = tell or (lambda message: None), check
        self.tasks: dict[str, Task] = {}
        self.again: deque[Batch] = deque()
        self.suspects: deque[Batch] = deque()
        self.done: queue.SimpleQueue[tuple[str, Any]] = queue.SimpleQueue()
        self.finished: list[Any] = []
        """Futures whose outcomes are not committed yet."""
        self.token, self.counter, self.losses = uuid.uuid4().hex[:8], 0, 0
        self.began = self.progress = time.monotonic()
        self.quiet = tell is None
        self.unemployed: float | None = None
        """Since when there are idle slots and nothing to send."""
        self._use(client)

    def _use(self, client: Any) -> None:
        self.client = client
        self.sender.use(client)
        self.reporter = BacklogReporter(client, self.name, self.resources, self.weight)
        self.arrivals = Arrivals.of(client)

    def groups(self) -> Iterator[Outcomes]:
        """Yield groups of outcomes until every unit has one."""
        group, flushed = Outcomes(), time.monotonic()
        held = 0
        self._report(force=True)
        self._fill(pushed=True)
        while group or self._unfinished():
            self.check()
            for task, result in self._collect(self._wait(bool(group), flushed)):
                part = self._settled(task, result)
                self.finished.append(task.future)
                group.add(part)
                held += len(result[1]) if isinstance(result, tuple) else 0
            self._fill(pushed=not group and not self.tasks)
            self._report()
            self._look_after()
            late = time.monotonic() - flushed >= FLUSH_SECONDS or held >= FLUSH_BYTES
            enough = len(self.finished) * 2 >= self._window() or self.ahead.paused
            if group and (late or enough or not self.tasks):
                yield group
                for future in self.finished:
                    future.release()
                self.finished.clear()
                group, flushed, held = Outcomes(), time.monotonic(), 0
                self._fill(pushed=True)
            elif not group and not self.tasks and self.ahead.paused:
                raise ClusterError(f"{self.name}: {WAITS_FOR_NOTHING}")
        if self.ahead.broken is not None:
            raise self.ahead.broken

    def _wait(self, holding: bool, flushed: float) -> float:
        if not self.tasks:
            return 0.0
        return min(POLL_SECONDS, max(0.0, FLUSH_SECONDS - (time.monotonic() - flushed))) if holding else POLL_SECONDS

    def _window(self) -> int:
        return window(self.reporter.slots, share=self.reporter.share)

    def _unfinished(self) -> bool:
        return bool(self.tasks or self.again or self.suspects or self.ahead.waiting or not self.ahead.exhausted)

    def _fill(self, pushed: bool) -> None:
        """Send tasks until the window is full; a source that waits for outcomes is asked again when ``pushed``."""
        self.ahead.fill(pushed=pushed)
        most = self._window()
        while len(self.tasks) < most:
            if self.suspects:
                self._send(self.suspects.popleft())
            elif self.again:
                self._send(self.again.popleft())
            elif self.ahead.waiting:
                self._send(Batch(self.ahead.take(self.pace.batching, self.reporter.slots)))
                self.ahead.fill(pushed=False)
            else:
                break

    def _send(self, batch: Batch) -> None:
        if batch.race is not None:
            batch.units = batch.unanswered
            if not batch.units:
                return
        self.sender.place()
        self.counter += 1
        key = f"{KEY_PREFIX}{self.name}-{self.token}-{self.counter}"
        content = self.sender.content(batch.units)
        meant = self.pace.batching.target_seconds(self.reporter.slots)
        seconds = float("inf") if batch.suspect else max(1.0, PATIENCE * meant)
        self.arrivals.expect(key)
        future = self.sender.submit(key, content, batch, seconds, ahead=self.reporter.passes_on)
        self.tasks[key] = Task(batch, future, time.monotonic())
        if batch.race is not None:
            batch.race.tasks.add(key)
        self.client.loop.add_callback(self._fetch, key, future)

    async def _fetch(self, key: str, future: Any) -> None:
        """Bring the result of a task into the queue; a result lost with its worker is computed again by Dask."""
        try:
            result = await self.arrivals.fetch(future)
        except BaseException as raised:
            result = raised
        self.done.put((key, result))

    def _collect(self, timeout: float) -> list[tuple[Task, Any]]:
        """Wait for finished tasks; return each with its result or what was raised."""
        found = []
        with contextlib.suppress(queue.Empty):
            found.append(self.done.get(timeout=timeout) if timeout else self.done.get_nowait())
            while True:
                found.append(self.done.get_nowait())
        arrived = [(self.tasks.pop(key), result) for key, result in found if key in self.tasks]
        if not arrived and self.client.status not in ("running", "connecting"):
            self._scheduler_lost(f"the client is {self.client.status}")
        return arrived

    def _settled(self, task: Task, result: Any) -> Finished:
        """Return what a task finished; queue what has to go out again."""
        batch = task.batch
        if isinstance(result, tuple):
            self.progress, self.losses = time.monotonic(), 0
            try:
                return self._finished(batch, result[0], unpacked(result[1]))
            except (ImportError, AttributeError, pickle.UnpicklingError) as raised:
                result = raised  # a class inside a result that this process does not have
        elif _is(result, "KilledWorker"):
            return self._suspected(batch, result)
        elif _is(result, "CancelledError") and batch.attempt < LOST_WORKERS:
            self.again.append(batch.again())
            self.sender.forget()
            gone = self.client.status != "running" or "connection" in str(result)
            if gone and task.future.client is self.client:  # else another task told of the same loss before
                self._scheduler_lost(str(result))
            return _NOTHING
        elif task.future.status != "error" and batch.attempt < LOST_WORKERS:
            # The result could not be brought here: a worker or the scheduler is on its way out.
            self.again.append(batch.again())
            self.tell(f"{self.name}: a result was lost on its way ({result!r}); {len(batch.units)} units go out again")
            return _NOTHING
        # The batch itself could not run (the kernel does not import there, say): no unit is to blame, and a
        # retry would fail alike.
        why = f"{type(result).__name__}: {result}"[:2000]
        return self._failed(batch, Failure(why, kinds=(type(result).__name__,)))

    def _failed(self, batch: Batch, failure: Failure, worker: str = "") -> Finished:
        """Fail what has no result yet; copies of it that come later do not count."""
        units = batch.unanswered
        if batch.race is not None:
            batch.race.done.update(unit.key for unit in units)
            self._end_race(batch.race)
        return failed(units, failure, batch.attempt, worker)

    def _finished(self, batch: Batch, worker: str, rows: Rows) -> Finished:
        units = batch.units[: len(rows)]
        self.pace.measure(units, rows, self.reporter.slots)
        part = Finished(units, rows, worker, batch.attempt)
        if len(rows) < len(batch.units):
            self.again.appendleft(Batch(batch.units[len(rows) :], batch.attempt, batch.suspect, batch.race))
        if batch.race is not None:
            new = [position for position, unit in enumerate(units) if unit.key not in batch.race.done]
            part = part.only(new)
            batch.race.done.update(unit.key for unit in part.units)
            self._end_race(batch.race)
        part, refused = part.without_retries(self.retry)
        if refused:
            self.again.append(Batch(refused, batch.attempt + 1))
            self.tell(f"{self.name}: {len(refused)} units raised what is retried; attempt {batch.attempt + 1} follows")
        return part

    def _suspected(self, batch: Batch, killed: Any) -> Finished:
        units = batch.unanswered
        where = str(getattr(getattr(killed, "last_worker", None), "name", "?"))
        self.tell(f"{self.name}: worker {where} was lost; its {len(units)} units run again in a child process")
        if batch.attempt >= LOST_WORKERS:
            why = f"WorkerLost: {LOST_WORKERS} workers were lost while this unit was on them"
            return self._failed(batch, Failure(why, kinds=("WorkerLost",)), where)
        self.suspects.append(Batch(units, batch.attempt + 1, suspect=True, race=batch.race))
        return _NOTHING

    def _end_race(self, race: Race) -> None:
        """Forget the copies of units that all have a result."""
        if len(race.done) < race.size:
            return
        losers = [self.tasks.pop(key).future for key in race.tasks if key in self.tasks]
        if losers:
            self.client.cancel(losers, force=True)

    def _look_after(self) -> None:
        """Send stragglers a second time; act when nothing has moved for long."""
        now = time.monotonic()
        more = self.ahead.waiting or self.again or self.suspects
        if more or not self.reporter.idle or not self.tasks:
            self.unemployed = None
        else:
            self.unemployed = self.unemployed or now
            self._duplicate(now, list(self.reporter.idle))
        if self.resources and self.progress == self.began < now - LACKING_SECONDS:
            self.progress = now
            if text := lacking(self.client, self.resources):
                (warnings.warn if self.quiet else self.tell)(f"{self.name}: {text}")
        if self.tasks and now - self.progress > stall_seconds():
            self.progress = now
            self.tell(f"{self.name}: {unstick(self.client, list(self.tasks), stall_seconds())}")

    def _duplicate(self, now: float, idle: list[str]) -> None:
        usual = self.pace.usual
        if usual is None or self.unemployed is None:
            return
        for key, task in list(self.tasks.items()):
            batch = task.batch
            units = batch.unanswered
            race = batch.race or Race(len(units), tasks={key})
            expected = usual * sum(unit.weight for unit in units)
            patience = max(STRAGGLER_SECONDS, STRAGGLER * expected) * race.copies
            waited = now - max(task.sent, self.unemployed)
            if not idle or race.copies >= COPIES or waited < patience or batch.suspect:
                continue
            batch.race = race
            race.copies += 1
            count = min(len(idle), len(units))
            self.tell(
                f"{self.name}: {len(units)} units are {waited:.1f} s on a worker where {expected:.1f} s are usual; "
                f"they are sent again to {count} idle workers"
            )
            for part in range(count):
                self._send(Batch(units[part::count], batch.attempt + 1, race=race, at=idle.pop(0)))

    def _scheduler_lost(self, why: str) -> None:
        """Send everything in flight again, to the scheduler that comes back or to a new cluster."""
        self.losses += 1
        self.again.extend(task.batch.again() for task in self.tasks.values())
        self.tasks.clear()
        count = sum(len(batch.units) for batch in self.again)
        client = None
        if self.losses <= LOST_SCHEDULERS:
            self.tell(f"{self.name}: the scheduler is gone ({why}); {count} units in flight go out again")
            client = self.reconnect() if self.reconnect is not None else reconnected(self.client)
        if client is None:
            raise ClusterError(
                f"{self.name}: the scheduler is gone and with it the tasks in flight ({why}); "
                "run the same command again: committed work is kept"
            )
        self._use(client)
        self._report(force=True)

    def _report(self, force: bool = False) -> None:
        in_flight = sum(len(task.batch.units) for task in self.tasks.values())
        waiting = sum(len(batch.units) for batch in chain(self.again, self.suspects))
        left = in_flight + waiting + self.ahead.units_left
        self.reporter.report(
            units_left=max(1, left) if force else left,
            runnable=left,
            seconds_per_unit=self.pace.batching.seconds_per_weight,
            in_flight=in_flight,
            now=time.monotonic(),
            force=force,
        )
        overhead = self.reporter.overhead()
        if overhead is not None:
            self.pace.batching = self.pace.batching.overhead_measured(overhead)

    def close(self) -> None:
        """Forget what is in flight (after an error or Ctrl-C) and leave the backlog."""
        with contextlib.suppress(Exception):
            self.reporter.close()
            if self.tasks:
                self.client.cancel([task.future for task in self.tasks.values()], force=True)
        self.tasks.clear()
        for future in self.finished:  # a traceback that is kept would keep them on the cluster
            future.release()
        self.finished.clear()


_NOTHING = Finished([], Rows(), "")


def _is(raised: BaseException, name: str) -> bool:
    return any(cls.__name__ == name for cls in type(raised).__mro__)
