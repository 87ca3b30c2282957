"""Steps that join what was learnt of whole groups, wrap an estimator of scikit-learn, or call the user's function.

What they learn is in ``stages.features.aggregate``, ``.estimators`` and ``.calling``. No numbers are computed here.
"""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from .base import Column, check_import_path, with_parameters
from .items import FunctionPath
from .step_base import Columns, Step

TypeName = Annotated[str, Field(pattern=r"^[^\W\d]\w*(\.[^\W\d]\w*)+$")]
"""Full name of a type: ``module.Class``."""
Stat = Literal["mean", "sum", "count", "min", "max", "std"]


class Aggregate(Step):
    """Statistics of a group's rows seen in ``fit``, joined back to each of its rows: ``<of>_<stat>_by_<by>``.

    A row's own value is among them, so what is known of it only later (the target, a delay) needs
    ``fold_by``: then a row's fold is decided by the value of that column alone, and its statistics come from
    the rows of the other folds, in training and prediction alike. A group never seen gives NaN, and 0 for
    ``count``; missing values do not count, and a missing ``by`` belongs to no group. ``std`` has divisor n - 1.
    """

    step: ClassVar[str] = "aggregate"
    of: Columns
    by: Columns
    stats: Annotated[list[Stat], Field(min_length=1)]
    fold_by: Column | None = None
    folds: Annotated[int, Field(ge=2, le=100)] = 5

    @model_validator(mode="after")
    def _folds_by_something(self) -> Self:
        if self.fold_by is None and self.folds != 5:
            raise PydanticCustomError("folds", "folds: needs fold_by:, the column that tells rows or entities apart")
        return self

    def reads(self) -> tuple[str, ...]:
        """The columns read at the row itself: those aggregated are not."""
        return (*self.by, *([self.fold_by] if self.fold_by else []))

    def outputs(self) -> tuple[str, ...]:
        by = "_".join(self.by)
        return tuple(f"{name}_{stat}_by_{by}" for name in self.of for stat in self.stats)


class SklearnStep(Step):
    """Any scikit-learn transformer: ``<prefix><name>`` per name of its ``get_feature_names_out``.

    It is fitted on a seeded sample of whole chunks with at least ``sample`` rows, or on all rows chunk by chunk
    in their order (``by: partial_fit``). It is given a DataFrame of the columns, in which categories are text;
    a selector that needs the target gets it. It is saved by skops, and types outside scikit-learn are ``trusted``
    by name. Its ``transform`` must treat each row by itself.
    """

    step: ClassVar[str] = "sklearn"
    of: Columns
    transformer: Annotated[
        dict[str, dict[str, Any]],
        BeforeValidator(with_parameters, json_schema_input_type=str | dict[str, dict[str, Any] | None]),
        Field(min_length=1, max_length=1),
        AfterValidator(partial(check_import_path, example="sklearn.preprocessing.PowerTransformer")),
    ]
    by: Literal["sample", "partial_fit"] = "sample"
    sample: Annotated[int, Field(ge=1)] = 100_000
    seed: int = 0
    prefix: str = ""
    trusted: list[TypeName] = Field(default_factory=list)

    @model_validator(mode="after")
    def _sample_or_all(self) -> Self:
        if self.by == "partial_fit" and self.sample != 100_000:
            raise PydanticCustomError("sample", "by: partial_fit learns from all rows; remove sample:")
        return self

    def reads(self) -> tuple[str, ...]:
        return tuple(self.of)

    def outputs(self) -> tuple[str, ...]:
        return ()

    @property
    def names_learnt(self) -> bool:
        return True


class Function(Step):
    """Features of the user's own function ``module:name``, in a module beside the workflow or installed.

    It takes ``{column: array of shape (rows,)}`` (categories as text, ``None`` where missing) and returns one
    array of shape (rows,), or (rows, features), or a mapping of name to array. ``makes`` names the features and
    ``dtype`` is what it returns; both are checked. Its code is part of every fingerprint, and a recipe fitted
    with other code is refused. Each row must be treated by itself.
    """

    step: ClassVar[str] = "function"
    call: FunctionPath
    of: Columns
    makes: Columns
    dtype: Literal["bool", "int64", "float32", "float64"] = "float64"

    def reads(self) -> tuple[str, ...]:
        return tuple(self.of)

    def outputs(self) -> tuple[str, ...]:
        return tuple(self.makes)


LEARNED_STEPS: tuple[type[Step], ...] = (Aggregate, SklearnStep, Function)
