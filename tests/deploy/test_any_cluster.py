"""`BacklogAdaptive` on clusters that are not ours, and what users know of distributed's own ``Adaptive``.

The behaviours are those of distributed's ``test_adaptive.py``; docs/explanation/scaling.md lists which test
holds which.
"""

from __future__ import annotations

import gc
import logging
import time
from collections.abc import Iterator
from typing import Any

import pytest
from dask.config import set as dask_config
from deploy_helpers import eventually
from distributed import Client, Event, LocalCluster, Scheduler, SpecCluster, Worker
from distributed.core import Status

from daskml_scale.deploy.adaptive import BacklogAdaptive
from daskml_scale.engine.backlog import NAME, read_backlog
from daskml_scale.errors import UsageError

QUICK: dict[str, Any] = {"interval": "50ms", "wait_count": 10, "target_duration": "1s", "startup": "1s"}
"""Idle for half a second, then it goes."""


@pytest.fixture
def cluster() -> Iterator[LocalCluster]:
    """Dask's own cluster, without workers, in this process."""
    with LocalCluster(
        n_workers=0,
        processes=False,
        threads_per_worker=1,
        memory_limit="1GiB",
        protocol="tcp",
        host="127.0.0.1",
        dashboard_address="127.0.0.1:0",
    ) as found:
        yield found


@pytest.fixture
def client(cluster: LocalCluster) -> Iterator[Client]:
    with Client(cluster, set_as_default=False) as found:
        yield found


def adapt(cluster: Any, **options: Any) -> BacklogAdaptive:
    found = cluster.adapt(Adaptive=BacklogAdaptive, **{**QUICK, **options})
    assert isinstance(found, BacklogAdaptive)
    return found


def hold(name: str, number: int) -> int:
    Event(name).wait(timeout=60)
    return number


def changes(adaptive: BacklogAdaptive, status: str) -> list[dict[str, Any]]:
    return [change for _, change in adaptive.log if change["status"] == status]


def test_from_nothing_to_what_is_needed_and_back_and_again(cluster: LocalCluster, client: Client):
    adaptive = adapt(cluster, maximum=3)
    for turn in range(2):
        gate = Event(f"turn{turn}", client=client)
        futures = client.map(hold, [f"turn{turn}"] * 30, range(30), pure=False)
        eventually(lambda: len(cluster.scheduler.workers) >= 1)
        time.sleep(0.3)
        gate.set()
        assert sum(client.gather(futures)) == sum(range(30))
        del futures
        eventually(lambda: not cluster.scheduler.workers and not cluster.worker_spec)
    ups = changes(adaptive, "up")
    assert {change["n"] for change in ups} <= {1, 2, 3}
    names = [name for change in changes(adaptive, "down") for name in change["workers"]]
    assert len(names) == len(set(names))  # no name is used twice


def test_minimum_and_maximum_hold(cluster: LocalCluster, client: Client):
    adaptive = adapt(cluster, minimum=1, maximum=2)
    eventually(lambda: len(cluster.scheduler.workers) == 1)
    time.sleep(0.5)
    assert len(cluster.scheduler.workers) == 1
    assert changes(adaptive, "up") == [{"status": "up", "n": 1}]
    gate = Event("bounds", client=client)
    client.submit(int, 1, pure=False).result()
    futures = client.map(hold, ["bounds"] * 100, range(100), pure=False)
    eventually(lambda: len(cluster.scheduler.workers) == 2)
    time.sleep(0.5)
    assert len(cluster.scheduler.workers) == len(cluster.workers) == 2
    gate.set()
    client.gather(futures)
    del futures
    eventually(lambda: len(cluster.scheduler.workers) == 1)
    assert adaptive.log[-1][1]["status"] == "down"


def test_short_pauses_between_work_do_not_churn_workers(cluster: LocalCluster, client: Client):
    adaptive = adapt(cluster, maximum=3)
    for number in range(10):
        client.submit(hold_briefly, number, pure=False).result()
        time.sleep(0.1)
    assert len(adaptive.log) == 1


def hold_briefly(number: int) -> int:
    time.sleep(0.05)
    return number


def take_a_while(number: int) -> int:
    time.sleep(0.4)
    return number


def test_a_long_chain_gets_one_worker_and_a_few_tasks_no_more_than_they_are(cluster: LocalCluster, client: Client):
    with dask_config({"distributed.scheduler.default-task-durations": {"hold_briefly": 1000}}):
        adaptive = adapt(cluster, maximum=10)
        value = client.submit(hold_briefly, 1, pure=False)
        for _ in range(30):
            value = client.submit(hold_briefly, value, pure=False)
        assert value.result() == 1
        assert max(change["n"] for change in changes(adaptive, "up")) == 1


def test_tasks_known_to_be_long_get_a_slot_each_and_threads_are_counted(cluster: LocalCluster, client: Client):
    """Dask asks for 40 workers where 200 long tasks meet 5 threads each: so do we, and from nothing too."""
    cluster.new_spec["options"]["nthreads"] = 5
    adaptive = BacklogAdaptive(cluster, interval="1h", maximum=100)
    cluster.sync(adaptive.adapt)
    raw = {**read_backlog(client)}
    row = {"prefix": "slow", "resources": {}, "waiting": 0, "ready": 200, "processing": 0, "seconds": 1000.0}
    (decision,) = adaptive._decide({**raw, "tasks": [row]})
    assert (decision.need, decision.rule) == (40, "parallelism")
    adaptive.stop()


def test_a_lower_maximum_removes_busy_workers_too(cluster: LocalCluster, client: Client):
    adapt(cluster, minimum=4, maximum=4)
    eventually(lambda: len(cluster.scheduler.workers) == 4)
    futures = client.map(take_a_while, range(40), pure=False)
    eventually(lambda: sum(len(ws.processing) for ws in cluster.scheduler.workers.values()) >= 4)
    adapt(cluster, maximum=2)
    eventually(lambda: len(cluster.scheduler.workers) == 2)
    assert any(not future.done() for future in futures)
    assert sorted(client.gather(futures)) == list(range(40))


def test_cores_and_memory_may_bound_it(cluster: LocalCluster):
    cluster.new_spec["options"].update(nthreads=2, memory_limit=3_000_000_000)
    found = adapt(cluster, minimum_cores=3, maximum_cores=9)
    assert (found.minimum, found.maximum) == (2, 4)
    found = adapt(cluster, minimum_memory="7GB", maximum_memory="20GB")
    assert (found.members.limits["worker"].minimum, found.members.limits["worker"].maximum) == (3, 6)


def test_dasks_configuration_gives_the_defaults(cluster: LocalCluster):
    with dask_config({"distributed.adaptive.minimum": 10}):
        found = BacklogAdaptive(cluster, interval="1h")
    assert found.minimum == found.members.limits["worker"].minimum == 10
    assert found.interval == 3600
    found.stop()


def test_adapting_again_stops_the_first(cluster: LocalCluster):
    first, second = adapt(cluster, maximum=1), adapt(cluster, maximum=2)
    eventually(lambda: second.state == "running")
    assert (first.state, first.periodic_callback) == ("stopped", None)
    assert second.periodic_callback.is_running()


def test_no_memory_limit_is_no_reason_to_grow(cluster: LocalCluster, client: Client):
    cluster.new_spec["options"]["memory_limit"] = 0
    adaptive = adapt(cluster, minimum=1, maximum=10)
    assert client.gather(client.map(hold_briefly, range(5), pure=False)) == list(range(5))
    assert sum(change["n"] for change in changes(adaptive, "up")) <= 5


def test_it_ends_with_the_cluster_or_when_that_stops_running_or_is_dropped(cluster: LocalCluster):
    found = adapt(cluster)
    eventually(lambda: found.state == "running")
    cluster.status = Status.closing
    eventually(lambda: found.state == "stopped" and not found.periodic_callback)
    cluster.status = Status.running
    found.stop()  # once more does nothing
    dropped = adapt(cluster)
    callback = dropped.periodic_callback
    eventually(callback.is_running)
    cluster._adaptive = None
    del dropped
    eventually(lambda: gc.collect() >= 0 and not callback.is_running())
    last = adapt(cluster)
    eventually(lambda: last.state == "running")
    cluster.close()
    assert last.state == "stopped"


def test_errors_are_logged_once_and_it_goes_on(
    cluster: LocalCluster, client: Client, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    adaptive = adapt(cluster, maximum=2)
    broken = [True]
    retire = adaptive.members.retire

    async def sometimes(*args: Any, **kwargs: Any) -> Any:
        if broken:
            raise OSError("no network")
        return await retire(*args, **kwargs)

    adaptive.members.retire = sometimes
    with caplog.at_level(logging.WARNING, logger="daskml_scale"):
        assert client.submit(hold_briefly, 1, pure=False).result() == 1
        eventually(lambda: "no network" in caplog.text)
        assert adaptive.state == "running"
        broken.clear()
        eventually(lambda: not cluster.scheduler.workers)


def test_groups_of_an_entry_go_together(client: Client, cluster: LocalCluster):
    """What distributed's ``worker_key`` is used for: processes of one batch job."""
    cluster.new_spec = {"cls": Worker, "options": {"nthreads": 1}, "group": ["-0", "-1"]}
    cluster.worker_spec = dict.fromkeys(("job-a", "job-b"), cluster.new_spec)
    adaptive = BacklogAdaptive(cluster, interval="1h")
    idle = {("job-a", "-0"): 0.0, ("job-a", "-1"): None, ("job-b", "-0"): 0.0, ("job-b", "-1"): 5.0}
    rows = [
        {"name": f"{job}{part}", "status": "running", "idle_since": since, "unique_bytes": 1, "nthreads": 1,
         "resources": {}, "address": ""}
        for (job, part), since in idle.items()
    ]  # fmt: skip
    raw = {"time": 1e6, "stages": [], "tasks": [], "workers": rows}
    adaptive._decide(raw)
    (decision,) = [found for found in adaptive._decide({**raw, "time": 2e6}) if found.retire]
    assert decision.retire == ("job-b",)
    cluster.worker_spec = {}
    adaptive.stop()


def test_limits_count_workers_of_which_a_job_has_several(cluster: LocalCluster):
    """As Dask's own do; 64 workers of jobs of 8 are 8 jobs."""
    options = {"cores": 8, "processes": 8}
    cluster.new_spec = {"cls": Worker, "options": options, "group": [f"-{n}" for n in range(8)]}
    for (least, most), jobs in {(9, 64): (2, 8), (0, 4): (0, 1), (13, 15): (1, 1)}.items():
        adaptive = BacklogAdaptive(cluster, interval="1h", minimum=least, maximum=most)
        limits = adaptive.members.limits["worker"]
        assert (limits.minimum, limits.maximum) == jobs
        assert adaptive.members.shapes[0].threads == 8  # cores of a job, not of each of its workers
        adaptive.stop()


def test_options_that_have_no_meaning_are_refused(cluster: LocalCluster):
    with pytest.raises(UsageError, match=r"no option worker_key.*'group' of the cluster's worker_spec"):
        adapt(cluster, worker_key=str)

    class Bare:
        """A cluster that nothing can add workers to."""

    with pytest.raises(UsageError, match="Bare has no template of a worker"):
        BacklogAdaptive(Bare())


def test_a_scheduler_that_forgot_the_plugin_gets_it_back(cluster: LocalCluster, client: Client):
    adapt(cluster, maximum=2)
    eventually(lambda: NAME in cluster.scheduler.plugins)
    client.run_on_scheduler(forget)
    assert client.submit(hold_briefly, 3, pure=False).result(timeout=60) == 3


async def forget(dask_scheduler: Any) -> None:
    """What a scheduler that was started anew is like."""
    plugin = dask_scheduler.plugins["daskml-backlog"]
    await plugin.close()
    dask_scheduler.remove_plugin("daskml-backlog")


def test_a_restart_of_all_workers_leaves_it_running(
    cluster: LocalCluster, client: Client, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("daskml_scale.scaling.startup.LEAST_PATIENCE", 1.0)  # that long for workers that do not come
    adapt(cluster, maximum=2)
    assert client.submit(hold_briefly, 3, pure=False).result(timeout=60) == 3
    client.restart(wait_for_workers=False)
    assert client.submit(hold_briefly, 4, pure=False).result(timeout=90) == 4


@pytest.fixture
def mixed() -> Iterator[SpecCluster]:
    """Any SpecCluster, here with a template of GPU workers and one CPU worker that is always there."""
    options = {"nthreads": 1, "memory_limit": "1GiB", "host": "127.0.0.1", "dashboard": False}
    with SpecCluster(
        scheduler={"cls": Scheduler, "options": {"host": "127.0.0.1", "port": 0, "dashboard": False}},
        workers={"base": {"cls": Worker, "options": options}},
        worker={"cls": Worker, "options": {**options, "resources": {"GPU": 1}}},
    ) as found:
        yield found


def test_work_that_needs_a_gpu_starts_workers_that_have_one(mixed: SpecCluster):
    told: list[Any] = []
    with Client(mixed, set_as_default=False) as client:
        adaptive = adapt(mixed, maximum=2, sink=told.append)
        plain = client.map(hold, ["plain"] * 20, range(20), pure=False)
        time.sleep(0.5)
        assert len(mixed.worker_spec) == 1  # plain work waits for the CPU class, which stays as it is
        special = client.map(hold_briefly, range(4), resources={"GPU": 1}, pure=False)
        assert client.gather(special) == list(range(4))
        Event("plain", client=client).set()
        assert sorted(client.gather(plain)) == list(range(20))
        del special, plain
        eventually(lambda: len(mixed.worker_spec) == 1)
        assert {shape.name for shape in adaptive.members.shapes} == {"gpu", "worker"}
        assert {event.worker_class for event in told if event.need != event.have} == {"gpu"}


def test_results_in_memory_survive_the_way_down(cluster: LocalCluster, client: Client, executions: Any):
    """Dask's own path recomputes them (distributed#4069)."""

    def work(number: int) -> bytes:
        import uuid

        (executions / f"{number}-{uuid.uuid4().hex}").touch()
        return bytes([number]) * 1000

    adapt(cluster, minimum=4, maximum=4)
    eventually(lambda: len(cluster.scheduler.workers) == 4)
    futures = client.map(work, range(20), pure=False)
    eventually(lambda: all(future.done() for future in futures))
    adapt(cluster, minimum=1, maximum=4)
    eventually(lambda: len(cluster.scheduler.workers) == 1)
    assert [value[0] for value in client.gather(futures)] == list(range(20))
    assert len(list(executions.iterdir())) == 20
