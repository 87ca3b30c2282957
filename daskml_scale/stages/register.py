"""Register: put a trained model into the store's registry, and make it the champion when it is good enough.

The condition is on the metrics of an ``evaluate`` stage. "Better than the champion" is the difference on
the same rows (``champion: NAME`` there), never a comparison of numbers measured on other rows. A model
that is registered already is left as it is: a later ``promote`` or ``rollback`` by hand stays.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from daskml_scale.artifacts.manifest import MANIFEST
from daskml_scale.artifacts.registry import CHAMPION, Registry
from daskml_scale.engine.worker import WorkerContext
from daskml_scale.errors import PlanError
from daskml_scale.plan.records import Record, digest, select
from daskml_scale.plan.units import FileId, Parts, Plan, Unit
from daskml_scale.storage import files
from daskml_scale.storage.lock import hold

from .base import Input, Ref, StageBase, StageResult
from .metrics import METRICS

CODE = "register-1"
UNIT = "version"


@dataclass(frozen=True)
class Condition:
    """When a model becomes the champion.

    Attributes
    ----------
    metric : str
        Of the evaluation; which direction is better is known of each.
    least : float, optional
        The worst value that is good enough: a lower bound, or an upper one where lower is better.
    by : float
        How much better than the champion it must be, on the same rows; 0 means better at all.
    """

    metric: str
    least: float | None = None
    by: float = 0.0

    def judge(self, scores: Mapping[str, Any], rival: bool) -> tuple[bool, str]:
        """Return whether the condition holds, and why.

        Parameters
        ----------
        scores : mapping
            Result of the evaluation.
        rival : bool
            Whether there is a champion to beat.
        """
        value = scores["metrics"].get(self.metric)
        sign = -1.0 if METRICS[self.metric].lower else 1.0
        if value is None or not math.isfinite(value):
            return False, f"{self.metric} is not among the metrics that were measured"
        said = f"{self.metric} {value:.4g}"
        if self.least is not None and sign * (value - self.least) < 0:
            return False, f"{said} is not {'at most' if sign < 0 else 'at least'} {self.least:g}"
        if not rival:
            return True, f"{said}, and there is no champion"
        compared = scores.get("against")
        if not compared:
            return False, f"{said} was not compared with the champion; add champion: NAME to the evaluation"
        gain = sign * compared["difference"][self.metric]
        theirs = f"{said} against {compared['metrics'][self.metric]:.4g} of {compared['model']}"
        if gain <= 0 or gain < self.by:
            return False, f"{theirs}: not better{f' by {self.by:g}' if self.by else ''}"
        return True, theirs


@dataclass(frozen=True)
class RegisterStage(StageBase):
    """See the module docstring.

    Attributes
    ----------
    store : str
        URL of the store whose registry it is.
    bundle : str
        URL of the bundle's folder.
    scores : str
        URL of the ledger of an evaluate stage; empty for none.
    model_name : str
        Name in the registry.
    condition : Condition, optional
        Without one every version becomes the champion.
    """

    store: str
    bundle: str
    model_name: str
    scores: str = ""
    condition: Condition | None = None
    kind: str = "register"

    def reads(self) -> Mapping[str, Ref]:
        found = {"bundle": Ref("file", files.join(self.bundle, MANIFEST))}
        return {**found, "scores": Ref("result", self.scores)} if self.scores else found

    def plan(self, inputs: Mapping[str, Input], records: Mapping[str, Record]) -> Plan:
        bundle = inputs["bundle"]
        sha256 = bundle.digest if isinstance(bundle, FileId) else ""
        return select(
            [(Unit(UNIT), digest(sha256, inputs.get("scores") or {}))],
            Parts(code=CODE, parameters=digest(self.model_name, self.condition)),
            records,
            grid="one version",
            memory=0,
            shared=bool(sha256) and (not self.scores or inputs.get("scores") is not None),
        )

    def kernel(self, unit: Unit, worker: WorkerContext) -> dict[str, Any]:
        if not worker.shared:
            raise PlanError(f"{self.name}: {self.bundle} or its scores do not exist; run the stages that write them")
        return {}

    def finish(self, inputs: Mapping[str, Input], records: Mapping[str, Record]) -> StageResult:
        found = inputs.get("scores")
        scores: Mapping[str, Any] = found if isinstance(found, Mapping) else {"metrics": {}}
        registry = Registry(self.store)
        numbers = {name: value for name, value in scores["metrics"].items() if isinstance(value, (int, float))}
        with hold(registry.url, f"register {self.model_name}"):
            wanted, why = self._judged(scores, CHAMPION in registry.shelf(self.model_name).aliases)
            shelf, version = registry.register(
                self.model_name, self.bundle, now=time.time(), metrics=numbers, champion=wanted, note=why
            )
        champion = shelf.aliases.get(CHAMPION) == version.number
        return StageResult(
            {"name": self.model_name, "version": version.number, "champion": champion, "why": version.note}
        )

    def _judged(self, scores: Mapping[str, Any], rival: bool) -> tuple[bool, str]:
        if self.condition is None:
            return True, "no condition was set"
        return self.condition.judge(scores, rival)
