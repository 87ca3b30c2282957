"""What runs on a worker: the units of one Dask task, one by one, each in isolation.

Units travel as three columns (keys, payloads, weights) in one pickled blob, since Dask would look into a
list; results travel back as columns too. A task stops early when it took much longer than it was meant
to, or holds many bytes: what it did not start goes back to the driver. So a wrong estimate costs one
round trip, never a worker's memory. This module must import on any worker: no more than it needs.
"""

from __future__ import annotations

import pickle
import sys
import time
import traceback
from array import array
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

from daskml_scale.plan.units import Unit

from . import parcel
from .overlap import Overlap, Pending
from .results import send_ahead
from .worker import CACHE, WorkerContext, measured

Kernel = Callable[[Unit, WorkerContext], Any]

MAX_HELD = 16 << 20
"""Bytes of results after which a task returns what it has."""
ERROR_LENGTH = 2_000
TRACEBACK_LENGTH = 10_000
_FLAT = frozenset((bytes, str, bytearray))
_SMALL = frozenset((int, float, bool, type(None)))


@dataclass(frozen=True, slots=True)
class OnPayload:
    """A kernel that needs only the payload of a unit: called without making the unit (half the cost of a tiny one)."""

    func: Callable[[Any], Any]

    def __call__(self, unit: Unit, worker: WorkerContext) -> Any:
        return self.func(unit.payload)


@dataclass(frozen=True, slots=True)
class Limits:
    """When a task returns what it has, and what a unit may return.

    Attributes
    ----------
    seconds : float
        No further unit is started after this time.
    result_bytes : int
        A larger value fails its unit: the driver could not hold it.
    """

    seconds: float = float("inf")
    result_bytes: int = 1 << 62


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a unit failed.

    Attributes
    ----------
    kinds : tuple of str
        Names of the exception's class and its bases, for a retry policy.
    """

    error: str
    traceback: str = ""
    kinds: tuple[str, ...] = ()


@dataclass(slots=True)
class Rows:
    """Results of the first ``len(values)`` units of a task, as columns.

    Attributes
    ----------
    values : list
        ``None`` where the unit failed.
    failures : dict of position to Failure
    nanoseconds : array of int64
        Kernel time of each.
    """

    values: list[Any] = field(default_factory=list)
    failures: dict[int, Failure] = field(default_factory=dict)
    nanoseconds: array[int] = field(default_factory=lambda: array("q"))

    def __len__(self) -> int:
        return len(self.values)


def described(raised: BaseException) -> Failure:
    """Return an exception as data: one line, the traceback of the kernel, its class names."""
    text = " ".join(f"{type(raised).__name__}: {raised}".split())[:ERROR_LENGTH]
    trace = "".join(traceback.format_exception(raised, limit=-20))[-TRACEBACK_LENGTH:]
    kinds = tuple(cls.__name__ for cls in type(raised).__mro__[:-1])
    return Failure(text, trace, kinds)


def calls(
    kernel: Kernel, keys: Sequence[str], payloads: Sequence[Any], weights: Sequence[float], context: WorkerContext
) -> tuple[Callable[[Any], Any], Iterable[Any]]:
    """Return a function of one argument and the arguments, one per unit."""
    if isinstance(kernel, OnPayload):
        return kernel.func, payloads
    return lambda unit: kernel(unit, context), map(Unit, keys, payloads, weights)


def run_units(call: Callable[[Any], Any], arguments: Iterable[Any], limits: Limits) -> Rows:
    """Run units one by one; what one raises becomes its failure. One look at the clock per unit."""
    rows = Rows()
    add, mark, clock = rows.values.append, rows.nanoseconds.append, time.perf_counter_ns
    held = 0
    last = clock()
    stop = last + min(limits.seconds, 1e9) * 1e9
    for argument in arguments:
        try:
            value = call(argument)
        except (Exception, SystemExit) as raised:
            rows.failures[len(rows.values)] = described(raised)
            value = None
        if value.__class__ not in _SMALL and value.__class__ is not Pending:
            size = _bytes(value)
            if size > limits.result_bytes:
                rows.failures[len(rows.values)] = too_large(size, limits.result_bytes)
                value, size = None, 0
            held += size
        add(value)
        now = clock()
        mark(now - last)
        last = now
        if now > stop or held > MAX_HELD:
            break
    _settle(rows, last)
    return rows


def _settle(rows: Rows, last: int) -> None:
    """Wait for the values that are still being written; the last unit bears the time."""
    pending = [place for place, value in enumerate(rows.values) if value.__class__ is Pending]
    for place in pending:
        try:
            rows.values[place] = rows.values[place].result()
        except (Exception, SystemExit) as raised:
            rows.failures[place], rows.values[place] = described(raised), None
    if pending:
        rows.nanoseconds[-1] += time.perf_counter_ns() - last


def even_out(rows: Rows, keys: Sequence[str], groups: Iterable[Sequence[str]]) -> None:
    """Give each of the units whose work the first of them did an equal part of the time of all."""
    places = {key: place for place, key in enumerate(keys[: len(rows)])}
    for group in groups:
        ran = [places[key] for key in group if key in places]
        each = sum(rows.nanoseconds[place] for place in ran) // max(1, len(ran))
        for place in ran:
            rows.nanoseconds[place] = each


def _bytes(value: Any) -> int:
    if value.__class__ in _FLAT:
        return sys.getsizeof(value)  # a tenth of the cost of asking Dask
    from dask.sizeof import sizeof

    return int(sizeof(value))


def too_large(size: int, limit: int) -> Failure:
    """Return the failure of a unit whose value the driver cannot hold."""
    return Failure(
        f"ResultTooLargeError: the unit returned {size / 2**20:,.0f} MiB and the driver takes {limit / 2**20:,.0f} MiB "
        "per unit; write large results to a store inside the function and return where they are",
        kinds=("ResultTooLargeError",),
    )


def loaded(blob: bytes, blob_digest: str) -> tuple[Kernel, Any]:
    """Return (kernel, shared), unpickled once per process."""
    found: tuple[Kernel, Any] = CACHE.get(("kernel", blob_digest), lambda: parcel.unpacked(blob), size=len(blob))
    return found


def run_batch(blob: bytes, blob_digest: str, units: bytes, limits: Limits, client: str = "") -> tuple[str, bytes]:
    """Run the units of one task on a worker (the function of every ordinary task).

    Parameters
    ----------
    blob : bytes
        A `parcel` of (kernel, shared), loaded once per process under ``blob_digest``.
    units : bytes
        Pickled (keys, payloads, weights).
    limits : Limits
    client : str
        Id of a driver that small results are sent to ahead, where the scheduler passes them on.

    Returns
    -------
    worker : str
        Its name.
    rows : bytes
        See `packed`.
    """
    from distributed import get_worker

    worker = measured(get_worker())
    kernel, shared = loaded(blob, blob_digest)
    context = WorkerContext(shared=shared, threads=1, name=str(worker.name))
    with _pools(len(sys.modules)).limit(limits=context.threads):
        keys, payloads, weights = pickle.loads(units)
        if not isinstance(kernel, OnPayload) and len(keys) > 1:
            context = replace(context, overlap=Overlap(lambda: list(map(Unit, keys, payloads, weights))))
        try:
            rows = run_units(*calls(kernel, keys, payloads, weights, context), limits)
        finally:
            if context.overlap is not None:
                context.overlap.close()
        if context.overlap is not None:
            even_out(rows, keys, context.overlap.together)
    result = context.name, packed(rows, limits.result_bytes)
    send_ahead(worker, client, result)
    return result


@lru_cache(maxsize=1)
def _pools(modules: int) -> Any:
    """Return what limits the inner thread pools; looked for again once more modules are loaded: a tenth of a task."""
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()


def packed(rows: Rows, result_bytes: int = 1 << 62) -> bytes:
    """Pickle rows; a value that cannot be pickled, or takes more than ``result_bytes`` then, fails its own unit.

    Values go in one pickle where all are of classes that every process has, else each in its own, by
    value where only cloudpickle can (classes and functions of a notebook).
    """
    alone = any(_module(kind) not in _EVERYWHERE for kind in {value.__class__ for value in rows.values})
    if not alone:
        try:
            data = pickle.dumps((False, rows.values, rows.failures, rows.nanoseconds), protocol=5)
            if len(data) <= result_bytes:
                return data
            del data
        except Exception:
            alone = True
    values = []
    for position, value in enumerate(rows.values):
        try:
            values.append(_pickled(value))
            if len(values[-1]) > result_bytes:  # what lies inside an object of a user has no size before
                rows.failures[position] = too_large(len(values[-1]), result_bytes)
                values[-1] = _pickled(None)
        except Exception as raised:
            values.append(_pickled(None))
            rows.failures[position] = Failure(
                f"{type(raised).__name__}: the result cannot be pickled: {raised}"[:ERROR_LENGTH],
                kinds=described(raised).kinds,
            )
    return pickle.dumps((True, values, rows.failures, rows.nanoseconds), protocol=5)


_EVERYWHERE = frozenset(("builtins", "numpy", "datetime", "decimal", "pandas", "daskml_scale"))


def _module(kind: type) -> str:
    return kind.__module__.partition(".")[0]


def _pickled(value: Any) -> bytes:
    from distributed.protocol.pickle import dumps

    return bytes(dumps(value))


def unpacked(data: bytes) -> Rows:
    """Return the rows of `packed`; a value that cannot be made here fails its own unit."""
    alone, values, failures, nanoseconds = pickle.loads(data)
    if alone:
        for position, value in enumerate(values):
            try:
                values[position] = pickle.loads(value)
            except Exception as raised:
                values[position] = None
                failures.setdefault(position, described(raised))
    return Rows(values, failures, nanoseconds)
