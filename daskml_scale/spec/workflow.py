"""Workflow files as models: every kind of stage, and the file that holds them. Edges come from references.

The kinds are in ``table_stages``, ``model_stages`` and ``cube_stages``. The classes check what a file alone can tell:
names, types, references, cycles. What needs the data (columns that exist, chunks that align) is checked when the
workflow is planned.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Discriminator, Field, Tag

from daskml_scale.errors import SpecError

from .base import Spec, Version, Word
from .cube_stages import CubeSpec, GenerateSpec, SamplesSpec
from .feature_set import FeatureSetSpec
from .model_stages import ChampionIf as ChampionIf
from .model_stages import Distributed as Distributed
from .model_stages import DriftLimit as DriftLimit
from .model_stages import Estimator as Estimator
from .model_stages import EvaluateSpec as EvaluateSpec
from .model_stages import MonitorSpec as MonitorSpec
from .model_stages import PartialFit as PartialFit
from .model_stages import PredictSpec as PredictSpec
from .model_stages import RegisterSpec as RegisterSpec
from .model_stages import SearchSpec as SearchSpec
from .model_stages import TrainSpec as TrainSpec
from .searching import Folds as Folds
from .searching import Grid as Grid
from .searching import Random as Random
from .searching import TimeSplit as TimeSplit
from .stage_base import StageSpec as StageSpec
from .table_stages import MATRICES as MATRICES
from .table_stages import ROWS_PER_CHUNK as ROWS_PER_CHUNK
from .table_stages import TABLES as TABLES
from .table_stages import FeaturesSpec as FeaturesSpec
from .table_stages import IngestSpec as IngestSpec
from .table_stages import MapSpec as MapSpec
from .table_stages import MatrixOut as MatrixOut
from .table_stages import RechunkSpec as RechunkSpec
from .table_stages import RowSpec as RowSpec
from .table_stages import Sources as Sources
from .table_stages import ValidateSpec as ValidateSpec

KINDS: dict[str, type[StageSpec]] = {
    "ingest": IngestSpec,
    "generate": GenerateSpec,
    "validate": ValidateSpec,
    "features": FeaturesSpec,
    "cube": CubeSpec,
    "samples": SamplesSpec,
    "feature_set": FeatureSetSpec,
    "search": SearchSpec,
    "train": TrainSpec,
    "evaluate": EvaluateSpec,
    "register": RegisterSpec,
    "predict": PredictSpec,
    "monitor": MonitorSpec,
    "rechunk": RechunkSpec,
    "map": MapSpec,
}

AnyStage = Annotated[
    Annotated[IngestSpec, Tag("ingest")]
    | Annotated[GenerateSpec, Tag("generate")]
    | Annotated[ValidateSpec, Tag("validate")]
    | Annotated[FeaturesSpec, Tag("features")]
    | Annotated[CubeSpec, Tag("cube")]
    | Annotated[SamplesSpec, Tag("samples")]
    | Annotated[FeatureSetSpec, Tag("feature_set")]
    | Annotated[SearchSpec, Tag("search")]
    | Annotated[TrainSpec, Tag("train")]
    | Annotated[EvaluateSpec, Tag("evaluate")]
    | Annotated[RegisterSpec, Tag("register")]
    | Annotated[PredictSpec, Tag("predict")]
    | Annotated[MonitorSpec, Tag("monitor")]
    | Annotated[RechunkSpec, Tag("rechunk")]
    | Annotated[MapSpec, Tag("map")],
    Discriminator(
        lambda value: (
            kind
            if isinstance(kind := value.get("kind") if isinstance(value, dict) else getattr(value, "kind", None), str)
            and kind in KINDS
            else None
        ),
        custom_error_type="unknown_kind",
        custom_error_message="unknown or missing kind; known: " + ", ".join(KINDS),
    ),
]


class Workflow(Spec):
    """A whole workflow file.

    Attributes
    ----------
    store : str
        Root URL; stage S writes ``<store>/S.zarr`` and ``<store>/S.ledger/``.
    cluster : str
        Name or path of a cluster definition; ``none`` runs in this process.
    parallel : int
        Stages at a time, of those that do not need one another; more than one needs a cluster.
    on_end : list of str
        Words of a command that is called when a run has ended, however it did; see ``runs.on_end``.
    """

    version: Version
    name: Word
    store: Annotated[str, Field(min_length=1)]
    cluster: str = "local"
    seed: int = 0
    parallel: Annotated[int, Field(gt=0, le=64)] = 1
    on_end: list[Annotated[str, Field(min_length=1)]] = Field(default_factory=list)
    stages: Annotated[dict[Word, AnyStage], Field(min_length=1)]


def sampled(workflow: Workflow, share: float) -> Workflow:
    """Return a workflow whose ``ingest`` stages read only a share of their sources, for an experiment.

    Parameters
    ----------
    share : float
        Above 0, at most 1.

    Raises
    ------
    SpecError
        When it is no such share.
    """
    if not 0 < share <= 1:
        raise SpecError(f"a sample of {share} is no share of the sources; give more than 0 and at most 1, such as 0.05")
    stages = {
        name: spec.model_copy(update={"sample": share, "append": False}) if isinstance(spec, IngestSpec) else spec
        for name, spec in workflow.stages.items()
    }
    return workflow.model_copy(update={"stages": stages})
