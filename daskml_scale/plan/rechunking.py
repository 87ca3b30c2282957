"""How to change the chunks of an array with bounded memory: in one pass, or in two over an intermediate. Pure.

The two passes are those of Rechunker (R. Abernathey and T. Augspurger, 2020; its documentation, "Algorithm"):
consolidate writes, consolidate reads along the axes along which the writes are longer, and let the chunks
of the intermediate be the smaller of both along each axis. Two things differ. Every unit writes whole
stored objects, so its block is a multiple of what it writes, and rather reads a little more than it needs
than shares an object with a neighbour. And where reading the source directly costs less than an
intermediate does, there is none.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from typing import TypeAlias

from daskml_scale.errors import PlanError

from .grids import shown
from .memory import AT_A_TIME, sized
from .units import Variable

MOST_READ = 3.0
"""Times that one pass may read the source: an intermediate is written once and read once besides."""
Sizes: TypeAlias = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Passes:
    """Blocks of each pass, in elements per dimension.

    Attributes
    ----------
    first : tuple of int or None
        Block of a unit that writes the intermediate; ``None`` where the target is written at once.
    between : tuple of int or None
        Chunks of the intermediate.
    last : tuple of int
        Block of a unit that writes the target.
    memory : int
        Projected peak bytes of the largest unit.
    """

    first: Sizes | None
    between: Sizes | None
    last: Sizes
    memory: int


def passes(name: str, source: Variable, target: Variable, memory: int) -> Passes:
    """Decide how a variable gets its new chunks.

    Parameters
    ----------
    name : str
    source, target : Variable
        Of one shape and type.
    memory : int
        Bytes that one unit may take.

    Raises
    ------
    PlanError
        When not even one chunk of the source, or one object of the target, fits: names both and the least memory.
    """
    sizes = _Sizes(source.shape, _clip(source.chunks, source.shape), _clip(target.write_unit, source.shape), source)
    budget = memory
    while True:
        found = sizes.passes(budget)
        if found.memory <= memory:
            return found
        if budget < sizes.item:
            raise PlanError(
                f"{name}: one unit needs {sized(found.memory)} to turn chunks of "
                f"{shown(source.dims, sizes.read)} into {shown(source.dims, sizes.write)}, and memory is "
                f"{sized(memory)}; give it that much, or choose smaller chunks"
            )
        budget //= 2


def _clip(chunks: Sizes, shape: Sizes) -> Sizes:
    return tuple(max(1, min(chunk, size)) for chunk, size in zip(chunks, shape, strict=True))


@dataclass(frozen=True)
class _Sizes:
    """One rechunking: the array's shape, what is read and what is written at least."""

    shape: Sizes
    read: Sizes
    write: Sizes
    source: Variable

    @property
    def item(self) -> int:
        return self.source.itemsize

    def passes(self, budget: int) -> Passes:
        """Return the passes whose blocks are grown while they fit into a budget; their memory may exceed it."""
        ahead = tuple(min(size, -(-r // w) * w) for r, w, size in zip(self.read, self.write, self.shape, strict=True))
        for limits in (ahead, self.shape):  # small blocks run in parallel, large ones read less twice
            direct = _grown(self.write, limits, lambda block: self._memory(block, self.read) <= budget)
            memory = self._memory(direct, self.read)
            if memory <= budget and _times_read(direct, self.read, self.shape) <= MOST_READ:
                return Passes(None, None, direct, memory)
        last = _grown(self.write, self.shape, lambda block: 3 * prod(block) * self.item <= budget)
        longer = [max(r, w) for r, w in zip(self.read, last, strict=True)]
        first = _grown(self.read, longer, lambda block: self._memory(block, self.read) <= budget)
        between = tuple(map(min, first, last))
        # Where a chunk of the source is longer than what is written, the block is a multiple of the latter.
        first = tuple(f if f >= size else f // b * b for f, b, size in zip(first, between, self.shape, strict=True))
        return Passes(first, between, last, max(self._memory(first, self.read), self._memory(last, between)))

    def _memory(self, block: Sizes, chunks: Sizes) -> int:
        """Return the bytes of a block, of the chunks that are decoded at a time to fill it, and of its encoded copy."""
        touched = prod(
            min(-(-size // chunk), -(-length // chunk) + (length % chunk != 0))
            for length, chunk, size in zip(block, chunks, self.shape, strict=True)
        )
        return self.item * (2 * prod(block) + min(touched, AT_A_TIME) * prod(chunks))


def _grown(base: Sizes, limits: Sequence[int], fits: Callable[[Sizes], bool]) -> Sizes:
    """Return a multiple of ``base``, grown from the last axis to the first towards ``limits`` while it fits."""
    block = list(base)
    for axis in reversed(range(len(block))):
        unit, limit = base[axis], limits[axis]
        low, high = 1, max(1, -(-limit // unit))
        while low < high:  # the largest factor that fits
            middle = (low + high + 1) // 2
            trial = (*block[:axis], min(limit, middle * unit), *block[axis + 1 :])
            low, high = (middle, high) if fits(trial) else (low, middle - 1)
        block[axis] = max(unit, min(limit, low * unit))
    return tuple(block)


def _times_read(block: Sizes, chunks: Sizes, shape: Sizes) -> float:
    """Return how often the average chunk is decoded when blocks are read one by one."""
    times = 1.0
    for length, chunk, size in zip(block, chunks, shape, strict=True):
        chunks_read = sum(-(-min(start + length, size) // chunk) - start // chunk for start in range(0, size, length))
        times *= chunks_read / max(1, -(-size // chunk))
    return times
