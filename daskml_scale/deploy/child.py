"""What runs inside a scheduler or worker process of a cluster of ours.

The driver, or its keeper on another machine, starts the process with `BOOTSTRAP`, sends two pickles through its
standard input and keeps that pipe open: a byte on it means "close", its end means that the driver is gone, even by
``kill -9``, and then the process group ends at once and takes the cluster's files with it. One line on standard
output tells the driver the address or what went wrong; afterwards standard output is standard error,
so nothing that a task prints can mix with the driver's output.

No ``multiprocessing``: the user's script is not imported again (no ``if __name__ == "__main__"``
needed), the driver's environment stays as it is, and tasks may start processes of their own.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import pickle
import select
import shutil
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from daskml_scale import logs

from .gate import Rules, guard

BOOTSTRAP = (
    "import sys, pickle; sys.path[:] = pickle.load(sys.stdin.buffer); "
    "from daskml_scale.deploy.child import main; sys.exit(main())"
)
"""For ``python -P -c``: the driver's import path first, so that its modules are importable here."""

CLOSED, LOST = 0, 1
"""Exit codes: asked to end or retired by the scheduler; anything else that ended it."""
POLL_SECONDS = 0.2
MEMORY_SHARE = 0.95
"""Of the memory limit: a worker above it is ended before the system ends something else."""
PORTS = 200
"""Dashboard ports tried after the wanted one."""


@dataclass(frozen=True)
class Setup:
    """What a process is told at its start.

    Attributes
    ----------
    role : str
        ``scheduler`` or ``worker``.
    driver : int
        Process id of the driver, or of its keeper on this machine.
    directory : str
        The cluster's own directory, removed when the driver is gone.
    options : dict
        Arguments of ``distributed.Scheduler`` or ``distributed.Worker``.
    config : dict
        Dask configuration of this process.
    memory : int or None
        Limit in bytes; the process ends itself above 95 % of it.
    share : int
        Workers that share this machine's memory: each gets its part of it as limit. 0: ``memory`` says the limit.
    needs : tuple of str
        Handlers that the scheduler must offer once it runs (from preloads, whose errors Dask only logs).
    device : dict or None
        Of a worker with one GPU: what dask-cuda is asked for (see `cuda`); empty: its defaults, where it is installed.
    gate : Rules or None
        Who may see the scheduler's dashboard.
    """

    role: str
    driver: int
    directory: str
    options: dict[str, Any]
    config: dict[str, Any] = field(default_factory=dict)
    memory: int | None = None
    share: int = 0
    needs: tuple[str, ...] = ()
    device: dict[str, Any] | None = None
    gate: Rules | None = None


def main() -> int:
    """Run the role until it is closed; the exit code says why it ended."""
    setup: Setup = pickle.load(sys.stdin.buffer)
    lifeline, answer = _take_pipes()
    setup = _fitted(setup)
    try:
        return asyncio.run(run(setup, lifeline, answer))
    except KeyboardInterrupt:
        return LOST
    except BaseException as error:
        if answer.closed:
            raise
        logging.getLogger(__name__).debug("start failed", exc_info=True)
        _say(answer, {"error": f"{type(error).__name__}: {error}"})
        return LOST


def _take_pipes() -> tuple[int, Any]:
    """Move both pipes out of the reach of user code: stdin becomes empty, stdout becomes stderr."""
    lifeline, answer = os.dup(0), os.fdopen(os.dup(1), "w")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    return lifeline, answer


def _fitted(setup: Setup) -> Setup:
    """Fill in what only this machine knows: its memory, and whether the wanted address is one of its own."""
    options = dict(setup.options)
    if options.get("host") and not _own_address(options["host"]):
        del options["host"]  # behind an address translation: distributed finds the address that leads to the scheduler
    if not setup.share:
        return replace(setup, options=options)
    from .machine import LEAST, RESERVE, memory

    room = memory()
    limit = max((room - min(room // 4, RESERVE)) // setup.share, LEAST)
    return replace(setup, options={**options, "memory_limit": limit}, memory=limit)


def _own_address(host: str) -> bool:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe, contextlib.suppress(OSError):
        probe.bind((host, 0))
        return True
    return False


def _say(answer: Any, message: dict[str, Any]) -> None:
    with contextlib.suppress(OSError):
        answer.write(json.dumps(message) + "\n")
        answer.close()


async def run(setup: Setup, lifeline: int, answer: Any) -> int:
    """Run a scheduler or worker until it ends or ``lifeline`` says so; tell ``answer`` when it is ready."""
    import dask.config

    loop = asyncio.get_running_loop()
    leave = asyncio.Event()
    threading.Thread(
        target=_watch,
        args=(setup, lifeline, lambda: loop.call_soon_threadsafe(leave.set)),
        name="driver-watch",
        daemon=True,
    ).start()
    dask.config.update(dask.config.config, setup.config, priority="new")
    server = _scheduler(setup) if setup.role == "scheduler" else _worker(setup)
    await server
    missing = [name for name in setup.needs if name not in server.handlers]
    if missing:
        raise RuntimeError(f"a preload did not set up {', '.join(missing)}; its error is above")
    _say(answer, {"address": server.address})
    finished = asyncio.ensure_future(server.finished())
    asked = asyncio.ensure_future(leave.wait())
    await asyncio.wait({finished, asked}, return_when=asyncio.FIRST_COMPLETED)
    if asked.done() and not finished.done():
        logging.disable()  # tasks that are cut off now are no news
        await (server.close() if setup.role == "scheduler" else server.close(timeout=2, executor_wait=False))
        return CLOSED
    asked.cancel()
    return CLOSED if setup.role == "scheduler" or server.retired else LOST


def _quiet(setup: Setup) -> None:
    """Log warnings only, as ``LocalCluster`` does (distributed set its own levels when it was imported)."""
    logging.getLogger("distributed").setLevel(logging.WARNING)
    logs.set_up(process=str(setup.options.get("name") or setup.role))


def _scheduler(setup: Setup) -> Any:
    from distributed import Scheduler

    _quiet(setup)
    host, _, port = setup.options["dashboard_address"].rpartition(":")
    options = {**setup.options, "dashboard_address": f"{host}:{free_port(host, int(port))}"}
    scheduler = Scheduler(**options)
    if setup.gate is not None:
        guard(scheduler, setup.gate)  # it listens already and has answered nobody: the loop has not run since
    return scheduler


def _worker(setup: Setup) -> Any:
    from distributed import Status, Worker

    _quiet(setup)
    if setup.device is not None:
        from . import cuda

        if (found := cuda.worker(setup.options, setup.device)) is not None:
            return found

    class SupervisedWorker(Worker):  # type: ignore[misc]
        """Remembers whether it was retired, so that the cluster knows not to replace it."""

        retired = False

        async def close(self, *args: Any, **kwargs: Any) -> Any:
            self.retired |= self.status == Status.closing_gracefully
            return await super().close(*args, **kwargs)

    return SupervisedWorker(**setup.options)


def free_port(host: str, first: int) -> int:
    """Return the first port from ``first`` on where one can listen; 0 (any) when ``first`` is 0 or all are taken."""
    for port in range(first, min(first + PORTS, 65536)) if first else ():
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with contextlib.suppress(OSError):
                probe.bind((host, port))
                return port
    return 0


def _watch(setup: Setup, lifeline: int, leave: Callable[[], Any]) -> None:
    """Thread: close when told to, end when the driver is gone or the memory limit is passed."""
    import psutil

    process = psutil.Process()
    while True:
        readable, _, _ = select.select([lifeline], [], [], POLL_SECONDS)
        if os.getppid() != setup.driver or (readable and not os.read(lifeline, 1)):
            # The parent id too: a forked child of the driver may still hold the other end of the pipe.
            _end_orphan(setup)
        if readable:
            with contextlib.suppress(RuntimeError):
                leave()
            return
        if setup.memory and process.memory_info().rss > MEMORY_SHARE * setup.memory:
            used, limit = (size / 2**20 for size in (process.memory_info().rss, setup.memory))
            sys.stderr.write(
                f"{setup.options['name']} uses {used:.0f} MiB of {limit:.0f} MiB and is ended before the machine runs "
                "out of memory; use smaller chunks, or give its class more memory\n"
            )
            sys.stderr.flush()
            _end_group()


def _end_orphan(setup: Setup) -> None:
    """The driver is gone: leave neither files nor processes."""
    shutil.rmtree(setup.directory, ignore_errors=True)
    deadline = time.monotonic() + 5
    while setup.role == "scheduler" and time.monotonic() < deadline:
        # Workers end at this moment too; one of them may have written once more.
        time.sleep(POLL_SECONDS)
        if not os.path.exists(setup.directory):
            break
        shutil.rmtree(setup.directory, ignore_errors=True)
    _end_group()


def _end_group() -> None:
    os.killpg(os.getpgid(0), signal.SIGKILL)
