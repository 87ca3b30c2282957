"""Runs whose runner is a Job: submitted, watched and cancelled from a machine outside, which may be away meanwhile."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from typing import Any

import yaml
from kube_helpers import nothing_left
from kube_laptop import CHUNKS, RBAC, UNITS, Laptop, command_of, end_jobs, finished

from daskml_scale.runs.records import Registry
from daskml_scale.testing.clusters import eventually


def test_a_run_goes_to_its_end_while_the_machine_that_submitted_it_is_away(laptop: Laptop):
    run = laptop.submitted("--label", "team=sea", "--key", "once")
    before = Registry().get(run, now=0.0)
    assert (before.state, before.pid) == ("queued", 0)  # no process of this machine has it
    assert laptop.submitted("--label", "team=sea", "--key", "once") == run
    with laptop.offline():
        code, out, err = laptop("status", run, "--json")
        assert (code, json.loads(out)["state"]) == (0, "queued")
        assert "is shown as it was known last" in err
        assert laptop("cancel", run)[0] == 1  # nothing was cancelled
        laptop.gate.touch()
        eventually(lambda: finished(laptop))
    assert len(laptop.farm.listed("batch/jobs", labelSelector="daskml-scale/role=runner")) == 1
    assert len(list(laptop.marks.iterdir())) == CHUNKS
    found = laptop.status(run)
    assert (found["state"], found["exit_code"], found["message"]) == ("succeeded", 0, "")
    assert [(stage["name"], stage["state"], stage["done"]) for stage in found["stages"]] == [("cube", "ok", UNITS)]
    assert [stage["units"] for stage in found["summary"]["stages"]] == [UNITS]
    code, out, _ = laptop("logs", run)
    assert code == 0
    assert "cube: done in" in out
    assert '{"daskml"' not in out  # lines for programs are not for people
    assert laptop("logs", run)[1] == out  # copied once
    assert laptop("wait", run)[0] == 0
    assert laptop("report", run, "--json")[0] == 0
    code, out, _ = laptop("list", "--label", "team=sea", "--json")
    assert [one["state"] for one in json.loads(out)] == ["succeeded"]
    # What the runner started is gone; its Job stays for a while, and what it said stays here for ever.
    kinds = {"pods", "batch/jobs", "configmaps"}
    eventually(lambda: sorted(one.partition(" ")[0] for one in laptop.farm.left()) == sorted(kinds))
    end_jobs(laptop.farm)
    eventually(lambda: nothing_left(laptop.farm))
    assert laptop.status(run)["state"] == "succeeded"


def test_a_wrong_workflow_ends_with_2_and_is_not_tried_again(laptop: Laptop):
    laptop.write("made:cube", "made:cub")
    code, out, err = laptop("submit", "cubes.yaml", "--follow")
    run = out.split()[0]
    assert code == 2, err
    assert "did you mean" in err
    assert len(laptop.pods()) == 1
    found = laptop.status(run)
    assert (found["state"], found["exit_code"]) == ("failed", 2)
    assert "cube" in found["message"]
    assert not list(laptop.marks.iterdir())
    assert "did you mean" in laptop("logs", run)[1]


def test_cancel_leaves_nothing(laptop: Laptop):
    run = laptop.submitted()
    laptop.begun(4)
    eventually(lambda: laptop.status(run)["state"] == "running")
    code, out, err = laptop("cancel", run)
    assert code == 0, err
    assert "cancelled" in out
    eventually(lambda: nothing_left(laptop.farm))
    assert laptop("wait", run)[0] == 6
    assert "cube: started" in laptop("logs", run)[1]  # copied before its Pod went
    assert laptop("cancel", run)[0] == 3
    assert laptop.status(run)["state"] == "cancelled"


def test_a_runner_that_was_killed_is_started_again_and_goes_on(laptop: Laptop):
    run = laptop.submitted()
    laptop.begun(4)
    done = eventually(lambda: sum(stage["done"] for stage in laptop.status(run)["stages"]))
    (process,) = [one for one in laptop.farm.processes() if "_job" in command_of(one)]
    process.send_signal(signal.SIGKILL)
    eventually(lambda: [
        one for one in laptop.farm.processes() if "_job" in command_of(one) and one.pid != process.pid
    ])  # fmt: skip
    laptop.begun(5)  # what was not committed begins again, on the workers of another cluster
    laptop.gate.touch()
    code, _, err = laptop("wait", run)
    assert code == 0, err
    found = laptop.status(run)
    assert (found["state"], [stage["done"] for stage in found["stages"]]) == ("succeeded", [UNITS])
    assert found["stages"][0]["reused"] >= done  # a state is told every five seconds
    assert len(laptop.pods()) == 2
    assert "the runner was started again" in laptop("logs", run)[1]
    assert {path.name.partition("-")[0] for path in laptop.marks.iterdir()} == {str(one) for one in range(CHUNKS)}


def test_what_cannot_be_handed_over_is_refused_and_nothing_is_entered(laptop: Laptop):
    refused: list[tuple[Callable[[], Any], str]] = [
        (lambda: laptop.write(str(laptop.folder / "store"), "./runs/cubes"), "folder of this machine"),
        (lambda: (laptop.write(), (laptop.folder / "big.py").write_text("#" * (1 << 20))), "takes 1 MiB"),
        (lambda: (laptop.folder / "big.py").unlink() or laptop.write("kind: generate", "kind: generat"), "generate"),
    ]
    for change, words in refused:
        change()
        code, _, err = laptop("submit", "cubes.yaml")
        assert (code, words in err) == (2, True), err
    assert laptop("list", "--json")[1].strip() == "[]"
    assert not laptop.farm.left()


def test_who_may_run_but_not_submit_is_told_and_nothing_is_left(laptop: Laptop):
    rules = next(
        item["rules"] for item in yaml.safe_load_all(RBAC.read_text())
        if item["kind"] == "Role" and item["metadata"]["name"] == "daskml-driver"
    )  # fmt: skip
    config = laptop.farm.user("onlyruns", rules)
    given = yaml.safe_load((laptop.folder / "farm.yaml").read_text())
    given["kubernetes"]["kubeconfig"] = str(config)
    (laptop.folder / "farm.yaml").write_text(json.dumps(given))
    code, _, err = laptop("submit", "cubes.yaml")
    assert code == 1
    assert 'cannot create resource "configmaps"' in err
    assert "kubectl apply -k" in err
    eventually(lambda: nothing_left(laptop.farm))
    assert json.loads(laptop("list", "--json")[1])[0]["state"] == "failed"
