"""From a workflow's specs to stage objects: where each reads and writes.

One function per kind; a new kind adds one entry. Stages are built without touching their data.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from daskml_scale.spec.cube_stages import CubeSpec, GenerateSpec, SamplesSpec
from daskml_scale.spec.feature_set import FeatureSetSpec
from daskml_scale.spec.items import MapFiles, MapRows
from daskml_scale.spec.workflow import (
    EvaluateSpec,
    FeaturesSpec,
    IngestSpec,
    MapSpec,
    MonitorSpec,
    PredictSpec,
    RechunkSpec,
    RegisterSpec,
    SearchSpec,
    StageSpec,
    TrainSpec,
    ValidateSpec,
)

from .base import Stage
from .in_store import InStore
from .ingesting import stage_of

if TYPE_CHECKING:
    from .functions import Sent


class Builder(InStore):
    """Builds the stages of one workflow in one store; parameters as of ``InStore``."""

    def build(self, name: str) -> Stage:
        """Return the stage of that name."""
        spec = self.workflow.stages[name]
        return _KINDS[type(spec)](self, name, spec)

    def _ingest(self, name: str, spec: IngestSpec) -> Stage:
        return stage_of(self.dataset(name), spec, self.base, self.workflow.seed)

    def _generate(self, name: str, spec: GenerateSpec) -> Stage:
        from .generate import GenerateStage

        return GenerateStage(
            name, self.ledger(name), spec.function, self.modules, spec.dims, spec.chunks, options=spec.options
        )

    def _cube(self, name: str, spec: CubeSpec) -> Stage:
        from .gridded.stage import GridStage

        return GridStage(
            name,
            self.ledger(name),
            input=self.dataset(spec.input),
            steps=tuple(spec.steps),
            time=spec.time,
            fit_where=spec.fit_where,
            coarsen=spec.coarsen,
            chunks=spec.chunks,
            dtype=spec.dtype,
        )

    def _samples(self, name: str, spec: SamplesSpec) -> Stage:
        from .gridded.samples import SamplesStage

        return SamplesStage(
            name, self.ledger(name), self.dataset(spec.input), spec.target, tuple(spec.features or ()), spec.dtype
        )

    def _feature_set(self, name: str, spec: FeatureSetSpec) -> Stage:
        from .feature_set import FeatureSetStage

        return FeatureSetStage(
            name,
            self.ledger(name),
            store=self.store,
            matrix=self.dataset(spec.input),
            set_name=spec.name,
            entity=tuple(spec.entity),
            time=spec.time,
            within=spec.within,
        )

    def _validate(self, name: str, spec: ValidateSpec) -> Stage:
        from .validate import ValidateStage

        return ValidateStage(name, self.ledger(name), self.dataset(spec.input), tuple(spec.rules))

    def _features(self, name: str, spec: FeaturesSpec) -> Stage:
        from .features.stage import FeaturesStage

        return FeaturesStage.of(
            spec,
            name=name,
            ledger=self.ledger(name),
            input=self.dataset(spec.input),
            tables=self.tables(spec.tables),
            folders=self.modules,
        )

    def _search(self, name: str, spec: SearchSpec) -> Stage:
        from .search.stage import SearchStage

        return SearchStage(
            name,
            self.ledger(name),
            input=self.dataset(spec.input),
            estimator=spec.estimator,
            space=spec.space,
            sampler=spec.sampler,
            scoring=spec.scoring,
            split=spec.split,
            seed=self.workflow.seed,
            early_stopping=spec.early_stopping,
        )

    def _train(self, name: str, spec: TrainSpec) -> Stage:
        from .train import TrainStage

        return TrainStage(
            name,
            self.ledger(name),
            input=self.dataset(spec.input),
            bundle=self.model(name),
            estimator=spec.estimator,
            params_from=self.ledger(spec.params_from) if spec.params_from else "",
            where=spec.where,
            seed=self.workflow.seed,
            passes=spec.partial_fit.passes if spec.partial_fit else 0,
            checkpoint_every=spec.distributed.checkpoint_every if spec.distributed else 0,
            trusted=self.trusted(name),
        )

    def _evaluate(self, name: str, spec: EvaluateSpec) -> Stage:
        from .evaluate import EvaluateStage

        return EvaluateStage(
            name,
            self.ledger(name),
            input=self.dataset(spec.input),
            bundle=self.model(spec.model),
            metrics=tuple(spec.metrics),
            where=spec.where,
            trusted=(*self.trusted(spec.model), *(self.trusted(spec.against) if spec.against else ())),
            slices=tuple(spec.slices),
            bootstrap=spec.bootstrap,
            against=self.model(spec.against) if spec.against else "",
            store=self.store if spec.champion else "",
            champion=spec.champion or "",
            seed=self.workflow.seed,
        )

    def _register(self, name: str, spec: RegisterSpec) -> Stage:
        from .register import Condition, RegisterStage

        wanted = spec.champion_if
        return RegisterStage(
            name,
            self.ledger(name),
            store=self.store,
            bundle=self.model(spec.model),
            model_name=spec.name or self.model(spec.model).rpartition("/")[2],
            scores=self.ledger(spec.scores) if spec.scores else "",
            condition=Condition(wanted.metric, wanted.least, wanted.by) if wanted else None,
        )

    def _predict(self, name: str, spec: PredictSpec) -> Stage:
        from .functions import Sent, find
        from .predict import PredictStage

        function = Sent(find(spec.method, self.modules), self.modules) if ":" in spec.method else None
        if isinstance(self.workflow.stages[spec.input], CubeSpec):
            return self._predict_cells(name, spec, function)
        features = self.features_of(spec.model)
        return PredictStage(
            name,
            self.ledger(name),
            input=self.dataset(spec.input),
            bundle=self.model(spec.model),
            tables=self.tables(spec.tables or (features.tables if features else {})),
            method=spec.method.rpartition(":")[2],
            function=function,
            output=spec.output.model_dump(exclude_none=True) or None,
            matrix=spec.out,
            max_bad=spec.max_bad,
            on_error=spec.on_error,
            trusted=self.trusted(spec.model),
            expected=None if features is None else _recipe(features),
            folders=self.modules,
            resources=spec.resources or None,
            optimise=tuple(spec.optimise),
            watched=bool(watching := self.monitors(name)),
            slices=tuple(dict.fromkeys(column for monitor in watching for column in monitor.slices)),
        )

    def _monitor(self, name: str, spec: MonitorSpec) -> Stage:
        from .monitor import MonitorStage, from_spec

        predictions = self.workflow.stages[spec.predictions]
        assert isinstance(predictions, PredictSpec)
        return MonitorStage(
            name,
            self.ledger(name),
            predictions=self.dataset(spec.predictions),
            bundle=self.model(predictions.model),
            method=predictions.method.rpartition(":")[2],
            limits=from_spec(spec),
        )

    def _predict_cells(self, name: str, spec: PredictSpec, function: Sent | None) -> Stage:
        from .gridded.cells import CellsStage

        return CellsStage(
            name,
            self.ledger(name),
            input=self.dataset(spec.input),
            bundle=self.model(spec.model),
            method=spec.method.rpartition(":")[2],
            function=function,
            output=spec.output.model_dump(exclude_none=True) or None,
            dtype=spec.out.dtype,
            max_bad=spec.max_bad,
            on_error=spec.on_error,
            trusted=self.trusted(spec.model),
        )

    def _rechunk(self, name: str, spec: RechunkSpec) -> Stage:
        from daskml_scale.spec.base import byte_count

        from .rechunk import RechunkStage

        source = spec.source or ""
        return RechunkStage(
            name,
            self.ledger(name),
            input=self.dataset(spec.input) if spec.input else source if "://" in source else str(self.base / source),
            chunks=spec.chunks,
            shards=spec.shards,
            memory=byte_count(spec.memory),
        )

    def _map(self, name: str, spec: MapSpec) -> Stage:
        from .map_stage import MapStage

        source = ""
        if isinstance(spec.over, MapRows):
            source = self.dataset(spec.over.rows.of)
        elif isinstance(spec.over, MapFiles):
            source = os.path.join(self.base.absolute(), os.path.expanduser(spec.over.files))
        return MapStage(
            name,
            self.ledger(name),
            function=spec.function,
            folders=self.modules,
            over=spec.over,
            source=source,
            chunk=spec.chunk,
            retry=spec.retry,
        )


def _recipe(spec: FeaturesSpec) -> dict[str, Any]:
    """Return a recipe as a model will carry it; what it will have learnt is left empty."""
    from .features.program import Program

    program = Program(tuple(spec.steps), spec.known_at)
    return program.fitted(dict.fromkeys(program.ordinal, ())).to_dict()


_KINDS: dict[type[StageSpec], Callable[[Builder, str, Any], Stage]] = {
    IngestSpec: Builder._ingest,
    GenerateSpec: Builder._generate,
    ValidateSpec: Builder._validate,
    FeaturesSpec: Builder._features,
    CubeSpec: Builder._cube,
    SamplesSpec: Builder._samples,
    FeatureSetSpec: Builder._feature_set,
    SearchSpec: Builder._search,
    TrainSpec: Builder._train,
    EvaluateSpec: Builder._evaluate,
    RegisterSpec: Builder._register,
    PredictSpec: Builder._predict,
    MonitorSpec: Builder._monitor,
    MapSpec: Builder._map,
    RechunkSpec: Builder._rechunk,
}
