"""No unit has finished for a long time: write down the state of the cluster and restart what is stuck.

A long unit is no fault: only workers that the scheduler has not heard of are restarted. The time is Dask
configuration ``daskml-scale.stall-seconds``, 600 by default.
"""

from __future__ import annotations

import json
import logging
import os
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

logger = logging.getLogger(__name__)

STALL_SECONDS = 600.0
SILENT_SECONDS = 30.0
"""Without a heartbeat for so long a worker counts as stuck; a living one sends several."""


def stall_seconds() -> float:
    """Return after how many seconds without a finished unit the watchdog acts."""
    import dask.config

    return float(dask.config.get("daskml-scale.stall-seconds", STALL_SECONDS))


def stuck(rows: Sequence[Mapping[str, Any]], silent: float = SILENT_SECONDS) -> list[str]:
    """Return the addresses of workers that hold our tasks and are silent (pure).

    Parameters
    ----------
    rows : sequence of mapping
        One per task: ``state``, ``worker`` (address or empty), ``name``, ``heard`` (seconds since its heartbeat).
    """
    return sorted({str(row["worker"]) for row in rows if row["worker"] and row["heard"] > silent})


def described(rows: Sequence[Mapping[str, Any]], seconds: float) -> str:
    """Return the state of the tasks in flight as one line (pure)."""
    states = ", ".join(f"{count} {state}" for state, count in sorted(Counter(row["state"] for row in rows).items()))
    where = sorted({f"{row['name']} (last heard of {row['heard']:.0f} s ago)" for row in rows if row["worker"]})
    on = f" on {', '.join(where[:5])}" + (" and others" if len(where) > 5 else "") if where else ", on no worker"
    return f"no unit finished for {seconds:.0f} s; tasks in flight: {states or 'none known'}{on}"


def unstick(client: Any, keys: list[str], seconds: float) -> str:
    """Write the cluster's state to a file, restart silent workers, and return what was seen and done."""
    silent = min(SILENT_SECONDS, max(1.0, seconds / 2))
    try:
        rows = client.sync(client.scheduler.daskml_flight, keys=keys, callback_timeout=10)
    except Exception as raised:
        return f"no unit finished for {seconds:.0f} s, and the scheduler does not say why ({raised!r})"
    text = described(rows, seconds)
    addresses = stuck(rows, silent)
    dump = _dumped(client, rows)
    if dump:
        text += f"; the state of the cluster is in {dump}"
    if not addresses:
        return f"{text}; every worker answers, so nothing is restarted: stop the run if a unit hangs"
    try:
        # As ``client.restart_workers``, which refuses workers without a nanny, such as those of our clusters: the
        # scheduler lets go of them, and their cluster replaces them.
        client.sync(
            client.scheduler.restart_workers,
            workers=addresses,
            timeout=30,
            on_error="return",
            stimulus_id="daskml-watchdog",
        )
    except Exception as raised:
        return f"{text}; restarting {', '.join(addresses)} failed ({raised!r})"
    return f"{text}; restarted {', '.join(addresses)}, which did not answer: their tasks run again"


def _dumped(client: Any, rows: Sequence[Mapping[str, Any]]) -> str:
    """Write tasks, workers and backlog as the scheduler knows them (Dask's own dump waits for the stuck worker)."""
    try:
        state = client.sync(client.scheduler.daskml_backlog, callback_timeout=10)
        handle, path = tempfile.mkstemp(prefix="daskml-stall-", suffix=".json")
        with os.fdopen(handle, "w") as file:
            json.dump({"tasks": rows, **state}, file, indent=1, default=str)
    except Exception:
        logger.debug("could not write down the state of the cluster", exc_info=True)
        return ""
    return path
