"""How a search stage draws, splits and stops: the parts of ``SearchSpec``. They know no data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, model_validator
from pydantic_core import PydanticCustomError

from .base import Column, Duration, Spec
from .space import Distribution, in_order


def _one_of(value: Any, **models: type[Spec]) -> str | None:
    """Return the tag of a one-key mapping, or of an instance."""
    for tag, model in models.items():
        if isinstance(value, model) or (isinstance(value, dict) and tag in value):
            return tag
    return None


class RandomTrials(Spec):
    trials: Annotated[int, Field(gt=0, le=100_000)]


class Random(Spec):
    random: RandomTrials


class OptunaTrials(Spec):
    """Suggested by Optuna from the scores so far, ``batch`` at a time: these run side by side."""

    trials: Annotated[int, Field(gt=0, le=10_000)]
    batch: Annotated[int, Field(gt=0, le=1000)] = 8
    sampler: Literal["tpe", "gp", "random", "qmc"] = "tpe"


class Optuna(Spec):
    optuna: OptunaTrials


class GridTrials(Spec):
    pass


class Grid(Spec):
    grid: GridTrials


AnySampler = Annotated[
    Annotated[Random, Tag("random")] | Annotated[Grid, Tag("grid")] | Annotated[Optuna, Tag("optuna")],
    Discriminator(
        lambda value: _one_of(value, random=Random, grid=Grid, optuna=Optuna),
        custom_error_type="unknown_sampler",
        custom_error_message="unknown sampler; known: random, grid, optuna",
    ),
]


class TimeSplitOf(Spec):
    """Train on rows before ``train_until``, validate on those from there to ``validate_until``.

    Rows within ``embargo`` before ``train_until`` are left out: what they know may reach into the validated time.
    """

    of: Column
    train_until: str
    validate_until: str
    embargo: Duration | None = None

    @model_validator(mode="after")
    def _ordered(self) -> TimeSplitOf:
        from .grammar import instant

        try:
            first, last = instant(self.train_until), instant(self.validate_until)
        except ValueError as error:
            raise PydanticCustomError("instant", "{reason}", {"reason": str(error)}) from None
        if not first < last:
            raise PydanticCustomError(
                "split", "train_until {first} is not before validate_until {last}",
                {"first": self.train_until, "last": self.validate_until},
            )  # fmt: skip
        return self


class TimeSplit(Spec):
    time: TimeSplitOf


class FoldsOf(Spec):
    """Contiguous or shuffled folds; stratified by the target when shuffled and it is a class."""

    folds: Annotated[int, Field(ge=2, le=1000)] = 5
    shuffle: bool = False


class Folds(Spec):
    kfold: FoldsOf


class GroupsOf(Spec):
    """Folds that keep the rows of one value of a column together."""

    of: Column
    folds: Annotated[int, Field(ge=2, le=1000)] = 5


class Groups(Spec):
    group: GroupsOf


class PredefinedOf(Spec):
    """A column says in which fold a row is validated; below zero, or missing: it is only trained on."""

    of: Column


class Predefined(Spec):
    predefined: PredefinedOf


class RefitOf(Spec):
    pass


class Refit(Spec):
    """The folds of the features stage (``folds:``): each is scored on features of a recipe that never saw it."""

    refit: RefitOf


AnySplit = Annotated[
    Annotated[TimeSplit, Tag("time")]
    | Annotated[Folds, Tag("kfold")]
    | Annotated[Groups, Tag("group")]
    | Annotated[Predefined, Tag("predefined")]
    | Annotated[Refit, Tag("refit")],
    Discriminator(
        lambda value: _one_of(value, time=TimeSplit, kfold=Folds, group=Groups, predefined=Predefined, refit=Refit),
        custom_error_type="unknown_split",
        custom_error_message="unknown split; known: time, kfold, group, predefined, refit",
    ),
]


class EarlyStopping(Spec):
    """Successive halving: all trials with ``min`` of the resource, the best one in ``factor`` with ``factor`` times it.

    Attributes
    ----------
    resource : str
        ``n_samples`` (rows to train on), or a parameter such as ``n_estimators``.
    """

    resource: str = "n_samples"
    min: Annotated[int, Field(ge=1)]
    max: Annotated[int, Field(ge=1)]
    factor: Annotated[float, Field(gt=1, le=100)] = 3.0

    @model_validator(mode="after")
    def _ordered(self) -> EarlyStopping:
        if self.min > self.max:
            raise PydanticCustomError("bounds", "min {a} is above max {b}", {"a": self.min, "b": self.max})
        return self


def check_search(space: Mapping[str, Distribution], sampler: Any, stopping: EarlyStopping | None) -> None:
    """Check what only the parts together can tell.

    Raises
    ------
    PydanticCustomError
    """
    try:
        in_order(space)
    except ValueError as error:
        raise PydanticCustomError("space", "space: {reason}", {"reason": str(error)}) from None
    if stopping is not None and isinstance(sampler, Optuna):
        raise PydanticCustomError("early_stopping", "early_stopping goes with the samplers random and grid", {})
    if stopping is not None and stopping.resource in space:
        raise PydanticCustomError(
            "early_stopping", "{name} is the resource and cannot be searched as well", {"name": stopping.resource}
        )
