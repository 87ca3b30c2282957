"""The ``predict`` stage of a workflow on a cube: every cell with a model that learnt from ``samples``.

It is ``CubeStage`` whose inputs follow from the model: each feature is a variable of the cube.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from daskml_scale.artifacts.manifest import MANIFEST, read_manifest
from daskml_scale.engine.worker import WorkerContext
from daskml_scale.errors import PlanError
from daskml_scale.plan.records import Record
from daskml_scale.plan.units import FileId, Plan, Unit
from daskml_scale.stages.base import Input
from daskml_scale.stages.cubes import Cells
from daskml_scale.stages.inputs import require
from daskml_scale.stages.predict_cube import CubeStage
from daskml_scale.storage import stores


@dataclass(frozen=True)
class CellsStage(CubeStage):
    """See the module docstring."""

    cells: Cells = field(default_factory=lambda: Cells((), ()))

    def plan(self, inputs: Mapping[str, Input], records: Mapping[str, Record]) -> Plan:
        cube = require(inputs["input"], self.input, self.name)
        if not isinstance(inputs["bundle"], FileId):
            raise PlanError(f"{self.name}: {self.bundle}/{MANIFEST} does not exist; train the model first")
        features = read_manifest(self.bundle)["schema"]["features"]
        absent = [name for name in features if name not in cube.variables]
        if absent:
            raise PlanError(
                f"{self.name}: the model's feature {absent[0]!r} is no variable of {cube.url}; predict the cube that "
                "its samples were taken from"
            )
        return CubeStage.plan(self._bound({name: cube.variables[name].dims for name in features}), inputs, records)

    def _bound(self, dims: Mapping[str, tuple[str, ...]]) -> CubeStage:
        return replace(self, cells=Cells.of(dims, list(dims), None, None))

    def kernel(self, unit: Unit, worker: WorkerContext) -> Any:
        features = worker.shared[0].bundle.schema["features"]
        bound = self._bound({name: stores.schema(self.input, name).dims for name in features})
        return CubeStage.kernel(bound, unit, worker)
