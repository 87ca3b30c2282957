"""Turns: how many runs at once, which first, and that nobody dead holds one."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daskml_scale.errors import CancelledRunError, ConflictError, StoreError
from daskml_scale.runs import schema
from daskml_scale.runs.queue import AT_ONCE, Turn, at_once, before, next_to_start, patience, wait_turn
from daskml_scale.runs.records import Registry
from daskml_scale.runs.rows import HOLD, QUEUE_HOLD
from daskml_scale.runs.state import LONGEST_LEASE, RunRecord

NOW = 1e9
TURN = Turn("a", "queued", "local", "s", 0, 1, NOW, NOW + 10)

turns = st.lists(
    st.builds(
        Turn,
        id=st.uuids().map(str),
        state=st.sampled_from(["queued", "running"]),
        queue=st.sampled_from(["local", "none"]),
        store=st.sampled_from("stuvwxyz"),
        priority=st.integers(-2, 2),
        most=st.integers(1, 3),
        created=st.floats(NOW - 100, NOW),
        lease_until=st.floats(NOW - 20, NOW + 20),
    ),
    unique_by=lambda turn: turn.id,
    max_size=12,
)


def alive(runs: list[Turn], state: str) -> list[Turn]:
    return [run for run in runs if run.state == state and run.lease_until >= NOW]


def most(runs: list[Turn], queue: str) -> int:
    """Return what the newest living run says of its cluster."""
    return max(
        (run for run in runs if run.queue == queue and run.lease_until >= NOW), key=lambda run: (run.created, run.id)
    ).most


@given(turns)
def test_no_cluster_gets_more_runs_than_it_takes_and_no_store_two(runs):
    chosen = [run for run in runs if run.id in next_to_start(runs, NOW)]
    working = [*alive(runs, "running"), *chosen]
    before_it = Counter(run.queue for run in alive(runs, "running"))
    for queue, number in Counter(run.queue for run in working).items():
        assert number <= max(before_it[queue], most(runs, queue))
    taken = {run.store for run in alive(runs, "running")}
    assert not taken & {run.store for run in chosen}
    assert len({run.store for run in chosen}) == len(chosen)


@given(turns)
def test_only_living_queued_runs_are_chosen_and_a_free_place_is_never_left(runs):
    chosen = next_to_start(runs, NOW)
    assert set(chosen) <= {run.id for run in alive(runs, "queued")}
    working = [*alive(runs, "running"), *(run for run in runs if run.id in chosen)]
    for run in alive(runs, "queued"):
        if run.id not in chosen:
            full = sum(other.queue == run.queue for other in working) >= most(runs, run.queue)
            assert full or run.store in {other.store for other in working}


@given(turns)
def test_a_less_urgent_or_later_run_never_takes_the_place_of_another(runs):
    chosen = next_to_start(runs, NOW)
    for run in alive(runs, "queued"):
        for other in alive(runs, "queued"):
            better = (-run.priority, run.created, run.id) < (-other.priority, other.created, other.id)
            if better and run.queue == other.queue and other.id in chosen and run.id not in chosen:
                passed = [turn for turn in runs if turn.store == run.store and turn.id != run.id]
                assert passed, "it was passed although its store was free"


@given(turns)
def test_it_does_not_matter_in_which_order_runs_are_given(runs):
    assert next_to_start(runs, NOW) == next_to_start(list(reversed(runs)), NOW)


def test_urgent_runs_go_first_then_as_they_came():
    late = replace(TURN, id="late", created=NOW + 1, store="t")
    urgent = replace(TURN, id="urgent", created=NOW + 2, store="u", priority=5)
    assert next_to_start([TURN, late, urgent], NOW) == ("urgent",)
    assert before([TURN, late, urgent], "late") == 2
    assert next_to_start([replace(TURN, most=2), replace(late, most=2), replace(urgent, most=2)], NOW) == (
        "urgent",
        "a",
    )


def test_a_dead_run_frees_its_turn_and_so_does_one_whose_lease_cannot_be():
    working = replace(TURN, id="old", state="running", store="t", lease_until=NOW + 1)
    assert next_to_start([TURN, working], NOW) == ()
    assert next_to_start([TURN, replace(working, lease_until=NOW - 1)], NOW) == ("a",)
    assert next_to_start([TURN, replace(working, lease_until=NOW + LONGEST_LEASE + 1)], NOW) == ("a",)  # clock set back


def test_the_newest_definition_says_how_many(tmp_path, monkeypatch):
    working = replace(TURN, id="old", state="running", store="t", most=1)
    assert next_to_start([working, replace(TURN, most=2, created=NOW + 1)], NOW) == ("a",)
    monkeypatch.chdir(tmp_path)
    text = "version: 1\nname: c\nbackend: local\nruns: 3\nclasses: {cpu: {workers: {max: 1}}}\n"
    Path("c.yaml").write_text(text)
    assert at_once("./c.yaml", "none") == 3
    Path("c.yaml").write_text(text.replace("runs: 3\n", ""))
    assert at_once("./c.yaml", "none") == AT_ONCE == 1
    assert at_once("none", "none") >= 1


def test_who_is_far_behind_looks_seldom():
    assert patience(0) < patience(3) < patience(1000) < QUEUE_HOLD / 2


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(tmp_path / "registry.db")


def queued(registry: Registry, store: str, **more: object) -> RunRecord:
    return registry.create(
        workflow="w", source="w.yaml", store=store, cluster="local", command=["submit", "w"], cwd="/",
        now=more.pop("now", NOW), most=1, **more,
    )  # fmt: skip


def test_a_run_takes_its_turn_and_the_next_one_waits_until_it_ends(registry):
    first, second = queued(registry, "s"), queued(registry, "t", now=NOW + 1)
    assert registry.take_turn(second, host="elsewhere", pid=2, now=NOW + 2) == 1
    one = registry.take_turn(first, host="elsewhere", pid=1, now=NOW + 2)
    assert (one.state, one.epoch, one.started) == ("running", 1, NOW + 2)
    assert registry.take_turn(second, host="elsewhere", pid=2, now=NOW + 3) == 1
    later = NOW + 3 + QUEUE_HOLD / 2
    registry.beat(one.id, one.epoch, now=later)
    assert registry.take_turn(second, host="elsewhere", pid=2, now=later) == 1
    assert registry.get(second.id, now=later + QUEUE_HOLD).state == "queued"  # it renewed its lease
    registry.finish(one.id, one.epoch, now=later + 1, state="succeeded", exit_code=0)
    assert registry.take_turn(second, host="elsewhere", pid=2, now=later + 2).state == "running"
    assert [event["state"] for event in registry.events(second.id)] == ["queued", "running"]


def test_a_run_without_a_lease_holds_no_turn(registry):
    first, second = queued(registry, "s"), queued(registry, "t", now=NOW + 1)
    registry.take_turn(first, host="elsewhere", pid=1, now=NOW)
    late = NOW + HOLD + 1
    assert registry.take_turn(second, host="elsewhere", pid=2, now=late).state == "running"
    assert registry.get(first.id, now=late).state == "lost"


def test_a_process_that_is_gone_holds_no_turn_although_its_lease_lasts(registry):
    import os
    import time

    now = time.time()
    first, second = queued(registry, "s", now=now), queued(registry, "t", now=now)
    registry.take_turn(first, host=os.uname().nodename, pid=2**22 + 1, now=now)
    assert registry.take_turn(second, host=os.uname().nodename, pid=os.getpid(), now=now).state == "running"


def test_two_processes_racing_for_one_run_one_is_fenced(registry):
    run = queued(registry, "s")
    assert registry.take_turn(run, host="a", pid=1, now=NOW).epoch == 1
    with pytest.raises(ConflictError, match=r"cannot be started: it is running \(epoch 1\)"):
        registry.take_turn(run, host="b", pid=2, now=NOW)
    assert registry.get(run.id, now=NOW).host == "a"


def test_a_run_that_is_cancelled_while_it_waits_says_so(registry):
    run = queued(registry, "s")
    registry.finish(run.id, run.epoch, now=NOW, state="cancelled", exit_code=6)
    with pytest.raises(CancelledRunError, match="was cancelled before its turn"):
        wait_turn(registry, run, lambda line: None, host="a", pid=1)


def test_waiting_is_told_once_and_ends_with_the_turn(registry):
    import time

    now = time.time()
    first, second = queued(registry, "s", now=now), queued(registry, "t", now=now + 1)
    one = registry.take_turn(first, host="elsewhere", pid=1, now=now)
    told: list[str] = []
    looks = iter(range(3))

    def sleep(seconds: float) -> None:
        if next(looks) == 2:
            registry.finish(one.id, one.epoch, now=now, state="succeeded", exit_code=0)

    assert wait_turn(registry, second, told.append, host="b", pid=2, sleep=sleep).state == "running"
    assert told == [f"run {second.id} waits for its turn: 1 before it on local, or its store is in use"]


def test_a_waiting_run_outlives_a_registry_that_is_locked_for_long(registry, monkeypatch):
    import sqlite3
    import time

    run, told = queued(registry, "s", now=time.time()), list[str]()
    registry.close()
    monkeypatch.setattr(schema, "BUSY_SECONDS", 0.05)
    held = sqlite3.connect(registry.path, isolation_level=None)
    held.execute("begin immediate")
    looks = iter(range(3))

    def sleep(seconds: float) -> None:
        if next(looks) == 2:
            held.execute("rollback")

    try:
        assert wait_turn(registry, run, told.append, host="elsewhere", pid=2, sleep=sleep).state == "running"
        assert len(told) == 1
        assert "database is locked" in told[0]
        held.execute("begin immediate")
        monkeypatch.setattr("daskml_scale.runs.queue.PATIENCE", -1.0)
        with pytest.raises(StoreError, match="another process has been writing it"):
            wait_turn(registry, run, told.append, host="elsewhere", pid=2)
    finally:
        held.close()


def test_a_queued_run_whose_process_is_slow_to_ask_is_not_lost_and_one_whose_process_died_is(registry):
    import os
    import time

    here = os.uname().nodename
    slow, dead, unborn = (queued(registry, name, now=time.time()) for name in "stu")
    registry.attached(slow, host=here, pid=os.getpid())
    registry.attached(dead, host=here, pid=2**22 + 1)
    registry.attached(slow, host=here, pid=1)  # the first word counts
    later = time.time() + 3600
    states = [registry.get(run.id, now=later).state for run in (slow, dead, unborn)]
    assert states == ["queued", "lost", "lost"]
    assert registry.get(slow.id, now=time.time()).pid == os.getpid()
