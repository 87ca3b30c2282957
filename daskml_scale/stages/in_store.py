"""What belongs to each stage of a workflow, and where it lies in a store: dataset, ledger, model, tables, monitors.

Names and URLs alone: nothing is opened or built here.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from daskml_scale.spec.workflow import FeaturesSpec, MonitorSpec, SearchSpec, TrainSpec, Workflow
from daskml_scale.storage.files import join


class InStore:
    """One workflow in one store.

    Parameters
    ----------
    workflow : Workflow
    store : str
        Normal URL of the store.
    base : Path
        Folder that relative sources are resolved from.
    modules : Path, optional
        Folder of the workflow's file: Python beside it is found there, then in ``base``.
    """

    def __init__(self, workflow: Workflow, store: str, base: Path, modules: Path | None = None) -> None:
        self.workflow, self.store, self.base = workflow, store, base
        self.modules = tuple(dict.fromkeys(folder.absolute() for folder in (modules or base, base)))

    def dataset(self, stage: str) -> str:
        return join(self.store, f"{stage}.zarr")

    def ledger(self, stage: str) -> str:
        return join(self.store, f"{stage}.ledger")

    def tables(self, named: Mapping[str, str]) -> dict[str, str]:
        """Return name -> URL of the datasets of stages that a stage names as its tables."""
        return {name: self.dataset(stage) for name, stage in named.items()}

    def model(self, stage: str) -> str:
        """Return the folder of the bundle that a train stage saves."""
        spec = self.workflow.stages[stage]
        saved = spec.save_as if isinstance(spec, TrainSpec) else None
        return join(self.store, "models", saved or stage)

    def trusted(self, stage: str) -> tuple[str, ...]:
        """Return the types that a train stage, and the search that it follows, name as trusted."""
        spec = self.workflow.stages[stage]
        if not isinstance(spec, TrainSpec):
            return ()
        search = self.workflow.stages[spec.params_from] if spec.params_from else None
        return (*spec.trusted, *(search.trusted if isinstance(search, SearchSpec) else ()))

    def features_of(self, model: str) -> FeaturesSpec | None:
        """Return the features stage that a model is trained on: its recipe and the tables that it joins."""
        trained = self.workflow.stages[model]
        features = self.workflow.stages[trained.input] if isinstance(trained, TrainSpec) else None
        return features if isinstance(features, FeaturesSpec) else None

    def monitors(self, predictions: str) -> list[MonitorSpec]:
        """Return the monitor stages that look at a predict stage."""
        found = [spec for spec in self.workflow.stages.values() if isinstance(spec, MonitorSpec)]
        return [spec for spec in found if spec.predictions == predictions]
