"""NetCDF files and Zarr datasets as a gridded ingest sees them: what each holds, and whether it fits the others.

Read through xarray, lazily and without Dask; only the part of a variable that is asked for is loaded. What the
sources become together is for ``ingest_grid`` to say.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from daskml_scale.errors import DaskMLError, PlanError, StoreError
from daskml_scale.plan.records import digest
from daskml_scale.plan.units import Snapshot, Variable
from daskml_scale.spec.explain import unknown
from daskml_scale.storage import arrays, files, stores, tables

from .csv_files import shown
from .file_patterns import Source, sources
from .ingest_files import format_of, unchanged

_COMPARED = 64 << 20
"""Bytes of a variable up to which its values are compared between files."""
_TIME = {"units": "nanoseconds since 1970-01-01", "calendar": "proleptic_gregorian", "_FillValue": tables.NO_TIME}
_STANDARD = ("standard", "gregorian", "proleptic_gregorian")


@dataclass(frozen=True, slots=True)
class Cube:
    """A source, and what its scan found.

    Attributes
    ----------
    source : Source
    look : Snapshot or None
        Of a Zarr dataset of format 3: what each of its chunks holds.
    variables : mapping of name to mapping
        ``dims``, ``shape``, ``dtype``, ``attrs``, ``digest`` (empty for those that grow along ``concat``), ``ends``.
    """

    name: str
    source: Source
    look: Snapshot | None = None
    variables: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    attrs: Mapping[str, Any] = field(default_factory=dict)

    @property
    def shown(self) -> str:
        return shown(self.source.url)


def cubes(
    entry: str, known: dict[str, tuple[int, int, str]] | None = None
) -> dict[str, tuple[Source, Snapshot | None]]:
    """Return the NetCDF files and Zarr datasets that an entry names, each with its identity.

    Raises
    ------
    StoreError
        When one cannot be read.
    """
    if not entry.rstrip("/").endswith(".zarr"):
        return {name: (source, None) for name, source in sources(entry, known).items()}
    if not files.names(entry):
        return {}
    name = entry.rpartition("/")[2]
    try:
        look = stores.snapshot(entry, known=known) if stores.exists(entry) else None
    except DaskMLError:
        look = None  # xarray may know what to make of it
    if look is not None:
        schema = [(key, one.dtype, one.dims, one.shape, dict(one.attrs)) for key, one in look.variables.items()]
        return {name: (Source(entry, digest(schema, {key: list(ids) for key, ids in look.ids.items()}), 0), look)}
    held = {key: list(seen) for key, seen in _tree(entry).items()}
    return {name: (Source(entry, digest(held), 0), None)}


def _tree(url: str) -> dict[str, tuple[int, int]]:
    """Return size and stamp of everything below a folder."""
    if not files.is_local(url):
        return dict(files.below(url))
    root = files.local_path(url)
    found = {}
    for path in sorted(root.rglob("*")):
        if path.is_file():
            seen = path.stat()
            found[str(path.relative_to(root))] = (seen.st_size, seen.st_mtime_ns)
    return found


def still(source: Source) -> None:
    if source.stamp:
        unchanged(source).__enter__()


@contextmanager
def opened(url: str, format: str = "") -> Iterator[Any]:
    """Open a NetCDF file or a Zarr dataset with xarray, lazily and without Dask; values unpacked, times as stored.

    Raises
    ------
    PlanError
        When it is neither.
    """
    import xarray as xr

    options: dict[str, Any] = {
        "decode_times": False, "mask_and_scale": True, "decode_coords": False, "chunks": None, "cache": False,
    }  # fmt: skip
    with ExitStack() as held:
        try:
            if (format or format_of(url)) == "zarr":
                place, path = arrays.zarr_store(url)
                options |= {"engine": "zarr", "backend_kwargs": {"group": path or None, "consolidated": False}}
            else:
                # An open file, not its path: by its path xarray would give what it opened before the file was replaced.
                place = held.enter_context(files.open_read(url))  # xarray does not close what it did not open
            found = held.enter_context(xr.open_dataset(place, **options))
        except (PlanError, StoreError):
            raise
        except Exception as error:  # xarray's engines raise many kinds
            text = " ".join(str(error).split())[:200]
            needs = (
                " (NetCDF 4 needs pip install 'daskml-scale[netcdf]', on the workers too)" if "engine" in text else ""
            )
            raise PlanError(f"{shown(url)} is no readable NetCDF file or Zarr dataset: {text}{needs}") from None
        _give_bounds_units(found)
        yield found


def _give_bounds_units(ds: Any) -> None:
    """Give the bounds of times the units of the times, which CF lets them leave out: both are stored anew."""
    for variable in list(ds.variables.values()):
        for attribute in ("bounds", "climatology"):
            name = variable.attrs.get(attribute)
            if _is_time(variable) and name in ds.variables:
                for key in ("units", "calendar"):
                    if key in variable.attrs:
                        ds.variables[name].attrs.setdefault(key, variable.attrs[key])


def scanned(ds: Any, cube: Cube, columns: Sequence[str] | None, concat: str) -> dict[str, Any]:
    """Return the schema of a source as JSON, and digests of what it must share with the others."""
    # Sorted: Zarr lists the members of a group in the order in which answers come.
    names = sorted(map(str, ds.variables)) if columns is None else list(columns)
    for name in names:
        if name not in ds.variables:
            raise PlanError(f"{cube.shown}: {unknown('variable', name, list(map(str, ds.variables)))}")
    dims = dict.fromkeys(str(dim) for name in names for dim in ds[name].dims)
    names += [dim for dim in dims if dim in ds.variables and dim not in names]
    found = {}
    for name in names:
        variable = ds[name].variable
        time = _is_time(variable)
        if not time and variable.dtype.kind not in "iufb":
            raise PlanError(
                f"{cube.shown}: variable {name!r} is {variable.dtype}, which cannot be stored in a cube; write it as "
                f"numbers, or name what to keep, `columns: [{', '.join(_kept(ds))}]`"
            )
        attrs = {key: _json(value) for key, value in variable.attrs.items() if key not in ("units", "calendar")}
        units = (
            _TIME
            if time
            else {key: _json(variable.attrs[key]) for key in ("units", "calendar") if key in variable.attrs}
        )
        one = {
            "dims": list(map(str, variable.dims)), "shape": list(variable.shape),
            "dtype": "int64" if time else str(variable.dtype), "attrs": {**attrs, **units}, "digest": "", "ends": [],
        }  # fmt: skip
        whole = [(0, size) for size in variable.shape]
        if concat not in variable.dims and variable.nbytes <= _COMPARED and concat:
            raw = np.ascontiguousarray(values_of(variable, whole, None, time=time)).tobytes()
            one["digest"] = hashlib.blake2b(raw, digest_size=20).hexdigest()
        if name == concat and variable.size:
            ends = [values_of(variable, [(at, at + 1)], None, time=time)[0].item() for at in (0, variable.shape[0] - 1)]
            one["ends"] = ends
        found[name] = one
    return {"variables": found, "attrs": {key: _json(value) for key, value in ds.attrs.items()}}


def _kept(ds: Any) -> list[str]:
    """Return the variables of numbers and times that are no coordinates."""
    found = [str(name) for name, one in ds.data_vars.items() if _is_time(one) or one.dtype.kind in "iufb"]
    return [*found[:10], *(["..."] if len(found) > 10 else [])]


def _json(value: Any) -> Any:
    return value.tolist() if hasattr(value, "tolist") else value


def _is_time(variable: Any) -> bool:
    return " since " in str(variable.attrs.get("units", "")) and variable.attrs.get("calendar", "standard") in _STANDARD


def values_of(
    variable: Any, region: Sequence[tuple[int, int]], target: Variable | None, *, time: bool | None = None
) -> np.ndarray:
    """Return a part of a variable as it is stored."""
    variable = getattr(variable, "variable", variable)
    time = _is_time(variable) if time is None else time
    part = variable[tuple(slice(*one) for one in region)].load()
    if not time:
        return np.asarray(part.values) if target is None else np.asarray(part.values, dtype=target.dtype)
    values = np.asarray(part.values)
    return tables.nanoseconds(tables.dates(values.ravel(), part.attrs)).view("int64").reshape(values.shape)


def size_along(cube: Cube, dim: str) -> int:
    for one in cube.variables.values():
        if dim in one["dims"]:
            return int(one["shape"][one["dims"].index(dim)])
    raise PlanError(f"{cube.shown} has no dimension {dim!r}, along which the sources follow one another")


def check_fit(first: Cube, cube: Cube, before: Cube, concat: str) -> None:
    """Refuse a source that does not follow the others: names both, what differs, and the remedy."""
    odd = set(first.variables).symmetric_difference(cube.variables)
    if odd:
        name = min(odd)
        has, lacks = (first, cube) if name in first.variables else (cube, first)
        raise PlanError(
            f"{has.shown} has a variable {name!r} and {lacks.shown} has none; add it, or leave it out by `columns:`"
        )
    for name, one in first.variables.items():
        other = cube.variables[name]
        units = [each["attrs"].get("units") for each in (one, other)]
        shapes = [
            [size for dim, size in zip(each["dims"], each["shape"], strict=True) if dim != concat]
            for each in (one, other)
        ]
        for what, mine, its in (
            ("type", one["dtype"], other["dtype"]), ("dimensions", one["dims"], other["dims"]),
            ("units", *units), ("shape", *shapes),
        ):  # fmt: skip
            if mine != its:
                raise PlanError(
                    f"{cube.shown}: variable {name!r} has {what} {its}, and {mine} in {first.shown}; write both alike, "
                    "or leave it out by `columns:`"
                )
        if one["digest"] != other["digest"]:
            raise PlanError(
                f"{cube.shown}: the values of {name!r} differ from those in {first.shown}, and do not run along "
                f"{concat!r}; regrid one of them, or leave it out by `columns:`"
            )
    ends, earlier = cube.variables.get(concat, {}).get("ends"), before.variables.get(concat, {}).get("ends")
    if ends and earlier and earlier[0] < earlier[1] and ends[0] <= earlier[1]:
        raise PlanError(
            f"{cube.shown} begins at {concat} {_said(cube, concat, ends[0])}, and {before.shown}, which it follows, "
            f"ends at {_said(before, concat, earlier[1])}; name the sources in order, and none twice"
        )


def _said(cube: Cube, name: str, value: Any) -> str:
    """Return a coordinate as people write it."""
    if cube.variables[name]["attrs"].get("units") != _TIME["units"]:
        return str(value)
    return str(np.datetime64(value, "ns").astype("datetime64[s]"))
