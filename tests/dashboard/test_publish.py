"""The publisher: what it sums up, what it keeps in order, and that a lost scheduler costs nothing."""

from __future__ import annotations

import dataclasses
import time
from contextlib import ExitStack
from pathlib import Path
from types import MappingProxyType
from typing import Any

import dask
from dashboard_helpers import QUICK, dashboard_of, eventually, fetch_json, folded, live, scheduler_process, stage_events
from distributed import Client
from hypothesis import given
from hypothesis import strategies as st

from daskml_scale import events
from daskml_scale.api_cluster import Publishing
from daskml_scale.dashboard import plugin, private, publish
from daskml_scale.dashboard.progress import Progress, fold
from daskml_scale.dashboard.publish import merge, publisher, wait
from daskml_scale.dashboard.stage import Pace

RUN = events.RunStarted(time=1.0, run="r", workflow="w", store="s", stages=(("a", "ingest"), ("b", "ingest")))


def commit(stage: str = "a", units: int = 1, when: float = 2.0) -> events.UnitsCommitted:
    return events.UnitsCommitted(time=when, run="r", stage=stage, units=units, failed=1, rows=10, seconds=0.5)


def timeless(progress: Progress) -> Progress:
    """Drop what depends on when, not on how much."""
    stages = tuple(
        dataclasses.replace(stage, seconds=round(stage.seconds, 6), started=0.0, wall=0.0, pace=Pace())
        for stage in progress.stages
    )
    return dataclasses.replace(progress, stages=stages, started=0.0)


@QUICK
@given(st.lists(stage_events(), max_size=30))
def test_summed_events_fold_to_the_same_counts(stream: list[events.Event]) -> None:
    stream = [dataclasses.replace(event, time=float(i + 1)) for i, event in enumerate(stream)]
    pending: list[events.Event] = []
    for event in stream:
        pending = merge(pending, event)
    assert timeless(folded(*pending)) == timeless(folded(*stream))
    other = [event for event in pending if not isinstance(event, events.UnitsCommitted)]
    assert [event.time for event in other] == [e.time for e in stream if not isinstance(e, events.UnitsCommitted)]


def test_commits_are_summed_per_stage_but_not_across_another_event() -> None:
    pending: list[events.Event] = []
    for event in (commit(), commit("b"), commit(), RUN, commit()):
        pending = merge(pending, event)
    assert [getattr(event, "units", None) for event in pending] == [2, 1, None, 1]
    assert pending[0] == events.UnitsCommitted(time=2.0, run="r", stage="a", units=2, failed=2, rows=20, seconds=1.0)


def test_only_commits_wait() -> None:
    assert wait([commit()], sent=10.0, now=10.25) == 0.25
    assert wait([commit()], sent=10.0, now=11.0) == 0.0
    assert wait([commit(), RUN], sent=10.0, now=10.0) == 0.0


def test_thousands_of_commits_become_a_few_messages_and_none_is_lost(cluster: tuple[Client, str]) -> None:
    client, url = cluster
    begin = time.monotonic()

    def shown() -> list[tuple[str, int, int]]:
        run = fetch_json(url + "/workflow.json?run=r")["runs"][0]
        return [(stage["name"], stage["done"], stage["rows"]) for stage in run["stages"]]

    with publisher(client) as sink:
        sink(RUN)
        for i in range(2000):
            sink(commit("ab"[i % 2]))
        eventually(lambda: shown() == [("a", 1000, 10000), ("b", 1000, 10000)])
        assert sink.messages <= 2 + (time.monotonic() - begin) / publish.INTERVAL


def test_scaling_decisions_arrive_whether_sent_as_events_or_with_the_whole(cluster: tuple[Client, str]) -> None:
    client, url = cluster
    first = events.Scaled(time=1.0, worker_class="cpu", have=1, need=2, backlog_seconds=9.0, reason="busy")
    second = dataclasses.replace(first, time=2.0, have=2, need=4)
    with publisher(client) as sink:
        sink(dataclasses.replace(RUN, run="scales"))
        sink(first)
        eventually(lambda: fetch_json(url + "/workflow.json")["scaling"] == [first.to_dict()])
        sink(second)
    assert fetch_json(url + "/workflow.json")["scaling"] == [first.to_dict(), second.to_dict()]
    assert fetch_json(url + "/workflow.json?run=scales")["runs"][0]["scaled"] == [first.to_dict(), second.to_dict()]


def test_an_event_that_cannot_travel_is_replaced_by_the_whole_progress(cluster: tuple[Client, str]) -> None:
    client, url = cluster
    plan = events.StagePlanned(
        time=2.0, run="odd plan", stage="a", units=3, reused=1, reasons=MappingProxyType({"new": 3})
    )
    with publisher(client) as sink:
        sink(dataclasses.replace(RUN, run="odd plan"))
        sink(plan)
    stage = fetch_json(url + "/workflow.json?run=odd%20plan")["runs"][0]["stages"][0]
    assert (stage["units"], stage["reasons"]) == (3, {"new": 3})


def test_events_after_close_are_dropped_and_a_result_that_cannot_travel_is_left_out(
    cluster: tuple[Client, str],
) -> None:
    client, url = cluster
    sink = publisher(client)
    sink(dataclasses.replace(RUN, run="odd"))
    end = events.StageFinished(
        time=3.0, run="odd", stage="a", state="ok", seconds=1.0, units=3, reused=1, result={"model": object()}
    )
    sink(end)
    sink.close()
    sink(dataclasses.replace(commit(), run="odd"))
    stage = fetch_json(url + "/workflow.json?run=odd")["runs"][0]["stages"][0]
    assert (stage["state"], stage["done"], stage["reused"]) == ("ok", 2, 1)


def test_a_closed_client_never_raises(caplog: Any) -> None:
    with dask.config.set({"distributed.comm.timeouts.connect": "500ms"}):
        with live() as (client, _):
            pass
        with publisher(client) as sink:
            for event in (RUN, commit(), commit("b")):
                sink(event)
    assert sink.messages == 0
    warned = [record for record in caplog.records if "does not take progress events" in record.message]
    assert len(warned) == 1


def test_a_scheduler_that_comes_back_is_told_everything(tmp_path: Path) -> None:
    with dask.config.set({"distributed.comm.timeouts.connect": "60s"}):
        with scheduler_process(tmp_path) as (process, address):
            client = Client(address)
            sink = publisher(client)
            progress = Progress()

            def tell(event: events.Event) -> None:
                nonlocal progress
                progress = fold(progress, event)
                sink(event)

            tell(RUN)
            tell(commit(units=5))
            eventually(lambda: sink.messages >= 1)
            first = private.scheduler_id(client)
            process.kill()
            process.wait()
            for _ in range(3):
                tell(commit(units=2))
                tell(events.Warned(time=3.0, run="r", stage="a", message="during the gap"))
        with scheduler_process(tmp_path, int(address.rpartition(":")[2])):
            # Its status alone may be that of before: a busy client has not noticed the loss yet.
            eventually(lambda: client.status == "running" and private.scheduler_id(client) not in ("", first), 120)
            url = dashboard_of(client) + "/workflow.json"
            tell(commit("b", when=4.0))
            sink.close(60)
            shown = Progress.from_dict(fetch_json(url)["runs"][0])
            client.close()
    assert timeless(shown) == timeless(progress)
    assert len(shown.warnings) == 3


def mapped(run: str) -> list[events.Event]:
    """What a run says whose first stage has a map of three cells."""
    return [
        dataclasses.replace(RUN, run=run),
        events.StageStarted(time=2.0, run=run, stage="a", stage_kind="map"),
        events.StagePlanned(time=2.0, run=run, stage="a", units=3, reused=0, cells=events.CellGrid("rows", (3,), (1,))),
        cell(run, 0),
    ]


def cell(run: str, at: int) -> events.UnitsCommitted:
    row = events.Cell(at, 1, 0, 0, 1.0, f"rows/{at}", "cpu-0", "new")
    return events.UnitsCommitted(time=3.0 + at, run=run, stage="a", units=1, cells=(row,))


def states(url: str, run: str) -> tuple[str, int]:
    found = fetch_json(f"{url}/workflow.json?page=1&run={run}")
    return (found["map"]["cells"], found["run"]["stages"][0]["done"]) if found["map"] else ("", 0)


def test_another_scheduler_is_told_what_happened_on_the_one_before(cluster: tuple[Client, str]) -> None:
    client, url = cluster
    with ExitStack() as stack, live() as (other, there):
        assert plugin.install(other)
        publish = Publishing(events.ignore, stack)
        publish.to(client)
        for event in mapped("moves"):
            publish(event)
        eventually(lambda: states(url, "moves") == ("ctt", 1))
        publish.to(None)
        publish(cell("moves", 1))
        publish.to(other)
        eventually(lambda: states(there, "moves") == ("cct", 2))
        publish(cell("moves", 2))
        eventually(lambda: states(there, "moves") == ("ccc", 3))


def test_a_scheduler_that_was_replaced_between_two_messages_is_told_the_map(tmp_path: Path) -> None:
    with dask.config.set({"distributed.comm.timeouts.connect": "60s"}):
        with scheduler_process(tmp_path) as (_, address):
            client = Client(address)
            sink = publisher(client)
            first = private.scheduler_id(client)
            for event in mapped("r"):
                sink(event)
            eventually(lambda: states(dashboard_of(client), "r") == ("ctt", 1))
        with scheduler_process(tmp_path, int(address.rpartition(":")[2])):
            eventually(lambda: client.status == "running" and private.scheduler_id(client) not in ("", first), 120)
            sink(cell("r", 1))
            eventually(lambda: states(dashboard_of(client), "r") == ("cct", 2), 60)
            sink.close()
            client.close()
