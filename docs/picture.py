"""Picture the workflow page in the middle of a real run of the flights: ``python docs/picture.py``.

Takes three minutes, and chromium. The run stops when most of the predictions are committed, until the page was seen in
light and in dark; then it goes on to its end. What the pictures show is true of the machine that made them.
"""

from __future__ import annotations

import base64
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import daskml_scale as dms
from daskml_scale import events

FOLDER = Path(__file__).parent / "images"
WIDTH = 1280
SPEC: dict[str, Any] = {
    "version": 1,
    "name": "local",
    "backend": "local",
    "classes": {"cpu": {"workers": {"min": 1, "max": 2}, "memory": "2GiB", "price_per_hour": 0.2}},
    "scaling": {"policy": "backlog"},
    "dashboard": {"listen": "127.0.0.1:0"},
}
SMALLER = ("stages.flights.row.chunk=2000", "stages.features.out.chunk=2000", "stages.features.out.shard=2000")
"""Of the same rows more units, so that the chunk map has cells to show."""
SHOWN = "return window.daskml?.data?.run.stages.find(one => one.name === arguments[0]).done"


class Held:
    """A sink that stops the run when ``units`` units of a stage are committed."""

    def __init__(self, stage: str, units: int) -> None:
        self.stage, self.units = stage, units
        self.done = 0
        self.reached, self.seen = threading.Event(), threading.Event()

    def __call__(self, event: events.Event) -> None:
        if isinstance(event, events.UnitsCommitted) and event.stage == self.stage and not self.reached.is_set():
            if self.done + event.units >= self.units:  # this event is shown only after the pictures
                self.reached.set()
                self.seen.wait()
            self.done += event.units


@contextmanager
def browser() -> Iterator[Any]:
    """Start a chromium without a window."""
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = "/usr/bin/chromium"
    for flag in ("headless=new", "no-sandbox", "disable-gpu", f"window-size={WIDTH},1000"):
        options.add_argument(f"--{flag}")
    found = webdriver.Chrome(options=options, service=webdriver.ChromeService("/usr/bin/chromedriver"))
    try:
        yield found
    finally:
        found.quit()


def picture(chrome: Any, scheme: str, target: Path) -> None:
    """Write the whole page as PNG."""
    chrome.execute_cdp_cmd(
        "Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    )
    chrome.execute_script(
        "document.querySelector('canvas').dispatchEvent(new KeyboardEvent('keydown', {key: 'ArrowRight'}))"
    )
    time.sleep(3)  # it asks for what is new every second
    size = chrome.execute_cdp_cmd("Page.getLayoutMetrics", {})["cssContentSize"]
    clip = {"x": 0, "y": 0, "width": WIDTH, "height": size["height"], "scale": 1}
    shot = chrome.execute_cdp_cmd("Page.captureScreenshot", {"clip": clip, "captureBeyondViewport": True})
    target.write_bytes(base64.b64decode(shot["data"]))


def main() -> None:
    """Run the flights and make both pictures."""
    held = Held("predictions", 250)
    with (
        tempfile.TemporaryDirectory() as folder,
        dms.cluster(SPEC) as cluster,
        cluster.get_client() as client,
        browser() as chrome,
    ):
        chrome.get(cluster.dashboard_link.removesuffix("status") + "workflow")
        run = threading.Thread(
            target=dms.run,
            args=("flights",),
            kwargs={"store": f"{folder}/flights", "client": client, "sink": held, "settings": list(SMALLER)},
        )
        run.start()
        try:
            while run.is_alive() and not held.reached.wait(1):
                pass
            while held.reached.is_set() and (chrome.execute_script(SHOWN, "predictions") or 0) < held.done:
                time.sleep(1)
            for scheme, name in (("light", "workflow.png"), ("dark", "workflow-dark.png")):
                picture(chrome, scheme, FOLDER / name)
        finally:
            held.seen.set()
            run.join()


if __name__ == "__main__":
    main()
