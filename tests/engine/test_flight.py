"""What may happen to tasks in flight: retries, drift, stragglers, pauses, other runs, silent workers. No times."""

from __future__ import annotations

import os
import signal
import threading
import time
from itertools import count
from pathlib import Path

import dask
import pytest
from distributed import Client, LocalCluster

from daskml_scale.engine import flight, reporter, watchdog
from daskml_scale.engine.dispatch import OnPayload, dispatch
from daskml_scale.engine.reporter import BacklogReporter
from daskml_scale.engine.worker import METRIC
from daskml_scale.errors import UsageError
from daskml_scale.plan.batching import Batching
from daskml_scale.plan.units import Unit

PLACES = ["in process", "on a cluster"]


def run(kernel, payloads, **options):
    units = [Unit(f"{index:06d}", payload) for index, payload in enumerate(payloads)]
    return [outcome for group in dispatch(kernel, None, units, name="flight", **options) for outcome in group]


def mark(folder: str, index: int) -> int:
    """Record an execution and return how many there were of this unit."""
    for number in count(1):
        try:
            os.close(os.open(f"{folder}/{index}-{number}", os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            continue
        return number
    raise AssertionError


def drain(groups, found: list) -> None:
    for group in groups:
        found.extend(outcome.value for outcome in group)


def flaky(item):
    folder, index = item
    times = mark(folder, index)
    if index == 3 and times < 3:
        raise ConnectionResetError(f"attempt {times}")
    if index == 5:
        raise ValueError("always")
    return index


def test_tasks_follow_what_one_costs_the_scheduler(client, monkeypatch):
    measured: list[float] = []
    follow = Batching.overhead_measured

    def told(batching: Batching, seconds: float) -> Batching:
        measured.append(seconds)
        return follow(batching, seconds)

    monkeypatch.setattr(reporter, "ENOUGH_TASKS", 1)
    monkeypatch.setattr(Batching, "overhead_measured", told)
    run(OnPayload(time.sleep), [0.1] * 30, client=client)
    assert measured
    assert min(measured) > 0


@pytest.mark.parametrize("place", PLACES)
def test_only_what_the_policy_names_is_sent_again(place, client, executions):
    told = []
    found = run(
        OnPayload(flaky),
        [(str(executions), index) for index in range(8)],
        client=client if place == "on a cluster" else None,
        retry={"OSError": 2},
        tell=told.append,
    )
    assert sorted(outcome.value for outcome in found if outcome.ok) == [0, 1, 2, 3, 4, 6, 7]
    assert {outcome.unit.payload[1]: outcome.attempt for outcome in found}[3] == 3
    assert [outcome.error for outcome in found if not outcome.ok] == ["ValueError: always"]
    assert len(list(executions.iterdir())) == 8 + 2


def test_a_retry_that_does_not_help_ends(client, executions):
    found = run(OnPayload(flaky), [(str(executions), 3)], client=client, retry={"ConnectionError": 1})
    assert [outcome.error for outcome in found] == ["ConnectionResetError: attempt 2"]


def drifting(item):
    folder, index = item
    mark(folder, index)
    if index > 400:
        time.sleep(0.05)
    return index


def test_durations_that_grow_in_mid_run_repeat_no_unit(client, executions, monkeypatch):
    """From microseconds to 50 ms: tasks that were meant to be short return what they have; the rest goes out again."""
    monkeypatch.setattr(flight, "PATIENCE", 0.1)
    monkeypatch.setattr(flight, "STRAGGLER_SECONDS", 60.0)  # a copy on a busy machine is another matter
    found = run(OnPayload(drifting), [(str(executions), index) for index in range(500)], client=client)
    assert sorted(outcome.value for outcome in found) == list(range(500))
    assert len(list(executions.iterdir())) == 500


def hangs_once(item):
    folder, index = item
    if mark(folder, index) == 1 and index == 7:
        while not os.path.exists(f"{folder}/over"):
            time.sleep(0.01)
    return index


def test_a_straggler_is_sent_a_second_time_and_the_first_result_counts(client, executions):
    told, found = [], []
    units = [Unit(f"{index:03d}", (str(executions), index)) for index in range(20)]
    for group in dispatch(OnPayload(hangs_once), None, units, name="straggle", client=client, tell=told.append):
        found.extend(group)
    # Its first execution still hangs: the result can only be the copy's.
    assert sorted(outcome.value for outcome in found) == list(range(20))
    assert any("sent again to" in message for message in told)
    (executions / "over").touch()
    assert {path.name for path in executions.glob("7-*")} >= {"7-1", "7-2"}


@pytest.mark.parametrize("place", PLACES)
def test_a_source_may_wait_for_outcomes(place, client):
    """As a search that promotes trials: the next three units depend on the last three."""
    answered: list[int] = []

    def source():
        for start in (0, 3, 6):
            while len(answered) < start:
                yield None
            for index in range(start, start + 3):
                yield Unit(f"{index}", index + (answered[-1] if answered else 0) * 0)

    for group in dispatch(
        OnPayload(abs), None, source(), name="waits", client=client if place == "on a cluster" else None
    ):
        answered.extend(outcome.value for outcome in group)
    assert sorted(answered) == list(range(9))


@pytest.mark.parametrize("place", PLACES)
def test_what_a_source_gave_before_it_broke_is_done(place, client):
    def source():
        for index in range(50):
            yield Unit(f"{index:02d}", index)
        raise RuntimeError("no more units")

    found = []
    groups = dispatch(OnPayload(abs), None, source(), name="breaks", client=client if place == "on a cluster" else None)
    with pytest.raises(RuntimeError, match="no more units"):
        drain(groups, found)
    assert sorted(found) == list(range(50))


def test_a_payload_that_cannot_be_sent_is_named_before_it_is(client):
    with pytest.raises(Exception, match="the payload of unit 000001 cannot be sent"):
        run(OnPayload(bool), [1, threading.Lock(), 3], client=client)


def wait_for(path):
    while not os.path.exists(path):
        time.sleep(0.01)
    return 1


def test_a_small_run_finishes_while_a_long_one_has_the_cluster(client, tmp_path):
    """The long run cannot end before the small one did: its units wait for a file that is written afterwards."""
    gate = str(tmp_path / "gate")
    started = threading.Event()
    long_run: list[int] = []

    def batch():
        units = [Unit(f"{index:05d}", 0.02) for index in range(400)]
        for group in dispatch(OnPayload(time.sleep), None, units, name="long", client=client):
            long_run.append(len(group))
            started.set()

    thread = threading.Thread(target=batch)
    thread.start()
    started.wait(30)
    found = run(OnPayload(abs), [-1] * 50, client=client)
    finished_before = sum(long_run)
    thread.join(60)
    assert [outcome.value for outcome in found] == [1] * 50
    assert finished_before < 400
    assert sum(long_run) == 400
    assert not os.path.exists(gate)


def test_windows_are_proportional_to_weights(client):
    one, other = BacklogReporter(client, "one", weight=1.0), BacklogReporter(client, "other", weight=3.0)
    values = {"units_left": 10, "runnable": 10, "seconds_per_unit": 1.0, "in_flight": 0}
    try:
        for now in (0.0, 1.0):
            for reporter in (one, other):
                reporter.report(**values, now=now)
        assert (one.share, other.share) == (0.25, 0.75)
        assert one.slots == other.slots == 2
    finally:
        other.close()
    one.report(**values, now=2.0)
    assert one.share == 1.0
    one.close()


@pytest.mark.parametrize("weight", [0, -1, "much", True])
def test_a_weight_that_is_none_is_refused(client, weight):
    with dask.config.set({"daskml-scale.weight": weight}), pytest.raises(UsageError, match=r"daskml-scale\.weight"):
        run(OnPayload(abs), [1], client=client)


def test_workers_tell_what_their_cache_holds(client):
    run(OnPayload(abs), [-1] * 100, client=client)
    deadline = time.monotonic() + 10
    while not (found := [w["metrics"].get(METRIC) for w in client.scheduler_info()["workers"].values()]) or not all(
        found
    ):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert all(counts["loads"] >= 1 and counts["bytes"] > 0 for counts in found)


def stops_its_worker_once(item):
    folder, index = item
    if mark(folder, index) == 1:
        os.kill(os.getpid(), signal.SIGSTOP)
    return index


def test_a_silent_worker_is_restarted_when_nothing_moves(executions: Path, tmp_path, monkeypatch):
    """One unit, whose worker is stopped: no duration is known, so only the watchdog can help."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    told: list[str] = []
    with (
        dask.config.set({"daskml-scale.stall-seconds": 3}),
        LocalCluster(n_workers=1, threads_per_worker=1, host="127.0.0.1", dashboard_address="127.0.0.1:0") as cluster,
        Client(cluster) as client,
    ):
        found = run(OnPayload(stops_its_worker_once), [(str(executions), 0)], client=client, tell=told.append)
    assert [outcome.value for outcome in found] == [0]
    assert any("which did not answer" in message for message in told)
    assert list(tmp_path.glob("daskml-stall-*"))


def test_a_worker_that_answers_is_not_stuck():
    rows = [
        {"state": "processing", "worker": "tcp://a", "name": "a", "heard": 0.4},
        {"state": "processing", "worker": "tcp://b", "name": "b", "heard": 31.0},
        {"state": "no-worker", "worker": "", "name": "", "heard": 0.0},
    ]
    assert watchdog.stuck(rows) == ["tcp://b"]
    assert watchdog.described(rows, 600) == (
        "no unit finished for 600 s; tasks in flight: 1 no-worker, 2 processing on a (last heard of 0 s ago), "
        "b (last heard of 31 s ago)"
    )


@pytest.mark.parametrize("place", PLACES)
def test_a_source_that_waits_for_nothing_is_an_error_and_no_endless_loop(place, client):
    def source():
        yield Unit("0", -1)
        while True:
            yield None

    groups = dispatch(OnPayload(abs), None, source(), name="stuck", client=client if place == "on a cluster" else None)
    assert [outcome.value for outcome in next(groups)] == [1]
    with pytest.raises(Exception, match="waits for outcomes, and no unit is in flight"):
        next(groups)
