"""Units that do wrong: they alone are set aside or fail, whatever they do to their workers; the others finish."""

from __future__ import annotations

import pytest
from harness import (
    CLUSTER,
    DRIVER_MEMORY,
    MEMORY,
    UNITS,
    assert_committed_once,
    assert_equal,
    assert_ran,
    duplicated,
    repeated,
    unfinished,
)

from daskml_scale.testing.faults import Fault, executions

STAGE = "table"
GUILTY = "rows/00000041"
ALL = {"scan", *(f"rows/{number:08d}" for number in range(UNITS))}
LAST = f"rows/{UNITS - 1:08d}"
DELAY = 0.02
DEATHS = 3
"""Of a unit in a child process until it is set aside; it may have ended a worker before."""
IN_FLIGHT = UNITS // 2
"""More units than the window of two workers holds: about 10 a task, 4 tasks, and what waits for its commit."""


def guilty_alone(run, whole):
    """Check that all units but the guilty one are committed as ever, each once."""
    assert set(unfinished(run.store, STAGE)) == {GUILTY}
    assert_equal(run.store, whole, but={STAGE: [GUILTY]})
    assert_committed_once(run, ALL)


@pytest.mark.parametrize("does", ["segfault", pytest.param("kill", marks=pytest.mark.faults_long)])
def test_a_unit_that_ends_its_process_every_time_is_quarantined(does, table, whole, start):
    run = start(table, STAGE, delay=DELAY, faults=[Fault(GUILTY, does)])
    ended = run.end()
    assert ended.code == 4, ended.said
    assert ended.summary["state"] == "partial"
    guilty_alone(run, whole)
    extra = duplicated(ended.said)
    assert DEATHS <= executions(run.folder, STAGE)[GUILTY] <= DEATHS + 1 + extra
    again = repeated(run)
    assert max(again.values()) <= DEATHS + 1 + extra
    assert again.total() - again[GUILTY] <= IN_FLIGHT + extra, ended.said
    assert GUILTY in ended.said


def test_a_unit_that_ends_its_process_once_is_not_to_blame(table, whole, start):
    run = start(table, STAGE, delay=DELAY, faults=[Fault(GUILTY, "kill", times=1)])
    ended = run.end()
    assert ended.code == 0, ended.said
    assert_equal(run.store, whole)
    assert_committed_once(run, ALL)
    assert_ran(run, GUILTY, 2, ended.said)
    assert max(repeated(run).values()) <= 1 + duplicated(ended.said), ended.said
    assert repeated(run).total() <= IN_FLIGHT + duplicated(ended.said)


def test_two_units_that_end_their_processes_are_both_found(table, whole, start):
    other = "rows/00000042"
    run = start(table, STAGE, delay=DELAY, faults=[Fault(GUILTY, "segfault"), Fault(other, "kill")])
    ended = run.end()
    assert ended.code == 4, ended.said
    assert set(unfinished(run.store, STAGE)) == {GUILTY, other}
    assert_equal(run.store, whole, but={STAGE: [GUILTY, other]})
    assert_committed_once(run, ALL)


def test_a_unit_that_raises_fails_alone_and_at_once(table, whole, start):
    run = start(table, STAGE, delay=DELAY, faults=[Fault(GUILTY, "raise")])
    ended = run.end()
    assert ended.code == 1, ended.said
    guilty_alone(run, whole)
    assert repeated(run).total() <= duplicated(ended.said), ended.said
    error = unfinished(run.store, STAGE)[GUILTY]
    assert f"ScriptedError: unit {GUILTY} was told to raise" in error
    assert "in _raise" in error
    assert GUILTY in ended.said
    assert "ScriptedError" in ended.said


def test_a_unit_that_raised_runs_again_in_the_next_run_and_nothing_else_does(table, whole, start):
    start(table, STAGE, cluster="none", faults=[Fault(GUILTY, "raise")]).end()
    run = start(table, STAGE, cluster="none")
    assert run.end().code == 0
    assert executions(run.folder, STAGE) == {GUILTY: 1}
    assert_equal(run.store, whole)


def test_a_unit_that_exceeds_the_memory_of_its_worker_is_quarantined(table, whole, start):
    run = start(table, STAGE, delay=DELAY, faults=[Fault(GUILTY, "swell", amount=1.5 * MEMORY)])
    ended = run.end()
    assert ended.code == 4, ended.said
    guilty_alone(run, whole)
    assert "memory" in unfinished(run.store, STAGE)[GUILTY]
    extra = duplicated(ended.said)
    assert executions(run.folder, STAGE)[GUILTY] <= DEATHS + 1 + extra
    assert repeated(run).total() <= IN_FLIGHT + DEATHS + extra, ended.said


def test_a_unit_fifty_times_as_slow_runs_a_second_time_and_the_first_end_counts(table, whole, start):
    """The last unit, so that a worker is idle; its second call is quick."""
    delay = 0.08
    run = start(table, STAGE, delay=delay, faults=[Fault(LAST, "dawdle", times=1, amount=50 * delay)])
    ended = run.end()
    assert ended.code == 0, ended.said
    assert executions(run.folder, STAGE)[LAST] >= 2
    assert_ran(run, LAST, 1, ended.said)
    assert_committed_once(run, ALL)
    assert_equal(run.store, whole)


def test_a_call_that_hangs_is_overtaken(table, whole, start):
    """The 40th call holds for ever: only a second call of its unit can end the run."""
    run = start(table, STAGE, delay=DELAY, moments=("call.40",))
    reached = run.reach()
    ended = run.end()
    assert ended.code == 0, ended.said
    assert executions(run.folder, STAGE)[reached.unit] >= 2
    assert_ran(run, reached.unit, 1, ended.said)
    assert_committed_once(run, ALL)
    assert_equal(run.store, whole)


def test_a_result_too_large_for_the_driver_fails_its_own_unit(table, whole, start, tmp_path):
    """A quarter of what the driver believes to have is 325 MiB; the result has 334, and its worker can send it."""
    one = tmp_path / "one.yaml"
    one.write_text(CLUSTER.replace("min: 2, max: 2", "min: 1, max: 1").replace("700MiB", "1200MiB"))
    guilty = [Fault(GUILTY, "large", amount=350e6)]
    run = start(table, STAGE, cluster=str(one), environ={DRIVER_MEMORY: "1300"}, delay=DELAY, faults=guilty)
    ended = run.end()
    assert ended.code == 1, ended.said
    guilty_alone(run, whole)
    assert repeated(run).total() <= duplicated(ended.said), ended.said
    error = unfinished(run.store, STAGE)[GUILTY]
    assert "TooLarge" in error
    assert "returned 334 MiB" in error
