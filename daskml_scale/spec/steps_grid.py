"""Steps on gridded variables: anomalies, lags, leads, windows in space, coarsening. What a ``cube`` stage is told.

A step reads variables of the cube, or what earlier steps made, and appends variables of the same
dimensions. ``reach`` says how far beyond a cell it looks: the halo of a unit of work follows from it.
No step computes anything here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, TypeAlias, Union

from pydantic import BeforeValidator, Discriminator, Field, Tag
from pydantic_core import PydanticCustomError

from .base import Column, Spec, Word
from .step_base import Columns

Positive = Annotated[int, Field(ge=1, le=10_000)]
Reach: TypeAlias = dict[str, tuple[int, int]]
"""Dimension -> cells before and after."""


class GridStep(Spec):
    """Base of the steps of this module."""

    step: ClassVar[str]
    """Name in YAML."""
    of: Columns

    def outputs(self) -> tuple[str, ...]:
        """Return the names of the variables that the step appends, in order."""
        raise TypeError(f"{type(self).__name__} does not name what it makes")

    def reach(self, time: str) -> Reach:
        """Return how far the step looks along which dimension; ``time`` is that of time."""
        return {}


class KeepGrid(GridStep):
    """Variables as they are."""

    step: ClassVar[str] = "keep"

    def outputs(self) -> tuple[str, ...]:
        return tuple(self.of)


class Anomalies(GridStep):
    """The value less the cell's mean of the same calendar month, or day of the year: ``<name>_anomaly``.

    The means (the climatology) are those of the times of ``fit_where``. A month of which they hold no
    value gives NaN.
    """

    step: ClassVar[str] = "anomalies"
    by: Literal["month", "dayofyear"] = "month"

    def outputs(self) -> tuple[str, ...]:
        return tuple(f"{name}_anomaly" for name in self.of)


class GridLag(GridStep):
    """The cell's value n time steps before: ``<name>_lag_<n>``; NaN before the first."""

    step: ClassVar[str] = "lag"
    lags: Annotated[list[Positive], Field(min_length=1)]

    def outputs(self) -> tuple[str, ...]:
        return tuple(f"{name}_lag_{number}" for name in self.of for number in self.lags)

    def reach(self, time: str) -> Reach:
        return {time: (max(self.lags), 0)}


class Lead(GridStep):
    """The cell's value n time steps later, which is what is to be predicted: ``<name>_lead_<n>``.

    What is made of a lead is no feature: ``samples`` refuses it.
    """

    step: ClassVar[str] = "lead"
    leads: Annotated[list[Positive], Field(min_length=1)]

    def outputs(self) -> tuple[str, ...]:
        return tuple(f"{name}_lead_{number}" for name in self.of for number in self.leads)

    def reach(self, time: str) -> Reach:
        return {time: (0, max(self.leads))}


class Window(GridStep):
    """A statistic of the cells around, so many to either side, the cell itself included: ``<name>_<stat>_near``.

    Missing cells, and those beyond the edge, are left out; ``std`` has the divisor n.
    """

    step: ClassVar[str] = "window"
    size: Annotated[dict[Word, Annotated[int, Field(ge=1, le=1000)]], Field(min_length=1)]
    stat: Literal["mean", "min", "max", "std"] = "mean"

    def outputs(self) -> tuple[str, ...]:
        return tuple(f"{name}_{self.stat}_near" for name in self.of)

    def reach(self, time: str) -> Reach:
        return {dim: (cells, cells) for dim, cells in self.size.items()}


_ALL: tuple[type[GridStep], ...] = (KeepGrid, Anomalies, GridLag, Lead, Window)
GRID_STEPS: dict[str, type[GridStep]] = {cls.step: cls for cls in _ALL}
"""YAML name -> class."""


class Coarsen(Spec):
    """Fewer, larger cells before all steps: ``sizes: {lat: 2, lon: 2}`` joins four cells by ``stat``.

    Missing cells are left out. ``boundary: trim`` leaves out a remainder at the end of a dimension, which
    is refused else.
    """

    sizes: Annotated[dict[Word, Annotated[int, Field(ge=2, le=10_000)]], Field(min_length=1)]
    stat: Literal["mean", "min", "max", "sum"] = "mean"
    boundary: Literal["exact", "trim"] = "exact"


def _unwrap(value: Any) -> Any:
    if isinstance(value, GridStep):
        return value
    if not isinstance(value, dict) or len(value) != 1:
        raise PydanticCustomError(
            "step_shape", "a step is one name with its settings, such as {example}; found {found}",
            {"example": "'anomalies: {of: [t2m]}'", "found": repr(value)[:80]},
        )  # fmt: skip
    return value


def _tag(value: Any) -> str | None:
    if isinstance(value, GridStep):
        return value.step
    name = next(iter(value), None) if isinstance(value, dict) else None
    return name if name in GRID_STEPS else None


def _content(cls: type[GridStep]) -> Any:
    def open_wrapper(value: Any) -> Any:
        return value if isinstance(value, GridStep) else value[cls.step]

    return Annotated[cls, BeforeValidator(open_wrapper), Tag(cls.step)]


if TYPE_CHECKING:
    AnyGridStep: TypeAlias = GridStep
else:
    AnyGridStep = Annotated[
        Annotated[
            Union[tuple(_content(cls) for cls in GRID_STEPS.values())],  # noqa: UP007
            Discriminator(
                _tag,
                custom_error_type="unknown_step",
                custom_error_message="unknown step; known: " + ", ".join(sorted(GRID_STEPS)),
            ),
        ],
        BeforeValidator(_unwrap),
    ]
"""A step in a spec: an instance, or ``{name: settings}``."""


def later(steps: list[GridStep]) -> set[str]:
    """Return the variables that are made of a lead, which are not known at their time."""
    found: set[str] = set()
    for step in steps:
        if isinstance(step, Lead) or found.intersection(step.of):
            found.update(step.outputs())
    return found


def features_of(steps: list[GridStep]) -> list[Column]:
    """Return what the steps make, in order, leads and what is made of them left out."""
    late = later(steps)
    return [name for step in steps for name in step.outputs() if name not in late]
