"""Clusters that outlive the command that started them."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from typing import Any

import psutil
import pytest

import daskml_scale as dms

SMALL = """
version: 1
name: small
backend: local
classes: {cpu: {workers: {min: 1, max: 2}, memory: 512MiB}}
scaling: {policy: backlog}
dashboard: {listen: '127.0.0.1:0'}
"""


def eventually(condition: Callable[[], Any], seconds: float = 60.0) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.1)
    return found


@pytest.fixture
def up(command, folder, monkeypatch):
    """Start a cluster by the command; what is left of it at the end is ended."""
    monkeypatch.setenv("DASKML_SCALE_HOME", str(folder / "home"))
    (folder / "small.yaml").write_text(SMALL)
    started = []

    def start(*words: str) -> dict[str, Any]:
        code, out, err = command("clusters", "up", "small.yaml", "--json", *words)
        assert code == 0, err
        started.append(psutil.Process(json.loads(out)["pid"]))
        return json.loads(out)

    yield start
    for process in started:
        if process.is_running():
            process.kill()
            process.wait(30)


@pytest.mark.slow
def test_a_named_cluster_is_used_by_a_run_and_left_up(up, command):
    one = up("--name", "team")
    assert [row["name"] for row in json.loads(command("clusters", "ps", "--json")[1])] == ["team"]
    code, _, err = command("run", "tiny.yaml", "--cluster", "team", "--json")
    assert code == 0, err
    assert [row["worker"] for row in json.loads(command("clusters", "ps", "team", "--json")[1])] == ["cpu-0"]
    with dms.cluster("team") as joined, joined.get_client(set_as_default=False) as client:  # as a notebook does
        assert (joined.scheduler_address, joined.dashboard_link) == (one["address"], one["dashboard"])
        assert client.submit(sum, [1, 2]).result(timeout=60) == 3
    assert command("clusters", "scale", "team", "2")[0] == 0
    eventually(lambda: len(json.loads(command("clusters", "ps", "team", "--json")[1])) == 2)
    assert set(json.loads(command("clusters", "logs", "team", "--json")[1])) >= {"scheduler", "holder"}
    code, _, err = command("clusters", "up", "small.yaml", "--name", "team")
    assert code == 3
    assert f"cluster team runs already at {one['address']}" in err
    processes = psutil.Process(one["pid"]).children(recursive=True)
    assert command("clusters", "down", "team")[0] == 0
    assert command("clusters", "ps", "--json")[1] == "[]\n"
    eventually(lambda: not any(process.is_running() for process in processes))
    code, _, err = command("clusters", "down", "team")
    assert code == 2
    assert "no cluster 'team' runs; running: none" in err


@pytest.mark.slow
def test_it_ends_by_itself_when_idle_and_leaves_nothing_when_its_holder_is_killed(up, command):
    short = up("--name", "short", "--idle", "1s")
    long = up("--name", "long")
    processes = psutil.Process(long["pid"]).children(recursive=True)
    assert processes
    os.kill(long["pid"], signal.SIGKILL)
    psutil.Process(long["pid"]).wait(30)
    eventually(lambda: not any(process.is_running() for process in processes))
    eventually(lambda: not psutil.pid_exists(short["pid"]) or psutil.Process(short["pid"]).status() == "zombie")
    assert command("clusters", "ps", "--json")[1] == "[]\n"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["absent"], "unknown cluster 'absent'"),
        (["small.yaml", "--name", "a/b"], "'a/b' is no name"),
        (["small.yaml", "--idle", "soon"], "'soon' is not a duration"),
    ],
)
def test_what_cannot_be_started_says_why(command, folder, words, message):
    (folder / "small.yaml").write_text(SMALL)
    code, _, err = command("clusters", "up", *words)
    assert code == 2
    assert message in err


def test_a_cluster_that_does_not_start_leaves_its_reason(command, folder, monkeypatch):
    monkeypatch.setenv("DASKML_SCALE_HOME", str(folder / "home"))
    (folder / "large.yaml").write_text(SMALL.replace("512MiB", "900TiB"))
    code, _, err = command("clusters", "up", "large.yaml")
    assert code == 1
    assert "900TiB: a worker needs at least" in err
    assert command("clusters", "ps", "--json")[1] == "[]\n"
