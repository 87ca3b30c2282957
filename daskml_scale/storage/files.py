"""Small objects by URL: read, write durably, list, remove; on this machine, in memory, in a bucket, in Icechunk.

Writes are atomic and durable: a reader sees the old bytes or the new ones, also after a loss of power.
"""

from __future__ import annotations

import json
from functools import cache
from io import BytesIO
from typing import Any, BinaryIO

from blake3 import blake3

from daskml_scale.errors import StoreError
from daskml_scale.plan.units import FileId

from .backend import DIGEST, Backend, Known, Local, Memory
from .backend import MEMORY as MEMORY
from .backend import explained as explained
from .backend import hash_bytes as hash_bytes
from .urls import is_icechunk, is_object
from .urls import is_local as is_local
from .urls import is_memory as is_memory
from .urls import join as join
from .urls import local_path as local_path
from .urls import normal as normal


def backend(url: str) -> Backend:
    """Return what reads and writes at a URL."""
    if is_local(url):
        return _backend("local")
    if is_memory(url):
        return _backend("memory")
    if is_object(url):
        return _backend("object")
    if is_icechunk(url):
        return _backend("icechunk")
    normal(url)  # refuses it
    raise StoreError(f"{url} cannot be opened")


@cache
def _backend(kind: str) -> Backend:
    if kind == "local":
        return Local()
    if kind == "memory":
        return Memory()
    if kind == "object":
        from .buckets import Buckets

        return Buckets()
    from .icechunk import Icechunk

    return Icechunk()


def write_bytes(url: str, data: bytes) -> None:
    """Write an object atomically and durably, making its folder.

    Raises
    ------
    StoreError
        Without permission, on a full disk, and so on, with the remedy.
    """
    backend(url).write(url, data)


def read_bytes(url: str) -> bytes | None:
    """Return an object's bytes, or ``None`` when there is none."""
    return backend(url).read(url)


def write_json(url: str, value: Any) -> None:
    """Write a JSON document (sorted keys, one trailing newline)."""
    write_bytes(url, (json.dumps(value, sort_keys=True, indent=1) + "\n").encode())


def read_json(url: str) -> Any:
    """Return a JSON document, or ``None`` when there is none.

    Raises
    ------
    StoreError
        When it is not JSON.
    """
    data = read_bytes(url)
    if data is None:
        return None
    try:
        return json.loads(data)
    except ValueError as error:
        raise StoreError(f"{url} is not JSON ({error}); remove it, or restore it from a copy") from None


def names(url: str) -> list[str]:
    """Return the sorted names of the objects in a folder, hidden ones left out; empty when it does not exist."""
    return backend(url).names(url)


def remove(url: str) -> None:
    """Remove an object or a folder with all it holds; nothing when absent."""
    backend(url).remove(url)


def stat(url: str) -> tuple[int, int] | None:
    """Return (size in bytes, stamp), or ``None`` when absent.

    The stamp is the mtime of a file in ns, a hash of an object's ETag, 0 in memory.
    """
    return backend(url).stat(url)


def open_read(url: str) -> BinaryIO:
    """Open a file for reading bytes from any place in it: from a bucket only what is read is fetched.

    Raises
    ------
    OSError
        When there is none, or it cannot be read.
    """
    if is_local(url):
        return open(local_path(url), "rb")
    if is_object(url):
        from .buckets import open_read as from_bucket

        return from_bucket(url)
    data = read_bytes(url)
    if data is None:
        raise FileNotFoundError(f"{url} does not exist; check the path")
    return BytesIO(data)


def below(url: str) -> dict[str, tuple[int, int]]:
    """Return size and stamp of all objects below a URL of a bucket or of memory, by the rest of their path."""
    if is_memory(url):
        root = f"{url.rstrip('/')}/"
        return {key[len(root) :]: (len(data), 0) for key, data in sorted(MEMORY.items()) if key.startswith(root)}
    from .buckets import Buckets

    return Buckets().listing(url)


def file_id(url: str, known: dict[str, tuple[int, int, str]] | None = None) -> FileId:
    """Return the identity of a file: its content's digest, or a bucket's word for it (ETag).

    Parameters
    ----------
    url : str
    known : dict, optional
        URL -> (size, stamp, digest): trusted while size and stamp are unchanged, and updated.

    Raises
    ------
    StoreError
        When the file cannot be read.
    """
    found = stat(url)
    if found is None:
        raise StoreError(f"{url} does not exist; check the path")
    remembered = (known or {}).get(url)
    if remembered is not None and tuple(remembered[:2]) == found and found[1]:
        return FileId(url, remembered[2], found[0])
    if is_local(url):
        hasher = blake3()
        with explained(url, "read"), open(local_path(url), "rb") as file:
            while block := file.read(1 << 20):
                hasher.update(block)
        content = hasher.hexdigest(DIGEST)
    else:
        folder, _, name = url.rpartition("/")
        content = backend(url).identity(folder, name, found)
    if known is not None:
        known[url] = (*found, content)
    return FileId(url, content, found[0])


def ids(url: str, keys: list[str], known: dict[str, Known]) -> dict[str, Known]:
    """Return (identity, size, stamp) of the objects of a dataset; see :meth:`backend.Backend.ids`."""
    return backend(url).ids(url, keys, known)
