"""What an API server only passes on: logs and port-forward, from the Node that runs the Pod."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import aiohttp
from aiohttp import web

from .store import Object, Refused

PROTOCOLS = ("v4.channel.k8s.io", "channel.k8s.io")


def node_session() -> aiohttp.ClientSession:
    """Return a session for requests to Nodes, whose certificates nobody verifies."""
    connector = aiohttp.TCPConnector(ssl=False, limit=0)
    return aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=None, connect=5))


def _base(node: Object | None) -> str:
    status = (node or {}).get("status") or {}
    address = next((one["address"] for one in status.get("addresses") or () if one["type"] == "InternalIP"), "")
    port = status.get("daemonEndpoints", {}).get("kubeletEndpoint", {}).get("Port")
    if not (address and port):
        raise Refused(500, "no preferred addresses found; known addresses: []")
    return f"https://{address}:{port}"


async def proxy_log(
    request: web.Request, session: aiohttp.ClientSession, pod: Object, node: Object | None
) -> web.StreamResponse:
    """Answer a request for a log; a Pod without a Node has written nothing."""
    if not pod["spec"].get("nodeName"):
        return web.Response(status=204)
    metadata, query = pod["metadata"], dict(request.query)
    container = query.pop("container", pod["spec"]["containers"][0]["name"])
    url = f"{_base(node)}/containerLogs/{metadata['namespace']}/{metadata['name']}/{container}"
    try:
        async with session.get(url, params=query) as found:
            if found.status != 200:
                code = found.status if found.status in (400, 404) else 500
                return web.json_response(Refused(code, await found.text()).status(), status=code)
            response = web.StreamResponse(headers={"Content-Type": "text/plain"})
            await response.prepare(request)
            async for data in found.content.iter_any():
                await response.write(data)
            return response
    except (aiohttp.ClientError, ConnectionError) as error:
        return web.json_response(Refused(500, f"Get {url}: {error}").status(), status=500)


async def proxy_forward(
    request: web.Request, session: aiohttp.ClientSession, pod: Object, node: Object | None
) -> web.StreamResponse:
    """Join the websocket of a client with one to the Node."""
    if pod["status"].get("phase") != "Running":
        message = f"unable to forward port because pod is not running. Current status={pod['status'].get('phase')}"
        raise Refused(400, message)
    metadata = pod["metadata"]
    url = f"{_base(node)}/portForward/{metadata['namespace']}/{metadata['name']}"
    params = [("port", port) for port in request.query.getall("ports", request.query.getall("port", []))]
    try:
        far = await session.ws_connect(url, params=params, protocols=PROTOCOLS, max_msg_size=0)
    except aiohttp.ClientError as error:
        raise Refused(500, f"error dialing backend: {error}") from None
    near = web.WebSocketResponse(protocols=PROTOCOLS, max_msg_size=0)
    await near.prepare(request)

    async def pump(source: Any, sink: Any) -> None:
        async for message in source:
            if message.type != aiohttp.WSMsgType.BINARY:
                break
            await sink.send_bytes(message.data)

    tasks = [asyncio.ensure_future(pump(near, far)), asyncio.ensure_future(pump(far, near))]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        with contextlib.suppress(Exception):
            await asyncio.wait_for(asyncio.gather(near.close(), far.close()), 2)
    return near
