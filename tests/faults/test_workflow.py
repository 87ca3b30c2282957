"""The processes of a whole workflow are killed in mid-predict; the run goes on and nothing is lost or repeated."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from harness import Run, assert_equal, assert_only_lost_work_repeated, assert_ran, durable

from daskml_scale.testing.faults import calls, executions

STAGE = "predictions"
UNITS = {f"rows/{number:08d}" for number in range(60)}
"""Of the stage's last pass."""


@pytest.fixture(scope="module")
def uninterrupted(workflow, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    run = Run(workflow, folder / "store", folder / "run", STAGE, "none", {})
    ended = run.end()
    run.close()
    assert ended.code == 0, ended.said
    assert ended.summary["rows_predicted"] == 3000
    return folder / "store"


@pytest.fixture(scope="module")
def moment(uninterrupted) -> str:
    """A call in the middle of the last pass of the stage."""
    return f"call.{len(durable(uninterrupted, STAGE)) - len(UNITS) // 2}"


@pytest.fixture
def predict(uninterrupted, workflow, start, tmp_path) -> Callable[..., Run]:
    """Start runs of the workflow whose earlier stages are done."""
    skipped = shutil.ignore_patterns(f"{STAGE}.*", "summary.json", ".lock")
    shutil.copytree(uninterrupted, tmp_path / "store", ignore=skipped)

    def begin(**script: Any) -> Run:
        return start(workflow, STAGE, **script)

    return begin


def finished(run: Run, whole: Path, kept: set[str]) -> None:
    """Check the run after a broken one: it does what was not durable, once, and nothing else."""
    ended = run.end()
    assert ended.code == 0, ended.said
    assert executions(run.folder, STAGE) == dict.fromkeys(durable(whole, STAGE) - kept, 1)
    rows = {row["name"]: row["units"] - row["reused"] for row in ended.summary["stages"]}
    assert rows == {**dict.fromkeys(rows, 0), STAGE: len(durable(whole, STAGE) - kept)}
    assert_equal(run.store, whole)


@pytest.mark.slow
@pytest.mark.parametrize("place", ["none", "local"])
def test_a_driver_killed_in_mid_predict_repeats_nothing_that_was_durable(
    uninterrupted, predict, cluster, moment, place
):
    where = cluster if place == "local" else "none"
    first = predict(cluster=where, delay=0.03, moments=(moment,))
    first.reach()
    first.strike(signal.SIGKILL, first.process.pid)
    assert first.end().code == -signal.SIGKILL
    kept = durable(first.store, STAGE)
    assert kept < {noted.unit for noted in calls(first.folder)}, "nothing was in flight"
    finished(predict(cluster=where), uninterrupted, kept)


@pytest.mark.slow
def test_a_worker_killed_in_mid_predict_costs_what_it_had_in_flight(uninterrupted, predict, moment):
    run = predict(delay=0.03, moments=(moment,))
    reached = run.reach()
    run.strike(signal.SIGKILL, reached.pid)
    ended = run.end()
    assert ended.code == 0, ended.said
    assert_only_lost_work_repeated(run, ended.said)
    assert_ran(run, reached.unit, 2, ended.said)
    assert_equal(run.store, uninterrupted)


def test_ctrl_c_keeps_what_is_committed_and_the_same_command_goes_on(uninterrupted, predict, moment):
    first = predict(cluster="none", delay=0.1, moments=(moment,))
    first.reach()
    first.process.send_signal(signal.SIGINT)
    assert first.end().code == 130
    finished(predict(cluster="none"), uninterrupted, durable(first.store, STAGE))


def test_a_second_run_executes_nothing(uninterrupted, predict):
    run = predict(cluster="none", store=uninterrupted)
    ended = run.end()
    assert ended.code == 0
    assert calls(run.folder) == []
    assert all(stage["units"] == stage["reused"] for stage in ended.summary["stages"])


def test_two_runs_of_one_store_at_a_time_are_refused(predict):
    first = predict(cluster="none", moments=("call.1",))
    first.reach()
    ended = predict(cluster="none").end()
    assert ended.code == 3
    assert f"(process {first.process.pid})" in ended.said
    first.process.kill()
