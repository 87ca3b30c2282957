"""Units read ahead of the cluster: enough to fill its window, bounded in number and in bytes.

The source may be a generator of millions of units, or of a few large ones; it may say ``None`` for "nothing
now, ask again after the next outcomes" (a search that promotes trials). Units are read in slabs whose
payloads are pickled once to learn their size; a slab grows only as far as its bytes allow.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, islice, repeat
from operator import attrgetter
from typing import Any

from daskml_scale.errors import PlanError
from daskml_scale.plan.batching import MAX_BYTES, MAX_UNITS, Batching, take, take_uniform
from daskml_scale.plan.units import Unit

MOST_BYTES = 8 << 20
"""Payload bytes kept ahead; one slab more at most."""
SLAB_UNITS = 1024
SLAB_BYTES = 256 << 10
_WEIGHT = attrgetter("weight")


@dataclass(slots=True)
class _Slab:
    units: list[Unit]
    size: int
    """Mean bytes of a payload, rounded up."""
    even: bool
    """Every unit has weight 1."""
    start: int = 0

    def __len__(self) -> int:
        return len(self.units) - self.start


class LookAhead:
    """Units that wait to be sent for the first time.

    Parameters
    ----------
    source : iterable of Unit or None
    total : int, optional
        Number of units, where the source cannot tell.

    Attributes
    ----------
    waiting : int
    paused : bool
        The source has nothing now.
    exhausted : bool
        It has nothing any more.
    broken : Exception or None
        What the source raised; what it gave before that is still to be done.
    """

    def __init__(self, source: Iterable[Unit | None], total: int | None = None) -> None:
        self.source: Iterator[Unit | None] = iter(source)
        self.total = total
        self.waiting = self.read = 0
        self.paused = self.exhausted = False
        self.broken: Exception | None = None
        self._slabs: deque[_Slab] = deque()
        self._bytes = 0
        self._weight = self._weight_read = 0.0
        self._next = 1

    def fill(self, pushed: bool = True) -> None:
        """Read until half a window of large tasks waits; a paused source is asked again when ``pushed``."""
        self.paused = self.paused and not pushed
        if self.waiting >= MAX_UNITS // 2 or self._bytes >= MOST_BYTES // 2:
            return
        while not (self.exhausted or self.paused) and self.waiting < MAX_UNITS and self._bytes < MOST_BYTES:
            self._read_slab()

    def _read_slab(self) -> None:
        units: list[Any] = []
        try:
            units.extend(islice(self.source, self._next))
            self.exhausted = len(units) < self._next
        except Exception as raised:  # what it gave before is in the list
            self.exhausted, self.broken = True, raised
        if None in units:
            self.paused = True
            units = [unit for unit in units if unit is not None]
        if not units:
            return
        size = len(dumped([unit.payload for unit in units], units))
        even = set(map(_WEIGHT, units)) == {1.0}
        weight = float(len(units)) if even else float(sum(unit.weight for unit in units))
        self._slabs.append(_Slab(units, -(-size // len(units)), even))
        self.waiting += len(units)
        self.read += len(units)
        self._bytes += size
        self._weight += weight
        self._weight_read += weight
        self._next = max(1, min(SLAB_UNITS, SLAB_BYTES * len(units) // max(1, size), 4 * len(units)))

    @property
    def left(self) -> float:
        """Weight not sent yet; infinite while nobody knows."""
        if self.exhausted or not self.read:
            return self._weight
        if self.total is None:
            return float("inf")
        return self._weight + max(0, self.total - self.read) * self._weight_read / self.read

    @property
    def units_left(self) -> int:
        """Units not sent yet, as far as known."""
        more = 0 if self.exhausted or self.total is None else max(0, self.total - self.read)
        return self.waiting + more

    def take(self, batching: Batching, slots: int) -> list[Unit]:
        """Remove and return the units of the next task."""
        first = self._slabs[0]
        if all(slab.even for slab in self._slabs):
            count = take_uniform(batching, self.waiting, left=self.left, slots=slots, size=first.size)
        else:
            count = take(batching, self._each_weight(), left=self.left, slots=slots, sizes=self._each_size())
        taken: list[Unit] = []
        size = 0
        while self._slabs and len(taken) < count:
            slab = self._slabs[0]
            if taken and size + slab.size > MAX_BYTES:
                break
            most = count - len(taken) if slab.size == 0 else min(count - len(taken), (MAX_BYTES - size) // slab.size)
            part = slab.units[slab.start : slab.start + max(1, most)]
            taken.extend(part)
            size += slab.size * len(part)
            self._bytes -= slab.size * len(part)
            self._weight -= float(len(part)) if slab.even else sum(unit.weight for unit in part)
            slab.start += len(part)
            if not len(slab):
                self._slabs.popleft()
        self.waiting -= len(taken)
        if not self._slabs:
            self._bytes, self._weight = 0, 0.0
        return taken

    def _each_weight(self) -> Iterator[float]:
        for slab in self._slabs:
            for unit in islice(slab.units, slab.start, None):
                yield unit.weight

    def _each_size(self) -> Iterator[int]:
        return chain.from_iterable(repeat(slab.size, len(slab)) for slab in self._slabs)


def dumped(values: Any, units: list[Unit]) -> bytes:
    """Pickle something about these units, by value what only cloudpickle can send.

    Raises
    ------
    PlanError
        Naming the first unit whose payload cannot be pickled.
    """
    from distributed.protocol.pickle import dumps

    try:
        return bytes(dumps(values))
    except Exception as raised:
        for unit in units:
            try:
                dumps(unit.payload)
            except Exception as own:
                raise PlanError(
                    f"the payload of unit {unit.key} cannot be sent to a worker: {type(own).__name__}: {own}; "
                    "give plain values (a path, an index, an array) and open files, locks and connections in the kernel"
                ) from own
        raise raised from None
