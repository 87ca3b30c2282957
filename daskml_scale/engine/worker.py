"""What a kernel finds on its worker: a per-process cache and the shared object of its plan.

Objects are loaded once per process under a lock per key, and dropped least recently used first
when they exceed the byte limit. The inner thread pools (BLAS, OpenMP) are limited to the threads
of the worker. This module must import on any worker: nothing but the standard library at the top.
"""

from __future__ import annotations

import sys
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from daskml_scale.plan.units import Unit

    from .overlap import Overlap

T = TypeVar("T")


@dataclass
class Cache:
    """Least-recently-used cache by bytes; a value is loaded once per key, also under threads.

    Attributes
    ----------
    limit : int
        Bytes kept; the newest value is kept even when it alone is larger. A quarter of a worker's memory at most.
    loads : int
        Number of loads so far.
    hits : int
        Number of times that a value was there.
    """

    limit: int = 2 * 2**30
    loads: int = 0
    hits: int = 0
    _values: OrderedDict[Hashable, tuple[Any, int]] = field(default_factory=OrderedDict)
    _locks: dict[Hashable, threading.Lock] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def get(self, key: Hashable, load: Callable[[], T], size: Callable[[T], int] | int = 0) -> T:
        """Return the value of ``key``, loading it when it is not there.

        Parameters
        ----------
        key : hashable
            Content-addressed: equal keys mean equal values.
        load : callable
        size : int or callable of the value
            Bytes that the value holds.
        """
        with self._lock:
            if key in self._values:
                self.hits += 1
                self._values.move_to_end(key)
                found: T = self._values[key][0]
                return found
            lock = self._locks.setdefault(key, threading.Lock())
        with lock:
            with self._lock:
                if key in self._values:
                    found = self._values[key][0]
                    return found  # noqa: RET504
            loaded = load()
            with self._lock:
                self.loads += 1
                self._values[key] = (loaded, size(loaded) if callable(size) else size)
                self._locks.pop(key, None)
                self._shrink()
            return loaded

    def _shrink(self) -> None:
        total = sum(size for _, size in self._values.values())
        while total > self.limit and len(self._values) > 1:
            _, (_, size) = self._values.popitem(last=False)
            total -= size

    def counts(self) -> dict[str, int]:
        """Return objects and bytes held, loads and hits: what a worker sends with its heartbeat."""
        with self._lock:
            held = sum(size for _, size in self._values.values())
            return {"objects": len(self._values), "bytes": held, "loads": self.loads, "hits": self.hits}

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._values.clear()


def memory_limit() -> int:
    """Return the bytes that the worker which runs this may take; 0 where it has no limit, or there is no worker."""
    if "distributed" not in sys.modules:  # then this is no worker, and importing it takes a while
        return 0
    from distributed import get_worker

    try:
        return _memory_of(get_worker())
    except ValueError:
        return 0


def _memory_of(worker: Any) -> int:
    return int(getattr(worker.memory_manager, "memory_limit", 0) or 0)


CACHE = Cache()
"""The cache of this process."""
METRIC = "daskml-cache"
"""Name of its counts in the metrics of a Dask worker."""


def measured(worker: Any) -> Any:
    """Have a Dask worker send the counts of the cache with its heartbeat, and the cache fit it; return the worker."""
    if METRIC not in worker.metrics:
        worker.metrics[METRIC] = _counts
        if limit := _memory_of(worker):
            CACHE.limit = min(CACHE.limit, limit // 4)
    return worker


def _counts(worker: Any) -> dict[str, int]:
    return CACHE.counts()


@dataclass(frozen=True, slots=True)
class WorkerContext:
    """Given to every kernel call.

    Attributes
    ----------
    shared : object
        ``Plan.shared``, unpickled once per process.
    cache : Cache
    threads : int
        Threads that the kernel may use.
    overlap : Overlap, optional
        Where units of a task read and write beside each other.
    """

    shared: Any = None
    cache: Cache = field(default_factory=lambda: CACHE)
    threads: int = 1
    name: str = "local"
    overlap: Overlap | None = None

    def read(self, unit: Unit, function: Callable[[Unit], T]) -> T:
        """Return ``function(unit)``; where units overlap it was read while the unit before computed."""
        return function(unit) if self.overlap is None else self.overlap.read(unit, function)

    def write(self, function: Callable[[], T]) -> Any:
        """Return ``function()``; where units overlap a value to come, while the next unit computes."""
        return function() if self.overlap is None else self.overlap.write(function)
