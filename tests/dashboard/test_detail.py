"""Chunk maps and trials: what each cell says, limits, JSON, and a day of events in bounded memory."""

from __future__ import annotations

import json
import re
import tracemalloc
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import daskml_scale.dashboard
from daskml_scale import events
from daskml_scale.dashboard import looks
from daskml_scale.dashboard.alerts import alerts
from daskml_scale.dashboard.chunks import ChunkMap
from daskml_scale.dashboard.detail import MAX_KEPT, Detail
from daskml_scale.dashboard.plugin import WorkflowPlugin
from daskml_scale.dashboard.progress import Progress, StageProgress
from daskml_scale.dashboard.stage import next_stage
from daskml_scale.dashboard.trials import MAX_TRIALS, Trials
from daskml_scale.runs.report import STYLE

GRID = events.CellGrid("rows", (3, 5), (2, 2))


def test_a_cell_says_what_its_units_became() -> None:
    found = ChunkMap(GRID, todo=(4, 4, 2, 0, 2, 1))
    found.take([events.Cell(0, 1, 0, 0, 2.0, "a", "w", "new"), events.Cell(1, 4, 0, 0, 2.0, "b", "w", "new")])
    found.take([events.Cell(2, 1, 1, 0, 2.0, "c", "w", "ValueError: x"), events.Cell(4, 2, 0, 1, 1.0, "d", "w", "new")])
    found.take([events.Cell(2, 1, 0, 0, 2.0, "later", "w", "new"), events.Cell(99, 1, 0, 0, 1.0, "z", "w", "new")])
    assert found.states() == "pcfrqt"
    cell = found.cell(2)
    assert (cell["unit"], cell["why"], cell["ranges"], cell["units"]) == ("c", "ValueError: x", [[0, 1], [4, 4]], 2)
    assert found.cell(-1) == found.cell(6) == {}
    assert ChunkMap.from_dict(json.loads(json.dumps(found.to_dict()))).to_dict() == found.to_dict()
    assert sum(found.sizes) == 15


@pytest.mark.parametrize("shape", [(), (0,), (20_000,), (3, 3)])
def test_a_grid_that_is_none_or_too_large_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"cells|grid"):
        ChunkMap(events.CellGrid("x", shape, (1,)))


@given(st.permutations([(trial, rung, split) for trial in range(3) for rung in range(2) for split in range(2)]))
def test_the_best_trial_does_not_depend_on_the_order_of_its_splits(order: list[tuple[int, int, int]]) -> None:
    found = Trials()
    for trial, rung, split in order:
        found.take([events.Score(trial, rung, split, 2, trial + rung + split / 10, f"p={trial}")], 1.0)
    shown = found.shown()
    assert (shown["done"], shown["failed"]) == (6, 0)
    assert shown["best"] == pytest.approx(3.05)
    assert [(row["trial"], row["rung"]) for row in shown["top"]] == [(2, 1), (1, 1), (0, 1)]
    assert [(row["rung"], row["done"]) for row in shown["rungs"]] == [(0, 3), (1, 3)]
    assert Trials.from_dict(json.loads(json.dumps(found.to_dict()))).shown() == shown


def test_a_failed_trial_is_never_the_best_and_many_trials_are_bounded() -> None:
    found = Trials()
    found.take([events.Score(0, 0, 0, 1, None, "bad"), events.Score(1, 0, 0, 1, float("nan"), "nan")], 1.0)
    assert (found.shown()["best"], found.shown()["failed"]) == (None, 2)
    found.take([events.Score(trial, 0, 0, 1, trial / 1e6, "x" * 999) for trial in range(2, 20_000)], 2.0)
    assert len(found.rows) <= MAX_TRIALS
    assert found.shown()["done"] == 20_000
    assert found.shown()["top"][0]["trial"] == 19_999


def day(hours: int, units: int = 10, commits: int = 30) -> list[events.Event]:
    """Return what a busy driver tells in some hours: runs, stages, commits, scaling and warnings."""
    told: list[events.Event] = []
    grid = events.CellGrid("rows", (10_000,), (1,))
    for hour in range(hours):
        run, base = f"run-{hour}", 3600.0 * hour
        told.append(events.RunStarted(time=base, run=run, workflow="w", store="s", stages=(("a", "map"), ("b", "map"))))
        for stage in "ab":
            told.append(events.StageStarted(time=base, run=run, stage=stage, stage_kind="map"))
            told.append(events.StagePlanned(time=base, run=run, stage=stage, units=10_000, reused=0, cells=grid))
            for second in range(commits):
                rows = tuple(
                    events.Cell((second * units + at) % 10_000, 1, 0, 0, 0.1, f"rows/{at:08d}", "cpu-0", "new")
                    for at in range(units)
                )
                score = events.Score(second, 0, 0, 1, second / 1e3, "x=1")
                told.append(
                    events.UnitsCommitted(
                        time=base + second, run=run, stage=stage, units=units, cells=rows, scores=(score,)
                    )
                )
            told.append(events.Warned(time=base, run=run, stage=stage, message=f"{hour} " + "w" * 2000))
        told.append(events.Scaled(time=base, worker_class="cpu", have=1, need=2, backlog_seconds=1.0, reason="r" * 900))
    return told


def test_a_day_of_events_leaves_memory_flat() -> None:
    plugin = WorkflowPlugin()
    stream = [event.to_dict() for event in day(3)]  # 24 hours in all

    def replay(hours: range) -> None:
        for number in hours:
            for item in stream:
                run = item["run"]
                plugin.log_event(events.TOPIC, {**item, "run": f"{run}-{number}"} if run else item)

    tracemalloc.start()
    try:
        replay(range(5))  # 30 stages and 15 runs: what is kept is full
        before = tracemalloc.get_traced_memory()[0]
        replay(range(5, 8))
        after = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert plugin.ignored == 0
    assert len(plugin.detail.maps) == MAX_KEPT
    assert after < before * 1.25 + 1_000_000


def test_junk_details_are_counted_and_ignored() -> None:
    plugin = WorkflowPlugin()
    for junk in ({"detail": 5}, {"detail": {"maps": [["r", "s", {}]]}}, {"of": 7}, {"detail": {"trials": [[1]]}}):
        plugin.log_event(events.TOPIC, junk)
    bad = events.StagePlanned(time=1.0, run="r", stage="s", units=1, reused=0).to_dict()
    plugin.log_event(events.TOPIC, {**bad, "cells": ["x", [10**9], [1]]})
    assert plugin.ignored >= 4
    assert not plugin.detail.maps


def test_what_a_publisher_knows_is_adopted_by_a_new_scheduler() -> None:
    one = Detail()
    for event in day(1):
        one.take(event)
    other = Detail()
    other.adopt(json.loads(json.dumps(one.to_dict())))
    assert other.to_dict() == one.to_dict()


def commit(time: float, quarantined: int) -> events.UnitsCommitted:
    return events.UnitsCommitted(time=time, stage="p", units=1, quarantined=quarantined)


def test_alerts_say_what_needs_a_look() -> None:
    stage = StageProgress("p", state="running", units=9, failed=1, quarantined=2)
    warned = (
        events.Warned(time=1.0, stage="p", message="unit x is stuck; its worker was restarted"),
        events.Warned(time=2.0, stage="m", message="PSI of dep_delay is 0.4"),
    )
    progress = Progress(run="r", state="running", stages=(stage,), warnings=warned, updated=10.0)
    capped = events.Scaled(
        time=900.0, worker_class="cpu", have=4, need=4, backlog_seconds=9.0, reason="at its maximum", rule="max"
    )
    found = alerts(progress, [capped], 1000.0, 0, {"units": 9})
    assert [one.kind for one in found] == ["failed", "quarantine", "stuck", "stuck", "cap", "drift", "stuck"]
    assert found[1].text == "rows without a result in 2 units"
    rising = replace(progress, stages=(next_stage(stage, commit(1000.0, quarantined=1)),))
    told = [alerts(rising, [], now, 1, None)[1].text for now in (1060.0, 2000.0)]
    assert told == ["rows without a result in 3 units, rising", "rows without a result in 3 units"]
    assert alerts(Progress(), [], 1000.0, 0, None) == []
    quiet = replace(progress, state="succeeded", warnings=(), stages=())
    assert alerts(quiet, [replace(capped, time=0.0)], 1000.0, 0, None) == []


def test_workers_are_summed_by_class_and_cost_follows_the_prices() -> None:
    row = {"threads": 2, "busy": 1, "memory": 50, "limit": 100, "gpu": None, "status": "running"}
    workers = [{**row, "name": f"cpu-{n}", "memory": n} for n in range(60)] + [{**row, "name": "gpu-0", "gpu": 0.5}]
    found = looks.fleet(workers)
    assert [(one["class"], one["workers"], one["gpu"]) for one in found["classes"]] == [
        ("cpu", 60, None),
        ("gpu", 1, 0.5),
    ]
    assert (found["count"], len(found["workers"]), found["workers"][0]["name"]) == (61, looks.MAX_WORKERS, "cpu-59")
    predicted = StageProgress("p", "predict", state="ok", rows=2000, cost=0.5, units=1, done=1)
    paid = looks.cost(Progress(state="running", stages=(predicted,)), found["classes"], {"cpu": 0.1, "gpu": 2.0}, 1.0)
    assert paid == {"spent": 0.5, "rate": pytest.approx(8.0), "forecast": None, "per_thousand": 0.25}


def luminance(colour: str) -> float:
    digits = colour.lstrip("#")
    digits = "".join(2 * digit for digit in digits) if len(digits) == 3 else digits
    parts = [int(digits[at : at + 2], 16) / 255 for at in (0, 2, 4)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_texts_and_lines_can_be_read_in_light_and_dark() -> None:
    page = (Path(daskml_scale.dashboard.__file__).parent / "page.css").read_text()
    for style, texts in ((page, ("ink", "soft", "link")), (STYLE, ("ink", "soft"))):
        light, dark = (
            dict(re.findall(r"--(\w+):\s*(#[0-9a-fA-F]{3,6})", block))
            for block in re.findall(r":root\s*\{([^}]*)\}", style)
        )
        for colours in (light, dark):
            for text in texts:
                for back in ("back", "card"):
                    assert contrast(colours[text], colours[back]) >= 4.5, (text, back, colours)
            for one, other in (("q", "f"), ("q", "c"), ("f", "c")) if "q" in colours else (("two", "four"),):
                assert colours[one] != colours[other], "quarantined, failed and committed are three things"
            for line in ("one", "two", "three", "four", "line") if "one" in colours else ("running", "c", "f", "q"):
                assert contrast(colours[line], colours["back"]) >= 3, (line, colours)
    for colour in re.findall(r"\.pill[^{]*\{[^}]*background: (#\w+)", page):
        assert contrast("#ffffff", colour) >= 4.5, colour
