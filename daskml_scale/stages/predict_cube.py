"""Predict cells of an N-dimensional dataset in a store with a saved model; stacked and unstacked block by block.

A unit is one stored object of the output, which lies on the grid of the largest input. A cell of which all
inputs are missing (the sea in a land cube) stays missing, with status 0, and is no bad cell. Dimension
coordinates are copied. A window needs the cells around a block: a changed chunk runs its neighbours too.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import numpy as np

from daskml_scale.artifacts.bundle import Bundle, load_model
from daskml_scale.artifacts.manifest import MANIFEST, read_manifest
from daskml_scale.engine.worker import WorkerContext
from daskml_scale.errors import PlanError
from daskml_scale.plan.grids import Grid, Read, common_grid, grid_units
from daskml_scale.plan.memory import Need
from daskml_scale.plan.records import Record, Written, digest, select
from daskml_scale.plan.units import FileId, Parts, Plan, Snapshot, Template, Unit, Variable
from daskml_scale.storage import files, stores

from .base import Input, Ref, StageBase, StageResult
from .cubes import Cells, decoded
from .features.planner import require
from .functions import Sent, code_digest
from .isolate import GIVE_UP, BadRows
from .model_output import STATUS_ATTRS, Output
from .outputs import bad_counts, concluded
from .scoring import Model

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
    kind: str = "predict"

    def reads(self) -> Mapping[str, Ref]:
        return {"input": Ref("dataset", self.input), "bundle": Ref("file", files.join(self.bundle, MANIFEST))}

    def plan(self, inputs: Mapping[str, Input], records: Mapping[str, Record]) -> Plan:
        cube = require(inputs["input"], self.input, self.name)
        if not isinstance(inputs["bundle"], FileId):
            raise PlanError(f"{self.name}: {self.bundle} does not exist; train the model first, or check the path")
        bundle = Bundle(self.bundle, read_manifest(self.bundle), self.trusted)
        output = Output.of("" if self.function else self.method, bundle.schema, self.dtype, self.output)
        model = Model(bundle, self.method, output, self.function)
        variables, copied = self._variables(cube, output), self._copied(cube, output)
        grid = common_grid({name: variables[name] for name in (output.name, "status")})
        around = {dim: (size, size) for dim, size in self.cells.window.items()}
        reads = [Read(cube, (name,), around) for name, _ in self.cells.inputs]
        # The matrix, its float64 copy and what the model makes of it, for each value that is read.
        factor = 24.0 * max(1, self.cells.width // len(self.cells.inputs))
        need = Need(grid, reads, {name: variables[name] for name in (output.name, "status")}, factor, model.nbytes)
        plan = select(
            chain(
                grid_units(grid, reads, BLOCK, made_by=digest(self.cells, self.decoding)), self._copies(cube, copied)
            ),
            Parts(
                code=CODE,
                model=digest(bundle.sha256, ""),
                parameters=digest(
                    self.method, *([] if self.function is None else [code_digest(self.function.function).hex()])
                ),
                schema=digest(output, [(name, v.dims, v.chunks, v.shards) for name, v in sorted(variables.items())]),
            ),
            records,
            shared=(model, grid),
            template=self._template(cube, variables | copied, output, model),
            grid=str(grid),
            memory=need.total,
            need=need,
            rows=int(np.prod(grid.shape)) // max(1, len(output.columns)),
        )
        if plan.units:
            load_model(self.bundle, trusted=self.trusted)  # refuse an altered or untrusted file before any unit runs
        return plan

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
        shards = None if like.shards is None else like.shards
        main = found[output.name]
        found[output.name] = Variable(
            main.dtype, (*like.dims, *main.dims[1:]), (*like.shape, *wide), (*like.chunks, *wide),
            None if shards is None else (*shards, *wide), main.attrs, main.fill,
        )  # fmt: skip
        found["status"] = Variable("uint8", like.dims, like.shape, like.chunks, shards, STATUS_ATTRS)
        return found

    def _copied(self, cube: Snapshot, output: Output) -> dict[str, Variable]:
        """Return the dimension coordinates, each in one stored object."""
        own = {name: cube.variables[name] for name in self.cells.dims if name in cube.variables}
        return {
            name: Variable(found.dtype, found.dims, found.shape, found.shape, None, found.attrs, found.fill)
            for name, found in own.items()
            if found.dims == (name,) and found.shape[0]
        }

    def _copies(self, cube: Snapshot, copied: Mapping[str, Variable]) -> Iterator[tuple[Unit, str]]:
        for name in copied:
            yield Unit(f"{COPY}/{name}", name), digest(cube.ids.get(name, ()))

    def _template(self, cube: Snapshot, variables: Mapping[str, Variable], output: Output, model: Model) -> Template:
        small = {output.dim: list(output.columns)} if output.columns else {}
        first = self.cells.dims[0]
        rows = dict(zip(self.cells.dims, self._reference(cube).shape, strict=True))[first]
        return Template(first, rows, dict(variables), model.attrs, small)

    def kernel(self, unit: Unit, worker: WorkerContext) -> Written:
        if unit.key.startswith(f"{COPY}/"):
            name = unit.payload
            values = stores.read_region(self.input, name, [(0, stores.schema(self.input, name).shape[0])])
            return Written(stores.write_region(self.out, 0, {name: values}), rows=0)
        model, grid = worker.shared
        region = grid.region(unit.payload)[: len(self.cells.dims)]
        shape = tuple(stop - start for start, stop in region)
        X = self.cells.matrix(self._blocks(grid, region), shape, str(model.bundle.schema["dtype"]))
        limit = 0 if self.on_error == "raise" else max(self.max_bad, GIVE_UP)
        values, status, bad = predict_cells(model, X, worker, limit)
        arrays = {
            model.output.name: values.reshape(*shape, *model.output.shape),
            "status": status.reshape(shape),
        }
        start = [first for first, _ in region]
        reasons = [(self.cells.place(start, shape, row), code, text) for row, code, text in bad.first(0)]
        found = bad_counts(status, reasons) if bad.status else None
        return Written(stores.write_region(self.out, start, arrays), rows=len(X), result=found)

    def _blocks(self, grid: Grid, region: Any) -> list[np.ndarray]:
        """Return the values of each input around a block; NaN beyond the edge of the cube."""
        span = dict(zip(self.cells.dims, region, strict=True))
        sizes = dict(zip(grid.dims, grid.shape, strict=True))
        found = []
        for name, dims in self.cells.inputs:
            part, pad = [], []
            for dim in dims:
                around, (start, stop) = self.cells.window.get(dim, 0), span[dim]
                first, last = max(0, start - around), min(sizes[dim], stop + around)
                part.append((first, last))
                pad.append((first - (start - around), stop + around - last))
            values = decoded(stores.read_region(self.input, name, part), self.decoding.get(name, {}))
            found.append(np.pad(_floats(values), pad, constant_values=np.nan) if any(map(any, pad)) else values)
        return found

    def finish(self, inputs: Mapping[str, Input], records: Mapping[str, Record]) -> StageResult:
        blocks = [record for key, record in sorted(records.items()) if key.startswith(f"{BLOCK}/")]
        cells = sum(record.rows for record in blocks)
        return concluded(self.name, self.method, cells, [record.result for record in blocks], self.max_bad, "cell")


def _floats(values: np.ndarray) -> np.ndarray:
    return values if values.dtype.kind == "f" else values.astype("float64")


def predict_cells(
    model: Model, X: np.ndarray, worker: WorkerContext, limit: int
) -> tuple[np.ndarray, np.ndarray, BadRows]:
    """Predict rows of cells; those of which everything is missing stay missing. See ``Model.values``."""
    present = np.flatnonzero(~np.isnan(X).all(axis=1))
    if len(present) == len(X):
        return model.values(lambda start, stop: X[start:stop], len(X), worker, limit)
    some = X[present]
    found, state, among = model.values(lambda start, stop: some[start:stop], len(some), worker, limit)
    values = np.full((len(X), *model.output.shape), model.output.missing, dtype=model.output.dtype)
    status = np.zeros(len(X), dtype="uint8")
    values[present], status[present] = found, state
    bad = BadRows(among.limit)
    bad.status = {int(present[row]): code for row, code in among.status.items()}
    bad.reasons = {int(present[row]): text for row, text in among.reasons.items()}
    return values, status, bad
