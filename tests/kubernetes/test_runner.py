"""The Job of a submitted run, what travels with it, and what its state and its log mean."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from daskml_scale.deploy import runner
from daskml_scale.deploy.runner import Seen, seen
from daskml_scale.errors import UsageError
from daskml_scale.runs import remote
from daskml_scale.runs.mirror import OVERLAP, fresh, standing
from daskml_scale.spec.kubernetes import KubernetesSpec
from daskml_scale.testing.kube import rules
from daskml_scale.testing.kube.store import JOBS, KINDS, PODS

SAID = {"state": "partial", "exit_code": 4, "message": "", "finished": 7.0, "summary": {}}
OWNER = {"apiVersion": "batch/v1", "kind": "Job", "name": "tiny-1", "uid": "u"}


def spec(**options: Any) -> KubernetesSpec:
    kubernetes = {"namespace": "daskml", "image": "team/daskml:1", "kubeconfig": "/home/me/config", **options}
    classes = {"cpu": {"workers": {"max": 3}, "memory": "1GiB"}}
    given = {"version": 1, "name": "k", "backend": "kubernetes", "kubernetes": kubernetes, "classes": classes}
    return KubernetesSpec.model_validate({**given, "runner": {"memory": "3GiB", "pod": {"priorityClassName": "high"}}})


def made(**options: Any) -> dict[str, Any]:
    return runner.runner_job("tiny-1", "tiny-20260829-04d2", spec(**options), {"file-0": "code/tiny.yaml"})


def test_the_job_is_restricted_and_keeps_to_the_fields_that_a_server_knows():
    job = made()
    rules.check_fields(JOBS, job)
    pod = {"metadata": {"name": "s"}, "spec": job["spec"]["template"]["spec"]}
    rules.check_fields(PODS, pod)
    rules.check_security(pod, {"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "restricted"}}})
    rules.check_fields(KINDS["", "configmaps"], runner.config_map("tiny-1", OWNER, {"file-0": "x"}))


def test_the_runner_has_a_token_of_its_account_and_owns_what_it_starts():
    pod = made(service_account="apart")["spec"]["template"]["spec"]
    assert pod["serviceAccountName"] == "apart"
    assert pod["automountServiceAccountToken"] is False  # it has one where it looks for it
    (container,) = pod["containers"]
    values = {item["name"]: item.get("value") for item in container["env"]}
    assert json.loads(values["DASKML_OWNER"]) == {**OWNER, "uid": "$(DASKML_UID)"}
    assert [item["name"] for item in container["env"]].index("DASKML_UID") == 0  # before what refers to it
    assert container["resources"]["limits"] == {"memory": str(3 * 2**30)}
    assert pod["priorityClassName"] == "high"


def test_what_a_runner_said_is_final_and_what_befell_it_is_not():
    ignore, fail = made()["spec"]["podFailurePolicy"]["rules"]
    assert (ignore["action"], ignore["onPodConditions"][0]["type"]) == ("Ignore", "DisruptionTarget")
    assert (fail["action"], fail["onExitCodes"]["values"]) == ("FailJob", [1, 2, 4, 6])


@given(st.text(min_size=1, max_size=200))
def test_names_of_jobs_are_names_of_kubernetes(run: str):
    found = runner.job_name(run, "ab12c")
    assert len(found) <= 63 - len("-abcde")  # its Pods have five letters more
    assert found[0].isalpha()
    assert found.replace("-", "").isalnum()
    assert found == found.lower()
    assert found.isascii()


def test_a_long_name_keeps_the_day_and_the_time_of_its_run():
    assert runner.job_name("x" * 60 + "-20260829-04d2", "ab12c").endswith("x-20260829-04d2-ab12c")
    assert runner.job_name("My_Flow-20260829-04d2", "ab12c") == "my-flow-20260829-04d2-ab12c"


# What travels


def packed(folder: Path, **options: Any) -> remote.Parcel:
    return remote.packed(spec(context="mine", connect="tunnel", **options), folder / "tiny.yaml", "version: 1\n", {})


@pytest.fixture
def code(tmp_path: Path) -> Path:
    for name, text in (("made.py", "A = 1\n"), ("own/__init__.py", ""), ("own/deep/__init__.py", ""),
                       ("own/deep/far.py", "B = 2\n"), ("data/loose.py", ""), ("table.csv", "a\n")):  # fmt: skip
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def test_modules_and_packages_beside_the_workflow_travel_and_nothing_else(code: Path):
    files = packed(code).files
    assert {path for path in files if path.startswith("code/")} == {
        "code/tiny.yaml", "code/made.py", "code/own/__init__.py", "code/own/deep/__init__.py", "code/own/deep/far.py"
    }  # fmt: skip
    assert files["code/made.py"] == "A = 1\n"


def test_the_definition_travels_without_what_leads_there_from_here(code: Path):
    found = KubernetesSpec.model_validate(yaml.safe_load(packed(code).files["cluster.yaml"]))
    assert (found.kubernetes.kubeconfig, found.kubernetes.context, found.kubernetes.connect) == (None, None, "auto")
    assert found.runner.memory == "3GiB"


def test_code_in_the_image_stays_there(code: Path):
    found = packed(code, code="image").files
    assert [path for path in found if path.startswith("code/")] == ["code/tiny.yaml"]


def test_more_than_a_config_map_takes_is_refused_with_the_largest_file_and_the_remedy(code: Path):
    (code / "big.py").write_text("#" * (1 << 20))
    with pytest.raises(UsageError, match=r"1 MiB.*big\.py 1\.0 MiB.*kubernetes\.code: image"):
        packed(code)
    assert packed(code, code="image")


def test_a_store_that_only_this_machine_has_is_refused(tmp_path: Path):
    for store in ("./runs/tiny", "runs/tiny", "file://runs/tiny"):
        with pytest.raises(UsageError, match=r"folder of this machine.*--store"):
            remote.refuse_folder(store)
    for store in ("s3://bucket/tiny", "/mnt/volume/tiny", "icechunk+s3://bucket/tiny"):
        remote.refuse_folder(store)


# What a state means


def pod(name: str, phase: str, code: int | None = None, reason: str = "", **status: Any) -> dict[str, Any]:
    state = {} if code is None else {"terminated": {"exitCode": code, "reason": reason or "Error"}}
    listed = [{"name": "runner", "image": "i", "state": state}]
    metadata = {"name": name, "creationTimestamp": f"2026-08-29T10:00:0{name[-1]}Z"}
    return {"metadata": metadata, "spec": {}, "status": {"phase": phase, "containerStatuses": listed, **status}}


def job(condition: str = "", message: str = "") -> dict[str, Any]:
    listed = [{"type": condition, "status": "True", "message": message}] if condition else []
    return {"metadata": {"name": "j"}, "status": {"conditions": listed}}


def test_a_job_stands_as_its_pods_do():
    assert seen(job(), []) == Seen("queued")
    unscheduled = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3 nodes"}
    assert seen(job(), [pod("p-1", "Pending", conditions=[unscheduled])]).message == "Unschedulable: 0/3 nodes"
    found = seen(job(), [pod("p-2", "Running"), pod("p-1", "Failed", 137, "OOMKilled")])
    assert (found.state, found.pods, found.running) == ("running", ("p-1", "p-2"), ("p-2",))
    between = seen(job(), [pod("p-1", "Failed", 137, "OOMKilled")])
    assert (between.state, between.message) == ("queued", "its Pod ended (OOMKilled); another one starts")
    ended = seen(job("Failed", "limit"), [pod("p-1", "Failed", 137, "OOMKilled")])
    assert (ended.state, ended.code, ended.message) == ("ended", 137, "OOMKilled")
    assert seen(None, []).state == "gone"


@pytest.mark.parametrize(
    ("found", "end", "state", "code"),
    [
        (Seen("running"), None, "running", None),
        (Seen("queued", "0/3 nodes"), {"state": "failed"}, "queued", None),
        (Seen("ended", code=0), None, "succeeded", 0),
        (Seen("ended", code=2), None, "failed", 2),
        (Seen("ended", "OOMKilled", code=137), None, "lost", 5),
        (Seen("ended", "its Node is gone"), None, "lost", 5),
        (Seen("gone"), None, "lost", 5),
        (Seen("gone"), SAID, "partial", 4),
    ],
)  # fmt: skip
def test_a_run_stands_as_its_runner_said_or_else_as_its_pod_ended(
    found: Seen, end: dict[str, Any] | None, state: str, code: int | None
):
    values = standing(found, end, "the last line")
    assert (values["state"], values.get("exit_code")) == (state, code)


def test_the_message_of_a_runner_that_gave_no_end_is_its_last_line():
    assert standing(Seen("ended", code=2), None, "tiny.yaml:3: no such column")["message"].startswith("tiny.yaml:3")


# Copies of a log


@given(st.lists(st.sampled_from(["a", "b", ""]), max_size=30), st.data())
def test_a_log_that_is_read_whole_is_copied_once(lines: list[str], data: Any):
    known = data.draw(st.integers(0, len(lines)))
    last = lines[:known][-OVERLAP:]
    assert fresh(lines, last, known, whole=True) == lines[known:]


@given(st.integers(0, 60), st.integers(0, 60), st.integers(1, 60))
def test_the_end_of_a_log_is_continued_where_the_copy_ended(known: int, new: int, most: int):
    lines = [str(number) for number in range(known + new)]
    last = lines[:known][-OVERLAP:]
    found = fresh(lines[-most:] if most < len(lines) else lines, last, known, whole=most > len(lines))
    if known and most >= new + len(last):
        assert found == lines[known:]
    elif known:
        assert found is None  # it does not reach back so far: more must be read
