"""Watches: one line of JSON for each change of what a client selected, and bookmarks when nothing changes."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time

from aiohttp import web

from .selectors import Test
from .store import Object, Refused, Store
from .targets import Target, selection

BOOKMARK_SECONDS = 60.0


async def watch(request: web.Request, store: Store, changed: asyncio.Event, target: Target) -> web.StreamResponse:
    """Answer a watch until its time is over or its client is gone; ``changed`` is set after each change."""
    kind, fits, query = target.kind, selection(request, target), request.query
    response = web.StreamResponse(headers={"Content-Type": "application/json"})
    deadline = time.monotonic() + float(query.get("timeoutSeconds") or 1800)
    bookmarks = query.get("allowWatchBookmarks") in ("true", "1")
    try:
        await response.prepare(request)
        version = int(query.get("resourceVersion") or 0)
        if not version:
            version = store.version
            for item in [one for one in store.all(kind, target.namespace) if fits(one)]:
                await _send(response, "ADDED", item)
        bookmark = time.monotonic() + BOOKMARK_SECONDS
        while (left := deadline - time.monotonic()) > 0:
            changed.clear()
            seen = store.version
            for change in store.since(version, kind):
                before, after = _fit(change.old, fits), _fit(change.new, fits)
                if after is not None:
                    await _send(response, "ADDED" if before is None else "MODIFIED", after)
                elif before is not None:
                    await _send(response, "DELETED", {**before, "metadata": {
                        **before["metadata"], "resourceVersion": str(change.version)}})  # fmt: skip
            version = seen
            if bookmarks and time.monotonic() >= bookmark:
                bookmark = time.monotonic() + BOOKMARK_SECONDS
                empty = {"kind": kind.kind, "apiVersion": kind.api_version,
                         "metadata": {"resourceVersion": str(version)}}  # fmt: skip
                await _send(response, "BOOKMARK", empty)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(changed.wait(), min(left, max(0.01, bookmark - time.monotonic())))
    except Refused as error:
        await _send(response, "ERROR", error.status())
    except (ConnectionError, asyncio.CancelledError):
        pass
    with contextlib.suppress(ConnectionError):
        await response.write_eof()
    return response


def _fit(item: Object | None, fits: Test) -> Object | None:
    return item if item is not None and fits(item) else None


async def _send(response: web.StreamResponse, sort: str, item: Object) -> None:
    await response.write(json.dumps({"type": sort, "object": item}).encode() + b"\n")
