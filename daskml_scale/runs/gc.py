"""Remove what old runs left behind: entries in the registry, folders of logs, ledgers without a dataset.

Never results, never what a run could reuse, never anything of a run that may still live. `found` decides and
`remove` removes, so what is listed is what goes.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from daskml_scale.errors import UsageError
from daskml_scale.spec.base import seconds
from daskml_scale.storage.lock import holder
from daskml_scale.storage.urls import is_local, local_path

from .provenance import read
from .records import Registry
from .show import columns
from .state import RunRecord
from .words import near, plural, size

_BROKEN_OFF = re.compile(r"\..+\.\d+-\d+")
"""Names of temporary files: they are renamed when they are whole."""
AT_LEAST = 3600.0
"""Seconds; younger things are never removed."""


@dataclass(frozen=True, slots=True)
class Leftover:
    """One thing that may go.

    Attributes
    ----------
    what : str
        run | folder | ledger | file
    name : str
        Id of a run, or a path.
    age : float
        Seconds since it was last used.
    """

    what: str
    name: str
    age: float
    bytes: int
    why: str

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        return asdict(self)


def age(text: str) -> float:
    """Return the seconds of an age such as ``30d``.

    Raises
    ------
    UsageError
    """
    try:
        found = seconds(text)
    except ValueError as error:
        raise UsageError(f"--older {error}") from None
    if found < AT_LEAST:
        raise UsageError(f"--older {text}: the least is 1h, so that nothing goes that is just being made")
    return found


def found(registry: Registry, older: float, *, now: float) -> list[Leftover]:
    """Return what may be removed: of runs that ended longer ago than ``older`` (seconds), and of none."""
    runs = registry.list(now=now)
    old = [run for run in runs if not run.live and now - _end(run) > older]
    home = registry.path.parent
    listed = [
        Leftover("run", run.id, now - _end(run), _bytes(home / "runs" / run.id), f"{run.state}, ended long ago")
        for run in old
    ]
    known = {run.id for run in runs}
    strays = [folder for folder in _folders(home / "runs") if folder.name not in known]
    listed += [
        Leftover("folder", str(folder), now - _touched(folder), _bytes(folder), "no run of this name is known")
        for folder in strays
        if now - _touched(folder) > older
    ]
    return listed + list(_in_stores(runs, home, older, now))


def _end(run: RunRecord) -> float:
    return max(run.finished or 0.0, run.lease_until, run.created)


def _in_stores(runs: Sequence[RunRecord], home: Path, older: float, now: float) -> Iterator[Leftover]:
    """Yield what lies in the stores of known runs, unless somebody works there."""
    live = {run.store for run in runs if run.live}
    for store in dict.fromkeys(run.store for run in runs):
        if store in live or not is_local(store) or holder(store) or not local_path(store).is_dir():
            continue
        root = local_path(store)
        specs = [read(home, run.id).get("resolved", {}).get("stages", {}) for run in runs if run.store == store]
        for path in _folders(root):
            unused = path.suffix == ".ledger" and all(specs) and not any(path.stem in stages for stages in specs)
            if unused and not path.with_suffix(".zarr").exists() and now - _touched(path) > older:
                yield Leftover("ledger", str(path), now - _touched(path), _bytes(path), "its stage and data are gone")
        for path in root.rglob(".*"):
            if _BROKEN_OFF.fullmatch(path.name) and path.is_file() and now - path.stat().st_mtime > older:
                aged = now - path.stat().st_mtime
                yield Leftover("file", str(path), aged, path.stat().st_size, "a write that was broken off")


def remove(registry: Registry, listed: Iterable[Leftover]) -> None:
    """Remove what `found` listed."""
    chosen = list(listed)
    ids = [one.name for one in chosen if one.what == "run"]
    for start in range(0, len(ids), 500):
        registry.remove(ids[start : start + 500])
    for run in ids:
        shutil.rmtree(registry.path.parent / "runs" / run, ignore_errors=True)
    for one in chosen:
        if one.what in ("folder", "ledger"):
            shutil.rmtree(one.name, ignore_errors=True)
        elif one.what == "file":
            Path(one.name).unlink(missing_ok=True)


def drawn(listed: Sequence[Leftover], *, removed: bool, here: str) -> RenderableType:
    """Return the table of what goes, or went."""
    if not listed:
        return Text("Nothing to remove.")
    rows = [(one.what, near(one.name, here), f"{one.age / 86400:.0f} d", size(one.bytes), one.why) for one in listed]
    whole = f"{plural(len(listed), 'thing')}, {size(sum(one.bytes for one in listed))}"
    end = f"Removed {whole}." if removed else f"{whole}. Nothing was removed; do it with --yes."
    return Group(columns(("what", "name", "age", "size", "because"), rows, ("age", "size")), Text(), Text(end))


def _folders(path: Path) -> list[Path]:
    return sorted(one for one in path.iterdir() if one.is_dir()) if path.is_dir() else []


def _touched(folder: Path) -> float:
    times = [folder.stat().st_mtime, *(path.stat().st_mtime for path in folder.rglob("*"))]
    return max(times)


def _bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) if folder.is_dir() else 0
