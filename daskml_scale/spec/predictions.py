"""What stages ask of a model: metrics, a method or a function, and the output where the model does not tell."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field
from pydantic_core import PydanticCustomError

from .base import Spec, Word
from .explain import unknown
from .items import check_function

Metric = Literal[
    "roc_auc", "average_precision", "log_loss", "brier", "accuracy", "balanced_accuracy", "f1",
    "r2", "mean_absolute_error", "median_absolute_error", "root_mean_squared_error",
]  # fmt: skip
"""Metrics of which it is known whether more or less is better."""
AnyMetric = Metric | Literal["calibration", "mean_error"]
METHODS = ("predict", "predict_proba", "decision_function", "transform")


def _check_method(value: str) -> str:
    if ":" in value:
        return check_function(value)
    if value not in METHODS:
        raise PydanticCustomError(
            "method", "{what}; or write module:name of a function", {"what": unknown("method", value, METHODS)}
        )  # fmt: skip
    return value


Method = Annotated[str, AfterValidator(_check_method)]
"""A method of the estimator, or ``module:name``: a function of the estimator and a matrix (rows, features)."""


class OutputOf(Spec):
    """What a prediction is, where the model does not tell: columns are the labels of several values per row.

    Attributes
    ----------
    codec : str, optional
        How values are compressed: ``lz4`` (the default), ``zstd``, ``zstd:9``, ``none``.
    """

    name: Word | None = None
    dtype: Literal["float16", "float32", "float64"] | None = None
    dim: Word | None = None
    columns: Annotated[list[str] | list[float], Field(min_length=1)] | None = None
    codec: Annotated[str, Field(pattern=r"^(lz4|zstd(:[0-9])?|none)$")] | None = None
