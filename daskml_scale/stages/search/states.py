"""Models of paused trials: under ``out=``, else in memory and above a size in a folder of their own.

They are pickles. What lies under ``out=`` is unpickled only when its digest is the one that the ledger has, and a
folder whose files belong to another user of this machine is refused: who can write there could run code here.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
import warnings
from pathlib import Path

from daskml_scale.errors import UntrustedError
from daskml_scale.storage import files

MEMORY_BYTES = 256 << 20
"""Models kept in the memory of this process before they go to files."""


class States:
    """Where the models of one search wait.

    Parameters
    ----------
    url : str or None
        Folder that outlives the search; None for this process only.
    """

    def __init__(self, url: str | None) -> None:
        self.url, self.held = url, 0
        self._values: dict[str, bytes] = {}
        self._folder: tempfile.TemporaryDirectory[str] | None = None

    def put(self, key: str, state: bytes) -> str:
        """Keep a model; return its digest."""
        if self.url is not None:
            files.write_bytes(files.join(self.url, f"{key}.pkl"), state)
        elif self.held + len(state) <= MEMORY_BYTES:
            self._values[key], self.held = state, self.held + len(state)
        else:
            self._folder = self._folder or tempfile.TemporaryDirectory(prefix="search-")
            (Path(self._folder.name) / key).write_bytes(state)
        return digest_of(state)

    def get(self, key: str, digest: str) -> bytes | None:
        """Return a model, or None where it must be trained anew: it is not there, or not the one that was kept."""
        if self.url is not None:
            return whole(files.join(self.url, f"{key}.pkl"), digest)
        if key in self._values:
            return self._values[key]
        path = Path(self._folder.name) / key if self._folder else None
        return path.read_bytes() if path is not None and path.exists() else None

    def drop(self, key: str) -> None:
        """Forget a model."""
        self.held -= len(self._values.pop(key, b""))
        if self.url is not None:
            files.remove(files.join(self.url, f"{key}.pkl"))
        elif self._folder is not None:
            (Path(self._folder.name) / key).unlink(missing_ok=True)

    def close(self) -> None:
        """Remove what does not outlive the search."""
        if self._folder is not None:
            self._folder.cleanup()


def digest_of(state: bytes) -> str:
    """Return the digest that a ledger keeps of a pickle."""
    return hashlib.blake2b(state, digest_size=16).hexdigest()


def whole(url: str, digest: str) -> bytes | None:
    """Return a file whose digest is known; None when it is gone, and with a warning when it is another one."""
    found = files.read_bytes(url)
    if found is None or not digest:
        return None
    if digest_of(found) != digest:
        warnings.warn(
            f"{url} is not the file that the search wrote (digest {digest_of(found)[:12]}, the ledger has "
            f"{digest[:12]}); it is not loaded and what it held is made anew",
            UserWarning,
            stacklevel=2,
        )
        return None
    return found


def check_owner(url: str) -> None:
    """Refuse a local folder whose files another user wrote.

    Raises
    ------
    UntrustedError
        Naming the file and both users.
    """
    if not files.is_local(url) or not hasattr(os, "getuid"):
        return
    root = files.local_path(url)
    for path in (root, *sorted(root.rglob("*"))):
        owner = path.lstat().st_uid
        if owner != os.getuid():
            raise UntrustedError(
                f"{path} belongs to user {owner} and you are user {os.getuid()}: a search that goes on loads pickles "
                "from out=, which could run that user's code as yours; where you trust it, copy the folder (cp -r) and "
                "give the copy, else choose a new folder"
            )
