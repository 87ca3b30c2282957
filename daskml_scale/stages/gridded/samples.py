"""The stage kind ``samples``: cells of a cube as rows of a feature matrix, in C order of the dimensions.

Training, searching and evaluating read it as any feature matrix; the coordinates of a cell are its key
columns, so that ``where: time < ...`` selects. A unit is one block of the first dimension.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from daskml_scale.engine.worker import WorkerContext
from daskml_scale.errors import PlanError
from daskml_scale.plan.records import Record, Written, digest, select
from daskml_scale.plan.units import Parts, Plan, Snapshot, Template, Unit, Variable, row_key, row_ranges
from daskml_scale.spec.explain import nearest
from daskml_scale.stages.base import Input, Ref, StageBase, StageResult
from daskml_scale.stages.features.stage import FEATURES, NAMES
from daskml_scale.stages.inputs import require
from daskml_scale.storage import stores

CODE = "samples-1"
"""Changes whenever the kernel's output changes for the same input."""
DIM = "cell"


@dataclass(frozen=True)
class SamplesStage(StageBase):
    """See the module docstring.

    Attributes
    ----------
    input : str
        URL of what a ``cube`` stage wrote.
    target : str
    features : tuple of str
        All variables known at their time, when empty.
    dtype : str
    """

    input: str
    target: str
    features: tuple[str, ...] = ()
    dtype: str = "float32"
    kind: str = "samples"

    def reads(self) -> Mapping[str, Ref]:
        return {"input": Ref("dataset", self.input)}

    def plan(self, inputs: Mapping[str, Input], records: Mapping[str, Record]) -> Plan:
        cube = require(inputs["input"], self.input, self.name)
        features = self.columns(cube)
        first = cube.variables[self.target]
        cells, block = prod(first.shape[1:]), first.write_unit[0]
        variables = self._variables(cube, features)
        rows = first.shape[0] * cells
        units = []
        for start, stop in row_ranges(first.shape[0], block) if cells else []:
            ids = [cube.row_ids([name], start, stop) for name in (*features, self.target)]
            coords = [cube.ids.get(name, ()) for name in first.dims if name in cube.variables]
            key = row_key(start * cells, block * cells)
            units.append((Unit(key, (start, stop), (stop - start) * cells), digest((start, stop), ids, coords)))
        attrs: dict[str, Any] = {"target": self.target, "row_key": [name for name in first.dims if name in variables],
                                 "cube": list(first.dims)}  # fmt: skip
        template = Template(DIM, rows, variables, attrs, {NAMES: list(features)})
        width = len(features)
        return select(
            units,
            Parts(
                code=CODE, parameters=digest(features, self.target), schema=digest(self.dtype, block, first.shape[1:])
            ),
            records,
            shared=(features, first.dims, attrs["row_key"]),
            template=template,
            grid=f"{len(units):,} block{'s'[: len(units) != 1]} of {block * cells:,} cells x {width} features",
            memory=block * cells * (16 * (width + 1) + 16 * len(first.dims)),
            rows=rows,
        )

    def columns(self, cube: Snapshot) -> tuple[str, ...]:
        """Return the features, after checking that they are known when the target is to be predicted.

        Raises
        ------
        PlanError
        """
        have = [name for name in cube.variables if name not in cube.variables[name].dims]
        late = set(cube.attrs.get("later") or ())
        features = self.features or tuple(name for name in have if name not in late and name != self.target)
        for name in (*features, self.target):
            if name not in have:
                raise PlanError(f"{cube.url} has no variable {name!r}{nearest(name, have)}; it has {', '.join(have)}")
        for name in features:
            if name in late:
                raise PlanError(
                    f"{self.name}: {name!r} is made of a lead, not known when {self.target!r} is to be predicted; "
                    "remove it from features"
                )
            if cube.variables[name].dims != cube.variables[self.target].dims:
                raise PlanError(f"{self.name}: {name} and {self.target} have different dimensions")
        if not features:
            raise PlanError(f"{self.name}: {cube.url} holds nothing but the target and what is not known in time")
        return features

    def _variables(self, cube: Snapshot, features: tuple[str, ...]) -> dict[str, Variable]:
        first, width = cube.variables[self.target], len(features)
        cells = prod(first.shape[1:])
        rows, chunk = first.shape[0] * cells, max(1, first.write_unit[0] * cells)
        taken = {FEATURES, NAMES, DIM}.intersection((*first.dims, self.target))
        if taken:
            raise PlanError(f"{self.name}: {min(taken)!r} is a variable of every feature matrix; rename it in the cube")
        found = {
            FEATURES: Variable(self.dtype, (DIM, NAMES), (rows, width), (chunk, width)),
            NAMES: Variable("string", (NAMES,), (width,), (width,)),
            self.target: Variable("float64", (DIM,), (rows,), (chunk,)),
        }
        for name in first.dims:
            if name in cube.variables:
                own = cube.variables[name]
                found[name] = Variable(own.dtype, (DIM,), (rows,), (chunk,), None, own.attrs, own.fill)
        return found

    def kernel(self, unit: Unit, worker: WorkerContext) -> Written:
        features, dims, coordinates = worker.shared
        start, stop = unit.payload
        values = [stores.read_region(self.input, name, [(start, stop)]) for name in (*features, self.target)]
        shape = values[0].shape
        matrix = np.stack([array.reshape(-1) for array in values[:-1]], axis=1).astype(self.dtype)
        arrays: dict[str, Any] = {FEATURES: matrix, self.target: values[-1].reshape(-1).astype("float64")}
        for name in coordinates:
            axis = dims.index(name)
            own = stores.read_region(self.input, name, [(start, stop) if axis == 0 else (0, shape[axis])])
            across = own.reshape([-1 if at == axis else 1 for at in range(len(shape))])
            arrays[name] = np.broadcast_to(across, shape).ravel()
        return Written(stores.write_region(self.out, start * prod(shape[1:]), arrays), rows=len(matrix))

    def finish(self, inputs: Mapping[str, Input], records: Mapping[str, Record]) -> StageResult:
        rows = sum(record.rows for record in records.values())
        cube = require(inputs["input"], self.input, self.name)
        return StageResult({"features": list(self.columns(cube)), "rows": rows}, rows=rows)
