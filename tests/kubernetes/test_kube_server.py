"""The API server of the tests does what the real one does, by the judgement of the real ``kubectl``."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from kube_helpers import Kubectl

from daskml_scale.testing.clusters import eventually
from daskml_scale.testing.kube.client import ApiError

SCRIPT = "import time\nfor i in range(3): print('line', i, flush=True); time.sleep(0.1)"


def pod(name: str, *command: str, **more: Any) -> dict[str, Any]:
    own = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
    container = {"name": "main", "image": "any", "command": list(command), "securityContext": own}
    spec = {
        "restartPolicy": "Never", "terminationGracePeriodSeconds": 2, "containers": [container],
        "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
    }  # fmt: skip
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": name}},
            "spec": {**spec, **more}}  # fmt: skip


def until(path: Path) -> str:
    """Return a program that waits for a file."""
    return f"import os, time\nwhile not os.path.exists({str(path)!r}): time.sleep(0.02)"


def phase(farm: Any, name: str) -> str:
    return str(farm.request("GET", farm.path("pods", name))["status"].get("phase"))


@pytest.fixture
def kubectl(farm: Any) -> Kubectl:
    return Kubectl(farm)


def test_kubectl_applies_follows_logs_and_deletes(farm: Any, kubectl: Kubectl):
    given = json.dumps(pod("logs", "python", "-c", SCRIPT))
    assert kubectl("apply", "-f", "-", given=given) == "pod/logs created\n"
    assert kubectl("apply", "-f", "-", given=given) == "pod/logs unchanged\n"
    eventually(lambda: phase(farm, "logs") != "Pending")
    assert kubectl("logs", "-f", "logs").splitlines() == ["line 0", "line 1", "line 2"]
    eventually(lambda: phase(farm, "logs") == "Succeeded")
    assert kubectl("logs", "--tail=1", "logs") == "line 2\n"
    assert "logs" in kubectl("get", "pods", "-l", "app=logs")
    kubectl("delete", "pod", "logs")
    assert "NotFound" in kubectl.run("get", "pod", "logs").stderr


def test_kubectl_watches_a_pod_through_its_life(farm: Any, kubectl: Kubectl, tmp_path: Path):
    following = kubectl.begin("get", "pods", "-w", "-l", "app=seen", "-o", "jsonpath={.status.phase}{'\\n'}")
    try:
        kubectl("apply", "-f", "-", given=json.dumps(pod("seen", "python", "-c", until(tmp_path / "go"))))
        assert following.stdout is not None
        seen: list[str] = []
        while "Succeeded" not in seen:
            line = following.stdout.readline()
            assert line, "the watch ended"
            seen.append(line.strip())
            if seen[-1] == "Running":
                (tmp_path / "go").touch()
        assert "Running" in seen
    finally:
        following.kill()
        following.communicate()
    kubectl("delete", "pod", "seen")


def test_a_running_pod_gets_its_grace_and_keeps_its_name_until_it_is_gone(farm: Any, kubectl: Kubectl, tmp_path: Path):
    script = "import signal\nsignal.signal(15, lambda *_: None)\nprint('up', flush=True)\n" + until(tmp_path / "go")
    farm.request("POST", farm.path("pods"), pod("slow", "python", "-c", script, terminationGracePeriodSeconds=90))
    eventually(lambda: phase(farm, "slow") == "Running")
    eventually(lambda: "up" in kubectl("logs", "slow"))
    farm.request("DELETE", farm.path("pods", "slow"))
    with pytest.raises(ApiError, match=r"409.*object is being deleted"):
        farm.request("POST", farm.path("pods"), pod("slow", "true"))
    (tmp_path / "go").touch()
    eventually(lambda: not [one for one in farm.listed("pods") if one["metadata"]["name"] == "slow"])
    assert not farm.processes()


def test_a_pod_gets_its_environment_from_secrets_and_configmaps(farm: Any, kubectl: Kubectl):
    data = {"KEY": "c2VjcmV0", "ONE": "MQ=="}
    farm.request("POST", farm.path("secrets"), {"metadata": {"name": "keys"}, "data": data})
    farm.request("POST", farm.path("configmaps"), {"metadata": {"name": "place"}, "data": {"REGION": "here"}})
    given = pod("told", "python", "-c", "import os; print(*(os.environ[one] for one in ('KEY', 'ONE', 'MY_REGION')))")
    given["spec"]["containers"][0].update(
        envFrom=[{"secretRef": {"name": "keys"}}, {"configMapRef": {"name": "place"}, "prefix": "MY_"}],
        env=[{"name": "ONE", "value": "2"}],  # goes before the others
    )
    farm.request("POST", farm.path("pods"), given)
    eventually(lambda: phase(farm, "told") == "Succeeded")
    assert kubectl("logs", "told") == "secret 2 here\n"
    for path in (farm.path("secrets", "keys"), farm.path("configmaps", "place"), farm.path("pods", "told")):
        farm.request("DELETE", path)


def test_what_kubectl_sends_as_protobuf_is_refused_in_words(farm: Any, kubectl: Kubectl):
    assert len(kubectl("create", "token", "default")) > 20  # this one is understood
    done = kubectl.run("create", "secret", "generic", "keys", "--from-literal=KEY=1")
    if farm.server is not None:
        assert "takes a Secret as JSON only" in done.stderr
        given = kubectl("create", "secret", "generic", "keys", "--from-literal=KEY=1", "--dry-run=client", "-o", "json")
        kubectl("create", "-f", "-", given=given)
    farm.request("DELETE", farm.path("secrets", "keys"))


def test_unknown_fields_are_refused_when_asked_for_and_pass_silently_otherwise(farm: Any, kubectl: Kubectl):
    wrong = pod("odd", "true", nodeNam="x")
    done = kubectl.run("apply", "-f", "-", given=json.dumps(wrong))
    assert done.returncode == 1
    assert 'unknown field "spec.nodeNam"' in done.stderr
    farm.request("POST", farm.path("pods"), wrong)
    farm.request("DELETE", farm.path("pods", "odd"))


def test_a_namespace_that_is_restricted_refuses_others(farm: Any):
    loose = pod("loose", "true")
    del loose["spec"]["securityContext"]
    with pytest.raises(ApiError, match=r'403.*violates PodSecurity "restricted'):
        farm.request("POST", farm.path("pods"), loose)


def test_rights_are_those_of_the_roles(farm: Any):
    rules = [{"apiGroups": [""], "resources": ["pods"], "verbs": ["list", "create"]}]
    limited = Kubectl(farm, farm.user("limited", rules))
    assert limited("auth", "can-i", "create", "pods").strip() == "yes"
    assert limited.run("auth", "can-i", "delete", "pods").stdout.strip() == "no"
    assert limited.run("auth", "can-i", "get", "pods", "--subresource=log").stdout.strip() == "no"
    assert "pods" in limited("auth", "can-i", "--list")
    assert "forbidden" in limited.run("delete", "pod", "nothing").stderr
    assert "cannot get resource" in limited.run("get", "secret", "nothing").stderr


def test_a_quota_counts_pods_that_have_not_ended(farm: Any, tmp_path: Path):
    quota = {"metadata": {"name": "few"}, "spec": {"hard": {"pods": "1"}}}
    farm.request("POST", farm.path("resourcequotas"), quota)
    if farm.server is None:
        eventually(lambda: "hard" in farm.request("GET", farm.path("resourcequotas", "few")).get("status", {}))
    try:
        farm.request("POST", farm.path("pods"), pod("one", "python", "-c", until(tmp_path / "go")))
        with pytest.raises(ApiError, match=r"403.*exceeded quota: few"):
            farm.request("POST", farm.path("pods"), pod("two", "true"))
        (tmp_path / "go").touch()
        eventually(lambda: phase(farm, "one") == "Succeeded")
    finally:
        farm.request("DELETE", farm.path("resourcequotas", "few"))
        farm.request("DELETE", farm.path("pods", "one"))


def test_what_belongs_to_something_that_is_gone_is_collected(farm: Any):
    owner = farm.request("POST", farm.path("configmaps"), {"metadata": {"name": "owner"}})
    reference = {"apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": owner["metadata"]["uid"]}
    owned = {"metadata": {"name": "owned", "ownerReferences": [reference]}}
    farm.request("POST", farm.path("secrets"), owned)
    farm.request("DELETE", farm.path("configmaps", "owner"))
    eventually(lambda: "secrets owned" not in farm.left())


def job(name: str, code: int, **more: Any) -> dict[str, Any]:
    template = {"spec": pod("x", "python", "-c", f"raise SystemExit({code})")["spec"]}
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name},
            "spec": {"template": template, "backoffLimit": 1, **more}}  # fmt: skip


def condition(farm: Any, name: str) -> dict[str, Any]:
    found = farm.request("GET", farm.path("batch/jobs", name)).get("status", {}).get("conditions") or []
    return next((one for one in found if one["type"] in ("Complete", "Failed")), {})


def test_a_job_runs_again_what_failed_unless_its_policy_says_that_this_is_of_no_use(farm: Any):
    rule = {"action": "FailJob", "onExitCodes": {"operator": "In", "values": [2]}}
    farm.request("POST", farm.path("batch/jobs"), job("good", 0))
    farm.request("POST", farm.path("batch/jobs"), job("twice", 1))
    farm.request("POST", farm.path("batch/jobs"), job("once", 2, podFailurePolicy={"rules": [rule]}))
    assert eventually(lambda: condition(farm, "good"))["type"] == "Complete"
    assert eventually(lambda: condition(farm, "once"))["reason"] == "PodFailurePolicy"
    assert eventually(lambda: condition(farm, "twice"))["reason"] == "BackoffLimitExceeded"
    counts = {name: len(farm.listed("pods", labelSelector=f"job-name={name}")) for name in ("good", "once", "twice")}
    assert counts == {"good": 1, "once": 1, "twice": 2}
    for name in counts:
        farm.request("DELETE", farm.path("batch/jobs", name), {"propagationPolicy": "Background"})
    eventually(lambda: not farm.listed("pods"))


def test_a_finished_job_with_no_time_to_live_goes_with_all_that_it_owns(farm: Any):
    farm.request("POST", farm.path("batch/jobs"), job("gone", 1, backoffLimit=0, ttlSecondsAfterFinished=0))
    eventually(lambda: not farm.listed("pods") and not farm.listed("batch/jobs"))


def test_lists_come_in_parts_and_selectors_choose(farm: Any):
    for number in range(3):
        body = {"metadata": {"name": f"m-{number}", "labels": {"n": str(number)}}}
        farm.request("POST", farm.path("configmaps"), body)
    first = farm.request("GET", farm.path("configmaps"), limit=2, labelSelector="n")
    rest = farm.request("GET", farm.path("configmaps"), labelSelector="n", **{
        "limit": 2, "continue": first["metadata"]["continue"]})  # fmt: skip
    assert [one["metadata"]["name"] for one in [*first["items"], *rest["items"]]] == ["m-0", "m-1", "m-2"]
    chosen = farm.listed("configmaps", labelSelector="n in (0,2),n!=2")
    assert [one["metadata"]["name"] for one in chosen] == ["m-0"]
    assert [one["metadata"]["name"] for one in farm.listed("configmaps", fieldSelector="metadata.name=m-1")] == ["m-1"]
    farm.request("DELETE", farm.path("configmaps"), labelSelector="n")
    assert not farm.listed("configmaps", labelSelector="n")


def test_a_server_that_was_away_refuses_everybody_for_a_moment_and_forgets_versions(farm: Any):
    if farm.server is None:
        pytest.skip("a real server is not ours to restart")
    version = farm.request("GET", farm.path("pods"))["metadata"]["resourceVersion"]
    farm.request("POST", farm.path("configmaps"), {"metadata": {"name": "later"}})
    began = time.time()
    farm.server.call(farm.server.restart(away=0.3, forbidding=0.0))
    found = farm.request("GET", farm.path("pods"), watch=1, resourceVersion=version, timeoutSeconds=1)
    assert '"code": 410' in found if isinstance(found, str) else found["object"]["code"] == 410
    farm.server.forbidding = True
    with pytest.raises(ApiError, match="403"):
        farm.request("GET", farm.path("pods"))
    farm.server.forbidding = False
    assert any(one.code == 403 and one.at > began for one in farm.server.requests)
    farm.request("DELETE", farm.path("configmaps", "later"))
