"""The far end of an SSH connection: starts, watches and ends the processes of a cluster on its machine.

``python -m`` this module through SSH and two processes run. The *relay* belongs to the connection: it passes bytes
between the connection and a socket, and ends with the connection. The *keeper* belongs to nobody: it has the socket and
the processes, so that these live through a short loss of the connection; the next relay finds it by the cluster's
id. Without a relay for the time of the lease it ends everything, itself too.

Messages are lines of JSON. What the processes write to standard error is passed on while somebody listens; a reader
that is slow or gone costs old text, and never stops a process. Nothing heavy is imported here, and nothing that
is secret appears on a command line or in the environment.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import pickle
import shutil
import signal
import socket
import sys
import tempfile
import threading
import time
from typing import Any

from .child import BOOTSTRAP

COMMAND = "from daskml_scale.deploy.keeper import main; main()"
"""For ``python -P -c``."""
KEPT = 1 << 20
"""Bytes of output of a process that wait for a reader; older ones are dropped."""
PATIENCE = 0.05
"""Seconds that a process waits, at most, for each piece of output that finds no room."""
PIECE = 1 << 16
SILENCE = 4
"""A connection that says nothing for so many leases counts as none."""
LONGEST = 1 << 26
"""Bytes of a message."""


def main() -> None:
    """Be the relay; start the keeper first when there is none."""
    incoming: Any = sys.stdin.buffer
    order = json.loads(incoming.readline())
    directory = os.path.join(tempfile.gettempdir(), f"daskml-{os.getuid()}-{order['cluster']}")
    connection = _connect(directory)
    if connection is None:
        _detach(directory, float(order["lease"]))
        deadline = time.monotonic() + 20
        while (connection := _connect(directory)) is None:
            if time.monotonic() > deadline:
                sys.exit(f"the keeper in {directory} does not answer")
            time.sleep(0.02)
    threading.Thread(target=_pass_back, args=(connection,), daemon=True).start()
    with contextlib.suppress(OSError):
        while data := incoming.read1(PIECE):
            connection.sendall(data)
    os._exit(0)


def _connect(directory: str) -> socket.socket | None:
    connection = socket.socket(socket.AF_UNIX)
    try:
        os.chdir(directory)  # the path of a socket must be short
        connection.connect("keeper")
    except OSError:
        connection.close()
        return None
    return connection


def _pass_back(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := connection.recv(PIECE):
            sys.stdout.buffer.write(data)
            sys.stdout.buffer.flush()
    os._exit(0)  # the keeper has ended, or listens to another relay


def _detach(directory: str, lease: float) -> None:
    """Start the keeper as a process that no connection, terminal or session ends."""
    with contextlib.suppress(FileExistsError):
        os.mkdir(directory, 0o700)
    if os.stat(directory).st_uid != os.getuid():
        sys.exit(f"{directory} belongs to somebody else")
    if os.fork():
        return
    os.setsid()
    os.chdir(directory)
    nothing = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nothing, stream)
    try:
        asyncio.run(Keeper(directory, lease).run())
    finally:
        os._exit(0)


class _Process:
    """One process and what it said."""

    def __init__(self, running: asyncio.subprocess.Process) -> None:
        self.running = running
        self.answer: str | None = None
        self.code: int | None = None
        self.output = bytearray()
        self.lost = 0
        self.room = asyncio.Event()


class Keeper:
    """The processes of one cluster on this machine.

    Parameters
    ----------
    directory : str
        Its own: the socket, and what the processes write. Removed at the end.
    lease : float
        Seconds.
    """

    def __init__(self, directory: str, lease: float) -> None:
        self.directory, self.lease = directory, lease
        self.processes: dict[str, _Process] = {}
        self.relay: asyncio.StreamWriter | None = None
        self.heard = time.monotonic()
        self.done = asyncio.Event()
        self.news = asyncio.Event()
        self.jobs: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Serve until the driver ends it or its lease is over."""
        server = await asyncio.start_unix_server(self._attached, "keeper", limit=LONGEST)
        for work in (self._watch_lease(), self._send_output()):
            self._background(work)
        await self.done.wait()
        server.close()
        for process in self.processes.values():
            self._end(process)
        shutil.rmtree(self.directory, ignore_errors=True)
        with contextlib.suppress(OSError, TimeoutError):  # last words reach the relay
            await asyncio.wait_for(self._flush(), 1)

    async def _flush(self) -> None:
        if self.relay is not None:
            await self.relay.drain()
            self.relay.close()
            await self.relay.wait_closed()

    def _background(self, work: Any) -> None:
        task = asyncio.ensure_future(work)
        self.jobs.add(task)
        task.add_done_callback(self.jobs.discard)

    async def _watch_lease(self) -> None:
        while True:
            limit = self.lease if self.relay is None else SILENCE * self.lease
            left = self.heard + limit - time.monotonic()
            if left <= 0:
                self.done.set()
                return
            await asyncio.sleep(min(left, self.lease / 10))

    # What the driver says

    async def _attached(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.relay is not None:
            self.relay.close()
        self.relay, self.heard = writer, time.monotonic()
        self._say(
            {
                "op": "hello",
                "pid": os.getpid(),
                "directory": self.directory,
                "processes": {
                    name: {"pid": one.running.pid, "answer": one.answer, "code": one.code}
                    for name, one in self.processes.items()
                },
            }
        )
        self.news.set()
        with contextlib.suppress(OSError, ValueError):
            while line := await reader.readline():
                if self.relay is writer:
                    self.heard = time.monotonic()
                await self._obey(json.loads(line))
        if self.relay is writer:
            self.relay, self.heard = None, time.monotonic()

    async def _obey(self, order: dict[str, Any]) -> None:
        process = self.processes.get(order.get("name", ""))
        match order["op"]:
            case "ping":
                self._say({"op": "pong"})
            case "start" if process is None:
                await self._start(order)
            case "ask" if process is not None and process.running.stdin is not None:
                process.running.stdin.write(b"q")
            case "kill" if process is not None:
                self._end(process)
            case "forget" if process is not None and process.code is not None:
                self._background(self._send(order["name"], self.processes.pop(order["name"])))
            case "end":
                self.done.set()

    def _say(self, message: dict[str, Any]) -> None:
        if self.relay is not None and not self.relay.is_closing():
            self.relay.write(json.dumps(message).encode() + b"\n")

    # Processes

    async def _start(self, order: dict[str, Any]) -> None:
        name = order["name"]
        try:
            running = await asyncio.create_subprocess_exec(
                sys.executable, "-P", "-c", BOOTSTRAP, f"daskml-{order['role']}", name,
                stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
                env={**os.environ, **order["environ"]}, start_new_session=True, cwd=self.directory, limit=LONGEST,
            )  # fmt: skip
        except OSError as error:
            failed = json.dumps({"error": f"cannot start {sys.executable!r}: {error.strerror or error}"})
            self._say({"op": "answer", "name": name, "line": failed})
            self._say({"op": "ended", "name": name, "code": -1})
            return
        process = self.processes[name] = _Process(running)
        assert running.stdin is not None
        running.stdin.write(pickle.dumps(sys.path) + base64.b64decode(order["setup"]))
        self._say({"op": "started", "name": name, "pid": running.pid})
        self._background(self._attend(name, process))

    async def _attend(self, name: str, process: _Process) -> None:
        output = asyncio.ensure_future(self._read_output(process))
        assert process.running.stdout is not None
        process.answer = (await process.running.stdout.readline()).decode(errors="replace")
        self._say({"op": "answer", "name": name, "line": process.answer})
        code = await process.running.wait()
        self._end(process)  # and what it started
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(output, 1)
        await self._send(name, process)
        process.code = code
        self._say({"op": "ended", "name": name, "code": code})

    def _end(self, process: _Process) -> None:
        if process.code is not None:
            return
        with contextlib.suppress(OSError):
            os.killpg(process.running.pid, signal.SIGKILL)

    # What they write

    async def _read_output(self, process: _Process) -> None:
        stream = process.running.stderr
        assert stream is not None
        while data := await stream.read(PIECE):
            if len(process.output) + len(data) > KEPT and self.relay is not None:
                process.room.clear()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(process.room.wait(), PATIENCE)
            process.output += data
            surplus = max(0, len(process.output) - KEPT)
            process.lost += surplus
            del process.output[:surplus]
            self.news.set()

    async def _send_output(self) -> None:
        while True:
            await self.news.wait()
            self.news.clear()
            for name, process in list(self.processes.items()):
                await self._send(name, process)

    async def _send(self, name: str, process: _Process) -> None:
        while process.output and self.relay is not None:
            data = bytes(process.output[:PIECE])
            del process.output[:PIECE]
            lost, process.lost = process.lost, 0
            process.room.set()
            self._say({"op": "output", "name": name, "lost": lost, "text": data.decode(errors="replace")})
            with contextlib.suppress(OSError):
                await self.relay.drain()
