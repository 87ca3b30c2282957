"""``dms.predict`` without a stage: lazy results, and tables in memory, with the kernels of the stage.

A lazy prediction is one Dask block per chunk of features; the model is loaded once per process, never
put into the graph. This module joins ``Recipe`` and ``Model`` and computes nothing itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from daskml_scale.engine.worker import WorkerContext
from daskml_scale.errors import UsageError
from daskml_scale.plan.records import digest
from daskml_scale.spec.workflow import ROWS_PER_CHUNK, MatrixOut
from daskml_scale.storage import files, stores, tables

from .base import Stage
from .features.bound import Bound, bind, origins
from .features.bounds import Ranges
from .functions import code_digest
from .isolate import GIVE_UP
from .matrix import FEATURE_NAMES, FEATURES
from .outputs import Layout, bad_counts, concluded
from .scoring import Job, Model, without_target

if TYPE_CHECKING:
    import xarray as xr


@dataclass(frozen=True, eq=False)
class Source:
    """A model bound to the rows that it predicts.

    Attributes
    ----------
    bound : Bound or None
        The recipe on its tables; ``None`` for a model without a recipe.
    matrix : xarray.Dataset or None
        The feature matrix of a model without a recipe.
    url : str
        Of the rows; empty when they are in memory.
    tables : mapping of name to URL
    reads : sequence of (argument, URL)
        Everything in a store that the rows come from, and the model.
    """

    model: Model
    bound: Bound | None
    matrix: Any
    url: str
    tables: Mapping[str, str]
    reads: Sequence[tuple[str, str]]

    @classmethod
    def of(cls, model: Model, data: Any, others: Mapping[str, Any] | None) -> Source:
        """Look at the data and check that the model fits it.

        Raises
        ------
        SpecError, PlanError, UsageError
            Before anything is run.
        """
        bundle = model.bundle
        if bundle.recipe is not None:
            bound = bind(without_target(bundle.recipe), data, others)
            read = [("data" if name == "ds" else name, url) for name, url in bound.reads]
            return cls(model, bound, None, bound.url, bound.tables, [*read, ("model", bundle.path)])
        if not hasattr(data, "data_vars"):
            data = stores.open_dataset(files.normal(data))
        names = tuple(map(str, data[FEATURE_NAMES].values)) if FEATURES in data and FEATURE_NAMES in data else ()
        if names != bundle.features:
            raise UsageError(
                f"the model {bundle.name} has no recipe and takes a feature matrix with the features "
                f"{list(bundle.features)}; the data has {list(names) or 'no feature matrix'}"
            )
        url = stores.source_of(data) or ""
        read = [("data", found) for found in origins(data, url)]
        return cls(model, None, data, url, {}, [*read, ("model", bundle.path)])

    @property
    def stored(self) -> bool:
        """Whether all tables lie in a store, so that the stage can run."""
        return bool(self.url) if self.bound is None else self.bound.stored

    def run(self, stage: Stage, client: Any | None) -> None:
        """Run the stage; in this process when a table lies in its memory."""
        from .run import run_where_reached

        run_where_reached(stage, (self.url, *self.tables.values(), stage.ledger, self.model.bundle.path), client)

    def lazy(self, max_bad: int) -> xr.Dataset:
        """Return the prediction as a lazy Dataset: one Dask block per chunk of rows."""
        import dask.array as da

        output = self.model.output
        found, keys, dim, blocks = self._blocks(max_bad)
        # One block gives values and status: the model runs once for both.
        added = list(range(1, 1 + len(output.shape)))
        axes = {"new_axis": added, "chunks": (*blocks.chunks, *((size,) for size in output.shape))} if added else {}
        values = da.map_blocks(_field, blocks, "values", dtype=output.dtype, **axes)
        status = da.map_blocks(_field, blocks, "status", dtype="uint8")
        result: xr.Dataset = found.drop_vars([name for name in found.variables if name not in (*keys, dim)])
        variables = output.variables(dim, len(blocks), 1, 1)
        result[output.name] = ((dim, *output.small), values, dict(variables[output.name].attrs))
        result["status"] = (dim, status, dict(variables["status"].attrs))
        result = result.assign_coords(output.small)
        return result.drop_attrs(deep=False).assign_attrs({"row_key": keys, "row_dim": dim, **self.model.attrs})

    def _blocks(self, max_bad: int) -> tuple[Any, list[str], str, Any]:
        """Return the rows' dataset, its key columns, its dimension, and a Dask array of values and status."""
        import dask
        import dask.array as da

        output = self.model.output
        kind = np.dtype([("values", output.dtype, output.shape), ("status", "uint8")])
        meta = np.empty(0, dtype=kind)
        if self.bound is None:
            X = self.matrix[FEATURES].data
            X = X.rechunk({1: -1}) if hasattr(X, "dask") else da.from_array(X, chunks=(ROWS_PER_CHUNK, -1))
            name = f"predict-{digest(X.name, self._token(), max_bad)[:16]}"
            array = da.map_blocks(_of_matrix, X, self.model, max_bad, dtype=kind, drop_axis=1, meta=meta, name=name)
            keys = [name for name in self.matrix.attrs.get("row_key") or () if name in self.matrix.variables]
            return self.matrix, keys, str(self.matrix[FEATURES].dims[0]), array
        ready, rows = self.bound.scan(), self.bound.planner.rows
        layout = Layout.of(rows, MatrixOut(), self.model.output)
        blocks = Blocks(
            Job(self.model, ready.transformer), layout.ranges, [ready.halo(*r) for r in layout.ranges], max_bad
        )
        data = stores.open_dataset(self.url) if self.url else self.bound.data
        name = f"predict-{digest(self._token(), dask.base.tokenize(rows.ids, self.url or id(blocks)), max_bad)[:16]}"
        array = da.map_blocks(
            _of_rows,
            dask.delayed(blocks, name=f"{name}-blocks", traverse=False),
            chunks=(tuple(stop - start for start, stop in layout.ranges) or (0,),),
            dtype=kind,
            meta=meta,
            name=name,
        )
        return data, list(layout.copied), rows.dim, array

    def _token(self) -> list[str]:
        function = self.model.function
        code = [] if function is None else [code_digest(function.function).hex()]
        return [*self.model.attrs.values(), *self.tables.values(), digest(self.model.output), *code]

    def write(self, url: str, max_bad: int, on_error: str) -> None:
        """Predict rows in memory in this process, and write them.

        Raises
        ------
        UsageError
            For a feature matrix in memory.
        UnitsFailedError
            When more than ``max_bad`` rows are bad; the others are written.
        """
        if self.bound is None:
            raise UsageError("a feature matrix in memory is predicted lazily: leave `out` away, then call to_zarr")
        ready, rows = self.bound.scan(), self.bound.planner.rows
        layout, job = Layout.of(rows, MatrixOut(), self.model.output), Job(self.model, ready.transformer)
        limit = 0 if on_error == "raise" else max(max_bad, GIVE_UP)
        stores.create(url, layout.template(self.model.output, self.model.attrs))
        counts = []
        for start, stop in layout.ranges:
            halo = ready.halo(start, stop)
            values, status, bad = job.values(start, stop, halo, WorkerContext(), limit)
            arrays = {self.model.output.name: values, "status": status}
            for name, column in ready.transformer.rows.read(list(layout.copied), start, stop).items():
                variable = layout.copied[name]
                arrays[name] = tables.encode(column, tables.ColumnType(variable.dtype, variable.attrs, variable.fill))
            stores.write_region(url, start, arrays)
            counts.append(bad_counts(status, bad.first(start)) if bad.status else None)
        concluded(url, self.model.method, rows.rows, counts, max_bad)


@dataclass(frozen=True, eq=False)
class Blocks:
    """What every block of a lazy prediction from raw rows needs; one object in the graph."""

    job: Job
    ranges: list[tuple[int, int]]
    halos: list[Ranges]
    max_bad: int


def _of_rows(blocks: Blocks, block_info: Any = None) -> np.ndarray:
    if not blocks.ranges:
        return np.empty(0, dtype=block_info[None]["dtype"])
    number = block_info[None]["chunk-location"][0]
    start, stop = blocks.ranges[number]
    return _both(*blocks.job.values(start, stop, blocks.halos[number], WorkerContext(), blocks.max_bad)[:2])


def _of_matrix(X: np.ndarray, model: Model, max_bad: int) -> np.ndarray:
    X = X.astype(str(model.bundle.schema["dtype"]), copy=False).view()  # as the stage does
    X.flags.writeable = False  # it may be the user's
    return _both(*model.values(lambda start, stop: X[start:stop], len(X), WorkerContext(), max_bad)[:2])


def _both(values: np.ndarray, status: np.ndarray) -> np.ndarray:
    both = np.empty(len(values), dtype=[("values", values.dtype, values.shape[1:]), ("status", "uint8")])
    both["values"], both["status"] = values, status
    return both


def _field(block: np.ndarray, name: str) -> np.ndarray:
    return np.asarray(block[name])
