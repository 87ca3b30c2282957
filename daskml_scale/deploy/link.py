"""The driver's end of one host: an SSH connection to its `keeper`, kept up, and what the keeper tells.

A connection that breaks is opened again, with growing pauses, for as long as the keeper waits (the lease). Then the
processes there have ended themselves and are given up, and the host is left alone for a while. All of it happens on
the event loop; the processes themselves do not notice.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import shlex
from typing import Any, Protocol

from daskml_scale.errors import ClusterError

from . import keeper
from .child import free_port
from .places import Place
from .quarantine import Quarantine
from .ssh_connection import Access, connect, next_message, not_installed

logger = logging.getLogger(__name__)

HELLO_SECONDS = 30.0
"""For the interpreter there to start: its files may lie on a slow disk."""
PAUSES = (0.2, 0.5, 1.0, 2.0, 3.0)
"""Seconds before the n-th attempt to connect again; the last one repeats."""


class Tenant(Protocol):
    """A process of ours on a host."""

    name: str
    confirmed: bool

    def order(self, hello: dict[str, Any]) -> dict[str, Any]:
        """Return the message that starts it."""

    def wishes(self) -> list[str]:
        """Return what it was told to do and may not have heard."""

    def heard(self, message: dict[str, Any]) -> None:
        """Take news of it."""

    def gone(self, why: str) -> None:
        """Take that it is no more."""


class HostLink:
    """One host.

    Parameters
    ----------
    access : Access
    cluster : str
        Unique name, by which the keeper there is found again.
    lease : float
        Seconds that processes go on without a connection.
    place : Place
        Takes what they write.

    Attributes
    ----------
    failure : str
        Why it was left alone last.
    hello : dict
        What the keeper said of itself: ``pid``, ``directory``.
    """

    def __init__(self, access: Access, cluster: str, lease: float, place: Place) -> None:
        self.access, self.cluster, self.lease, self.place = access, cluster, lease, place
        self.failure = ""
        self.hello: dict[str, Any] = {}
        self.tenants: dict[str, Tenant] = {}
        self.reconnections = 0
        self._lock = asyncio.Lock()
        self._connection: Any = None
        self._relay: Any = None
        self._attending: asyncio.Task[None] | None = None
        self._closing = False
        self._quarantine = Quarantine()
        self._forwards: list[tuple[int, int]] = []

    # Health

    @property
    def up(self) -> bool:
        """Whether the keeper hears us now."""
        return self._relay is not None

    def rest(self) -> float:
        """Return the seconds for which this host is still left alone."""
        if self._attending is not None and not self.up:
            return PAUSES[0]  # being brought back
        return self._quarantine.rest(asyncio.get_running_loop().time())

    def fail(self, why: str) -> None:
        """Leave the host alone for a while."""
        self.failure = why
        pause = self._quarantine.fail(asyncio.get_running_loop().time())
        logger.warning("%s; no work for this host for %g s", why, pause)

    def judge(self, ready: bool, why: str = "") -> None:
        """Take that a process of it became ready, or ended before it was."""
        if ready:
            self._quarantine.absolve()
        elif self._quarantine.fault():
            self.fail(f"{self.access}: {why}")

    # Connecting

    async def connect(self) -> None:
        """Connect and find or start the keeper; at once when that is done.

        Raises
        ------
        ClusterError
            Naming the cause; the host is left alone for a while.
        """
        async with self._lock:
            if self._attending is not None and not self._attending.done():
                return
            if self.rest():  # another worker has just found out
                raise ClusterError(self.failure)
            try:
                await self._open()
            except ClusterError as error:
                self.fail(str(error))
                raise
            self._attending = asyncio.ensure_future(self._attend())

    async def _open(self) -> None:
        connection = await connect(self.access)
        try:
            async with asyncio.timeout(HELLO_SECONDS):
                relay = await connection.create_process(
                    f"{shlex.quote(self.access.python)} -P -c {shlex.quote(keeper.COMMAND)}", encoding=None
                )
                with contextlib.suppress(OSError):  # it has ended already: its last words say why
                    relay.stdin.write(json.dumps({"cluster": self.cluster, "lease": self.lease}).encode() + b"\n")
                passed: list[str] = []
                hello = await next_message(relay, "op", passed, "hello")
                if hello is None:
                    wrote = (await relay.stderr.read()).decode(errors="replace")
                    raise not_installed(self.access, wrote.strip() or "".join(passed))
                for local, remote in self._forwards:
                    await connection.forward_local_port("127.0.0.1", local, "127.0.0.1", remote)
        except ClusterError:
            connection.abort()
            raise
        except Exception as error:
            connection.abort()
            slow = f"no answer within {HELLO_SECONDS:g} s" if isinstance(error, TimeoutError) else ""
            what = slow or str(error) or type(error).__name__
            raise ClusterError(f"{self.access}: {self.access.python} did not start ({what})") from error
        self._connection, self._relay = connection, relay
        self._reconcile(hello)

    def _reconcile(self, hello: dict[str, Any]) -> None:
        """Bring both ends to the same view of the processes there."""
        self.hello = hello
        there = hello["processes"]
        for name in set(there) - set(self.tenants):
            self.send({"op": "kill", "name": name})
        for tenant in list(self.tenants.values()):
            state = there.get(tenant.name)
            if state is None and tenant.confirmed:
                self._remove(tenant.name, "it ended while there was no connection to its host")
                continue
            if state is None:
                self.send(tenant.order(hello))
                continue
            for wish in tenant.wishes():
                self.send({"op": wish, "name": tenant.name})
            self._hear({"op": "started", "name": tenant.name, "pid": state["pid"]})
            if state["answer"] is not None:
                self._hear({"op": "answer", "name": tenant.name, "line": state["answer"]})
            if state["code"] is not None:
                self._hear({"op": "ended", "name": tenant.name, "code": state["code"]})

    # While connected

    async def _attend(self) -> None:
        while True:
            await self._listen()
            self._drop()
            if self._closing:
                return
            logger.info("the connection to %s broke; its processes go on for %g s", self.access, self.lease)
            if not await self._open_again():
                break
            self.reconnections += 1
        why = f"no connection to {self.access} for {self.lease:g} s"
        self._attending = None
        if not self._closing:
            self.fail(f"{why} ({self.failure})")
        for name in list(self.tenants):
            self._remove(name, why)

    async def _listen(self) -> None:
        """Take messages until the connection breaks."""
        pings = asyncio.ensure_future(self._ping())
        try:
            while True:
                message = await asyncio.wait_for(next_message(self._relay, "op", []), self.lease / 2)
                if message is None:
                    return
                self._hear(message)
        except Exception as error:
            logger.debug("connection to %s: %r", self.access, error)
        finally:
            pings.cancel()

    async def _ping(self) -> None:
        while True:
            self.send({"op": "ping"})
            await asyncio.sleep(self.lease / 6)

    async def _open_again(self) -> bool:
        loop = asyncio.get_running_loop()
        deadline, attempt = loop.time() + self.lease, 0
        while loop.time() < deadline and not self._closing:
            await asyncio.sleep(PAUSES[min(attempt, len(PAUSES) - 1)])
            attempt += 1
            try:
                async with asyncio.timeout_at(deadline):
                    await self._open()
                return True
            except (ClusterError, TimeoutError) as error:
                self.failure = str(error) or self.failure
        return False

    def _drop(self) -> None:
        connection, self._connection, self._relay = self._connection, None, None
        if connection is not None:
            connection.abort()

    def _hear(self, message: dict[str, Any]) -> None:
        name = message.get("name", "")
        if message["op"] == "output":
            lost = f"\n[{message['lost']:,} bytes are missing here]\n" if message["lost"] else ""
            self.place.log(name, lost + message["text"])
        if (tenant := self.tenants.get(name)) is not None:
            tenant.heard(message)
            if message["op"] == "ended":
                self._remove(name, None)

    def _remove(self, name: str, why: str | None) -> None:
        tenant = self.tenants.pop(name)
        self.send({"op": "forget", "name": name})
        self.place.ended(name)
        if why is not None:
            tenant.gone(why)

    def send(self, message: dict[str, Any]) -> None:
        """Tell the keeper, when it hears us; what matters is told again after a loss."""
        if self._relay is not None:
            with contextlib.suppress(OSError):
                self._relay.stdin.write(json.dumps(message).encode() + b"\n")

    def start(self, tenant: Tenant) -> None:
        """Start a process there."""
        self.tenants[tenant.name] = tenant
        if self.up:
            self.send(tenant.order(self.hello))

    async def forward(self, wanted: int, remote: int) -> int:
        """Lead a port of this machine, ``wanted`` where it is free, to one there; return it.

        Raises
        ------
        OSError, asyncssh.Error
            When the host forwards no ports.
        """
        _, trial = await self._connection.open_connection("127.0.0.1", remote)  # listening here would prove nothing
        trial.close()
        local = free_port("127.0.0.1", wanted)
        listener = await self._connection.forward_local_port("127.0.0.1", local, "127.0.0.1", remote)
        port = int(listener.get_port())
        self._forwards.append((port, remote))
        return port

    async def close(self) -> None:
        """End the keeper, and with it all that is left there, and the connection."""
        self._closing = True
        connection, attending = self._connection, self._attending
        self.send({"op": "end"})
        if attending is not None:
            with contextlib.suppress(asyncio.TimeoutError, asyncio.CancelledError):
                await asyncio.wait_for(attending, 5)  # the keeper ends, and with it the relay
        if connection is not None:
            connection.abort()
            with contextlib.suppress(Exception):
                await asyncio.wait_for(connection.wait_closed(), 5)
