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

from daskml_scale.errors import Exit, InterruptedRunError
from daskml_scale.events import Event, Sink

from .event_log import EventLog, path_of
from .lease import Lease
from .live import Silent
from .records import Registry
from .state import RunRecord
from .words import command

if TYPE_CHECKING:
    from .execute import RunSummary


def attend(registry: Registry, run: RunRecord, work: Callable[[Sink], RunSummary], shown: Silent) -> RunSummary:
    """Do the work of a queued run here and return its summary.

    Parameters
    ----------
    work : callable
        Takes the sink of events; blocks until the run ends.
    shown : Silent
        The view that shows the progress.

    Raises
    ------
    InterruptedRunError
        After Ctrl-C, SIGTERM or SIGHUP, with the command that goes on.
    ConflictError
        If another process has, or takes, the run.
    """
    run = registry.start(run, host=os.uname().nodename, pid=os.getpid(), now=time.time())
    lease = Lease(registry, run)
    log = EventLog(path_of(registry.path.parent, run.id), shown.note)

    def sink(event: Event) -> None:
        lease.sink(event)
        log.sink(event)
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
    return summary


@contextmanager
def stoppable(shown: Silent, leave: Callable[[], None]) -> Iterator[None]:
    """Ctrl-C, SIGTERM and SIGHUP raise ``KeyboardInterrupt``, so that work cleans up.

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
        raise KeyboardInterrupt

    # A signal that the caller ignores (nohup, a background job) stays ignored.
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.getsignal(number) for number in numbers if signal.getsignal(number) != signal.SIG_IGN}
    for number in before:
        signal.signal(number, stop)
    try:
        yield
    finally:
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
