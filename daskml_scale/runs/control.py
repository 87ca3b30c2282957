"""Wait for a run, cancel it, read what it wrote: what others may do with a run of another process.

A run is cancelled in the registry first, which fences it off wherever it runs; on this machine its process is
asked to stop as well, and ended when it does not.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from daskml_scale.errors import ConflictError, Exit, StoreError

from .event_log import path_of
from .process import end, gone
from .records import Registry
from .state import RunRecord

LOOK_SECONDS = 0.25
GRACE_SECONDS = 30.0
"""Time that a cancelled run has to close its cluster; then its process is ended, and its cluster with it."""


def finished(registry: Registry, run: str, *, sleep: Callable[[float], None] = time.sleep) -> RunRecord:
    """Return a run once it has ended; a lost one has."""
    while True:
        found = registry.get(run, now=time.time())
        if not found.live:
            return found
        sleep(LOOK_SECONDS)


def exit_code(run: RunRecord) -> int:
    """Return how a run that ended counts: its own exit code, or that of a lost one."""
    return int(Exit.LOST if run.state == "lost" or run.exit_code is None else run.exit_code)


def cancel(registry: Registry, run: str, *, sleep: Callable[[float], None] = time.sleep) -> RunRecord:
    """Cancel a run and return it; what it committed stays.

    Raises
    ------
    ConflictError
        When it has ended.
    """
    now = time.time()
    found = registry.get(run, now=now)
    if not found.live and found.state != "lost":
        raise ConflictError(f"run {found.id} cannot be cancelled: it is {found.state}")
    message = "cancelled; committed work stays"
    epoch, code = found.epoch, int(Exit.CANCELLED)
    if not registry.finish(found.id, epoch, now=now, state="cancelled", exit_code=code, message=message):
        raise ConflictError(f"run {found.id} cannot be cancelled: it is {registry.get(found.id, now=now).state}")
    if found.pid and found.host == os.uname().nodename and not gone(found.host, found.pid, found.started):
        end(found.host, found.pid, found.started, GRACE_SECONDS, sleep=sleep)
    return registry.get(found.id, now=time.time())


def log_of(registry: Registry, run: RunRecord) -> Path:
    """Return the file with what a run wrote: its output when it was submitted, else its events as JSON lines.

    Raises
    ------
    StoreError
        When there is none.
    """
    path = Path(run.log) if run.log else path_of(registry.path.parent, run.id)
    if not path.exists():
        raise StoreError(f"run {run.id} left no log at {path}; it may have been removed, or has not started yet")
    return path


def lines(
    registry: Registry, run: RunRecord, *, follow: bool = False, sleep: Callable[[float], None] = time.sleep
) -> Iterator[str]:
    """Yield the lines of a run's log; with ``follow`` until the run has ended. A queued run's log begins later."""
    while follow and run.log and not Path(run.log).exists() and registry.get(run.id, now=time.time()).live:
        sleep(LOOK_SECONDS)
    with log_of(registry, run).open(errors="replace") as log:
        held = ""
        while True:
            live = follow and registry.get(run.id, now=time.time()).live
            for text in log:
                held += text
                if held.endswith("\n"):
                    yield held[:-1]
                    held = ""
            if not live:
                break
            sleep(LOOK_SECONDS)
        if held:
            yield held
