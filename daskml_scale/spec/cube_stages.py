"""The stage kinds of generated data and of grids: ``generate``, ``cube``, ``samples``. Models only."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from .base import Column, Word
from .expressions import Expression, names
from .items import FunctionPath
from .stage_base import ChunkLength, StageSpec
from .steps_grid import Anomalies, AnyGridStep, Coarsen, GridStep, Window

CUBES = ("generate", "rechunk", "cube")
"""Kinds whose output has several dimensions."""
Size = Annotated[int, Field(ge=0)]


class GenerateSpec(StageSpec):
    """Write what a Python function makes, region by region: a table, or variables over several dimensions.

    Attributes
    ----------
    function : str
        ``module:name``; it is given a region (a mapping of dimension to slice) and ``options`` by name, and
        returns an xarray Dataset of that region. The same region always holds the same values, whatever its
        neighbours: seed by place, not by call.
    dims : mapping of dimension to int
        Size of every dimension; the first one is that of rows.
    chunks : mapping of dimension to int
        Elements per chunk, the unit of work; a dimension that is not named is not split.
    """

    kind: Literal["generate"] = "generate"
    function: FunctionPath
    dims: Annotated[dict[Word, Size], Field(min_length=1)]
    chunks: dict[Word, ChunkLength] = Field(default_factory=dict)
    options: dict[Word, Any] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _known_dims(self) -> GenerateSpec:
        _check_dims("chunks", self.chunks, self.dims)
        return self


class CubeSpec(StageSpec):
    """Features of the cells of a cube, as variables of a cube: anomalies, lags, windows in space.

    Attributes
    ----------
    time : str
        The dimension of time, whose coordinate rises.
    fit_where : str, optional
        Condition on the time: the times that climatologies are learnt from; all by default.
    coarsen : mapping, optional
        Fewer, larger cells before all steps.
    chunks : mapping of dimension to int
        Of the output; by default those of the input.
    """

    kind: Literal["cube"] = "cube"
    input: Word
    time: Word = "time"
    fit_where: Expression | None = None
    coarsen: Coarsen | None = None
    steps: Annotated[list[AnyGridStep], Field(min_length=1)]
    chunks: dict[Word, ChunkLength] = Field(default_factory=dict)
    dtype: Literal["float32", "float64"] = "float32"

    @model_validator(mode="after")
    def _sound(self) -> CubeSpec:
        if self.coarsen and self.time in self.coarsen.sizes:
            raise PydanticCustomError(
                "coarsen", "coarsen: {time} is the dimension of time; a month has no fixed number of steps: coarsen "
                "space only", {"time": self.time},
            )  # fmt: skip
        others = [name for name in names(self.fit_where or "1 == 1") if name != self.time]
        if others:
            raise PydanticCustomError(
                "fit_where",
                "fit_where reads {found}; it may read {time} only, the dimension that time: names",
                {"found": others[0], "time": self.time},
            )
        _check_steps(self.steps, self.time)
        return self

    def references(self) -> dict[str, str]:
        return {"input": self.input, **super().references()}

    def resolves_to(self) -> dict[str, tuple[str, ...]]:
        return {"input": (*CUBES, "ingest")}


class SamplesSpec(StageSpec):
    """Cells of a cube as rows of a feature matrix, in the order of the dimensions: what an estimator learns from.

    Attributes
    ----------
    target : str
        The variable to predict: one that a ``lead`` made, or another.
    features : list of str, optional
        By default all that the cube's steps make, leads and what is made of them left out.
    """

    kind: Literal["samples"] = "samples"
    input: Word
    target: Column
    features: Annotated[list[Column], Field(min_length=1)] | None = None
    dtype: Literal["float32", "float64"] = "float32"

    @model_validator(mode="after")
    def _no_leak(self) -> SamplesSpec:
        if self.features and self.target in self.features:
            raise PydanticCustomError("leak", "{name} is the target; remove it from features", {"name": self.target})
        return self

    def references(self) -> dict[str, str]:
        return {"input": self.input, **super().references()}

    def resolves_to(self) -> dict[str, tuple[str, ...]]:
        return {"input": ("cube",)}


def _check_steps(steps: list[GridStep], time: str) -> None:
    """Refuse doubled names, climatologies of what steps make, and windows that look into the future."""
    made: set[str] = set()
    for position, step in enumerate(steps):
        at = f"steps[{position}].{step.step}"
        if isinstance(step, Anomalies) and (taken := made.intersection(step.of)):
            raise PydanticCustomError(
                "made", "{at}.of: {name} is made by an earlier step; a climatology is learnt from variables of the "
                "cube only: take the anomalies first", {"at": at, "name": min(taken)},
            )  # fmt: skip
        if isinstance(step, Window) and time in step.size:
            raise PydanticCustomError(
                "leak", "{at}.size: {time} is the dimension of time, and a window looks to both sides; use lag",
                {"at": at, "time": time},
            )  # fmt: skip
        if doubled := made.intersection(step.outputs()):
            raise PydanticCustomError(
                "doubled", "{at} makes {name} again; remove one", {"at": at, "name": min(doubled)}
            )
        made.update(step.outputs())


def _check_dims(key: str, given: dict[str, int], dims: dict[str, int]) -> None:
    for dim in given:
        if dim not in dims:
            raise PydanticCustomError(
                "dims", "{key}: there is no dimension {dim}; it has {dims}",
                {"key": key, "dim": dim, "dims": ", ".join(dims)},
            )  # fmt: skip
