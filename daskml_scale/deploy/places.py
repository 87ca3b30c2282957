"""Where a cluster on other machines keeps its files on this one: certificates while it runs, and what workers wrote.

``$DASKML_SCALE_HOME/clusters/NAME/``, open to the user only. Certificates go when the cluster closes, or when the next
one starts after its driver was killed. Logs stay for whoever wants to know why something failed: those of the last
clusters only, and of each worker the last few megabytes.
"""

from __future__ import annotations

import contextlib
import json
import logging
import shutil
from logging.handlers import RotatingFileHandler
from pathlib import Path

import psutil

from daskml_scale.storage.home import home

KEPT_CLUSTERS = 5
LOG_BYTES = 4 << 20
"""Of one file; there are `LOG_FILES` of each worker."""
LOG_FILES = 2
_OWNER, _SECRETS = "owner.json", "tls"


class Place:
    """The folder of one cluster.

    Parameters
    ----------
    name : str
        Of the cluster, unique.
    """

    def __init__(self, name: str) -> None:
        self.folder = home() / "clusters" / name
        self.certificates = self.folder / _SECRETS
        self.logs = self.folder / "logs"
        self._handlers: dict[str, RotatingFileHandler] = {}

    def make(self) -> None:
        """Make the folder, and tidy up after clusters that are gone."""
        parent = self.folder.parent
        parent.mkdir(parents=True, exist_ok=True)
        _tidy(parent)
        self.logs.mkdir(mode=0o700, parents=True)
        self.folder.chmod(0o700)
        own = psutil.Process()
        (self.folder / _OWNER).write_text(json.dumps([own.pid, own.create_time()]))

    def log(self, name: str, text: str) -> None:
        """Append to the log of a worker; old text goes when there is too much."""
        handler = self._handlers.get(name)
        if handler is None:
            handler = RotatingFileHandler(
                self.logs / f"{name}.log", maxBytes=LOG_BYTES, backupCount=LOG_FILES - 1, encoding="utf-8"
            )
            handler.terminator = ""
            self._handlers[name] = handler
        handler.emit(logging.makeLogRecord({"msg": text}))

    def ended(self, name: str) -> None:
        """Close the log of a worker that is gone."""
        if (handler := self._handlers.pop(name, None)) is not None:
            handler.close()

    def close(self) -> None:
        """Remove the certificates, and the folder when nothing was written."""
        for name in list(self._handlers):
            self.ended(name)
        shutil.rmtree(self.certificates, ignore_errors=True)
        (self.folder / _OWNER).unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            self.logs.rmdir()
            self.folder.rmdir()


def _tidy(parent: Path) -> None:
    """Remove certificates of clusters whose driver is gone, and all of all but the last of them."""
    found = [path for path in parent.iterdir() if (path / "logs").is_dir()]
    gone = sorted((path for path in found if not _held(path)), key=lambda path: (path / "logs").stat().st_mtime)
    for path in gone:
        shutil.rmtree(path / _SECRETS, ignore_errors=True)
    for path in gone[: max(0, len(gone) - KEPT_CLUSTERS)]:
        shutil.rmtree(path, ignore_errors=True)


def _held(path: Path) -> bool:
    try:
        pid, since = json.loads((path / _OWNER).read_text())
        return bool(abs(psutil.Process(pid).create_time() - since) < 1)
    except (OSError, ValueError, psutil.Error):
        return False
