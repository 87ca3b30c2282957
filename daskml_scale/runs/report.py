"""The report of a run: what the registry, its log and its store say, as one document and as one HTML file.

The file needs nothing else, and every text in it is escaped.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from daskml_scale.errors import DaskMLError, StoreError
from daskml_scale.events import Event, Scaled, StagePlanned, Warned
from daskml_scale.html import escape, table

from . import provenance
from .costs import bills
from .event_log import path_of, read
from .records import Registry
from .show import moment
from .state import RunRecord
from .words import plural, took

MOST_ROWS = 200
"""Rows of quarantine, and scaling decisions, in a report."""
_STYLE = (
    "body{font:14px/1.5 system-ui,sans-serif;max-width:70em;margin:2em auto;padding:0 1em;color:#222;background:#fff}"
    "h1{font-size:1.4em}h2{font-size:1.1em;margin-top:1.6em}pre{overflow:auto;background:#f6f6f6;padding:.8em}"
)


def gathered(registry: Registry, run: RunRecord) -> dict[str, Any]:
    """Return everything that is known of a run, as JSON values."""
    home = registry.path.parent
    logged = _logged(path_of(home, run.id))
    kept = provenance.read(home, run.id)
    if kept:
        kept["inputs"] = provenance.inputs(run.store, kept.get("resolved", {}).get("stages", {}))
    mine = [cost for cost in registry.costs() if cost.run == run.id]
    return {
        "run": run.to_dict(),
        "history": registry.events(run.id),
        "cost": {
            "whole": bills([run], mine, "run")[0].to_dict(),
            "stages": [asdict(cost) for cost in mine],
        },
        "why": logged["why"],
        "warnings": logged["warnings"],
        "scaling": logged["scaling"],
        "quarantine": _quarantine(run),
        "provenance": kept,
    }


def _logged(path: Path) -> dict[str, Any]:
    """Return why units ran, warnings and scaling decisions, from the log of a run if it is still there."""
    why: dict[str, Counter[str]] = {}
    warnings: list[dict[str, str]] = []
    scaling: list[dict[str, Any]] = []
    found: Iterable[Event] = read(path) if path.exists() else ()
    for event in found:
        if isinstance(event, StagePlanned):
            why.setdefault(event.stage, Counter()).update(event.reasons)
        elif isinstance(event, Warned):
            warnings.append({"stage": event.stage, "message": event.message})
        elif isinstance(event, Scaled) and len(scaling) < MOST_ROWS:
            scaling.append(event.to_dict())
    return {"why": {stage: dict(counts) for stage, counts in why.items()}, "warnings": warnings, "scaling": scaling}


def _quarantine(run: RunRecord) -> list[dict[str, Any]]:
    from .quarantine import held

    try:
        return [one.to_dict() for one in held(run.store)[:MOST_ROWS]]
    except DaskMLError:
        return []  # a store that is gone holds nothing


def written(found: Mapping[str, Any], out: str) -> Path:
    """Write the HTML and return its path.

    Raises
    ------
    StoreError
    """
    path = Path(out).absolute()
    try:
        path.write_text(page(found), encoding="utf-8")
    except OSError as error:
        raise StoreError(f"{path}: the report cannot be written: {error.strerror or error}") from error
    return path


def page(found: Mapping[str, Any]) -> str:
    """Return a report as HTML."""
    run = found["run"]
    facts = [
        ("state", run["state"]), ("started", moment(run["started"])), ("took", _took(run)), ("workflow", run["source"]),
        ("store", run["store"]), ("cluster", run["cluster"]), ("owner", run["owner"] or "-"),
        ("labels", ", ".join(f"{name}={value}" for name, value in run["labels"].items()) or "-"),
        ("message", run["message"] or "-"),
    ]  # fmt: skip
    parts = [f"<h1>{escape(run['id'])}</h1>", table(("run", ""), facts), *_stages(found), *_results(found)]
    parts += [*_costs(found), *_bad(found), *_told(found), *_origin(found)]
    title = escape(f"{run['id']}: {run['state']}")
    head = f"<meta charset='utf-8'><title>{title}</title><style>{_STYLE}</style>"
    return f"<!doctype html><html lang='en'><head>{head}</head><body>{''.join(parts)}</body></html>\n"


def _took(run: Mapping[str, Any]) -> str:
    return took(run["finished"] - run["started"]) if run["started"] and run["finished"] else "-"


def _stages(found: Mapping[str, Any]) -> Iterable[str]:
    rows = [
        (
            stage["name"], stage["kind"], stage["state"], stage["units"], stage["reused"], stage["failed"],
            took(stage["seconds"]), stage["rows"],
            ", ".join(f"{count:,} {why}" for why, count in found["why"].get(stage["name"], {}).items()),
        )
        for stage in found["run"]["stages"]
    ]  # fmt: skip
    header = ("stage", "kind", "state", "units", "reused", "failed", "time", "rows", "why units ran")
    yield "<h2>Stages</h2>"
    yield table(header, rows) if rows else "<p>None has begun.</p>"


def _results(found: Mapping[str, Any]) -> Iterable[str]:
    metrics = found["run"]["summary"].get("metrics", {})
    if metrics:
        yield "<h2>Metrics</h2>"
        shown = [
            (name, f"{value:.6g}" if isinstance(value, float) else json.dumps(value)) for name, value in metrics.items()
        ]
        yield table(("metric", "value"), shown)


def _costs(found: Mapping[str, Any]) -> Iterable[str]:
    whole, stages = found["cost"]["whole"], found["cost"]["stages"]
    yield "<h2>Cost</h2>"
    header = ("stage", "work", "idle", "saved by reuse", "start-up", "money")
    names = ("worker_seconds", "idle_seconds", "saved_seconds", "startup_seconds")
    lines = [*({**cost, "stage": cost["stage"] or "start-up"} for cost in stages), {**whole, "stage": "whole run"}]
    yield table(header, [(line["stage"], *(took(line[n]) for n in names), f"{line['money']:.4g}") for line in lines])


def _bad(found: Mapping[str, Any]) -> Iterable[str]:
    listed = found["quarantine"]
    if listed:
        rows = [(one["stage"], one["unit"], one["bad_input"], one["model_error"], _because(one)) for one in listed]
        yield f"<h2>Quarantine</h2><p>{plural(len(listed), 'unit')} of this store hold rows without a result.</p>"
        yield table(("stage", "unit", "bad input", "model errors", "first reason"), rows)


def _because(one: Mapping[str, Any]) -> str:
    return str(one["error"] or (one["reasons"][0][2] if one["reasons"] else ""))


def _told(found: Mapping[str, Any]) -> Iterable[str]:
    if found["warnings"]:
        yield "<h2>Warnings</h2>"
        yield table(("stage", "warning"), [(one["stage"], one["message"]) for one in found["warnings"]])
    if found["scaling"]:
        yield "<h2>Scaling</h2>"
        decisions = [(moment(one["time"]), one["worker_class"], one["have"], one["need"], one["reason"])
                for one in found["scaling"]]  # fmt: skip
        yield table(("when", "class", "have", "need", "because"), decisions)
    if found["history"]:
        yield "<h2>History</h2>"
        rows = [(moment(one["time"]), one["epoch"], one["state"], one["message"]) for one in found["history"]]
        yield table(("when", "epoch", "state", ""), rows)


def _origin(found: Mapping[str, Any]) -> Iterable[str]:
    kept = found["provenance"]
    if not kept:
        return
    code = kept.get("code", {})
    yield "<h2>Where it comes from</h2>"
    rows = [("commit", code.get("commit") or "none"), ("uncommitted changes", code.get("dirty") or "none")]
    rows += [("seed", str(kept.get("seed", "")))]
    rows += [(f"setting {number}", text) for number, text in enumerate(kept.get("settings", ()), 1)]
    rows += [(f"{name}", version) for name, version in kept.get("versions", {}).items()]
    rows += [(f"{stage}: {name}", identity) for stage, ids in kept.get("inputs", {}).items()
             for name, identity in ids.items()]  # fmt: skip
    yield table(("what", "which"), rows)
    yield f"<details><summary>The workflow's file</summary><pre>{escape(kept.get('spec', ''))}</pre></details>"
    resolved = escape(json.dumps(kept.get("resolved", {}), indent=1))
    yield f"<details><summary>With all defaults</summary><pre>{resolved}</pre></details>"
