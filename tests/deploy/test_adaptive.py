"""Following the backlog: from one worker to all and back, by reports and by plain Dask tasks."""

from __future__ import annotations

import logging
import time
from typing import Any

import pytest
from deploy_helpers import SPEC, Recorder, eventually
from distributed import Client, Event, wait

from daskml_scale import deploy, events
from daskml_scale.deploy.local import ScaledLocalCluster
from daskml_scale.engine.backlog import read_backlog
from daskml_scale.engine.dispatch import dispatch
from daskml_scale.engine.reporter import BacklogReporter
from daskml_scale.plan.units import Unit


def hold(name: str, number: int) -> int:
    Event(name).wait(timeout=120)
    return number


def test_a_reported_backlog_gets_all_workers_and_its_end_releases_them(
    cluster: ScaledLocalCluster, client: Client, recorder: Recorder
):
    recorder.events.clear()
    reporter = BacklogReporter(client, "predict")
    reporter.report(units_left=1000, runnable=1000, seconds_per_unit=0.5, in_flight=0, now=0.0)
    eventually(lambda: len(cluster.observed) == 2)
    reporter.close()
    eventually(lambda: len(cluster.observed) == 1)
    up, down = (event for event in recorder.events if isinstance(event, events.Scaled) and event.need != event.have)
    assert (up.worker_class, up.have, up.need, up.backlog_seconds) == ("cpu", 1, 2, 500.0)
    assert "predict" in up.reason
    assert "at most 2 workers" in up.reason
    assert (down.have, down.need) == (2, 1)
    assert "idle" in down.reason


def test_plain_dask_tasks_get_all_workers_too(cluster: ScaledLocalCluster, client: Client):
    gate = Event("plain", client=client)
    futures = client.map(hold, ["plain"] * 20, range(20), pure=False)
    eventually(lambda: len(cluster.observed) == 2)
    gate.set()
    assert sorted(client.gather(futures)) == list(range(20))
    del futures
    eventually(lambda: len(cluster.observed) == 1)


def test_results_in_memory_survive_the_way_back(cluster: ScaledLocalCluster, client: Client, executions: Any):
    def work(number: int) -> bytes:
        import time
        import uuid

        time.sleep(0.1)
        (executions / f"{number}-{uuid.uuid4().hex}").touch()
        return bytes([number]) * 10_000

    reporter = BacklogReporter(client, "predict")
    reporter.report(units_left=1000, runnable=1000, seconds_per_unit=0.5, in_flight=0, now=0.0)
    eventually(lambda: len(cluster.observed) == 2)
    futures = client.map(work, range(20), pure=False)
    wait(futures)
    assert len({worker for held in client.who_has(futures).values() for worker in held}) == 2
    reporter.close()
    eventually(lambda: len(cluster.observed) == 1)
    assert [result[0] for result in client.gather(futures)] == list(range(20))
    assert len(list(executions.iterdir())) == 20


def test_numbers_in_names_are_never_used_again(cluster: ScaledLocalCluster, client: Client, recorder: Recorder):
    seen = {event.need - event.have for event in recorder.events if isinstance(event, events.Scaled)}
    assert seen >= {1, -1}  # after the tests above
    (now,) = cluster.observed
    assert cluster.new_worker_spec().keys() == {f"cpu-{cluster._numbers['cpu'] - 1}"}
    assert int(now.removeprefix("cpu-")) < cluster._numbers["cpu"] - 1


def test_decisions_are_published_on_the_scheduler(cluster: ScaledLocalCluster, client: Client):
    published = [events.from_dict(message) for _, message in client.get_events(events.TOPIC)]
    assert [type(event) for event in published].count(events.Scaled) >= 2


def kernel(unit: Unit, worker: Any) -> int:
    import time

    time.sleep(0.05)
    return int(unit.payload)


def test_dispatched_units_scale_the_cluster(cluster: ScaledLocalCluster, client: Client):
    units = [Unit(f"u{number}", number) for number in range(200)]
    workers, values = set(), []
    for group in dispatch(kernel, None, units, name="squares", client=client):
        workers |= {outcome.worker for outcome in group}
        values += [outcome.value for outcome in group]
    assert sorted(values) == list(range(200))
    assert len(workers) == 2
    assert read_backlog(client)["stages"] == []


def test_work_that_stays_held_at_the_maximum_is_told_once(
    cluster: ScaledLocalCluster, client: Client, recorder: Recorder
):
    reporter = BacklogReporter(client, "held")
    ticks: list[Any] = []
    original = cluster._adaptive._decide
    cluster._adaptive._decide = lambda raw: ticks.append(raw) or original(raw)
    try:
        reporter.report(units_left=1000, runnable=1000, seconds_per_unit=None, in_flight=0, now=0.0)
        eventually(lambda: len(cluster.observed) == 2)
        recorder.events.clear()
        ticks.clear()
        eventually(lambda: len(ticks) >= 6)
        assert len([event for event in recorder.events if isinstance(event, events.Scaled)]) <= 1
    finally:
        cluster._adaptive._decide = original
        reporter.close()
    eventually(lambda: len(cluster.observed) == 1)


def test_work_that_no_class_can_do_is_reported_once_and_starts_nobody(
    cluster: ScaledLocalCluster, client: Client, recorder: Recorder
):
    recorder.events.clear()
    impossible = client.submit(sum, [1], resources={"TPU": 1}, key="impossible-1", pure=False)
    (event,) = eventually(lambda: [event for event in recorder.events if getattr(event, "worker_class", None) == ""])
    assert event.reason.startswith("impossible tasks: a task needs TPU 1")
    impossible.cancel()
    eventually(lambda: read_backlog(client)["tasks"] == [])
    assert len(cluster.worker_spec) == 1


def test_an_error_is_logged_once_and_scaling_goes_on(
    cluster: ScaledLocalCluster, client: Client, caplog: pytest.LogCaptureFixture
):
    def take(dask_scheduler: Any) -> None:
        dask_scheduler.taken = dask_scheduler.handlers.pop("daskml_backlog")

    def give(dask_scheduler: Any) -> None:
        dask_scheduler.handlers["daskml_backlog"] = dask_scheduler.taken

    def complaints() -> list[str]:
        return [record.message for record in caplog.records if "skipped a step" in record.message]

    ticks = []
    original = cluster._adaptive._decide
    cluster._adaptive._decide = lambda raw: ticks.append(raw) or original(raw)
    with caplog.at_level(logging.WARNING, logger="daskml_scale"):
        client.run_on_scheduler(take)
        eventually(complaints)
        time.sleep(1.5)
        client.run_on_scheduler(give)
        seen = len(ticks)
        eventually(lambda: len(ticks) > seen + 1)
    assert len(complaints()) == 1


def test_a_class_may_shrink_to_nothing_but_never_loses_the_last_copy():
    with deploy.cluster(SPEC) as cluster, Client(cluster) as client:
        cluster.adapt(minimum=0, maximum=1)
        eventually(lambda: not cluster.observed)
        future = client.submit(bytes, 1000, pure=False)
        assert len(future.result(timeout=60)) == 1000
        time.sleep(4)  # idle and not needed for longer than it takes to go, and nobody could take its data
        assert cluster.observed
        assert len(client.gather(future)) == 1000
        cluster.scale(2)  # stops adapting
        eventually(lambda: len(cluster.observed) == 2)
        assert cluster._adaptive.state == "stopped"


def test_a_budget_holds_back_and_at_its_end_releases_all():
    priced = {"cpu": {**SPEC["classes"]["cpu"], "price_per_hour": 10.0}}
    scaling = {"horizon": "1s", "keep_idle": "1s", "budget": {"per_hour": 15.0, "total": 0.02}}
    recorder = Recorder()
    with (
        deploy.cluster({**SPEC, "classes": priced, "scaling": scaling}, sink=recorder) as cluster,
        Client(cluster) as client,
    ):
        reporter = BacklogReporter(client, "predict")
        reporter.report(units_left=1000, runnable=1000, seconds_per_unit=0.5, in_flight=0, now=0.0)
        (event,) = eventually(lambda: list(recorder.events))
        assert (event.have, event.need) == (1, 1)
        assert "15.00 per hour" in event.reason
        reporter.close()
        eventually(lambda: not cluster.observed)  # 0.02 is 7 s of one worker
        assert cluster._adaptive.spent > 0.017  # it stops one look before the end
