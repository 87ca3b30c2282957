"""Processes of a run are killed or stopped at drawn moments: the run ends as if nothing had happened.

Three moments per case; twenty with ``-m faults_long``.
"""

from __future__ import annotations

import os
import signal

import pytest
from harness import UNITS, Draw, assert_committed_once, assert_equal, assert_only_lost_work_repeated, durable

from daskml_scale.testing.faults import calls, commits, executions

STAGE = "table"
ALL = {"scan", *(f"rows/{number:08d}" for number in range(UNITS))}
DELAY = 0.02

moments = pytest.mark.parametrize(
    "seed", [*range(3), *(pytest.param(seed, marks=pytest.mark.faults_long) for seed in range(3, 23))]
)


def whole_again(run, whole):
    """Check the end of a run that was struck and must not show it."""
    ended = run.end()
    assert ended.code == 0, ended.said
    assert_equal(run.store, whole)
    assert_committed_once(run, ALL)
    assert_only_lost_work_repeated(run, ended.said)
    return ended


@moments
def test_a_killed_worker_costs_what_it_had_in_flight(seed, table, whole, start):
    draw = Draw("worker", seed)
    run = start(table, STAGE, delay=DELAY, moments=draw.moments(UNITS))
    reached = run.reach()
    run.strike(signal.SIGKILL, draw.choice(run.workers()))
    run.go(reached)
    whole_again(run, whole)


@moments
def test_all_workers_killed_at_once_are_replaced(seed, table, whole, start):
    draw = Draw("all workers", seed)
    run = start(table, STAGE, delay=DELAY, moments=draw.moments(UNITS))
    run.reach()
    run.strike(signal.SIGKILL, *run.workers())
    whole_again(run, whole)


@moments
def test_a_killed_scheduler_is_replaced_and_the_ledger_tells_where_to_go_on(seed, table, whole, start):
    draw = Draw("scheduler", seed)
    run = start(table, STAGE, delay=DELAY, moments=draw.moments(UNITS))
    reached = run.reach()
    run.strike(signal.SIGKILL, *run.schedulers(), costs=run.workers())
    run.go(reached)
    ended = whole_again(run, whole)
    assert ended.said.count("the scheduler is gone") == 1


@moments
def test_a_killed_driver_loses_nothing_that_was_durable(seed, table, whole, start):
    draw = Draw("driver", seed)
    first = start(table, STAGE, delay=DELAY, moments=draw.moments(UNITS))
    first.reach()
    first.strike(signal.SIGKILL, first.process.pid)
    assert first.end().code == -signal.SIGKILL
    kept = durable(first.store, STAGE)
    assert kept < {noted.unit for noted in calls(first.folder)}, "nothing was in flight"

    second = start(table, STAGE, cluster="none")

    ended = second.end()
    assert ended.code == 0, ended.said
    assert_equal(second.store, whole)
    assert executions(second.folder, STAGE) == dict.fromkeys(ALL - kept, 1)
    assert_committed_once(second, ALL - kept)
    assert {noted.unit for noted in commits(first.folder)} <= kept
    (row,) = ended.summary["stages"]
    assert (row["units"], row["reused"]) == (len(ALL), len(kept))


@pytest.mark.parametrize("moment", ["call.1", "commit.1", "committed.1", "commit.2", "committed.2", "finish.1"])
def test_a_driver_killed_around_a_commit_loses_nothing_that_was_durable(moment, table, whole, start):
    """In process: what was computed for a commit that did not happen is computed again, and nothing else."""
    first = start(table, STAGE, cluster="none", delay=DELAY, moments=(moment,))
    first.reach()
    first.strike(signal.SIGKILL, first.process.pid)
    assert first.end().code == -signal.SIGKILL
    kept = durable(first.store, STAGE)
    assert (moment in ("call.1", "commit.1")) == (kept == set())
    assert (moment == "finish.1") == (kept == ALL)
    second = start(table, STAGE, cluster="none")
    assert second.end().code == 0
    assert executions(second.folder, STAGE) == dict.fromkeys(ALL - kept, 1)
    assert_equal(second.store, whole)


@moments
def test_a_stopped_worker_holds_nobody_up(seed, table, whole, start):
    """Its units run elsewhere once it is known how long units take: not before the scan and a probe are done."""
    draw = Draw("stop", seed)
    run = start(table, STAGE, delay=DELAY, moments=draw.moments(UNITS, first=5))
    reached = run.reach()
    run.strike(signal.SIGSTOP, draw.choice(run.workers()))
    run.go(reached)
    whole_again(run, whole)


@pytest.mark.parametrize("seed", [0])
def test_a_worker_that_wakes_up_again_commits_nothing_twice(seed, table, whole, start):
    draw = Draw("wake", seed)
    run = start(table, STAGE, delay=DELAY, moments=draw.moments(UNITS // 2, 2))
    reached = run.reach()
    (other,) = set(run.workers()) - {reached.pid}
    run.strike(signal.SIGSTOP, other)
    run.go(reached)
    reached = run.reach()
    os.kill(other, signal.SIGCONT)
    run.go(reached)
    whole_again(run, whole)


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.faults_long) for seed in range(1, 20))])
def test_one_blow_after_another(seed, table, whole, start):
    """Three blows to a run: a worker, all workers, or the scheduler."""
    draw = Draw("blows", seed)
    run = start(table, STAGE, delay=DELAY, moments=draw.moments(UNITS, 3))
    for _ in range(3):
        reached = run.reach()
        workers = run.workers()
        blow = draw.choice(["worker", "all workers", "scheduler"])
        if blow == "scheduler":
            run.strike(signal.SIGKILL, *run.schedulers(), costs=workers)
        else:
            run.strike(signal.SIGKILL, *(workers if blow == "all workers" else workers[:1]))
        run.go(reached)
    whole_again(run, whole)


def test_when_all_workers_are_stopped_the_watchdog_restarts_them(table, whole, start):
    draw = Draw("watchdog", 0)
    environ = {"DASK_DASKML_SCALE__STALL_SECONDS": "3", "DASK_DISTRIBUTED__DEPLOY__LOST_WORKER_TIMEOUT": "1s"}
    run = start(table, STAGE, environ=environ, delay=DELAY, moments=draw.moments(UNITS))
    run.reach()
    run.strike(signal.SIGSTOP, *run.workers())
    ended = whole_again(run, whole)
    assert "restarted" in ended.said
