"""What the scheduler knows of stages, tasks and workers, as plain data: the rows of the backlog. Decides nothing."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping, Sequence
from typing import Any

MAX_KEYS = 5000
"""Keys looked at for the unique bytes of one worker; beyond, all its bytes count."""
WAITING, READY, PROCESSING = range(3)
COLUMN = {"waiting": WAITING, "queued": READY, "no-worker": READY, "processing": PROCESSING}
"""State of a task -> where it is counted."""

Bucket = tuple[str, tuple[tuple[str, float], ...]]
"""(task prefix, required resources)."""


def bucket_of(task: Any) -> Bucket:
    """Return with which other tasks one is counted."""
    needs = task.resource_restrictions
    return task.prefix.name, tuple(sorted(needs.items())) if needs else ()


def of_stage(report: Mapping[str, Any]) -> dict[str, Any]:
    """Return the row of a dispatcher's report; raises as ``float`` and the like do when it is malformed."""
    seconds = report.get("seconds_per_unit")
    return {
        "client": str(report["client"]),
        "stage": str(report["stage"])[:200],
        "units_left": int(report.get("units_left", 0)),
        "runnable": int(report.get("runnable", 0)),
        "in_flight": int(report.get("in_flight", 0)),
        "seconds_per_unit": None if seconds is None else float(seconds),
        "resources": {str(name): float(amount) for name, amount in (report.get("resources") or {}).items()},
        "weight": float(report.get("weight", 1.0)),
    }


def of_tasks(bucket: Bucket, counts: Sequence[int], prefix: Any) -> dict[str, Any]:
    """Return the row of a bucket; ``prefix`` is what the scheduler knows of all tasks of that name, if anything."""
    seconds = None if prefix is None else prefix.duration_average
    if prefix is not None and (seconds is None or seconds < 0):
        # Nothing finished yet: what runs longest says at least how long it takes.
        seconds = 2.0 * prefix.max_exec_time if prefix.max_exec_time > 0 else None
    return {
        "prefix": bucket[0],
        "resources": dict(bucket[1]),
        "waiting": counts[WAITING],
        "ready": counts[READY],
        "processing": counts[PROCESSING],
        "seconds": None if seconds is None else float(seconds),
    }


def of_worker(worker: Any, now: float, idle: MutableMapping[str, float]) -> dict[str, Any]:
    """Return the row of a worker; ``idle`` is address -> since when, and learns of one that is idle now."""
    busy = bool(worker.processing or worker.actors)
    return {
        "address": worker.address,
        "name": str(worker.name),
        "nthreads": worker.nthreads,
        "resources": dict(worker.resources),
        "status": worker.status.name,
        "processing": len(worker.processing),
        "long_running": len(worker.long_running),
        "bytes": worker.nbytes,
        "memory_limit": worker.memory_limit or 0,
        "unique_bytes": worker.nbytes if busy else _unique_bytes(worker),
        "idle_since": None if busy else idle.setdefault(worker.address, now),
    }


def _unique_bytes(worker: Any) -> int:
    if len(worker.has_what) > MAX_KEYS:
        return int(worker.nbytes)
    return sum(task.get_nbytes() for task in worker.has_what if len(task.who_has or ()) == 1)


def of_place(task: Any, now: float) -> dict[str, Any]:
    """Return where a task is; ``None`` is one that the scheduler does not know any more."""
    worker = None if task is None else task.processing_on
    return {
        "state": "forgotten" if task is None else task.state,
        "worker": "" if worker is None else worker.address,
        "name": "" if worker is None else str(worker.name),
        "heard": 0.0 if worker is None else now - worker.last_seen,
    }
