"""The stage kind ``generate``: a table or a cube from a Python function, region by region.

The function is called with a region (a mapping of dimension to slice) and returns an xarray Dataset of it.
A call with empty slices tells the schema; a variable that lacks a dimension that is split is written by a
unit of its own, from a call with that dimension empty. A region is made again when the function or its
options change.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from daskml_scale.engine.worker import WorkerContext
from daskml_scale.errors import DaskMLError, PlanError
from daskml_scale.plan.grids import Grid, block_key
from daskml_scale.plan.objects import coordinate_chunk
from daskml_scale.plan.records import Record, Written, after, digest, select
from daskml_scale.plan.units import Parts, Plan, Template, Unit, Variable
from daskml_scale.spec.expressions import Coded
from daskml_scale.storage import stores, tables

from .base import Input, Ref, StageBase, StageResult
from .functions import Sent, code_digest, find

CODE = "generate-1"
"""Changes whenever the kernel's output changes for the same input."""
SCAN = "scan"
"""Key of the unit that finds the schema."""
WHOLE = -1


@dataclass(frozen=True)
class GenerateStage(StageBase):
    """See the module docstring.

    Attributes
    ----------
    function : str
        ``module:name``.
    folders : tuple of Path
        Where modules of the user are looked for, before the installed ones.
    dims, chunks, options :
        As of ``spec.cube_stages.GenerateSpec``.
    """

    function: str
    folders: tuple[Path, ...]
    dims: Mapping[str, int]
    chunks: Mapping[str, int] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    kind: str = "generate"

    def reads(self) -> Mapping[str, Ref]:
        return {}

    @property
    def grid(self) -> Grid:
        """Blocks of the units."""
        blocks = []
        for dim, size in self.dims.items():
            wanted = self.chunks.get(dim, WHOLE)
            blocks.append(max(1, size if wanted == WHOLE else min(wanted, size)))
        return Grid(tuple(self.dims), tuple(self.dims.values()), tuple(blocks))

    def plan(self, inputs: Mapping[str, Input], records: Mapping[str, Record]) -> Plan:
        function, grid = find(self.function, self.folders), self.grid
        parts = Parts(code=digest(CODE, code_digest(function).hex()), parameters=digest(self.options, list(self.dims)))
        sent = Sent(function, self.folders)
        scan = select([(Unit(SCAN), "")], parts, records, grid=f"{grid}", shared=(sent, {}), later=len(grid))
        if scan.units:
            return scan
        schema = records[SCAN].result
        variables = self._variables(schema["variables"], grid)
        template = Template(grid.dims[0], grid.shape[0], variables, schema["attrs"])
        cells = prod(grid.blocks)
        return after(
            scan,
            select(
                self._units(variables, grid),
                Parts(parts.code, "", parts.parameters, digest(schema["variables"], grid.blocks)),
                records,
                shared=(sent, variables),
                template=template,
                grid=f"{grid} x {len(variables)} variables",
                memory=3 * sum(cells * found.itemsize for found in variables.values()),
                rows=grid.shape[0] if len(grid.dims) == 1 else prod(grid.shape),
            ),
        )

    def _variables(self, schema: Mapping[str, Any], grid: Grid) -> dict[str, Variable]:
        sizes, blocks = dict(self.dims), dict(zip(grid.dims, grid.blocks, strict=True))
        found = {}
        for name, (dims, kind) in schema.items():
            shape = tuple(sizes[dim] for dim in dims)
            if len(dims) == len(sizes):
                chunks = tuple(blocks[dim] for dim in dims)
            else:
                chunks = tuple(coordinate_chunk(sizes[dim], blocks[dim]) for dim in dims)
            found[name] = Variable(kind["dtype"], tuple(dims), shape, chunks, None, kind["attrs"], kind["fill"])
        return found

    def _units(self, variables: Mapping[str, Variable], grid: Grid) -> Iterator[tuple[Unit, str]]:
        prefix = "rows" if len(grid.dims) == 1 else "block"
        for index in grid.indices():
            region = grid.region(index)
            yield Unit(block_key(index, prefix), index, prod(b - a for a, b in region)), digest(region)
        for name, found in variables.items():
            if len(found.dims) < len(grid.dims):
                yield Unit(f"part/{name}", name, max(1, prod(found.shape))), digest(found.shape)

    def kernel(self, unit: Unit, worker: WorkerContext) -> Any:
        sent, variables = worker.shared
        if unit.key == SCAN:
            return self._schema(sent)
        grid = self.grid
        if unit.key.startswith("part/"):
            wanted = [unit.payload]
            own = variables[unit.payload].dims
            region = {dim: (0, size if dim in own else 0) for dim, size in self.dims.items()}
        else:
            wanted = [name for name, found in variables.items() if len(found.dims) == len(grid.dims)]
            region = dict(zip(grid.dims, grid.region(unit.payload), strict=True))
        made = self._call(sent, region)
        arrays = {name: self._encoded(made, name, variables[name], region) for name in wanted}
        start = [first for dim, (first, _) in region.items() if dim in variables[wanted[0]].dims]
        rows = 0 if unit.key.startswith("part/") else prod(last - first for first, last in region.values())
        return Written(stores.write_region(self.out, start, arrays), rows=rows)

    def _call(self, sent: Any, region: Mapping[str, tuple[int, int]]) -> Any:
        from functools import partial

        found = partial(getattr(sent, "function", sent), **self.options)(
            {dim: slice(*part) for dim, part in region.items()}
        )
        if not hasattr(found, "data_vars"):
            raise DaskMLError(
                f"{self.function} returned a {type(found).__name__}; return an xarray Dataset of the region"
            )
        return found

    def _schema(self, sent: Any) -> dict[str, Any]:
        made = self._call(sent, dict.fromkeys(self.dims, (0, 0)))
        found: dict[str, Any] = {}
        for name, variable in made.variables.items():
            strange = [dim for dim in variable.dims if dim not in self.dims]
            if strange or not variable.dims:
                raise PlanError(
                    f"{self.function}: variable {name!r} has the dimensions {variable.dims}; name them in dims:, which "
                    f"has {', '.join(self.dims)}"
                )
            if [dim for dim in self.dims if dim in variable.dims] != list(variable.dims):
                raise PlanError(f"{self.function}: variable {name!r} has its dimensions in another order than dims:")
            kind = _kind(f"{self.function}: variable {name!r}", variable)
            found[str(name)] = (list(variable.dims), asdict(kind))
        if not any(len(dims) == len(self.dims) for dims, _ in found.values()):
            raise PlanError(f"{self.function}: no variable has all dimensions {', '.join(self.dims)}")
        return {"variables": found, "attrs": dict(made.attrs)}

    def _encoded(self, made: Any, name: str, variable: Variable, region: Mapping[str, tuple[int, int]]) -> np.ndarray:
        """Return the stored form of what the function made."""
        if name not in made.variables:
            raise DaskMLError(f"{self.function}: variable {name!r} is missing for the region {dict(region)}")
        found = made.variables[name]
        shape = tuple(region[dim][1] - region[dim][0] for dim in variable.dims)
        kind = _kind(f"{self.function}: variable {name!r}", found)
        if found.shape != shape or (kind.dtype, dict(kind.attrs)) != (variable.dtype, dict(variable.attrs)):
            raise DaskMLError(
                f"{self.function}: variable {name!r} is {kind.dtype} of shape {found.shape} in region {dict(region)}, "
                f"expected {variable.dtype} of shape {shape}, with the same attributes everywhere"
            )
        values = np.asarray(found.values)
        return tables.encode(values, kind) if values.dtype.kind == "M" else values.astype(kind.dtype)

    def finish(self, inputs: Mapping[str, Input], records: Mapping[str, Record]) -> StageResult:
        rows = sum(record.rows for record in records.values())
        return StageResult({"rows": rows}, rows=rows)


def _kind(what: str, variable: Any) -> tables.ColumnType:
    """Return how a variable is stored; by its type alone, so that all regions agree."""
    dtype, attrs = variable.dtype, dict(variable.attrs)
    if dtype.kind == "M":
        unit = "seconds" if np.datetime_data(dtype)[0] == "s" else "nanoseconds"
        own = {"units": f"{unit} since 1970-01-01", "calendar": "proleptic_gregorian", "_FillValue": tables.NO_TIME}
        return tables.ColumnType("int64", {**attrs, **own}, tables.NO_TIME)
    if "categories" in attrs and dtype.kind in "iu":
        labels: Sequence[str] = attrs["categories"]
        flags = tables.column_type(Coded(np.empty(0, "int32"), tuple(labels))).attrs
        return tables.ColumnType("int32", {**attrs, **flags}, -1)
    if dtype.kind in "iu":
        return tables.ColumnType("int64", attrs)
    if dtype.kind == "b":
        return tables.ColumnType("float64", attrs)
    if dtype.kind == "f":
        return tables.ColumnType(dtype.name, attrs)
    raise PlanError(f"{what} is of type {dtype}; return numbers, times, or codes with the attribute categories")
