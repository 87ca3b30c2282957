"""A port of this machine that leads to a port of a Pod: port-forward as a driver does it.

kr8s's own tries for ever what is refused (measured); here a connection is tried once.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

logger = logging.getLogger(__name__)


class Tunnel:
    """A port of this machine that leads to a Pod through the API server; each connection is a websocket.

    A connection that cannot be made is closed; whoever made it tries again in its own time.

    Parameters
    ----------
    socket : callable
        Returns the context of a new websocket to the port of the Pod.
    leads_to : str
        The Pod and its port, for messages.
    """

    def __init__(self, socket: Callable[[], Any], leads_to: str) -> None:
        self._socket, self._leads_to = socket, leads_to
        self._tasks: set[asyncio.Task[Any]] = set()

    async def open(self, local: int, host: str = "127.0.0.1") -> None:
        """Listen; at any free port with 0."""
        self._server = await asyncio.start_server(self._connect, host.strip("[]"), local)
        self.port: int = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        """End all connections."""
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            async with self._socket() as socket:
                await _join(reader, writer, socket)
        except asyncio.CancelledError:
            pass  # the tunnel closes
        except Exception as error:
            logger.debug("no connection to %s: %r", self._leads_to, error)
        finally:
            self._tasks.discard(task)
            writer.close()


async def _join(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, socket: Any) -> None:
    async def send() -> None:
        while data := await reader.read(1 << 16):
            await socket.send_bytes(b"\x00" + data)

    async def receive() -> None:
        begun: set[int] = set()
        while True:
            message: bytes = await socket.receive_bytes()
            channel = message[0]
            if channel not in begun:
                begun.add(channel)  # the first of each channel is the port
            elif channel == 0:
                writer.write(message[1:])
                await writer.drain()
            else:
                logger.debug("port-forward: %s", message[1:].decode(errors="replace"))
                return

    tasks = [asyncio.ensure_future(send()), asyncio.ensure_future(receive())]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
