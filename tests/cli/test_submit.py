"""Detached runs: the id, the log, life after the terminal, death by kill -9, and going on."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from daskml_scale.runs.records import Registry
from daskml_scale.storage.ledger import Ledger

from .conftest import ended, write_workflow
from .test_terminal import MANY, Terminal

Status = Callable[[str], dict[str, Any]]


def wait(status: Status, run: str, states: tuple[str, ...] = ("succeeded", "failed", "interrupted")) -> dict[str, Any]:
    """Wait until a run is in one of ``states``."""
    end = time.monotonic() + 90
    while True:
        found = status(run)
        if found["state"] in states:
            return found
        assert time.monotonic() < end, found
        time.sleep(0.2)


def committed(folder: Path) -> int:
    return len(Ledger(str(folder / "runs/tiny/table.ledger")).records())


Command = Callable[..., tuple[int, str, str]]


def submitted(command: Command, *words: str) -> str:
    code, out, err = command("submit", "tiny.yaml", *words)
    assert code == 0, err
    return out.strip()


def test_submit_prints_the_id_and_how_to_watch_and_the_run_succeeds(folder, process, status):
    done = process("submit", "tiny.yaml", "--store", "runs/elsewhere")
    run = done.stdout.strip()
    assert done.returncode == 0
    assert done.stdout == f"{run}\n"
    assert f"daskml-scale status {run}\n" in done.stderr
    assert "daskml-scale submit tiny.yaml --store runs/elsewhere\n" in done.stderr
    found = wait(status, run)
    log = Path(found["log"]).read_text()
    assert (found["state"], found["exit_code"]) == ("succeeded", 0)
    assert [(stage["name"], stage["done"]) for stage in found["stages"]] == [("table", 4), ("check", 4)]
    assert found["summary"] == json.loads((folder / "runs/elsewhere/summary.json").read_text())
    assert "table: done in" in log
    assert "Results: runs/elsewhere" in log
    assert str(found["log"]) in process("status", run).stdout


def test_submit_with_json_prints_one_document(command, status):
    found = json.loads(command("submit", "tiny.yaml", "--json")[1])
    assert found["state"] == "queued"
    assert wait(status, found["id"])["state"] == "succeeded"


def test_submit_itself_imports_no_engine(folder, status):
    import sys

    code = (
        "import sys; from daskml_scale.cli import main; main(['submit', 'tiny.yaml'])\n"
        "print([name for name in ('dask', 'distributed', 'xarray', 'sklearn') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    run, heavy = done.stdout.splitlines()
    assert heavy == "[]"
    wait(status, run)


def test_a_failing_run_tells_status_and_log(folder, command, status):
    text = (folder / "tiny.yaml").read_text().replace("{unique: [key]}", "{range: {of: x, most: 3}}")
    (folder / "tiny.yaml").write_text(text)
    found = wait(status, submitted(command))
    assert (found["state"], found["exit_code"]) == ("failed", 1)
    assert f"error: {found['message']}\n" in Path(found["log"]).read_text()


def test_a_submitted_run_goes_on_when_its_terminal_closes(folder, status):
    write_workflow(folder, rows=100, chunk=1)
    terminal = Terminal("submit", "tiny.yaml")
    terminal.until(lambda: terminal.process.poll() is not None)
    os.close(terminal.leader)
    found = wait(status, "tiny", ("running", "succeeded"))
    assert found["pid"] != terminal.process.pid
    if found["state"] == "running":
        assert os.getsid(found["pid"]) == found["pid"]
    assert wait(status, "tiny")["state"] == "succeeded"


def test_sigterm_ends_a_submitted_run_as_interrupted(folder, command, status):
    write_workflow(folder, rows=MANY, chunk=1)
    run = submitted(command)
    pid = wait(status, run, ("running",))["pid"]
    while committed(folder) < 3:
        time.sleep(0.05)
    os.kill(pid, signal.SIGTERM)
    found = wait(status, run)
    assert (found["state"], found["exit_code"]) == ("interrupted", 130)
    assert "Go on with: daskml-scale submit tiny.yaml" in Path(found["log"]).read_text()


def test_a_killed_run_turns_lost_and_submitting_again_goes_on(folder, command, status):
    write_workflow(folder, rows=MANY, chunk=1)
    run = submitted(command)
    pid = wait(status, run, ("running",))["pid"]
    while committed(folder) < 5 or not status(run)["stages"]:
        time.sleep(0.05)
    os.kill(pid, signal.SIGKILL)
    registry = Registry()
    ended(pid)
    found = status(run)
    assert (found["state"], found["lease_until"] > time.time()) == ("lost", True)  # its process is gone
    assert command("status", run)[1].startswith(f"{run}  lost  just now")
    counted = json.loads(command("status", run, "--json")[1])["stages"][0]
    assert counted["done"] == committed(folder) >= found["stages"][0]["done"]
    with sqlite3.connect(registry.path) as connection:  # instead of waiting for it, and as if never told
        connection.execute("update runs set lease_until = ?", (time.time() - 60,))
        connection.execute("update stages set done = 1")
    assert json.loads(command("status", run, "--json")[1])["stages"][0]["done"] == committed(folder)
    code, out, _ = command("status", run)
    assert code == 0
    assert out.startswith(f"{run}  lost  no sign of life for 1:0")
    assert "Go on with: daskml-scale submit tiny.yaml" in out
    kept = committed(folder)
    again = submitted(command)
    while not (stages := wait(status, again, ("running",))["stages"]) or not stages[0]["reused"]:
        time.sleep(0.1)
    assert stages[0]["reused"] == kept
    os.kill(status(again)["pid"], signal.SIGTERM)
    assert wait(status, again)["state"] == "interrupted"
    assert status(run)["state"] == "lost"


def test_a_run_is_done_by_one_process(command, status):
    assert command("run", "tiny.yaml")[0] == 0
    run = status("tiny")["id"]
    code, out, err = command("_runner", run)
    assert (code, out) == (3, "")
    assert err == f"error: run {run} cannot be started: it is succeeded (epoch 1)\n"
    assert status(run)["state"] == "succeeded"


def test_what_a_job_runs_is_nothing_for_a_terminal(command):
    code, out, err = command("_job")
    assert (code, out) == (2, "")
    assert "_job is what a Job of Kubernetes runs" in err


def test_a_run_whose_process_cannot_start_is_recorded_as_failed(command, status):
    home = Registry().path.parent
    home.mkdir(parents=True, exist_ok=True)
    (home / "runs").write_text("a file where the logs should be")
    code, out, err = command("submit", "tiny.yaml")
    assert (code, out) == (1, "")
    assert err.startswith("error: ")
    assert "could not be started" in err
    assert status("tiny")["state"] == "failed"


def test_a_store_that_dies_with_the_process_is_refused(command):
    code, out, err = command("submit", "tiny.yaml", "--store", "memory://x")
    assert (code, out) == (2, "")
    assert "memory://x" in err
    assert not Registry().path.exists()


def test_a_store_that_is_in_use_is_refused_with_its_holder(folder, command):
    from daskml_scale.storage.lock import hold

    with hold(str(folder / "runs/tiny"), "run tiny-1"):
        for words in (["submit", "tiny.yaml"], ["submit", "tiny.yaml", "--json"]):
            code, out, err = command(*words)
            assert code == 3
            assert f"runs/tiny is in use by run tiny-1 (process {os.getpid()}); wait for it" in err
            assert bool(out) == ("--json" in words)
    assert not Registry().path.exists()
    wait(lambda run: dict(Registry().get(run, now=time.time()).to_dict()), submitted(command))
