"""What a cluster's Job, Secret and Pods look like, and what the status of a Pod means. Pure.

Every Pod keeps to the security level ``restricted`` and has no token. Templates of the user are merged over ours, as
``kubectl`` merges patches: mappings by key, lists of named things by name; other lists are replaced, but tolerations
are added to ours.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from daskml_scale.spec.base import byte_count
from daskml_scale.spec.kubernetes import KubernetesSpec

from .gpus import needed

Object = dict[str, Any]
CLUSTER_LABEL, ROLE_LABEL, CLASS_LABEL = "daskml-scale/cluster", "daskml-scale/role", "daskml-scale/class"
PORT, DASHBOARD_PORT = 8786, 8787
"""Of every scheduler: each has an address of its own."""
SECRETS, SCRATCH = "/daskml/setup", "/daskml/scratch"
TOLERANCE = 30
"""Seconds before the Pods of a lost Node are given up; Kubernetes' own 300 would stop the work."""
GRACE = 3
"""Seconds that a worker has to close."""
PROGRAM = ("python", "-P", "-m", "daskml_scale.deploy.pod")
OWNER = "DASKML_OWNER"
"""Environment variable of a runner: the owner of the clusters that it starts, as JSON."""
_KEYS = {"volumeMounts": "mountPath"}
_NAMED = ("containers", "initContainers", "env", "volumes", "imagePullSecrets", "ports", "volumeMounts")
PULLING = ("ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "RegistryUnavailable")
BROKEN = ("CreateContainerConfigError", "CreateContainerError", "RunContainerError")


def merge(base: Any, over: Any, key: str = "") -> Any:
    """Return ``base`` with ``over`` laid upon it."""
    if isinstance(base, Mapping) and isinstance(over, Mapping):
        return {**base, **{name: merge(base.get(name), value, name) for name, value in over.items()}}
    if isinstance(base, list) and isinstance(over, list):
        if key == "tolerations":
            return [*base, *over]
        if key not in _NAMED:
            return over
        by = _KEYS.get(key, "name")
        found = {item.get(by): item for item in base}
        for item in over:
            found[item.get(by)] = merge(found.get(item.get(by)), item)
        return list(found.values())
    return over


def secret(name: str, owner: Object, setups: Mapping[str, bytes]) -> Object:
    """Return the Secret of a cluster: what each kind of Pod is told, certificates among it."""
    data = {key: base64.b64encode(value).decode() for key, value in setups.items()}
    metadata = {"name": name, "labels": {CLUSTER_LABEL: name}, "ownerReferences": [owner]}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "immutable": True, "data": data}


def owner_reference(job: Mapping[str, Any]) -> Object:
    """Return what makes something belong to a Job."""
    return {"apiVersion": "batch/v1", "kind": "Job", "name": job["metadata"]["name"], "uid": job["metadata"]["uid"]}


def scheduler_job(name: str, spec: KubernetesSpec, owner: Sequence[Object] = ()) -> Object:
    """Return the Job of a scheduler, to which everything of its cluster belongs.

    Parameters
    ----------
    owner : sequence of owner references
        Of the Job itself: a runner in the cluster.
    """
    container = {
        "readinessProbe": {"tcpSocket": {"port": PORT}, "periodSeconds": 1, "failureThreshold": 1000},
        "ports": [{"name": "scheduler", "containerPort": PORT}],
    }
    resources = {"cpu": str(spec.scheduler.cpu), "memory": str(byte_count(spec.scheduler.memory))}
    made = _pod_spec(name, spec, "scheduler", "scheduler", resources, {})
    made["containers"][0].update(container)
    template = merge(merge(made, spec.kubernetes.pod), spec.scheduler.pod)
    labels = {CLUSTER_LABEL: name, ROLE_LABEL: "scheduler"}
    metadata: Object = {"name": name, "labels": labels}
    if owner:
        metadata["ownerReferences"] = list(owner)
    return {
        "apiVersion": "batch/v1", "kind": "Job", "metadata": metadata,
        "spec": {
            "backoffLimit": 0,
            "ttlSecondsAfterFinished": 0,
            "template": {"metadata": {"labels": labels}, "spec": template},
        },
    }  # fmt: skip


def worker_pod(
    cluster: str, worker: str, worker_class: str, spec: KubernetesSpec, scheduler: str, owner: Object,
    environ: Mapping[str, str],
) -> Object:  # fmt: skip
    """Return the Pod of a worker.

    Parameters
    ----------
    worker : str
        ``<class>-<n>``; the Pod is ``<cluster>-<class>-<n>``.
    scheduler : str
        Address that workers reach.
    owner : owner reference
        The Job of the scheduler.
    """
    item = spec.classes[worker_class]
    resources = {"cpu": f"{item.cpu or item.threads:g}", "memory": str(byte_count(item.memory))}
    if count := needed(item.resources):
        resources["nvidia.com/gpu"] = str(count)
    values = {**environ, "DASKML_SCHEDULER": scheduler, "DASKML_NAME": worker}
    made = _pod_spec(cluster, spec, f"worker-{worker_class}", "worker", resources, values)
    labels = {CLUSTER_LABEL: cluster, ROLE_LABEL: "worker", CLASS_LABEL: worker_class}
    metadata = {"name": f"{cluster}-{worker}", "labels": labels, "ownerReferences": [owner]}
    template = merge(merge(made, spec.kubernetes.pod), item.pod)
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template}


def _pod_spec(
    name: str, spec: KubernetesSpec, setup: str, container: str, resources: Mapping[str, str],
    environ: Mapping[str, str],
) -> Object:  # fmt: skip
    values = {**environ, "TMPDIR": SCRATCH, "DASKML_SETUP": f"{SECRETS}/{setup}", "DASKML_DIRECTORY": SCRATCH}
    requests = {key: value for key, value in resources.items() if "/" not in key}
    limits = {key: value for key, value in resources.items() if key != "cpu"}  # idle cores may be used
    return {
        **restricted(),
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": GRACE,
        "imagePullSecrets": [{"name": one} for one in spec.kubernetes.image_pull_secrets],
        "tolerations": tolerations(),
        "volumes": [
            {"name": "setup", "secret": {"secretName": name, "items": [{"key": setup, "path": setup}]}},
            {"name": "scratch", "emptyDir": {}},
        ],
        "containers": [{
            "name": container,
            "image": spec.kubernetes.image,
            "command": list(PROGRAM),
            "env": [
                {"name": "DASKML_ADDRESS", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
                *({"name": key, "value": value} for key, value in values.items()),
            ],
            "resources": {"requests": requests, "limits": limits},
            "securityContext": dict(CONFINED),
            "volumeMounts": [
                {"name": "setup", "mountPath": SECRETS, "readOnly": True},
                {"name": "scratch", "mountPath": SCRATCH},
            ],
        }],
    }  # fmt: skip


CONFINED = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
"""What the level ``restricted`` asks of a container."""


def restricted() -> Object:
    """Return what the level ``restricted`` asks of a Pod, and that it gets no token."""
    return {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
    }


def tolerations() -> list[Object]:
    """Return that a Pod stays for a moment on a Node that is lost."""
    return [
        {
            "key": f"node.kubernetes.io/{key}",
            "operator": "Exists",
            "effect": "NoExecute",
            "tolerationSeconds": TOLERANCE,
        }
        for key in ("not-ready", "unreachable")
    ]


# What a status means


@dataclass(frozen=True, slots=True)
class Trouble:
    """Why a Pod does not run yet.

    Attributes
    ----------
    text : str
        The condition's own.
    final : bool
        Whether waiting is of no use.
    """

    text: str
    final: bool


@dataclass(frozen=True, slots=True)
class Ending:
    """How a Pod ended.

    Attributes
    ----------
    code : int
        Exit code of its program; -1 when it has none.
    reason : str
        Such as ``OOMKilled`` or ``Evicted``, with what is said of it; empty when its program ended by itself.
    """

    code: int
    reason: str = ""


def trouble(pod: Mapping[str, Any]) -> Trouble | None:
    """Return what keeps a Pod from running; None when nothing does, or it runs."""
    status = pod.get("status") or {}
    if status.get("phase") != "Pending":
        return None
    for one in status.get("containerStatuses") or ():
        waiting = (one.get("state") or {}).get("waiting") or {}
        reason, text = waiting.get("reason", ""), waiting.get("message", "")
        if reason in (*PULLING, *BROKEN):
            # One failed try of a pull may be the network; kubelets say BackOff from the second on.
            return Trouble(f"{reason}: {text or one.get('image', '')}", final=reason not in ("ErrImagePull", *BROKEN))
    for one in status.get("conditions") or ():
        if one["type"] == "PodScheduled" and one["status"] == "False" and one.get("message"):
            return Trouble(f"{one.get('reason', 'Unschedulable')}: {one['message']}", final=False)
    return None


def ending(pod: Mapping[str, Any]) -> Ending | None:
    """Return how a Pod ended; None while it runs."""
    status = pod.get("status") or {}
    if status.get("phase") not in ("Succeeded", "Failed"):
        return None
    found = [(one.get("state") or {}).get("terminated") or {} for one in status.get("containerStatuses") or ()]
    ended = next((one for one in found if one), {})
    code = int(ended.get("exitCode", 0 if status["phase"] == "Succeeded" else -1))
    if status.get("reason"):
        return Ending(code or -1, f"{status['reason']}: {status.get('message', '')}".rstrip(": "))
    reason = ended.get("reason", "")
    if reason in ("", "Completed", "Error"):
        return Ending(code)
    return Ending(code or -1, f"{reason}: {ended['message']}" if ended.get("message") else reason)


def lost_node(pod: Mapping[str, Any]) -> str:
    """Return why a Pod is given up that cannot say so itself: its Node fell silent and it was deleted; else empty."""
    listed = (pod.get("status") or {}).get("conditions") or ()
    deleted = "deletionTimestamp" in pod["metadata"]
    unready = any(one["type"] == "Ready" and one["status"] != "True" for one in listed)
    why = next((one for one in listed if one["type"] == "DisruptionTarget" and one["status"] == "True"), None)
    if deleted and unready and why is not None and why.get("reason") == "DeletionByTaintManager":
        return f"its Node {pod['spec'].get('nodeName', '')} is lost ({why.get('message', '')})"
    return ""


def is_ready(pod: Mapping[str, Any]) -> bool:
    """Return whether a Pod's probe succeeded."""
    listed = (pod.get("status") or {}).get("conditions") or ()
    return any(one["type"] == "Ready" and one["status"] == "True" for one in listed)


def age(pod: Mapping[str, Any], now: float) -> float:
    """Return the seconds since a Pod was made."""
    return now - datetime.fromisoformat(pod["metadata"]["creationTimestamp"].replace("Z", "+00:00")).timestamp()
