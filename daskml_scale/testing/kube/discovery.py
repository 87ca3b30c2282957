"""What an API server says about itself: versions, groups, resources, and that it checks fields."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from .store import KINDS, Kind

VERSION = "v1.36.0"
REVIEWS = {
    ("authorization.k8s.io", "selfsubjectaccessreviews"): Kind(
        "authorization.k8s.io", "selfsubjectaccessreviews", "SelfSubjectAccessReview", False
    ),
    ("authorization.k8s.io", "selfsubjectrulesreviews"): Kind(
        "authorization.k8s.io", "selfsubjectrulesreviews", "SelfSubjectRulesReview", False
    ),
    ("authentication.k8s.io", "selfsubjectreviews"): Kind(
        "authentication.k8s.io", "selfsubjectreviews", "SelfSubjectReview", False
    ),
}
_ALL = {**KINDS, **REVIEWS}
_VERBS = ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"]
_PARTS = {"pods": ("log", "portforward", "binding", "status"), "jobs": ("status",), "serviceaccounts": ("token",),
          "nodes": ("status",)}  # fmt: skip


def find(group: str, resource: str) -> Kind | None:
    """Return a kind by its place."""
    return _ALL.get((group, resource))


def answer(path: str) -> web.Response | None:
    """Return the answer to a question about the server, or None when the path asks for something else."""
    parts = [part for part in path.split("/") if part]
    groups = sorted({group for group, _ in _ALL if group})
    match parts:
        case ["version"]:
            return web.json_response({"major": "1", "minor": "36", "gitVersion": VERSION})
        case ["healthz" | "livez" | "readyz"]:
            return web.Response(text="ok")
        case ["api"]:
            return web.json_response({"kind": "APIVersions", "versions": ["v1"]})
        case ["apis"]:
            return web.json_response({"kind": "APIGroupList", "apiVersion": "v1", "groups": [*map(_group, groups)]})
        case ["apis", group] if group in groups:
            return web.json_response({"kind": "APIGroup", "apiVersion": "v1", **_group(group)})
        case ["api", "v1"]:
            return web.json_response(_resources(""))
        case ["apis", group, "v1"] if group in groups:
            return web.json_response(_resources(group))
        case ["openapi", "v3"]:
            places = ["api/v1", *(f"apis/{group}/v1" for group in groups)]
            return web.json_response({"paths": {one: {"serverRelativeURL": f"/openapi/v3/{one}"} for one in places}})
        case ["openapi", "v3", "api", "v1"]:
            return web.json_response(_openapi(""))
        case ["openapi", "v3", "apis", group, "v1"] if group in groups:
            return web.json_response(_openapi(group))
        case _:
            return None


def _group(group: str) -> dict[str, Any]:
    version = {"groupVersion": f"{group}/v1", "version": "v1"}
    return {"name": group, "versions": [version], "preferredVersion": version}


def _resources(group: str) -> dict[str, Any]:
    found: list[dict[str, Any]] = []
    for kind in _ALL.values():
        if kind.group != group:
            continue
        common = {"namespaced": kind.namespaced, "singularName": kind.kind.lower()}
        listed = _VERBS if (kind.group, kind.resource) in KINDS else ["create"]
        found.append({"name": kind.resource, "kind": kind.kind, "verbs": listed, "shortNames": [*kind.short], **common})
        found += [
            {**common, "name": f"{kind.resource}/{part}", "kind": kind.kind, "verbs": ["create", "get", "patch"]}
            for part in _PARTS.get(kind.resource, ())
        ]
    version = f"{group}/v1" if group else "v1"
    return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": version, "resources": found}


def _openapi(group: str) -> dict[str, Any]:
    """Return just what tells a client that this server checks unknown fields itself."""
    paths: dict[str, Any] = {}
    parameters = [{"name": name, "in": "query", "schema": {"type": "string"}} for name in ("dryRun", "fieldValidation")]
    for kind in _ALL.values():
        if kind.group != group:
            continue
        base = f"/apis/{group}/v1" if group else "/api/v1"
        place = f"{base}/namespaces/{{namespace}}" if kind.namespaced else base
        of = {"group": kind.group, "version": "v1", "kind": kind.kind}
        operation = {"parameters": parameters, "x-kubernetes-group-version-kind": of, "responses": {}}
        paths[f"{place}/{kind.resource}/{{name}}"] = {"patch": operation}
        paths[f"{place}/{kind.resource}"] = {"post": operation}
    info = {"title": "Kubernetes", "version": VERSION}
    return {"openapi": "3.0.0", "info": info, "paths": paths, "components": {"schemas": {}}}
