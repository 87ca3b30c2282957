"""What Pods are made of, and what their status means."""

from __future__ import annotations

from typing import Any

import pytest

from daskml_scale.deploy import pods
from daskml_scale.deploy.lease import BROKEN_SECONDS, START_SECONDS, until
from daskml_scale.deploy.pod_board import refusal
from daskml_scale.errors import SpecError
from daskml_scale.spec.kubernetes import KubernetesSpec
from daskml_scale.spec.load import load_cluster
from daskml_scale.testing.kube import rules
from daskml_scale.testing.kube.store import JOBS, PODS

GIVEN: dict[str, Any] = {
    "version": 1, "name": "k", "backend": "kubernetes",
    "kubernetes": {"namespace": "daskml", "image": "team/daskml:1", "image_pull_secrets": ["registry"]},
    "classes": {
        "cpu": {"workers": {"max": 3}, "threads": 4, "memory": "16GiB"},
        "gpu": {
            "workers": {"max": 2}, "memory": "60GiB", "resources": {"GPU": 1},
            "pod": {"nodeSelector": {"accelerator": "a100"}, "tolerations": [{"key": "nvidia.com/gpu"}]},
        },
    },
}  # fmt: skip
OWNER = {"apiVersion": "batch/v1", "kind": "Job", "name": "k-1", "uid": "u"}


def spec(**changes: Any) -> KubernetesSpec:
    return KubernetesSpec.model_validate({**GIVEN, **changes})


def worker(of: KubernetesSpec, worker_class: str = "cpu") -> dict[str, Any]:
    return pods.worker_pod("k-1", f"{worker_class}-7", worker_class, of, "tls://10.0.0.1:8786", OWNER, {"A": "b"})


def test_pods_of_every_role_are_restricted_and_have_no_token():
    namespace = {"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "restricted"}}}
    job = pods.scheduler_job("k-1", spec())
    template = {"metadata": {"name": "s"}, "spec": job["spec"]["template"]["spec"]}
    rules.check_fields(JOBS, job)
    for pod in (worker(spec()), worker(spec(), "gpu"), template):
        rules.check_security(pod, namespace)
        rules.check_fields(PODS, pod)
        assert pod["spec"]["automountServiceAccountToken"] is False
        assert pod["spec"]["restartPolicy"] == "Never"
    assert job["spec"]["backoffLimit"] == job["spec"]["ttlSecondsAfterFinished"] == 0


def test_a_worker_pod_has_the_name_the_resources_and_the_owner_of_its_worker():
    made = worker(spec())
    assert made["metadata"]["name"] == "k-1-cpu-7"
    assert made["metadata"]["ownerReferences"] == [OWNER]
    (container,) = made["spec"]["containers"]
    assert container["resources"] == {
        "requests": {"cpu": "4", "memory": str(16 * 2**30)}, "limits": {"memory": str(16 * 2**30)}
    }  # fmt: skip
    values = {item["name"]: item.get("value") for item in container["env"]}
    assert values["DASKML_NAME"] == "cpu-7"
    assert values["DASKML_SCHEDULER"] == "tls://10.0.0.1:8786"
    assert made["spec"]["imagePullSecrets"] == [{"name": "registry"}]


def test_a_class_with_gpus_asks_for_devices_and_keeps_its_template():
    made = worker(spec(), "gpu")["spec"]
    assert made["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert "nvidia.com/gpu" not in made["containers"][0]["resources"]["requests"]
    assert made["nodeSelector"] == {"accelerator": "a100"}
    assert {one["key"] for one in made["tolerations"]} > {"nvidia.com/gpu", "node.kubernetes.io/unreachable"}


def test_a_template_is_laid_over_ours_by_names():
    base = {
        "containers": [{"name": "worker", "image": "a", "command": ["a", "b"], "env": [{"name": "A", "value": "1"}]}],
        "volumes": [{"name": "v", "emptyDir": {}}], "tolerations": [{"key": "x"}], "priority": 1,
    }  # fmt: skip
    over = {
        "containers": [
            {"name": "worker", "command": ["c"], "env": [{"name": "A", "value": "2"}, {"name": "B", "value": "3"}]},
            {"name": "log"},
        ],
        "tolerations": [{"key": "y"}], "priority": 2,
    }  # fmt: skip
    assert pods.merge(base, over) == {
        "containers": [
            {"name": "worker", "image": "a", "command": ["c"],
             "env": [{"name": "A", "value": "2"}, {"name": "B", "value": "3"}]},
            {"name": "log"},
        ],
        "volumes": [{"name": "v", "emptyDir": {}}], "tolerations": [{"key": "x"}, {"key": "y"}], "priority": 2,
    }  # fmt: skip
    assert base["priority"] == 1
    assert pods.merge(base, {}) == base


def status(phase: str, state: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    listed = [{"name": "worker", "image": "i", "state": state}] if state else []
    return {"metadata": {"name": "p"}, "spec": {}, "status": {"phase": phase, "containerStatuses": listed, **more}}


def test_what_keeps_a_pod_from_running_is_said_in_kubernetes_words():
    unscheduled = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3 nodes"}
    found = pods.trouble(status("Pending", conditions=[unscheduled]))
    assert found == pods.Trouble("Unschedulable: 0/3 nodes", final=False)
    waiting = {"waiting": {"reason": "ImagePullBackOff", "message": "Back-off pulling"}}
    assert pods.trouble(status("Pending", waiting)) == pods.Trouble("ImagePullBackOff: Back-off pulling", final=True)
    once = {"waiting": {"reason": "ErrImagePull", "message": "timeout"}}
    assert pods.trouble(status("Pending", once)) == pods.Trouble("ErrImagePull: timeout", final=False)
    assert pods.trouble(status("Pending", {"waiting": {"reason": "ContainerCreating"}})) is None
    assert pods.trouble(status("Running")) is None


@pytest.mark.parametrize(
    ("pod", "expected"),
    [
        (status("Running"), None),
        (status("Succeeded", {"terminated": {"exitCode": 0, "reason": "Completed"}}), pods.Ending(0)),
        (status("Failed", {"terminated": {"exitCode": 1, "reason": "Error"}}), pods.Ending(1)),
        (status("Failed", {"terminated": {"exitCode": 137, "reason": "OOMKilled"}}), pods.Ending(137, "OOMKilled")),
        (status("Failed", reason="Evicted", message="low on memory"), pods.Ending(-1, "Evicted: low on memory")),
    ],
)
def test_how_a_pod_ended(pod: dict[str, Any], expected: pods.Ending | None):
    assert pods.ending(pod) == expected


def test_a_pod_of_a_lost_node_is_known_by_its_conditions_only_when_it_was_deleted():
    conditions = [{"type": "Ready", "status": "False"},
                  {"type": "DisruptionTarget", "status": "True", "reason": "DeletionByTaintManager"}]  # fmt: skip
    pod = status("Running", conditions=conditions)
    assert not pods.lost_node(pod)
    pod["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    assert "is lost" in pods.lost_node(pod)
    assert not pods.lost_node({**pod, "status": {"phase": "Running", "conditions": conditions[:1]}})


def test_a_refused_request_is_tried_again_only_when_it_may_help():
    quota = 'pods "x" is forbidden: exceeded quota: q, requested: pods=1, used: pods=2, limited: pods=2'
    assert refusal(403, quota) == "full"
    assert refusal(403, 'pods is forbidden: User "u" cannot create resource "pods"') == "forbidden"
    assert refusal(403, 'pods "x" is forbidden: violates PodSecurity "restricted:latest"') == "wrong"
    assert refusal(409, "already exists") == "taken"
    assert refusal(400, "unknown field") == refusal(422, "invalid") == "wrong"
    assert refusal(503, "") == refusal(429, "") == "away"


def test_a_scheduler_waits_for_its_driver_first_then_for_a_broken_or_a_silent_connection():
    assert until(5, lease=30, broken_since=None, heard=None, began=0) == START_SECONDS
    assert until(5, lease=30, broken_since=None, heard=4, began=0) == 34
    assert until(5, lease=30, broken_since=5, heard=4, began=0) == 5 + BROKEN_SECONDS
    assert until(5, lease=3, broken_since=5, heard=4, began=0) == 7


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("  cpu: {memory: 1GiB, workers: {max: auto}}", "write a number"),
        ("  cpu: {memory: 1GiB}", "write a number"),
        ("  Cpu: {memory: 1GiB, workers: {max: 1}}", "small letters"),
        ("  cpu: {workers: {max: 1}}", "memory"),
        ("  cpu: {memory: 1GiB, workers: {max: 1}, resources: {GPU: 0.5}}", "whole devices"),
        (f"  {'c' * 60}: {{memory: 1GiB, workers: {{max: 1}}}}", "too long"),
    ],
)
def test_mistakes_in_a_definition_are_named(change: str, words: str):
    text = f"version: 1\nname: k\nbackend: kubernetes\nkubernetes: {{namespace: team, image: i}}\nclasses:\n{change}\n"
    with pytest.raises(SpecError, match=words):
        load_cluster(text)
