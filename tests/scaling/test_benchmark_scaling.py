"""The published comparison: its goals hold on the first seed, it is deterministic, and its verdicts can be no."""

from __future__ import annotations

from dataclasses import replace

import pytest

from benchmarks.scaling import (
    DEFAULTS,
    NO_HINTS,
    OURS,
    Cell,
    adaptive,
    goals,
    gpu_only,
    large_seconds,
    ours,
    simulate,
    systems,
    tables,
)
from benchmarks.scaling_work import FLAT, WORKLOADS


@pytest.fixture(scope="module")
def cells() -> dict[str, dict[str, Cell]]:
    """Ours and Adaptive's defaults on every workload, one seed."""
    chosen = {name: system for name, system in systems().items() if name in (OURS, DEFAULTS)}
    return {
        name: {work.name: simulate(work, name, system, [0]) for work in (*WORKLOADS, FLAT)}
        for name, system in chosen.items()
    }


def test_the_goals_against_the_defaults_hold_on_one_seed(cells):
    verdicts = {what: held for what, _, _, held in goals(cells, [work.name for work in WORKLOADS])}
    assert len(verdicts) == 9
    against_defaults = [held for what, held in verdicts.items() if "cheapest" not in what and "grid" not in what]
    assert against_defaults == [True] * 6


def test_a_worse_policy_is_told_to_be_worse(cells):
    work = WORKLOADS[0].name
    bad = {name: replace(cell, makespan=2 * cell.makespan, unused=9e9) for name, cell in cells[OURS].items()}
    verdicts = {what: held for what, _, _, held in goals({**cells, OURS: bad}, [work])}
    assert not verdicts["makespan against the defaults"]
    assert not verdicts["workers started and never used"]


def test_the_same_seed_gives_the_same_numbers(cells):
    for work in WORKLOADS[:2]:
        assert simulate(work, OURS, ours, [0]) == cells[OURS][work.name]
        assert simulate(work, DEFAULTS, adaptive(), [0]) == cells[DEFAULTS][work.name]
        assert simulate(work, OURS, ours, [1]) != cells[OURS][work.name]


def test_gpu_work_without_a_gpu_worker_is_served_by_us_and_never_by_them():
    served, never = gpu_only([0])
    assert served < 600
    assert never == float("inf")


def test_sixty_thousand_tasks_on_thousands_of_workers_are_simulated():
    _, used = large_seconds()
    assert used.task_seconds == 60_000 * 60.0
    assert used.started > 2000
    assert used.reruns == 0


def test_the_page_has_a_row_for_every_workload_and_system(cells):
    full = {**cells, NO_HINTS: cells[OURS], "operator-like": cells[DEFAULTS]}
    text = tables(full)
    for work in (*WORKLOADS, FLAT):
        assert f"| {work.name} |" in text
    for name in full:
        assert f"| {name} |" in text
