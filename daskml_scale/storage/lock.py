"""One driver per store: a lock that the operating system drops when its process dies, however it dies."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager

from daskml_scale.errors import ConflictError

from . import files


@contextmanager
def hold(store: str, owner: str) -> Iterator[None]:
    """Hold the lock of a store while the block runs.

    Parameters
    ----------
    store : str
        URL of the store's root folder, made when absent. ``memory://`` needs no lock: it has one process.
    owner : str
        Shown to whoever finds the store locked.

    Raises
    ------
    ConflictError
        When another process holds it.
    StoreError
        Without permission.
    """
    if files.is_memory(store):
        yield
        return
    path = files.local_path(store) / ".lock"
    with files.explained(store, "write to"):
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            held = os.pread(descriptor, 200, 0).decode(errors="replace").strip()
            raise ConflictError(
                f"{store} is in use by {held or 'another process'}; wait for it, stop it, or choose another store"
            ) from None
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{owner} (process {os.getpid()})".encode(), 0)
        yield
    finally:
        os.close(descriptor)
