"""The answers to requests for objects: get, list, create, change, delete; what `verbs` do, over HTTP.

Rights, reviews, and what goes on (watches, logs, port-forward) are elsewhere.
"""

from __future__ import annotations

from typing import Any

from aiohttp import web

from . import rules, verbs
from .store import PODS, Object, Refused, Store
from .targets import Target, deletion_options, selection


def answer(store: Store, request: web.Request, verb: str, target: Target, body: Any) -> tuple[int, Any]:
    """Do what is asked; return code and body of the answer."""
    kind = target.kind
    if target.part == "binding":
        verbs.bind(store, target.namespace, target.name, body)
        return 201, {"kind": "Status", "apiVersion": "v1", "status": "Success", "code": 201}
    if request.query.get("fieldValidation") == "Strict" and verb in ("create", "update"):
        rules.check_fields(kind, body)
    dry = request.query.get("dryRun") == "All"
    match verb:
        case "get":
            return 200, store.get(kind, target.namespace, target.name)
        case "list":
            return 200, _listed(store, request, target)
        case "create":
            return 201, body if dry else verbs.create(store, kind, target.namespace, body)
        case "update" | "patch":
            return _changed(store, request, verb, target, body, dry)
        case "delete":
            old = store.get(kind, target.namespace, target.name)
            found, gone = (old, True) if dry else verbs.delete(store, kind, old, {**body, **deletion_options(request)})
            details = {"name": target.name, "kind": kind.resource, "uid": found["metadata"]["uid"]}
            success = {"kind": "Status", "apiVersion": "v1", "status": "Success", "details": details}
            return 200, success if gone and kind is not PODS else found
        case _:
            fits = selection(request, target)
            for item in [one for one in store.all(kind, target.namespace) if fits(one)]:
                verbs.delete(store, kind, item, {**body, **deletion_options(request)})
            return 200, {"kind": f"{kind.kind}List", "apiVersion": kind.api_version, "metadata": {}, "items": []}


def _changed(store: Store, request: web.Request, verb: str, target: Target, body: Any, dry: bool) -> tuple[int, Any]:
    kind, sort = target.kind, request.content_type
    if sort == "application/json-patch+json":
        raise Refused(415, "this server takes merge patches")
    applied = sort == "application/apply-patch+yaml"
    if applied and store.find(kind, target.namespace, target.name) is None:
        return 201, verbs.create(store, kind, target.namespace, body)
    old = store.get(kind, target.namespace, target.name)
    strategic = applied or sort == "application/strategic-merge-patch+json"
    new = body if verb == "update" else verbs.merged(old, body, strategic)
    return 200, new if dry else verbs.change(store, kind, old, new, target.part)


def _listed(store: Store, request: web.Request, target: Target) -> Object:
    fits, kind = selection(request, target), target.kind
    found = [one for one in store.all(kind, target.namespace) if fits(one)]
    metadata: dict[str, Any] = {"resourceVersion": str(store.version)}
    start = int(request.query.get("continue") or 0)
    limit = int(request.query.get("limit") or 0)
    if limit and len(found) > start + limit:
        metadata["continue"] = str(start + limit)
        metadata["remainingItemCount"] = len(found) - start - limit
    items = found[start : start + limit if limit else None]
    return {"kind": f"{kind.kind}List", "apiVersion": kind.api_version, "metadata": metadata, "items": items}
