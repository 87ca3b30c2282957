"""Monitor: compare what a prediction pass saw with training, and warn or fail above limits.

The counting was done by the ``predict`` stage in its own pass (``watch``); nothing is read here but its sums
and the bundle. The whole comparison, with what a plot needs, lies in ``<name>.drift.json`` beside the
ledger; the result names the worst features.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from daskml_scale.artifacts.bundle import Bundle
from daskml_scale.artifacts.manifest import MANIFEST, read_manifest
from daskml_scale.engine.worker import WorkerContext
from daskml_scale.errors import DriftError, PlanError, SpecError, UsageError
from daskml_scale.plan.records import Record, digest, select
from daskml_scale.plan.units import FileId, Parts, Plan, Unit
from daskml_scale.spec.workflow import MonitorSpec
from daskml_scale.storage import files, stores

from .base import Input, Ref, StageBase, StageResult
from .drift import MEASURES, Limits, judged, report
from .watch import SEEN

CODE = "monitor-1"
"""Changes whenever the kernel's output changes for the same input."""
UNIT = "drift"
DRIFT = "drift"
"""Name of the file with the comparison, beside the ledger."""
WORST = 10
"""Features in the stage's result; all are in the file."""


@dataclass(frozen=True)
class MonitorStage(StageBase):
    """See the module docstring.

    Attributes
    ----------
    predictions : str
        URL of the dataset of a predict stage that counts.
    bundle : str
        URL of the folder of its model.
    method : str
        Of the predict stage.
    limits : Limits
    """

    predictions: str
    bundle: str
    method: str = "predict"
    limits: Limits = field(default_factory=Limits)
    kind: str = "monitor"

    def reads(self) -> Mapping[str, Ref]:
        return {
            SEEN: Ref("file", stores.beside(self.predictions, f"{SEEN}.json")),
            "bundle": Ref("file", files.join(self.bundle, MANIFEST)),
        }

    def plan(self, inputs: Mapping[str, Input], records: Mapping[str, Record]) -> Plan:
        there = {name: found.digest for name in (SEEN, "bundle") if isinstance(found := inputs[name], FileId)}
        return select(
            [(Unit(UNIT), digest(there))],
            Parts(code=CODE, parameters=digest(self.method)),
            records,
            grid="one comparison",
            memory=0,
            shared=len(there) == 2,
        )

    def kernel(self, unit: Unit, worker: WorkerContext) -> dict[str, Any]:
        seen = files.read_json(stores.beside(self.predictions, f"{SEEN}.json"))
        profile = read_manifest(self.bundle).get("profile") if worker.shared else None
        if seen is None or profile is None:
            raise PlanError(
                f"{self.name}: {self.predictions} was not counted, or {self.bundle} knows no training rows; train the "
                "model by a train stage (or save_model(reference=)), and predict again"
            )
        return report(profile, self.method, seen)

    def finish(self, inputs: Mapping[str, Input], records: Mapping[str, Record]) -> StageResult:
        found = records[UNIT].result
        stores.put_json(self.out, DRIFT, found)
        return concluded(self.name, found, self.limits)


def limits_of(given: Mapping[str, Any]) -> tuple[Limits, tuple[str, ...]]:
    """Return limits and slices from ``{"slices": [...], "psi": {"warn": 0.25, "fail": 1}}``.

    Raises
    ------
    SpecError
        When a key or a value is none.
    """
    from pydantic import ValidationError

    from daskml_scale.spec.explain import explain

    data = {"predictions": "predictions", **given}
    try:
        spec = MonitorSpec.model_validate(data)
    except ValidationError as error:
        first = explain(error, MonitorSpec, data)[0]
        raise SpecError(first.message, path=f"monitor.{first.path}") from None
    return from_spec(spec), tuple(spec.slices)


def from_spec(spec: MonitorSpec) -> Limits:
    """Return the limits of a workflow's stage."""
    return Limits(**{key: ((limit := getattr(spec, key)).warn, limit.fail) for key in MEASURES})


def compare(url: str, bundle: Bundle, method: str, limits: Limits) -> None:
    """Compare what was seen in the pass that wrote ``url`` with training, and keep it beside.

    Raises
    ------
    DriftError
        When something is above a limit that fails. What is above one that warns is a ``UserWarning``.
    """
    import warnings

    seen = stores.get_json(url, SEEN)
    assert bundle.profile is not None  # else the stage was refused
    assert seen is not None
    found = report(bundle.profile, method, seen)
    stores.put_json(url, DRIFT, found)
    for text in concluded(url.rpartition("/")[2].removesuffix(".zarr"), found, limits).warnings:
        warnings.warn(text, UserWarning, stacklevel=3)


def drift(out: str | os.PathLike[str]) -> dict[str, Any]:
    """Return the comparison of predictions with training that ``predict(..., monitor=True)`` made.

    Parameters
    ----------
    out : str
        URL of the predictions; of a monitor stage, ``STORE/NAME.zarr``.

    Returns
    -------
    dict
        ``features`` and ``predictions``: one entry each with ``name``, ``psi``, ``ks``, ``missing``,
        ``missing_in_training``, and the bins to plot: ``edges``, ``expected``, ``actual``. ``slices``: the same
        numbers per value of a column, against all rows of training.

    Raises
    ------
    UsageError
        When nothing was compared there.
    """
    found: dict[str, Any] | None = stores.get_json(files.normal(out), DRIFT)
    if found is None:
        raise UsageError(
            f"{os.fspath(out)} was not compared with training; add a stage of kind monitor to the workflow, and name "
            "what it wrote (STORE/STAGE.zarr), or predict with monitor=True"
        )
    return found


def concluded(name: str, found: Mapping[str, Any], limits: Limits) -> StageResult:
    """Return the result of a comparison.

    Raises
    ------
    DriftError
        When something is above a limit that fails.
    """
    told, failed = judged(found, limits)
    if failed:
        raise DriftError(
            f"{name}: the predicted rows are not like those of training: {'; '.join(failed[:5])}"
            f"{f'; and {len(failed) - 5} more' if len(failed) > 5 else ''}. Look at the data, train again, or raise "
            "the limits. The predictions are written"
        )
    short = [{key: line[key] for key in ("name", "psi", "ks", "missing")} for line in found["features"][:WORST]]
    shift = max((line["psi"] for line in found["predictions"]), default=None)
    result = {"rows": found["rows"], "worst": short, "prediction_psi": shift, "warned": len(told)}
    more = [f"and {len(told) - WORST} more"] if len(told) > WORST else []
    return StageResult(result, found["rows"], warnings=tuple(f"{name}: {text}" for text in (*told[:WORST], *more)))
