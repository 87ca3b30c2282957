"""One small cluster per module; no test here makes it the default client."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "thread_unsafe: scikit-learn's own tests carry it")


@pytest.fixture(autouse=True)
def on_the_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    """Problems as small as those of these tests would never leave this process."""
    from daskml_scale.stages.search import fits

    monkeypatch.setattr(fits, "IN_PROCESS_BYTES", -1)


@pytest.fixture(scope="module")
def cluster(copied_workers: None) -> Iterator[Any]:
    from distributed import LocalCluster

    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address="127.0.0.1:0", host="127.0.0.1") as started:
        yield started


@pytest.fixture(scope="module")
def client(cluster: Any) -> Iterator[Any]:
    from distributed import Client

    with Client(cluster, set_as_default=False) as connected:
        yield connected
