"""A run in this process: held in the registry, logged, shown on a stream, stopped by Ctrl-C, its stdout kept clean.

What the work is, is given: this module starts no stage and no cluster.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout, suppress
from types import FrameType
from typing import TYPE_CHECKING

from daskml_scale import logs
from daskml_scale.errors import DaskMLError, Exit, InterruptedRunError
from daskml_scale.events import Event, Sink

from . import tracking
from .branches import ASKED
from .event_log import EventLog, path_of
from .lease import Lease
from .live import Silent
from .queue import wait_turn
from .records import Registry
from .state import RunRecord
from .words import command

if TYPE_CHECKING:
    from .summary import RunSummary


def attend(
    registry: Registry, run: RunRecord, work: Callable[[Sink], RunSummary], shown: Silent, *, wait: bool = False
) -> RunSummary:
    """Do the work of a queued run here and return its summary.

    Parameters
    ----------
    work : callable
        Takes the sink of events; blocks until the run ends.
    shown : Silent
        The view that shows the progress.
    wait : bool
        Whether it waits its turn, as submitted runs do, or starts at once.

    Raises
    ------
    InterruptedRunError
        After Ctrl-C, SIGTERM or SIGHUP, with the command that goes on.
    ConflictError
        If another process has, or takes, the run.
    """
    logs.set_up(run=run.id)
    run = _started(registry, run, shown, wait)
    lease = Lease(registry, run)
    log = EventLog(path_of(registry.path.parent, run.id), shown.note)
    uri = tracking.wanted()
    tracker = tracking.Tracker(uri, log.path.parent, shown.note) if uri else None

    def sink(event: Event) -> None:
        lease.sink(event)
        log.sink(event)
        if tracker is not None:
            tracker.sink(event)
        shown.sink(event)

    try:
        with shown, log, stoppable(shown, lease.leave), lease:
            summary = work(sink)
            lease.ended(summary.state, summary.exit_code, summary.to_dict())
    except KeyboardInterrupt:
        again = command(run.command, run.cwd, os.getcwd())
        raise InterruptedRunError(f"Stopped. Committed work stays in {run.store}\nGo on with: {again}") from None
    finally:
        if lease.trouble:
            shown.note(f"the end of this run is not recorded: {lease.trouble}")
        _call(registry, run, shown)
    return summary


def _call(registry: Registry, run: RunRecord, shown: Silent) -> None:
    """Call the workflow's command for the end, unless another process has the run."""
    from . import on_end, provenance  # a run that waits its turn should be a small process

    home = registry.path.parent
    words = provenance.read(home, run.id).get("resolved", {}).get("on_end", [])
    if words:
        with suppress(DaskMLError):
            found = registry.get(run.id, now=time.time())
            if found.epoch == run.epoch:
                on_end.call(words, found, shown.note)


def _started(registry: Registry, run: RunRecord, shown: Silent, wait: bool) -> RunRecord:
    """Take a run: at once, or when it is its turn."""
    host, pid = os.uname().nodename, os.getpid()
    if not wait:
        return registry.start(run, host=host, pid=pid, now=time.time())

    def leave() -> None:
        registry.finish(
            run.id, run.epoch, now=time.time(), state="interrupted", exit_code=Exit.INTERRUPTED,
            message="stopped before its turn",
        )  # fmt: skip

    try:
        with stoppable(shown, leave):
            return wait_turn(registry, run, shown.note, host=host, pid=pid)
    except KeyboardInterrupt:
        leave()
        raise InterruptedRunError(f"Stopped before its turn: run {run.id}") from None


@contextmanager
def stoppable(shown: Silent, leave: Callable[[], None]) -> Iterator[None]:
    """Ctrl-C, SIGTERM and SIGHUP raise ``KeyboardInterrupt``, so that work cleans up; where that is lost, the
    next look of a stage at its limits raises it again.

    A second Ctrl-C or SIGTERM leaves at once, after ``leave`` noted it. A second SIGHUP does nothing: a
    closing terminal may send several.
    """

    def at_once(number: int, frame: FrameType | None) -> None:
        with suppress(OSError):  # the terminal may be gone
            shown.abandon()
        leave()
        os._exit(Exit.INTERRUPTED)

    def stop(number: int, frame: FrameType | None) -> None:
        for each in before:
            signal.signal(each, signal.SIG_IGN if each == signal.SIGHUP else at_once)
        shown.stopping()
        ASKED.set()
        raise KeyboardInterrupt

    # A signal that the caller ignores (nohup, a background job) stays ignored.
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.getsignal(number) for number in numbers if signal.getsignal(number) != signal.SIG_IGN}
    for number in before:
        signal.signal(number, stop)
    try:
        yield
    finally:
        ASKED.clear()
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def only_results(active: bool = True) -> Iterator[None]:
    """While active, what libraries and worker processes print on stdout goes to stderr."""
    if not active:
        yield
        return
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        with redirect_stdout(sys.stderr):
            yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)
