"""Workers and money as the page shows them: sums by class, and the workers that need a look. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from daskml_scale.dashboard.progress import Progress

MAX_WORKERS = 40
"""Workers listed one by one: those with the fullest memory."""
MAX_CLASSES = 50


def class_of(name: str) -> str:
    """Return the class in the name of a worker of ours (``cpu-3``); ``workers`` for another's."""
    head, _, number = name.rpartition("-")
    return head if head and number.isdigit() else "workers"


def fleet(workers: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return sums of the workers by class, and the fullest ones.

    Parameters
    ----------
    workers : sequence of mapping
        Of `private.fleet`.
    """
    classes: dict[str, dict[str, Any]] = {}
    for worker in workers:
        name = class_of(worker["name"])
        row = classes.get(name)
        if row is None:
            if len(classes) >= MAX_CLASSES:
                continue
            row = classes[name] = {
                "class": name, "workers": 0, "threads": 0, "busy": 0, "memory": 0, "limit": 0, "gpus": 0, "gpu": 0.0,
            }  # fmt: skip
        row["workers"] += 1
        for key in ("threads", "busy", "memory", "limit"):
            row[key] += worker[key]
        if worker["gpu"] is not None:
            row["gpus"] += 1
            row["gpu"] += worker["gpu"]
    fullest = sorted(workers, key=lambda one: (-(one["memory"] / one["limit"] if one["limit"] else 0.0), one["name"]))
    return {
        "count": len(workers),
        "classes": [{**row, "gpu": row["gpu"] / row["gpus"] if row["gpus"] else None} for row in classes.values()],
        "workers": [dict(worker) for worker in fullest[:MAX_WORKERS]],
    }


def cost(
    progress: Progress, classes: Sequence[Mapping[str, Any]], prices: Mapping[str, float], now: float
) -> dict[str, Any]:
    """Return what a run has cost and will.

    Returns
    -------
    dict
        ``spent``; ``rate`` per hour, of the workers there are now; ``forecast`` of the whole run, ``None`` while nobody
        knows how long it takes; ``per_thousand`` rows of prediction, ``None`` without any. All 0 without prices.
    """
    spent = sum(stage.cost for stage in progress.stages)
    rate = sum(row["workers"] * prices.get(row["class"], 0.0) for row in classes)
    etas = [stage.eta(now) for stage in progress.stages if stage.state == "running"]
    known = [eta for eta in etas if eta is not None]
    predicting = [stage for stage in progress.stages if stage.kind == "predict" and stage.rows and stage.cost]
    rows = sum(stage.rows for stage in predicting)
    forecast = spent if progress.finished else spent + rate * max(known) / 3600 if known else None
    return {
        "spent": spent,
        "rate": 0.0 if progress.finished else rate,
        "forecast": forecast,
        "per_thousand": 1000 * sum(stage.cost for stage in predicting) / rows if rows else None,
    }
