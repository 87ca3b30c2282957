"""What may be done with a run of another process: wait for it, read it, cancel it, go on with it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from daskml_scale.runs import control
from daskml_scale.runs.process import gone
from daskml_scale.runs.records import Registry

from .conftest import PROGRAM, write_workflow
from .test_submit import committed, submitted
from .test_terminal import MANY

NEVER = """
version: 1
name: tiny
store: ./runs/tiny
cluster: none
stages:
  long: {kind: map, function: 'slow:sleep', over: {range: 1000}, chunk: 1}
"""


@pytest.fixture
def endless(folder):
    """A workflow that takes minutes, a unit at a time."""
    (folder / "slow.py").write_text(
        "import pathlib, time\n"
        "def sleep(item):\n    pathlib.Path('began').touch()\n    time.sleep(0.2)\n    return item\n"
    )
    (folder / "tiny.yaml").write_text(NEVER)
    return folder


def began(folder: Path) -> None:
    deadline = time.monotonic() + 60
    while not (folder / "began").exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_wait_exits_as_the_run_did(command, folder):
    run = submitted(command)
    code, out, _ = command("wait", run)
    assert (code, out) == (0, f"run {run} is succeeded\n")
    (folder / "a.csv").write_text("key,x\n1,2\n1,3\n")
    bad = submitted(command)
    code, out, _ = command("wait", bad, "--json")
    assert (code, json.loads(out)["state"]) == (1, "failed")


def test_logs_follow_a_run_to_its_end(command, folder):
    run = submitted(command)
    code, out, _ = command("logs", run, "-f")
    assert code == 0
    assert "table: done in" in out
    assert command("logs", run)[1] == out
    command("run", "tiny.yaml", "--quiet")
    events = [json.loads(line)["event"] for line in command("logs")[1].splitlines()]
    assert (events[0], events[-1]) == ("run_started", "run_finished")


def test_a_cancelled_run_stops_keeps_what_it_committed_and_can_be_resumed(command, endless):
    run = submitted(command)
    began(endless)
    code, out, _ = command("cancel", run)
    assert (code, out) == (0, f"run {run} is cancelled; committed work stays\n")
    found = Registry().get(run, now=time.time())
    assert (found.state, found.exit_code) == ("cancelled", 6)
    assert gone(found.host, found.pid, found.started)
    assert command("wait", run)[0] == 6
    code, _, err = command("cancel", run)
    assert code == 3
    assert "cannot be cancelled: it is cancelled" in err
    (endless / "tiny.yaml").write_text(NEVER.replace("1000", "2"))
    code, out, _ = command("resume", run, "--json")
    assert (code, json.loads(out)["state"]) == (0, "succeeded")


def test_a_run_that_does_not_heed_its_end_is_ended(command, endless, monkeypatch, started):
    (endless / "slow.py").write_text(
        "import pathlib, signal, time\n"
        "def sleep(item):\n    signal.signal(signal.SIGTERM, signal.SIG_IGN)\n    pathlib.Path('began').touch()\n"
        "    time.sleep(600)\n"
    )
    run = submitted(command)
    began(endless)
    monkeypatch.setattr(control, "GRACE_SECONDS", 0.5)
    assert command("cancel", run)[0] == 0
    assert started[0].wait() == -signal.SIGKILL
    assert Registry().get(run, now=time.time()).state == "cancelled"


def test_a_run_in_a_terminal_that_is_cancelled_elsewhere_says_so(command, endless):
    with subprocess.Popen([*PROGRAM, "run", "tiny.yaml"], stderr=subprocess.PIPE, text=True) as process:
        began(endless)
        run = Registry().get(now=time.time()).id
        assert command("cancel", run)[0] == 0
        _, err = process.communicate(timeout=60)
    assert process.returncode == 6
    assert f"run {run} was cancelled; committed work stays" in err


def test_a_lost_run_is_waited_for_no_longer_and_resumes_where_it_stood(command, folder):
    write_workflow(folder, rows=MANY, chunk=5)
    run = submitted(command)
    while not (found := Registry().get(run, now=time.time())).pid:
        time.sleep(0.02)
    os.kill(found.pid, signal.SIGKILL)
    assert command("wait", run)[0] in (5, 0)  # it may have been quicker
    before = committed(folder)
    code, out, _ = command("resume", run, "--detach")
    assert code == 0
    assert command("wait", out.strip())[0] == 0
    assert committed(folder) >= before


def test_resume_refuses_a_run_that_goes_on(command, endless):
    run = submitted(command)
    began(endless)
    code, _, err = command("resume", run)
    assert code == 3
    assert f"run {run} is running; see it:" in err
    command("cancel", run)


def test_a_log_that_is_gone_is_named(command, folder):
    run = submitted(command)
    command("wait", run)
    Path(Registry().get(run, now=time.time()).log).unlink()
    code, _, err = command("logs", run)
    assert code == 1
    assert f"run {run} left no log at" in err
