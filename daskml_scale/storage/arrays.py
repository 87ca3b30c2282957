"""Zarr arrays by URL: the store behind a URL, opened arrays, and values encoded into stored objects.

Values are encoded in this thread where `direct` knows how, else by Zarr into a store that only catches the objects;
writing them is the backend's work, in one request each, and their digests cost no second look at what was written.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import zarr
import zarr.abc.store
import zarr.storage
from zarr.core.buffer import default_buffer_prototype

from daskml_scale.errors import StoreError
from daskml_scale.plan.units import Variable

from . import files
from .backend import MEMORY
from .direct import Direct, Region, direct
from .noticing import notice_async
from .urls import is_icechunk, is_local, is_memory, is_object, join, local_path

CODEC = "blosc lz4 5 shuffle, crc32c"
"""Name of what :func:`compressors` gives; another one is another layout."""


class _Memory(MutableMapping[str, Any]):
    """The objects below a ``memory://`` URL as a Zarr memory store wants them."""

    def __init__(self, url: str) -> None:
        self.prefix = f"{url}/"

    def __getitem__(self, key: str) -> Any:
        return default_buffer_prototype().buffer.from_bytes(MEMORY[self.prefix + key])

    def __setitem__(self, key: str, value: Any) -> None:
        MEMORY[self.prefix + key] = value.to_bytes()

    def __delitem__(self, key: str) -> None:
        del MEMORY[self.prefix + key]

    def __iter__(self) -> Iterator[str]:
        return iter([key[len(self.prefix) :] for key in list(MEMORY) if key.startswith(self.prefix)])

    def __len__(self) -> int:
        return sum(1 for _ in self)


def zarr_store(url: str, *, write: bool = False) -> tuple[Any, str]:
    """Return a Zarr store and the path of the dataset's group in it.

    Raises
    ------
    StoreError
        When what the scheme needs is not installed, or there are no credentials.
    """
    # Each dataset has a store of its own: in a common one, Zarr would write a group's metadata into every folder above.
    if is_memory(url):
        return zarr.storage.MemoryStore(_Memory(url)), ""
    if is_object(url):
        return _bucket_store(url), ""
    if is_icechunk(url):
        from . import repositories

        return repositories.zarr_store(url, write=write)
    return zarr.storage.LocalStore(local_path(url)), ""


def _bucket_store(url: str) -> Any:
    from .buckets import opened as opened_prefix

    class ByUrl(zarr.storage.ObjectStore):  # type: ignore[misc]
        """A store that pickles as its URL: no credential travels with a lazy dataset."""

        def __reduce__(self) -> Any:
            return _bucket_store, (url,)

    return ByUrl(opened_prefix(url))


def open_group(url: str, mode: str = "r") -> Any:
    """Open the Zarr group of a dataset.

    Raises
    ------
    StoreError
        When there is none, or this version of Zarr cannot read its metadata.
    """
    store, path = zarr_store(url, write=mode != "r")
    try:
        with readable(url), files.explained(url, "open" if mode == "r" else "write"):
            return zarr.open_group(store, path=path, mode=mode, zarr_format=3, use_consolidated=False)
    except FileNotFoundError:
        raise StoreError(f"{url} is not a Zarr group; check the path, or run the stage that writes it") from None


@contextmanager
def readable(url: str) -> Iterator[None]:
    """Say of metadata that Zarr cannot make sense of what is wrong, and what helps."""
    try:
        yield
    except (FileNotFoundError, StoreError):
        raise
    except (ValueError, KeyError, TypeError) as error:
        text = f"{type(error).__name__}: {error}"
        if "cftime" in text:
            raise StoreError(
                f"{url}: its times are of a calendar that needs cftime: pip install 'daskml-scale[netcdf]', here and "
                f"on the workers ({' '.join(text.split())[:120]})"
            ) from error
        raise StoreError(
            f"{url}: its metadata cannot be read by zarr {zarr.__version__} ({' '.join(text.split())[:300]}); a newer "
            "zarr, or the package of its codec, may read it: install that here and on the workers"
        ) from error


@dataclass(frozen=True, slots=True)
class Opened:
    """One array, ready to be read and to encode what is written.

    Attributes
    ----------
    array : zarr.Array
    variable : Variable
    direct : Direct or None
        How its objects are encoded and decoded without Zarr, where that is known.
    encoder : zarr.Array
        The same array upon a store that catches what is written.
    caught : dict
        Object key -> encoded bytes, ``None`` where an object holds only fill values; emptied by whoever encoded.
    """

    array: Any
    variable: Variable
    direct: Direct | None
    encoder: Any
    caught: dict[str, Any]


def open_array(url: str, name: str) -> Opened:
    """Open an array of a dataset.

    Raises
    ------
    KeyError
        When the dataset has no array of that name.
    StoreError
        When its metadata cannot be read.
    """
    store, path = (Noticing(local_path(url)), "") if is_local(url) else zarr_store(url)
    try:
        with readable(join(url, name)), files.explained(url, "open"):
            array = zarr.open_array(store, path=f"{path}/{name}".lstrip("/"), mode="r", zarr_format=3)
    except FileNotFoundError:
        raise KeyError(name) from None
    content = array.metadata.to_buffer_dict(default_buffer_prototype())["zarr.json"]
    catcher = Catcher(content)
    encoder = zarr.open_array(catcher, mode="r+", zarr_format=3)
    return Opened(array, variable_of(array), direct(array), encoder, catcher.caught)


def variable_of(array: Any) -> Variable:
    """Return the schema of an array."""
    kind = np.dtype(array.dtype)
    dtype = str(kind.name) if kind.kind != "T" else "string"
    dims = tuple(array.metadata.dimension_names or [f"dim_{axis}" for axis in range(array.ndim)])
    return Variable(dtype, dims, array.shape, array.chunks, array.shards, dict(array.attrs), array.fill_value)


def compressors(dtype: str, codec: str = "") -> Any:
    """Return how values are compressed: ``None`` leaves it to Zarr, for text.

    ``codec`` is empty (Blosc with LZ4), ``zstd`` or ``zstd:LEVEL`` (smaller, slower to write), or ``none``.

    As measured (docs/storage.md): three times as fast to write as Zarr's default, twice as fast to read, as small.
    The checksum is no luxury: without it Blosc gives wrong values for a torn or altered object, and no error. Zarr
    runs codecs outside the main thread, where Blosc is single-threaded and its bytes depend on the values alone.
    """
    if dtype == "string":
        return None
    from zarr.codecs import BloscCodec, Crc32cCodec

    if codec:
        name, _, level = codec.partition(":")
        packed = [] if name == "none" else [BloscCodec(cname=name, clevel=int(level or 5), shuffle="shuffle")]
        return [*packed, Crc32cCodec()]
    return [BloscCodec(cname="lz4", clevel=5, shuffle="shuffle"), Crc32cCodec()]


class Noticing(zarr.storage.LocalStore):  # type: ignore[misc]
    """A folder that notes the objects which Zarr reads whole, where that is wanted: see `noticing`."""

    async def get(self, key: str, prototype: Any = None, byte_range: Any = None) -> Any:
        read = super().get
        if byte_range is not None or key.endswith("zarr.json"):
            return await read(key, prototype, byte_range)
        return await notice_async(str(self.root / key), lambda: read(key, prototype, byte_range))


class Catcher(zarr.abc.store.Store):  # type: ignore[misc]
    """A store with the metadata of one array that catches what is written and shows nothing of what lies stored.

    So a ragged last shard is never completed from an older, or a torn, one.
    """

    supports_writes = True
    supports_deletes = True
    supports_partial_writes = False
    supports_listing = False

    def __init__(self, metadata: Any) -> None:
        super().__init__(read_only=False)
        self.metadata = metadata
        self.caught: dict[str, Any] = {}

    def __eq__(self, other: object) -> bool:
        return self is other

    __hash__ = object.__hash__

    async def get(self, key: str, prototype: Any, byte_range: Any = None) -> Any:
        return self.metadata if key == "zarr.json" else None

    async def get_partial_values(self, prototype: Any, key_ranges: Iterable[Any]) -> list[Any]:
        return [None for _ in key_ranges]

    async def exists(self, key: str) -> bool:
        return key == "zarr.json"

    async def set(self, key: str, value: Any) -> None:
        self.caught[key] = value

    async def delete(self, key: str) -> None:
        self.caught[key] = None

    async def list(self) -> AsyncIterator[str]:
        for key in ("zarr.json",):
            yield key

    async def list_prefix(self, prefix: str) -> AsyncIterator[str]:
        async for key in self.list():
            if key.startswith(prefix):
                yield key

    async def list_dir(self, prefix: str) -> AsyncIterator[str]:
        async for key in self.list():
            yield key


def encoded(found: Opened, region: Region, values: np.ndarray, keys: Iterable[str]) -> Mapping[str, Any]:
    """Return the stored form of a region of whole objects: key -> bytes-like, ``None`` where it is all fill."""
    if found.direct is not None and values.dtype == found.direct.stored.dtype:
        return dict(zip(keys, found.direct.encoded(region, values), strict=True))
    found.encoder[tuple(slice(*part) for part in region)] = values
    caught = {key: found.caught.pop(key, None) for key in keys}
    return {key: None if buffer is None else buffer.as_numpy_array() for key, buffer in caught.items()}
