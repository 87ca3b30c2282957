"""The fold of events into progress: counts, passes, limits, rates, JSON."""

from __future__ import annotations

import dataclasses
import json
import math

import pytest
from dashboard_helpers import QUICK, TIMES, folded, stage_events
from hypothesis import given
from hypothesis import strategies as st

from daskml_scale import events
from daskml_scale.dashboard import bounds
from daskml_scale.dashboard.board import Runs, fold_runs
from daskml_scale.dashboard.progress import Progress, fold


def started(stage: str = "features", time: float = 100.0, run: str = "r") -> events.StageStarted:
    return events.StageStarted(time=time, run=run, stage=stage, stage_kind="features")


def planned(units: int, reused: int = 0, later: int = 0, time: float = 100.0) -> events.StagePlanned:
    return events.StagePlanned(
        time=time, run="r", stage="features", units=units, reused=reused, later=later, reasons={"new": units}
    )


def committed(units: int, failed: int = 0, time: float = 101.0) -> events.UnitsCommitted:
    return events.UnitsCommitted(time=time, run="r", stage="features", units=units, failed=failed, rows=10, seconds=2.0)


def finished(state: str, units: int, reused: int, time: float = 110.0) -> events.StageFinished:
    return events.StageFinished(
        time=time, run="r", stage="features", state=state, seconds=10.0, units=units, reused=reused, rows=77
    )


@QUICK
@given(st.lists(stage_events(), max_size=40), TIMES)
def test_counts_never_exceed_totals_and_derived_numbers_are_sane(stream: list[events.Event], now: float) -> None:
    progress = folded(*stream)
    assert 0.0 <= progress.fraction <= 1.0
    for stage in progress.stages:
        assert stage.done + stage.failed <= stage.units
        assert stage.ready + stage.failed <= stage.total
        assert stage.left >= 0
        assert 0.0 <= stage.fraction <= 1.0
        assert stage.rate(now) >= 0.0
        assert math.isfinite(stage.rate(now))
        eta = stage.eta(now)
        assert eta is None or (stage.state == "running" and 0 <= eta < math.inf)


@QUICK
@given(st.lists(stage_events(), max_size=30), TIMES)
def test_progress_survives_json(stream: list[events.Event], now: float) -> None:
    progress = folded(*stream)
    text = json.dumps(progress.to_dict(now), allow_nan=False)
    assert Progress.from_dict(json.loads(text)) == progress


@QUICK
@given(st.lists(stage_events(), max_size=30))
def test_folding_goes_on_from_json_as_if_nothing_happened(stream: list[events.Event]) -> None:
    half = len(stream) // 2
    progress = Progress.from_dict(json.loads(json.dumps(folded(*stream[:half]).to_dict())))
    for event in stream[half:]:
        progress = fold(progress, event)
    assert progress == folded(*stream)


def test_a_later_pass_adds_units_and_replaces_what_was_expected() -> None:
    one = folded(started(), planned(10, reused=3, later=20), committed(9, failed=1))
    stage = one.stage("features")
    assert stage is not None
    assert (stage.units, stage.done, stage.failed, stage.reused, stage.later) == (10, 9, 1, 3, 20)
    assert (stage.ready, stage.total, stage.left) == (12, 33, 20)
    stage = fold(one, planned(15, reused=2)).stage("features")
    assert stage is not None
    assert (stage.units, stage.done, stage.reused, stage.later) == (25, 9, 5, 0)
    assert stage.reasons == {"new": 25}
    assert (stage.rows, stage.seconds) == (10, 2.0)


def test_a_finished_stage_takes_the_final_counts_and_is_whole() -> None:
    stage = folded(started(), planned(10, later=5), committed(4), finished("ok", 12, 2)).stage("features")
    assert stage is not None
    assert (stage.state, stage.units, stage.done, stage.reused, stage.total) == ("ok", 10, 10, 2, 12)
    assert (stage.fraction, stage.rows, stage.wall, stage.rate(999), stage.eta(999)) == (1.0, 77, 10.0, 1.0, None)


def test_a_failed_stage_keeps_what_it_reached() -> None:
    stage = folded(started(), planned(10), committed(4, failed=1), finished("failed", 10, 0)).stage("features")
    assert stage is not None
    assert (stage.state, stage.done, stage.failed, stage.units, stage.fraction) == ("failed", 4, 1, 10, 0.5)


def test_starting_a_stage_or_a_run_again_counts_anew() -> None:
    progress = folded(started(), planned(10), committed(4), started(time=200.0), planned(6, reused=4))
    stage = progress.stage("features")
    assert stage is not None
    assert (stage.done, stage.units, stage.reused, stage.started) == (0, 6, 4, 200.0)
    again = events.RunStarted(time=300.0, run="r", workflow="w", store="s", stages=(("features", "features"),))
    progress = fold(progress, again)
    assert [stage.state for stage in progress.stages] == ["waiting"]
    assert (progress.started, progress.state) == (300.0, "running")


def test_the_end_of_a_run_interrupts_what_still_runs_and_late_events_do_not_revive_it() -> None:
    end = events.RunFinished(time=105.0, run="r", state="cancelled", seconds=5.0, exit_code=6, message="by hand")
    progress = folded(started(), planned(10), committed(4), end, committed(1))
    assert (progress.state, progress.seconds, progress.message) == ("cancelled", 5.0, "by hand")
    assert folded(started(), planned(10), committed(4), end).stages[0].state == "interrupted"


def test_unknown_events_and_events_of_other_runs_change_nothing() -> None:
    progress = folded(started(), planned(10))
    assert fold(progress, None) is progress
    assert fold(progress, events.from_dict({"event": "from_the_future", "time": 1.0})) is progress
    assert fold(progress, started(run="other")) is progress


def test_order_matters() -> None:
    assert folded(planned(5), started()) != folded(started(), planned(5))


def test_the_rate_follows_the_recent_speed_and_gives_the_time_left() -> None:
    stream = [started(time=0.5), planned(1000, time=0.5)]
    stream += [committed(2, time=0.5 + second) for second in range(1, 11)]
    stage = folded(*stream).stages[0]
    assert stage.rate(10.5) == pytest.approx(2.0, rel=0.05)
    assert stage.eta(10.5) == pytest.approx(490.0, rel=0.05)
    assert stage.rate(40.0) < 0.6, "a stage that stalls slows down"
    stream += [committed(10, time=10.5 + second) for second in range(1, 61)]
    assert 8.0 < folded(*stream).stages[0].rate(70.5) <= 10.0, "a faster cluster is noticed"


def test_the_rate_of_rare_commits_does_not_swing() -> None:
    stream = [started(time=1.0), planned(100, time=1.0), *(committed(2, time=1.0 + 300 * i) for i in range(1, 11))]
    stage = folded(*stream).stages[0]
    for now in (3001.0, 3150.0, 3290.0):
        assert stage.rate(now) == pytest.approx(2 / 300, rel=0.3)


def test_a_pause_between_passes_does_not_slow_the_rate() -> None:
    stream = [started(time=1.0), planned(10, time=1.0), committed(10, time=6.0), planned(100, time=500.0)]
    stage = folded(*stream, committed(10, time=505.0)).stages[0]
    assert stage.rate(505.0) == pytest.approx(2.0, rel=0.05)


def test_state_is_bounded() -> None:
    progress = Progress(run="r", state="running")
    for i in range(bounds.MAX_STAGES + 7):
        progress = fold(progress, started(stage=f"s{i}"))
    assert (len(progress.stages), progress.hidden, progress.stages[-1].name) == (500, 7, "s506")
    for i in range(bounds.MAX_NOTES + 5):
        progress = fold(progress, events.Warned(time=1.0, run="r", stage="s", message=f"{i} " + "x" * 9999))
    assert len(progress.warnings) == bounds.MAX_NOTES
    assert progress.warnings[-1].message.startswith("204 ")
    assert len(progress.warnings[-1].message) == bounds.MAX_TEXT
    reasons = {f"reason {i}": 1 for i in range(99)}
    progress = fold(progress, dataclasses.replace(planned(5), reasons=reasons))
    stage = progress.stage("features")
    assert stage is not None
    assert len(stage.reasons) == bounds.MAX_REASONS


def test_nonsense_numbers_from_another_process_are_taken_as_none() -> None:
    junk = events.from_dict(
        {
            "event": "units_committed",
            "time": float("nan"),
            "run": "r",
            "stage": "s" * 999,
            "units": "many",
            "failed": -4,
        }
    )
    progress = fold(Progress(), junk)
    assert json.dumps(progress.to_dict(5.0), allow_nan=False)
    assert (progress.stages[0].done, progress.stages[0].failed, len(progress.stages[0].name)) == (0, 0, bounds.MAX_NAME)


def test_the_newest_run_is_the_last_started_one_even_when_it_has_ended() -> None:
    runs = Runs()
    assert runs.newest is None
    for name, time in (("a", 1.0), ("b", 2.0), ("a", 3.0)):
        runs = fold_runs(runs, events.RunStarted(time=time, run=name, workflow=name, store="s"))
    runs = fold_runs(runs, events.RunFinished(time=4.0, run="a", state="failed", seconds=1.0, exit_code=1))
    assert runs.newest is runs.get("a")
    assert [item.run for item in runs.runs] == ["b", "a"]


def test_at_most_twenty_runs_are_kept_and_running_ones_stay() -> None:
    runs = Runs()
    for i in range(30):
        runs = fold_runs(runs, events.RunStarted(time=float(i + 1), run=f"r{i}", workflow="w", store="s"))
        if i != 3:
            runs = fold_runs(runs, events.RunFinished(time=50.0, run=f"r{i}", state="failed", seconds=1.0, exit_code=1))
    assert len(runs.runs) == bounds.MAX_RUNS
    assert runs.get("r3") is not None
    assert runs.runs[-1].run == "r29"


def test_work_without_a_run_ends_when_nothing_runs_and_becomes_the_newest_again() -> None:
    runs = fold_runs(Runs(), dataclasses.replace(started(), run=""))
    assert runs.runs[0].state == "running"
    runs = fold_runs(runs, dataclasses.replace(finished("ok", 3, 0), run=""))
    assert runs.runs[0].state == "succeeded"
    runs = fold_runs(runs, events.RunStarted(time=150.0, run="r", workflow="w", store="s"))
    runs = fold_runs(runs, dataclasses.replace(started(time=160.0), run=""))
    assert [item.run for item in runs.runs] == ["r", ""]


def test_a_workflow_without_an_id_lasts_until_it_says_that_it_ended() -> None:
    first = events.RunStarted(time=90.0, workflow="w", store="s", stages=(("features", "features"), ("model", "train")))
    runs = fold_runs(Runs(), first)
    for event in (started(run=""), dataclasses.replace(finished("ok", 3, 0), run="")):
        runs = fold_runs(runs, event)
    assert runs.runs[0].state == "running"  # one stage has ended, and none is at work
    runs = fold_runs(runs, started("model", time=120.0, run=""))
    assert (runs.runs[0].started, len(runs.runs[0].stages)) == (90.0, 2)
    runs = fold_runs(runs, events.RunFinished(time=130.0, state="succeeded", seconds=40.0, exit_code=0))
    assert (runs.runs[0].state, runs.runs[0].seconds) == ("succeeded", 40.0)
    runs = fold_runs(runs, started("other", time=140.0, run=""))
    assert (runs.runs[0].workflow, [stage.name for stage in runs.runs[0].stages]) == ("", ["other"])


def test_scaling_of_the_cluster_starts_no_run() -> None:
    event = events.Scaled(time=1.0, worker_class="cpu", have=1, need=2, backlog_seconds=9.0, reason="busy")
    runs = Runs()
    for _ in range(bounds.MAX_NOTES + 1):
        runs = fold_runs(runs, event)
    assert runs.runs == ()
    assert runs.scaled == (event,) * bounds.MAX_NOTES


@QUICK
@given(st.lists(st.one_of(stage_events("a"), stage_events("b"), stage_events("")), max_size=30))
def test_runs_fold_apart(stream: list[events.Event]) -> None:
    runs = Runs()
    for event in stream:
        runs = fold_runs(runs, event)
    for name in ("a", "b"):
        alone = folded(*(event for event in stream if event.run == name))
        assert (runs.get(name) or Progress()) == alone
