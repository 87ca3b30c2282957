"""How much memory a unit of a grid or of a table needs, which variable is to blame, and which chunks would fit. Pure.

Counted are: the decoded part of every input and the chunks that are decoded at a time to fill it, the values
of every output and their encoded copy, and what the kernel itself takes. An upper estimate: a plan that is
refused would have been killed, not merely slow.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod

from .grids import Grid, Read, shown
from .units import Plan, Variable

AT_A_TIME = 10
"""Chunks that Zarr decodes at a time (its default ``async.concurrency``)."""


@dataclass(frozen=True, slots=True)
class Share:
    """What one variable takes: ``read`` or ``write``, its name, bytes."""

    verb: str
    name: str
    nbytes: int


@dataclass(frozen=True)
class Need:
    """The memory of the largest unit of a grid.

    Attributes
    ----------
    outputs : mapping of name to Variable
    factor : float
        Bytes that the kernel takes for itself, per byte of decoded inputs and outputs.
    fixed : int
        Bytes that it takes whatever the size of the unit: a model, a table of a join.
    """

    grid: Grid
    reads: Sequence[Read]
    outputs: Mapping[str, Variable]
    factor: float = 0.0
    fixed: int = 0

    @property
    def shares(self) -> list[Share]:
        """What each variable takes, the largest first."""
        found = [
            Share("reading", name, self._read(read, read.snapshot.variables[name]))
            for read in self.reads
            for name in read.variables
        ]
        found += [Share("writing", name, 2 * self._values(variable)) for name, variable in self.outputs.items()]
        return sorted(found, key=lambda share: (-share.nbytes, share.verb, share.name))

    @property
    def total(self) -> int:
        """Projected peak bytes."""
        values = sum(
            self._values(read.snapshot.variables[name], read) for read in self.reads for name in read.variables
        ) + sum(map(self._values, self.outputs.values()))
        return sum(share.nbytes for share in self.shares) + int(self.factor * values) + self.fixed

    def _extent(self, variable: Variable, read: Read | None) -> list[int]:
        blocks = dict(zip(self.grid.dims, self.grid.blocks, strict=True))
        halo = {} if read is None else read.halo
        return [
            min(size, blocks.get(dim, size) + sum(halo.get(dim, (0, 0))))
            for dim, size in zip(variable.dims, variable.shape, strict=True)
        ]

    def _values(self, variable: Variable, read: Read | None = None) -> int:
        return prod(self._extent(variable, read)) * variable.itemsize

    def _read(self, read: Read, variable: Variable) -> int:
        touched = 1
        for dim, extent, chunk, size in zip(
            variable.dims, self._extent(variable, read), variable.chunks, variable.shape, strict=True
        ):
            aligned = not any(read.halo.get(dim, (0, 0))) and extent % chunk == 0
            touched *= min(-(-extent // chunk) + (not aligned), -(-size // chunk))
        chunk_bytes = prod(map(min, variable.chunks, variable.shape)) * variable.itemsize
        return self._values(variable, read) + min(touched, AT_A_TIME) * chunk_bytes

    def fitting(self, limit: int) -> Need | None:
        """Return the same work in smaller blocks that fit into ``limit`` bytes; ``None`` when none do."""
        need = self
        while need.total > limit:
            smaller = [need._halved(axis) for axis, block in enumerate(need.grid.blocks) if block > 1]
            if not smaller:
                return None
            need = min(smaller, key=lambda other: other.total)
        return need

    def _halved(self, axis: int) -> Need:
        blocks = list(self.grid.blocks)
        blocks[axis] = -(-blocks[axis] // 2)
        return replace(self, grid=replace(self.grid, blocks=tuple(blocks)))

    def refusal(self, limit: int) -> str:
        """Return why a unit does not fit into ``limit`` bytes: the sizes, the worst variable, what would fit."""
        worst, grid = self.shares[0], self.grid
        text = (
            f"one unit of {shown(grid.dims, grid.blocks)} needs about {sized(self.total)} and a worker has "
            f"{sized(limit)}; {worst.verb} {worst.name} takes {sized(worst.nbytes)} of it"
        )
        fits = self.fitting(limit)
        if fits is None:
            return f"{text}, and no chunks of the output fit; rechunk {worst.name}, or use workers with more memory"
        blocks = shown(grid.dims, fits.grid.blocks)
        return f"{text}; output chunks of {blocks} fit ({sized(fits.total)}), or use workers with more memory"


@dataclass(frozen=True)
class RowNeed:
    """The memory of a unit of rows of a table.

    Attributes
    ----------
    rows : int
        Rows of the unit.
    shares : sequence of Share
        What grows with the rows.
    fixed : sequence of Share
        What does not: other tables, a model.
    key : str
        The setting that says how many rows a unit has.
    """

    rows: int
    shares: Sequence[Share]
    fixed: Sequence[Share] = ()
    key: str = "chunk"

    @property
    def total(self) -> int:
        """Projected peak bytes."""
        return sum(share.nbytes for share in (*self.shares, *self.fixed))

    def refusal(self, limit: int) -> str:
        """Return why a unit does not fit into ``limit`` bytes: the sizes, the worst part, what would fit."""
        worst = max((*self.shares, *self.fixed), key=lambda share: share.nbytes)
        text = (
            f"one unit of {self.rows:,} rows needs about {sized(self.total)} and a worker has {sized(limit)}; "
            f"{worst.verb} {worst.name} takes {sized(worst.nbytes)} of it"
        )
        left, growing = limit - sum(share.nbytes for share in self.fixed), sum(share.nbytes for share in self.shares)
        rows = left * self.rows // growing if growing else 0
        if rows < 1:
            return f"{text}; use workers with more memory"
        digits = 10 ** max(0, len(str(rows)) - 2)
        return f"{text}; units of {rows // digits * digits:,} rows fit: set {self.key}, or use workers with more memory"


@dataclass(frozen=True)
class BlockNeed:
    """The memory of the largest block of a file.

    Attributes
    ----------
    where : str
        The block, for people.
    remedy : str
        What makes it smaller.
    """

    where: str
    nbytes: int
    remedy: str

    def refusal(self, limit: int) -> str:
        """Return why it does not fit into ``limit`` bytes, and what would."""
        return (
            f"{self.where} takes about {sized(self.nbytes)} decoded and a worker has {sized(limit)}; {self.remedy}, or "
            "use workers with more memory"
        )


def larger(plan: Plan, need: RowNeed | None) -> Plan:
    """Return a plan that projects what its largest unit needs, when that is more than the plan says so far."""
    return plan if need is None or need.total <= plan.memory else replace(plan, memory=need.total, need=need)


def sized(nbytes: int) -> str:
    """Return bytes for people."""
    return f"{nbytes / 2**20:,.0f} MiB" if nbytes >= 2**20 else f"{nbytes / 2**10:,.0f} KiB"
