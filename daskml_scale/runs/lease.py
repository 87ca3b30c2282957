"""Who is at work on a run: the heartbeat of the process that holds it, and the start of a detached one.

``Lease`` folds the run's events and writes them with each heartbeat from a thread of its own, so the
registry never slows the work, and a registry that cannot be written for a while never stops it. It
stops work in one case only: another process has taken the run over.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from daskml_scale.dashboard.progress import Progress, fold
from daskml_scale.errors import (
    CancelledRunError,
    ConflictError,
    DaskMLError,
    Exit,
    InterruptedRunError,
    SpecError,
    StoreError,
)
from daskml_scale.events import Event

from .costs import Cost, charged
from .process import let_go
from .records import Registry
from .state import RunRecord, stage_records

EVERY = 2.0
"""Seconds between heartbeats."""


def spawn(registry: Registry, run: RunRecord) -> int:
    """Start the detached process of a queued run, its output in ``run.log``; return its process id.

    It has a session of its own and no terminal: it goes on when the terminal closes. It waits until few others start
    up, see `begin`.

    Raises
    ------
    StoreError
        If the log cannot be written or the process cannot be started; the run is then marked as failed.
    """
    # Python puts the working directory first for ``-m``: the child should find what this process finds.
    safe = [] if sys.path[:1] in ([""], [os.getcwd()]) else ["-P"]
    run_words = [*safe, "-m", "daskml_scale", "_runner", run.id]
    command = [sys.executable, *safe, "-m", "daskml_scale.runs.begin", str(registry.path.parent / "starts"), *run_words]
    log = Path(run.log)
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as output:
            process = subprocess.Popen(
                command,
                cwd=run.cwd,
                env={**os.environ, "DASKML_SCALE_HOME": str(registry.path.parent)},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
    except OSError as error:
        message = f"{log.parent}: run {run.id} could not be started: {error.strerror or error}"
        registry.finish(run.id, run.epoch, now=time.time(), state="failed", exit_code=Exit.FAILED, message=message)
        raise StoreError(message) from error
    let_go(process)
    return process.pid


def ending(error: BaseException | None) -> tuple[str, int, str]:
    """Return state, exit code and message of a run that ended with ``error``, or without a word (a defect)."""
    if isinstance(error, (KeyboardInterrupt, InterruptedRunError)):
        return "interrupted", Exit.INTERRUPTED, "stopped; committed work stays"
    if isinstance(error, DaskMLError):
        return "failed", error.exit_code, str(error)
    return "failed", Exit.FAILED, f"{type(error).__name__}: {error}" if error is not None else "ended without a result"


def failure(error: BaseException, run: RunRecord | None = None) -> dict[str, Any]:
    """Return the JSON document about an error, and the run that ended with it.

    ``error`` is what a person reads; ``message`` is that without ``file``, ``line`` and ``key`` (the dotted
    key path), which are ``null`` where the error is not about a place in a file.
    """
    state, code, text = ending(error)
    place = error if isinstance(error, SpecError) else SpecError(text)
    known = {} if run is None else {"run": run.id, "workflow": run.workflow, "store": run.store, "state": state}
    return known | {
        "exit_code": int(code), "error": text, "type": type(error).__name__, "message": place.message,
        "file": place.file, "line": place.line, "key": place.path,
    }  # fmt: skip


class Lease:
    """Hold a started run while its ``with`` block works, and write how the block ended.

    Parameters
    ----------
    run : RunRecord
        As ``Registry.start`` returned it.
    every : float
        Seconds between heartbeats.
    clock : callable
        Seconds since the epoch.
    """

    def __init__(
        self, registry: Registry, run: RunRecord, *, every: float = EVERY, clock: Callable[[], float] = time.time
    ) -> None:
        self.run = run
        self.trouble = ""
        """Why the last heartbeat could not be written; empty when it was."""
        self._registry, self._every, self._clock = registry, every, clock
        self._progress = Progress()
        self._costs: Mapping[str, Cost] = {}
        self._written: Progress | None = None
        self._taken = False
        self._end: tuple[str, int, str, Mapping[str, Any]] | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._beat, name=f"lease of {run.id}", daemon=True)

    def sink(self, event: Event) -> None:
        """Take an event of the run.

        Raises
        ------
        ConflictError
            If another process has taken the run over: the work must stop here.
        """
        if self._taken:
            raise self._conflict()
        self._progress = fold(self._progress, event)
        self._costs = charged(self._costs, event)

    def ended(self, state: str, exit_code: int, summary: Mapping[str, Any]) -> None:
        """Note the result; it is written when the block is left."""
        self._end = (state, exit_code, self._progress.message, summary)

    def tick(self, now: float) -> None:
        """Send one heartbeat, with the progress if it changed. Reports what fails in ``trouble``."""
        progress = self._progress
        stages = stage_records(progress, now) if progress is not self._written else None
        note = progress.warnings[-1].message if progress.warnings else ""
        try:
            costs = list(self._costs.values()) if stages is not None else ()
            held = self._registry.beat(self.run.id, self.run.epoch, now=now, stages=stages, message=note, costs=costs)
        except StoreError as error:
            self.trouble = str(error)
            return
        self.trouble = ""
        self._written = progress
        self._taken = not held

    def leave(self, patience: float = 2.0) -> None:
        """Write that the run was interrupted; for a signal handler that ends the process with the next statement.

        Parameters
        ----------
        patience : float
            Longest time to wait, s: what the handler interrupted may hold the registry.
        """
        writer = threading.Thread(target=self._finish, args=(KeyboardInterrupt(),), daemon=True)
        writer.start()
        writer.join(patience)

    def __enter__(self) -> Lease:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
        if not self._taken:
            self._finish(error)
        if self._taken and not isinstance(error, ConflictError):
            raise self._conflict() from error

    def _conflict(self) -> ConflictError:
        name = self.run.id
        with suppress(DaskMLError):
            if self._registry.get(name, now=self._clock()).state == "cancelled":
                return CancelledRunError(f"run {name} was cancelled; committed work stays")
        return ConflictError(
            f"run {name} was taken over by another process; this one stopped. See: daskml-scale status {name}"
        )

    def _finish(self, error: BaseException | None) -> None:
        now = self._clock()
        state, code, message, summary = self._end if self._end and error is None else (*ending(error), {})
        try:
            self._taken = not self._registry.finish(
                self.run.id, self.run.epoch, now=now, state=state, exit_code=code, message=message,
                summary=dict(summary), stages=stage_records(self._progress, now), costs=list(self._costs.values()),
            )  # fmt: skip
        except StoreError as problem:
            self.trouble = str(problem)

    def _beat(self) -> None:
        while not self._taken and not self._stop.wait(self._every):
            self.tick(self._clock())
