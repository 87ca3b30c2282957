"""Rechunk: the same dataset in other chunks or shards, with bounded memory.

For inputs whose chunks lie across what a stage wants to read: maps that become series, tables in chunks of
the wrong size. ``plan.rechunking`` decides for each variable between one pass and two; the second pass
needs the intermediate, a plain dataset beside the output that is removed when the stage is finished.
A unit is one block of one variable. When the input changes, only the blocks of the output that hold what
changed are written again, and of the intermediate only what these need.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from daskml_scale.engine.worker import WorkerContext
from daskml_scale.errors import PlanError, UsageError
from daskml_scale.plan.grids import Grid, Read, block_key, grid_units
from daskml_scale.plan.rechunking import Passes, passes
from daskml_scale.plan.records import Record, Written, digest, select
from daskml_scale.plan.units import Parts, Plan, Snapshot, Template, Unit, Variable, Why
from daskml_scale.storage import files, stores

from .base import Input, Ref, StageBase, StageResult
from .features.planner import require

if TYPE_CHECKING:
    import xarray as xr

CODE = "rechunk-1"
"""Changes whenever the kernel's output changes for the same input."""
WHOLE = -1
"""Chunk length of a dimension that is not split."""
MEMORY = 256 << 20
"""Bytes that one unit may take where nobody says."""
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

    def template(self) -> Template:
        """Return the output to create."""
        return Template(self.source.dim, self.source.rows, self.targets, {**self.source.attrs, "rechunked": True})

    def units(self, verb: str) -> Iterator[tuple[Unit, str]]:
        """Yield the units of a pass with the digests of the source objects that they read."""
        for name, grid in (self.join if verb == JOIN else self.split).items():
            read = Read(self.source, (name,))
            yield from grid_units(grid, [read], f"{verb}/{name}", made_by=str(grid.blocks))

    def needed(self, join: tuple[Unit, ...]) -> set[str]:
        """Return the keys of the units of the first pass that these of the second read from."""
        found: set[str] = set()
        for unit in join:
            name = _name(unit.key)
            if name in self.split:
                region, grid = self.join[name].region(unit.payload), self.split[name]
                hit = Grid(grid.dims, grid.counts, tuple(1 for _ in grid.dims))
                first = [start // block for (start, _), block in zip(region, grid.blocks, strict=True)]
                count = [
                    -(-stop // block) - at for (_, stop), block, at in zip(region, grid.blocks, first, strict=True)
                ]
                box = replace(hit, shape=tuple(count))
                for index in box.indices():
                    place = [at + start for at, start in zip(index, first, strict=True)]
                    found.add(block_key(place, f"{SPLIT}/{name}"))
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


def _name(key: str) -> str:
    return key.split("/")[1]


@dataclass(frozen=True)
class RechunkStage(StageBase):
    """See the module docstring.

    Attributes
    ----------
    input : str
        URL of the dataset.
    chunks, shards : mapping of dimension to int
        Elements; -1 is the whole dimension. Dimensions that are not named keep their chunks.
    memory : int
        Bytes that one unit may take.
    variables : tuple of str
        What to write; all by default.
    """

    input: str
    chunks: Mapping[str, int] = field(default_factory=dict)
    shards: Mapping[str, int] = field(default_factory=dict)
    memory: int = MEMORY
    variables: tuple[str, ...] = ()
    kind: str = "rechunk"

    @property
    def scratch(self) -> str:
        """URL of the intermediate."""
        return stores.beside(self.out, "rechunk.zarr")

    def reads(self) -> Mapping[str, Ref]:
        return {"input": Ref("dataset", self.input)}

    def plan(self, inputs: Mapping[str, Input], records: Mapping[str, Record]) -> Plan:
        layout = Layout.of(self._source(inputs), self.chunks, self.shards, self.memory)
        last = self._pass(JOIN, layout, layout.units(JOIN), records)
        wanted = layout.needed(last.units)
        if not wanted:
            return last
        first = self._pass(SPLIT, layout, (pair for pair in layout.units(SPLIT) if pair[0].key in wanted), records)
        if not first.units:
            return replace(last, keys=first.keys + last.keys, reused=first.reused + last.reused)
        waiting = {unit.key for unit in last.units}
        done = tuple(key for key in last.keys if key not in waiting)
        return replace(
            first,
            keys=first.keys + done,
            reused=first.reused + len(done),
            later=len(waiting),
            # An intermediate is made again because the output is: that reason is the one to tell.
            reasons={last.why.usual: len(first.units)},
            why=Why(last.why.usual),
            beside={self.scratch: Template(layout.source.dim, layout.source.rows, layout.between)},
        )

    def _source(self, inputs: Mapping[str, Input]) -> Snapshot:
        source = require(inputs["input"], self.input, self.name)
        chosen = {name: source.variables[name] for name in self.variables or source.variables}
        return replace(source, variables=chosen)

    def _pass(self, verb: str, layout: Layout, units: Any, records: Mapping[str, Record]) -> Plan:
        two = f", {len(layout.between)} of them over an intermediate" if layout.between else ""
        count = sum(map(len, layout.join.values()))
        return select(
            units,
            Parts(code=CODE, schema=digest([(n, v.dtype, v.chunks, v.shards) for n, v in layout.targets.items()])),
            records,
            shared=layout.split if verb == SPLIT else (layout.join, frozenset(layout.between)),
            template=layout.template(),
            grid=f"{count:,} block{'s'[: count != 1]} of {len(layout.targets)} variables{two}",
            memory=layout.memory,
            rows=layout.source.rows,
        )

    def kernel(self, unit: Unit, worker: WorkerContext) -> Written:
        name = _name(unit.key)
        if unit.key.startswith(f"{SPLIT}/"):
            region = worker.shared[name].region(unit.payload)
            written = self._copy(self.input, self.scratch, name, region)
            # The ledger names objects by their place from the output.
            place = f"../{self.scratch.rpartition('/')[2]}"
            return Written({f"{place}/{key}": stored for key, stored in written.items()}, rows=0)
        join, between = worker.shared
        source = self.scratch if name in between else self.input
        return Written(self._copy(source, self.out, name, join[name].region(unit.payload)), rows=0)

    @staticmethod
    def _copy(source: str, target: str, name: str, region: Any) -> dict[str, tuple[str, int, int]]:
        values = stores.read_region(source, name, region)
        return stores.write_region(target, [start for start, _ in region], {name: values})

    def finish(self, inputs: Mapping[str, Input], records: Mapping[str, Record]) -> StageResult:
        stores.remove(self.scratch)
        source = self._source(inputs)
        return StageResult({"variables": sorted(source.variables)}, rows=source.rows)


def rechunk(
    data: Any,
    out: str | os.PathLike[str],
    *,
    chunks: Mapping[str, int],
    shards: Mapping[str, int] | None = None,
    memory: int | str = MEMORY,
    client: Any | None = None,
) -> xr.Dataset:
    """Write a dataset in other chunks and return it, opened lazily.

    Parameters
    ----------
    data : xarray.Dataset or str
        A URL, or a dataset that was opened from one and not changed since.
    out : str
        URL ending in ``.zarr``. Its ledger lies beside it: a second call goes on, or writes only what changed.
    chunks : mapping of dimension to int
        Elements per chunk; -1 for the whole dimension. Dimensions that are not named keep their chunks.
    shards : mapping of dimension to int, optional
        Elements per stored object; a multiple of the chunk.
    memory : int or str
        Bytes that one task may take, ``"256 MiB"`` for example.
    client : distributed.Client, optional
        The default client if there is one, else this process.

    Returns
    -------
    xarray.Dataset

    Raises
    ------
    PlanError
        When ``memory`` does not hold one chunk of the source and one of the output.
    """
    from daskml_scale.engine.client import current_client
    from daskml_scale.spec.base import byte_count

    from .claim import claim
    from .run import run_stage

    source = files.normal(data) if isinstance(data, (str, os.PathLike)) else stores.source_of(data)
    if source is None:
        raise UsageError("data is no dataset as it lies in a store; write it first, or give its URL")
    url = files.normal(out)
    if not url.endswith(".zarr"):
        raise UsageError(f"out={os.fspath(out)!r}: name it {os.fspath(out)}.zarr; its ledger is written beside it")
    stage = RechunkStage(
        Path(url).stem,
        stores.beside(url, "ledger"),
        input=source,
        chunks=dict(chunks),
        shards=dict(shards or {}),
        memory=byte_count(memory) if isinstance(memory, str) else memory,
        variables=() if isinstance(data, (str, os.PathLike)) else tuple(sorted(map(str, data.variables))),
    )
    with claim(url, "rechunk", [("data", source)]):
        run_stage(stage, client=current_client() if client is None else client)
    return stores.open_dataset(url)
