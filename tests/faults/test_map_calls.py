"""``dms.map(out=...)`` in a program that is struck: what is durable is not computed again; all results are right."""

from __future__ import annotations

import resource
import shutil
import signal
from pathlib import Path

import psutil
import pytest
from harness import (
    ITEMS,
    Draw,
    MapRun,
    PlainRun,
    Run,
    assert_equal,
    assert_only_lost_work_repeated,
    result_rows,
)

from daskml_scale.storage.results import Results
from daskml_scale.testing.faults import Fault, calls, executions

ALL = {f"items/{item:08d}" for item in range(ITEMS)}
WORKFLOW = f"""
version: 1
name: mapped
store: ./runs
cluster: none
stages:
  map: {{kind: map, function: 'map_work:work', over: {{range: {ITEMS}}}}}
"""
GUILTY = "items/00000041"
EXPECTED = [{"item": item, "square": item * item} for item in range(ITEMS)]
DELAY = 0.02

moments = pytest.mark.parametrize(
    "seed", [0, *(pytest.param(seed, marks=pytest.mark.faults_long) for seed in range(1, 20))]
)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The rows of a call that nothing happened to."""
    folder = tmp_path_factory.mktemp("whole")
    run = MapRun(folder, folder / "results", folder / "run", "map", "none", {})
    assert run.end().code == 0
    run.close()
    return sorted(result_rows(run.store))


def complete(run: Run, whole) -> None:
    """Check that every item is durable, once, and right."""
    assert sorted(result_rows(run.store)) == whole
    found = Results(str(run.store))
    assert found.complete
    assert found == EXPECTED


@moments
def test_a_killed_worker_costs_what_it_had_in_flight(seed, start_map, whole):
    draw = Draw("map worker", seed)
    run = start_map(delay=DELAY, moments=draw.moments(ITEMS))
    reached = run.reach()
    run.strike(signal.SIGKILL, draw.choice(run.workers()))
    run.go(reached)
    ended = run.end()
    assert ended.code == 0, ended.said
    complete(run, whole)
    assert_only_lost_work_repeated(run, ended.said)


@moments
@pytest.mark.parametrize("victim", ["driver", pytest.param("scheduler", marks=pytest.mark.faults_long)])
def test_the_same_call_goes_on_from_what_is_durable(victim, seed, start_map, whole):
    """A killed driver ends at once; one whose scheduler is killed either goes on or says that it cannot."""
    draw = Draw(f"map {victim}", seed)
    first = start_map(delay=DELAY, moments=draw.moments(ITEMS))
    reached = first.reach()
    victims = {"driver": [first.process.pid], "scheduler": first.schedulers()}
    first.strike(signal.SIGKILL, *victims[victim], costs=first.workers())
    first.go(reached)
    ended = first.end()
    assert ended.code in {"driver": (-signal.SIGKILL,), "scheduler": (0, 1)}[victim], ended.said
    assert "Traceback" not in ended.said
    kept = first.durable()
    if ended.code:
        assert kept < {noted.unit for noted in calls(first.folder)}, "nothing was in flight"
        second = start_map(cluster="none")
        assert second.end().code == 0
        assert executions(second.folder, "map") == dict.fromkeys(ALL - kept, 1)
    assert_only_lost_work_repeated(first, ended.said)
    complete(first, whole)


def test_an_item_that_ends_its_process_every_time_fails_alone(start_map, whole):
    run = start_map(delay=DELAY, faults=[Fault(GUILTY, "segfault")])
    ended = run.end()
    assert ended.code == 1
    assert "UnitsFailedError: 1 of 80 items failed" in ended.said
    assert "SIGSEGV" in ended.said
    rows = result_rows(run.store)
    assert [item for item, _, _, ok in rows if not ok] == [GUILTY]
    assert sorted(row for row in rows if row[0] != GUILTY) == [row for row in whole if row[0] != GUILTY]


@moments
def test_a_driver_that_may_not_write_any_more_stops_and_loses_nothing(seed, start_map, whole):
    draw = Draw("map limit", seed)
    first = start_map(delay=DELAY, moments=draw.moments(ITEMS // 2))
    reached = first.reach()
    driver = psutil.Process(first.process.pid)
    driver.rlimit(resource.RLIMIT_FSIZE, (0, driver.rlimit(resource.RLIMIT_FSIZE)[1]))
    first.go(reached)
    ended = first.end()
    assert ended.code == 1, ended.said
    assert "StoreError" in ended.said
    assert str(first.store) in ended.said
    kept = first.durable()
    begun = {noted.unit for noted in calls(first.folder)}
    assert kept < begun < ALL
    second = start_map(cluster="none")
    assert second.end().code == 0
    assert executions(second.folder, "map") == dict.fromkeys(ALL - kept, 1)
    complete(second, whole)


@moments
def test_a_map_stage_of_a_workflow_survives_its_workers(seed, start, tmp_path):
    """The command line as it is, on a user's function."""
    shutil.copy(Path(__file__).parent / "map_work.py", tmp_path)
    workflow = tmp_path / "mapped.yaml"
    workflow.write_text(WORKFLOW)
    quiet = start(workflow, "map", kind=PlainRun, cluster="none", store=tmp_path / "whole")
    assert quiet.end().code == 0
    draw = Draw("map stage", seed)
    run = start(workflow, "map", kind=PlainRun, delay=DELAY, moments=draw.moments(ITEMS))
    reached = run.reach()
    run.strike(signal.SIGKILL, *run.workers())
    run.go(reached)
    ended = run.end()
    assert ended.code == 0, ended.said
    assert_equal(run.store, quiet.store)
    assert_only_lost_work_repeated(run, ended.said)
