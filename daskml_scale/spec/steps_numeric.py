"""Steps on numbers: imputing, scaling, clipping, binning, products, expressions, principal components.

Some learn from small statistics of table columns in the one fitting pass; what they
learn is in ``stages.features.learning``. No numbers are computed here.
"""

from __future__ import annotations

from itertools import combinations
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from .base import Column
from .expressions import Expression, names
from .step_base import Columns, InPlace, Step


class Impute(InPlace):
    """Fill missing numbers; keeps the column's name. ``indicator`` adds ``<name>_missing``, 1 where it was.

    ``median`` lies within the bucket error (below 0.1 % of the value); ``most_frequent`` is the smallest
    of the most frequent values. A column that is missing in every row seen in ``fit`` stays missing.
    """

    step: ClassVar[str] = "impute"
    by: Literal["mean", "median", "most_frequent", "constant"] = "mean"
    value: float | None = None
    indicator: bool = False

    @model_validator(mode="after")
    def _value_with_constant(self) -> Self:
        if (self.by == "constant") != (self.value is not None):
            raise PydanticCustomError("impute_value", "by: constant and value: go together; give both or neither")
        return self

    def outputs(self) -> tuple[str, ...]:
        return (*self.of, *(f"{name}_missing" for name in self.of if self.indicator))


class Standardize(InPlace):
    """``(value - mean) / standard deviation`` of the rows seen in ``fit``; a constant column gives 0."""

    step: ClassVar[str] = "standardize"


class MinMax(InPlace):
    """Scale so that the rows seen in ``fit`` lie in ``[low, high]``; a constant column gives ``low``."""

    step: ClassVar[str] = "min_max"
    low: float = 0.0
    high: float = 1.0

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if not self.low < self.high:
            raise PydanticCustomError(
                "min_max", "low {low} is not below high {high}", {"low": self.low, "high": self.high}
            )
        return self


class Robust(InPlace):
    """``(value - median) / (upper quartile - lower quartile)``, within the bucket error of the three."""

    step: ClassVar[str] = "robust"


class Log(InPlace):
    """``log(1 + value)``, or ``log(value)`` with ``plus_one: false``; what has no logarithm is missing."""

    step: ClassVar[str] = "log"
    plus_one: bool = True


class Clip(InPlace):
    """Limit values to ``[low, high]``; a missing limit does not limit."""

    step: ClassVar[str] = "clip"
    low: float | None = None
    high: float | None = None

    @model_validator(mode="after")
    def _a_limit(self) -> Self:
        if self.low is None and self.high is None:
            raise PydanticCustomError("clip", "give low:, high: or both")
        if self.low is not None and self.high is not None and self.low > self.high:
            raise PydanticCustomError("clip", "low {low} is above high {high}", {"low": self.low, "high": self.high})
        return self


class Bin(InPlace):
    """Number of the bin of a value, from 0: ``bins`` of equal width, or of equal row counts (``quantile``).

    Edges come from the rows seen in ``fit``; values beyond them go to the first and last bin. A bin holds
    its lower edge. Equal edges are joined, so there may be fewer bins.
    """

    step: ClassVar[str] = "bin"
    bins: Annotated[int, Field(ge=2, le=1000)] = 10
    by: Literal["width", "quantile"] = "width"


class Rename(Step):
    """Numeric columns or earlier features under other names: ``of: {new: old}``.

    An earlier feature has its new name only; a column of the table stays what it is.
    """

    step: ClassVar[str] = "rename"
    of: Annotated[dict[Column, Column], Field(min_length=1)]

    def reads(self) -> tuple[str, ...]:
        return tuple(self.of.values())

    def outputs(self) -> tuple[str, ...]:
        return tuple(self.of)

    def removes(self) -> tuple[str, ...]:
        return tuple(self.of.values())


class Cast(InPlace):
    """Values as another type holds them; keeps the column's name. What does not fit is missing.

    Whole-number types drop the fraction (towards 0), and values beyond their range are missing: nothing wraps
    around. ``bool`` is 1 where a value is not 0. ``float32`` rounds. A category is read as a number, such as
    ``"12.5"``; other text is missing.
    """

    step: ClassVar[str] = "cast"
    to: Literal["bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "float32", "float64"]


class Interactions(Step):
    """Products of every two of the columns: ``<a>_x_<b>``."""

    step: ClassVar[str] = "interactions"
    of: Annotated[list[Column], Field(min_length=2)]

    def reads(self) -> tuple[str, ...]:
        return tuple(self.of)

    def outputs(self) -> tuple[str, ...]:
        return tuple(f"{one}_x_{other}" for one, other in combinations(self.of, 2))


class Compute(Step):
    """One feature per name from an expression of the whitelisted grammar, such as ``speed: distance / hours``."""

    step: ClassVar[str] = "compute"
    features: Annotated[dict[Column, Expression], Field(min_length=1)]

    def reads(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(name for text in self.features.values() for name in names(text)))

    def outputs(self) -> tuple[str, ...]:
        return tuple(self.features)


class PCA(Step):
    """Principal components by the covariance of the rows seen in ``fit``: ``<prefix>0``, ``<prefix>1``, ...

    A row with a missing value is not learnt from, and has no components.
    """

    step: ClassVar[str] = "pca"
    of: Columns
    components: Annotated[int, Field(ge=1)]
    prefix: str = "pc"

    @model_validator(mode="after")
    def _not_more_than_columns(self) -> Self:
        if self.components > len(self.of):
            raise PydanticCustomError(
                "pca", "{components} components of {columns} columns; at most as many as columns",
                {"components": self.components, "columns": len(self.of)},
            )  # fmt: skip
        return self

    def reads(self) -> tuple[str, ...]:
        return tuple(self.of)

    def outputs(self) -> tuple[str, ...]:
        return tuple(f"{self.prefix}{number}" for number in range(self.components))


NUMERIC_STEPS: tuple[type[Step], ...] = (
    Impute, Standardize, MinMax, Robust, Log, Clip, Bin, Rename, Cast, Interactions, Compute, PCA,
)  # fmt: skip
