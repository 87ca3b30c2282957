"""The controllers that clusters rely on: garbage collection, Jobs with their time to live, Nodes that are lost.

Each is one function that looks at the store and changes it; the server calls them after changes and every moment.
They take ``now``.
"""

from __future__ import annotations

import copy
import datetime
from collections.abc import Iterator, Mapping
from typing import Any

from . import verbs
from .store import JOBS, KINDS, PODS, Object, Refused, Store, now_text

NODES, LEASES = KINDS["", "nodes"], KINDS["coordination.k8s.io", "leases"]
BACKOFF = 1.0
"""Seconds before the first repetition of a Job's Pod; twice as many before each next one."""
NODE_LEASES = "kube-node-lease"
UNREACHABLE = "node.kubernetes.io/unreachable"


def collect_garbage(store: Store) -> None:
    """Delete what has owners that are all gone."""
    for kind in KINDS.values():
        for item in list(store.all(kind)):
            owners = item["metadata"].get("ownerReferences")
            gone = owners and not any(one["uid"] in store.uids for one in owners)
            if gone and "deletionTimestamp" not in item["metadata"]:
                verbs.delete(store, kind, item, {})


def run_jobs(store: Store, now: float) -> float | None:
    """Start, count and end the Pods of Jobs; return when to look again, if not after the next change."""
    again: list[float] = []
    for job in list(store.all(JOBS)):
        if _finished(job):
            keep = job["spec"].get("ttlSecondsAfterFinished")
            if keep is not None:
                until = _seconds(job["status"]["finished"]) + keep
                if now >= until:
                    verbs.delete(store, JOBS, job, {})
                else:
                    again.append(until)
        elif not job["spec"].get("suspend") and (wait := _advance(store, job, now)) is not None:
            again.append(wait)
    return min(again, default=None)


def _finished(job: Object) -> bool:
    return any(one["type"] in ("Complete", "Failed") for one in (job.get("status") or {}).get("conditions") or ())


def _advance(store: Store, job: Object, now: float) -> float | None:
    """Take a Job one step further; return when to go on."""
    status = copy.deepcopy(job.get("status") or {})
    seen: dict[str, str] = status.setdefault("pods", {})  # uid -> how it ended; a real controller uses finalizers
    uid, active = job["metadata"]["uid"], None
    pods = [one for one in store.all(PODS, job["metadata"]["namespace"]) if _owner(one) == uid]
    here = {one["metadata"]["uid"] for one in pods}
    verdict = ""
    for pod in pods:
        phase = pod["status"].get("phase")
        if phase not in ("Succeeded", "Failed"):
            active = pod
            seen.setdefault(pod["metadata"]["uid"], "running")
        elif seen.get(pod["metadata"]["uid"]) in (None, "running"):
            how = "succeeded" if phase == "Succeeded" else _judge(job, pod)
            seen[pod["metadata"]["uid"]] = how
            status["failedAt"] = now
            verdict = how if how == "fatal" else verdict
    for gone in [one for one, how in seen.items() if how == "running" and one not in here]:
        seen[gone] = "failed"  # somebody deleted it
        status["failedAt"] = now
    failed = sum(how in ("failed", "fatal") for how in seen.values())
    status.update(active=int(active is not None), failed=failed, succeeded=sum(h == "succeeded" for h in seen.values()))
    if status["succeeded"]:
        _finish(status, now, "Complete", "CompletionsReached", "Reached expected number of succeeded pods")
    elif verdict == "fatal":
        _finish(status, now, "Failed", "PodFailurePolicy", "Container failed with an exit code that a rule matches")
    elif failed > job["spec"].get("backoffLimit", 6):
        _finish(status, now, "Failed", "BackoffLimitExceeded", "Job has reached the specified backoff limit")
    done = "finished" in status
    again = None
    if active is None and not done:
        again = status.get("failedAt", 0) + BACKOFF * 2 ** (failed - 1) if failed else now
        if now >= again:
            again = _start_pod(store, job, now)
    store.replace(JOBS, {**job, "status": {"startTime": now_text(), **status}})
    return again


def _judge(job: Object, pod: Object) -> str:
    """Return what a failed Pod means to its Job: by the first rule of the failure policy that fits."""
    codes = {
        (one.get("state") or {}).get("terminated", {}).get("exitCode")
        for one in pod["status"].get("containerStatuses") or ()
    }
    conditions = {one["type"] for one in pod["status"].get("conditions") or () if one["status"] == "True"}
    for rule in (job["spec"].get("podFailurePolicy") or {}).get("rules") or ():
        listed = rule.get("onExitCodes") or {}
        inside = bool(codes & set(listed.get("values") or ()))
        fits = (inside if listed.get("operator") == "In" else bool(codes) and not inside) if listed else False
        fits |= any(one["type"] in conditions for one in rule.get("onPodConditions") or ())
        if fits:
            return {"FailJob": "fatal", "Ignore": "ignored"}.get(rule["action"], "failed")
    return "failed"


def _finish(status: dict[str, Any], now: float, sort: str, reason: str, message: str) -> None:
    at = now_text()
    made = {"type": sort, "status": "True", "reason": reason, "message": message, "lastTransitionTime": at}
    status["conditions"] = [*(status.get("conditions") or ()), made]
    status["finished"] = now
    if sort == "Complete":
        status["completionTime"] = at


def _start_pod(store: Store, job: Object, now: float) -> float | None:
    metadata, template = job["metadata"], copy.deepcopy(job["spec"]["template"])
    labels = {
        **(template.get("metadata") or {}).get("labels", {}),
        "batch.kubernetes.io/job-name": metadata["name"],
        "batch.kubernetes.io/controller-uid": metadata["uid"],
        "job-name": metadata["name"],
    }
    owner = {
        "apiVersion": "batch/v1", "kind": "Job", "name": metadata["name"], "uid": metadata["uid"],
        "controller": True, "blockOwnerDeletion": True,
    }  # fmt: skip
    made = {
        "metadata": {
            **(template.get("metadata") or {}),
            "generateName": f"{metadata['name']}-",
            "labels": labels,
            "ownerReferences": [owner],
        },
        "spec": template["spec"],
    }
    try:
        verbs.create(store, PODS, metadata["namespace"], made)
    except Refused as error:  # a quota, or the security of its namespace
        _event(store, job, "FailedCreate", f"Error creating: {error.message}")
        return now + BACKOFF
    return None


def _event(store: Store, about: Object, reason: str, message: str) -> None:
    metadata = about["metadata"]
    reference = {"kind": about["kind"], "namespace": metadata["namespace"], "name": metadata["name"],
                 "uid": metadata["uid"]}  # fmt: skip
    body = {"metadata": {"generateName": f"{metadata['name']}."}, "involvedObject": reference, "reason": reason,
            "message": message, "type": "Warning", "count": 1, "lastTimestamp": now_text()}  # fmt: skip
    verbs.create(store, KINDS["", "events"], metadata["namespace"], body)


def _owner(item: Mapping[str, Any]) -> str:
    owners = item["metadata"].get("ownerReferences") or ()
    return next((str(one["uid"]) for one in owners if one.get("controller")), "")


def watch_nodes(store: Store, now: float, patience: float) -> None:
    """Say that a Node is lost whose lease is old, and delete its Pods when their tolerance has passed."""
    for node in list(store.all(NODES)):
        lease = store.find(LEASES, NODE_LEASES, node["metadata"]["name"])
        renewed = ((lease or {}).get("spec") or {}).get("renewTime")
        if not renewed or now - _seconds(renewed) <= patience:
            continue
        if _is_ready(node):
            made = copy.deepcopy(node)
            verbs.set_condition(made, "Ready", "Unknown", "NodeStatusUnknown", "Kubelet stopped posting node status.")
            store.replace(NODES, made)
        for pod in _pods_of(store, node):
            made = copy.deepcopy(pod)
            verbs.set_condition(made, "Ready", "False")
            pod = store.replace(PODS, made)
            since = next(one["lastTransitionTime"] for one in pod["status"]["conditions"] if one["type"] == "Ready")
            if "deletionTimestamp" not in pod["metadata"] and now - _seconds(since) > _tolerance(pod):
                made = copy.deepcopy(pod)
                verbs.set_condition(
                    made, "DisruptionTarget", "True", "DeletionByTaintManager",
                    f"Taint manager: deleting due to NoExecute taint {{{UNREACHABLE}: NoExecute}}",
                )  # fmt: skip
                verbs.delete(store, PODS, store.replace(PODS, made), {})


def _is_ready(node: Object) -> bool:
    listed = (node.get("status") or {}).get("conditions") or ()
    return any(one["type"] == "Ready" and one["status"] == "True" for one in listed)


def _pods_of(store: Store, node: Object) -> Iterator[Object]:
    for pod in list(store.all(PODS)):
        here = pod["spec"].get("nodeName") == node["metadata"]["name"]
        if here and pod["status"].get("phase") not in ("Succeeded", "Failed"):
            yield pod


def _tolerance(pod: Object) -> float:
    listed = [one for one in pod["spec"].get("tolerations") or () if one.get("key") == UNREACHABLE]
    return min((float(one.get("tolerationSeconds", 1e9)) for one in listed), default=0.0)


def _seconds(text: Any) -> float:
    if isinstance(text, (int, float)):
        return float(text)
    return datetime.datetime.fromisoformat(str(text).replace("Z", "+00:00")).timestamp()
