"""Stages in order and side by side: what may start, tries, time limits, and what a failure stops."""

from __future__ import annotations

import os
import signal
import threading
import time
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daskml_scale.errors import ConflictError, DaskMLError, InterruptedRunError, PlanError, UnitsFailedError
from daskml_scale.runs import branches
from daskml_scale.runs.attend import stoppable
from daskml_scale.runs.branches import Limits, StageTimeoutError, Walk, pause, retried, startable
from daskml_scale.runs.live import Silent

NEEDS = {"a": (), "b": ("a",), "c": ("a",), "d": ("b", "c"), "e": ()}


def walk(work, at_once=1, limits=None, needs=NEEDS, told=None):
    each = {name: (limits or {}).get(name, Limits()) for name in needs}
    lines = told if told is not None else []
    return Walk(list(needs), needs, work, each, lambda name, text: lines.append((name, text)), at_once)


@given(st.dictionaries(st.sampled_from("bcdefg"), st.sets(st.sampled_from("abcdef"), max_size=3)), st.integers(0, 4))
def test_only_stages_whose_needs_are_done_may_start_and_places_are_used(drawn, free):
    names = "abcdefg"
    needs = {name: {other for other in drawn.get(name, ()) if other < name} for name in names}
    done: set[str] = set()
    while len(done) < len(names):
        waiting = [name for name in names if name not in done]
        chosen = startable(waiting, needs, done, free or 1)
        assert 0 < len(chosen) <= (free or 1)
        assert all(needs[name] <= done for name in chosen)
        assert startable(waiting, needs, done, 0) == []
        done.update(chosen)


def test_one_at_a_time_keeps_the_order_and_the_thread():
    seen = []
    walk(lambda name, check: seen.append((name, threading.current_thread() is threading.main_thread()))).to_the_end()
    assert seen == [(name, True) for name in NEEDS]


def test_branches_are_at_work_beside_each_other():
    both = threading.Barrier(2, timeout=60)
    done = []

    def work(name, check):
        if name in ("b", "c"):
            both.wait()  # nobody passes alone
        assert all(other in done for other in NEEDS[name])
        done.append(name)

    walk(work, at_once=2).to_the_end()
    assert sorted(done) == list("abcde")


def test_a_failure_stops_what_else_is_at_work_and_starts_nothing_more():
    there, seen = threading.Event(), []

    def work(name, check):
        seen.append(name)
        if name == "b":
            assert there.wait(60)
            raise UnitsFailedError("b is broken")
        if name == "c":
            there.set()
            while True:  # until it is stopped
                check()
                time.sleep(0.01)

    with pytest.raises(UnitsFailedError, match="b is broken"):
        walk(work, at_once=3).to_the_end()
    assert "d" not in seen
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("stage ")]


def test_a_stage_is_tried_again_and_every_try_is_told(monkeypatch):
    monkeypatch.setattr(branches, "pause", lambda attempt: 0.0)
    tries, told = [], []

    def work(name, check):
        tries.append(name)
        if name == "b" and tries.count("b") < 3:
            raise OSError("no answer\nmore")

    walk(work, limits={"b": Limits(retries=2)}, told=told).to_the_end()
    assert tries == ["a", "b", "b", "b", "c", "d", "e"]
    assert told == [("b", f"try {n} of 3 failed (no answer); again in 0 s") for n in (1, 2)]
    with pytest.raises(OSError, match="no answer"):
        walk(lambda name, check: (_ for _ in ()).throw(OSError("no answer")), limits={"a": Limits(1)}).to_the_end()


@pytest.mark.parametrize(
    ("error", "again"),
    [
        (OSError("x"), True), (UnitsFailedError("x"), True), (DaskMLError("x"), True), (StageTimeoutError("x"), True),
        (PlanError("x"), False), (ConflictError("x"), False), (InterruptedRunError("x"), False),
        (KeyboardInterrupt(), False),
    ],
)  # fmt: skip
def test_only_what_another_try_may_mend_is_tried_again(error, again):
    assert retried(error) is again


def test_tries_come_later_each_time_and_at_least_once_a_minute():
    assert [pause(attempt) for attempt in (1, 2, 3, 20)] == [1.0, 2.0, 4.0, 60.0]


def test_a_stage_that_takes_too_long_is_ended_with_a_remedy():
    def work(name, check):
        while True:
            check()
            time.sleep(0.005)

    with pytest.raises(StageTimeoutError, match=r"a: it took longer than its timeout of 0\.02 s.*raise timeout:"):
        walk(work, limits={"a": Limits(timeout=0.02)}).to_the_end()


@pytest.mark.parametrize("at_once", [1, 2])
def test_a_stop_that_was_lost_on_its_way_comes_again(at_once):
    """Python drops what a signal raises inside a destructor or some imports."""
    looks = 0

    def work(name, check):
        nonlocal looks
        with suppress(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.5)
        while looks < 1000:
            looks += 1
            check()

    with stoppable(Silent(), lambda: None), pytest.raises(KeyboardInterrupt):
        walk(work, at_once=at_once, needs={"a": ()}).to_the_end()
    assert looks < 1000
    assert not branches.ASKED.is_set()
