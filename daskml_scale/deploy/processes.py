"""The driver's end of the processes of a local cluster: start them, hear from them, end them.

Each process leads a session of its own: Ctrl-C of the terminal reaches only the driver, and what a
process started ends with it. A watching thread per process waits for its answer and its end; all
state changes happen on the event loop. `child` is the other end.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import pickle
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from distributed.core import Status

from daskml_scale.errors import ClusterError

from .child import BOOTSTRAP, Setup
from .gpus import Devices, needed
from .supervised import Supervised


class ChildProcess(Supervised):
    """A process of this machine, child of this one."""

    def __init__(self, setup: Setup, name: str, environ: Mapping[str, str] | None = None) -> None:
        super().__init__(setup, name, environ)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def begun(self) -> bool:
        """Whether there is a process to end."""
        return self._process is not None

    @property
    def pid(self) -> int | None:
        """Process id; ``None`` before it runs and after it ended."""
        return self._process.pid if self._process is not None and self.code is None else None

    async def start(self) -> None:
        """Start the process; it is not waited for (see `wait_ready`).

        Raises
        ------
        ClusterError
            If the system cannot start a process.
        """
        loop = asyncio.get_running_loop()
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-c", BOOTSTRAP, f"daskml-{self.setup.role}", self.name],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env={**os.environ, **self.environ},
                start_new_session=True,
            )
        except OSError as error:
            self.failure, self.code = f"cannot start {sys.executable!r}: {error.strerror or error}", -1
            self.status = Status.failed
            self.on_end()
            raise ClusterError(f"{self.name}: {self.failure}") from error
        threading.Thread(
            target=self._attend, args=(loop, self._process), name=f"{self.name}-watch", daemon=True
        ).start()
        await super().start()

    def _attend(self, loop: asyncio.AbstractEventLoop, process: subprocess.Popen[bytes]) -> None:
        """Thread: send the setup, pass on the answer, wait for the end, end what it left behind."""
        assert process.stdin is not None
        assert process.stdout is not None
        with contextlib.suppress(OSError):
            process.stdin.write(pickle.dumps(sys.path))
            process.stdin.write(pickle.dumps(self.setup))
            process.stdin.flush()
        with process.stdout:
            line = process.stdout.readline()
        _tell(loop, self._on_answer, line)
        # Not reaped yet, so its process group cannot be somebody else's.
        with contextlib.suppress(ChildProcessError):  # a driver that ignores SIGCHLD
            os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        with contextlib.suppress(OSError):
            os.killpg(process.pid, signal.SIGKILL)
        code = process.wait()
        with contextlib.suppress(OSError):
            process.stdin.close()
        _tell(loop, self._on_end, code)

    def _ask(self) -> bool:
        assert self._process is not None
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(b"q")
            self._process.stdin.flush()
        except (OSError, ValueError):
            return False
        return True

    def kill(self) -> None:
        """End the process and everything it started, now."""
        process = self._process
        if process is not None and process.returncode is None and self.code is None:
            with contextlib.suppress(OSError):
                os.killpg(process.pid, signal.SIGKILL)


def _tell(loop: asyncio.AbstractEventLoop, function: Callable[[Any], None], value: Any) -> None:
    with contextlib.suppress(RuntimeError):  # the loop was closed: nobody listens any more
        loop.call_soon_threadsafe(function, value)


class SchedulerProcess(ChildProcess):
    """The scheduler, in a process of its own.

    Parameters
    ----------
    setup : Setup
    on_lost : callable
        Called when it is gone without having been closed.
    """

    def __init__(self, setup: Setup, on_lost: Callable[[], None]) -> None:
        super().__init__(setup, "scheduler")
        self.on_lost = on_lost

    async def start(self) -> None:
        """Start the scheduler and wait until it listens."""
        await super().start()
        await self.wait_ready()

    def on_end(self) -> None:
        """Report a scheduler that nobody closed."""
        if self.address:
            self.on_lost()


class WorkerProcess(ChildProcess):
    """One worker.

    Parameters
    ----------
    scheduler : str
        Address; the cluster passes it.
    name : str
    setup : Setup
        Shared by all workers of the class; address and name are filled in.
    worker_class : str
    devices : Devices
        Of the machine; those of a worker with the resource GPU are visible to it alone.
    on_ended : callable (WorkerProcess)
        Called when the process is gone.
    """

    def __init__(
        self,
        scheduler: str,
        *,
        name: str,
        setup: Setup,
        worker_class: str,
        environ: Mapping[str, str],
        devices: Devices,
        on_ended: Callable[[WorkerProcess], None],
    ) -> None:
        options = {**setup.options, "scheduler_ip": scheduler, "name": name}
        super().__init__(replace(setup, options=options), name, environ)
        self.worker_class, self.devices, self.on_ended = worker_class, devices, on_ended
        self._own_devices: list[str] = []

    async def start(self) -> None:
        """Start the worker, with devices of its own when its class has some."""
        if count := needed(self.setup.options.get("resources", {})):
            self._own_devices = self.devices.take(count)
            self.environ["CUDA_VISIBLE_DEVICES"] = ",".join(self._own_devices)
        await super().start()

    def on_end(self) -> None:
        """Free its devices and tell the cluster."""
        self.devices.give(self._own_devices)
        self.on_ended(self)
