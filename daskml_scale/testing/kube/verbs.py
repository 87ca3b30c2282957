"""What each verb does to the objects of a server: create, patch, delete, bind; with the API's rules about each.

Synchronous and without HTTP: `server` turns requests into these calls, `controllers` use them too.
"""

from __future__ import annotations

import copy
import datetime
from collections.abc import Mapping
from typing import Any

from . import rules
from .store import JOBS, KINDS, PODS, Kind, Object, Refused, Store, now_text

NAMESPACES, QUOTAS = KINDS["", "namespaces"], KINDS["", "resourcequotas"]
GRACE = 30


def create(store: Store, kind: Kind, namespace: str, given: Object) -> Object:
    """Add an object after the admission of its kind."""
    given = copy.deepcopy(given)
    metadata = given.setdefault("metadata", {})
    if namespace and metadata.get("namespace", namespace) != namespace:
        raise Refused(400, "the namespace of the provided object does not match the namespace sent on the request")
    if namespace and store.find(NAMESPACES, "", namespace) is None:
        raise Refused(404, f'namespaces "{namespace}" not found')
    if kind is PODS:
        _admit_pod(store, namespace, given)
    elif kind is JOBS:
        template = given.setdefault("spec", {}).get("template") or {}
        if (template.get("spec") or {}).get("restartPolicy") not in ("Never", "OnFailure"):
            raise Refused(422, f'Job.batch "{metadata.get("name", "")}" is invalid: spec.template.spec.restartPolicy: '
                               'Required value: valid values: "OnFailure", "Never"')  # fmt: skip
        given["status"] = {}
    elif kind is NAMESPACES:
        metadata.setdefault("labels", {})["kubernetes.io/metadata.name"] = metadata.get("name", "")
        given["status"] = {"phase": "Active"}
    return store.create(kind, namespace, given)


def _admit_pod(store: Store, namespace: str, pod: Object) -> None:
    spec = pod.get("spec") or {}
    if not spec.get("containers"):
        raise Refused(422, f'Pod "{pod["metadata"].get("name", "")}" is invalid: spec.containers: Required value')
    rules.check_security(pod, store.find(NAMESPACES, "", namespace))
    rules.check_quota(pod, store.all(PODS, namespace), store.all(QUOTAS, namespace))
    spec.setdefault("restartPolicy", "Always")
    spec.setdefault("terminationGracePeriodSeconds", GRACE)
    spec.setdefault("serviceAccountName", "default")
    listed = spec.setdefault("tolerations", [])
    for key in ("node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"):
        if not any(one.get("key") == key for one in listed):
            listed.append({"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300})
    pod["status"] = {"phase": "Pending", "qosClass": "Burstable"}


def change(store: Store, kind: Kind, old: Object, new: Object, part: str = "") -> Object:
    """Store ``new`` in place of ``old``: all but its status, or with ``part`` the status only."""
    made = {**old, "status": new.get("status")} if part == "status" else {**new}
    if part != "status" and "status" in old:
        made["status"] = old["status"]
    made["metadata"] = {**(old if part == "status" else new)["metadata"]}
    if "resourceVersion" in new["metadata"]:
        made["metadata"]["resourceVersion"] = new["metadata"]["resourceVersion"]
    if kind is PODS and part != "status" and new["spec"].get("nodeName") != old["spec"].get("nodeName"):
        raise Refused(422, f'Pod "{old["metadata"]["name"]}" is invalid: spec: Forbidden: pod updates may not change '
                           "fields other than `spec.containers[*].image`")  # fmt: skip
    if kind is JOBS and part != "status" and new["spec"]["template"] != old["spec"]["template"]:
        raise Refused(422, f'Job.batch "{old["metadata"]["name"]}" is invalid: spec.template: field is immutable')
    return store.replace(kind, made)


def merged(old: Any, patch: Any, strategic: bool = False) -> Any:
    """Return a value after a merge patch; a strategic one joins lists whose items have names."""
    if isinstance(patch, Mapping):
        made = dict(old) if isinstance(old, Mapping) else {}
        for key, value in patch.items():
            if strategic and str(key).startswith("$"):
                continue
            if value is None:
                made.pop(key, None)
            else:
                made[key] = merged(made.get(key), value, strategic)
        return made
    if strategic and isinstance(patch, list) and isinstance(old, list) and _named([*old, *patch]):
        found = {_key(item): item for item in old}
        for item in patch:
            if item.get("$patch") == "delete":
                found.pop(_key(item), None)
            else:
                found[_key(item)] = merged(found.get(_key(item)), item, strategic)
        return list(found.values())
    return copy.deepcopy(patch)


def _key(item: Mapping[str, Any]) -> Any:
    return item.get("name") or item.get("type")


def _named(items: list[Any]) -> bool:
    return all(isinstance(item, Mapping) and _key(item) for item in items)


def bind(store: Store, namespace: str, name: str, binding: Object) -> None:
    """Give a Pod a Node, once."""
    if (binding.get("metadata") or {}).get("name") != name:
        raise Refused(400, "the name of the object () does not match the name on the URL")
    pod = store.get(PODS, namespace, name)
    node = binding["target"]["name"]
    if pod["spec"].get("nodeName"):
        raise Refused(409, f'Operation cannot be fulfilled on pods/binding "{name}": pod {name} is already assigned to '
                           f'node "{pod["spec"]["nodeName"]}"')  # fmt: skip
    if "deletionTimestamp" in pod["metadata"]:
        raise Refused(409, f'Operation cannot be fulfilled on pods/binding "{name}": pod {name} is being deleted')
    made = copy.deepcopy(pod)
    made["spec"]["nodeName"] = node
    set_condition(made, "PodScheduled", "True")
    store.replace(PODS, made)


def set_condition(pod: Object, sort: str, status: str, reason: str = "", message: str = "") -> None:
    """Set a condition of a Pod that is being made."""
    listed = pod.setdefault("status", {}).setdefault("conditions", [])
    old = next((one for one in listed if one["type"] == sort), None)
    since = old["lastTransitionTime"] if old and old["status"] == status else now_text()
    listed[:] = [one for one in listed if one["type"] != sort]
    made = {"type": sort, "status": status, "lastTransitionTime": since}
    listed.append({**made, **({"reason": reason} if reason else {}), **({"message": message} if message else {})})


def delete(store: Store, kind: Kind, old: Object, options: Mapping[str, Any]) -> tuple[Object, bool]:
    """Delete an object as the API does; return it and whether it is gone.

    A Pod that runs only gets a time; who runs it deletes it again with no grace.
    """
    metadata = old["metadata"]
    namespace, name = metadata.get("namespace", ""), metadata["name"]
    wanted = (options.get("preconditions") or {}).get("uid")
    if wanted and wanted != metadata["uid"]:
        raise Refused(409, f'Operation cannot be fulfilled on {kind.full} "{name}": the UID in the precondition '
                           f'({wanted}) does not match the UID in record ({metadata["uid"]})')  # fmt: skip
    if options.get("propagationPolicy") == "Orphan":
        _orphan(store, metadata["uid"])
    if kind is NAMESPACES:
        for other in KINDS.values():
            for item in list(store.all(other, name)) if other.namespaced else ():
                delete(store, other, item, {"gracePeriodSeconds": 0} if other is not PODS else {})
    if kind is not PODS:
        return store.remove(kind, namespace, name), True
    grace = options.get("gracePeriodSeconds")
    seconds = old["spec"].get("terminationGracePeriodSeconds", GRACE) if grace is None else int(grace)
    ended = (old.get("status") or {}).get("phase") in ("Succeeded", "Failed")
    if seconds == 0 or ended or not old["spec"].get("nodeName"):
        return store.remove(kind, namespace, name), True
    if "deletionTimestamp" in metadata and seconds >= metadata.get("deletionGracePeriodSeconds", GRACE):
        return old, False
    made = copy.deepcopy(old)
    at = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=seconds)
    made["metadata"]["deletionTimestamp"] = at.strftime("%Y-%m-%dT%H:%M:%SZ")
    made["metadata"]["deletionGracePeriodSeconds"] = seconds
    return store.replace(kind, made), False


def _orphan(store: Store, uid: str) -> None:
    for kind in KINDS.values():
        for item in list(store.all(kind)):
            owners = item["metadata"].get("ownerReferences") or []
            if any(one["uid"] == uid for one in owners):
                made = copy.deepcopy(item)
                made["metadata"]["ownerReferences"] = [one for one in owners if one["uid"] != uid]
                store.replace(kind, made)
