"""What a ``cube`` stage reads and writes: grids, schemas, and the units of its passes with what they depend on. Pure.

Blocks are those of the output, in space and time. A climatology is learnt in two passes: the moments of each
block of time (a block that did not change is not read again), and their merge, per block of space.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from math import prod
from typing import Any

from daskml_scale.errors import PlanError
from daskml_scale.plan.grids import Grid, block_key
from daskml_scale.plan.objects import coordinate_chunk
from daskml_scale.plan.records import Record, digest
from daskml_scale.plan.units import Snapshot, Template, Unit, Variable
from daskml_scale.spec.explain import nearest
from daskml_scale.spec.steps_grid import Coarsen, GridStep, Reach, Window, later

from .calendar import GROUPS
from .kernels import Span
from .program import Program

PART, MERGE, BLOCK, COPY = "part", "climatology", "block", "coordinate"
"""Prefixes of the units."""
WHOLE = -1


@dataclass(frozen=True)
class Layout:
    """See the module docstring.

    Attributes
    ----------
    cube : Snapshot
    program : Program
    factors : tuple of int
        Cells of the input per cell of the output, per dimension.
    grid : Grid
        Blocks of the output.
    coords : tuple of str
        Dimension coordinates to write.
    dtype : str
    """

    cube: Snapshot
    program: Program
    factors: tuple[int, ...]
    grid: Grid
    coords: tuple[str, ...]
    dtype: str

    @classmethod
    def of(
        cls,
        cube: Snapshot,
        steps: Sequence[GridStep],
        time: str,
        coarsen: Coarsen | None,
        chunks: Mapping[str, int],
        dtype: str,
    ) -> Layout:
        """Decide the layout.

        Raises
        ------
        PlanError
            When the cube lacks a variable or dimension, or the steps read variables of different dimensions.
        """
        read = Program(tuple(steps), (), (), time).sources
        reference = _reference(cube, read, time)
        sizes = dict(zip(reference.dims, reference.shape, strict=True))
        named = {**(coarsen.sizes if coarsen else {}), **chunks}
        named.update({dim: 1 for step in steps if isinstance(step, Window) for dim in step.size})
        for dim in named:
            if dim not in sizes:
                raise PlanError(f"{cube.url} has no dimension {dim!r}; the variables read have {', '.join(sizes)}")
        factors = tuple(coarsen.sizes.get(dim, 1) if coarsen else 1 for dim in reference.dims)
        for dim, size, factor in zip(reference.dims, reference.shape, factors, strict=True):
            if size % factor and coarsen and coarsen.boundary == "exact":
                raise PlanError(
                    f"coarsen.sizes.{dim}: {size:,} cells are no multiple of {factor}; use another size, or "
                    "boundary: trim, which leaves out the last ones"
                )
        small = tuple(size // factor for size, factor in zip(reference.shape, factors, strict=True))
        blocks = []
        for dim, size, unit, factor in zip(reference.dims, small, reference.write_unit, factors, strict=True):
            wanted = chunks.get(dim, max(1, unit // factor))
            blocks.append(max(1, size if wanted == WHOLE else min(wanted, size)))
        own = (name for name in reference.dims if name in cube.variables and cube.variables[name].dims == (name,))
        coords = tuple(name for name in own if cube.variables[name].shape[0] and cube.variables[name].dtype != "string")
        program = Program(tuple(steps), reference.dims, small, time)
        return cls(cube, program, factors, Grid(reference.dims, small, tuple(blocks)), coords, dtype)

    @property
    def axis(self) -> int:
        """Position of the dimension of time."""
        return self.program.dims.index(self.program.time)

    @property
    def space(self) -> Grid:
        """Blocks of the output without time."""
        rest = [at for at in range(len(self.grid.dims)) if at != self.axis]
        grid = self.grid
        shape, blocks = (tuple(part[at] for at in rest) for part in (grid.shape, grid.blocks))
        return Grid(tuple(grid.dims[at] for at in rest), shape, blocks)

    def raw(self, region: Sequence[Span]) -> dict[str, Span]:
        """Return the region of the input that a region of the output is made of."""
        return {
            dim: (start * factor, stop * factor)
            for dim, factor, (start, stop) in zip(self.program.dims, self.factors, region, strict=True)
        }

    def slots(self, kind: str) -> int:
        """Return the most groups that a block of time can hold."""
        return min(GROUPS[kind], self.grid.blocks[self.axis])

    def statistics(self) -> Template:
        """Return the dataset of climatologies, and of the moments that they are merged from."""
        space, times = self.space, self.grid.counts[self.axis]
        found: dict[str, Variable] = {}
        for name, kind in self.program.learnt:
            slots, groups = self.slots(kind), GROUPS[kind]
            part = (("part", f"slot_{kind}", *space.dims), (times, slots, *space.shape), (1, slots, *space.blocks))
            found[f"{name}_{kind}_count"] = Variable("int32", *part)
            found[f"{name}_{kind}_mean"] = Variable("float64", *part)
            whole = ((kind, *space.dims), (groups, *space.shape), (groups, *space.blocks))
            found[f"{name}_{kind}"] = Variable("float64", *whole)
        return Template("part", times, found)

    def template(self) -> Template:
        """Return the output to create."""
        grid = self.grid
        found = {name: Variable(self.dtype, grid.dims, grid.shape, grid.blocks) for name in self.program.outputs}
        for dim, size, block, factor in zip(grid.dims, grid.shape, grid.blocks, self.factors, strict=True):
            if dim in self.coords:
                own, chunk = self.cube.variables[dim], coordinate_chunk(size, block)
                dtype, fill = (own.dtype, own.fill) if factor == 1 else ("float64", None)
                found[dim] = Variable(dtype, (dim,), (size,), (chunk,), None, own.attrs, fill)
        attrs = {"later": sorted(later(list(self.program.steps))), "time": self.program.time, "cube": list(grid.dims)}
        return Template(grid.dims[0], grid.shape[0], found, attrs)

    def parts(self, months: Sequence[str]) -> Iterator[tuple[Unit, str]]:
        """Yield the units that take the moments of a block, and what each reads.

        Parameters
        ----------
        months : sequence of str
            Identities of the months of every block of time; empty where nothing is learnt.
        """
        for name, kind in self.program.learnt:
            for index in self.grid.indices():
                region = self.grid.region(index)
                read = digest(region, months[index[self.axis]], self.cube.region_ids(name, self.raw(region)))
                yield Unit(block_key(index, f"{PART}/{name}.{kind}"), (name, kind, index), _cells(region)), read

    def merges(self, records: Mapping[str, Record]) -> Iterator[tuple[Unit, str]]:
        """Yield the units that merge the moments of a block of space, and what each reads."""
        times = self.grid.counts[self.axis]
        for name, kind in self.program.learnt:
            for index in self.space.indices():
                keys = (block_key(self.full(index, at), f"{PART}/{name}.{kind}") for at in range(times))
                read = digest([records[key].digest for key in keys])
                weight = GROUPS[kind] * _cells(self.space.region(index))
                yield Unit(block_key(index, f"{MERGE}/{name}.{kind}"), (name, kind, index), weight), read

    def blocks(self, records: Mapping[str, Record], months: Sequence[str]) -> Iterator[tuple[Unit, str]]:
        """Yield the units that write a block of the output, or a coordinate, and what each reads."""
        program, block = self.program, self.grid.blocks[self.axis]
        for index in self.grid.indices():
            region = self.grid.region(index)
            around = [(name, self.raw(program.around(region, program.halos[name]))) for name in program.sources]
            read = [self.cube.region_ids(name, found) for name, found in around]
            learnt = [self._merged(name, kind, region, records) for name, kind in program.learnt]
            spans = [program.around(region, halo)[self.axis] for halo in program.halos.values()]
            first, last = min(start for start, _ in spans), max(stop for _, stop in spans)
            when = months[first // block : -(-last // block)]
            yield Unit(block_key(index, BLOCK), index, _cells(region)), digest(region, when, read, learnt)
        for name in self.coords:
            yield Unit(f"{COPY}/{name}", name), digest(self.cube.ids.get(name, ()))

    def _merged(self, name: str, kind: str, region: Sequence[Span], records: Mapping[str, Record]) -> list[str]:
        """Return the digests of the climatology around a block."""
        halo: Reach = self.program.halos[f"{name}_anomaly"]
        span = self.program.around(region, halo)
        del span[self.axis]
        within = [range(a // size, -(-b // size)) for (a, b), size in zip(span, self.space.blocks, strict=True)]
        return [records[block_key(index, f"{MERGE}/{name}.{kind}")].digest for index in product(*within)]

    def full(self, index: Sequence[int], time: int) -> tuple[int, ...]:
        """Return the index of a block from that of its space and of its time."""
        return (*index[: self.axis], time, *index[self.axis :])

    def memory(self) -> int:
        """Return the projected peak bytes of the largest unit."""
        program, cells = self.program, prod(self.grid.blocks)
        read = sum(cells * self._wider(program.halos[name]) for name in program.sources)
        space = cells // max(1, self.grid.blocks[self.axis])
        means = sum(GROUPS[kind] * space for _, kind in program.learnt)
        # Decoded and coarsened inputs, what the steps make in float64 and as it is written, climatologies.
        return int(8 * (2 * read * prod(self.factors) + 2 * cells * len(program.outputs) + 2 * means))

    def _wider(self, halo: Reach) -> float:
        return prod(
            (block + sum(halo.get(dim, (0, 0)))) / max(1, block)
            for dim, block in zip(self.grid.dims, self.grid.blocks, strict=True)
        )


def _cells(region: Sequence[Span]) -> int:
    return prod(stop - start for start, stop in region)


def _reference(cube: Snapshot, read: Sequence[str], time: str) -> Variable:
    """Return the schema that all variables read share.

    Raises
    ------
    PlanError
    """
    for name in read:
        if name not in cube.variables:
            have = ", ".join(name for name, found in cube.variables.items() if len(found.dims) > 1) or "none"
            raise PlanError(f"{cube.url} has no variable {name!r}{nearest(name, cube.variables)}; it has {have}")
    first = cube.variables[read[0]]
    if time not in first.dims:
        raise PlanError(
            f"{read[0]} has the dimensions {', '.join(first.dims)}, and none is {time!r}; name that of time by `time:`"
        )
    if time not in cube.variables:
        raise PlanError(f"{cube.url} has no coordinate {time!r}, so nothing is known of the times; write one")
    for name in read[1:]:
        if cube.variables[name].dims != first.dims:
            raise PlanError(
                f"{name} has the dimensions {', '.join(cube.variables[name].dims)}, {read[0]} has "
                f"{', '.join(first.dims)}; the steps of one stage read variables of the same dimensions: give {name} "
                "a stage of its own, or remove it from the steps"
            )
    return first


def settings(stage: Any) -> str:
    """Return the digest of what a stage is told beside its input."""
    return digest([[step.step, step.params()] for step in stage.steps], stage.time, stage.fit_where, stage.coarsen)
