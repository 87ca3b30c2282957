"""The Kubernetes API as the kubelet and tests call it: requests, and a watch that begins anew when it must.

Deliberately not the package's own client, so that one mistake cannot hide another.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import ssl
import tempfile
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import aiohttp
import yaml

PAUSE = 0.2
"""Seconds between two tries of a server that does not answer."""


class ApiError(Exception):
    """A request that the server refused."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code, self.message = code, message


def read_config(path: Path) -> dict[str, Any]:
    """Return what a kubeconfig says."""
    found: dict[str, Any] = yaml.safe_load(path.read_text())
    return found


def write_config(path: Path, name: str, cluster: Mapping[str, Any], token: str, namespace: str) -> Path:
    """Write a kubeconfig of one context, whose user is known by a token, and return its path."""
    content = {
        "apiVersion": "v1", "kind": "Config", "current-context": name,
        "clusters": [{"name": name, "cluster": dict(cluster)}],
        "users": [{"name": name, "user": {"token": token}}],
        "contexts": [{"name": name, "context": {"cluster": name, "user": name, "namespace": namespace}}],
    }  # fmt: skip
    path.write_text(json.dumps(content))  # which is YAML
    return path


def encoded(certificates: str) -> str:
    """Return PEM as a kubeconfig holds it."""
    return base64.b64encode(certificates.encode()).decode()


def authority(cluster: Mapping[str, Any], folder: Path) -> str:
    """Return the certificates, as PEM, by which a server is known; empty when those of the system count."""
    if data := cluster.get("certificate-authority-data"):
        return base64.b64decode(data).decode()
    path = cluster.get("certificate-authority")
    return (folder / path).read_text() if path else ""


class Client:
    """A client with the current context of a kubeconfig."""

    def __init__(self, kubeconfig: Path) -> None:
        config = read_config(kubeconfig)
        context = _named(config["contexts"], config["current-context"])["context"]
        cluster = _named(config["clusters"], context["cluster"])["cluster"]
        user = _named(config["users"], context["user"])["user"]
        self.server = cluster["server"].rstrip("/")
        self.authority = authority(cluster, kubeconfig.parent)
        self.namespace = context.get("namespace", "default")
        headers = {"Authorization": f"Bearer {user['token']}"} if "token" in user else {}
        connector = aiohttp.TCPConnector(ssl=_context(self.authority, user, kubeconfig.parent), limit=50)
        self._session = aiohttp.ClientSession(
            connector=connector, headers=headers, timeout=aiohttp.ClientTimeout(total=None, connect=10)
        )

    async def close(self) -> None:
        """Close all connections."""
        await self._session.close()

    async def request(
        self, method: str, path: str, body: Any = None, sort: str = "application/json", **query: Any
    ) -> Any:
        """Make a request and return the object or the text of the answer; `ApiError` when it is refused."""
        data = None if body is None else json.dumps(body)
        params = {key: str(value) for key, value in query.items()}
        headers = {"Content-Type": sort, "Accept": "application/json"}
        timeout = aiohttp.ClientTimeout(total=30)
        url = self.server + path
        async with self._session.request(
            method, url, data=data, params=params, headers=headers, timeout=timeout
        ) as found:
            text = await found.text()
            if found.status >= 400:
                with contextlib.suppress(ValueError, AttributeError):
                    text = json.loads(text).get("message", text)
                raise ApiError(found.status, text)
            return json.loads(text) if "json" in found.content_type else text

    async def patch(self, path: str, body: Any) -> Any:
        """Make a merge patch."""
        return await self.request("PATCH", path, body, "application/merge-patch+json")

    async def patiently(self, method: str, path: str, body: Any = None, sort: str = "application/json") -> Any:
        """Make a request again and again while the server is away or starts; None when the object is gone."""
        while True:
            try:
                return await self.request(method, path, body, sort)
            except ApiError as error:
                if error.code in (404, 409):
                    return None
                if error.code not in (401, 403) and error.code < 500:
                    raise
            except (aiohttp.ClientError, OSError, TimeoutError):
                pass
            await asyncio.sleep(PAUSE)

    async def watch(self, path: str, **query: Any) -> AsyncIterator[tuple[str, Any]]:
        """Yield (type, object) for ever; ``SYNC`` with the list of all objects when it begins, also anew."""
        while True:
            with contextlib.suppress(ApiError, aiohttp.ClientError, OSError, TimeoutError, ValueError):
                found = await self.request("GET", path, **query)
                yield "SYNC", found["items"]
                version = found["metadata"]["resourceVersion"]
                while version:
                    version = ""
                    async for sort, item in self._follow(path, found["metadata"]["resourceVersion"], query):
                        version = item["metadata"]["resourceVersion"]
                        found["metadata"]["resourceVersion"] = version
                        if sort != "BOOKMARK":
                            yield sort, item
            await asyncio.sleep(PAUSE)

    async def _follow(self, path: str, version: str, query: dict[str, Any]) -> AsyncIterator[tuple[str, Any]]:
        params = {**query, "watch": "1", "resourceVersion": version, "allowWatchBookmarks": "true"}
        async with self._session.get(self.server + path, params=params) as response:
            if response.status != 200:
                raise ApiError(response.status, await response.text())
            buffer = b""
            async for data in response.content.iter_any():
                *lines, buffer = (buffer + data).split(b"\n")
                for line in lines:
                    event = json.loads(line)
                    if event["type"] == "ERROR":
                        raise ApiError(event["object"].get("code", 500), event["object"].get("message", ""))
                    yield event["type"], event["object"]


def _named(listed: list[dict[str, Any]], name: str) -> dict[str, Any]:
    return next(item for item in listed if item["name"] == name)


def _context(authority: str, user: dict[str, Any], folder: Path) -> ssl.SSLContext:
    context = ssl.create_default_context()
    if authority:
        context.load_verify_locations(cadata=authority)
    with tempfile.TemporaryDirectory() as made:
        places = []
        for key in ("client-certificate", "client-key"):
            if data := user.get(f"{key}-data"):
                place = Path(made) / key
                place.touch(mode=0o600)
                place.write_bytes(base64.b64decode(data))
                places.append(place)
            elif path := user.get(key):
                places.append(folder / path)
        if len(places) == 2:
            context.load_cert_chain(places[0], places[1])
    return context
