"""Zarr datasets by URL: create from a template, write aligned regions, take snapshots, open with xarray.

The stored object (the shard, else the chunk) is the unit of every write: a region that does not cover
whole objects is refused, because Zarr 3 has no synchronizer and a partial write reads and rewrites the
object of somebody else (zarr#3682, dask#12583). Whether a unit is done is the ledger's to say, never
the presence of an object: an object that holds only fill values is not stored at all.

This is the only module that imports zarr.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from itertools import product
from typing import Any

import numpy as np

from daskml_scale.errors import PlanError, StoreError
from daskml_scale.plan.records import Record, digest
from daskml_scale.plan.units import Snapshot, Template, Variable

from . import files

MARK = "daskml_scale"
"""Dataset attribute that says the dataset is ours to change."""
ABSENT = "-"
"""Identity of an object that is not stored because it holds only fill values."""
_memory_stores: dict[str, Any] = {}
_opened: dict[str, tuple[str, str]] = {}


def _store(url: str) -> tuple[Any, str]:
    """Return a zarr store and the path of the dataset's group in it."""
    if files.is_memory(url):
        from zarr.storage import MemoryStore

        root, _, path = url[len("memory://") :].strip("/").partition("/")
        return _memory_stores.setdefault(root, MemoryStore()), path
    from zarr.storage import LocalStore

    return LocalStore(files.local_path(url)), ""


def open_group(url: str, mode: str = "r") -> Any:
    """Open the Zarr group of a dataset (for the rooms above, which do not import zarr)."""
    import zarr

    store, path = _store(url)
    try:
        with files.explained(url, "open" if mode == "r" else "write"):
            return zarr.open_group(store, path=path, mode=mode)
    except FileNotFoundError:
        raise StoreError(f"{url} is not a Zarr group; check the path, or run the stage that writes it") from None


def exists(url: str) -> bool:
    """Return whether a Zarr group lies at the URL."""
    if files.is_memory(url):
        store, path = _store(url)
        return any(key == f"{path}/zarr.json".lstrip("/") for key in store._store_dict)
    return (files.local_path(url) / "zarr.json").exists()


def create(url: str, template: Template) -> None:
    """Create the dataset of a template, or adapt one of ours to it.

    Equal arrays are kept with their data, only attributes and the number of rows follow; anything
    else is written anew. Small arrays are written at once.

    Raises
    ------
    StoreError
        When something that is not ours lies there.
    """
    import zarr

    structure = digest(MARK, [(name, _layout(variable)) for name, variable in sorted(template.variables.items())])
    if exists(url):
        group = open_group(url, "r+")
        mark = group.attrs.get(MARK)
        if not isinstance(mark, dict):
            raise StoreError(f"{url} was not written by daskml-scale; move it away, or choose another store")
        if mark.get("layout") == structure:
            _follow(group, template, structure)
            return
        remove(url)
    elif not files.is_memory(url) and files.local_path(url).exists() and os.listdir(files.local_path(url)):
        raise StoreError(f"{url} exists and is not a Zarr dataset; move it away, or choose another store")
    store, path = _store(url)
    with files.explained(url, "write"):
        # The mark goes in last: a dataset without it was interrupted here and holds nothing of value.
        group = zarr.open_group(store, path=path, mode="w", attributes={MARK: {"layout": ""}})
        for name, variable in template.variables.items():
            group.create_array(
                name,
                shape=variable.shape,
                chunks=variable.chunks,
                shards=variable.shards,
                dtype=variable.dtype,
                fill_value=_fill(variable),
                dimension_names=variable.dims,
                attributes=dict(variable.attrs),
            )
        _follow(group, template, structure)


def _layout(variable: Variable) -> list[Any]:
    rest = variable.shape[1:]
    return [variable.dtype, variable.dims, rest, variable.chunks, variable.shards, str(_fill(variable))]


def _fill(variable: Variable) -> Any:
    if variable.fill is not None:
        return variable.fill
    if variable.dtype == "string":
        return ""
    return np.nan if np.dtype(variable.dtype).kind == "f" else 0


def _follow(group: Any, template: Template, structure: str) -> None:
    for name, variable in template.variables.items():
        array = group[name]
        if array.shape != variable.shape:
            array.resize(variable.shape)
        if dict(array.attrs) != dict(variable.attrs):
            array.attrs.put(dict(variable.attrs))
        if name in template.small:
            small = np.asarray(template.small[name], dtype=None if variable.dtype == "string" else variable.dtype)
            if not np.array_equal(array[...], small):
                array[...] = small
    attrs = {**template.attrs, "row_dim": template.dim, MARK: {"layout": structure}}
    if dict(group.attrs) != attrs:
        group.attrs.put(attrs)


def remove(url: str) -> None:
    """Remove a dataset of ours and everything in it."""
    if files.is_memory(url):
        store, path = _store(url)
        for key in [key for key in store._store_dict if key == path or key.startswith(f"{path}/")]:
            del store._store_dict[key]
        return
    if exists(url):
        # The mark goes first and the group's own file last: a removal that is killed is taken up again by ``create``.
        group = open_group(url, "r+")
        group.attrs.put({MARK: {"layout": ""}})
        for name in files.names(url):
            if name != "zarr.json":
                files.remove(files.join(url, name))
    files.remove(url)


def write_region(url: str, start: int, arrays: Mapping[str, np.ndarray]) -> dict[str, tuple[str, int, int]]:
    """Write rows ``[start, start + n)`` of the named variables; whole stored objects only.

    Parameters
    ----------
    url : str
    start : int
        First row.
    arrays : mapping of name to ndarray, shape (n, ...)
        Stored (encoded by CF) values.

    Returns
    -------
    dict
        Object key (``late/c/3``) -> (digest of the encoded bytes, size, mtime in ns).

    Raises
    ------
    PlanError
        When a region does not cover whole objects: names both and the remedy.
    """
    group = open_group(url, "r+")
    written: dict[str, tuple[str, int, int]] = {}
    for name, values in sorted(arrays.items()):
        array = group[name]
        variable = _variable(array)
        stop = start + len(values)
        size = variable.write_unit[0]
        if start % size or (stop % size and stop != variable.shape[0]) or stop > variable.shape[0]:
            raise PlanError(
                f"{url}: {name}: rows [{start}, {stop}) do not cover whole objects of {size} rows "
                f"(of {variable.shape[0]}); write from a multiple of {size} to a multiple of {size} or the last row"
            )
        if values.shape[1:] != variable.shape[1:]:
            raise PlanError(f"{url}: {name}: values of shape {values.shape}, expected (n, *{variable.shape[1:]})")
        if variable.shards is not None:
            # Zarr reads a ragged last shard before it writes it: a torn one cannot be read, an old one holds more rows.
            for key in _object_keys(name, variable, start, stop):
                _remove_object(url, key)
        with files.explained(url, "write"):
            array[start:stop] = values
        for key in _object_keys(name, variable, start, stop):
            written[key] = object_id(url, key)
    return written


def _object_keys(name: str, variable: Variable, start: int, stop: int) -> list[str]:
    """Return the keys of the stored objects of rows [start, stop), in order."""
    unit = variable.write_unit
    first = range(start // unit[0], -(-stop // unit[0]))
    rest = [range(-(-size // part)) for size, part in zip(variable.shape[1:], unit[1:], strict=True)]
    return [f"{name}/c/" + "/".join(map(str, index)) for index in product(first, *rest)]


def _remove_object(url: str, key: str) -> None:
    if files.is_memory(url):
        store, path = _store(url)
        store._store_dict.pop(f"{path}/{key}".lstrip("/"), None)
    else:
        files.remove(files.join(url, key))


def object_id(url: str, key: str) -> tuple[str, int, int]:
    """Return (digest of the encoded bytes, size, mtime in ns) of a stored object; ``-`` when it is not stored."""
    if files.is_memory(url):
        store, path = _store(url)
        buffer = store._store_dict.get(f"{path}/{key}".lstrip("/"))
        return (ABSENT, 0, 0) if buffer is None else (files.hash_bytes(buffer.to_bytes()), len(buffer), 0)
    try:
        with open(files.local_path(url) / key, "rb") as file:
            found = os.fstat(file.fileno())
            return files.hash_bytes(file.read()), found.st_size, found.st_mtime_ns
    except FileNotFoundError:
        return ABSENT, 0, 0


def unchanged(url: str, key: str, known: tuple[str, int, int]) -> bool:
    """Return whether a stored object still is what the ledger says: size and mtime are trusted, else its bytes."""
    found = None if files.is_memory(url) else files.stat(files.join(url, key))
    if found is not None and found == (known[1], known[2]):
        return True
    if found is None and not files.is_memory(url):
        return known[0] == ABSENT
    return object_id(url, key)[0] == known[0]


def _variable(array: Any) -> Variable:
    dtype = str(np.dtype(array.dtype).name) if np.dtype(array.dtype).kind != "T" else "string"
    dims = tuple(array.metadata.dimension_names or [f"dim_{axis}" for axis in range(array.ndim)])
    return Variable(dtype, dims, array.shape, array.chunks, array.shards, dict(array.attrs), array.fill_value)


def snapshot(url: str, records: Mapping[str, Record] | None = None) -> Snapshot | None:
    """Return schema and object ids of a dataset, or ``None`` when there is none.

    Parameters
    ----------
    url : str
    records : mapping of unit to Record, optional
        The ledger of the stage that wrote it: objects of unchanged size and mtime take their digest
        from there, others are hashed.

    Raises
    ------
    StoreError
        When a dataset has no row dimension: name it by the attribute ``row_dim``.
    """
    if not exists(url):
        return None
    group = open_group(url, "r")
    attrs = dict(group.attrs)
    mark = attrs.pop(MARK, None)
    variables = {name: _variable(array) for name, array in sorted(group.arrays())}
    if not variables:
        raise StoreError(f"{url} holds no arrays")
    dim = attrs.get("row_dim") or next(v.dims[0] for v in variables.values() if v.dims)
    known = {key: stored for record in (records or {}).values() for key, stored in record.chunks.items()}
    ids = {}
    for name, variable in variables.items():
        if variable.dims[:1] != (dim,) or (mark is not None and not mark.get("layout")):
            continue
        size, rows = variable.write_unit[0], variable.shape[0]
        meaning = digest(variable.dtype, dict(variable.attrs), str(variable.fill))
        ids[name] = tuple(
            digest(
                meaning,
                min(size, rows - start),  # the last object is padded: its bytes do not tell how many rows it holds
                [_id(url, key, known.get(key)) for key in _object_keys(name, variable, start, min(start + size, rows))],
            )
            for start in range(0, rows, size)
        )
    rows = next((v.shape[0] for v in variables.values() if v.dims[:1] == (dim,)), 0)
    return Snapshot(url, dim, rows, variables, attrs, ids)


def _id(url: str, key: str, known: tuple[str, int, int] | None) -> str:
    if known is not None and not files.is_memory(url):
        found = files.stat(files.join(url, key))
        if found == (known[1], known[2]) or (found is None and known[0] == ABSENT):
            return known[0]
    return object_id(url, key)[0]


def read_raw(url: str, name: str, start: int, stop: int) -> tuple[np.ndarray, dict[str, Any]]:
    """Return stored rows [start, stop) of a variable and its attributes."""
    array = open_group(url, "r")[name]
    return np.asarray(array[start:stop]), dict(array.attrs)


def open_dataset(url: str) -> Any:
    """Open a dataset lazily with xarray, decoded; ``source_of`` will recognise it.

    The row dimension gets no index (a table may have 10**10 rows); other dimensions do.
    """
    import xarray as xr

    if not exists(url):
        raise StoreError(f"{url} is not a Zarr group; check the path, or run the stage that writes it")
    store, path = _store(url)
    ds = xr.open_zarr(store, group=path or None, consolidated=False, chunks={}, create_default_indexes=False)
    row_dim = ds.attrs.get("row_dim")
    ds.attrs.pop(MARK, None)
    for dim in ds.dims:
        if dim != row_dim and dim in ds.coords and ds.coords[dim].dims == (dim,):
            # Read here, not by Dask: on a worker a nested compute gives up the thread, which deadlocks under a lock.
            raw, _ = read_raw(url, str(dim), 0, ds.sizes[dim])
            ds = ds.assign_coords({dim: (dim, raw, ds.coords[dim].attrs)})
    for name, variable in ds.variables.items():
        if hasattr(variable.data, "dask"):
            _opened[variable.data.name] = (url, str(name))
    return ds


def source_of(ds: Any) -> str | None:
    """Return the URL that an unmodified dataset, or a selection of its variables, was opened from."""
    found = set()
    for name, variable in ds.variables.items():
        if not hasattr(variable.data, "dask"):
            if variable.dims == (ds.attrs.get("row_dim"),) or name not in ds.dims:
                return None
            continue
        url, stored = _opened.get(variable.data.name, ("", ""))
        if not url or stored != name:
            return None
        found.add(url)
    return found.pop() if len(found) == 1 else None


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


def get_json(url: str, name: str) -> Any:
    """Return a small JSON file beside a dataset, or ``None``."""
    return files.read_json(beside(url, f"{name}.json"))


def dataset_of(ledger_url: str) -> str:
    """Return the URL of the dataset beside a ledger: ``x/a.ledger`` -> ``x/a.zarr``."""
    return f"{ledger_url.rstrip('/').removesuffix('.ledger')}.zarr"


def beside(url: str, suffix: str) -> str:
    """Return the URL beside a dataset: ``x/a.zarr``, ``ledger`` -> ``x/a.ledger``."""
    return f"{url.rstrip('/').removesuffix('.zarr')}.{suffix}"
