"""Predict cells of an N-dimensional dataset in a store with a saved model; stacked and unstacked block by block.

A unit is one stored object of the output, which lies on the grid of the largest input. A cell of which all
inputs are missing (the sea in a land cube) stays missing, with status 0, and is no bad cell. Dimension
coordinates are copied. A window needs the cells around a block: a changed chunk runs its neighbours too.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Any

import numpy as np

from daskml_scale.artifacts.bundle import Bundle, load_model
from daskml_scale.artifacts.manifest import MANIFEST, read_manifest
from daskml_scale.engine.worker import WorkerContext
from daskml_scale.errors import PlanError
from daskml_scale.plan.grids import Grid, Read, common_grid, grid_units
from daskml_scale.plan.memory import Need
from daskml_scale.plan.objects import coordinate_chunk
from daskml_scale.plan.records import Record, Written, after, digest, select
from daskml_scale.plan.units import FileId, Parts, Plan, Reads, Snapshot, Template, Unit, Variable
from daskml_scale.storage import files, stores

from .base import Input, Ref, StageBase, StageResult
from .cubes import Cells, decoded, floats
from .functions import Sent, asked
from .inputs import require
from .isolate import GIVE_UP
from .model_output import STATUS_ATTRS, Output
from .optimise import ROWS
from .outputs import bad_counts, concluded
from .patches import Patches
from .predict_cells import predict_cells
from .predict_patches import predict_patches
from .scoring import Model
from .trial import TRIAL, faster, fewer_columns, trial, with_trial

CODE = "predict-cube-1"
"""Changes whenever the kernel's output changes for the same input."""
BLOCK, COPY = "block", "coordinate"
"""Prefixes of the units that predict, and of those that copy a coordinate."""


@dataclass(frozen=True)
class CubeStage(StageBase):
    """See the module docstring.

    Attributes
    ----------
    input : str
        URL of the dataset.
    bundle : str
        URL of the folder of a bundle without a recipe.
    cells : Cells
    decoding : mapping of variable to mapping
        As ``cubes.decoding`` gives it.
    method, function, output, max_bad, on_error, trusted :
        As of ``PredictStage``.
    dtype : str
        Of numbers in the output.
    patches : Patches, optional
        For a model that takes patches in place of rows.
    resources, optimise :
        As of ``PredictStage``.
    """

    input: str
    bundle: str
    cells: Cells
    decoding: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    method: str = "predict"
    function: Sent | None = None
    output: Mapping[str, Any] | None = None
    dtype: str = "float32"
    max_bad: int = 0
    on_error: str = "quarantine"
    trusted: tuple[str, ...] = ()
    patches: Patches | None = None
    resources: Mapping[str, float] | None = None
    optimise: tuple[str, ...] = ()
    kind: str = "predict"

    @property
    def around(self) -> Mapping[str, int]:
        """Cells to either side of a block that are read too."""
        return self.cells.window if self.patches is None else self.patches.halo

    def reads(self) -> Mapping[str, Ref]:
        return {"input": Ref("dataset", self.input), "bundle": Ref("file", files.join(self.bundle, MANIFEST))}

    def plan(self, inputs: Mapping[str, Input], records: Mapping[str, Record]) -> Plan:
        cube = require(inputs["input"], self.input, self.name)
        if not isinstance(inputs["bundle"], FileId):
            raise PlanError(f"{self.name}: {self.bundle} does not exist; train the model first, or check the path")
        bundle = Bundle(self.bundle, read_manifest(self.bundle), self.trusted)
        output = Output.of("" if self.function else self.method, bundle.schema, self.dtype, self.output)
        if self.patches is not None and output.small:
            raise PlanError(f"{self.name}: a model of patches gives one value per cell; it gives {output.small}")
        model = Model(bundle, self.method, output, self.function)
        variables, copied = self._variables(cube, output), self._copied(cube, output)
        grid = common_grid({name: variables[name] for name in (output.name, "status")})
        template = self._template(cube, variables | copied, output, model)
        written = {name: variables[name] for name in (output.name, "status")}
        first, cells = self._first(cube, model, grid, records), self.cells
        if first is not None:
            if first.units:
                return replace(first, later=len(grid) + len(copied), template=template)
            found = records[TRIAL].result
            model = faster(model, found, self.out)
            cells = cells.keeping(bundle.schema["uses"]) if fewer_columns(found) else cells
        need = Need(grid, self._reads(cube, cells), written, self._factor, model.nbytes)
        plan = select(
            chain(
                self._blocks_of(grid, self._reads(cube, cells), cells),
                self._copies(cube, copied),
            ),
            Parts(
                code=CODE,
                model=digest(bundle.sha256, "", *([model.exported] if model.exported else [])),
                parameters=asked(self.method, self.function),
                schema=digest(output, [(name, v.dims, v.chunks, v.shards) for name, v in sorted(variables.items())]),
            ),
            records,
            shared=(model, grid, cells),
            template=template,
            grid=str(grid),
            memory=need.total,
            need=need,
            rows=int(np.prod(grid.shape)) // output.size,
        )
        if plan.units:
            load_model(self.bundle, trusted=self.trusted)  # refuse an altered or untrusted file before any unit runs
        return plan if first is None else after(first, plan)

    @property
    def _factor(self) -> float:
        """Bytes per byte that is read: the matrix, its float64 copy and what the model makes of it."""
        return 24.0 * max(1, self.cells.width // len(self.cells.inputs))

    def _reads(self, cube: Snapshot, cells: Cells) -> list[Read]:
        around = {dim: (size, size) for dim, size in self.around.items()}
        return [Read(cube, (name,), around) for name, _ in cells.inputs]

    def _blocks_of(self, grid: Grid, reads: Sequence[Read], cells: Cells) -> Iterator[tuple[Unit, Reads]]:
        # What lies around a block is read by several units: each of them would have to identify it.
        return grid_units(grid, reads, BLOCK, self._made_by(cells), later=not self.around)

    def _first(self, cube: Snapshot, model: Model, grid: Grid, records: Mapping[str, Record]) -> Plan | None:
        """Return the plan of the unit that tries faster ways on the first block; ``None`` where none is wanted."""
        if not self.optimise or not len(grid):
            return None
        load_model(self.bundle, trusted=self.trusted)
        reads = self._reads(cube, self.cells)
        unit, read = next(self._blocks_of(grid, reads, self.cells))
        parts = Parts(
            code=CODE,
            model=digest(model.bundle.sha256),
            parameters=digest(asked(self.method, self.function), self.optimise),
        )
        need = Need(grid, reads, {}, self._factor, model.nbytes)
        return select(
            [(Unit(TRIAL, unit.payload), read)], parts, records, shared=(model, grid, self.cells),
            grid=f"a trial, then {grid}", memory=need.total, need=need,
        )  # fmt: skip

    def _try(self, unit: Unit, worker: WorkerContext) -> list[dict[str, Any]]:
        """Try the faster ways on cells of the first block."""
        model, grid, cells = worker.shared
        region = grid.region(unit.payload)[: len(cells.dims)]
        shape, dtype = tuple(stop - start for start, stop in region), str(model.bundle.schema["dtype"])
        X = cells.matrix(self._blocks(cells, grid, region), shape, dtype)
        some = np.flatnonzero(np.isfinite(X).all(axis=1))[:ROWS]
        used = model.bundle.schema.get("uses")
        less = cells.keeping(used) if used is not None else cells

        def fewer() -> np.ndarray:
            return np.asarray(less.matrix(self._blocks(less, grid, region), shape, dtype)[some])

        return trial(self.optimise, model, X[some], self.out, worker, fewer)

    def _made_by(self, cells: Cells) -> str:
        return digest(cells, self.decoding, *([] if self.patches is None else [self.patches]))

    def _reference(self, cube: Snapshot) -> Variable:
        """Return the input whose grid the output follows."""
        name = next(name for name, dims in self.cells.inputs if dims == self.cells.dims)
        return cube.variables[name]

    def _variables(self, cube: Snapshot, output: Output) -> dict[str, Variable]:
        """Return the variables that units write, and the labels of the second dimension."""
        like, wide = self._reference(cube), output.shape
        taken = output.names.intersection(self.cells.dims)
        if taken:
            raise PlanError(
                f"{min(taken)!r} is a variable of these predictions and a dimension of {self.input}; rename one"
            )
        found = output.variables("cell", 1, 1, 1)
        shards = like.shards
        main = found[output.name]
        found[output.name] = Variable(
            main.dtype, (*like.dims, *main.dims[1:]), (*like.shape, *wide), (*like.chunks, *wide),
            None if shards is None else (*shards, *wide), main.attrs, main.fill, main.codec,
        )  # fmt: skip
        found["status"] = Variable("uint8", like.dims, like.shape, like.chunks, shards, STATUS_ATTRS)
        return found

    def _copied(self, cube: Snapshot, output: Output) -> dict[str, Variable]:
        """Return the dimension coordinates, in objects that stay the same when the cube grows."""
        blocks = dict(zip(self.cells.dims, self._reference(cube).write_unit, strict=True))
        own = {name: cube.variables[name] for name in self.cells.dims if name in cube.variables}
        return {
            name: replace(found, chunks=(coordinate_chunk(found.shape[0], blocks[name]),), shards=None, codec="")
            for name, found in own.items()
            if found.dims == (name,) and found.shape[0]
        }

    def _copies(self, cube: Snapshot, copied: Mapping[str, Variable]) -> Iterator[tuple[Unit, Reads]]:
        for name in copied:
            yield Unit(f"{COPY}/{name}", name), digest(cube.ids.get(name, ()))

    def _template(self, cube: Snapshot, variables: Mapping[str, Variable], output: Output, model: Model) -> Template:
        first = self.cells.dims[0]
        rows = dict(zip(self.cells.dims, self._reference(cube).shape, strict=True))[first]
        return Template(first, rows, dict(variables), model.attrs, output.small)

    def kernel(self, unit: Unit, worker: WorkerContext) -> Any:
        if unit.key.startswith(f"{COPY}/"):
            name = unit.payload
            values = stores.read_region(self.input, name, [(0, stores.schema(self.input, name).shape[0])])
            return Written(stores.write_region(self.out, 0, {name: values}), rows=0)
        if unit.key == TRIAL:
            return self._try(unit, worker)
        model, grid, cells = worker.shared
        region = grid.region(unit.payload)[: len(cells.dims)]
        shape = tuple(stop - start for start, stop in region)
        blocks = worker.read(unit, lambda unit: self._read(unit, cells, grid))
        limit = 0 if self.on_error == "raise" else max(self.max_bad, GIVE_UP)
        dtype = str(model.bundle.schema["dtype"])
        if self.patches is not None:
            wide = [size + 2 * self.around.get(dim, 0) for dim, size in zip(cells.dims, shape, strict=True)]
            whole = [np.broadcast_to(cells.spread(place, block), wide) for place, block in enumerate(blocks)]
            values, status, bad = predict_patches(model, self.patches, whole, shape, worker, limit)
        else:
            X = cells.matrix(blocks, shape, dtype)
            values, status, bad = predict_cells(model, X, worker, limit, cells.read_columns)
        arrays = {
            model.output.name: values.reshape(*shape, *model.output.shape),
            "status": status.reshape(shape),
        }
        start = [first for first, _ in region]
        reasons = [(cells.place(start, shape, row), code, text) for row, code, text in bad.first(0)]
        found = bad_counts(status, reasons) if bad.status else None
        rows = int(np.prod(shape))
        return worker.write(lambda: Written(stores.write_region(self.out, start, arrays), rows=rows, result=found))

    def _read(self, unit: Unit, cells: Cells, grid: Grid) -> list[np.ndarray]:
        if unit.key.startswith(f"{COPY}/"):
            return []  # read by its own unit
        return self._blocks(cells, grid, grid.region(unit.payload)[: len(cells.dims)])

    def _blocks(self, cells: Cells, grid: Grid, region: Any) -> list[np.ndarray]:
        """Return the values of each input around a block; NaN beyond the edge of the cube."""
        span = dict(zip(cells.dims, region, strict=True))
        sizes = dict(zip(grid.dims, grid.shape, strict=True))
        found = []
        for name, dims in cells.inputs:
            part, pad = [], []
            for dim in dims:
                around, (start, stop) = self.around.get(dim, 0), span[dim]
                first, last = max(0, start - around), min(sizes[dim], stop + around)
                part.append((first, last))
                pad.append((first - (start - around), stop + around - last))
            values = decoded(stores.read_region(self.input, name, part), self.decoding.get(name, {}))
            found.append(self._padded(values, pad) if any(map(any, pad)) else values)
        return found

    def _padded(self, values: np.ndarray, pad: list[tuple[int, int]]) -> np.ndarray:
        """Return values with cells beyond the edge: missing, or for patches those of the edge."""
        if self.patches is not None:
            return np.pad(values, pad, mode="edge")
        return np.pad(floats(values), pad, constant_values=np.nan)

    def finish(self, inputs: Mapping[str, Input], records: Mapping[str, Record]) -> StageResult:
        blocks = [record for key, record in sorted(records.items()) if key.startswith(f"{BLOCK}/")]
        cells = sum(record.rows for record in blocks)
        result = concluded(self.name, self.method, cells, [record.result for record in blocks], self.max_bad, "cell")
        return with_trial(result, self.name, records)
