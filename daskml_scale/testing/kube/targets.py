"""What a request asks for: the object or objects that its path names, the verb, the selection, the body.

Nothing here looks at objects or at rights.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from . import discovery, protobuf
from .selectors import Test, selected
from .store import Kind, Refused


@dataclass(frozen=True)
class Target:
    """What a path names."""

    kind: Kind
    namespace: str
    name: str = ""
    part: str = ""

    @property
    def resource(self) -> str:
        """With its subresource, such as ``pods/log``."""
        return self.kind.resource + (f"/{self.part}" if self.part else "")


def target_of(path: str) -> Target:
    """Return what a path names; 404 when there is no such kind."""
    parts = [part for part in path.split("/") if part]
    if parts[:2] == ["api", "v1"]:
        group, rest = "", parts[2:]
    elif parts[:1] == ["apis"] and len(parts) > 2:
        group, rest = parts[1], parts[3:]
    else:
        raise Refused(404, "the server could not find the requested resource")
    namespace = ""
    if rest[:1] == ["namespaces"] and len(rest) > 2 and rest[2] not in ("status", "finalize"):
        namespace, rest = rest[1], rest[2:]
    kind = discovery.find(group, rest[0] if rest else "")
    if kind is None or len(rest) > 3:
        raise Refused(404, "the server could not find the requested resource")
    return Target(kind, namespace, *rest[1:])


def verb_of(request: web.Request, target: Target) -> str:
    """Return the verb of a request, as rights name it."""
    if request.method == "GET":
        if target.part:
            return "get"
        if request.query.get("watch") in ("1", "true"):
            return "watch"
        return "get" if target.name else "list"
    if request.method == "DELETE":
        return "delete" if target.name else "deletecollection"
    found: Mapping[str, str] = {"POST": "create", "PUT": "update", "PATCH": "patch"}
    if request.method not in found:
        raise Refused(405, "the server does not allow this method on the requested resource")
    return found[request.method]


def selection(request: web.Request, target: Target) -> Test:
    """Return the test of what a request for many objects, or a watch, is about."""
    fields = request.query.get("fieldSelector", "")
    if target.name:
        fields = f"metadata.name={target.name}"
    return selected(request.query.get("labelSelector", ""), fields, target.namespace)


def deletion_options(request: web.Request) -> dict[str, Any]:
    """Return the options of a deletion that stand in its query."""
    found: dict[str, Any] = {}
    if "gracePeriodSeconds" in request.query:
        found["gracePeriodSeconds"] = int(request.query["gracePeriodSeconds"])
    if "propagationPolicy" in request.query:
        found["propagationPolicy"] = request.query["propagationPolicy"]
    return found


async def body_of(request: web.Request) -> Any:
    """Return the object that a request sends; an empty one when it sends none."""
    if not request.can_read_body:
        return {}
    if request.content_type == protobuf.CONTENT_TYPE:
        return protobuf.review(await request.read())
    text = await request.text()
    try:
        return json.loads(text or "{}")  # also what clients call YAML
    except ValueError as error:
        raise Refused(400, f"the object provided is unrecognized: {error}") from None
