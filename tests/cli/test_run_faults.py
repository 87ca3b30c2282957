"""What befalls runs: killed, stopped, raced, a clock that jumps, a registry in use, a spec or store that goes away.

The oracle: nothing is ever "running" without a live lease, and what was committed is not done again.
"""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from daskml_scale.runs import schema
from daskml_scale.runs.records import Registry
from daskml_scale.runs.rows import HOLD
from daskml_scale.storage.ledger import Ledger

from .conftest import ended
from .test_control import NEVER, began, endless
from .test_submit import submitted

__all__ = ["endless"]
NOW = 1_795_334_400.0


def record(run: str):
    return Registry().get(run, now=time.time())


def until(there: Callable[[], object], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not there():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def expire() -> None:
    """Let all leases run out, instead of waiting for it."""
    with sqlite3.connect(Registry().path) as connection:
        connection.execute("update runs set lease_until = 1 where state in ('queued', 'running')")
    connection.close()


def committed(folder: Path) -> int:
    return len(Ledger(str(folder / "runs/tiny/long.ledger")).records())


def test_a_command_line_that_is_killed_in_mid_submit_leaves_nothing_running_and_its_key_starts_the_run(command, folder):
    code = (
        "import os, signal; from daskml_scale.cli import main; from daskml_scale.runs import enter\n"
        "enter.spawn = lambda *given: os.kill(os.getpid(), signal.SIGKILL)\n"
        "main(['submit', 'tiny.yaml', '--key', 'k'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=120, check=False)
    assert done.returncode == -signal.SIGKILL
    found = Registry().get(now=time.time())
    assert (found.state, found.pid) == ("queued", 0)
    expire()
    assert command("wait", found.id)[0] == 5
    assert submitted(command, "--key", "k") == found.id
    assert command("wait", found.id)[0] == 0
    assert [event["state"] for event in Registry().events(found.id)] == ["queued", "running", "succeeded"]


def test_a_run_whose_every_process_is_killed_at_once_is_lost_and_resumes_without_repeating(command, endless):
    run = submitted(command)
    began(endless)
    until(lambda: committed(endless) >= 2)
    driver = psutil.Process(record(run).pid)
    for process in (driver, *driver.children(recursive=True)):
        process.kill()
    ended(driver.pid)
    assert record(run).state == "lost"
    assert command("wait", run)[0] == 5
    kept = committed(endless)
    (endless / "tiny.yaml").write_text(NEVER.replace("1000", str(kept + 1)))
    assert command("resume", run, "-q")[0] == 0
    assert Registry().get(now=time.time()).stages[0].reused >= kept


def test_a_run_that_is_suspended_is_lost_meanwhile_and_nobody_gets_its_store(command, endless):
    run = submitted(command)
    began(endless)
    until(lambda: record(run).stages)
    pid = record(run).pid
    os.kill(pid, signal.SIGSTOP)
    try:
        until(lambda: psutil.Process(pid).status() == psutil.STATUS_STOPPED)
        expire()
        assert record(run).state == "lost"
        code, _, err = command("submit", "tiny.yaml")
        assert code == 3
        assert f"in use by run {run} (process {pid})" in err
    finally:
        os.kill(pid, signal.SIGCONT)
    until(lambda: record(run).state == "running")  # its next heartbeat
    assert command("cancel", run)[0] == 0


def test_a_suspended_run_that_was_taken_over_stops_when_it_wakes(command, endless, started):
    run = submitted(command)
    began(endless)
    found = record(run)
    os.kill(found.pid, signal.SIGSTOP)
    until(lambda: psutil.Process(found.pid).status() == psutil.STATUS_STOPPED)
    expire()
    registry = Registry()
    taken = registry.start(registry.get(run, now=time.time()), host="elsewhere", pid=1, now=time.time())
    os.kill(found.pid, signal.SIGCONT)
    assert started[0].wait() == 3
    assert "was taken over by another process" in Path(found.log).read_text()
    assert (record(run).epoch, record(run).host) == (taken.epoch, "elsewhere")


def test_a_clock_that_jumps_makes_no_dead_run_alive_and_costs_a_live_one_nothing(tmp_path):
    registry = Registry(tmp_path / "registry.db")
    run = registry.create(workflow="w", source="", store="s", cluster="none", command=[], cwd="", now=NOW)
    run = registry.start(run, host="elsewhere", pid=1, now=NOW)
    hour = 3600.0
    assert registry.get(run.id, now=NOW + hour).state == "lost"  # forwards
    assert registry.beat(run.id, run.epoch, now=NOW + hour)  # it lives, and says so
    assert registry.get(run.id, now=NOW + hour + 1).state == "running"
    assert registry.get(run.id, now=NOW).state == "lost"  # backwards: its lease cannot be of this time
    assert registry.beat(run.id, run.epoch, now=NOW)
    assert registry.get(run.id, now=NOW + 1).state == "running"
    assert registry.get(run.id, now=NOW + HOLD + 1).state == "lost"


def test_a_registry_that_another_process_writes_for_long_is_one_message_and_costs_the_work_nothing(
    command, endless, monkeypatch
):
    run = submitted(command)
    began(endless)
    monkeypatch.setattr(schema, "BUSY_SECONDS", 0.2)
    held = sqlite3.connect(Registry().path, isolation_level=None)
    held.execute("begin immediate")
    try:
        before = committed(endless)
        code, _, err = command("submit", "tiny.yaml")
        assert code in (1, 3)
        assert "the run registry cannot be used (database is locked); another process has been writing it" in err
        assert record(run).state in ("running", "lost")  # readers are not kept waiting
        until(lambda: committed(endless) > before)
    finally:
        held.execute("rollback")
        held.close()
    until(lambda: record(run).state == "running")
    assert command("cancel", run)[0] == 0


def test_a_spec_that_is_edited_while_its_run_works_changes_nothing(command, endless):
    (endless / "tiny.yaml").write_text(NEVER.replace("1000", "8"))
    run = submitted(command)
    began(endless)
    (endless / "tiny.yaml").write_text("no: workflow\n")
    assert command("wait", run)[0] == 0
    assert record(run).stages[0].rows == 8
    code, _, err = command("resume", run)
    assert code == 2
    assert "tiny.yaml:1" in err


@pytest.mark.parametrize("left", ["nothing", "a file"])
def test_a_store_that_is_removed_while_its_run_works_ends_it_in_words_or_is_made_anew(command, endless, left):
    (endless / "tiny.yaml").write_text(NEVER.replace("1000", "30"))
    run = submitted(command)
    began(endless)
    until(lambda: committed(endless) >= 1)
    shutil.rmtree(endless / "runs/tiny", ignore_errors=True)
    if left == "a file":
        shutil.rmtree(endless / "runs", ignore_errors=True)
        (endless / "runs").write_text("in the way")
    code = command("wait", run)[0]
    found = record(run)
    assert code in (0, 1)
    assert found.state in ("succeeded", "failed")
    assert "Traceback" not in Path(found.log).read_text()
    if found.state == "failed":
        assert "runs/tiny" in found.message
    if left == "a file":
        (endless / "runs").unlink()
    (endless / "tiny.yaml").write_text(NEVER.replace("1000", "3"))
    assert command("resume", run, "-q")[0] == 0
