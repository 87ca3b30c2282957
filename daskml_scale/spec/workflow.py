"""Workflow files as models: one class per stage kind. Edges between stages come from references.

The classes check what a file alone can tell: names, types, references, cycles. What needs the
data (columns that exist, chunks that align) is checked when the workflow is planned.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Discriminator, Field, Tag, model_validator
from pydantic_core import PydanticCustomError

from daskml_scale.errors import SpecError

from .base import ByteSize, Column, Spec, Version, Word
from .cube_stages import CubeSpec, GenerateSpec, SamplesSpec
from .expressions import Expression
from .feature_set import FeatureSetSpec
from .folds import FoldsBy
from .items import AnyItems, FunctionPath, MapFiles, MapRows
from .predictions import AnyMetric, Method, Metric, OutputOf
from .rules import AnyRule
from .searching import AnySampler, AnySplit, EarlyStopping, check_search
from .searching import Folds as Folds
from .searching import Grid as Grid
from .searching import Random as Random
from .searching import TimeSplit as TimeSplit
from .space import AnyDistribution
from .stage_base import ChunkLength
from .stage_base import StageSpec as StageSpec
from .steps import AnyStep
from .steps_learned import TypeName

ROWS_PER_CHUNK = 100_000
"""Rows per chunk where a spec does not say."""


class RowSpec(Spec):
    """The row dimension of a table.

    Attributes
    ----------
    sort_by : list of str
        Columns that order the rows, the first one first; equal rows stay in the order of their files.
    partition_by : list of str
        Columns whose equal values lie together: they order the rows before ``sort_by`` does.
    """

    dim: Word
    chunk: Annotated[int, Field(gt=0)] = ROWS_PER_CHUNK
    sort_by: list[Column] = Field(default_factory=list)
    partition_by: list[Column] = Field(default_factory=list)

    @property
    def order(self) -> tuple[str, ...]:
        """All columns that order the rows."""
        return tuple(dict.fromkeys([*self.partition_by, *self.sort_by]))


def _as_list(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


Sources = Annotated[list[Annotated[str, Field(min_length=1)]], BeforeValidator(_as_list), Field(min_length=1)]
"""One path, pattern or URL, or a list of them."""


class IngestSpec(StageSpec):
    """Read files into a table (one row dimension, sorted, coded, CF times), or gridded files into a cube.

    Attributes
    ----------
    source : str or list of str
        Paths, patterns (``data/*.parquet``), URLs (``s3://bucket/2024/*.csv``), or ``pkg://package/path/in/it``.
    format : str, optional
        ``csv``, ``parquet``, ``netcdf`` or ``zarr``; by default what the names end in.
    row : mapping
        Of a table.
    chunks : mapping of dimension to int
        Of a cube: elements per chunk of the output, -1 for the whole dimension.
    concat : str, optional
        Dimension along which several gridded files follow one another.
    columns : list of str, optional
        Columns (variables of a cube) to keep; all by default.
    derive : mapping of name to expression
        Columns computed from the file's columns and from earlier derived ones.
    append : bool
        New files add rows to the end of the table; what was read before is not read again and must not change.
    sample : float, optional
        Share of the blocks of the sources (row groups, pieces of files) that is read, for experiments.
    """

    kind: Literal["ingest"] = "ingest"
    source: Sources
    format: Literal["csv", "parquet", "netcdf", "zarr"] | None = None
    row: RowSpec | None = None
    chunks: Annotated[dict[Word, ChunkLength], Field(min_length=1)] | None = None
    concat: Word | None = None
    columns: Annotated[list[Column], Field(min_length=1)] | None = None
    derive: dict[Word, Expression] = Field(default_factory=dict)
    append: bool = False
    sample: Annotated[float, Field(gt=0, le=1)] | None = None

    @model_validator(mode="after")
    def _table_or_cube(self) -> IngestSpec:
        if (self.row is None) == (self.chunks is None):
            raise PydanticCustomError("row", "give row: (a table) or chunks: (a cube of NetCDF or Zarr), not both")
        if self.chunks is not None and (self.derive or self.append):
            word = "derive" if self.derive else "append"
            raise PydanticCustomError(word, "{word}: is for tables; remove it, or give row:", {"word": word})
        if self.row is not None and (self.concat or self.format in ("netcdf", "zarr")):
            raise PydanticCustomError("row", "NetCDF and Zarr become a cube; give chunks: instead of row:")
        if self.append and self.sample is not None:
            raise PydanticCustomError("sample", "sample: and append: exclude each other; remove one of them")
        return self

    @property
    def origin(self) -> str:
        """The sources as the user named them."""
        return ", ".join(self.source)


TABLES = ("ingest", "generate", "map", "rechunk")
MATRICES = ("features", "samples")
"""Kinds that write a feature matrix."""


class ValidateSpec(StageSpec):
    """Check rules on a table; a broken rule fails the run, or warns where it says ``else: warn``."""

    kind: Literal["validate"] = "validate"
    input: Word
    rules: Annotated[list[AnyRule], Field(min_length=1)]

    def references(self) -> dict[str, str]:
        return {"input": self.input, **super().references()}

    def resolves_to(self) -> dict[str, tuple[str, ...]]:
        return {"input": (*TABLES, "features", "predict")}


class MatrixOut(Spec):
    """Chunks, shards (the unit of work) and type of a feature matrix, in rows."""

    chunk: Annotated[int, Field(gt=0)] | None = None
    shard: Annotated[int, Field(gt=0)] | None = None
    dtype: Literal["float32", "float64"] = "float32"

    @model_validator(mode="after")
    def _whole_chunks(self) -> MatrixOut:
        if self.chunk and self.shard and self.shard % self.chunk:
            raise PydanticCustomError(
                "shard", "shard {shard} is not a multiple of chunk {chunk}; use {fix}",
                {"shard": self.shard, "chunk": self.chunk, "fix": max(1, self.shard // self.chunk) * self.chunk},
            )  # fmt: skip
        return self


class FeaturesSpec(StageSpec):
    """Fit a recipe on the rows of ``fit_where`` and write the feature matrix of all rows.

    Attributes
    ----------
    folds : mapping, optional
        Fit the recipe once more per fold, on the other folds, and write those features too: for a search with
        ``split: {refit: {}}``.
    """

    kind: Literal["features"] = "features"
    input: Word
    tables: dict[Word, Word] = Field(default_factory=dict)
    known_at: Expression
    fit_where: Expression | None = None
    target: Column | None = None
    folds: FoldsBy | None = None
    out: MatrixOut = Field(default_factory=MatrixOut)
    steps: Annotated[list[AnyStep], Field(min_length=1)]

    def references(self) -> dict[str, str]:
        return {
            "input": self.input,
            **{f"tables.{name}": stage for name, stage in self.tables.items()},
            **super().references(),
        }

    def resolves_to(self) -> dict[str, tuple[str, ...]]:
        return {"input": TABLES, **{f"tables.{name}": TABLES for name in self.tables}}


def _estimator(value: Any) -> Any:
    """``module.Class`` or ``{module.Class: {parameters}}``."""
    if isinstance(value, str):
        return {value: {}}
    if isinstance(value, dict) and len(value) == 1 and next(iter(value.values())) is None:
        return {next(iter(value)): {}}
    return value


def _check_estimator(value: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    path = next(iter(value))
    if "." not in path or not all(part.isidentifier() for part in path.split(".")):
        raise PydanticCustomError(
            "import_path", "{found} is not an import path; write module.Class, such as {example}",
            {"found": repr(path), "example": "sklearn.linear_model.LogisticRegression"},
        )  # fmt: skip
    return value


Estimator = Annotated[
    dict[str, dict[str, Any]],
    BeforeValidator(_estimator),
    Field(min_length=1, max_length=1),
    AfterValidator(_check_estimator),
]
"""One import path and its constructor parameters."""


class SearchSpec(StageSpec):
    """Score settings of an estimator on a feature matrix; the best is used by ``train``."""

    kind: Literal["search"] = "search"
    input: Word
    estimator: Estimator
    space: Annotated[dict[str, AnyDistribution], Field(min_length=1)]
    sampler: AnySampler
    scoring: str
    split: AnySplit
    early_stopping: EarlyStopping | None = None
    trusted: list[TypeName] = Field(default_factory=list)

    @model_validator(mode="after")
    def _agrees(self) -> SearchSpec:
        check_search(self.space, self.sampler, self.early_stopping)
        return self

    def references(self) -> dict[str, str]:
        return {"input": self.input, **super().references()}

    def resolves_to(self) -> dict[str, tuple[str, ...]]:
        return {"input": MATRICES}


class PartialFit(Spec):
    passes: Annotated[int, Field(gt=0, le=1000)] = 1


class Distributed(Spec):
    checkpoint_every: Annotated[int, Field(gt=0)] = 50
    """Rounds."""


class TrainSpec(StageSpec):
    """Fit one estimator on the rows of ``where`` and save the bundle: estimator, recipe, schema.

    Attributes
    ----------
    partial_fit : mapping, optional
        Learn shard by shard in ``passes`` passes, for a matrix that no worker can hold.
    distributed : mapping, optional
        Train XGBoost on all workers together, with a checkpoint every so many rounds.
    trusted : list of str
        Types outside scikit-learn that the model may hold; the stages that load it trust them too.
    """

    kind: Literal["train"] = "train"
    input: Word
    params_from: Word | None = None
    estimator: Estimator | None = None
    where: Expression | None = None
    save_as: Word | None = None
    partial_fit: PartialFit | None = None
    distributed: Distributed | None = None
    trusted: list[TypeName] = Field(default_factory=list)

    @model_validator(mode="after")
    def _one_source(self) -> TrainSpec:
        if self.params_from is None and self.estimator is None:
            raise PydanticCustomError("estimator", "give params_from: (a search stage) or estimator:")
        if self.partial_fit is not None and self.distributed is not None:
            raise PydanticCustomError("distributed", "partial_fit: and distributed: exclude each other; keep one")
        return self

    def references(self) -> dict[str, str]:
        search = {"params_from": self.params_from} if self.params_from else {}
        return {"input": self.input, **search, **super().references()}

    def resolves_to(self) -> dict[str, tuple[str, ...]]:
        return {"input": MATRICES, "params_from": ("search",)}


class EvaluateSpec(StageSpec):
    """Metrics of a trained model on the rows of ``where``.

    Attributes
    ----------
    slices : list of str
        Columns of the table's ``sort_by``, or the target: the metrics for each of their values too.
    bootstrap : int
        Resamples for 95 % intervals.
    against : str, optional
        A train stage whose model is compared on the same rows; or
    champion : str, optional
        A registered name: the champion to beat is compared, when there is one.
    """

    kind: Literal["evaluate"] = "evaluate"
    model: Word
    input: Word
    where: Expression | None = None
    metrics: Annotated[list[AnyMetric], Field(min_length=1)]
    slices: list[Column] = Field(default_factory=list)
    bootstrap: Annotated[int, Field(ge=0, le=10_000)] = 0
    against: Word | None = None
    champion: Word | None = None

    @model_validator(mode="after")
    def _one_other(self) -> EvaluateSpec:
        if self.against and self.champion:
            raise PydanticCustomError("champion", "give against: (a train stage) or champion: (a name), not both")
        return self

    def references(self) -> dict[str, str]:
        against = {"against": self.against} if self.against else {}
        return {"model": self.model, "input": self.input, **against, **super().references()}

    def resolves_to(self) -> dict[str, tuple[str, ...]]:
        return {"model": ("train",), "against": ("train",), "input": MATRICES}


class PredictSpec(StageSpec):
    """Predict every row of a table with a trained bundle alone; its recipe runs on the raw rows.

    Attributes
    ----------
    method : str
        A method of the estimator, or ``module:name`` of a function of the estimator and a matrix.
    output : mapping, optional
        Name, type, dimension and columns of the output, where the model does not tell.
    on_error : str
        ``quarantine`` (rows that fail are missing, with a status), or ``raise``: the first fails the run.
    tables : mapping, optional
        Tables for the recipe's joins; by default those that the model's features stage used.
    max_bad : int
        Rows that may fail (written as missing with a status) before the run fails.
    optimise : list of str
        ``onnx``, ``columns``: faster ways, tried on real rows and used where predictions are the same.
    resources : mapping
        Dask resources that each task needs, such as ``{GPU: 1}``.
    """

    kind: Literal["predict"] = "predict"
    model: Word
    input: Word
    tables: dict[Word, Word] = Field(default_factory=dict)
    method: Method = "predict"
    output: OutputOf = Field(default_factory=OutputOf)
    out: MatrixOut = Field(default_factory=MatrixOut)
    on_error: Literal["quarantine", "raise"] = "quarantine"
    max_bad: Annotated[int, Field(ge=0)] = 0
    optimise: list[Literal["onnx", "columns"]] = Field(default_factory=list)
    resources: dict[Word, Annotated[float, Field(gt=0)]] = Field(default_factory=dict)

    def references(self) -> dict[str, str]:
        return {
            "model": self.model,
            "input": self.input,
            **{f"tables.{name}": stage for name, stage in self.tables.items()},
            **super().references(),
        }

    def resolves_to(self) -> dict[str, tuple[str, ...]]:
        return {"model": ("train",), "input": (*TABLES, "cube"), **{f"tables.{name}": TABLES for name in self.tables}}


class MapSpec(StageSpec):
    """Call a Python function for every item; what it returns becomes a row of a table.

    Attributes
    ----------
    function : str
        ``module:name``; the module lies beside the workflow, or is installed. It takes one item and returns a
        number, text, a flat dict of them, or nothing.
    chunk : int, optional
        Items per unit: they are committed, and run again, together. 1 by default, 1,000 for rows.
    retry : mapping of exception name to int
        How often a unit that raises it is tried again.
    """

    kind: Literal["map"] = "map"
    function: FunctionPath
    over: AnyItems
    chunk: Annotated[int, Field(gt=0)] | None = None
    retry: dict[Word, Annotated[int, Field(gt=0)]] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _files_one_by_one(self) -> MapSpec:
        if isinstance(self.over, MapFiles) and self.chunk not in (None, 1):
            raise PydanticCustomError("chunk", "files are units of their own; remove chunk:")
        return self

    def references(self) -> dict[str, str]:
        rows = {"over.rows.of": self.over.rows.of} if isinstance(self.over, MapRows) else {}
        return {**rows, **super().references()}

    def resolves_to(self) -> dict[str, tuple[str, ...]]:
        return {"over.rows.of": (*TABLES, "predict")}


class RechunkSpec(StageSpec):
    """Write a dataset in other chunks, with bounded memory; what cannot be read in its own chunks passes through here.

    Attributes
    ----------
    input : str, optional
        The stage whose dataset it is; or
    source : str, optional
        URL of any Zarr dataset.
    chunks, shards : mapping of dimension to int
        Elements per chunk, and per stored object; -1 is the whole dimension.
    memory : str
        What one task may take.
    """

    kind: Literal["rechunk"] = "rechunk"
    input: Word | None = None
    source: Annotated[str, Field(min_length=1)] | None = None
    chunks: Annotated[dict[Word, ChunkLength], Field(min_length=1)]
    shards: dict[Word, ChunkLength] = Field(default_factory=dict)
    memory: ByteSize = "256MiB"

    @model_validator(mode="after")
    def _one_input(self) -> RechunkSpec:
        if (self.input is None) == (self.source is None):
            raise PydanticCustomError("input", "give input: (a stage) or source: (the URL of a Zarr dataset), not both")
        return self

    def references(self) -> dict[str, str]:
        return {**({"input": self.input} if self.input else {}), **super().references()}

    def resolves_to(self) -> dict[str, tuple[str, ...]]:
        return {"input": (*TABLES, "features", "predict")}


class ChampionIf(Spec):
    """The metric must be at least as good as ``least``, and better than the champion's, by ``by``, on the same rows."""

    metric: Metric
    least: float | None = None
    by: Annotated[float, Field(ge=0)] = 0.0


class RegisterSpec(StageSpec):
    """Put a trained model into the store's registry as the next version; the champion if it is good enough.

    Attributes
    ----------
    name : str, optional
        In the registry; by default the name that the model is saved under.
    scores : str, optional
        The evaluate stage whose metrics are kept with the version, and judged.
    champion_if : mapping, optional
        Without it every version becomes the champion.
    """

    kind: Literal["register"] = "register"
    model: Word
    name: Word | None = None
    scores: Word | None = None
    champion_if: ChampionIf | None = None

    @model_validator(mode="after")
    def _scored(self) -> RegisterSpec:
        if self.champion_if and not self.scores:
            raise PydanticCustomError("scores", "champion_if needs scores: (an evaluate stage)")
        return self

    def references(self) -> dict[str, str]:
        return {"model": self.model, **({"scores": self.scores} if self.scores else {}), **super().references()}

    def resolves_to(self) -> dict[str, tuple[str, ...]]:
        return {"model": ("train",), "scores": ("evaluate",)}


class DriftLimit(Spec):
    """Above which value a measure is told, and above which it fails the run."""

    warn: Annotated[float, Field(ge=0)] | None = None
    fail: Annotated[float, Field(ge=0)] | None = None


class MonitorSpec(StageSpec):
    """Compare predicted rows with those of training; the predict stage counts them in its own pass.

    Attributes
    ----------
    predictions : str
        The predict stage.
    slices : list of str
        Columns of its table: the comparison for each of their values too.
    psi, ks : mapping
        Limits of each feature: population stability index, Kolmogorov-Smirnov distance.
    missing : mapping
        Limits of the rise of a feature's share of missing values.
    prediction : mapping
        Limits of the PSI of the predictions.
    """

    kind: Literal["monitor"] = "monitor"
    predictions: Word
    slices: list[Column] = Field(default_factory=list)
    psi: DriftLimit = Field(default_factory=lambda: DriftLimit(warn=0.25))
    ks: DriftLimit = Field(default_factory=DriftLimit)
    missing: DriftLimit = Field(default_factory=lambda: DriftLimit(warn=0.05))
    prediction: DriftLimit = Field(default_factory=lambda: DriftLimit(warn=0.25))

    def references(self) -> dict[str, str]:
        return {"predictions": self.predictions, **super().references()}

    def resolves_to(self) -> dict[str, tuple[str, ...]]:
        return {"predictions": ("predict",)}


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
    """

    version: Version
    name: Word
    store: Annotated[str, Field(min_length=1)]
    cluster: str = "local"
    seed: int = 0
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
