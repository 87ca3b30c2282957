"""``dms.predict`` over N-dimensional variables: a lazy result of any Dataset, or the stage for one in a store."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from daskml_scale.engine.worker import WorkerContext
from daskml_scale.errors import UsageError
from daskml_scale.storage import files, stores

from .cubes import Cells, decoding
from .matrix import FEATURES
from .model_output import STATUS_ATTRS, Output
from .predict_cells import predict_cells
from .scoring import Model

if TYPE_CHECKING:
    import xarray as xr


def is_cube(model: Model, data: Any, inputs: Sequence[str] | None) -> bool:
    """Return whether the features of a model are variables of the data, rather than columns of a matrix."""
    if inputs is not None:
        return True
    if model.bundle.recipe is not None or FEATURES in data:
        return False
    return bool(model.bundle.features) and set(model.bundle.features) <= set(map(str, data.data_vars))


@dataclass(frozen=True, eq=False)
class Cube:
    """A model bound to the cells that it predicts.

    Attributes
    ----------
    data : xarray.Dataset
        Decoded.
    url : str
        Where it lies; empty when it is in memory, or changed since it was opened.
    """

    model: Model
    data: Any
    cells: Cells
    url: str

    @classmethod
    def of(cls, model: Model, data: Any, inputs: Sequence[str] | None, window: Mapping[str, int] | None) -> Cube:
        """Bind the model's features to variables of the data.

        Raises
        ------
        UsageError
            When the model has a recipe, or the variables do not fit it.
        """
        if model.bundle.recipe is not None:
            raise UsageError(
                f"the model {model.bundle.name} has a recipe, which makes its features from a table; "
                "leave inputs away, or save the model without recipe="
            )
        variables = {str(name): tuple(map(str, found.dims)) for name, found in data.data_vars.items()}
        cells = Cells.of(variables, model.bundle.features, inputs, window)
        taken = model.output.names.intersection(cells.dims)
        if taken:
            raise UsageError(
                f"{min(taken)!r} is a variable of these predictions and a dimension of the data; rename one"
            )
        return cls(model, data, cells, stores.source_of(data) or "")

    def decoding(self) -> dict[str, dict[str, Any]]:
        """Return how the stored values of the inputs are decoded."""
        found = {}
        for name, _ in self.cells.inputs:
            variable = self.data[name].variable
            found[name] = decoding(name, variable.encoding.get("dtype", variable.dtype), variable.encoding)
        return found

    def lazy(self, max_bad: int) -> xr.Dataset:
        """Return the prediction as a lazy Dataset: one Dask block per block of the inputs."""
        import dask.array as da
        import xarray as xr

        output = self.model.output
        arrays = [self.data[name].variable for name, _ in self.cells.inputs]
        full = [xr.Variable(found.dims, _chunked(found.data)) for found in arrays]
        sizes = {dim: size for found in full for dim, size in found.sizes.items()}
        whole = [
            found.set_dims({dim: sizes[dim] for dim in self.cells.dims}).transpose(*self.cells.dims).data
            for found in full
        ]
        _, blocks = da.core.unify_chunks(*(part for array in whole for part in (array, tuple(range(array.ndim)))))
        depth = {axis: self.cells.window.get(dim, 0) for axis, dim in enumerate(self.cells.dims)}
        if self.cells.window:
            blocks = [_padded(block, depth) for block in blocks]
        kind = np.dtype([("values", output.dtype, output.shape), ("status", "uint8")])
        chunks = whole_chunks(blocks[0].chunks, depth)
        both = da.map_blocks(
            _cells, *blocks, model=self.model, cells=self.cells, max_bad=max_bad, dtype=kind, chunks=chunks,
            meta=np.empty((0,) * len(depth), dtype=kind),
        )  # fmt: skip
        return self._dataset(both, output)

    def _dataset(self, both: Any, output: Output) -> xr.Dataset:
        import dask.array as da
        import xarray as xr

        added = list(range(both.ndim, both.ndim + len(output.shape)))
        axes = {"new_axis": added, "chunks": (*both.chunks, *((size,) for size in output.shape))} if added else {}
        values = da.map_blocks(_field, both, "values", dtype=output.dtype, **axes)
        status = da.map_blocks(_field, both, "status", dtype="uint8")
        dims = (*self.cells.dims, *output.small)
        attrs = output.variables("cell", 1, 1, 1)[output.name].attrs
        coords = {name: self.data.coords[name] for name in self.cells.dims if name in self.data.coords}
        found = {output.name: (dims, values, dict(attrs)), "status": (self.cells.dims, status, dict(STATUS_ATTRS))}
        result = xr.Dataset(found, coords=coords, attrs=dict(self.model.attrs))
        return result.assign_coords(output.small)


def opened(data: Any) -> Any:
    """Return data as a Dataset; a URL is opened.

    Raises
    ------
    UsageError
        For frames and arrays.
    """
    if hasattr(data, "data_vars"):
        return data
    if not isinstance(data, str) and not hasattr(data, "__fspath__"):
        raise UsageError(
            f"data is a {type(data).__name__}; predict reads an xarray Dataset or the URL of one. What fits in memory "
            "the model's own predict takes; files of more become a dataset by dms.ingest"
        )
    return stores.open_dataset(files.normal(data))


def _chunked(values: Any) -> Any:
    import dask.array as da

    return values if hasattr(values, "dask") else da.from_array(values)


def _padded(block: Any, depth: Mapping[int, int]) -> Any:
    from dask.array.overlap import overlap

    floats = block if block.dtype.kind == "f" else block.astype("float64")
    return overlap(floats, depth=dict(depth), boundary=dict.fromkeys(depth, np.nan))


def whole_chunks(chunks: Sequence[Sequence[int]], depth: Mapping[int, int]) -> tuple[tuple[int, ...], ...]:
    """Return the chunks of blocks without the cells around them."""
    return tuple(tuple(size - 2 * depth[axis] for size in sizes) for axis, sizes in enumerate(chunks))


def _cells(*blocks: np.ndarray, model: Model, cells: Cells, max_bad: int) -> np.ndarray:
    around = [2 * cells.window.get(dim, 0) for dim in cells.dims]
    shape = tuple(size - more for size, more in zip(blocks[0].shape, around, strict=True))
    whole = Cells(cells.dims, tuple((name, cells.dims) for name, _ in cells.inputs), cells.window)
    X = whole.matrix(blocks, shape, str(model.bundle.schema["dtype"]))
    values, status, _ = predict_cells(model, X, WorkerContext(), max_bad)
    both = np.empty(shape, dtype=[("values", values.dtype, values.shape[1:]), ("status", "uint8")])
    both["values"], both["status"] = values.reshape(*shape, *values.shape[1:]), status.reshape(shape)
    return both


def _field(block: np.ndarray, name: str) -> np.ndarray:
    return np.asarray(block[name])
