"""From a workflow's specs to stage objects: where each reads and writes.

One function per kind; a new kind adds one entry. Stages are built without touching their data.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from daskml_scale.spec.workflow import (
    EvaluateSpec,
    FeaturesSpec,
    IngestSpec,
    PredictSpec,
    SearchSpec,
    StageSpec,
    TrainSpec,
    ValidateSpec,
    Workflow,
)
from daskml_scale.storage.files import join

from .base import Stage


class Builder:
    """Builds the stages of one workflow in one store.

    Parameters
    ----------
    workflow : Workflow
    store : str
        Normal URL of the store.
    base : Path
        Folder that relative sources are resolved from.
    """

    def __init__(self, workflow: Workflow, store: str, base: Path) -> None:
        self.workflow, self.store, self.base = workflow, store, base

    def build(self, name: str) -> Stage:
        """Return the stage of that name."""
        spec = self.workflow.stages[name]
        make: Callable[[str, Any], Stage] = _KINDS[type(spec)].__get__(self)
        return make(name, spec)

    def dataset(self, stage: str) -> str:
        return join(self.store, f"{stage}.zarr")

    def ledger(self, stage: str) -> str:
        return join(self.store, f"{stage}.ledger")

    def model(self, stage: str) -> str:
        """Return the folder of the bundle that a train stage saves."""
        spec = self.workflow.stages[stage]
        saved = spec.save_as if isinstance(spec, TrainSpec) else None
        return join(self.store, "models", saved or stage)

    def _tables(self, tables: Mapping[str, str]) -> dict[str, str]:
        return {name: self.dataset(stage) for name, stage in tables.items()}

    def _ingest(self, name: str, spec: IngestSpec) -> Stage:
        from daskml_scale.spec.find import source_path

        from .ingest import IngestStage

        return IngestStage(
            name=name,
            ledger=self.ledger(name),
            source=str(source_path(spec.source, self.base)),
            origin=spec.source,
            row=spec.row,
            columns=None if spec.columns is None else tuple(spec.columns),
            derive=tuple(spec.derive.items()),
        )

    def _validate(self, name: str, spec: ValidateSpec) -> Stage:
        from .validate import ValidateStage

        return ValidateStage(name, self.ledger(name), self.dataset(spec.input), tuple(spec.rules))
