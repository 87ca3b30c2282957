"""Datasets and small files in Icechunk repositories, as a backend.

What is written lies in this unit's fork, or in the open transaction; a small file outside of one is a commit of its
own. Small files are arrays of bytes: a repository holds nothing else. A reader sees whole commits only.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from daskml_scale.errors import StoreError

from .backend import Backend, Known, Stat, hash_bytes
from .history import ids, intact
from .repositories import FILES, explained, root_of, stamp_of, transaction, zarr_store
from .urls import join, resolve


class Icechunk(Backend):
    """Objects and small files in repositories; an object's stamp is that of the commit that it was written upon."""

    def write_object(self, url: str, key: str, data: bytes | memoryview) -> Stat:
        store, path = self._store(*resolve(url, key), write=True)
        with explained(url, "write"):
            _sync(store.set(path, _buffer(data)))
        return len(data), stamp_of(store.session.snapshot_id)

    def read_object(self, url: str, key: str) -> bytes | None:
        try:
            store, path = self._store(*resolve(url, key))
        except FileNotFoundError:
            return None
        with explained(url, "read"):
            return _read(store, path)

    def remove_object(self, url: str, key: str) -> None:
        store, path = self._store(*resolve(url, key), write=True)
        with explained(url, "remove"):
            _sync(store.delete(path))

    def stat(self, url: str) -> Stat | None:
        data = self.read(url)
        return None if data is None else (len(data), 0)

    def stats(self, url: str) -> Callable[[str], Stat | None]:
        def stat(key: str) -> Stat | None:
            data = self.read_object(url, key)
            return None if data is None else (len(data), 0)

        return stat

    def identity(self, url: str, key: str, found: Stat) -> str:
        return hash_bytes(self.read(join(*resolve(url, key))) or b"")

    def intact(self, url: str) -> Callable[[str, Known], bool]:
        return intact(url, lambda key: self.read_object(url, key))

    def ids(self, url: str, keys: list[str], known: Mapping[str, Known]) -> dict[str, Known]:
        return ids(url, keys, known)

    def write(self, url: str, data: bytes | memoryview, *, durable: bool = True) -> Stat:
        import numpy as np
        import zarr

        if not root_of(url):
            raise StoreError(
                f"{url}: there is no Icechunk repository at or above it; give its folder as the store of a run, or "
                "write a dataset (NAME.zarr) there first"
            )
        with transaction(url, f"write {url.rpartition('/')[2]}", {"kind": FILES}):
            store, path = zarr_store(url, write=True)
            with explained(url, "write"):
                array = zarr.create_array(
                    store, name=path, shape=(len(data),), chunks=(max(1, len(data)),), dtype="uint8", compressors=None,
                    filters=None, fill_value=0, overwrite=True, config={"write_empty_chunks": True},
                )  # fmt: skip
                if data:
                    array[...] = np.frombuffer(data, "uint8")
        return len(data), 0

    def read(self, url: str) -> bytes | None:
        data = self.read_object(url, "c/0")
        if data is None and b'"array"' in (self.read_object(url, "zarr.json") or b""):
            return b""  # an empty file has no chunk
        return data

    def names(self, url: str) -> list[str]:
        try:
            store, path = self._store(url)
        except FileNotFoundError:
            return []
        with explained(url, "list"):
            found = _sync(_listed(store, path))
        return sorted(name for name in found if name != "zarr.json" and not name.startswith("."))

    def remove(self, url: str) -> None:
        if not root_of(url):
            return
        with transaction(url, f"remove {url.rpartition('/')[2]}", {}):
            store, path = zarr_store(url, write=True)
            with explained(url, "remove"):
                _sync(store.delete_dir(path))

    @staticmethod
    def _store(url: str, key: str = "", *, write: bool = False) -> tuple[Any, str]:
        store, path = zarr_store(url, write=write)
        return store, f"{path}/{key}".strip("/")


def _sync(coroutine: Any) -> Any:
    from zarr.core.sync import sync

    return sync(coroutine)


def _buffer(data: bytes | memoryview) -> Any:
    from zarr.core.buffer import default_buffer_prototype

    return default_buffer_prototype().buffer.from_bytes(bytes(data))


def _read(store: Any, path: str) -> bytes | None:
    from zarr.core.buffer import default_buffer_prototype

    found = _sync(store.get(path, default_buffer_prototype()))
    return None if found is None else found.to_bytes()


async def _listed(store: Any, path: str) -> list[str]:
    return [name async for name in store.list_dir(path)]
