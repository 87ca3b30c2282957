"""Whether the units of a plan fit into a worker. Asked before anything runs; nothing here is measured while it does."""

from __future__ import annotations

from typing import Any

from daskml_scale.engine.client import workers
from daskml_scale.errors import PlanError
from daskml_scale.plan.units import Plan


def check_memory(name: str, plan: Plan, limit: int) -> None:
    """Refuse a plan of which one unit needs more memory than a worker has.

    Parameters
    ----------
    name : str
        Of the stage.
    limit : int
        Memory of a worker, bytes; 0 is unknown.

    Raises
    ------
    PlanError
    """
    if limit and plan.memory > limit:
        if plan.need is not None:
            raise PlanError(f"{name}: {plan.need.refusal(limit)}")
        raise PlanError(
            f"{name}: one unit needs about {plan.memory / 2**20:,.0f} MiB and a worker has "
            f"{limit / 2**20:,.0f} MiB ({plan.grid}); use smaller chunks, or a cluster with more memory per worker"
        )


def memory_limit(client: Any | None) -> int:
    """Return the memory of the smallest worker in bytes (of this machine without a client); 0 is unknown."""
    if client is None:
        import psutil

        return int(psutil.virtual_memory().available)
    limits = [worker["memory_limit"] for worker in workers(client).values()]
    return int(min((limit for limit in limits if limit), default=0))
