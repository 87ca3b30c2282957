"""Real schedulers, real browsers: nothing of ours or of Dask is replaced."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from dashboard_helpers import live
from distributed import Client

from daskml_scale.dashboard.plugin import install

FLAGS = (
    "headless=new",
    "no-sandbox",
    "disable-gpu",
    "disable-quic",
    "no-first-run",
    "disable-background-networking",
    "disable-component-update",
    "disable-sync",
    "window-size=1280,943",
)


@pytest.fixture(scope="module")
def cluster() -> Iterator[tuple[Client, str]]:
    """A live cluster to which the page was added through a client."""
    with live() as (client, url):
        assert install(client)
        yield client, url


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Any]:
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    binary, driver = Path("/usr/bin/chromium"), Path("/usr/bin/chromedriver")
    for program in (binary, driver):
        if not program.exists():
            pytest.skip(f"{program} is not installed (Debian: apt-get install chromium chromium-driver)")
    options = webdriver.ChromeOptions()
    options.binary_location = str(binary)
    for flag in FLAGS:
        options.add_argument(f"--{flag}")
    options.add_argument(f"--user-data-dir={tmp_path / 'profile'}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    found = webdriver.Chrome(options=options, service=webdriver.ChromeService(str(driver)))
    try:
        yield found
    finally:
        found.quit()
