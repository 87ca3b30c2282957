"""Zarr datasets by URL: create from a template, adapt, remove, open with xarray; the small files beside them.

Whether a unit is done is the ledger's to say, never the presence of an object. Regions are written and read by
``regions``, identities are told by ``identity``; both are found here too, for the rooms above.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from daskml_scale.errors import PlanError, StoreError
from daskml_scale.plan.records import digest
from daskml_scale.plan.units import Template, Variable

from . import arrays, files
from .arrays import open_group as open_group
from .backend import ABSENT as ABSENT
from .identity import MARK as MARK
from .identity import checker as checker
from .identity import exists as exists
from .identity import object_id as object_id
from .identity import snapshot as snapshot
from .identity import unchanged as unchanged
from .open_arrays import forget
from .regions import Stored as Stored
from .regions import read_raw as read_raw
from .regions import read_region as read_region
from .regions import schema as schema
from .regions import write_region as write_region
from .transactions import transaction
from .urls import ICECHUNK, bucket, is_icechunk, is_local, is_object, join, local_path, normal
from .urls import beside as beside
from .urls import dataset_of as dataset_of

FORMAT = 1
"""Version of what this module writes into a dataset's mark."""
_INDEXED = 1_000_000
"""Elements of a dimension up to which it has an index."""
_opened: dict[str, tuple[str, str]] = {}


def create(url: str, template: Template) -> None:
    """Create the dataset of a template, or adapt one of ours to it.

    Equal arrays are kept with their data, only attributes and the number of rows follow; an array that
    is gone is made again, and anything else is written anew. Small arrays are written at once.

    Raises
    ------
    StoreError
        When something that is not ours lies there, or a newer version wrote it.
    PlanError
        When a variable's shards are not made of whole chunks.
    """
    for name, variable in template.variables.items():
        _check_shards(f"{url}: {name}", variable)
    structure = digest(MARK, [(name, _layout(variable)) for name, variable in sorted(template.variables.items())])
    with transaction(url, f"create {url.rpartition('/')[2]}"):
        try:
            _create(url, template, structure)
        finally:
            forget(url)


def _create(url: str, template: Template, structure: str) -> None:
    if exists(url):
        group = open_group(url, "r+")
        mark = _mark(url, group)
        if mark.get("layout") == structure:
            _follow(url, group, template, structure)
            return
        _remove(url, group)
    elif _held(url) and not files.names(beside(url, "ledger")):
        raise StoreError(f"{url} exists and is not a Zarr dataset; move it away, or choose another store")
    with files.explained(url, "write"):
        # The layout goes in last: a dataset without it was interrupted here and holds nothing of value.
        group = open_group(url, "a")
        group.attrs.put({MARK: {"format": FORMAT, "layout": ""}})
        _follow(url, group, template, structure)


def _held(url: str) -> bool:
    """Return whether something lies at a URL; a file counts too."""
    if is_local(url) and local_path(url).is_file():
        return True
    return bool(files.names(url))


def _mark(url: str, group: Any) -> dict[str, Any]:
    mark = group.attrs.get(MARK)
    if not isinstance(mark, dict):
        raise StoreError(f"{url} was not written by daskml-scale; move it away, or choose another store")
    if mark.get("format", FORMAT) > FORMAT:
        raise StoreError(
            f"{url} has format {mark['format']}, and this version of daskml-scale writes {FORMAT}: a newer one wrote "
            "it; install that, or choose another store"
        )
    return mark


def _check_shards(what: str, variable: Variable) -> None:
    if variable.shards is None:
        return
    for dim, chunk, shard in zip(variable.dims, variable.chunks, variable.shards, strict=True):
        if shard % chunk:
            raise PlanError(
                f"{what}: shards of {shard} along {dim} do not hold whole chunks of {chunk}; "
                f"use shards of {max(1, shard // chunk) * chunk} or {(shard // chunk + 1) * chunk}"
            )


def _layout(variable: Variable) -> list[Any]:
    rest = variable.shape[1:]
    fill = str(_fill(variable))
    return [variable.dtype, variable.dims, rest, variable.chunks, variable.shards, fill, variable.codec or arrays.CODEC]


def _fill(variable: Variable) -> Any:
    if variable.fill is not None:
        return variable.fill
    if variable.dtype == "string":
        return ""
    return np.nan if np.dtype(variable.dtype).kind == "f" else 0


def _follow(url: str, group: Any, template: Template, structure: str) -> None:
    """Give a group the arrays of a template; one that is there keeps its data."""
    with arrays.readable(url):
        present = dict(group.arrays())
    for name, variable in template.variables.items():
        array = present.get(name)
        if array is None or not _fits(array, variable):
            array = _make(url, group, name, variable)
        if array.shape != variable.shape:
            array.resize(variable.shape)
        if dict(array.attrs) != dict(variable.attrs):
            array.attrs.put(dict(variable.attrs))
        if name in template.small:
            small = np.asarray(template.small[name], dtype=None if variable.dtype == "string" else variable.dtype)
            if not np.array_equal(array[...], small):
                array[...] = small
    mark = {"format": FORMAT, "layout": structure, "order": list(template.variables)}
    attrs = {**template.attrs, "row_dim": template.dim, MARK: mark}
    if dict(group.attrs) != attrs:
        group.attrs.put(attrs)


def _fits(array: Any, variable: Variable) -> bool:
    """Return whether an array only differs from a variable in its number of rows and its attributes."""
    found = arrays.variable_of(array)
    same = (found.dtype, found.dims, found.chunks, found.shards, found.shape[1:])
    return same == (variable.dtype, variable.dims, variable.chunks, variable.shards, variable.shape[1:])


def _make(url: str, group: Any, name: str, variable: Variable) -> Any:
    if (group.metadata.zarr_format == 3) and name in group:
        del group[name]
    compressors = arrays.compressors(variable.dtype, variable.codec)
    return group.create_array(
        name,
        shape=variable.shape,
        chunks=variable.chunks,
        shards=variable.shards,
        dtype=variable.dtype,
        fill_value=_fill(variable),
        dimension_names=variable.dims,
        attributes=dict(variable.attrs),
        **({} if compressors is None else {"compressors": compressors}),
    )


def remove(url: str) -> None:
    """Remove a dataset of ours and everything in it."""
    with transaction(url, f"remove {url.rpartition('/')[2]}"):
        if exists(url):
            _remove(url, open_group(url, "r+"))
        else:
            files.remove(url)
    forget(url)


def _remove(url: str, group: Any) -> None:
    # The layout goes first and the group's own file last: a removal that is killed is taken up again by ``create``.
    group.attrs.put({MARK: {"format": FORMAT, "layout": ""}})
    for name in files.names(url):
        if name != "zarr.json":
            files.remove(join(url, name))
    files.remove(url)


def open_dataset(url: str) -> Any:
    """Open a dataset lazily with xarray, decoded; given to a stage, workers read it where it lies.

    Dimensions get an index from their coordinate, as in any xarray Dataset. The rows of a table have none, of which
    there may be 10**10 (times of a cube up to a million have one). Variables come in the order of their template.
    """
    import xarray as xr

    if not exists(url):
        raise StoreError(f"{url} is not a Zarr group; check the path, or run the stage that writes it")
    store, path = arrays.zarr_store(url)
    with arrays.readable(url):
        ds = xr.open_zarr(
            store, group=path or None, consolidated=False, zarr_format=3, chunks={}, create_default_indexes=False
        )
    row_dim = ds.attrs.get("row_dim")
    mark = ds.attrs.pop(MARK, None)
    order = mark.get("order", []) if isinstance(mark, dict) else []
    # A folder lists its arrays in any order.
    ds = ds[sorted(ds.data_vars, key=lambda name: (order.index(name) if name in order else len(order), str(name)))]
    for dim in ds.dims:
        if dim in ds.coords and ds.coords[dim].dims == (dim,) and (dim != row_dim or ds.sizes[dim] <= _INDEXED):
            # Read here, not by Dask: on a worker a nested compute gives up the thread, which deadlocks under a lock.
            found = _coordinate(url, str(dim))
            if dim != row_dim or _rises(found.values):  # else a column of a table that is called like its rows
                ds = ds.assign_coords({dim: found})
    for name, variable in ds.variables.items():
        if hasattr(variable.data, "dask"):
            _opened[variable.data.name] = (url, str(name))
    return ds


def _coordinate(url: str, dim: str) -> Any:
    """Return the stored coordinate of a dimension as xarray decodes it."""
    import xarray as xr

    raw, attrs = read_raw(url, dim, 0, schema(url, dim).shape[0])
    if isinstance(attrs.get("_FillValue"), str):  # of fractions, as xarray writes it: NaN, which needs no decoding
        del attrs["_FillValue"]
    return xr.conventions.decode_cf_variable(dim, xr.Variable((dim,), raw, attrs))


def _rises(values: np.ndarray) -> bool:
    """Return whether values rise, or fall, all along."""
    return bool((values[1:] > values[:-1]).all() or (values[1:] < values[:-1]).all())


def source_of(ds: Any) -> str | None:
    """Return the URL that an unmodified dataset, or a selection of its variables, was opened from."""
    found, here = set(), []
    for name, variable in ds.variables.items():
        if not hasattr(variable.data, "dask"):
            if name not in ds.dims:
                return None
            here.append(str(name))
            continue
        url, stored = _opened.get(variable.data.name, ("", ""))
        if not url or stored != name:
            return None
        found.add(url)
    if len(found) != 1:
        return None
    whole = found.pop()
    return whole if all(_as_stored(whole, name, ds.variables[name].values) for name in here) else None


def _as_stored(url: str, dim: str, values: np.ndarray) -> bool:
    """Return whether the coordinate of a dimension is the one that is stored."""
    try:
        return np.array_equal(_coordinate(url, dim).values, values)
    except (PlanError, StoreError):
        return False


def origins(ds: Any) -> set[str]:
    """Return the URLs of all datasets in stores that a lazy one is computed from, however it was changed since."""
    graphs = [variable.data.dask for variable in ds.variables.values() if hasattr(variable.data, "dask")]
    names = {name for graph in graphs for name in getattr(graph, "layers", ())}
    opened_by_xarray = ds.encoding.get("source") if graphs else None
    here = {opened_by_xarray} if isinstance(opened_by_xarray, str) and "://" not in opened_by_xarray else set()
    return here | {_opened[name][0] for name in names if name in _opened}


def put_json(url: str, name: str, value: Any) -> str:
    """Write a small JSON file beside a dataset (``x/a.zarr``, ``recipe`` -> ``x/a.recipe.json``); return its URL."""
    target = beside(url, f"{name}.json")
    files.write_json(target, value)
    return target


def scratch(url: str, name: str) -> str:
    """Return the URL of a folder for what a run needs only for a while: beside the dataset.

    Beside the repository where the dataset is in Icechunk: each of its commits is kept.
    """
    if not is_icechunk(url):
        return beside(url, name)
    from .repositories import root_of

    root = root_of(url) or url.rpartition("/")[0]
    plain = normal(root.removeprefix(ICECHUNK))
    apart = "/" if is_object(plain) and not bucket(plain)[1] else "."  # not another bucket
    return f"{plain}{apart}{beside(url, name)[len(root) + 1 :].replace('/', '.')}"


def get_json(url: str, name: str) -> Any:
    """Return a small JSON file beside a dataset, or ``None``."""
    return files.read_json(beside(url, f"{name}.json"))
