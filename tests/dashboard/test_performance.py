"""Dask's performance report in the report of a run: kept where asked for, closed to the outside, readable."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import dask
import pytest
from dashboard_helpers import eventually
from distributed import Client

from daskml_scale.dashboard import performance
from daskml_scale.runs import report_parts

MOST_BYTES = 4_000_000
"""Of the goal of 5 MB for a whole report."""


class Tags(HTMLParser):
    """Collects the tags that load something; scripts are not looked into."""

    def __init__(self) -> None:
        super().__init__()
        self.loading: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in ("script", "link", "img", "iframe") and {"src", "href"} & dict(attrs).keys():
            self.loading.append(tag)


def kept(client: Client, path: Path, asked: bool | None) -> str:
    with dask.config.set({performance.SETTING: asked}), performance.Kept(client, path, "r-1 on <b>local</b>"):
        client.gather(client.map(abs, range(-30, 0), key=[f"token=hunter2-{n}" for n in range(30)]))
    return path.read_text() if path.exists() else ""


def test_it_is_kept_where_asked_for_and_loads_nothing(cluster: tuple[Client, str], tmp_path: Path) -> None:
    client, _ = cluster
    text = kept(client, tmp_path / "runs" / "r" / performance.NAME, True)
    assert "Dask Performance Report" in text
    assert "number of tasks: 30" in text
    tags = Tags()
    tags.feed(text)
    assert tags.loading == []
    assert "Content-Security-Policy" in text
    assert "hunter2" not in text
    assert "<b>local" not in text.replace("\\u003c", "<")
    assert len(text) < MOST_BYTES


def test_short_work_and_work_that_was_stopped_keep_none(cluster: tuple[Client, str], tmp_path: Path) -> None:
    client, _ = cluster
    assert kept(client, tmp_path / "unasked", None) == ""
    assert kept(client, tmp_path / "refused", False) == ""
    with (
        dask.config.set({performance.SETTING: "true"}),
        pytest.raises(KeyboardInterrupt),
        performance.Kept(client, tmp_path / "stopped", ""),
    ):
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


def test_a_scheduler_that_cannot_draw_it_costs_one_warning(
    cluster: tuple[Client, str], tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    client, _ = cluster
    monkeypatch.delattr("distributed.dashboard.components.scheduler.task_stream_figure")
    assert kept(client, tmp_path / "none", True) == ""
    assert [record.message for record in caplog.records if "performance report" in record.message] != []


def test_a_browser_shows_it_inside_the_report(cluster: tuple[Client, str], tmp_path: Path, browser: Any) -> None:
    client, _ = cluster
    found = {"performance": kept(client, tmp_path / "kept.html", True)}
    page = tmp_path / "report.html"
    parts = "".join(report_parts.performance(found))
    page.write_text(f"<!doctype html><html><head><meta charset='utf-8'></head><body>{parts}</body></html>")
    browser.get(page.as_uri())
    browser.switch_to.frame(browser.find_element("css selector", "iframe"))
    script = "return document.querySelector('.bk-Tabs')?.shadowRoot?.querySelectorAll('.bk-tab').length"
    eventually(lambda: browser.execute_script(script) == 9, 60)
    names = browser.execute_script("return performance.getEntriesByType('resource').map(entry => entry.name)")
    assert [name for name in names if name.startswith("http")] == []
    assert [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []
    assert list(report_parts.performance({"performance": ""})) == []
