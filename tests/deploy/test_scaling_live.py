"""Scaling on real processes when things are not simple: GPU work, rungs, deaths, a lost scheduler, two runs at once."""

from __future__ import annotations

import os
import signal
import threading
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest
from deploy_helpers import SPEC, Recorder, eventually
from distributed import Client
from distributed.diagnostics.plugin import SchedulerPlugin

from daskml_scale import deploy, events
from daskml_scale.deploy.local import ScaledLocalCluster
from daskml_scale.engine.backlog import read_backlog
from daskml_scale.engine.dispatch import dispatch
from daskml_scale.plan.units import Unit

CPU = SPEC["classes"]["cpu"]
BOTH: dict[str, Any] = {
    **SPEC,
    "classes": {
        "cpu": {**CPU, "workers": {"min": 0, "max": 2}},
        "gpu": {**CPU, "workers": {"min": 0, "max": 1}, "resources": {"CARD": 1}},
    },
}


@pytest.fixture(scope="module")
def recorder() -> Recorder:
    return Recorder()


@pytest.fixture(scope="module")
def cluster(recorder: Recorder) -> Iterator[ScaledLocalCluster]:
    """No worker at first; two plain ones and one of another kind at most."""
    with deploy.cluster(BOTH, sink=recorder, preload=["daskml_scale.dashboard.preload"]) as found:
        yield found


@pytest.fixture
def client(cluster: ScaledLocalCluster, recorder: Recorder) -> Iterator[Client]:
    eventually(lambda: not cluster.worker_spec)
    recorder.events.clear()
    with Client(cluster, set_as_default=False) as found:
        yield found


def kernel(unit: Unit, worker: Any) -> int:
    import time

    time.sleep(unit.payload)
    return 1


def run(client: Client, count: int, seconds: float, name: str) -> int:
    units = [Unit(f"{name}{number}", seconds) for number in range(count)]
    return sum(outcome.value for group in dispatch(kernel, None, units, name=name, client=client) for outcome in group)


def decisions(recorder: Recorder) -> list[events.Scaled]:
    return [event for event in recorder.events if isinstance(event, events.Scaled)]


def test_gpu_work_with_no_gpu_worker_starts_one_and_no_other(
    cluster: ScaledLocalCluster, client: Client, recorder: Recorder
):
    futures = client.map(abs, range(-20, 0), resources={"CARD": 1}, pure=False)
    assert sum(client.gather(futures)) == 210
    assert {event.worker_class for event in decisions(recorder)} == {"gpu"}
    assert {name.partition("-")[0] for name in cluster.planned} == {"gpu"}


def test_rungs_that_need_fewer_and_fewer_workers_give_them_back(
    cluster: ScaledLocalCluster, client: Client, recorder: Recorder
):
    assert run(client, 60, 0.1, "rung0") == 60
    assert run(client, 2, 3.5, "rung1") == 2
    assert max(event.need for event in decisions(recorder)) == 2
    assert run(client, 1, 4.0, "rung2") == 1
    assert any(event.need == 1 for event in decisions(recorder) if event.need < event.have)


def test_a_worker_that_is_killed_while_it_starts_is_replaced(cluster: ScaledLocalCluster, client: Client):
    futures = client.map(abs, range(-30, 0), pure=False)
    process = eventually(lambda: next((p for p in cluster.workers.values() if p.pid and not p.ready), None))
    os.kill(process.pid, signal.SIGKILL)
    assert sum(client.gather(futures)) == 465
    assert process.name not in cluster.observed
    assert process.name not in cluster.worker_spec


def test_two_runs_share_the_cluster_and_both_end(cluster: ScaledLocalCluster, client: Client, recorder: Recorder):
    sums: dict[str, int] = {}
    with Client(cluster, set_as_default=False) as other:
        threads = [
            threading.Thread(target=lambda who=who, name=name: sums.update({name: run(who, 60, 0.05, name)}))
            for who, name in ((client, "first"), (other, "second"))
        ]
        for thread in threads:
            thread.start()
        eventually(lambda: len(read_backlog(client)["stages"]) == 2 or not any(t.is_alive() for t in threads))
        for thread in threads:
            thread.join(60)
    assert sums == {"first": 60, "second": 60}
    assert max(event.need for event in decisions(recorder)) <= 2
    assert read_backlog(client)["stages"] == []


class Shuffling(SchedulerPlugin):  # type: ignore[misc]
    """Keeps every worker, as a running P2P shuffle does."""

    name = "shuffling"

    def valid_workers_downscaling(self, scheduler: Any, workers: list[Any]) -> list[Any]:
        return []


def test_a_shuffle_keeps_its_workers(cluster: ScaledLocalCluster, client: Client):
    client.register_plugin(Shuffling())
    assert client.submit(abs, -1, pure=False).result(timeout=60) == 1
    eventually(lambda: cluster._adaptive._refused)  # it was to go
    assert cluster.observed
    client.unregister_scheduler_plugin("shuffling")
    eventually(lambda: not cluster.observed)


def test_prometheus_sees_the_backlog_of_each_class(cluster: ScaledLocalCluster, client: Client):
    def gauges() -> dict[str, float]:
        with urllib.request.urlopen(cluster.dashboard_link.replace("/status", "/metrics"), timeout=60) as page:
            lines = page.read().decode().splitlines()
        found = [line.split('"') for line in lines if line.startswith("daskml_backlog_seconds{class=")]
        return {parts[1]: float(parts[2].strip("} ")) for parts in found}

    eventually(lambda: gauges() == {"cpu": 0.0, "gpu": 0.0})
    impossible = client.submit(pow, 2, 3, resources={"TPU": 1}, pure=False)  # named by what it needs
    eventually(lambda: gauges() == {"cpu": 0.0, "gpu": 0.0, "tpu": 0.5})
    impossible.cancel()


def test_after_the_loss_of_its_scheduler_a_cluster_of_the_same_kind_scales_again():
    for turn in range(2):
        recorder = Recorder()
        with deploy.cluster(BOTH, sink=recorder) as cluster, Client(cluster, set_as_default=False) as client:
            assert client.submit(abs, -turn, pure=False).result(timeout=60) == turn
            assert any(event.need for event in decisions(recorder))
            os.kill(cluster.scheduler.pid, signal.SIGKILL)
            eventually(lambda cluster=cluster: cluster._adaptive.state == "stopped")
