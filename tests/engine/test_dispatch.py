"""Dispatch on a real cluster: isolation, batching, lost workers, release after commit. Counts, never times."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

import pytest

from daskml_scale.engine.client import KEY_PREFIX
from daskml_scale.engine.dispatch import dispatch
from daskml_scale.engine.suspects import DEATHS
from daskml_scale.engine.worker import Cache
from daskml_scale.plan.units import Unit


def units(number: int) -> list[Unit]:
    return [Unit(f"{index:06d}", index) for index in range(number)]


def run(kernel, items, **options):
    return [outcome for group in dispatch(kernel, None, items, name="test", **options) for outcome in group]


def square(unit, worker):
    return unit.payload**2


def picky(unit, worker):
    if unit.payload % 7 == 3:
        raise ValueError(f"bad unit {unit.payload}")
    return unit.payload


@pytest.mark.parametrize("place", ["in process", "on a cluster"])
def test_every_unit_comes_back_once(place, client):
    found = run(square, units(5000), client=client if place == "on a cluster" else None)
    assert sorted((o.unit.payload, o.value) for o in found) == [(i, i * i) for i in range(5000)]


@pytest.mark.parametrize("place", ["in process", "on a cluster"])
def test_a_failing_unit_fails_alone_with_its_traceback(place, client):
    found = run(picky, units(50), client=client if place == "on a cluster" else None)
    failed = [o for o in found if not o.ok]
    assert sorted(o.unit.payload for o in failed) == [i for i in range(50) if i % 7 == 3]
    assert failed[0].error == f"ValueError: bad unit {failed[0].unit.payload}"
    assert "in picky" in failed[0].traceback


def test_small_units_share_tasks(client):
    """20,000 units of a microsecond: a few dozen tasks, not 20,000."""
    sent = []
    submit = client.submit
    client.submit = lambda *args, **kwargs: sent.append(kwargs["key"]) or submit(*args, **kwargs)
    try:
        assert len(run(square, units(20_000), client=client)) == 20_000
    finally:
        del client.submit
    assert len(sent) < 100
    assert all(key.startswith(KEY_PREFIX) for key in sent)


def test_units_may_come_from_a_generator_that_is_read_ahead_a_bounded_number(client):
    read = []

    def endless():
        for index in range(10**9):
            read.append(index)
            yield Unit(f"{index:09d}", index)

    groups = dispatch(square, None, endless(), name="endless", client=client)
    first = next(groups)
    assert first
    assert len(read) < 100_000
    groups.close()


def test_large_payloads_are_read_ahead_and_sent_by_their_bytes(client):
    read, sent = [], []

    def fat():
        for index in range(500):
            read.append(index)
            yield Unit(f"{index:06d}", bytes(200_000))

    submit = client.submit
    client.submit = lambda *args, **kwargs: sent.append(len(args[3])) or submit(*args, **kwargs)
    try:
        groups = dispatch(length, None, fat(), name="fat", client=client)
        first = next(groups)
        assert len(read) - len(first) < 100
        found = [*first, *(outcome for group in groups for outcome in group)]
    finally:
        del client.submit
    assert [o.value for o in found] == [200_000] * 500
    assert max(sent) < 2 * 2**20


def length(unit, worker):
    return len(unit.payload)


def unpicklable(unit, worker):
    return threading.Lock() if unit.payload == 5 else unit.payload


def test_results_that_only_cloudpickle_can_send_come_back(client):
    found = run(lambda unit, worker: lambda: unit.payload, units(3), client=client)
    assert sorted(outcome.value() for outcome in found) == [0, 1, 2]


def test_a_result_that_cannot_be_sent_fails_its_own_unit(client):
    found = run(unpicklable, units(40), client=client)
    assert [(o.unit.payload, "cannot be pickled" in o.error) for o in found if not o.ok] == [(5, True)]
    assert sorted(o.value for o in found if o.ok) == [i for i in range(40) if i != 5]


def touch(unit, worker):
    folder, index = unit.payload
    with open(Path(folder) / f"{index}-{time.time_ns()}", "x"):
        return index


def die_once(unit, worker):
    folder, index = unit.payload
    touch(unit, worker)
    marker = Path(folder).parent / "died"
    if index == 5 and not marker.exists():
        marker.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(0.02)
    return index


def die_always(unit, worker):
    if unit.payload[1] == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return unit.payload[1]


@pytest.fixture
def fragile():
    """A cluster of its own: its workers will die."""
    import dask
    from distributed import Client, LocalCluster

    with (
        dask.config.set({"distributed.scheduler.allowed-failures": 0, "distributed.comm.timeouts.connect": "5s"}),
        LocalCluster(n_workers=2, threads_per_worker=1, host="127.0.0.1", dashboard_address="127.0.0.1:0") as cluster,
        Client(cluster) as found,
    ):
        yield found


def test_a_killed_worker_costs_at_most_what_was_in_flight(fragile, executions):
    items = [Unit(f"{i:04d}", (str(executions), i)) for i in range(60)]
    found = run(die_once, items, client=fragile)
    assert sorted(o.value for o in found if o.ok) == list(range(60))
    extra = len(list(executions.iterdir())) - 60
    assert 1 <= extra <= 60


def test_a_unit_that_kills_its_workers_is_given_up_and_the_others_finish(fragile):
    items = [Unit(f"{i:04d}", ("", i)) for i in range(8)]
    found = run(die_always, items, client=fragile)
    failed = [o for o in found if not o.ok]
    assert [o.unit.payload[1] for o in failed] == [3]
    assert failed[0].error.startswith(f"PoisonedUnit: {DEATHS} processes died")
    assert sorted(o.value for o in found if o.ok) == [0, 1, 2, 4, 5, 6, 7]


class EndsAChild:
    """A kernel that a worker, which runs tasks in threads, can load, and that ends a child process that loads it."""

    def __reduce__(self):
        return (load_in_a_thread, ())


def load_in_a_thread():
    if threading.current_thread() is threading.main_thread():
        os._exit(3)
    return die_always


def test_a_kernel_that_ends_the_child_that_loads_it_makes_no_unit_guilty(fragile):
    found = run(EndsAChild(), [Unit("3", ("", 3))], client=fragile)
    (error,) = [outcome.error for outcome in found]
    assert error == (
        "RuntimeError: a process that was to run the units ended itself with exit code 3 before the first one, 3 times"
    )


def test_futures_are_released_once_their_group_was_consumed(client):
    groups = dispatch(square, None, units(200), name="release", client=client)
    for _ in groups:
        pass
    deadline = time.monotonic() + 10
    count = lambda dask_scheduler: sum("daskml-release" in str(key) for key in dask_scheduler.tasks)  # noqa: E731
    while (left := client.run_on_scheduler(count)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert left == 0


def slow(unit, worker):
    time.sleep(0.05)
    return unit.payload


def test_stopping_early_cancels_what_is_in_flight(client):
    groups = dispatch(slow, None, units(10_000), name="stopped", client=client)
    next(groups)
    groups.close()
    deadline = time.monotonic() + 20
    count = lambda dask_scheduler: sum("daskml-stopped" in str(key) for key in dask_scheduler.tasks)  # noqa: E731
    while (left := client.run_on_scheduler(count)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert left == 0


def test_shared_objects_are_loaded_once_per_process(client):
    """A large kernel is placed once and unpickled once per worker process, however many tasks use it."""
    big = bytes(300_000)

    def kernel(unit, worker, big=big):
        return os.getpid()

    def loaded():
        from daskml_scale.engine.worker import CACHE

        return CACHE.loads

    before = client.run(loaded)
    found = run(kernel, units(300), client=client)
    after = client.run(loaded)
    assert 1 <= len({o.value for o in found}) <= 2
    assert all(after[worker] - before[worker] <= 1 for worker in after)


def test_a_kernel_that_the_workers_cannot_load_fails_promptly(client):
    class Unloadable:
        def __reduce__(self):
            return (__import__, ("a_module_that_is_not_there",))

        def __call__(self, unit, worker):
            return 1

    found = run(Unloadable(), units(3), client=client)
    assert len(found) == 3
    assert all("a_module_that_is_not_there" in o.error for o in found)


def test_the_cache_keeps_its_limit_and_loads_once():
    cache = Cache(limit=100)
    made = []
    for key in "abcab":
        cache.get(key, lambda key=key: made.append(key) or key, size=40)
    assert made == ["a", "b", "c", "a", "b"]
    assert cache.get("huge", lambda: "x", size=1000) == "x"
    assert cache.get("huge", lambda: "again") == "x"


def test_a_failed_load_is_tried_again():
    cache = Cache()

    def broken():
        raise OSError("no")

    with pytest.raises(OSError, match="no"):
        cache.get("k", broken)
    assert cache.get("k", lambda: 2) == 2
