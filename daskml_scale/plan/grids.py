"""From grids of stored objects to units: which block of an N-dimensional space each unit writes, and what it reads.

A unit may write only whole stored objects: two writers of one object lose data (zarr#3682, dask#12583).
``common_grid`` finds the smallest blocks for which that holds, for variables of different chunks and
dimensions; ``prove`` shows that it holds for a given grid, or refuses with both chunkings and the fix.
Pure arithmetic: nothing here looks at data.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property, partial
from itertools import product
from math import lcm, prod
from typing import TypeAlias

from daskml_scale.errors import PlanError

from .units import Reads, Snapshot, Unit, Variable

Region: TypeAlias = tuple[tuple[int, int], ...]
"""(start, stop) per dimension, in elements."""


@dataclass(frozen=True)
class Grid:
    """Blocks of equal size that cover a space; the last one of a dimension may be smaller.

    Attributes
    ----------
    dims : tuple of str
    shape, blocks : tuple of int
        Elements of the space, and of a block, per dimension.
    """

    dims: tuple[str, ...]
    shape: tuple[int, ...]
    blocks: tuple[int, ...]

    @cached_property
    def counts(self) -> tuple[int, ...]:
        """Blocks per dimension."""
        return tuple(-(-size // block) for size, block in zip(self.shape, self.blocks, strict=True))

    def __len__(self) -> int:
        return prod(self.counts)

    def indices(self) -> Iterator[tuple[int, ...]]:
        """Yield the index of every block, in C order."""
        return product(*map(range, self.counts))

    def region(self, index: Sequence[int]) -> Region:
        """Return the elements of a block."""
        return tuple(
            (at * block, min((at + 1) * block, size))
            for at, block, size in zip(index, self.blocks, self.shape, strict=True)
        )

    def __str__(self) -> str:
        return f"{len(self):,} block{'s'[: len(self) != 1]} of {shown(self.dims, self.blocks)}"


def shown(dims: Sequence[str], sizes: Sequence[int]) -> str:
    """Return ``(time 8,760, lat 10)``."""
    return f"({', '.join(f'{dim} {size:,}' for dim, size in zip(dims, sizes, strict=True))})"


def block_key(index: Sequence[int], prefix: str) -> str:
    """Return the key of a unit: ``rows/00000003``; with more dimensions ``block/00000003.00000000``.

    It depends on the block's place alone, so a space that grows keeps the keys of the blocks it had.
    """
    return f"{prefix}/{'.'.join([f'{at:08d}' for at in index])}"


def sizes_of(variables: Mapping[str, Variable], where: str = "") -> dict[str, int]:
    """Return dimension -> size.

    Raises
    ------
    PlanError
        When two variables disagree: names both.
    """
    found: dict[str, tuple[int, str]] = {}
    for name, variable in variables.items():
        for dim, size in zip(variable.dims, variable.shape, strict=True):
            known, by = found.setdefault(dim, (size, name))
            if known != size:
                raise PlanError(
                    f"{where}{by} has {known:,} elements along {dim}, {name} has {size:,}; "
                    "a dimension must have one size: choose variables that belong together"
                )
    return {dim: size for dim, (size, _) in found.items()}


def common_grid(outputs: Mapping[str, Variable], least: Mapping[str, int] | None = None) -> Grid:
    """Return the smallest blocks that hold whole stored objects of every variable.

    Along a dimension that all variables have, a block is a common multiple of their stored objects; a
    dimension that one of them lacks is not split, since several blocks would write that one's object.

    Parameters
    ----------
    outputs : mapping of name to Variable
        At least one.
    least : mapping of dimension to int, optional
        Blocks are at least so long.

    Raises
    ------
    PlanError
        When the variables disagree about the size of a dimension.
    """
    sizes = sizes_of(outputs)
    order = max(outputs.values(), key=lambda variable: len(variable.dims)).dims
    dims = (*order, *(dim for dim in sizes if dim not in order))
    blocks = []
    for dim in dims:
        unit = lcm(*(_unit(variable, dim) for variable in outputs.values()))  # 0 where one of them lacks it
        wanted = max(1, -(-(least or {}).get(dim, 1) // unit)) * unit if unit else sizes[dim]
        blocks.append(max(1, min(wanted, sizes[dim])))
    grid = Grid(dims, tuple(sizes[dim] for dim in dims), tuple(blocks))
    prove(grid, outputs)
    return grid


def _unit(variable: Variable, dim: str) -> int:
    """Return the length of a variable's stored objects along a dimension; 0 when it has no such dimension."""
    return variable.write_unit[variable.dims.index(dim)] if dim in variable.dims else 0


def prove(grid: Grid, outputs: Mapping[str, Variable]) -> None:
    """Refuse a grid whose blocks do not write whole stored objects, each by one block.

    Raises
    ------
    PlanError
        Names both chunkings and a size that fits.
    """
    for name, variable in outputs.items():
        unknown = [dim for dim in variable.dims if dim not in grid.dims]
        if unknown:
            raise PlanError(f"{name} has the dimension {unknown[0]}, the units have {', '.join(grid.dims)}; add it")
        for dim, size, block, count in zip(grid.dims, grid.shape, grid.blocks, grid.counts, strict=True):
            if dim not in variable.dims:
                if count > 1:
                    raise PlanError(
                        f"{name} has no dimension {dim}, which units of {shown(grid.dims, grid.blocks)} split into "
                        f"{count:,}: all of these would write the same object; use blocks of {size:,} along {dim}"
                    )
                continue
            unit, own = _unit(variable, dim), variable.shape[variable.dims.index(dim)]
            if own != size:
                raise PlanError(
                    f"{name} has {own:,} elements along {dim}, the units cover {size:,}; give both the same size"
                )
            if block % unit and block < size:
                fitting = max(1, block // unit) * unit
                raise PlanError(
                    f"units of {shown(grid.dims, grid.blocks)} do not hold whole objects of {name}, "
                    f"{shown(variable.dims, variable.write_unit)}: {block:,} is no multiple of {unit:,} along {dim}; "
                    f"use blocks of {fitting:,} or {fitting + unit:,} along {dim}, or rechunk {name}"
                )


@dataclass(frozen=True)
class Read:
    """Variables that every unit reads: the part that its block covers, and a halo around it.

    Attributes
    ----------
    halo : mapping of dimension to (before, after)
        Elements beyond the block.
    """

    snapshot: Snapshot
    variables: tuple[str, ...]
    halo: Mapping[str, tuple[int, int]] = field(default_factory=dict)

    def region(self, grid: Grid, index: Sequence[int]) -> dict[str, tuple[int, int]]:
        """Return what a unit reads along the dimensions of the grid; every other dimension is read whole."""
        found = {}
        for dim, size, (start, stop) in zip(grid.dims, grid.shape, grid.region(index), strict=True):
            before, after = self.halo.get(dim, (0, 0))
            found[dim] = max(0, start - before), min(size, stop + after)
        return found

    def check(self, grid: Grid) -> None:
        """Refuse variables that are not there, and dimensions of another size.

        Raises
        ------
        PlanError
        """
        for name in self.variables:
            variable = self.snapshot.variables.get(name)
            if variable is None:
                raise PlanError(
                    f"{self.snapshot.url} has no variable {name!r}; it has {', '.join(self.snapshot.variables)}"
                )
            for dim, size in zip(variable.dims, variable.shape, strict=True):
                wanted = dict(zip(grid.dims, grid.shape, strict=True)).get(dim, size)
                if size != wanted:
                    raise PlanError(
                        f"{self.snapshot.url}: {name} has {size:,} elements along {dim}, the output has {wanted:,}; "
                        f"select the same part of {dim} from both"
                    )


def grid_units(
    grid: Grid, reads: Sequence[Read], prefix: str = "block", made_by: str = "", later: bool = False
) -> Iterator[tuple[Unit, Reads]]:
    """Yield every unit of a grid with the digest of what it reads; what ``records.select`` takes.

    The payload of a unit is the index of its block, its weight the number of its elements. Cheap enough
    for millions: the objects that a block reads are looked up per dimension, not per unit.

    Parameters
    ----------
    made_by : str
        Anything else that all units depend on.
    later : bool
        Give a function in place of a digest that needs objects which nobody has identified yet.

    Raises
    ------
    PlanError
        When an input does not fit the grid.
    """
    for read in reads:
        read.check(grid)
    each = [(read, name) for read in reads for name in read.variables]
    ids = [read.snapshot.later(name) if later else read.snapshot.ids.get(name, ()) for read, name in each]
    wait = not all(isinstance(known, tuple) for known in ids)
    finders = [_finder(grid, *one, known) for one, known in zip(each, ids, strict=True)]
    about = hashlib.blake2b(made_by.encode(), digest_size=20).hexdigest()
    # What one dimension alone decides is made once per dimension, equal values once: what is left is joining.
    names = product(*([f"{at:08d}" for at in range(count)] for count in grid.counts))
    axes = zip(grid.shape, grid.blocks, strict=True)
    shapes = product(*([min(block, size - start) for start in range(0, size, block)] for size, block in axes))
    known: dict[tuple[int, ...], tuple[str, int]] = {}
    blake2b, join = hashlib.blake2b, ".".join
    for index, name, shape in zip(grid.indices(), names, shapes, strict=True):
        place = join(name)
        if shape not in known:
            known[shape] = f"|{shape}|", prod(shape)
        extent, weight = known[shape]
        unit = Unit(f"{prefix}/{place}", index, weight)
        if wait:
            yield unit, partial(_read, f"{about}{place}{extent}", finders, index)
            continue
        text = f"{about}{place}{extent}{''.join([find(index) for find in finders])}"
        yield unit, blake2b(text.encode(), digest_size=20).hexdigest()


def _read(text: str, finders: Sequence[Callable[[tuple[int, ...]], str]], index: tuple[int, ...]) -> str:
    return hashlib.blake2b("".join([text, *(find(index) for find in finders)]).encode(), digest_size=20).hexdigest()


def _finder(grid: Grid, read: Read, name: str, ids: Sequence[str]) -> Callable[[tuple[int, ...]], str]:
    """Return a function from a block's index to the joined ids of the objects of a variable that it reads."""
    variable = read.snapshot.variables[name]
    if not ids:
        return lambda index: ""
    along = {dim: _offsets(grid, read, variable, at) for at, dim in enumerate(variable.dims)}
    whole = [offsets[0] for dim, offsets in along.items() if dim not in grid.dims]
    split = [(grid.dims.index(dim), offsets) for dim, offsets in along.items() if dim in grid.dims]
    if not split:
        text = cache(lambda: "".join([ids[sum(offsets)] for offsets in product(*whole)]))
        return lambda index: text()
    (outer, rows), rest = split[0], split[1:]
    known: dict[tuple[int, ...], tuple[int, ...]] = {}

    def find(index: tuple[int, ...]) -> str:
        place = tuple([index[at] for at, _ in rest])
        if place not in known:
            within = [offsets[at] for (_, offsets), at in zip(rest, place, strict=True)]
            known[place] = tuple(map(sum, product(*within, *whole)))
        inner = known[place]
        return "".join([ids[first + further] for first in rows[index[outer]] for further in inner])

    return find


def _offsets(grid: Grid, read: Read, variable: Variable, position: int) -> list[range]:
    """Return, for every block along a dimension, its objects as offsets into the ids; read whole, it has one entry."""
    dim, size, unit = variable.dims[position], variable.shape[position], variable.write_unit[position]
    stride = prod(variable.objects[position + 1 :])
    if dim not in grid.dims:
        return [range(0, variable.objects[position] * stride, stride)]
    block, (before, after) = grid.blocks[grid.dims.index(dim)], read.halo.get(dim, (0, 0))
    found = []
    for start in range(0, size, block):
        first, last = max(0, start - before), min(size, start + block + after)
        found.append(range(first // unit * stride, -(-last // unit) * stride, stride))
    return found
