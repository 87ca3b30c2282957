"""The Job of a submitted run: what it looks like, what travels with it, and what its state means. Pure.

The Job belongs to nobody; its ConfigMap and every cluster that its runner starts belong to it, so deleting the Job
leaves nothing behind. A runner that ends by itself has had its say and is not started again; one that was killed is,
and a disruption (a drained or a lost Node, a preemption) does not count. Its Pod is the only one with a token.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from daskml_scale.errors import Exit
from daskml_scale.spec.base import byte_count
from daskml_scale.spec.kubernetes import KubernetesSpec

from .pods import CONFINED, OWNER, ROLE_LABEL, SCRATCH, ending, merge, restricted, tolerations, trouble

Object = dict[str, Any]
RUN_LABEL = "daskml-scale/run"
GIVEN, ACCOUNT = "/daskml/run", "/daskml/account"
"""Where a runner's Pod has what travels with it, and its token."""
CODE = "code"
"""Folder in it, with the workflow and the Python beside it."""
PROGRAM = ("python", "-P", "-m", "daskml_scale", "_job")
MOST_BYTES = 1 << 20
"""Of a ConfigMap: the API server refuses more."""
SLACK_BYTES = 16 << 10
"""Of them for names and the like."""
FINAL = (Exit.FAILED, Exit.USAGE, Exit.PARTIAL, Exit.CANCELLED)
"""Exit codes that another try would not change; a store that is in use may be free a minute later."""
TRIES = 6
"""Times that a runner is started again, after 10 s, 20 s, 40 s, ...: longer than a dead runner holds its store."""
KEPT_SECONDS = 7 * 86400
"""So long a finished Job stays, for its state and its log."""
GRACE_SECONDS = 30
"""Time that a runner has to commit what it holds."""
LONGEST = 40
"""Letters of a run's id in a name."""


def job_name(run: str, token: str) -> str:
    """Return the name of the Job of a run; other users may have a run of the same id, so a token is part of it."""
    plain = re.sub(r"[^a-z0-9]+", "-", run.lower()).strip("-") or "run"
    if len(plain) > LONGEST:  # its end is the day and the time
        plain = plain[: LONGEST - 14].rstrip("-") + plain[-14:]
    return f"{plain if plain[0].isalpha() else f'r-{plain}'}-{token}"


def runner_job(name: str, run: str, spec: KubernetesSpec, paths: Mapping[str, str]) -> Object:
    """Return the Job of a run.

    Parameters
    ----------
    name, run : str
        Of the Job and its ConfigMap, and the id of the run.
    paths : mapping of str to str
        Keys of the ConfigMap -> paths of the files that they become.
    """
    labels = {ROLE_LABEL: "runner", RUN_LABEL: name.rpartition("-")[0]}
    template = merge(merge(_pod_spec(name, spec, paths), spec.kubernetes.pod), spec.runner.pod)
    rules = [
        {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
        {"action": "FailJob",
         "onExitCodes": {"containerName": "runner", "operator": "In", "values": sorted(int(one) for one in FINAL)}},
    ]  # fmt: skip
    return {
        "apiVersion": "batch/v1", "kind": "Job",
        "metadata": {"name": name, "labels": labels, "annotations": {RUN_LABEL: run}},
        "spec": {
            "backoffLimit": TRIES,
            "podFailurePolicy": {"rules": rules},
            "ttlSecondsAfterFinished": KEPT_SECONDS,
            "template": {"metadata": {"labels": labels}, "spec": template},
        },
    }  # fmt: skip


def _pod_spec(name: str, spec: KubernetesSpec, paths: Mapping[str, str]) -> Object:
    memory = str(byte_count(spec.runner.memory))
    owner = {"apiVersion": "batch/v1", "kind": "Job", "name": name, "uid": "$(DASKML_UID)"}
    values = {
        "TMPDIR": SCRATCH, "DASKML_SCALE_HOME": f"{SCRATCH}/home", "DASKML_DIRECTORY": SCRATCH,
        "DASKML_RUN": f"{GIVEN}/run.json", "DASKML_SERVICE_ACCOUNT": ACCOUNT, "PYTHONUNBUFFERED": "1",
        "KUBECONFIG": f"{SCRATCH}/none",  # it is its account, whatever an image has in its home
        OWNER: json.dumps(owner),
    }  # fmt: skip
    token = [
        {"serviceAccountToken": {"path": "token", "expirationSeconds": 3600}},
        {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
        {"downwardAPI": {"items": [{"path": "namespace", "fieldRef": {"fieldPath": "metadata.namespace"}}]}},
    ]
    return {
        **restricted(),
        "restartPolicy": "Never",
        "serviceAccountName": spec.kubernetes.service_account,
        "terminationGracePeriodSeconds": GRACE_SECONDS,
        "imagePullSecrets": [{"name": one} for one in spec.kubernetes.image_pull_secrets],
        "tolerations": tolerations(),
        "volumes": [
            {"name": "run", "configMap": {"name": name, "items": [
                {"key": key, "path": path} for key, path in paths.items()]}},
            {"name": "account", "projected": {"sources": token}},
            {"name": "scratch", "emptyDir": {}},
        ],
        "containers": [{
            "name": "runner",
            "image": spec.kubernetes.image,
            "command": list(PROGRAM),
            "env": [
                {"name": "DASKML_UID",
                 "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['batch.kubernetes.io/controller-uid']"}}},
                *({"name": key, "value": value} for key, value in values.items()),
            ],
            "resources": {"requests": {"cpu": f"{spec.runner.cpu:g}", "memory": memory}, "limits": {"memory": memory}},
            "securityContext": dict(CONFINED),
            "volumeMounts": [
                {"name": "run", "mountPath": GIVEN, "readOnly": True},
                {"name": "account", "mountPath": ACCOUNT, "readOnly": True},
                {"name": "scratch", "mountPath": SCRATCH},
            ],
        }],
    }  # fmt: skip


def config_map(name: str, owner: Object, files: Mapping[str, str]) -> Object:
    """Return the ConfigMap of a run: key -> text."""
    metadata = {"name": name, "labels": {ROLE_LABEL: "runner"}, "ownerReferences": [owner]}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "immutable": True, "data": dict(files)}


def keyed(files: Iterable[str]) -> dict[str, str]:
    """Return key -> path of the files of a ConfigMap, whose keys are no paths."""
    return {f"file-{number}": path for number, path in enumerate(sorted(files))}


# What a state means


@dataclass(frozen=True, slots=True)
class Seen:
    """How the Job of a run stands.

    Attributes
    ----------
    state : str
        ``gone`` (no such Job) | ``queued`` (no Pod of it runs) | ``running`` | ``ended``
    message : str
        What keeps it from running, or why it ended, in Kubernetes' words.
    code : int, optional
        Exit code of the Pod that ended last.
    pods : tuple of str
        Its Pods that have a log, in the order in which they were made.
    running : tuple of str
        Those of them whose log may grow.
    started : float, optional
        Seconds since the epoch.
    """

    state: str
    message: str = ""
    code: int | None = None
    pods: tuple[str, ...] = ()
    running: tuple[str, ...] = ()
    started: float | None = None


def seen(job: Mapping[str, Any] | None, pods: Sequence[Mapping[str, Any]]) -> Seen:
    """Return how a Job stands.

    Parameters
    ----------
    job : mapping, optional
        ``None`` when the server has none.
    pods : sequence of mapping
        Its Pods.
    """
    listed = sorted(pods, key=lambda pod: (pod["metadata"]["creationTimestamp"], _started(pod) or 1e12))
    logs = tuple(_name(pod) for pod in listed if _phase(pod) not in ("", "Pending"))
    running = tuple(_name(pod) for pod in listed if _phase(pod) == "Running")
    started = next((when for pod in listed if (when := _started(pod)) is not None), None)
    endings = [found for pod in listed if (found := ending(pod)) is not None]
    code = endings[-1].code if endings else None
    if job is None:
        return Seen("gone", "its Job is gone", code, logs, running, started)
    conditions = {one["type"]: one for one in (job.get("status") or {}).get("conditions") or () if _true(one)}
    over = conditions.get("Complete") or conditions.get("Failed")
    if over is not None:
        why = endings[-1].reason if endings and endings[-1].reason else ""
        told = why or (str(over.get("message", "")) if over["type"] == "Failed" else "")
        return Seen("ended", told, code, logs, running, started)
    if running:
        return Seen("running", "", code, logs, running, started)
    waits = next((what.text for pod in listed if (what := trouble(pod)) is not None), "")
    if not waits and endings:
        waits = f"its Pod ended ({endings[-1].reason or f'exit code {endings[-1].code}'}); another one starts"
    return Seen("queued", waits, code, logs, running, started)


def _name(pod: Mapping[str, Any]) -> str:
    return str(pod["metadata"]["name"])


def _phase(pod: Mapping[str, Any]) -> str:
    return str((pod.get("status") or {}).get("phase", ""))


def _true(condition: Mapping[str, Any]) -> bool:
    return condition.get("status") == "True"


def _started(pod: Mapping[str, Any]) -> float | None:
    text = (pod.get("status") or {}).get("startTime")
    return datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp() if text else None
