"""Aligned reads and writes of parts of a dataset.

The stored object (the shard, else the chunk) is the unit of every write: a region that does not cover whole
objects is refused, because Zarr 3 has no synchronizer and a partial write reads and rewrites the object of
somebody else (zarr#3682, dask#12583). So each object is written whole, by one unit, in one request.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np

from daskml_scale.errors import PlanError, StoreError
from daskml_scale.plan.units import Variable

from . import arrays, files
from .backend import ABSENT, Backend, Known, hash_bytes
from .direct import Region
from .noticing import notice
from .open_arrays import opened
from .transactions import transaction
from .urls import is_local, is_memory, join


@dataclass(frozen=True, slots=True)
class Stored:
    """Rows [start, stop) of a variable as they lie in a dataset: what `write_region` takes in place of values.

    Where the other dataset has the same objects in the same places, their bytes are checked and copied, not decoded.
    """

    url: str
    name: str
    start: int
    stop: int

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.stop - self.start, *_opened(self.url, self.name).variable.shape[1:])

    def values(self) -> np.ndarray:
        return read_region(self.url, self.name, [(self.start, self.stop)])

    def objects(self, other: arrays.Opened, region: Region) -> list[bytes | None] | None:
        """Return the stored form of an aligned region of another array, ``None`` where that is not what lies here."""
        source = _opened(self.url, self.name)
        if source.direct is None or not (is_local(self.url) or is_memory(self.url)):
            return None
        if source.variable.shape != other.variable.shape or not source.direct.same(other.direct):
            return None
        with _decoded(self.url, self.name, region[:1]):
            return list(source.direct.copied(region, _reader(self.url, self.name)))


def write_region(url: str, start: int | Sequence[int], values: Mapping[str, np.ndarray | Stored]) -> dict[str, Known]:
    """Write a region of the named variables; whole stored objects only.

    Parameters
    ----------
    url : str
    start : int or sequence of int
        First row; or the first element along each leading dimension. Further dimensions are written whole.
    values : mapping of name to ndarray, shape (n, ...), or Stored
        Stored (encoded by CF) values.

    Returns
    -------
    dict
        Object key (``late/c/3``) -> (digest of the encoded bytes, size, stamp).

    Raises
    ------
    PlanError
        When a region does not cover whole objects: names both and the remedy.
    StoreError
        When an object cannot be written.
    """
    origin = (start,) if isinstance(start, int) else tuple(start)
    objects: dict[str, Any] = {}
    for name, block in sorted(values.items()):
        found = _opened(url, name)
        region = aligned(f"{url}: {name}", found.variable, origin, block.shape)
        keys = ["c/" + "/".join(map(str, index)) if index else "c" for index in grid(found.variable, region)]
        encoded = _encoded(found, region, block, keys)
        objects.update((f"{name}/{key}", content) for key, content in encoded.items())
    with transaction(url, f"write {', '.join(values)}"):
        return _put(url, objects)


def _encoded(
    found: arrays.Opened, region: Region, block: np.ndarray | Stored, keys: Sequence[str]
) -> Mapping[str, Any]:
    if not isinstance(block, Stored):
        return arrays.encoded(found, region, block, keys)
    objects = block.objects(found, region)
    if objects is None:
        return arrays.encoded(found, region, block.values(), keys)
    return dict(zip(keys, objects, strict=True))


def _put(url: str, objects: Mapping[str, Any]) -> dict[str, Known]:
    backend = files.backend(url)
    if backend.concurrency > 1 and len(objects) > 1:
        with ThreadPoolExecutor(min(backend.concurrency, len(objects))) as pool:
            known = pool.map(lambda item: _put_one(backend, url, *item), objects.items())
            return dict(zip(objects, known, strict=True))
    return {key: _put_one(backend, url, key, content) for key, content in objects.items()}


def _put_one(backend: Backend, url: str, key: str, content: Any) -> Known:
    if content is None:
        backend.remove_object(url, key)
        return ABSENT, 0, 0
    data = memoryview(content)
    return hash_bytes(data), *backend.write_object(url, key, data)


def aligned(
    what: str, variable: Variable, origin: tuple[int, ...], shape: tuple[int, ...]
) -> tuple[tuple[int, int], ...]:
    """Return [start, stop) of a region in every dimension.

    Parameters
    ----------
    origin : tuple of int
        First element in the leading dimensions.
    shape : tuple of int
        Of the values.

    Raises
    ------
    PlanError
        When it does not cover whole objects, or the values have another shape.
    """
    whole, units = variable.shape, variable.write_unit
    if len(shape) != len(whole) or len(origin) > len(whole) or shape[len(origin) :] != whole[len(origin) :]:
        expected = ", ".join(["n"] * min(len(origin), len(whole)) + [str(size) for size in whole[len(origin) :]])
        raise PlanError(f"{what}: values of shape {shape}, expected ({expected})")
    region = []
    for axis, (size, unit) in enumerate(zip(whole, units, strict=True)):
        first = origin[axis] if axis < len(origin) else 0
        last = first + shape[axis]
        if first % unit or (last % unit and last != size) or last > size:
            place = "rows" if axis == 0 else f"elements of dimension {variable.dims[axis]}"
            raise PlanError(
                f"{what}: {place} [{first}, {last}) do not cover whole objects of {unit} {place.split()[0]} "
                f"(of {size}); write from a multiple of {unit} to a multiple of {unit} or the last "
                f"{place.split()[0].rstrip('s')}"
            )
        region.append((first, last))
    return tuple(region)


def grid(variable: Variable, region: Sequence[tuple[int, int]]) -> Iterator[tuple[int, ...]]:
    """Return the grid positions of the stored objects of a region, in order."""
    units = variable.write_unit
    return product(*(range(a // unit, -(-b // unit)) for (a, b), unit in zip(region, units, strict=True)))


def object_keys(name: str, variable: Variable, start: int, stop: int) -> list[str]:
    """Return the keys of the stored objects of rows [start, stop), in order."""
    if not variable.shape:
        return [f"{name}/c"]
    region = [(start, stop), *((0, size) for size in variable.shape[1:])]
    return [f"{name}/c/" + "/".join(map(str, index)) for index in grid(variable, region)]


def read_region(url: str, name: str, region: Sequence[tuple[int, int]]) -> np.ndarray:
    """Return stored values of a part of a variable.

    Parameters
    ----------
    region : sequence of (start, stop)
        In the leading dimensions; the others are read whole.

    Raises
    ------
    StoreError
        When a stored object is torn: names it and the remedy.
    """
    found = _opened(url, name)
    within, way = _within(found.variable.shape, region), found.direct
    with _decoded(url, name, region):
        # Of a bucket Zarr asks for several objects at a time, of a shard for a part.
        if way is not None and (is_local(url) or is_memory(url)) and way.fits(found.variable.shape, within):
            return way.gather(within, _reader(url, name))
        return np.asarray(found.array[tuple(slice(*part) for part in region)])


def _reader(url: str, name: str) -> Callable[[str], bytes | None]:
    """Return a function from the key of an object to its bytes."""
    read, place = files.backend(url).read_object, join(url, name)
    if not is_local(url):
        return lambda key: read(place, key)
    return lambda key: notice(join(place, key), lambda: read(place, key))


def _within(shape: Sequence[int], region: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return a region in every dimension, as slices are understood."""
    parts = [*(slice(*part) for part in region), *[slice(None)] * (len(shape) - len(region))]
    return [part.indices(size)[:2] for part, size in zip(parts, shape, strict=True)]


def read_raw(url: str, name: str, start: int, stop: int) -> tuple[np.ndarray, dict[str, Any]]:
    """Return stored rows [start, stop) of a variable and its attributes."""
    return read_region(url, name, [(start, stop)]), dict(_opened(url, name).variable.attrs)


def schema(url: str, name: str) -> Variable:
    """Return the schema of a variable of a dataset.

    Raises
    ------
    PlanError
        When there is none of that name.
    """
    return _opened(url, name).variable


@contextmanager
def _decoded(url: str, name: str, region: Sequence[tuple[int, int]]) -> Iterator[None]:
    try:
        yield
    except (StoreError, FileNotFoundError):
        raise
    except PermissionError as error:
        raise StoreError(f"no permission to read {join(url, name)}: {error}") from error
    except (ValueError, RuntimeError, OSError, EOFError, IndexError, TypeError) as error:
        places = ", ".join(f"[{start}, {stop})" for start, stop in region)
        raise StoreError(
            f"{join(url, name)}: a stored object of {places} cannot be decoded ({type(error).__name__}: "
            f"{' '.join(str(error).split())[:200]}): it is torn, or was altered; if a stage wrote it, run its workflow "
            "again, else restore it from a copy"
        ) from error


def _opened(url: str, name: str) -> arrays.Opened:
    try:
        return opened(url, name)
    except KeyError:
        held = ", ".join(sorted(arrays.open_group(url).array_keys())) or "no arrays"
        raise PlanError(f"{url} has no variable {name!r}; it has {held}") from None
