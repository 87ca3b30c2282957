"""Objects of a Kubernetes API with versions: what there is, what changed, and who may see which change.

Every change makes a new object and one entry in the log; watches read the log. Nothing here knows HTTP, users or
controllers. Objects are never changed in place.
"""

from __future__ import annotations

import copy
import datetime
import random
import uuid
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

Object = dict[str, Any]
Key = tuple[str, str]
"""(namespace or "", name)"""
KEPT_CHANGES = 20_000
"""Older ones cannot be watched any more: 410."""
REASONS = {
    400: "BadRequest",
    401: "Unauthorized",
    403: "Forbidden",
    404: "NotFound",
    405: "MethodNotAllowed",
    409: "Conflict",
    410: "Expired",
    415: "UnsupportedMediaType",
    422: "Invalid",
    500: "InternalError",
}


class Refused(Exception):
    """A request that fails, as the API says it.

    Parameters
    ----------
    code : int
        Of HTTP.
    message : str
    reason : str
        The API's word; by default the usual one of the code.
    """

    def __init__(self, code: int, message: str, reason: str = "", details: Mapping[str, Any] | None = None) -> None:
        super().__init__(message)
        self.code, self.message, self.reason = code, message, reason or REASONS[code]
        self.details = dict(details or {})

    def status(self) -> Object:
        """Return the body of the answer."""
        return {
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": self.message,
            "reason": self.reason, "details": self.details, "code": self.code,
        }  # fmt: skip


@dataclass(frozen=True)
class Kind:
    """A kind of object and where it is found."""

    group: str
    resource: str
    kind: str
    namespaced: bool = True
    short: tuple[str, ...] = ()
    version: str = "v1"

    @property
    def api_version(self) -> str:
        """As objects say it."""
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def full(self) -> str:
        """As errors say it: ``jobs.batch``."""
        return f"{self.resource}.{self.group}" if self.group else self.resource


RBAC = "rbac.authorization.k8s.io"
KINDS = {
    (item.group, item.resource): item
    for item in (
        Kind("", "namespaces", "Namespace", False, ("ns",)),
        Kind("", "nodes", "Node", False, ("no",)),
        Kind("", "pods", "Pod", short=("po",)),
        Kind("", "secrets", "Secret"),
        Kind("", "configmaps", "ConfigMap", short=("cm",)),
        Kind("", "serviceaccounts", "ServiceAccount", short=("sa",)),
        Kind("", "events", "Event", short=("ev",)),
        Kind("", "resourcequotas", "ResourceQuota", short=("quota",)),
        Kind("batch", "jobs", "Job"),
        Kind("coordination.k8s.io", "leases", "Lease"),
        Kind(RBAC, "roles", "Role"),
        Kind(RBAC, "rolebindings", "RoleBinding"),
    )
}
PODS, JOBS = KINDS["", "pods"], KINDS["batch", "jobs"]


@dataclass(frozen=True, slots=True)
class Change:
    """One change: ``old`` is None for a new object, ``new`` for one that is gone."""

    version: int
    kind: Kind
    old: Object | None
    new: Object | None


def now_text() -> str:
    """Return the time as objects have it."""
    return datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class Store:
    """All objects.

    Attributes
    ----------
    listeners : list of callable
        Called after each change.
    """

    def __init__(self) -> None:
        self.version = 1000
        self.oldest = self.version
        self.log: deque[Change] = deque()
        self.listeners: list[Callable[[], None]] = []
        self._objects: dict[Kind, dict[Key, Object]] = {kind: {} for kind in KINDS.values()}
        self.uids: set[str] = set()

    def all(self, kind: Kind, namespace: str = "") -> Iterator[Object]:
        """Yield the objects of a kind, by name; of all namespaces when none is named."""
        found = self._objects[kind]
        yield from (found[key] for key in sorted(found) if not namespace or key[0] == namespace)

    def find(self, kind: Kind, namespace: str, name: str) -> Object | None:
        """Return an object or None."""
        return self._objects[kind].get((namespace, name))

    def get(self, kind: Kind, namespace: str, name: str) -> Object:
        """Return an object; 404 when there is none."""
        if (found := self.find(kind, namespace, name)) is None:
            raise Refused(404, f'{kind.full} "{name}" not found', details={"name": name, "kind": kind.resource})
        return found

    def create(self, kind: Kind, namespace: str, given: Object) -> Object:
        """Add an object and return it as stored; 409 when its name is taken, also by one that is terminating."""
        made = copy.deepcopy(given)
        made["kind"], made["apiVersion"] = kind.kind, kind.api_version
        metadata = made.setdefault("metadata", {})
        if not metadata.get("name"):
            if not metadata.get("generateName"):
                raise Refused(422, f'{kind.kind}.{kind.group} "" is invalid: metadata.name: Required value: '
                                   "name or generateName is required")  # fmt: skip
            metadata["name"] = metadata["generateName"] + "".join(random.choices("bcdfghjklmnpqrstvwxz2456789", k=5))
        name = metadata["name"]
        if namespace:
            metadata["namespace"] = namespace
        if (found := self.find(kind, namespace, name)) is not None:
            being = "object is being deleted: " if "deletionTimestamp" in found["metadata"] else ""
            raise Refused(409, f'{being}{kind.full} "{name}" already exists', "AlreadyExists")
        metadata.update(uid=str(uuid.uuid4()), creationTimestamp=now_text())
        metadata.pop("deletionTimestamp", None)
        return self._put(kind, None, made)

    def replace(self, kind: Kind, new: Object) -> Object:
        """Store a changed object; 409 when it was made from another version than the stored one."""
        metadata = new["metadata"]
        old = self.get(kind, metadata.get("namespace", ""), metadata["name"])
        given = metadata.get("resourceVersion")
        if given and given != old["metadata"]["resourceVersion"]:
            raise Refused(
                409,
                f'Operation cannot be fulfilled on {kind.full} "{metadata["name"]}": the object has been modified; '
                "please apply your changes to the latest version and try again",
            )
        made = copy.deepcopy(new)
        for fixed in ("uid", "creationTimestamp"):
            made["metadata"][fixed] = old["metadata"][fixed]
        if {**made, "metadata": {**made["metadata"], "resourceVersion": ""}} == {
            **old, "metadata": {**old["metadata"], "resourceVersion": ""}
        }:  # fmt: skip
            return old  # nothing changed: no new version, as in etcd
        return self._put(kind, old, made)

    def remove(self, kind: Kind, namespace: str, name: str) -> Object:
        """Take an object away for good."""
        old = self.get(kind, namespace, name)
        del self._objects[kind][namespace, name]
        self.uids.discard(old["metadata"]["uid"])
        self.version += 1
        last = {**old, "metadata": {**old["metadata"], "resourceVersion": str(self.version)}}
        self._note(Change(self.version, kind, last, None))
        return last

    def _put(self, kind: Kind, old: Object | None, new: Object) -> Object:
        self.version += 1
        metadata = new["metadata"]
        metadata["resourceVersion"] = str(self.version)
        self._objects[kind][metadata.get("namespace", ""), metadata["name"]] = new
        self.uids.add(metadata["uid"])
        self._note(Change(self.version, kind, old, new))
        return new

    def _note(self, change: Change) -> None:
        self.log.append(change)
        while len(self.log) > KEPT_CHANGES:
            self.oldest = self.log.popleft().version
        for listener in self.listeners:
            listener()

    def forget(self) -> None:
        """Drop the log: whoever watches from an earlier version is told 410."""
        self.log.clear()
        self.oldest = self.version

    def since(self, version: int, kind: Kind) -> Iterator[Change]:
        """Yield the changes of a kind after a version; 410 when they are no longer known."""
        if version < self.oldest:
            raise Refused(410, f"too old resource version: {version} ({self.version})", "Expired")
        for change in reversed_until(self.log, version):
            if change.kind is kind:
                yield change


def reversed_until(log: deque[Change], version: int) -> list[Change]:
    """Return the entries after a version, oldest first, looking only at these."""
    found = []
    for change in reversed(log):
        if change.version <= version:
            break
        found.append(change)
    return found[::-1]
