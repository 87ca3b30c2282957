"""The backlog on the scheduler: what dispatchers report, what other tasks add up to, who is idle."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from dask.config import set as dask_config
from distributed import Client, Event, LocalCluster, wait

from daskml_scale.engine.backlog import MAX_ROWS, TOPIC, BacklogPlugin, read_backlog, snapshot
from daskml_scale.engine.reporter import ENOUGH_TASKS, BacklogReporter


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    """Scheduler and two one-thread workers as threads of this process; worker 1 has a resource."""
    with (
        dask_config({"distributed.scheduler.preload": ["daskml_scale.engine.backlog"]}),
        LocalCluster(
            n_workers=0, processes=False, protocol="tcp", host="127.0.0.1", dashboard_address="127.0.0.1:0"
        ) as found,
    ):
        worker = found.new_spec
        for name, resources in (("plain", {}), ("special", {"GPU": 2})):
            options = {**worker["options"], "nthreads": 1, "resources": resources, "memory_limit": "1GiB"}
            found.worker_spec[name] = {"cls": worker["cls"], "options": options}
        found.sync(found._correct_state)
        yield found


@pytest.fixture
def client(cluster: LocalCluster) -> Iterator[Client]:
    with Client(cluster, set_as_default=False) as found:
        yield found


def eventually(condition: Callable[[], Any]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, "it did not happen within 20 s"
        time.sleep(0.02)


def tasks(client: Client, prefix: str) -> list[dict[str, Any]]:
    return [row for row in read_backlog(client)["tasks"] if row["prefix"] == prefix]


def worker_rows(client: Client) -> dict[str, dict[str, Any]]:
    return {row["name"]: row for row in read_backlog(client)["workers"]}


def report(reporter: BacklogReporter, now: float, units: int = 10, **changes: Any) -> bool:
    values: dict[str, Any] = {
        "units_left": units,
        "runnable": units,
        "seconds_per_unit": 0.5,
        "in_flight": 2,
        "now": now,
        **changes,
    }
    return reporter.report(**values)


def test_a_report_is_listed_and_the_last_one_takes_it_off(client: Client):
    reporter = BacklogReporter(client, "predict", {"GPU": 1})
    assert report(reporter, now=0.0)
    assert read_backlog(client)["stages"] == [
        {
            "client": client.id,
            "stage": "predict",
            "units_left": 10,
            "runnable": 10,
            "in_flight": 2,
            "seconds_per_unit": 0.5,
            "resources": {"GPU": 1.0},
            "weight": 1.0,
        }
    ]
    assert report(reporter, now=0.1, units=0)
    assert read_backlog(client)["stages"] == []


def test_reports_are_at_least_half_a_second_apart_except_first_last_and_forced(client: Client):
    reporter = BacklogReporter(client, "features")
    sent = [report(reporter, now=step / 10) for step in range(12)]
    assert [step for step, went in enumerate(sent) if went] == [0, 5, 10]
    assert report(reporter, now=1.15, force=True)
    assert report(reporter, now=1.16, units=0)
    assert not report(reporter, now=1.17, units=0)  # nothing to take off any more
    assert report(reporter, now=1.18, units=3)  # work may grow again
    reporter.close()
    assert read_backlog(client)["stages"] == []


def test_the_cost_of_a_task_to_the_scheduler_is_told_once_enough_have_run(client: Client):
    reporter = BacklogReporter(client, "map")
    report(reporter, now=0.0)
    client.gather(client.map(str, range(ENOUGH_TASKS - 1)))
    report(reporter, now=1.0)
    assert reporter.overhead() is None  # too few
    client.gather(client.map(abs, range(ENOUGH_TASKS)))
    report(reporter, now=2.0)
    told = reporter.overhead()
    assert told is not None
    assert 0 < told < 1
    report(reporter, now=3.0)
    assert reporter.overhead() is None  # no news


def test_an_unknown_duration_stays_unknown(client: Client):
    reporter = BacklogReporter(client, "search")
    report(reporter, now=0.0, seconds_per_unit=None)
    assert read_backlog(client)["stages"][0]["seconds_per_unit"] is None
    reporter.close()
    reporter.close()
    assert read_backlog(client)["stages"] == []


def test_a_client_that_leaves_takes_its_stages_along(cluster: LocalCluster, client: Client):
    with Client(cluster, set_as_default=False) as other:
        report(BacklogReporter(other, "theirs"), now=0.0)
        mine = BacklogReporter(client, "mine")
        report(mine, now=0.0)
        assert {row["stage"] for row in read_backlog(client)["stages"]} == {"theirs", "mine"}
    eventually(lambda: [row["stage"] for row in read_backlog(client)["stages"]] == ["mine"])
    mine.close()


def test_a_report_after_the_client_closed_is_dropped_quietly(cluster: LocalCluster):
    with Client(cluster, set_as_default=False) as other:
        reporter = BacklogReporter(other, "late")
        report(reporter, now=0.0)
    assert not report(reporter, now=9.0)
    reporter.close()


@pytest.mark.parametrize("message", [{"stage": "x"}, {"client": "c", "stage": "x", "units_left": "many"}, "text", 7])
def test_malformed_reports_are_ignored(client: Client, message: Any):
    client.log_event(TOPIC, message)
    assert read_backlog(client)["stages"] == []


def test_the_number_of_stages_is_bounded():
    plugin = BacklogPlugin()
    for number in range(MAX_ROWS + 50):
        plugin.log_event(TOPIC, {"client": "c", "stage": f"s{number}", "units_left": 1})
    assert len(plugin.stages) == MAX_ROWS
    assert ("c", "s0") not in plugin.stages
    assert ("c", f"s{MAX_ROWS + 49}") in plugin.stages


def hold(name: str, number: int) -> int:
    Event(name).wait(timeout=60)
    return number


def test_other_tasks_are_counted_by_state_until_they_are_done(client: Client):
    gate = Event("states", client=client)
    first = client.map(hold, ["states"] * 5, range(5), pure=False, key="held")
    after = client.submit(sum, first, key="after-1")

    def counts() -> tuple[int, int, int]:
        (row,) = tasks(client, "held") or [{"waiting": 0, "ready": 0, "processing": 0}]
        return row["waiting"], row["ready"], row["processing"]

    eventually(lambda: sum(counts()) == 5 and counts()[2] >= 2)
    assert counts()[0] == 0
    (row,) = tasks(client, "after")
    assert (row["waiting"], row["ready"], row["processing"]) == (1, 0, 0)
    gate.set()
    assert after.result() == 10
    eventually(lambda: tasks(client, "held") == [] and tasks(client, "after") == [])


def test_tasks_that_need_a_resource_have_their_own_row_and_wait_when_nobody_has_it(client: Client):
    nobody = client.submit(hold, "never", 1, key="needs-tpu-1", resources={"TPU": 1})
    eventually(lambda: tasks(client, "needs-tpu"))
    (row,) = tasks(client, "needs-tpu")
    assert (row["resources"], row["ready"], row["processing"], row["seconds"]) == ({"TPU": 1}, 1, 0, None)
    nobody.cancel()
    eventually(lambda: tasks(client, "needs-tpu") == [])


def test_durations_are_those_that_dask_measured(client: Client):
    wait(client.map(lambda number: time.sleep(0.05), range(4), pure=False, key="napping"))
    gate = Event("durations", client=client)
    client.submit(hold, "durations", 0, key="blocker-1", pure=False)
    naps = client.map(lambda number: time.sleep(0.05), range(50), pure=False, key="napping")
    eventually(lambda: tasks(client, "napping"))
    (row,) = tasks(client, "napping")
    assert 0.04 < row["seconds"] < 5
    gate.set()
    wait(naps)


def test_dispatch_tasks_are_not_counted_twice(client: Client):
    gate = Event("ours", client=client)
    ours = client.map(hold, ["ours"] * 3, range(3), key=[f"daskml-predict-{n}" for n in range(3)])
    eventually(lambda: sum(row["processing"] for row in worker_rows(client).values()) >= 2)
    assert read_backlog(client)["tasks"] == []
    assert {row["idle_since"] for row in worker_rows(client).values()} == {None}
    gate.set()
    wait(ours)


def test_cancelled_and_failed_work_leaves_no_count_behind(client: Client):
    def fail(number: int) -> None:
        raise ValueError(number)

    wait(client.map(fail, range(5), pure=False))
    held = client.map(hold, ["cancelled"] * 20, range(20), pure=False)
    eventually(lambda: tasks(client, "hold"))
    client.cancel(held)
    Event("cancelled", client=client).set()
    eventually(lambda: read_backlog(client)["tasks"] == [])


def test_a_worker_is_idle_from_the_end_of_its_last_task_and_says_what_only_it_holds(client: Client):
    data = client.submit(bytes, 50_000, workers=["plain"], key="data-1")
    wait(data)
    rows = worker_rows(client)
    assert rows["plain"]["unique_bytes"] >= 50_000
    assert rows["special"]["unique_bytes"] == 0
    assert rows["special"]["resources"] == {"GPU": 2}
    before = rows["plain"]["idle_since"]
    assert before is not None
    assert worker_rows(client)["plain"]["idle_since"] == before  # stands still while nothing happens
    wait(client.submit(int, 1, workers=["plain"], key="short-1"))
    eventually(lambda: (worker_rows(client)["plain"]["idle_since"] or 0) > before)
    wait(client.submit(len, data, workers=["special"], key="copy-1"))
    eventually(lambda: worker_rows(client)["plain"]["unique_bytes"] < 50_000)  # now both have it


def test_a_worker_with_work_is_not_retired(client: Client):
    gate = Event("busy", client=client)
    wanted = client.submit(hold, "busy", 1, workers=["plain"], key="busy-1")
    eventually(lambda: worker_rows(client)["plain"]["processing"] == 1)
    assert client.sync(client.scheduler.daskml_retire, names=["plain"]) == ()
    assert client.sync(client.scheduler.daskml_retire, names=["nobody"]) == ()
    assert worker_rows(client)["plain"]["status"] == "running"
    gate.set()
    assert wanted.result() == 1


def test_the_plugin_can_be_registered_by_a_client_and_counts_what_is_there_already():
    with (
        LocalCluster(
            n_workers=1,
            threads_per_worker=1,
            processes=False,
            protocol="tcp",
            host="127.0.0.1",
            dashboard_address="127.0.0.1:0",
        ) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        gate = Event("early", client=client)
        early = client.map(hold, ["early"] * 4, range(4), pure=False)
        client.register_plugin(BacklogPlugin())
        client.register_plugin(BacklogPlugin())  # once more changes nothing
        eventually(lambda: sum(row["ready"] + row["processing"] for row in tasks(client, "hold")) == 4)
        assert client.run_on_scheduler(lambda dask_scheduler: snapshot(dask_scheduler)["tasks"]) == tasks(
            client, "hold"
        )
        gate.set()
        wait(early)
        eventually(lambda: read_backlog(client)["tasks"] == [])
