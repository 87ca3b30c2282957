"""Progress while a run works: what plain lines say and when, what fits a terminal, streams that break."""

from __future__ import annotations

import io
import os
import re
from contextlib import suppress
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from daskml_scale.dashboard.progress import Progress, fold
from daskml_scale.events import (
    Event,
    RunFinished,
    RunStarted,
    StageFinished,
    StagePlanned,
    StageStarted,
    UnitsCommitted,
    Warned,
)
from daskml_scale.runs.live import LINE_EVERY, STOPPING, Bars, Lines, Silent, picture, view, window

T = 1e9


def script(count: int = 3) -> list[Event]:
    """A run of ``count`` stages of 100 units, one unit a second in commits of two."""
    stages = tuple((f"s{n}", "ingest") for n in range(count))
    events: list[Event] = [RunStarted(time=T, run="w-1", workflow="w", store="/data/w", stages=stages)]
    now = T
    for name, kind in stages:
        events.append(StageStarted(time=now, stage=name, stage_kind=kind))
        events.append(StagePlanned(time=now, stage=name, units=90, reused=10))
        for _ in range(45):
            now += 2
            events.append(UnitsCommitted(time=now, stage=name, units=2, rows=20))
        events.append(StageFinished(time=now, stage=name, state="ok", seconds=90.0, units=100, reused=10, rows=1000))
    return [*events, RunFinished(time=now, state="succeeded", seconds=now - T, exit_code=0)]


def lines_of(events: list[Event]) -> list[str]:
    stream = io.StringIO()
    with Lines(stream) as shown:
        for event in events:
            shown.sink(event)
    return [text.split(" ", 1)[1] for text in stream.getvalue().splitlines()]


def test_plain_lines_are_one_at_start_and_end_and_one_per_ten_seconds():
    lines = lines_of(script(2))
    assert lines[0] == "w-1: 2 stages -> /data/w"
    assert lines[1] == "s0: started (ingest)"
    assert re.fullmatch(r"s0: 20/100 units, 1/s, 1:\d\d left", lines[2])
    assert [line.split(",")[0] for line in lines[2:11]] == [f"s0: {n}/100 units" for n in range(20, 101, 10)]
    assert lines[11] == "s0: done in 1:30 min, 100 units (10 reused), 1,000 rows"
    assert lines[12] == "s1: started (ingest)"
    assert len(lines) == 1 + 2 * 11


@settings(deadline=None)
@given(st.lists(st.tuples(st.floats(0, 30), st.integers(0, 3)), max_size=60))
def test_unit_lines_are_never_closer_than_ten_seconds(steps):
    stream, now = io.StringIO(), T
    shown = Lines(stream)
    shown.sink(StageStarted(time=now, stage="s", stage_kind="k"))
    printed = [now]
    for wait, units in steps:
        now += wait
        before = stream.tell()
        shown.sink(UnitsCommitted(time=now, stage="s", units=units))
        if stream.tell() > before:
            printed.append(now)
    assert all(later - earlier >= LINE_EVERY for earlier, later in pairwise(printed))


def test_why_units_run_again_is_told_at_once_and_new_ones_are_no_news():
    lines = lines_of(
        [
            StageStarted(time=T, stage="s", stage_kind="k"),
            StagePlanned(time=T, stage="s", units=5, reused=2, reasons={"code changed": 3, "new": 2}),
            StagePlanned(time=T, stage="s", units=5, reused=0, reasons={"new": 5}),
        ]
    )
    assert lines == ["s: started (k)", "s: 5 units to run (3 code changed, 2 new), 2 reused"]


def test_failures_and_warnings_are_lines():
    lines = lines_of(
        [
            StageStarted(time=T, stage="s", stage_kind="k"),
            StagePlanned(time=T, stage="s", units=5, reused=0),
            Warned(time=T, stage="s", message="s: 3 rows are odd"),
            Warned(time=T, stage="", message="x-cpu-2 waits"),
            UnitsCommitted(time=T + 11, stage="s", units=1, failed=2),
            StageFinished(time=T + 12, stage="s", state="failed", seconds=12.0, units=5, reused=0),
        ]
    )
    assert lines[1] == "warning: s: 3 rows are odd"
    assert lines[2] == "warning: x-cpu-2 waits"  # of a cluster, and of no stage
    assert lines[3].startswith("s: 1/5 units, 2 failed, ")
    assert lines[4].startswith("s: failed after 12 s, ")


@settings(deadline=None)
@given(st.lists(st.sampled_from(["ok", "failed", "running", "waiting"]), max_size=60), st.integers(3, 40))
def test_the_window_fits_and_holds_the_first_unfinished_stage(states, height):
    found = window(states, height)
    assert found.before + found.shown + found.after == len(states)
    assert min(found.before, found.after) >= 0
    assert found.shown + (found.before > 0) + (found.after > 0) <= height
    active = next((n for n, state in enumerate(states) if state in ("running", "waiting")), None)
    if active is not None:
        assert found.before <= active < found.before + found.shown


@settings(deadline=None)
@given(st.integers(0, 200), st.integers(8, 40), st.integers(1, 30), st.booleans())
def test_the_picture_fits_the_terminal(upto, height, stages, stopping):
    progress = Progress()
    for event in script(stages)[:upto]:
        progress = fold(progress, event)
    console = Console(file=io.StringIO(), width=80, height=height, color_system=None, force_terminal=True)
    with console.capture() as captured:
        console.print(picture(progress, T + 500, height, stopping=stopping))
    lines = captured.get().splitlines()
    assert len(lines) <= height
    assert max(map(len, lines)) <= 80
    assert (STOPPING in captured.get()) is stopping


class Broken(io.StringIO):
    """A stream whose reader is gone."""

    def write(self, text: str) -> int:
        raise BrokenPipeError(32, "Broken pipe")


@pytest.mark.parametrize("shown", [Lines(Broken()), Silent()])
def test_a_broken_stream_does_not_break_the_run(shown):
    with shown:
        for event in script(1):
            shown.sink(event)
        shown.note("x")
        shown.stopping()


def test_a_terminal_that_goes_away_does_not_break_the_run(monkeypatch):
    monkeypatch.setenv("TERM", "xterm-256color")
    leader, follower = os.openpty()
    with suppress(OSError), os.fdopen(follower, "w") as stream:  # closing it fails: the terminal is gone
        shown = view(stream)
        assert isinstance(shown, Bars)
        with shown:
            for event in script(1)[:10]:
                shown.sink(event)
            os.close(leader)
            for event in [Warned(time=T, stage="s0", message="m"), *script(1)[10:]]:
                shown.sink(event)
        done = True
    assert done


def test_the_view_follows_the_stream(monkeypatch):
    leader, follower = os.openpty()
    with os.fdopen(follower, "w") as terminal:
        monkeypatch.setenv("TERM", "xterm")
        assert isinstance(view(terminal), Bars)
        assert type(view(terminal, quiet=True)) is Silent
        monkeypatch.setenv("TERM", "dumb")
        assert isinstance(view(terminal), Lines)
    assert isinstance(view(io.StringIO()), Lines)
    os.close(leader)
