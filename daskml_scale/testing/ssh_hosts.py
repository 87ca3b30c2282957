"""Machines for tests: SSH servers in this process on 127.0.0.x, which run real commands; and bad ones."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import socket
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import asyncssh
import psutil

ROOT = Path(__file__).parent.parent.parent


class Farm:
    """Several hosts, one event loop in a thread, one user key."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.temporary = tempfile.mkdtemp(prefix="farm-")  # where the hosts' processes keep their files
        self.known_hosts, self.identity = folder / "known_hosts", folder / "id"
        key = asyncssh.generate_private_key("ssh-ed25519")
        key.write_private_key(str(self.identity))
        (folder / "authorized").write_bytes(key.export_public_key())
        self.host_key = asyncssh.generate_private_key("ssh-ed25519")
        self.known_hosts.touch()
        self.ports: dict[str, int] = {}
        self.commands: list[str] = []
        self.forwards = True  # whether hosts lead their ports to others, as AllowTcpForwarding says
        self.sessions: dict[str, list[Any]] = {}
        self._sockets: list[socket.socket] = []
        self._servers: dict[str, Any] = {}
        self._running: set[asyncio.Task[Any]] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

    def do(self, work: Any) -> Any:
        """Run a coroutine on the servers' loop."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(60)

    def add(self, address: str, *, known: bool = True) -> None:
        """Start a host that works; ``known=False``: its key is in no file."""
        self._reserve(address)
        self.do(self._listen(address))
        if known:
            public = self.host_key.export_public_key().decode().strip()
            with self.known_hosts.open("a") as file:
                file.write(f"[{address}]:{self.ports[address]} {public}\n")

    def _reserve(self, address: str) -> None:
        """Hold a port without listening on it, so that nobody else gets it while the host is cut off."""
        held = socket.socket()
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        held.bind((address, 0))
        self._sockets.append(held)
        self.ports[address] = held.getsockname()[1]

    async def _listen(self, address: str) -> None:
        farm = self
        self.sessions[address] = []

        class Server(asyncssh.SSHServer):  # type: ignore[misc]
            def connection_made(self, conn: Any) -> None:
                farm.sessions[address].append(conn)

            def connection_requested(self, *_: Any) -> bool:
                return farm.forwards

        self._servers[address] = await asyncssh.listen(
            address,
            self.ports[address],
            reuse_port=True,
            server_factory=Server,
            server_host_keys=[self.host_key],
            authorized_client_keys=str(self.folder / "authorized"),
            process_factory=self._run,
            encoding=None,
        )

    async def _run(self, process: Any) -> None:
        self.commands.append(process.command)
        if (task := asyncio.current_task()) is not None:
            self._running.add(task)
            task.add_done_callback(self._running.discard)
        child = await asyncio.create_subprocess_shell(
            process.command,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": self.temporary},
            start_new_session=True,
        )
        # Not process.redirect(): there the end of one output closes the channel, and what the other one said is lost.
        feeding = asyncio.ensure_future(_pass_on(process.stdin, child.stdin))
        await asyncio.gather(_pass_on(child.stdout, process.stdout), _pass_on(child.stderr, process.stderr))
        code = await child.wait()
        feeding.cancel()
        with contextlib.suppress(OSError, asyncssh.Error):  # the connection broke: nobody listens
            process.exit(code)

    def add_silent(self, address: str) -> None:
        """Start a host that takes connections and never says a word."""
        listener = socket.create_server((address, 0))
        self._sockets.append(listener)
        self.ports[address] = listener.getsockname()[1]

    def add_refusing(self, address: str) -> None:
        """Have a host whose SSH server does not run."""
        self._reserve(address)

    def cut(self, address: str) -> None:
        """Break all connections of a host, as a network does."""

        async def abort() -> None:
            for session in self.sessions[address]:
                with contextlib.suppress(Exception):
                    session.abort()
            self.sessions[address].clear()

        self.do(abort())

    def stop(self, address: str) -> None:
        """Cut a host off: connections break and no new one is taken."""

        async def close() -> None:
            self._servers[address].close()

        self.do(close())
        self.cut(address)

    def start_again(self, address: str) -> None:
        """Let a host that was cut off take connections again."""
        self.do(self._listen(address))

    def processes(self) -> list[psutil.Process]:
        """Return the processes that hosts run, keepers and relays too."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.status() != psutil.STATUS_ZOMBIE and process.environ().get("TMPDIR") == self.temporary:
                    found.append(process)
        return found

    def definition(self, classes: dict[str, Any], **more: Any) -> dict[str, Any]:
        """Return a definition; a host's port is filled in."""
        for item in classes.values():
            for host in item["hosts"]:
                host["port"] = self.ports[host["host"]]
        return {
            "version": 1,
            "name": "farm",
            "backend": "ssh",
            "ssh": {
                "user": "anybody",
                "identity": str(self.identity),
                "known_hosts": str(self.known_hosts),
                "python": sys.executable,
                **more.pop("ssh", {}),
            },
            "classes": classes,
            "scaling": {"horizon": "1s", "keep_idle": "1s"},
            "dashboard": {"listen": "127.0.0.1:0"},
            **more,
        }

    async def _settle(self) -> None:
        """Let the ends of processes that were killed be noticed before the loop stops."""
        if self._running:
            await asyncio.wait(set(self._running), timeout=10)
        for task in set(self._running):
            task.cancel()

    def close(self) -> None:
        """End all, also what hosts still run."""
        for address in self._servers:
            self.stop(address)
        for listener in self._sockets:
            listener.close()
        for process in self.processes():
            with contextlib.suppress(psutil.Error):
                process.kill()
        self.do(self._settle())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()
        shutil.rmtree(self.temporary, ignore_errors=True)


async def _pass_on(source: Any, receiver: Any) -> None:
    """Pass on all bytes of a stream, to nobody once the receiver is gone; close a program's input at the end."""
    with contextlib.suppress(OSError, asyncssh.Error):  # the connection broke
        while data := await source.read(1 << 16):
            with contextlib.suppress(OSError, asyncssh.Error):
                receiver.write(data)
                await receiver.drain()
    if isinstance(receiver, asyncio.StreamWriter):
        receiver.close()


@contextlib.contextmanager
def farm(folder: Path) -> Iterator[Farm]:
    """Two hosts that work: 127.0.0.2 and 127.0.0.3."""
    made = Farm(folder)
    try:
        made.add("127.0.0.2")
        made.add("127.0.0.3")
        yield made
    finally:
        made.close()
