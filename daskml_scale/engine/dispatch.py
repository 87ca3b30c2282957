"""Dispatch: units in, groups of finished outcomes out, through Dask tasks of measured size.

The generator keeps a bounded window of tasks on the cluster and yields outcomes as they finish, at
least every second or half window. Futures are released when the caller asks for the next group: what
was committed in between is durable before Dask forgets it, and a dying worker makes nobody recompute
what is done. Without a client the same kernels run in this process.

A kernel that raises fails its own unit. A lost worker is infrastructure: its units are sent again,
one by one, up to ``ATTEMPTS`` times, the last time with nothing beside them. This module writes nothing
and knows no stage.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import pickle
import queue
import time
import traceback
import uuid
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sized
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from daskml_scale.errors import ClusterError
from daskml_scale.plan.batching import MAX_UNITS, Batching, take, window
from daskml_scale.plan.units import Outcome, Unit

from .client import slots, workers
from .worker import CACHE, WorkerContext

Kernel = Callable[[Unit, WorkerContext], Any]

ATTEMPTS = 3
"""Times that a unit may be on a worker that dies."""
FLUSH_SECONDS = 1.0
"""Longest time that a finished unit waits to be yielded."""
INLINE_BYTES = 64 * 1024
"""Kernels above this size are placed on the workers once instead of inside each task."""
LOOK_AHEAD_BYTES = 8 << 20
"""Payloads read ahead of the cluster; a generator may make large ones."""
POLL_SECONDS = 0.5
GATHER_SECONDS = 10.0
"""Longest wait for the result of a task that is done; it may have been lost with its worker since."""
KEY_PREFIX = "daskml-"
"""Of the keys of our tasks, so that the backlog plugin does not count them twice."""

Row = tuple[Any, str, str, float]
"""(value, error, traceback, seconds) of one unit."""


def dispatch(
    kernel: Kernel,
    shared: Any,
    units: Iterable[Unit],
    *,
    name: str,
    client: Any | None = None,
    resources: Mapping[str, float] | None = None,
    total: int | None = None,
    seconds_per_weight: float | None = None,
) -> Generator[list[Outcome], None, None]:
    """Run units and yield groups of outcomes in completion order.

    Parameters
    ----------
    kernel : callable (unit, worker context) -> picklable value
        Importable by the workers, or picklable by cloudpickle.
    shared : object
        Sent once per worker process; ``worker.shared`` in the kernel.
    units : iterable of Unit
        May be a generator; it is read a bounded look-ahead at a time.
    name : str
        Of the stage: in task keys and in the backlog.
    client : distributed.Client, optional
        Without one the units run here, one after the other.
    resources : mapping, optional
        Dask resources that each task needs.
    total : int, optional
        Number of units, when ``units`` cannot tell.
    seconds_per_weight : float, optional
        Remembered duration; skips the probing tasks.

    Raises
    ------
    ClusterError
        When the scheduler is gone. Committed work stays.
    """
    if total is None and isinstance(units, Sized):
        total = len(units)
    if client is None:
        yield from _in_process(kernel, shared, units)
        return
    run = _Run(kernel, shared, iter(units), name, client, dict(resources or {}), total, Batching(seconds_per_weight))
    try:
        yield from run.groups()
    finally:
        run.close()


def _in_process(kernel: Kernel, shared: Any, units: Iterable[Unit]) -> Iterator[list[Outcome]]:
    context = WorkerContext(shared=shared, threads=len(os.sched_getaffinity(0)))
    group: list[Outcome] = []
    flushed = time.monotonic()
    for unit in units:
        group.append(_outcome(unit, run_unit(kernel, unit, context), "local", 1))
        if time.monotonic() - flushed >= FLUSH_SECONDS or len(group) >= MAX_UNITS:
            yield group
            group, flushed = [], time.monotonic()
    if group:
        yield group


def _outcome(unit: Unit, row: Row, worker: str, attempt: int) -> Outcome:
    value, error, trace, seconds = row
    return Outcome(unit, value, error, trace, seconds, worker, attempt)


def run_unit(kernel: Kernel, unit: Unit, context: WorkerContext) -> Row:
    """Run one unit in isolation and time it; what it raises becomes its error."""
    started = time.perf_counter()
    try:
        value, error, trace = kernel(unit, context), "", ""
    except (Exception, SystemExit) as raised:
        value = None
        error = " ".join(f"{type(raised).__name__}: {raised}".split())[:2000]
        trace = traceback.format_exc(limit=-20)[-10_000:]
    return value, error, trace, time.perf_counter() - started


def run_batch(blob: bytes, blob_digest: str, units_blob: bytes) -> tuple[str, bytes]:
    """Run the units of one task on a worker (the function of every task).

    Parameters
    ----------
    blob : bytes
        Pickled (kernel, shared), loaded once per process under ``blob_digest``.
    units_blob : bytes
        Pickled list of (key, payload, weight); one blob, since Dask would look into a list.

    Returns
    -------
    worker : str
    rows : bytes
        Pickled list of rows. Pickled here, so that a value that cannot be fails its own unit.
    """
    import threadpoolctl
    from distributed import get_worker

    worker = get_worker()
    kernel, shared = CACHE.get(("kernel", blob_digest), lambda: pickle.loads(blob), size=len(blob))
    context = WorkerContext(shared=shared, threads=1, name=str(worker.name))
    with threadpoolctl.threadpool_limits(limits=context.threads):
        rows = [run_unit(kernel, Unit(*fields), context) for fields in pickle.loads(units_blob)]
    try:
        return context.name, pickle.dumps(rows)
    except Exception:
        return context.name, pickle.dumps([_sendable(row) for row in rows])


def _sendable(row: Row) -> Row:
    try:
        import cloudpickle

        # Classes and functions of a notebook go by value.
        return Pickled(cloudpickle.dumps(row[0])), *row[1:]
    except Exception as raised:
        return None, f"{type(raised).__name__}: the result cannot be pickled: {raised}"[:2000], "", row[3]


@dataclass(frozen=True, slots=True)
class Pickled:
    """A value that only cloudpickle could send."""

    value: bytes


@dataclass(slots=True)
class _Task:
    """One Dask task in flight: its units, and how often each was sent."""

    future: Any
    units: list[tuple[Unit, int]]


@dataclass
class _Run:
    """The state of one dispatch. All methods run on the caller's thread; callbacks only fill a queue."""

    kernel: Kernel
    shared: Any
    source: Iterator[Unit]
    name: str
    client: Any
    resources: dict[str, float]
    total: int | None
    batching: Batching
    waiting: deque[tuple[Unit, int]] = field(default_factory=deque)
    sizes: deque[int] = field(default_factory=deque)
    """Bytes of the payloads that wait."""
    suspects: deque[tuple[Unit, int]] = field(default_factory=deque)
    """Units of lost workers: sent one by one."""
    tasks: dict[str, _Task] = field(default_factory=dict)
    done: queue.SimpleQueue[str] = field(default_factory=queue.SimpleQueue)
    alone: bool = False
    """A suspect's last attempt is in flight, and nothing else."""
    waiting_bytes: int = 0
    sent: int = 0
    slots: int = 1
    slots_read: float = -1e9
    exhausted: bool = False

    def __post_init__(self) -> None:
        import cloudpickle

        from .backlog import BacklogReporter

        self.blob = cloudpickle.dumps((self.kernel, self.shared))
        self.digest = hashlib.blake2b(self.blob, digest_size=16).hexdigest()
        self.placed: Any = None
        self.token = uuid.uuid4().hex[:8]
        self.counter = 0
        self.reporter = BacklogReporter(self.client, self.name, self.resources)

    def groups(self) -> Iterator[list[Outcome]]:
        group: list[Outcome] = []
        finished: list[Any] = []
        flushed = time.monotonic()
        self._fill()
        while self.tasks or self.waiting or self.suspects or not self.exhausted:
            for task, rows in self._collect(self._patience(bool(group), flushed)):
                if rows is None:
                    continue
                worker, results = rows
                finished.append(task.future)
                group.extend(
                    _outcome(unit, row, worker, attempt)
                    for (unit, attempt), row in zip(task.units, results, strict=True)
                )
                self.batching = self.batching.measured(
                    sum(row[3] for row in results), sum(unit.weight for unit, _ in task.units)
                )
            group.extend(self._given_up())
            self._fill()
            self._report()
            late = time.monotonic() - flushed >= FLUSH_SECONDS
            if group and (late or len(finished) * 2 >= window(self.slots)):
                yield group
                _release(finished)
                group, finished, flushed = [], [], time.monotonic()
        if group:
            yield group
            _release(finished)

    def _patience(self, holding: bool, flushed: float) -> float:
        if not holding:
            return POLL_SECONDS
        return min(POLL_SECONDS, max(0.0, FLUSH_SECONDS - (time.monotonic() - flushed)))

    def _read(self) -> None:
        """Fill the look-ahead from the source."""
        if self.exhausted or len(self.waiting) >= MAX_UNITS // 2 or self.waiting_bytes >= LOOK_AHEAD_BYTES // 2:
            return
        for unit in self.source:
            size = len(pickle.dumps(unit.payload))
            self.waiting.append((unit, 1))
            self.sizes.append(size)
            self.waiting_bytes += size
            if len(self.waiting) >= MAX_UNITS or self.waiting_bytes >= LOOK_AHEAD_BYTES:
                return
        self.exhausted = True

    def _fill(self) -> None:
        """Send tasks until the window is full."""
        self._read()
        now = time.monotonic()
        if now - self.slots_read > POLL_SECONDS:
            self.slots, self.slots_read = max(1, slots(self.client, self.resources)), now
        while len(self.tasks) < window(self.slots):
            if self.alone:
                return
            if self.suspects and self.suspects[0][1] < ATTEMPTS:
                self._send([self.suspects.popleft()])
            elif self.waiting:
                look_ahead = [unit.weight for unit, _ in islice(self.waiting, MAX_UNITS)]
                left = sum(look_ahead) if self.total is None else max(float(self.total - self.sent), sum(look_ahead))
                count = take(self.batching, look_ahead, left=left, slots=self.slots, sizes=list(self.sizes))
                self.waiting_bytes -= sum(self.sizes.popleft() for _ in range(count))
                self._send([self.waiting.popleft() for _ in range(count)])
                self._read()
            elif self.suspects and not self.tasks:
                # Whatever else is on a dying worker is suspected with it: the last attempt has the cluster to itself.
                self.alone = True
                self._send([self.suspects.popleft()])
            else:
                return

    def _send(self, units: list[tuple[Unit, int]]) -> None:
        if len(self.blob) > INLINE_BYTES and self.placed is None and workers(self.client):
            self.placed = self.client.scatter(self.blob, broadcast=True, hash=False)
        self.counter += 1
        key = f"{KEY_PREFIX}{self.name}-{self.token}-{self.counter}"
        content = pickle.dumps([(unit.key, unit.payload, unit.weight) for unit, _ in units])
        blob = self.blob if self.placed is None else self.placed
        future = self.client.submit(
            run_batch, blob, self.digest, content, key=key, pure=False, resources=self.resources or None
        )
        self.tasks[key] = _Task(future, units)
        self.sent += len(units)
        future.add_done_callback(lambda done: self.done.put(done.key))

    def _collect(self, timeout: float) -> list[tuple[_Task, tuple[str, list[Row]] | None]]:
        """Wait for finished tasks; return each with its result, ``None`` where its units go out again."""
        keys = []
        with contextlib.suppress(queue.Empty):
            keys.append(self.done.get(timeout=timeout))
            while True:
                keys.append(self.done.get_nowait())
        if not keys and self.client.status not in ("running", "connecting"):
            raise ClusterError(
                f"{self.name}: the connection to the scheduler is gone ({self.client.status}); "
                "run the same command again: committed work is kept"
            )
        finished = [self.tasks.pop(key) for key in keys if key in self.tasks]
        self.alone = self.alone and bool(self.tasks)
        return [(task, self._result(task)) for task in finished]

    def _result(self, task: _Task) -> tuple[str, list[Row]] | None:
        from distributed.scheduler import KilledWorker

        try:
            # One call, no look at the status before it: a finished future may be lost in between.
            worker, rows = task.future.result(timeout=GATHER_SECONDS)
            return worker, [
                (pickle.loads(row[0].value), *row[1:]) if isinstance(row[0], Pickled) else row
                for row in pickle.loads(rows)
            ]
        except KilledWorker:
            self.suspects.extend((unit, attempt + 1) for unit, attempt in task.units)
            return None
        except Exception as raised:
            if type(raised).__name__ in ("CancelledError", "FutureCancelledError", "FuturesCancelledError"):
                self._cancelled(task, raised)
                return None
            if isinstance(raised, TimeoutError):
                # Its worker died between the end of the task and this call: Dask runs it again by itself.
                self.tasks[task.future.key] = task
                task.future.add_done_callback(lambda done: self.done.put(done.key))
                return None
            # The batch itself could not run (the kernel does not import there, say): no unit is to blame,
            # and a retry would fail alike.
            row: Row = (None, f"{type(raised).__name__}: {raised}"[:2000], traceback.format_exc(limit=-5), 0.0)
            return "", [row for _ in task.units]

    def _cancelled(self, task: _Task, raised: BaseException) -> None:
        if self.placed is None or self.client.status != "running" or "connection" in str(raised):
            raise ClusterError(
                f"{self.name}: the scheduler is gone and with it the tasks in flight ({raised}); "
                "run the same command again: committed work is kept"
            ) from raised
        self.placed = None  # the workers that held the kernel are gone: place it again
        self.suspects.extend((unit, attempt + 1) for unit, attempt in task.units)

    def _given_up(self) -> list[Outcome]:
        """Return failed outcomes for units whose workers died too often; those of a last attempt wait at the end."""
        self.suspects = deque(sorted(self.suspects, key=lambda suspect: suspect[1]))
        lost = [(unit, attempt) for unit, attempt in self.suspects if attempt > ATTEMPTS]
        if not lost:
            return []
        self.suspects = deque((unit, attempt) for unit, attempt in self.suspects if attempt <= ATTEMPTS)
        text = f"WorkerLost: {ATTEMPTS} workers died while this unit was on them (out of memory, or a native crash)"
        return [Outcome(unit, error=text, attempt=attempt - 1) for unit, attempt in lost]

    def _report(self, force: bool = False) -> None:
        in_flight = sum(len(task.units) for task in self.tasks.values())
        waiting = len(self.waiting) + len(self.suspects)
        left = in_flight + (waiting if self.total is None else max(waiting, self.total - self.sent))
        self.reporter.report(
            units_left=left,
            runnable=left,
            seconds_per_unit=self.batching.seconds_per_weight,
            in_flight=in_flight,
            now=time.monotonic(),
            force=force,
        )

    def close(self) -> None:
        """Forget what is in flight (after an error or Ctrl-C) and leave the backlog."""
        with contextlib.suppress(Exception):
            self.reporter.close()
            if self.tasks:
                self.client.cancel([task.future for task in self.tasks.values()], force=True)
        self.tasks.clear()


def _release(futures: Iterable[Any]) -> None:
    for future in futures:
        future.release()
