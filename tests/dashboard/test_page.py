"""The page on real schedulers: added to a live one, preloaded, under a prefix, degraded, in a browser."""

from __future__ import annotations

import dataclasses
import json
import logging
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlencode, urlsplit

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
    assert "workflow.json" in page
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


def page(url: str, run: str = "", **more: str) -> Any:
    return fetch_json(url + "/workflow.json?" + urlencode({"page": 1, "run": run, **more}))


def test_the_page_gets_one_run_with_workers_cost_alerts_map_and_trials(cluster: tuple[Client, str]) -> None:
    client, url = cluster
    send(client, *mapped("mapped"))
    cells = (events.Cell(1, 2, 0, 1, 3.0, "rows/00000002", "cpu-0", "new"),)
    scores = (events.Score(4, 0, 0, 2, 0.5, "a=1"), events.Score(4, 0, 1, 2, 0.7, ""))
    send(client, dataclasses.replace(commit("mapped", 2, "p"), cells=cells, scores=scores, quarantined=1, cost=0.25))
    found = page(url, "mapped")
    assert found["run"]["edges"] == [["features", "p"]]
    assert (found["map"]["stage"], found["map"]["cells"], found["map"]["done"]) == ("p", "tqt", 2)
    assert found["trials"][0]["best"] == pytest.approx(0.6)
    assert found["trials"][0]["top"] == [{"trial": 4, "rung": 0, "score": pytest.approx(0.6), "params": "a=1"}]
    assert found["fleet"]["count"] == 1
    assert found["cost"]["spent"] == 0.25
    assert "rows without a result in 1 unit" in [one["text"] for one in found["alerts"]]
    cell = page(url, "mapped", map="p", cell="1")
    assert (cell["unit"], cell["worker"], cell["why"], cell["ranges"]) == ("rows/00000002", "cpu-0", "new", [[2, 3]])
    assert cell["seconds"] == 1.5
    assert page(url, "mapped", map="p", cell="99") == page(url, "mapped", map="p", cell="x") == {}
    unknown = page(url, "never heard of")
    assert not unknown["known"]
    assert unknown["run"]["run"] == page(url)["run"]["run"]


def mapped(run: str) -> list[events.Event]:
    grid = events.CellGrid("rows", (6,), (2,))
    return [
        dataclasses.replace(start(run)[0], edges=(("features", "p"),), time=150.0),  # type: ignore[call-arg]
        events.StageStarted(time=150.0, run=run, stage="p", stage_kind="map"),
        events.StagePlanned(time=150.0, run=run, stage="p", units=6, reused=0, reasons={"new": 6}, cells=grid),
    ]


def told(browser: Any, stage: str, name: str) -> str:
    script = """
        const row = [...document.querySelectorAll("tr[data-stage]")].find(row => row.dataset.stage === arguments[0]);
        const cell = row && row.querySelector("[data-count=" + arguments[1] + "]");
        return cell ? cell.textContent : "";
    """
    return str(browser.execute_script(script, stage, name))


def shown(browser: Any, part: str = "") -> str:
    return str(browser.execute_script("return document.querySelector(arguments[0]).innerText", f"#daskml{part}"))


def check_console(browser: Any) -> None:
    severe = [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]
    assert severe == []


def check_local(browser: Any) -> None:
    """Nothing was asked of another machine."""
    names = browser.execute_script("return performance.getEntries().map(entry => entry.name)")
    urls = [urlsplit(name) for name in names if "://" in name]
    assert urls
    assert {url.hostname for url in urls} == {"127.0.0.1"}


def test_a_browser_shows_bars_that_move(cluster: tuple[Client, str], browser: Any) -> None:
    client, url = cluster
    send(client, *start("shown"), *start("older", time=50.0), *start("shown", time=200.0))
    browser.get(url + "/workflow")
    eventually(lambda: told(browser, "features", "reused") == "2")
    assert told(browser, "features", "committed") == "0"
    assert told(browser, "p", "committed") == ""
    send(client, commit("shown", 4))
    eventually(lambda: told(browser, "features", "committed") == "4")
    assert told(browser, "features", "todo") == "4"
    end = events.RunFinished(time=209.0, run="shown", state="failed", seconds=9.0, exit_code=1, message="on purpose")
    send(client, end)
    eventually(lambda: "on purpose" in shown(browser))
    browser.get(url + "/workflow?run=older")
    eventually(lambda: "run older" in shown(browser))
    assert "flights shown failed" in " ".join(shown(browser).split()), "another run is a link, and its state"
    assert "[object" not in shown(browser)
    check_console(browser)
    check_local(browser)


def test_a_browser_draws_the_map_and_a_click_tells_the_unit(cluster: tuple[Client, str], browser: Any) -> None:
    client, url = cluster
    cells = (events.Cell(1, 2, 0, 0, 3.0, "rows/00000002", "cpu-0", "input changed"),)
    send(client, *mapped("click"), dataclasses.replace(commit("click", 2, "p"), cells=cells))
    browser.get(url + "/individual-workflow-chunks?run=click")
    eventually(lambda: browser.execute_script("return document.querySelector('canvas')?.dataset.cells") == "3")
    assert not browser.execute_script("return document.querySelector('#daskml-stages')")
    browser.execute_script(
        "const canvas = document.querySelector('canvas'), box = canvas.getBoundingClientRect();"
        "canvas.dispatchEvent(new MouseEvent('click', {clientX: box.left + 1.5 * canvas.dataset.size * box.width /"
        " canvas.width, clientY: box.top + 2}));"
    )
    eventually(lambda: "rows/00000002 on cpu-0: input changed" in shown(browser, "-cell"))
    assert "1.5 s each" in shown(browser, "-cell")
    check_console(browser)


def test_a_browser_runs_nothing_that_a_name_holds(cluster: tuple[Client, str], browser: Any) -> None:
    client, url = cluster
    warned = events.Warned(time=101.0, run=HOSTILE, stage=HOSTILE, message=HOSTILE)
    scaled = events.Scaled(time=101.0, worker_class=HOSTILE, have=1, need=2, backlog_seconds=9.0, reason=HOSTILE)
    grid = events.CellGrid(HOSTILE, (3,), (1,))
    plan = events.StagePlanned(time=301.0, run=HOSTILE, stage=HOSTILE, units=3, reused=0, cells=grid)
    cell = events.Cell(0, 1, 0, 0, 1.0, HOSTILE, HOSTILE, HOSTILE)
    score = events.Score(0, 0, 0, 1, 0.5, HOSTILE)
    send(client, *start(HOSTILE, HOSTILE, time=300.0, workflow=HOSTILE), plan, warned, scaled)
    send(client, dataclasses.replace(commit(HOSTILE, 1, stage=HOSTILE), cells=(cell,), scores=(score,)))
    browser.get(url + "/workflow")
    eventually(lambda: told(browser, HOSTILE, "committed") == "1")
    browser.execute_script(
        "const canvas = document.querySelector('canvas');"
        "canvas.dispatchEvent(new KeyboardEvent('keydown', {key: 'ArrowRight'}))"
    )
    eventually(lambda: HOSTILE[:40] in shown(browser, "-cell"))
    for part in ("-stages", "-chunks", "-trials", "-scaling", "-alerts"):
        assert HOSTILE[:40] in shown(browser, part), part
    assert HOSTILE[:40] in shown(browser)
    assert browser.execute_script("return window.hacked === undefined")
    assert browser.execute_script("return document.querySelectorAll('#daskml script, #daskml img').length") == 0
    check_console(browser)
