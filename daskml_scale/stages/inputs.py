"""What a stage reads, looked at before it is planned: schemas, identities, small results; and what its ledger holds.

Identities that were hashed once are kept beside the ledger. Nothing here plans or runs.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import suppress

from daskml_scale.errors import PlanError, StoreError
from daskml_scale.plan.table import Records
from daskml_scale.plan.units import Snapshot
from daskml_scale.storage import files, stores
from daskml_scale.storage.ledger import Ledger
from daskml_scale.storage.urls import is_icechunk
from daskml_scale.storage.verify import stale

from .base import Input, Ref
from .file_patterns import matching, sources
from .grid_files import cubes

LARGE = 64 << 20
"""Bytes of a source file that is hashed by a worker, not by the driver."""
IDS = "ids.json"
"""Beside the segments of a ledger: the identities of files and objects that no ledger knows."""
KEEP_SECONDS = 30.0
"""Between two times that these are written down while units run."""


def gather(refs: Mapping[str, Ref], ledger_url: str = "") -> dict[str, Input]:
    """Look at the inputs of a stage: schemas, identities, small results. ``None`` where there is none yet."""
    return looked(refs, known_ids(ledger_url))


def looked(refs: Mapping[str, Ref], known: dict[str, tuple[int, int, str]]) -> dict[str, Input]:
    """Look at the inputs; ``known`` identities of files are trusted while size and stamp are equal, and updated.

    The objects of a local dataset are identified when a plan asks for them.
    """
    found: dict[str, Input] = {}
    for name, ref in refs.items():
        if ref.kind == "dataset":
            records = Ledger(stores.beside(ref.url, "ledger")).records()
            found[name] = stores.snapshot(ref.url, records, known, lazy=True)
        elif ref.kind == "file":
            found[name] = files.file_id(ref.url, known) if files.stat(ref.url) is not None else None
        elif ref.kind == "files":
            found[name] = matching(ref.url, known)
        elif ref.kind in ("sources", "quick sources"):
            found[name] = sources(ref.url, known, quick=ref.kind == "quick sources", large=LARGE)
        elif ref.kind == "cubes":
            found[name] = cubes(ref.url, known)
        elif ref.kind == "json":
            found[name] = files.read_json(ref.url)
        elif ref.kind == "result":
            found[name] = Ledger(ref.url).result()
        else:
            raise AssertionError(ref.kind)
    return found


def known_ids(ledger_url: str) -> dict[str, tuple[int, int, str]]:
    """Return the remembered identities of files; none from a file that says something else: it is written anew."""
    if not ledger_url:
        return {}
    url = files.join(ledger_url, IDS)
    try:
        return {name: (int(size), int(time), str(known)) for name, (size, time, known) in files.read_json(url).items()}
    except (AttributeError, TypeError, ValueError, StoreError):
        return {}


class Remembered:
    """What a run of a stage hashed or noticed of what it reads, written down so that the next run need not.

    Attributes
    ----------
    known : dict of URL to (size, stamp, digest)
        Of files and objects that no ledger knows.

    Parameters
    ----------
    ledger : str
        URL of the stage's ledger.
    """

    def __init__(self, ledger: str) -> None:
        self.ledger, self.known = ledger, known_ids(ledger)
        self._kept, self._next = dict(self.known), time.monotonic() + KEEP_SECONDS

    def keep(self) -> None:
        """Write it down, if there is something new and a ledger to lie in."""
        if self.known != self._kept and files.names(self.ledger):
            files.write_json(files.join(self.ledger, IDS), self.known)
            self._kept = dict(self.known)

    def keep_on_the_way(self, at_once: bool = False) -> None:
        """Write it down now and then while units run: a driver that is killed has little to hash again."""
        began = time.monotonic()
        if is_icechunk(self.ledger) or (began < self._next and not at_once):
            return  # in Icechunk a commit of its own would stand against those of the units
        with suppress(StoreError):
            self.keep()
        now = time.monotonic()
        self._next = now + max(KEEP_SECONDS, 20 * (now - began))


def checked_records(ledger: Ledger) -> Records:
    """Return the ledger's records; those whose stored output is gone, torn or altered are marked so."""
    records = ledger.records()
    return records.marked(stale(stores.dataset_of(ledger.url), records))


def require(snapshot: object, url: str, stage: str) -> Snapshot:
    """Return an input that must exist by now.

    Raises
    ------
    PlanError
    """
    if isinstance(snapshot, Snapshot):
        return snapshot
    raise PlanError(f"{stage}: {url} does not exist; run the stage that writes it, or check the URL")
