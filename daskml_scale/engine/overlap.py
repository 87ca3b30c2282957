"""Read ahead and write behind: what the units of one task do beside each other.

While a unit computes, the inputs of the next one are read, and what the one before made is written: a thread
for each. A kernel asks for it by ``worker.read(unit, function)`` and ``worker.write(function)``; where there
is nothing to overlap with (in a transaction, in a test) these just call the function. What a function raises
fails its own unit. At most one unit is read ahead, and two are being written. This module must import on any
worker.
"""

from __future__ import annotations

import contextvars
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

BEHIND = 2
"""Most units that are being written: what a worker holds besides the unit that it computes."""


@dataclass(frozen=True, slots=True)
class Pending:
    """The value of a unit that is still being written."""

    future: Future[Any]
    last: Callable[[Any], Any] | None = None

    def result(self) -> Any:
        """Wait for it; raises what the writing raised."""
        found = self.future.result()
        return found if self.last is None else self.last(found)

    def then(self, function: Callable[[Any], Any]) -> Pending:
        """Return the value of ``function`` of it."""
        return Pending(self.future, function)


class Overlap:
    """The threads of one task.

    Parameters
    ----------
    units : callable
        Gives them in the order in which they run; each has a ``key``. Called when the first is read.
    """

    def __init__(self, units: Callable[[], Sequence[Any]]) -> None:
        self._units = units
        self._ahead: dict[str, Future[Any]] = {}
        self._behind: deque[Future[Any]] = deque()
        self.together: list[list[str]] = []
        self.kept: dict[str, Any] = {}
        """What a kernel made along with one unit for others of the task, by key; the kernel takes it out."""

    @cached_property
    def _next(self) -> dict[str, Any]:
        units = self._units()
        return {unit.key: after for unit, after in pairwise(units)}

    @cached_property
    def _reader(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(1, thread_name_prefix="read-ahead")

    @cached_property
    def _writer(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(1, thread_name_prefix="write-behind")

    def read(self, unit: Any, function: Callable[[Any], Any]) -> Any:
        """Return ``function(unit)``, and start on the next unit."""
        found = self._ahead.pop(unit.key, None)
        value = function(unit) if found is None else found.result()
        after = self._next.get(unit.key)
        if after is not None:
            self._ahead[after.key] = _submit(self._reader, function, after)
        return value

    def joined(self, units: Sequence[Any]) -> None:
        """Note that the first of some successive units did the work of them all."""
        self.together.append([unit.key for unit in units])

    def following(self, unit: Any) -> Iterator[Any]:
        """Yield the units of the task after this one, in order."""
        while (unit := self._next.get(unit.key)) is not None:
            yield unit

    def write(self, function: Callable[[], Any]) -> Pending:
        """Start ``function`` and return its value to come; waits while many are being written."""
        while len(self._behind) >= BEHIND:
            self._behind.popleft().exception()
        future = _submit(self._writer, function)
        self._behind.append(future)
        return Pending(future)

    def close(self) -> None:
        """Wait for what is being written; drop what was read for nobody."""
        for name in ("_reader", "_writer"):
            if name in self.__dict__:
                getattr(self, name).shutdown(wait=True, cancel_futures=name == "_reader")


def _submit(pool: ThreadPoolExecutor, function: Callable[..., Any], *arguments: Any) -> Future[Any]:
    # Context variables of the caller hold there, too: which pass this is.
    return pool.submit(contextvars.copy_context().run, function, *arguments)
