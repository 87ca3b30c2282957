"""Is the process of a run still there? Told by this machine only, from the process id and when it began."""

from __future__ import annotations

import os

SLACK = 5.0
"""Seconds by which the clock may have been set since the process noted its start."""


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
