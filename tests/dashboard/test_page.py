"""The page on real schedulers: added to a live one, preloaded, under a prefix, degraded, in a browser."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

import pytest
from dashboard_helpers import dashboard_of, eventually, fetch, fetch_json, live, scheduler_process
from distributed import Client

from daskml_scale import events
from daskml_scale.dashboard import plugin
from daskml_scale.engine import backlog
from daskml_scale.engine.reporter import BacklogReporter

HOSTILE = '<script>window.hacked=1</script><img src="x" onerror="window.hacked=1">$$x$$'


def start(run: str, stage: str = "features", time: float = 100.0, workflow: str = "flights") -> list[events.Event]:
    return [
        events.RunStarted(time=time, run=run, workflow=workflow, store="s", stages=((stage, "features"), ("p", "map"))),
        events.StageStarted(time=time, run=run, stage=stage, stage_kind="features"),
        events.StagePlanned(time=time, run=run, stage=stage, units=8, reused=2, reasons={"new": 8}),
    ]


def commit(run: str, units: int, stage: str = "features") -> events.UnitsCommitted:
    return events.UnitsCommitted(time=101.0, run=run, stage=stage, units=units, rows=5, seconds=1.0)


def send(client: Client, *stream: events.Event) -> None:
    client.log_event(events.TOPIC, [event.to_dict() for event in stream])


def check_served(url: str) -> None:
    page = fetch(url + "/workflow")
    assert 'id="myTopnav"' in page
    assert "<title>Dask: Workflow</title>" in page or "Bokeh" in page
    for other in ("/status", "/workflow"):
        html = fetch(url + other)
        assert html.count('<a href="workflow">Workflow</a>') == 1
        assert html.count('<a href="individual-workflow">Workflow</a>') == 1
    assert "/individual-workflow" in fetch_json(url + "/individual-plots.json").values()
    assert 'id="myTopnav"' not in fetch(url + "/individual-workflow")


def test_a_live_cluster_gets_the_page_and_its_links(cluster: tuple[Client, str]) -> None:
    client, url = cluster
    check_served(url)
    assert plugin.install(client), "a second time changes nothing"
    check_served(url)


def test_a_preloaded_scheduler_has_the_page_and_its_links(tmp_path: Path) -> None:
    with scheduler_process(tmp_path) as (_, address), Client(address) as client:
        url = dashboard_of(client)
        check_served(url)
        send(client, *start("r1"), commit("r1", 3))
        assert fetch_json(url + "/workflow.json")["runs"][0]["stages"][0]["done"] == 3
        assert plugin.install(client), "a preloaded scheduler keeps its plugin"
        assert fetch_json(url + "/workflow.json")["newest"] == "r1"


def test_the_page_works_under_a_prefix() -> None:
    with live(scheduler_kwargs={"http_prefix": "proxy/me"}) as (client, url):
        assert plugin.install(client)
        check_served(url + "/proxy/me")
        assert fetch_json(url + "/proxy/me/workflow.json")["runs"] == []


def test_the_json_tells_runs_stages_workers_scaling_and_backlog(cluster: tuple[Client, str]) -> None:
    client, url = cluster
    scaled = events.Scaled(time=99.0, worker_class="cpu", have=1, need=2, backlog_seconds=9.0, reason="busy")
    send(client, *start("json"), scaled, commit("json", 3))
    client.log_event(events.TOPIC, commit("json", 1).to_dict())
    assert fetch_json(url + "/workflow.json")["backlog"] is None
    client.register_plugin(backlog.BacklogPlugin(), name=backlog.NAME)
    BacklogReporter(client, "features").report(units_left=4, runnable=4, seconds_per_unit=0.5, in_flight=0, now=1.0)
    data = fetch_json(url + "/workflow.json?run=json")
    assert data["workers"] == 1
    assert data["backlog"] == {"units": 4, "seconds": 2.0}
    assert data["newest"] == "json"
    assert data["scaling"] == [scaled.to_dict()]
    (run,) = data["runs"]
    assert (run["run"], run["workflow"], run["state"]) == ("json", "flights", "running")
    stage = run["stages"][0]
    assert (stage["name"], stage["done"], stage["units"], stage["total"]) == ("features", 4, 8, 10)
    assert stage["fraction"] == pytest.approx(0.6)
    assert run["stages"][1]["state"] == "waiting"


def test_metrics_have_bounded_labels(cluster: tuple[Client, str]) -> None:
    client, url = cluster
    stages = tuple((f"stage{i}", "map") for i in range(90))
    send(client, events.RunStarted(time=1.0, run="wide-run", workflow="w", store="s", stages=stages))
    lines = [line for line in fetch(url + "/metrics").splitlines() if line.startswith("daskml_stage_progress_ratio{")]
    assert len(lines) == 50
    assert "wide-run" not in fetch(url + "/metrics")


def test_hostile_names_cannot_leave_the_json(cluster: tuple[Client, str]) -> None:
    client, url = cluster
    send(client, *start(HOSTILE, HOSTILE, workflow=HOSTILE))
    text = fetch(url + "/workflow.json")
    assert "<" not in text
    assert "\\u003cscript" in text
    run = next(run for run in json.loads(text)["runs"] if run["run"] == HOSTILE)
    assert run["stages"][0]["name"] == HOSTILE


def test_messages_that_are_not_ours_are_counted_and_ignored(cluster: tuple[Client, str]) -> None:
    client, url = cluster
    before = fetch_json(url + "/workflow.json")
    for junk in (7, "text", {"event": "units_committed"}, [{"progress": 5}, None], {"event": "from_the_future"}):
        client.log_event(events.TOPIC, junk)
    client.log_event("another-topic", commit("elsewhere", 1).to_dict())
    after = fetch_json(url + "/workflow.json")
    assert [run["run"] for run in after["runs"]] == [run["run"] for run in before["runs"]]
    assert client.run_on_scheduler(lambda dask_scheduler: dask_scheduler.plugins["daskml-workflow"].ignored) == 6


def test_without_the_private_parts_the_json_remains_and_one_warning_says_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with live() as (client, url):
        monkeypatch.delattr("distributed.dashboard.core.BokehApplication")
        monkeypatch.delattr("distributed.dashboard.scheduler.template_variables")
        assert plugin.install(client)
        send(client, *start("r"))
        assert fetch_json(url + "/workflow.json")["newest"] == "r"
        with pytest.raises(HTTPError, match="404"):
            fetch(url + "/workflow")
    warned = [
        record for record in caplog.records if record.levelno >= logging.WARNING and "does not show" in record.message
    ]
    assert len(warned) == 1
    assert "the page /workflow" in warned[0].message
    assert "its link" in warned[0].message


def test_a_scheduler_that_refuses_the_plugin_costs_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    with live() as (client, _):
        pass
    assert not plugin.install(client)
    assert "No /workflow page on this scheduler" in caplog.text


def column(browser: Any, name: str) -> list[Any]:
    script = """
        const doc = window.Bokeh && Bokeh.documents[0];
        const model = doc && doc.get_model_by_name('stages');
        return model ? Array.from(model.get_column(arguments[0]) || []) : [];
    """
    return list(browser.execute_script(script, name))


def text(browser: Any, name: str) -> str:
    return str(browser.execute_script("return Bokeh.documents[0].get_model_by_name(arguments[0]).text", name))


def check_console(browser: Any) -> None:
    severe = [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]
    assert severe == []


def test_a_browser_shows_bars_that_move(cluster: tuple[Client, str], browser: Any, tmp_path: Path) -> None:
    client, url = cluster
    send(client, *start("shown"), *start("older", time=50.0), *start("shown", time=200.0))
    browser.get(url + "/workflow")
    assert eventually(lambda: column(browser, "name")) == ["features", "p"]
    assert column(browser, "reused") == [0.2, 0]
    assert column(browser, "committed") == [0, 0]
    send(client, commit("shown", 4))
    assert eventually(lambda: column(browser, "committed")[0]) == 0.4
    assert column(browser, "label")[0].startswith("6 / 10")
    send(client, commit("shown", 4))
    eventually(lambda: column(browser, "committed")[0] == 0.8)
    end = events.RunFinished(time=209.0, run="shown", state="failed", seconds=9.0, exit_code=1, message="on purpose")
    send(client, end)
    eventually(lambda: "on purpose" in text(browser, "header"))
    painted = browser.execute_script(
        "const find = root => [...root.querySelectorAll('*')].flatMap("
        "e => [...(e.tagName === 'CANVAS' && e.width > 300 ? [e] : []), ...(e.shadowRoot ? find(e.shadowRoot) : [])]);"
        "return find(document).length"
    )
    assert painted >= 1
    browser.get(url + "/workflow?run=older")
    eventually(lambda: "run older" in (column(browser, "name") and text(browser, "header")))
    check_console(browser)


def test_a_browser_runs_nothing_that_a_name_holds(cluster: tuple[Client, str], browser: Any) -> None:
    client, url = cluster
    warned = events.Warned(time=101.0, run=HOSTILE, stage=HOSTILE, message=HOSTILE)
    scaled = events.Scaled(time=101.0, worker_class=HOSTILE, have=1, need=2, backlog_seconds=9.0, reason=HOSTILE)
    send(client, *start(HOSTILE, HOSTILE, time=300.0, workflow=HOSTILE), warned, scaled)
    browser.get(url + "/workflow")
    eventually(lambda: column(browser, "name"))
    send(client, commit(HOSTILE, 1, stage=HOSTILE))
    eventually(lambda: column(browser, "committed")[0] == 0.1)
    assert "&lt;script&gt;" in text(browser, "header")
    assert browser.execute_script("return window.hacked === undefined")
    check_console(browser)
