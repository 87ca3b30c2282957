"""Ingest of gridded files: NetCDF and Zarr become one Zarr dataset with the chunks that are asked for.

Read through xarray, by the workers themselves and only the region of a chunk at a time; several files follow one
another along one dimension. A first pass looks at every file's schema and at what it shares with the others (types,
sizes, units, coordinates): what does not fit is refused with both files before anything is written. Packed values are
unpacked, missing ones are NaN, times become int64 nanoseconds since 1970, so files of different reference dates fit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from math import prod
from typing import Any

import numpy as np

from daskml_scale.engine.worker import WorkerContext
from daskml_scale.errors import PlanError, SpecError
from daskml_scale.plan.grids import Grid
from daskml_scale.plan.records import Record, Written, after, digest, select
from daskml_scale.plan.units import Parts, Plan, Template, Unit, Variable
from daskml_scale.spec.explain import unknown
from daskml_scale.storage import files, stores

from .base import Input, Ref, StageBase, StageResult
from .csv_files import shown
from .file_patterns import is_pattern, sources
from .grid_files import Cube, check_fit, opened, scanned, size_along, still, values_of
from .ingest_history import named

CODE = "ingest-grid-2"
"""Changes whenever the kernel's output changes for the same input."""


@dataclass(frozen=True)
class Joined:
    """Sources one after the other.

    Attributes
    ----------
    starts : tuple of int
        Where each begins along ``concat``, and where the last ends.
    picked : tuple of int, optional
        Of a sample: the chunks along ``along`` that are read.
    """

    cubes: tuple[Cube, ...]
    concat: str
    starts: tuple[int, ...]
    targets: Mapping[str, Variable]
    along: str = ""
    length: int = 0
    picked: tuple[int, ...] = ()

    def grid(self, name: str) -> Grid:
        target = self.targets[name]
        return Grid(target.dims, target.shape, target.chunks)

    def region(self, name: str, index: Sequence[int]) -> list[tuple[int, int]]:
        """Return the elements of the sources, as if they were one, that a block is made of."""
        found = list(self.grid(name).region(index))
        if self.picked and self.along in self.targets[name].dims:
            axis = self.targets[name].dims.index(self.along)
            start, stop = found[axis]
            first = self.picked[index[axis]] * self.length
            found[axis] = (first, first + stop - start)
        return found

    def parts(self, name: str, region: Sequence[tuple[int, int]]) -> list[tuple[int, list[tuple[int, int]]]]:
        """Return (source, its own region) of the sources that a region lies in."""
        dims = self.targets[name].dims
        if self.concat not in dims:
            return [(0, list(region))]
        axis = dims.index(self.concat)
        start, stop = region[axis]
        found = []
        for number, (first, last) in enumerate(pairwise(self.starts)):
            if first < stop and start < last:
                own = list(region)
                own[axis] = (max(start, first) - first, min(stop, last) - first)
                found.append((number, own))
        return found

    def reads(self, name: str, region: Sequence[tuple[int, int]]) -> str:
        """Return the digest of what a region is made of."""
        found: list[Any] = []
        for number, own in self.parts(name, region):
            cube = self.cubes[number]
            if cube.look is not None and name in cube.look.ids:
                place = dict(zip(self.targets[name].dims, own, strict=True))
                found.append([cube.look.region_ids(name, place), own])
            else:
                found.append([cube.source.digest, own])
        return digest(found)


@dataclass(frozen=True)
class CubeIngestStage(StageBase):
    """See the module docstring.

    Attributes
    ----------
    sources : tuple of str
        Paths, patterns and URLs of NetCDF files and Zarr datasets.
    chunks : mapping of dimension to int
        Of the output; -1, and a dimension that is not named, is the whole dimension.
    concat : str
        Dimension along which the sources follow one another; empty for one source.
    """

    sources: tuple[str, ...]
    origin: str
    chunks: Mapping[str, int]
    concat: str = ""
    columns: tuple[str, ...] | None = None
    sample: float | None = None
    seed: int = 0
    format: str = ""
    kind: str = "ingest"

    def places(self) -> list[str]:
        """Return the URLs of all sources."""
        return [url for entry in self.sources for url in _urls(entry)]

    def check(self) -> None:
        """Check that there are sources, and no more than one where nothing is said of how they follow each other."""
        count = len(self.places())
        if not count:
            raise PlanError(f"{self.name}: there is no {self.origin}; check `source`")
        if count > 1 and not self.concat:
            raise PlanError(
                f"{self.name}: {count} sources, and nothing says how they follow one another; give `concat: DIMENSION`"
            )

    def reads(self) -> Mapping[str, Ref]:
        return {f"sources[{number}]": Ref("cubes", url) for number, url in enumerate(self.sources)}

    def plan(self, inputs: Mapping[str, Input], records: Mapping[str, Record]) -> Plan:
        cubes = self._cubes(inputs)
        done = select(
            [(Unit(f"scan/{cube.name}", number), cube.source.digest) for number, cube in enumerate(cubes)],
            Parts(code=CODE, parameters=digest(self.columns, self.concat)),
            records, shared=cubes, later=1, grid=f"schemas of {len(cubes):,} sources",
        )  # fmt: skip
        if done.units:
            return done
        joined = self._joined(cubes, records)
        units = [
            (Unit(f"write/{name}/{'.'.join(f'{at:08d}' for at in index) or '0'}", index, prod(target.chunks)), read)
            for name, target in joined.targets.items()
            for index in joined.grid(name).indices()
            for read in [joined.reads(name, joined.region(name, index))]
        ]
        layout = [(name, one.dtype, one.dims, one.chunks, dict(one.attrs)) for name, one in joined.targets.items()]
        rows = self._rows(joined)
        plan = select(
            units, Parts(code=CODE, parameters=digest(self.columns, self.concat, self.sample, self.seed),
                         schema=digest(layout)),
            records, shared=joined,
            template=Template(rows[0], rows[1], joined.targets,
                              {**cubes[0].attrs, **joined.cubes[0].attrs, "source": self.origin, "derived_from": {}}),
            grid=f"{len(units):,} chunks of {len(joined.targets)} variables",
            memory=max((3 * prod(one.chunks) * one.itemsize for one in joined.targets.values()), default=0),
            rows=rows[1],
        )  # fmt: skip
        return after(done, plan)

    def _rows(self, joined: Joined) -> tuple[str, int]:
        dim = self.concat or next(iter(self.chunks))
        size = next(one.shape[one.dims.index(dim)] for one in joined.targets.values() if dim in one.dims)
        return dim, size

    def _cubes(self, inputs: Mapping[str, Input]) -> tuple[Cube, ...]:
        entries: list[Mapping[str, Any]] = []
        for number, url in enumerate(self.sources):
            entry = inputs[f"sources[{number}]"]
            if not isinstance(entry, Mapping) or not entry:
                what = "no file matches" if is_pattern(url) else "there is no"
                raise PlanError(f"{self.name}: {what} {shown(url)}; check `source`")
            entries.append(entry)
        looks = {source.url: look for entry in entries for source, look in entry.values()}
        every, _ = named([{name: source for name, (source, _) in entry.items()} for entry in entries])
        if len(every) > 1 and not self.concat:
            raise PlanError(
                f"{self.name}: {len(every)} sources, and nothing says how they follow one another; "
                "give `concat: DIMENSION`"
            )
        return tuple(Cube(name, source, looks[source.url]) for name, source in every.items())

    def _joined(self, cubes: Sequence[Cube], records: Mapping[str, Record]) -> Joined:
        found = []
        for cube in cubes:
            result = records[f"scan/{cube.name}"].result
            found.append(replace(cube, variables=result["variables"], attrs=result["attrs"]))
        first = found[0]
        self._check_names(first)
        for before, cube in pairwise(found):
            check_fit(first, cube, before, self.concat)
        lengths = [size_along(cube, self.concat) for cube in found] if self.concat else [0]
        starts = tuple(np.cumsum([0, *lengths]).tolist())
        targets = {name: self._target(one, starts[-1]) for name, one in first.variables.items()}
        joined = Joined(tuple(found), self.concat, starts, targets)
        return joined if self.sample is None else self._sampled(joined)

    def _check_names(self, first: Cube) -> None:
        dims = {dim: None for one in first.variables.values() for dim in one["dims"]}
        for path, name in [
            *((f"chunks.{dim}", dim) for dim in self.chunks),
            ("concat", self.concat or next(iter(dims))),
        ]:
            if name not in dims:
                raise SpecError(unknown("dimension", name, tuple(dims)), file=self.origin, path=path)

    def _target(self, one: Mapping[str, Any], whole: int) -> Variable:
        dims = tuple(one["dims"])
        shape = tuple(whole if dim == self.concat else size for dim, size in zip(dims, one["shape"], strict=True))
        wanted = (self.chunks.get(dim, -1) for dim in dims)
        chunks = tuple(
            max(1, size if chunk < 0 else min(chunk, size)) for size, chunk in zip(shape, wanted, strict=True)
        )
        fill = one["attrs"].get("_FillValue")
        return Variable(one["dtype"], dims, shape, chunks, None, dict(one["attrs"]), fill)

    def _sampled(self, joined: Joined) -> Joined:
        along = self.concat or next(iter(self.chunks))
        length, size = next(
            (one.chunks[axis], one.shape[axis])
            for one in joined.targets.values()
            if along in one.dims
            for axis in [one.dims.index(along)]
        )
        count = -(-size // length)
        wanted = max(1, round((self.sample or 1) * count))
        ranked = sorted(range(count), key=lambda number: digest(self.seed, number))
        picked = tuple(sorted(ranked[:wanted]))
        rows = sum(min(length, size - number * length) for number in picked)
        targets = {
            name: replace(
                one, shape=tuple(rows if dim == along else size for dim, size in zip(one.dims, one.shape, strict=True))
            )
            for name, one in joined.targets.items()
        }
        return replace(joined, targets=targets, along=along, length=length, picked=picked)

    def kernel(self, unit: Unit, worker: WorkerContext) -> Any:
        if unit.key.startswith("scan/"):
            cube = worker.shared[unit.payload]
            with self._opened(cube) as ds:
                return scanned(ds, cube, self.columns, self.concat)
        name, joined = unit.key.split("/", 1)[1].rpartition("/")[0], worker.shared
        region = joined.region(name, unit.payload)
        target = joined.targets[name]
        blocks = []
        for number, own in joined.parts(name, region):
            cube = joined.cubes[number]
            with self._opened(cube) as ds:
                blocks.append(values_of(ds[name], own, target))
            still(cube.source)
        axis = target.dims.index(joined.concat) if len(blocks) > 1 else 0
        values = np.concatenate(blocks, axis=axis) if len(blocks) > 1 else blocks[0]
        origin = [start for start, _ in joined.grid(name).region(unit.payload)]
        return Written(stores.write_region(self.out, origin, {name: values}), rows=0)

    def _opened(self, cube: Cube) -> Any:
        still(cube.source)
        return opened(cube.source.url, self.format)

    def finish(self, inputs: Mapping[str, Input], records: Mapping[str, Record]) -> StageResult:
        joined = self._joined(self._cubes(inputs), records)
        return StageResult({"variables": sorted(joined.targets)}, rows=self._rows(joined)[1])


def _urls(entry: str) -> list[str]:
    if is_pattern(entry):
        return [one.url for one in sources(entry, quick=True).values()]
    return [entry] if files.stat(entry) is not None or files.names(entry) else []
