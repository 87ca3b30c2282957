"""How a dataset is rechunked: new chunks and passes of every variable, and the units of both passes. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import product

from daskml_scale.errors import PlanError
from daskml_scale.plan.grids import Grid, Read, block_key, grid_units
from daskml_scale.plan.memory import sized
from daskml_scale.plan.rechunking import Passes, passes
from daskml_scale.plan.units import Reads, Snapshot, Template, Unit, Variable

WHOLE = -1
"""Chunk length of a dimension that is not split."""
SPLIT, JOIN = "split", "join"
"""Prefixes of the units that write the intermediate, and of those that write the output."""


@dataclass(frozen=True)
class Layout:
    """Where everything goes.

    Attributes
    ----------
    source : Snapshot
    targets, between : mapping of name to Variable
        The output, and the intermediate; the latter only of variables that need one.
    split, join : mapping of name to Grid
        Blocks of the units that write them.
    memory : int
        Projected bytes of the largest unit.
    """

    source: Snapshot
    targets: Mapping[str, Variable]
    between: Mapping[str, Variable]
    split: Mapping[str, Grid]
    join: Mapping[str, Grid]
    memory: int

    @classmethod
    def of(cls, source: Snapshot, chunks: Mapping[str, int], shards: Mapping[str, int], memory: int) -> Layout:
        """Decide the passes of every variable.

        Raises
        ------
        PlanError
            When a dimension does not exist, shards are not whole chunks, or ``memory`` is too small.
        """
        dims = {dim for variable in source.variables.values() for dim in variable.dims}
        unknown = sorted({*chunks, *shards} - dims)
        if unknown:
            raise PlanError(f"{source.url} has no dimension {unknown[0]!r}; it has {', '.join(sorted(dims))}")
        targets = {name: _target(name, found, chunks, shards) for name, found in source.variables.items()}
        ways = {name: passes(name, source.variables[name], target, memory) for name, target in targets.items()}
        between = {
            name: replace(targets[name], chunks=way.between, shards=None) for name, way in ways.items() if way.between
        }

        def grid(name: str, way: Passes, last: bool) -> Grid:
            target = targets[name]
            return Grid(target.dims, target.shape, way.last if last else way.first or ())

        return cls(
            source,
            targets,
            between,
            {name: grid(name, ways[name], False) for name in between},
            {name: grid(name, way, True) for name, way in ways.items()},
            max((way.memory for way in ways.values()), default=0),
        )

    def refusal(self, limit: int) -> str:
        """Return why a unit does not fit into a worker of ``limit`` bytes, and what helps."""
        return (
            f"one unit takes up to {sized(self.memory)} and a worker has {sized(limit)}; "
            "set `memory` to less, or use workers with more"
        )

    def template(self) -> Template:
        """Return the output to create."""
        return Template(self.source.dim, self.source.rows, self.targets, {**self.source.attrs, "rechunked": True})

    def units(self, verb: str) -> Iterator[tuple[Unit, Reads]]:
        """Yield the units of a pass with the digests of the source objects that they read."""
        for name, grid in (self.join if verb == JOIN else self.split).items():
            read = Read(self.source, (name,))
            yield from grid_units(grid, [read], f"{verb}/{name}", made_by=str(grid.blocks))

    def needed(self, join: tuple[Unit, ...]) -> set[str]:
        """Return the keys of the units of the first pass that these of the second read from."""
        found: set[str] = set()
        for unit in join:
            name = name_of(unit.key)
            if name in self.split:
                blocks = self.split[name].blocks
                hit = (
                    range(start // block, -(-stop // block))
                    for (start, stop), block in zip(self.join[name].region(unit.payload), blocks, strict=True)
                )
                found.update(block_key(place, f"{SPLIT}/{name}") for place in product(*hit))
        return found


def _target(name: str, source: Variable, chunks: Mapping[str, int], shards: Mapping[str, int]) -> Variable:
    def length(dim: str, size: int, own: int, wanted: Mapping[str, int]) -> int:
        found = wanted.get(dim, own)
        return max(1, size if found == WHOLE else min(found, size))

    axes = list(zip(source.dims, source.shape, source.chunks, strict=True))
    chunk = tuple(length(dim, size, own, chunks) for dim, size, own in axes)
    if not set(shards).intersection(source.dims):
        return replace(source, chunks=chunk, shards=None)
    shard = []
    for (dim, size, _), unit in zip(axes, chunk, strict=True):
        wanted = shards.get(dim, unit)
        wanted = -(-size // unit) * unit if wanted == WHOLE else min(wanted, -(-size // unit) * unit)
        if wanted % unit:
            raise PlanError(
                f"{name}: a shard of {wanted:,} along {dim} is no multiple of its chunk of {unit:,}; "
                f"use {max(1, wanted // unit) * unit:,}"
            )
        shard.append(wanted)
    return replace(source, chunks=chunk, shards=tuple(shard))


def name_of(key: str) -> str:
    """Return the variable of a unit."""
    return key.split("/")[1]
