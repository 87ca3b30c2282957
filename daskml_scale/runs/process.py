"""The process of a run or of a named cluster: left alone, still there, and its end. Of this machine only."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from contextlib import suppress

LOOK_SECONDS = 0.1
SLACK = 5.0
"""Seconds by which the clock may have been set since the process noted its start."""


def let_go(process: subprocess.Popen[bytes]) -> None:
    """Leave a process alone that outlives what started it; its end is taken note of, so that no zombie stays."""
    threading.Thread(target=process.wait, name=f"daskml-child-{process.pid}", daemon=True).start()


def gone(host: str, pid: int, since: float | None) -> bool:
    """Return whether a process of this machine has ended for certain.

    Parameters
    ----------
    host, pid : str, int
        As the process recorded them.
    since : float or None
        When it recorded them, seconds since the epoch: a process of that number which began later is another one.
    """
    if not pid or host != os.uname().nodename:
        return False
    import psutil

    try:
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            return True
        return since is not None and process.create_time() > since + SLACK
    except psutil.NoSuchProcess:
        return True
    except psutil.Error:
        return False


def there(host: str, pid: int, since: float) -> bool:
    """Return whether a process of this machine is there, at work or not; parameters as in `gone`."""
    return bool(pid) and host == os.uname().nodename and not gone(host, pid, since)


def end(host: str, pid: int, since: float | None, grace: float, *, sleep: Callable[[float], None] = time.sleep) -> None:
    """Ask a process of this machine to stop, wait until it is gone, and end it when that takes too long.

    Parameters
    ----------
    host, pid, since
        As in `gone`.
    grace : float
        Seconds until it is ended.
    """
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGTERM)
        deadline = time.monotonic() + grace
        while not gone(host, pid, since):
            if time.monotonic() > deadline:
                os.kill(pid, signal.SIGKILL)
            sleep(LOOK_SECONDS)
