"""Stages of a workflow file about tables and matrices: ingest, validate, features, map, rechunk.

The classes check what a file alone can tell: names, types, references. ``workflow`` joins all kinds.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from .base import ByteSize, Column, Spec, Word, as_list
from .expressions import Expression
from .folds import FoldsBy
from .items import AnyItems, FunctionPath, MapFiles, MapRows
from .rules import AnyRule
from .stage_base import ChunkLength, StageSpec
from .steps import AnyStep

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


Sources = Annotated[
    list[Annotated[str, Field(min_length=1)]],
    BeforeValidator(as_list, json_schema_input_type=str | list[str]),
    Field(min_length=1),
]
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
            raise PydanticCustomError(
                "row", "give one of the two: row: {dim: NAME} makes a table, chunks: {DIM: N} a cube of NetCDF or Zarr"
            )
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
            raise PydanticCustomError(
                "input", "give input: (a stage) or source: (the URL of a Zarr dataset), one of the two"
            )
        return self

    def references(self) -> dict[str, str]:
        return {**({"input": self.input} if self.input else {}), **super().references()}

    def resolves_to(self) -> dict[str, tuple[str, ...]]:
        return {"input": (*TABLES, "features", "predict")}
