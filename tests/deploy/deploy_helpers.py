"""Clusters with short windows, and ways to look at their processes."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import psutil

from daskml_scale import events
from daskml_scale.deploy.local import ScaledLocalCluster

SPEC: dict[str, Any] = {
    "version": 1,
    "name": "quick",
    "backend": "local",
    "classes": {"cpu": {"workers": {"min": 1, "max": 2}, "memory": "512MiB"}},
    "scaling": {"horizon": "1s", "keep_idle": "1s"},
    "dashboard": {"listen": "127.0.0.1:0"},
}


def eventually(condition: Callable[[], Any], timeout: float = 60) -> Any:
    """Return the first truth of ``condition``; fail when there is none in time."""
    deadline = time.monotonic() + timeout
    while not (found := condition()):
        assert time.monotonic() < deadline, f"it did not happen within {timeout} s"
        time.sleep(0.05)
    return found


def alive(pids: list[int]) -> list[int]:
    """Return the processes that run; a zombie that nobody has waited for does not."""
    running = []
    for pid in pids:
        try:
            if psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
                running.append(pid)
        except psutil.NoSuchProcess:
            continue
    return running


def pids_of(cluster: ScaledLocalCluster) -> dict[str, int]:
    """Return name -> process id of the scheduler and the workers."""
    return {process.name: process.pid for process in (cluster.scheduler, *cluster.workers.values())}


class Recorder:
    """A sink that keeps what it receives."""

    def __init__(self) -> None:
        self.events: list[events.Event] = []

    def __call__(self, event: events.Event) -> None:
        self.events.append(event)
