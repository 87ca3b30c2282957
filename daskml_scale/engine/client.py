"""Which Dask client to use: the one given, else the process's default one, else none (in process)."""

from __future__ import annotations

import contextlib
import sys
import time
from typing import Any

from daskml_scale.errors import ClusterError
from daskml_scale.scaling import demand

KEY_PREFIX = "daskml-"
"""Keys of dispatch tasks: their units are reported by stage, so the scheduler does not count the tasks."""


def current_client() -> Any | None:
    """Return the default ``distributed.Client`` of this process, as every Dask library uses it, or ``None``."""
    if "distributed" not in sys.modules:
        return None  # nobody can have made a client
    import distributed

    try:
        client = distributed.default_client()
    except ValueError:
        return None
    return client if client.status == "running" else None


def workers(client: Any) -> dict[str, Any]:
    """Return what the scheduler says of its workers now, by address.

    Raises
    ------
    ClusterError
        When the scheduler does not answer.
    """
    try:
        found: dict[str, Any] = client.scheduler_info(n_workers=-1)["workers"]
    except (KeyError, OSError, TimeoutError) as error:
        raise ClusterError(
            f"the scheduler does not answer ({type(error).__name__}: {error}); "
            "run the same command again: committed work is kept"
        ) from error
    return found


def capacity(client: Any | None) -> tuple[int, float]:
    """Return how many tasks run at a time, and the price per hour of all workers; 0 where no class has a price."""
    if client is None:
        return 1, 0.0
    shapes = getattr(getattr(client, "cluster", None), "shapes", None)
    prices = {shape.name: shape.price for shape in shapes} if isinstance(shapes, list) else {}
    found = list(workers(client).values())
    price = sum(prices.get(str(worker["name"]).rpartition("-")[0], 0.0) for worker in found)
    return sum(int(worker["nthreads"]) for worker in found), price


def reconnected(client: Any, seconds: float = 30.0) -> Any | None:
    """Wait until a scheduler is back at the client's address, with workers; ``None`` when none comes."""
    until = time.monotonic() + seconds
    while time.monotonic() < until and client.status != "closed":
        if client.status == "running":
            with contextlib.suppress(ClusterError):
                if workers(client):
                    return client
        time.sleep(0.1)
    return None


def slots(client: Any, resources: dict[str, float] | None = None) -> int:
    """Return how many tasks with these resources the cluster can run at a time now."""
    # The client's periodic copy may be 2 s old; the scheduler's answer is not.
    found = workers(client).values()
    return sum(demand.slots(worker["nthreads"], worker.get("resources") or {}, resources or {}) for worker in found)


def lacking(client: Any, resources: dict[str, float]) -> str:
    """Return in one line that no worker has what tasks need; empty where one has."""
    if not resources or slots(client, resources):
        return ""
    needs = ", ".join(f"{name} {amount:g}" for name, amount in resources.items())
    given = " ".join(f"{name}={amount:g}" for name, amount in resources.items())
    return (
        f"none of the {len(workers(client))} workers has {needs}: tasks wait until one comes. Start workers with "
        f"`dask worker --resources '{given}'`, use a cluster class with `resources:`, or leave resources= out"
    )
