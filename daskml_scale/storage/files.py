"""Small objects by URL: read, write durably, list, remove. Local paths and ``memory://`` (this process).

Writes are atomic (temporary file, fsync, rename, fsync of the folder): a reader sees the old bytes or
the new ones. Other schemes are refused by name.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from daskml_scale.errors import StoreError, UsageError
from daskml_scale.plan.units import FileId

MEMORY: dict[str, bytes] = {}
"""Objects of ``memory://`` URLs, by full URL."""
_memory_lock = threading.Lock()
SCHEMES = "a local path, or memory://NAME"


def is_memory(url: str) -> bool:
    """Return whether the URL names the process-global memory store."""
    return url.startswith("memory://")


def local_path(url: str) -> Path:
    """Return the path of a local URL.

    Raises
    ------
    UsageError
        For a scheme that is not supported, with the supported ones.
    """
    if url.startswith("file://"):
        url = url[len("file://") :]
    if "://" in url:
        raise UsageError(f"{url!r}: scheme {url.split('://')[0]!r} is not supported; use {SCHEMES}")
    return Path(url)


def normal(url: str | os.PathLike[str]) -> str:
    """Return a URL in one form: local paths absolute, memory URLs without a trailing slash."""
    text = os.fspath(url)
    if is_memory(text):
        if not text[len("memory://") :].strip("/"):
            raise UsageError(f"{text!r} names no store; write memory://NAME")
        return text.rstrip("/")
    return str(local_path(text).expanduser().absolute())


def join(url: str, *parts: str) -> str:
    """Append path parts to a URL."""
    return "/".join([url.rstrip("/"), *parts])


@contextmanager
def explained(url: str, verb: str) -> Iterator[None]:
    try:
        yield
    except PermissionError as error:
        raise StoreError(
            f"no permission to {verb} {url} (running as uid {os.getuid()}); choose another store or change its mode"
        ) from error
    except OSError as error:
        remedy = {
            errno.ENOSPC: "; the disk is full: free some space and run the same command again, committed work is kept",
            errno.EDQUOT: "; the quota is used up: free some space and run the same command again",
            errno.EROFS: "; the file system is read-only: choose another store",
            errno.ENOTDIR: "; a part of the path is a file, not a folder",
        }.get(error.errno or 0, "")
        raise StoreError(f"cannot {verb} {url}: {error.strerror or error}{remedy}") from error


def write_bytes(url: str, data: bytes) -> None:
    """Write an object atomically and durably, making its folder.

    Raises
    ------
    StoreError
        Without permission, on a full disk, and so on, with the remedy.
    """
    if is_memory(url):
        with _memory_lock:
            MEMORY[url] = bytes(data)
        return
    path = local_path(url)
    with explained(url, "write"):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.chmod(temporary, 0o666 & ~_umask())
            os.replace(temporary, path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _umask() -> int:
    mask = os.umask(0o022)
    os.umask(mask)
    return mask


def read_bytes(url: str) -> bytes | None:
    """Return an object's bytes, or ``None`` when there is none."""
    if is_memory(url):
        return MEMORY.get(url)
    with explained(url, "read"):
        try:
            return local_path(url).read_bytes()
        except FileNotFoundError:
            return None


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
    """Return the sorted names of the objects in a folder; empty when it does not exist."""
    if is_memory(url):
        prefix = url.rstrip("/") + "/"
        return sorted({key[len(prefix) :].split("/")[0] for key in list(MEMORY) if key.startswith(prefix)})
    with explained(url, "list"):
        try:
            return sorted(entry.name for entry in os.scandir(local_path(url)) if not entry.name.startswith("."))
        except FileNotFoundError:
            return []


def remove(url: str) -> None:
    """Remove an object or a folder with all it holds; nothing when absent."""
    if is_memory(url):
        with _memory_lock:
            for key in [key for key in MEMORY if key == url or key.startswith(url + "/")]:
                del MEMORY[key]
        return
    path = local_path(url)
    with explained(url, "remove"):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def stat(url: str) -> tuple[int, int] | None:
    """Return (size in bytes, mtime in ns), or ``None`` when absent; memory objects have mtime 0."""
    if is_memory(url):
        data = MEMORY.get(url)
        return None if data is None else (len(data), 0)
    with explained(url, "read"):
        try:
            found = os.stat(local_path(url))
        except FileNotFoundError:
            return None
    return found.st_size, found.st_mtime_ns


def hash_bytes(data: bytes) -> str:
    """Return the BLAKE2b hex digest (20 bytes) of ``data``."""
    return hashlib.blake2b(data, digest_size=20).hexdigest()


def file_id(url: str, known: dict[str, tuple[int, int, str]] | None = None) -> FileId:
    """Return the identity of a file: its content's digest.

    Parameters
    ----------
    url : str
    known : dict, optional
        URL -> (size, mtime in ns, digest): trusted while size and mtime are unchanged, and updated.

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
    hasher = hashlib.blake2b(digest_size=20)
    if is_memory(url):
        hasher.update(MEMORY[url])
    else:
        with explained(url, "read"), open(local_path(url), "rb") as file:
            while block := file.read(1 << 20):
                hasher.update(block)
    if known is not None:
        known[url] = (*found, hasher.hexdigest())
    return FileId(url, hasher.hexdigest(), found[0])
