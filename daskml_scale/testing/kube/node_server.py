"""What a Node serves to the API server: logs, also growing ones, and connections to ports of its Pods."""

from __future__ import annotations

import asyncio
import contextlib
import struct
from collections.abc import Mapping
from typing import Any

import aiohttp
from aiohttp import web

from .certificate import certificate
from .pods import Running
from .streams import PROTOCOLS

FOLLOW_SECONDS = 0.1
PIECE = 1 << 16


class NodeServer:
    """An HTTPS server on 127.0.0.1.

    Parameters
    ----------
    running : mapping of uid to Running
    """

    def __init__(self, running: Mapping[str, Running]) -> None:
        self.running = running

    async def start(self) -> int:
        """Listen and return the port."""
        app = web.Application()
        app.router.add_get("/containerLogs/{namespace}/{pod}/{container}", self._log)
        app.router.add_get("/portForward/{namespace}/{pod}", self._forward)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.2)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0, ssl_context=certificate()[1])
        await site.start()
        assert site._server is not None
        return int(site._server.sockets[0].getsockname()[1])  # type: ignore[attr-defined]

    async def stop(self) -> None:
        """Take no more requests."""
        await self._runner.cleanup()

    def _find(self, request: web.Request) -> Running:
        wanted = (request.match_info["namespace"], request.match_info["pod"])
        for running in self.running.values():
            if (running.namespace, running.name) == wanted:
                return running
        raise web.HTTPNotFound(text=f'pods "{wanted[1]}" not found')

    async def _log(self, request: web.Request) -> web.StreamResponse:
        running = self._find(request)
        if request.match_info["container"] != running.container["name"]:
            raise web.HTTPNotFound(text=f"container {request.match_info['container']} is not in the Pod")
        if running.process is None:
            name = running.container["name"]
            raise web.HTTPBadRequest(text=f'container "{name}" in pod "{running.name}" is waiting to start')
        response = web.StreamResponse(headers={"Content-Type": "text/plain"})
        await response.prepare(request)
        with running.log.open("rb") as file, contextlib.suppress(ConnectionError):
            if tail := request.query.get("tailLines"):
                lines = file.read().splitlines(keepends=True)
                await response.write(b"".join(lines[-int(tail) :] if int(tail) else []))
            while True:
                over = running.ended.is_set()
                while data := file.read(PIECE):
                    await response.write(data)
                if over or request.query.get("follow") not in ("true", "1"):
                    break
                await asyncio.sleep(FOLLOW_SECONDS)
        return response

    async def _forward(self, request: web.Request) -> web.StreamResponse:
        running = self._find(request)
        port = int(request.query["port"])
        socket = web.WebSocketResponse(protocols=PROTOCOLS, max_msg_size=0)
        await socket.prepare(request)
        for channel in (0, 1):  # data and errors begin with the port
            await socket.send_bytes(bytes([channel]) + struct.pack("<H", port))
        try:
            reader, writer = await asyncio.open_connection(running.address, port)
        except OSError as error:
            await socket.send_bytes(b"\x01" + f"error forwarding port {port} to pod {running.name}: {error}".encode())
            await socket.close()
            return socket
        near, far = asyncio.ensure_future(_send(socket, writer)), asyncio.ensure_future(_receive(reader, socket))
        try:
            await asyncio.wait([near, far], return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (near, far):
                task.cancel()
            await asyncio.gather(near, far, return_exceptions=True)
            writer.close()
            with contextlib.suppress(Exception):
                await asyncio.wait_for(socket.close(), 1)
        return socket


async def _send(socket: Any, writer: asyncio.StreamWriter) -> None:
    async for message in socket:
        if message.type != aiohttp.WSMsgType.BINARY:
            break
        if message.data[:1] == b"\x00":
            writer.write(message.data[1:])
            await writer.drain()


async def _receive(reader: asyncio.StreamReader, socket: Any) -> None:
    while data := await reader.read(PIECE):
        await socket.send_bytes(b"\x00" + data)
