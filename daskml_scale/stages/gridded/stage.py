"""The stage kind ``cube``: features of the cells of a cube, written as variables of a cube.

Pass one looks at the time coordinate; where there are anomalies, pass two takes the moments of every block
of time, pass three merges them into climatologies in the order of time. The last pass writes the blocks, each
read with the halo that lags and windows need. ``<stage>.climatology.zarr`` keeps what was learnt: a changed chunk
is read again, and nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import prod
from typing import Any

import numpy as np

from daskml_scale.engine.worker import WorkerContext
from daskml_scale.plan.records import Record, Written, after, digest, select
from daskml_scale.plan.units import Parts, Plan, Snapshot, Unit, Variable
from daskml_scale.spec.steps_grid import Coarsen, GridStep
from daskml_scale.stages.base import Input, Ref, StageBase, StageResult
from daskml_scale.stages.cubes import decoded, decoding
from daskml_scale.stages.inputs import require
from daskml_scale.storage import stores

from . import kernels
from .calendar import GROUPS, Calendar
from .kernels import Span
from .layout import COPY, MERGE, PART, Layout, settings

CODE = "cube-2"
"""Changes whenever the kernel's output changes for the same input."""
CALENDAR = "calendar"
"""Key of the unit that looks at the time coordinate."""


@dataclass(frozen=True)
class GridStage(StageBase):
    """See the module docstring.

    Attributes
    ----------
    input : str
        URL of the cube.
    steps, time, fit_where, coarsen, chunks, dtype :
        As of ``spec.cube_stages.CubeSpec``.
    """

    input: str
    steps: tuple[GridStep, ...]
    time: str = "time"
    fit_where: str | None = None
    coarsen: Coarsen | None = None
    chunks: Mapping[str, int] = field(default_factory=dict)
    dtype: str = "float32"
    kind: str = "cube"

    @property
    def learnt(self) -> str:
        """URL of the climatologies."""
        return stores.beside(self.out, "climatology.zarr")

    def reads(self) -> Mapping[str, Ref]:
        return {"input": Ref("dataset", self.input)}

    def plan(self, inputs: Mapping[str, Input], records: Mapping[str, Record]) -> Plan:
        cube = require(inputs["input"], self.input, self.name)
        layout = Layout.of(cube, self.steps, self.time, self.coarsen, self.chunks, self.dtype)
        first = self._calendar(layout, records)
        if first.units:
            return first
        done, months = first, records[CALENDAR].result["months"]
        for number in range(2 if layout.program.learnt else 0):
            units = layout.merges(records) if number else layout.parts(months)
            found = self._pass(layout, units, records, later=len(layout.grid) + (not number))
            # Places beside the output are told from it: it is made now, and filled by the last pass.
            found = replace(found, beside={self.learnt: layout.statistics()}, template=layout.template())
            if found.units:
                return after(done, found)
            done = after(done, found)
        return after(
            done, replace(self._pass(layout, layout.blocks(records, months), records), template=layout.template())
        )

    def _calendar(self, layout: Layout, records: Mapping[str, Record]) -> Plan:
        cube, learnt = layout.cube, len(layout.program.learnt)
        count = len(layout.grid)
        found = self._pass(layout, [(Unit(CALENDAR), digest(cube.ids.get(self.time, ())))], records)
        later = count * (1 + learnt) + learnt * len(layout.space) + len(layout.coords)
        # An input that is not written yet has no ids: a dry run, which wants the expected schema now.
        return replace(found, later=later, template=None if cube.known else layout.template())

    def _pass(self, layout: Layout, units: Any, records: Mapping[str, Record], later: int = 0) -> Plan:
        grid = layout.grid
        return select(
            units,
            Parts(code=CODE, parameters=settings(self), schema=digest(grid.dims, grid.blocks, self.dtype)),
            records,
            shared=replace(layout, cube=_bare(layout.cube, self.time)),
            grid=f"{grid} x {len(layout.program.outputs)} variables",
            memory=layout.memory(),
            rows=prod(grid.shape),
            later=later,
        )

    def kernel(self, unit: Unit, worker: WorkerContext) -> Any:
        layout: Layout = worker.shared
        verb = unit.key.split("/")[0]
        if verb == CALENDAR:
            calendar = self._look(layout)
            return {
                "learnt": int(calendar.fit.sum()),
                "months": calendar.identities(layout.grid.blocks[layout.axis]) if calendar.groups else [],
            }
        if verb == COPY:
            return Written(stores.write_region(self.out, 0, {unit.payload: self._coordinate(layout, unit.payload)}), 0)
        calendar = worker.cache.get(
            ("calendar", self.input, settings(self), layout.cube.url), lambda: self._look(layout)
        )
        if verb == PART:
            return self._written(self._moments(layout, unit.payload, calendar))
        if verb == MERGE:
            return self._written(self._merged(layout, unit.payload, calendar))
        region = layout.grid.region(unit.payload)

        def load(name: str, span: Sequence[Span]) -> np.ndarray:
            return self._load(layout, name, span)

        def means(name: str, kind: str, span: Sequence[Span]) -> np.ndarray:
            space = [part for axis, part in enumerate(span) if axis != layout.axis]
            return stores.read_region(self.learnt, f"{name}_{kind}", [(0, GROUPS[kind]), *space])

        made = layout.program.run(region, load, means, calendar.groups)
        with np.errstate(over="ignore"):
            arrays = {name: values.astype(self.dtype) for name, values in made.items()}
        written = stores.write_region(self.out, [start for start, _ in region], arrays)
        return Written(written, rows=prod(stop - start for start, stop in region))

    def _look(self, layout: Layout) -> Calendar:
        times = layout.cube.variables[self.time]
        raw = stores.read_region(self.input, self.time, [(0, times.shape[0])])
        kinds = tuple(sorted({kind for _, kind in layout.program.learnt}))
        return Calendar.of(self.time, raw, times.attrs, kinds, self.fit_where)

    def _load(self, layout: Layout, name: str, span: Sequence[Span]) -> np.ndarray:
        """Return a region of the grid as float64, decoded and coarsened."""
        raw = stores.read_region(self.input, name, list(layout.raw(span).values()))
        values = decoded(raw, _how(name, layout.cube.variables[name])).astype("float64")
        if self.coarsen is None:
            return values
        return kernels.coarsened(values, layout.factors, self.coarsen.stat)

    def _coordinate(self, layout: Layout, name: str) -> np.ndarray:
        factor = layout.factors[layout.program.dims.index(name)]
        size = layout.program.sizes[layout.program.dims.index(name)]
        raw = stores.read_region(self.input, name, [(0, size * factor)])
        return raw if factor == 1 else kernels.coarsened(raw.astype("float64"), (factor,), "mean")

    def _moments(self, layout: Layout, payload: Any, calendar: Calendar) -> tuple[list[int], Mapping[str, np.ndarray]]:
        name, kind, index = payload
        region = layout.grid.region(index)
        values = np.moveaxis(self._load(layout, name, region), layout.axis, 0)
        count, mean = kernels.moments(values, calendar.learnt(kind, *region[layout.axis]), layout.slots(kind))
        space = [start for axis, (start, _) in enumerate(region) if axis != layout.axis]
        start = [index[layout.axis], 0, *space]
        return start, {f"{name}_{kind}_count": count[None], f"{name}_{kind}_mean": mean[None]}

    def _merged(self, layout: Layout, payload: Any, calendar: Calendar) -> tuple[list[int], Mapping[str, np.ndarray]]:
        name, kind, index = payload
        region = list(layout.space.region(index))
        times, block = layout.program.sizes[layout.axis], layout.grid.blocks[layout.axis]

        def parts() -> Any:
            for at, start in enumerate(range(0, times, block)):
                groups = kernels.present(calendar.learnt(kind, start, min(times, start + block)))
                place = [(at, at + 1), (0, layout.slots(kind)), *region]
                names = (f"{name}_{kind}_count", f"{name}_{kind}_mean")
                yield groups, *(stores.read_region(self.learnt, each, place)[0] for each in names)

        shape = [stop - start for start, stop in region]
        means = kernels.climatology(parts(), GROUPS[kind], shape)
        return [0, *(start for start, _ in region)], {f"{name}_{kind}": means}

    def _written(self, made: tuple[list[int], Mapping[str, np.ndarray]]) -> Written:
        start, arrays = made
        # The ledger names objects by their place from the output.
        place = f"../{self.learnt.rpartition('/')[2]}"
        written = stores.write_region(self.learnt, start, arrays)
        return Written({f"{place}/{key}": stored for key, stored in written.items()}, rows=0)

    def finish(self, inputs: Mapping[str, Input], records: Mapping[str, Record]) -> StageResult:
        cube = require(inputs["input"], self.input, self.name)
        layout = Layout.of(cube, self.steps, self.time, self.coarsen, self.chunks, self.dtype)
        cells = prod(layout.grid.shape)
        return StageResult({"variables": list(layout.program.outputs), "cells": cells}, rows=cells)


def _bare(cube: Snapshot, time: str) -> Snapshot:
    """Return a snapshot as kernels need it; its ``url`` tells one time coordinate from another."""
    return replace(cube, url=digest(cube.ids.get(time, ())), ids={})


def _how(name: str, variable: Variable) -> dict[str, Any]:
    """Return how the stored values of a variable become numbers (CF)."""
    attrs = dict(variable.attrs)
    fill = attrs.get("_FillValue")
    if isinstance(fill, str):  # as xarray writes it
        from xarray.backends.zarr import FillValueCoder

        attrs["_FillValue"] = FillValueCoder.decode(fill, np.dtype(variable.dtype))
    return decoding(name, np.dtype(variable.dtype), attrs)
