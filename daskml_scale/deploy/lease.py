"""A scheduler that ends when its driver is gone: a preload of the scheduler, and the driver's end of it.

The driver holds one connection to the scheduler and writes to it every second. When the connection breaks, as after
``kill -9``, the scheduler waits `BROKEN_SECONDS` for another; when it falls silent without breaking, as a machine
that loses its power, the whole lease. On Kubernetes the end of the scheduler is the end of everything it owns.
"""

from __future__ import annotations

import asyncio
import logging
import os
from typing import Any

from distributed.comm import connect
from distributed.comm.core import CommClosedError
from distributed.core import Status
from distributed.metrics import time

logger = logging.getLogger(__name__)

HANDLER = "daskml_lease"
KEY = "daskml-scale.lease"
"""Of the lease in the scheduler's Dask configuration, seconds."""
BROKEN_SECONDS = 4.0
START_SECONDS = 120.0
"""Time for a driver's first connection."""
BEAT_SECONDS = 1.0
POLL_SECONDS = 0.25


def until(now: float, lease: float, broken_since: float | None, heard: float | None, began: float) -> float:
    """Return when a scheduler ends, seconds. Pure.

    Parameters
    ----------
    broken_since : float or None
        When the last connection of a driver broke; None while there is one.
    heard : float or None
        When a driver was last heard; None before the first time.
    began : float
        When the scheduler started.
    """
    if heard is None:
        return began + max(lease, START_SECONDS)
    silent = heard + lease
    return silent if broken_since is None else min(silent, broken_since + BROKEN_SECONDS)


class Lease:
    """What a scheduler knows of its driver."""

    def __init__(self, lease: float) -> None:
        self.lease = lease
        self.began = time()
        self.heard: float | None = None
        self.broken_since: float | None = None
        self.holders = 0

    async def hold(self, comm: Any) -> Any:
        """Read from a driver until its connection breaks (the handler)."""
        self.holders += 1
        self.broken_since, self.heard = None, time()
        try:
            while True:
                await comm.read()
                self.heard = time()
        except (CommClosedError, OSError):
            pass
        finally:
            self.holders -= 1
            if not self.holders:
                self.broken_since = time()
        return Status.dont_reply

    async def watch(self) -> None:
        """End this process when the driver is gone."""
        while time() < until(time(), self.lease, self.broken_since, self.heard, self.began):
            await asyncio.sleep(POLL_SECONDS)
        logger.warning("the driver is gone: the scheduler ends, and its workers with it")
        os._exit(0)  # closing in good order would wait for workers; nobody needs their results


async def dask_setup(scheduler: Any) -> None:
    """Install the handler (the preload hook)."""
    from dask import config

    lease = Lease(float(config.get(KEY)))
    scheduler.handlers[HANDLER] = lease.hold
    scheduler.daskml_lease_task = asyncio.ensure_future(lease.watch())


async def hold(address: str, connection_args: dict[str, Any]) -> None:
    """Hold the lease of a scheduler until this task is cancelled; connect again when the connection breaks."""
    while True:
        try:
            comm = await connect(address, timeout=5, **connection_args)
        except (OSError, TimeoutError):
            await asyncio.sleep(POLL_SECONDS)
            continue
        try:
            await comm.write({"op": HANDLER, "reply": False})
            while True:
                await asyncio.sleep(BEAT_SECONDS)
                await comm.write(0)
        except (CommClosedError, OSError):
            logger.debug("the lease of %s is held anew", address)
        finally:
            comm.abort()
