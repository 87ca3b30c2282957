"""Stages of a workflow file about models: search, train, evaluate, predict, register, monitor.

The classes check what a file alone can tell: names, types, references. ``workflow`` joins all kinds.
"""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from .base import Column, Spec, Word, check_import_path, with_parameters
from .expressions import Expression
from .predictions import AnyMetric, Method, Metric, OutputOf
from .searching import AnySampler, AnySplit, EarlyStopping, check_search
from .space import AnyDistribution
from .stage_base import StageSpec
from .steps_learned import TypeName
from .table_stages import MATRICES, TABLES, MatrixOut

Estimator = Annotated[
    dict[str, dict[str, Any]],
    BeforeValidator(with_parameters, json_schema_input_type=str | dict[str, dict[str, Any] | None]),
    Field(min_length=1, max_length=1),
    AfterValidator(partial(check_import_path, example="sklearn.linear_model.LogisticRegression")),
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
