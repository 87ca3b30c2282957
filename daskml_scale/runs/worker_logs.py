"""What the workers of a run wrote, where that is not the output of the run itself.

Workers on other hosts send it to the driver, which keeps a file of each (`deploy.places`); a named cluster has the log
of its holder. The run's own log of events says where. Files that are turned over while they are read are read on.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing
from fnmatch import fnmatchcase
from pathlib import Path
from typing import IO

from daskml_scale.errors import StoreError, UsageError
from daskml_scale.events import ClusterStarted

from .event_log import path_of, read
from .records import Registry
from .state import RunRecord

LOOK_SECONDS = 0.25
ENDING = ".log"


def places(home: Path, run: str) -> list[Path]:
    """Return where the workers of a run's clusters write, in the order in which these were started.

    Parameters
    ----------
    home : Path
        Folder of the registry.
    """
    log = path_of(home, run)
    started = (event for event in (read(log) if log.exists() else ()) if isinstance(event, ClusterStarted))
    return list(dict.fromkeys(Path(event.logs) for event in started if event.logs))


def files(found: list[Path]) -> dict[str, Path]:
    """Return worker -> its file; of two clusters of a run, the later one's."""
    listed: dict[str, Path] = {}
    for place in found:
        each = sorted(place.glob(f"*{ENDING}")) if place.is_dir() else [place] if place.exists() else []
        listed |= {path.name.removesuffix(ENDING): path for path in each}
    return listed


def chosen(registry: Registry, run: RunRecord, pattern: str) -> Mapping[str, Path]:
    """Return the workers whose names match a pattern, and their files.

    Raises
    ------
    StoreError
        When nothing is kept of any.
    UsageError
        When no name matches.
    """
    found = places(registry.path.parent, run.id)
    listed = files(found)
    if not listed:
        where = ", ".join(map(str, found))
        own = f"see what the run and its workers wrote: daskml-scale logs {run.id}"
        raise StoreError(
            f"nothing is kept of single workers of run {run.id}"
            + (f" in {where}: they wrote nothing, or newer clusters took its place" if where else f"; {own}")
        )
    matching = {name: path for name, path in listed.items() if fnmatchcase(name, pattern)}
    if not matching:
        raise UsageError(f"no worker of run {run.id} is called {pattern!r}; there are {', '.join(listed)}")
    return matching


def lines(
    registry: Registry,
    run: RunRecord,
    pattern: str,
    *,
    follow: bool = False,
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[str]:
    """Yield the lines of workers, each with its name when there are several; with ``follow`` until the run has ended.

    Parameters
    ----------
    pattern : str
        A worker's name, or a pattern such as ``cpu-*``.

    Raises
    ------
    StoreError, UsageError
        As `chosen`; with ``follow`` only when the run has ended.
    """
    tails: dict[str, Tail] = {}
    with ExitStack() as opened:
        while True:
            live = follow and registry.get(run.id, now=time.time()).live
            try:
                for name, path in chosen(registry, run, pattern).items():
                    if name not in tails or tails[name].path != path:
                        tails[name] = opened.enter_context(closing(Tail(path)))
            except (StoreError, UsageError):
                if not live and not tails:
                    raise
            for name, tail in tails.items():
                for line in tail.lines(last=not live):
                    yield f"{name}: {line}" if len(tails) > 1 else line
            if not live:
                return
            sleep(LOOK_SECONDS)


class Tail:
    """Reads on in a file that grows, and that is moved to ``NAME.1`` when it is large."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._held = ""
        self._file: IO[str] | None = None
        before = path.with_name(f"{path.name}.1")
        if before.exists():
            self._file = before.open(errors="replace")

    def lines(self, *, last: bool = False) -> Iterator[str]:
        """Yield the whole lines since the last call; with ``last`` also one that is not ended."""
        while True:
            if self._file is None and not self._next():
                break
            assert self._file is not None
            turned = self._turned()  # asked first: nobody writes to a file that was moved away
            for text in self._file:
                self._held += text
                if self._held.endswith("\n"):
                    yield self._held[:-1]
                    self._held = ""
            if not turned:
                break
            self.close()
        if last and self._held:
            yield self._held
            self._held = ""

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def _next(self) -> bool:
        try:
            self._file = self.path.open(errors="replace")
        except OSError:
            return False
        return True

    def _turned(self) -> bool:
        """Return whether another file has the name by now."""
        assert self._file is not None
        try:
            return not os.path.samestat(os.fstat(self._file.fileno()), self.path.stat())
        except OSError:
            return False
