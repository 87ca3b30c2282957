"""The report of a run: what the registry, its log and its store say, as one document: HTML, JSON, or a picture.

The HTML needs nothing else, follows light and dark, and every text in it is escaped.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from daskml_scale import redact
from daskml_scale.dashboard import performance
from daskml_scale.errors import DaskMLError, StoreError, UsageError
from daskml_scale.html import escape, save_page, table

from . import provenance, report_data, report_parts
from .costs import bills
from .event_log import path_of
from .records import Registry
from .report_log import MOST_ROWS, logged
from .show import moment
from .state import RunRecord
from .words import took

STYLE = (
    ":root{--ink:#1f2328;--soft:#57606a;--back:#fff;--card:#f6f8fa;--line:#8c959f;"
    "--one:#1f6fb2;--two:#b02a3d;--three:#23704b;--four:#8a5a10}"
    "@media(prefers-color-scheme:dark){:root{--ink:#e6e9ec;--soft:#a3adb8;--back:#14171a;--card:#1c2126;--line:#6b7682;"
    "--one:#5aa5e6;--two:#ef6b7b;--three:#4dbb86;--four:#d99a3a}}"
    "body{font:14px/1.5 system-ui,sans-serif;max-width:70em;margin:1.5em auto;padding:0 1em;color:var(--ink);"
    "background:var(--back);overflow-wrap:anywhere}h1{font-size:1.4em}h2{font-size:1.1em;margin-top:1.6em}"
    "pre{overflow:auto;background:var(--card);padding:.8em}div:has(>table){overflow-x:auto}"
    "td,th{min-width:3em;overflow-wrap:break-word}th{white-space:nowrap}"
    "figure{margin:.8em 0}figcaption{font-weight:600}svg{width:100%;max-width:640px;height:auto;overflow:visible}"
    "svg text{fill:var(--soft);font-size:12px}.beside .plot text{font-size:22px}"
    "@media(max-width:700px){.plot text{font-size:20px}.bars text{font-size:16px}}.beside{display:grid;gap:0 1.5em;"
    "grid-template-columns:repeat(auto-fit,minmax(min(20em,100%),1fr))}"
    ".key span{margin-right:1.2em}.key i{display:inline-block;width:.8em;height:.8em;margin-right:.4em}"
)


def gathered(registry: Registry, run: RunRecord) -> dict[str, Any]:
    """Return everything that is known of a run, as JSON values without secrets."""
    home = registry.path.parent
    log = logged(home, run.id)
    kept = provenance.read(home, run.id)
    if kept:
        kept["inputs"] = provenance.inputs(run.store, kept.get("resolved", {}).get("stages", {}))
    mine = [cost for cost in registry.costs() if cost.run == run.id]
    found: dict[str, Any] = redact.value(
        {
            "run": run.to_dict(),
            "history": registry.events(run.id),
            "cost": {
                "whole": bills([run], mine, "run")[0].to_dict(),
                "stages": [asdict(cost) for cost in mine],
            },
            "why": {stage: dict(counts) for stage, counts in log.why.items()},
            "warnings": log.warnings,
            "scaling": log.scaling,
            "timeline": log.timeline,
            "throughput": log.throughput(),
            "results": log.results,
            "quarantined": dict(log.quarantined),
            "quarantine": _quarantine(run),
            "provenance": kept,
            "data": report_data.documents(run.store, run.to_dict()["stages"]),
        }
    )
    found["performance"] = _performance(home, run.id)  # its secrets are replaced already; a script may not be touched
    return found


def _performance(home: Path, run: str) -> str:
    """Return Dask's performance report of a run as HTML; empty where none was kept."""
    path = path_of(home, run).with_name(performance.NAME)
    return path.read_text(encoding="utf-8") if path.exists() else ""


def _quarantine(run: RunRecord) -> list[dict[str, Any]]:
    from .quarantine import held

    try:
        return [one.to_dict() for one in held(run.store)[:MOST_ROWS]]
    except DaskMLError:
        return []  # a store that is gone holds nothing


def written(found: Mapping[str, Any], out: str) -> Path:
    """Write the report and return its path: ``.json``, ``.png`` (drawn by a browser), anything else as HTML.

    Raises
    ------
    StoreError
        When the file cannot be written.
    UsageError
        When a PNG is asked for and there is no browser.
    """
    path = Path(out).absolute()
    try:
        if path.suffix == ".json":
            path.write_text(document(found), encoding="utf-8")
        elif path.suffix == ".png":
            save_page(path, page({**found, "performance": ""}))
        else:
            path.write_text(page(found), encoding="utf-8")
    except OSError as error:
        raise StoreError(f"{path}: the report cannot be written: {error.strerror or error}") from error
    except RuntimeError as error:
        raise UsageError(f"{path}: a PNG is drawn by a browser through selenium ({error}); write .html") from error
    return path


def document(found: Mapping[str, Any]) -> str:
    """Return a report as JSON, without what is drawn by Dask."""
    return json.dumps({name: value for name, value in found.items() if name != "performance"}, default=str)


def page(found: Mapping[str, Any]) -> str:
    """Return a report as HTML."""
    run = found["run"]
    facts = [
        ("state", run["state"]), ("started", moment(run["started"])), ("took", _took(run)), ("workflow", run["source"]),
        ("store", run["store"]), ("cluster", run["cluster"]), ("owner", run["owner"] or "-"),
        ("labels", ", ".join(f"{name}={value}" for name, value in run["labels"].items()) or "-"),
        ("message", run["message"] or "-"),
    ]  # fmt: skip
    parts = [f"<h1>{escape(run['id'])}</h1>", table(("run", ""), facts)]
    for part in (
        report_parts.stages, report_parts.trials, report_parts.scores, report_parts.drift, report_data.sections,
        report_parts.costs, report_parts.quarantine, report_parts.told, report_parts.performance, report_parts.origin,
    ):  # fmt: skip
        parts += part(found)
    title = escape(f"{run['id']}: {run['state']}")
    head = (
        "<meta charset='utf-8'><meta name='viewport' content='width=device-width, initial-scale=1'>"
        f"<title>{title}</title><style>{STYLE}</style>"
    )
    return f"<!doctype html><html lang='en'><head>{head}</head><body><main>{''.join(parts)}</main></body></html>\n"


def _took(run: Mapping[str, Any]) -> str:
    return took(run["finished"] - run["started"]) if run["started"] and run["finished"] else "-"
