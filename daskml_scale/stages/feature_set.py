"""The stage kind ``feature_set``: register a feature matrix in the store's catalogue, under a name and a version.

What a version may be is said here for the stage and for ``dms.feature_sets`` alike.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from time import time as clock
from typing import Any

import numpy as np

from daskml_scale.artifacts.feature_sets import Catalogue, FeatureVersion
from daskml_scale.engine.worker import WorkerContext
from daskml_scale.errors import PlanError
from daskml_scale.plan.records import Record, digest, select
from daskml_scale.plan.units import Parts, Plan, Unit
from daskml_scale.spec.base import seconds
from daskml_scale.spec.explain import nearest
from daskml_scale.spec.expressions import evaluate, names
from daskml_scale.storage import stores

from .base import Input, Ref, StageBase, StageResult
from .inputs import require
from .matrix import FEATURE_NAMES, FEATURES

CODE = "feature-set-1"
UNIT = "version"
_INSTANTS = np.array(["1970-01-01", "2013-10-01", "2100-06-30T12:00"], dtype="datetime64[ns]")


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


def described(matrix: str, entity: tuple[str, ...], time: str, within: str | None) -> FeatureVersion:
    """Return the version that a matrix is, without a number.

    Raises
    ------
    PlanError
        See ``FeatureSets.register``.
    """
    if not stores.exists(matrix):
        raise PlanError(f"{matrix} does not exist; run the features stage that writes it")
    group = stores.open_group(matrix)
    attrs = dict(group.attrs)
    check_matrix(matrix, attrs, set(group.array_keys()), entity, time)
    if within is not None:
        seconds(within)
    features = tuple(map(str, group[FEATURE_NAMES][...]))
    return FeatureVersion(0, matrix, entity, time, features, str(attrs["recipe_hash"]), within or "", clock())


def check_matrix(matrix: str, attrs: Mapping[str, Any], arrays: set[str], entity: Sequence[str], time: str) -> None:
    """Refuse what is no feature matrix, lacks the key columns, or holds features that are not known at ``time``."""
    if FEATURES not in arrays or "recipe_hash" not in attrs:
        raise PlanError(f"{matrix} is no feature matrix of a recipe; name what a features stage wrote")
    keys = [name for name in attrs.get("row_key") or () if name in arrays]
    for name in (*entity, time):
        if name not in keys:
            raise PlanError(
                f"{matrix} carries no column {name!r}{nearest(name, keys)}; it carries {', '.join(keys) or 'none'}: "
                "the sort_by columns of its table"
            )
    known_at = str((attrs.get("recipe") or {}).get("known_at", time))
    try:
        in_time = set(names(known_at)) <= {time} and bool(np.all(evaluate(known_at, {time: _INSTANTS}) <= _INSTANTS))
    except (ValueError, TypeError):
        in_time = False
    if not in_time:
        raise PlanError(
            f"{matrix}: features are known at {known_at}, which is not surely by {time!r}: history would be told too "
            f"early; name as time the column that known_at is computed from, or derive one"
        )
