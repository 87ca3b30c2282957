"""One driver per store. On this machine a lock that the operating system drops when its process dies, however it dies.

In a bucket it is an object, made by a conditional write and renewed while its holder lives. Its age is told by the
server's clock alone, so a clock that goes backwards here neither steals a lock nor keeps one; a holder that lost
its lock (it was cut off for longer than the lease) can write no more ledger. In Icechunk the lock is that of
the whole repository, which has one committer.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from daskml_scale.errors import ConflictError, StoreError

from . import files
from .urls import ICECHUNK, bucket, is_icechunk, is_memory, is_object, join, local_path

LEASE_SECONDS = 60.0
"""A lock in a bucket that was not renewed for so long is free."""
_repositories: set[str] = set()
"""Roots of the repositories that this process holds."""


@contextmanager
def hold(store: str, owner: str, *, lease: float = LEASE_SECONDS) -> Iterator[None]:
    """Hold the lock of a store while the block runs.

    Parameters
    ----------
    store : str
        URL of the store's root folder, made when absent. ``memory://`` needs no lock: it has one process.
    owner : str
        Shown to whoever finds the store locked.
    lease : float
        Seconds, for a lock in a bucket.

    Raises
    ------
    ConflictError
        When another process holds it.
    StoreError
        Without permission.
    """
    if is_memory(store):
        yield
    elif is_icechunk(store):
        with _hold_repository(store, owner, lease):
            yield
    elif is_object(store):
        with _hold_object(store, owner, lease):
            yield
    else:
        with _hold_file(store, owner):
            yield


def holder(store: str) -> str:
    """Return who holds a store on this machine now; empty when nobody does, and for other stores. Writes nothing."""
    if is_memory(store) or is_icechunk(store) or is_object(store):
        return ""
    try:
        descriptor = os.open(local_path(store) / ".lock", os.O_RDONLY)
    except OSError:
        return ""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _owner(descriptor)
    finally:
        os.close(descriptor)
    return ""


def in_use(store: str, owner: str) -> ConflictError:
    """Return the error of a store that somebody else holds."""
    return ConflictError(f"{store} is in use by {owner}; wait for it, stop it, or choose another store")


def _owner(descriptor: int) -> str:
    return os.pread(descriptor, 200, 0).decode(errors="replace").strip() or "another process"


@contextmanager
def _hold_repository(store: str, owner: str, lease: float) -> Iterator[None]:
    from . import repositories

    root = repositories.root_of(store) or (store.rpartition("/")[0] if store.endswith(".ledger") else store)
    if root in _repositories:
        yield  # what this process writes goes through one transaction at a time
        return
    inner = root[len(ICECHUNK) :]
    with hold(files.normal(inner), owner, lease=lease):
        repositories.make(root)
        _repositories.add(root)
        try:
            yield
        finally:
            _repositories.discard(root)


@contextmanager
def _hold_file(store: str, owner: str) -> Iterator[None]:
    path = local_path(store) / ".lock"
    with files.explained(store, "write to"):
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise in_use(store, _owner(descriptor)) from None
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{owner} (process {os.getpid()})".encode(), 0)
        yield
    finally:
        os.close(descriptor)


@contextmanager
def _hold_object(store: str, owner: str, lease: float) -> Iterator[None]:
    from . import buckets

    root, path = bucket(join(store, ".lock"))
    held = _Lease(buckets.opened(root), path, store, owner, lease)
    with buckets.explained(store, "lock"):
        held.take()
    keeper = threading.Thread(target=held.keep, name=f"lock of {store}", daemon=True)
    keeper.start()
    try:
        yield
    finally:
        held.stop.set()
        keeper.join()
        with suppress(Exception):  # a lock that cannot be given back runs out
            held.give_back()
        buckets.LOST.pop(store, None)


@dataclass
class _Lease:
    """A lock object of a bucket, by this process."""

    bucket: Any
    path: str
    store: str
    owner: str
    seconds: float
    stop: threading.Event = field(default_factory=threading.Event)
    version: dict[str, str] = field(default_factory=dict)
    token: str = field(default_factory=lambda: uuid.uuid4().hex)

    def take(self) -> None:
        """Make the object, or take over one that was not renewed for the length of a lease.

        Raises
        ------
        ConflictError
            When somebody holds it.
        """
        if self._put("create"):
            return
        found = self.bucket.get(self.path)
        meta = found.meta  # obstore 0.6 forgets it once the bytes are taken
        holder = json.loads(bytes(found.bytes()))
        age = (self._server_time() - meta["last_modified"]).total_seconds()
        if age < self.seconds or not self._put(_version(meta)):
            raise ConflictError(
                f"{self.store} is in use by {holder.get('owner')} (process {holder.get('process')} on "
                f"{holder.get('host')}, alive {max(0, age):.0f} s ago); wait for it, stop it, or choose another store. "
                f"If it is dead, its lock is free {self.seconds:.0f} s after that"
            )

    def _put(self, mode: Any) -> bool:
        body = {"owner": self.owner, "process": os.getpid(), "host": socket.gethostname(), "token": self.token}
        try:
            put = self.bucket.put(self.path, json.dumps(body).encode(), mode=mode, use_multipart=False)
        except Exception as error:
            if type(error).__name__ in ("AlreadyExistsError", "PreconditionError"):
                return False
            raise
        self.version = _version(put)
        return True

    def _server_time(self) -> Any:
        """Return what the server's clock says: the time of an object that is made for it."""
        probe = f"{self.path}.{self.token}"
        self.bucket.put(probe, b"", use_multipart=False)
        try:
            return self.bucket.head(probe)["last_modified"]
        finally:
            self.bucket.delete(probe)

    def keep(self) -> None:
        """Renew the lock until it is given back; a holder that lost it writes no more."""
        from . import buckets

        failures = 0
        while not self.stop.wait(self.seconds / 4):
            try:
                renewed, failures = self._put(self.version), 0
            except Exception:
                failures += 1
                renewed = failures < 3
            if not renewed:
                buckets.LOST[self.store] = (
                    f"{self.store}: this run lost its lock: it could not renew it, or another run took the store over; "
                    "what was committed stays; run the same command again when the other run has ended"
                )
                return

    def give_back(self) -> None:
        """Remove the object if it still is this process's."""
        found = json.loads(bytes(self.bucket.get(self.path).bytes()))
        if found.get("token") == self.token:
            self.bucket.delete(self.path)


def _version(meta: Any) -> dict[str, str]:
    """Return what a conditional write compares."""
    found = {key: meta[key] for key in ("e_tag", "version") if meta.get(key)}
    if not found:
        raise StoreError("this server gives its objects no ETag: it cannot be locked, so it cannot be a store")
    return found
