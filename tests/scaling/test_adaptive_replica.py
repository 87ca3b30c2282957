"""The baseline is Dask's: the replica of ``adaptive_target`` beside the real one, on a real scheduler."""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import groupby
from typing import Any

import pytest
from dask.config import set as dask_config
from distributed import Client, Event, LocalCluster

from benchmarks.adaptive_replica import AdaptiveScaler, OperatorScaler, Tasks, adaptive_target
from daskml_scale.scaling.demand import WorkerView
from daskml_scale.scaling.usage import Seen
from daskml_scale.scaling.workload import Prefix


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    with (
        dask_config({"distributed.scheduler.default-task-durations": {"slow": 1000, "brief": 0.2}}),
        LocalCluster(
            n_workers=0, processes=False, threads_per_worker=3, protocol="tcp", host="127.0.0.1",
            dashboard_address="127.0.0.1:0",
        ) as cluster,
        Client(cluster, set_as_default=False) as found,
    ):  # fmt: skip
        yield found


def slow(name: str, number: int) -> int:
    Event(name).wait(timeout=60)
    return number


def look(dask_scheduler: Any) -> tuple[int, int, list[Tasks], list[int]]:
    """Return Dask's target, the number of idle workers, and what the replica is told."""
    scheduler = dask_scheduler
    waiting = [*scheduler.queued, *scheduler.unrunnable]
    rows = []
    for prefix, run in groupby(waiting, key=lambda ts: ts.prefix):  # in Dask's order: it looks at the first hundred
        rows.append(Tasks(len(list(run)), 0, prefix.duration_average, prefix.max_exec_time))
    for prefix in scheduler.task_prefixes.values():
        processing = sum(ts.prefix is prefix for ws in scheduler.workers.values() for ts in ws.processing)
        rows.append(Tasks(0, processing, prefix.duration_average, prefix.max_exec_time))
    threads = [ws.nthreads for ws in scheduler.workers.values()]
    idle = sum(not ws.processing for ws in scheduler.workers.values())
    return scheduler.adaptive_target(), idle, rows, threads


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize(
    "work",
    [
        [("plain", 5)],
        [("plain", 400)],
        [("slow", 10)],
        [("slow", 200)],
        [("brief", 33)],
        [("brief", 350)],
        [("slow", 3), ("brief", 150)],
        [("brief", 60), ("slow", 90), ("plain", 40)],
    ],
    ids=str,
)
def test_the_replica_wants_what_dask_wants(client: Client, workers: int, work: list[tuple[str, int]]):
    cluster = client.cluster
    cluster.scale(workers)
    deadline = time.monotonic() + 30
    while len(cluster.scheduler.workers) != workers:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    gate = f"gate-{workers}-{work}"
    futures = [
        future
        for prefix, count in work
        for future in client.map(slow, [gate] * count, range(count), pure=False, key=prefix)
    ]
    total = sum(count for _, count in work)
    while True:
        real, idle, rows, threads = client.run_on_scheduler(look)
        if sum(row.queued + row.processing for row in rows) == total:
            break
        assert time.monotonic() < deadline
        time.sleep(0.02)
    replica = adaptive_target(rows, threads)
    assert real == (replica if replica >= workers else workers - idle)
    Event(gate, client=client).set()
    client.cancel(futures)
    del futures
    while client.run_on_scheduler(lambda dask_scheduler: len(dask_scheduler.tasks)):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def seen(ready: int, pending: int, queued: int, busy: int = 0) -> Seen:
    views = [WorkerView(f"cpu-{n}", True, None if n < busy else 0.0) for n in range(ready)]
    views += [WorkerView(f"cpu-{ready + n}", False) for n in range(pending)]
    return Seen(
        (), {"cpu": views}, {"p": Prefix("p", queued=queued, processing=busy, units=queued + busy, average=5.0)}
    )


def test_the_replica_closes_after_three_looks_those_first_that_are_not_there_yet():
    scaler = AdaptiveScaler("cpu", 1, 100)
    orders = [scaler.step(seen(ready=4, pending=2, queued=0, busy=1), float(now)) for now in range(3)]
    assert [len(order.cancel) + len(order.retire) for order in orders] == [0, 0, 5]
    assert set(orders[-1].cancel) == {"cpu-4", "cpu-5"}
    assert "cpu-0" not in orders[-1].retire


def test_a_need_in_between_starts_the_count_anew():
    scaler = AdaptiveScaler("cpu", 1, 100)
    for now in (0.0, 1.0):
        scaler.step(seen(4, 0, 0), now)
    assert scaler.step(seen(4, 0, 20), 2.0).launch == {"cpu": 16}
    assert not scaler.step(seen(4, 0, 0), 3.0).retire


def test_the_operator_gives_up_a_quarter_of_the_newest_every_15_seconds():
    scaler = OperatorScaler("cpu", 1, 100)
    assert scaler.step(seen(0, 0, 8), 0.0).launch == {"cpu": 8}
    assert not scaler.step(seen(8, 0, 0), 10.0).retire
    assert list(scaler.step(seen(8, 0, 0), 15.0).retire) == ["cpu-6", "cpu-7"]
    assert not scaler.step(seen(6, 0, 0), 20.0).retire
