"""A cluster whose client nobody finds by itself, so that work without a client stays in this process."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest


@pytest.fixture(scope="module")
def own_client() -> Iterator[Any]:
    """A client of a real cluster of two worker processes; it is not the default one."""
    from distributed import Client, LocalCluster

    with (
        LocalCluster(
            n_workers=2, threads_per_worker=1, host="127.0.0.1", dashboard_address="127.0.0.1:0", memory_limit="2GiB"
        ) as cluster,
        Client(cluster, set_as_default=False) as found,
    ):
        yield found


@pytest.fixture(params=["in process", "on a cluster"])
def place(request: pytest.FixtureRequest) -> Any:
    """No client, or a cluster's: both ways in which a map runs."""
    return request.getfixturevalue("own_client") if request.param == "on a cluster" else None


@pytest.fixture(autouse=True)
def _no_copies_on_a_busy_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests here count executions: a machine that stands still for a second must not look like a straggler."""
    monkeypatch.setattr("daskml_scale.engine.flight.STRAGGLER_SECONDS", 60.0)
