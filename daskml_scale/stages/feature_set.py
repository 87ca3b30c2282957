"""The stage kind ``feature_set``: register a feature matrix in the store's catalogue, under a name and a version."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from daskml_scale.artifacts.feature_sets import Catalogue
from daskml_scale.engine.worker import WorkerContext
from daskml_scale.plan.records import Record, digest, select
from daskml_scale.plan.units import Parts, Plan, Unit

from .base import Input, Ref, StageBase, StageResult
from .feature_store import check_matrix, described
from .inputs import require

CODE = "feature-set-1"
UNIT = "version"


@dataclass(frozen=True)
class FeatureSetStage(StageBase):
    """See the module docstring.

    Attributes
    ----------
    store : str
        URL of the store whose catalogue it is.
    matrix : str
        URL of the feature matrix.
    set_name : str
    entity, time, within :
        As of ``FeatureSets.register``.
    """

    store: str
    matrix: str
    set_name: str
    entity: tuple[str, ...]
    time: str
    within: str | None = None
    kind: str = "feature_set"

    def reads(self) -> Mapping[str, Ref]:
        return {"input": Ref("dataset", self.matrix)}

    def plan(self, inputs: Mapping[str, Input], records: Mapping[str, Record]) -> Plan:
        found = require(inputs["input"], self.matrix, self.name)
        check_matrix(self.matrix, found.attrs, set(found.variables), self.entity, self.time)
        read = digest(found.attrs.get("recipe_hash"))
        parameters = digest(self.set_name, self.entity, self.time, self.within)
        return select(
            [(Unit(UNIT), read)], Parts(code=CODE, parameters=parameters), records, grid="one version", memory=0
        )

    def kernel(self, unit: Unit, worker: WorkerContext) -> dict[str, Any]:
        return {}

    def finish(self, inputs: Mapping[str, Input], records: Mapping[str, Record]) -> StageResult:
        version = described(self.matrix, self.entity, self.time, self.within)
        known = Catalogue(self.store).register(self.set_name, version)
        return StageResult({"name": self.set_name, "version": known.number, "features": len(known.features)})
