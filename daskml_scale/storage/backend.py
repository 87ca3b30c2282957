"""Where bytes rest: this machine's files, and the memory of this process. The base of the other backends.

A backend reads and writes whole objects by URL; every write is atomic: a reader sees the old bytes or the
new ones. What the bytes mean is for the callers.

A *stamp* is an integer that another content of the same object does not have: the modification time of a
file in nanoseconds, a hash of an object's ETag; 0 where there is none to be trusted.
"""

from __future__ import annotations

import errno
import os
import shutil
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeAlias

from blake3 import blake3

from daskml_scale.errors import StoreError

from .urls import join, local_path, resolve

Stat: TypeAlias = tuple[int, int]
"""(size in bytes, stamp)."""
Known: TypeAlias = tuple[str, int, int]
"""(digest of the bytes, size, stamp) of an object, as a ledger keeps it."""
DIGEST = 20
"""Bytes of a digest."""
HASHING = 4
"""Objects that no ledger knows are read and hashed at a time; both let other threads run."""
ABSENT = "-"
"""Identity of an object that is not stored, as one of only fill values."""
MEMORY: dict[str, bytes] = {}
"""Objects of ``memory://`` URLs, by full URL."""


def hash_bytes(data: bytes | memoryview) -> str:
    """Return the BLAKE3 hex digest (20 bytes) of ``data``: six times as fast as BLAKE2b, as strong."""
    return blake3(data).hexdigest(DIGEST)


@contextmanager
def explained(url: str, verb: str) -> Iterator[None]:
    """Say what could not be done, why, and what helps, when the operating system refuses."""
    try:
        yield
    except StoreError:
        raise
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


class Backend:
    """One kind of place. The methods on objects of a dataset (``url``, ``key``) default to those on URLs."""

    concurrency = 1
    """Objects of one region that are written at a time."""

    def write(self, url: str, data: bytes | memoryview, *, durable: bool = True) -> Stat:
        """Write an object atomically; ``durable`` waits until it survives a loss of power."""
        raise StoreError(f"{url} cannot be written")

    def read(self, url: str) -> bytes | None:
        """Return an object's bytes, ``None`` when there is none."""
        raise StoreError(f"{url} cannot be read")

    def stat(self, url: str) -> Stat | None:
        """Return size and stamp of an object, ``None`` when there is none."""
        raise StoreError(f"{url} cannot be read")

    def names(self, url: str) -> list[str]:
        """Return the sorted names in a folder; empty when it does not exist."""
        raise StoreError(f"{url} cannot be listed")

    def remove(self, url: str) -> None:
        """Remove an object or a folder with all it holds; nothing when absent."""
        raise StoreError(f"{url} cannot be removed")

    def write_object(self, url: str, key: str, data: bytes | memoryview) -> Stat:
        return self.write(join(*resolve(url, key)), data, durable=False)

    def read_object(self, url: str, key: str) -> bytes | None:
        return self.read(join(*resolve(url, key)))

    def remove_object(self, url: str, key: str) -> None:
        self.remove(join(*resolve(url, key)))

    def stats(self, url: str) -> Callable[[str], Stat | None]:
        """Return a function from keys of a dataset to their size and stamp; it may look only once."""
        return lambda key: self.stat(join(*resolve(url, key)))

    def identity(self, url: str, key: str, found: Stat) -> str:
        """Return what stands for the content of an object that no ledger knows: its digest."""
        data = self.read_object(url, key)
        return ABSENT if data is None else hash_bytes(data)

    def intact(self, url: str) -> Callable[[str, Known], bool]:
        """Return a function that tells whether an object still is what a ledger says.

        An unchanged size and stamp are trusted; otherwise its bytes are hashed.
        """
        stats = self.stats(url)

        def same(key: str, known: Known) -> bool:
            found = stats(key)
            if found is None or known[0] == ABSENT:
                return found is None and known[0] == ABSENT
            if found == (known[1], known[2]) and found[1]:
                return True
            data = self.read_object(url, key) if found[0] == known[1] else None
            return data is not None and hash_bytes(data) == known[0]

        return same

    def ids(self, url: str, keys: list[str], known: Mapping[str, Known]) -> dict[str, Known]:
        """Return (identity, size, stamp) of objects; ``known`` ones of equal size and stamp are not read."""
        stats = self.stats(url)
        ids: dict[str, Known] = {}
        fresh: dict[str, Stat] = {}
        for key in keys:
            found, before = stats(key), known.get(key)
            if found is None:
                ids[key] = (ABSENT, 0, 0)
            elif before is not None and found == before[1:] and found[1]:
                ids[key] = before
            else:
                fresh[key] = found
        if fresh:
            with ThreadPoolExecutor(HASHING) as pool:
                each = pool.map(lambda item: self.identity(url, *item), fresh.items())
                ids.update((key, (one, *fresh[key])) for key, one in zip(fresh, each, strict=True))
        return ids


class Local(Backend):
    """Files: a temporary file, renamed; for durability also fsync of the file and of its folder."""

    def write(self, url: str, data: bytes | memoryview, *, durable: bool = True) -> Stat:
        path = local_path(url)
        temporary = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}")
        with explained(url, "write"):
            try:
                descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
            except FileNotFoundError:
                path.parent.mkdir(parents=True, exist_ok=True)
                descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
            try:
                with os.fdopen(descriptor, "wb", buffering=0) as file:
                    view = memoryview(data)
                    while view:
                        view = view[file.write(view) :]
                    if durable:
                        os.fsync(file.fileno())
                    found = os.fstat(file.fileno())
                os.replace(temporary, path)
            except BaseException:
                temporary.unlink(missing_ok=True)
                raise
            if durable:
                _sync_folder(path.parent)
        return found.st_size, found.st_mtime_ns

    def read(self, url: str) -> bytes | None:
        with explained(url, "read"):
            try:
                return local_path(url).read_bytes()
            except FileNotFoundError:
                return None

    def stat(self, url: str) -> Stat | None:
        with explained(url, "read"):
            try:
                found = os.stat(local_path(url))
            except FileNotFoundError:
                return None
        return found.st_size, found.st_mtime_ns

    def names(self, url: str) -> list[str]:
        with explained(url, "list"):
            try:
                return sorted(entry.name for entry in os.scandir(local_path(url)) if not entry.name.startswith("."))
            except FileNotFoundError:
                return []

    def remove(self, url: str) -> None:
        path = local_path(url)
        with explained(url, "remove"):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)

    def stats(self, url: str) -> Callable[[str], Stat | None]:
        root = f"{local_path(url)}/"

        def stat(key: str) -> Stat | None:
            # Beside a dataset that is not made yet something may lie all the same.
            path = join(*resolve(url, key)) if key.startswith("../") else root + key
            try:
                found = os.stat(path)
            except (FileNotFoundError, NotADirectoryError):
                return None
            except OSError:
                return self.stat(path)  # explains it
            return found.st_size, found.st_mtime_ns

        return stat


def _sync_folder(path: os.PathLike[str]) -> None:
    folder = os.open(path, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


class Memory(Backend):
    """A dictionary of this process. It has no stamps: identities are always digests."""

    lock = threading.Lock()

    def write(self, url: str, data: bytes | memoryview, *, durable: bool = True) -> Stat:
        with self.lock:
            MEMORY[url] = bytes(data)
        return len(data), 0

    def read(self, url: str) -> bytes | None:
        return MEMORY.get(url)

    def stat(self, url: str) -> Stat | None:
        data = MEMORY.get(url)
        return None if data is None else (len(data), 0)

    def names(self, url: str) -> list[str]:
        prefix = url.rstrip("/") + "/"
        return sorted({key[len(prefix) :].split("/")[0] for key in list(MEMORY) if key.startswith(prefix)})

    def remove(self, url: str) -> None:
        with self.lock:
            for key in [key for key in MEMORY if key == url or key.startswith(f"{url}/")]:
                del MEMORY[key]
