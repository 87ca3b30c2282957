"""This machine: what a reader needs to know of it, how busy it is, and the CPU seconds of this process."""

from __future__ import annotations

import os
import platform
import resource
import time
from contextlib import suppress
from importlib import metadata
from typing import Any

import psutil

PACKAGES = ("daskml-scale", "dask", "joblib", "numpy", "pandas", "scikit-learn", "xarray", "zarr")


def cpu() -> float:
    """Return the CPU seconds of this process and its descendants so far, those that ended and were waited for included.

    Other processes on the machine change it far less than the time on the wall.
    """
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    total = time.process_time() + ended.ru_utime + ended.ru_stime
    for child in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            times = child.cpu_times()
            total += times.user + times.system + times.children_user + times.children_system
    return total


def machine() -> dict[str, Any]:
    """Return what a reader needs to know of this machine and its software."""
    return {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "versions": {name: metadata.version(name) for name in PACKAGES},
    }


def load() -> float:
    """Return the mean number of runnable processes of the last minute: how busy others keep the cores."""
    return round(os.getloadavg()[0], 2)
