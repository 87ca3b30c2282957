"""The driver, or a worker, of a real run is killed in mid-predict; the run goes on and nothing is lost or repeated.

Two stores are equal (DESIGN section 5) when their data chunks and metadata are equal to the byte and
their ledgers are equal in (unit, fingerprint, digest, status).
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from daskml_scale.storage.ledger import Ledger
from daskml_scale.testing.faults import executions

DRIVER = Path(__file__).parent / "driver.py"
UNITS = 60
"""Of the predict stage's second pass."""


def start(workflow: Path, store: Path, folder: Path, cluster: str, *script: str) -> subprocess.Popen[str]:
    folder.mkdir(exist_ok=True)
    command = [sys.executable, str(DRIVER), str(workflow), str(store), str(folder), cluster, *script]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def complete(workflow: Path, store: Path, folder: Path, cluster: str, *script: str) -> dict:
    child = start(workflow, store, folder, cluster, *script)
    out, errors = child.communicate(timeout=200)
    assert child.returncode == 0, errors
    return json.loads(out)


def content(store: Path) -> dict[str, bytes]:
    """Return every file of data and metadata; ledgers, logs and times are compared apart."""
    return {
        str(path.relative_to(store)): path.read_bytes()
        for path in store.rglob("*")
        if path.is_file() and ".ledger" not in str(path) and path.name not in ("summary.json", ".lock")
    }


def identities(store: Path) -> dict[str, list]:
    return {
        folder.name: sorted(record.identity() for record in Ledger(str(folder)).records().values())
        for folder in store.glob("*.ledger")
    }


@pytest.fixture(scope="module")
def uninterrupted(workflow, tmp_path_factory) -> Path:
    store = tmp_path_factory.mktemp("whole") / "store"
    summary = complete(workflow, store, store.parent / "executions", "none")
    assert summary["rows_predicted"] == 3000
    return store


def predictions(records) -> set[str]:
    return {
        unit.replace("/", ".") for unit, record in records.items() if unit.startswith("rows/") and record.status == "ok"
    }


def wait_for_commits(store: Path, child: subprocess.Popen[str], number: int) -> None:
    """Wait until the predict stage has committed at least ``number`` units, and not all of them."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        assert child.poll() is None, child.communicate()[1]
        if (store / "predictions.ledger").exists():
            done = len(predictions(Ledger(str(store / "predictions.ledger")).records()))
            if done >= number:
                assert done < UNITS
                return
        time.sleep(0.02)
    pytest.fail("the predict stage did not get going")


@pytest.mark.slow
@pytest.mark.parametrize("cluster", ["none", "local"])
def test_a_driver_killed_in_mid_predict_repeats_nothing_that_was_committed(workflow, uninterrupted, tmp_path, cluster):
    store, before, after = tmp_path / "store", tmp_path / "before", tmp_path / "after"
    child = start(workflow, store, before, cluster, "predictions", "0.15")
    wait_for_commits(store, child, 8)
    children = psutil.Process(child.pid).children(recursive=True)
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    _, alive = psutil.wait_procs(children, timeout=15)
    assert not alive, "the cluster's processes outlived their driver"
    committed = predictions(Ledger(str(store / "predictions.ledger")).records())
    started = {unit for unit in executions(before, "predictions") if unit.startswith("rows")}
    assert committed < started, "nothing was in flight: the kill came too late to show anything"

    summary = complete(workflow, store, after, cluster)

    again = {unit: calls for unit, calls in executions(after, "predictions").items() if unit.startswith("rows")}
    whole = {f"rows.{number:08d}" for number in range(UNITS)}
    assert set(again) == whole - committed
    assert set(again.values()) == {1}
    assert not executions(after, "features")
    assert not executions(after, "model")
    (row,) = [stage for stage in summary["stages"] if stage["name"] == "predictions"]
    assert row["units"] - row["reused"] == len(again)
    assert content(store) == content(uninterrupted)
    assert identities(store) == identities(uninterrupted)


@pytest.mark.slow
def test_a_worker_killed_in_mid_predict_costs_what_was_in_flight(workflow, uninterrupted, tmp_path):
    store, folder = tmp_path / "store", tmp_path / "executions"
    complete(workflow, store, folder, "local", "predictions", "0.02", "rows/00000020", "1")
    calls = executions(folder, "predictions")
    assert calls["rows.00000020"] == 2
    rows = {unit: number for unit, number in calls.items() if unit.startswith("rows")}
    assert len(rows) == UNITS
    assert sum(rows.values()) - UNITS <= UNITS // 2
    assert content(store) == content(uninterrupted)
    assert identities(store) == identities(uninterrupted)


def test_ctrl_c_keeps_what_is_committed_and_the_same_command_goes_on(workflow, uninterrupted, tmp_path):
    store, before, after = tmp_path / "store", tmp_path / "before", tmp_path / "after"
    child = start(workflow, store, before, "none", "predictions", "0.1")
    wait_for_commits(store, child, 5)
    child.send_signal(signal.SIGINT)
    child.communicate(timeout=30)
    assert child.returncode != 0
    committed = predictions(Ledger(str(store / "predictions.ledger")).records())
    complete(workflow, store, after, "none")
    again = {unit for unit in executions(after, "predictions") if unit.startswith("rows")}
    assert again == {f"rows.{number:08d}" for number in range(UNITS)} - committed
    assert content(store) == content(uninterrupted)
    assert identities(store) == identities(uninterrupted)


def test_a_second_run_executes_nothing(workflow, uninterrupted, tmp_path):
    summary = complete(workflow, uninterrupted, tmp_path / "executions", "none")
    assert list((tmp_path / "executions").iterdir()) == []
    assert all(stage["units"] == stage["reused"] for stage in summary["stages"])


def test_two_runs_of_one_store_at_a_time_are_refused(workflow, tmp_path):
    store = tmp_path / "store"
    first = start(workflow, store, tmp_path / "a", "none", "predictions", "0.2")
    wait_for_commits(store, first, 1)
    second = start(workflow, store, tmp_path / "b", "none")
    _, errors = second.communicate(timeout=60)
    assert second.returncode != 0
    assert f"in use by run small (process {first.pid})" in errors
    first.kill()
    first.communicate()
