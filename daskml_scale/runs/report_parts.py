"""The parts of a report as HTML: charts beside the tables that say the same. Every text is escaped."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from daskml_scale.html import Raw, escape, table

from . import charts
from .show import moment
from .words import plural, took

MOST_TRIALS = 25
"""Trials, and features whose distribution moved, in a table; the JSON has all."""


def stages(found: Mapping[str, Any]) -> Iterable[str]:
    """Yield the stages, when they worked, and how fast."""
    yield "<h2>Stages</h2>"
    listed = found["timeline"]
    first = min((row["start"] for row in listed), default=0.0)
    held = found.get("quarantined", {})
    spans = [
        (row["stage"], row["start"] - first, row["end"] - first,
         "partial" if row["state"] == "ok" and held.get(row["stage"]) else row["state"],
         took(row["end"] - row["start"]))
        for row in listed[-60:]
    ]  # fmt: skip
    yield charts.bars(spans, title="When each stage worked")
    yield charts.lines({"units per second": found["throughput"]}, title="Throughput", x="s", y="units/s")
    rows = [
        (
            stage["name"], stage["kind"], stage["state"], stage["units"], stage["reused"],
            _marked(held.get(stage["name"], 0), "--four"), _marked(stage["failed"], "--two"),
            took(stage["seconds"]), stage["rows"],
            ", ".join(f"{count:,} {why}" for why, count in found["why"].get(stage["name"], {}).items()),
        )
        for stage in found["run"]["stages"]
    ]  # fmt: skip
    header = ("stage", "kind", "state", "units", "reused", "quarantined", "failed", "time", "rows", "why units ran")
    yield table(header, rows) if rows else "<p>None has begun.</p>"


def _marked(count: int, colour: str) -> Raw | int:
    """Return a count, in a colour of the page when there is any."""
    return Raw(f"<b style='display:block;text-align:right;color:var({colour})'>{count:,}</b>") if count else 0


def trials(found: Mapping[str, Any]) -> Iterable[str]:
    """Yield the trials of searches: the best so far, and the best ones."""
    for stage, result in found["results"].items():
        listed = result.get("trials")
        if not isinstance(listed, list) or not listed:
            continue
        scored = [one for one in listed if isinstance(one.get("score"), (int, float))]
        yield f"<h2>Trials of {escape(stage)}</h2>"
        best, curve = float("-inf"), []
        for number, one in enumerate(scored, 1):
            best = max(best, one["score"])
            curve.append((float(number), best))
        yield charts.lines({"best so far": curve}, title="Best score so far", x="trials", y="score", stepped=True)
        yield f"<p>{plural(len(listed), 'trial')}, {len(listed) - len(scored):,} without a score.</p>"
        ranked = sorted(scored, key=lambda one: (-one.get("resource", 0), -one["score"], one["trial"]))
        rows = [
            (one["trial"], one.get("resource", "-"), charts.numbers(one["score"]), _setting(one["params"]))
            for one in ranked[:MOST_TRIALS]
        ]
        yield table(("trial", "resource", "score", "setting"), rows)


def _setting(params: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={value}" for name, value in params.items())[:300]


def scores(found: Mapping[str, Any]) -> Iterable[str]:
    """Yield metrics, and the curves of classifiers."""
    metrics = found["run"]["summary"].get("metrics", {})
    if metrics:
        yield "<h2>Metrics</h2>"
        shown = [
            (name, f"{value:.6g}" if isinstance(value, float) else json.dumps(value)) for name, value in metrics.items()
        ]
        yield table(("metric", "value"), shown)
    for stage, result in found["results"].items():
        curves = result.get("curves")
        if not isinstance(curves, dict):
            continue
        yield f"<h2>Curves of {escape(stage)}</h2><div class='beside'>"
        roc = [(x, y) for x, y in curves.get("roc", ())]
        yield charts.lines({"ROC": roc}, title="ROC", x="false positive rate", y="true positive rate", diagonal=True)
        recall = [(x, y) for x, y in curves.get("precision_recall", ())]
        yield charts.lines({"precision": recall}, title="Precision and recall", x="recall", y="precision")
        bins = [row for row in curves.get("calibration", ()) if row["rows"]]
        points = [(row["predicted"], row["observed"]) for row in bins]
        yield charts.lines({"observed": points}, title="Calibration", x="predicted", y="observed", diagonal=True)
        yield "</div>"
        if bins:
            rows = [(f"{r['from']:.1f} to {r['to']:.1f}", f"{r['predicted']:.4f}", f"{r['observed']:.4f}", r["rows"])
                    for r in bins]  # fmt: skip
            yield table(("probability", "predicted", "observed", "rows"), rows, title="Calibration")


def drift(found: Mapping[str, Any]) -> Iterable[str]:
    """Yield how far predicted rows are from those of training."""
    for stage, result in found["results"].items():
        if not isinstance(result.get("features"), list) or not isinstance(result.get("predictions"), list):
            continue
        lines = [*result["predictions"], *sorted(result["features"], key=lambda one: -one.get("psi", 0.0))]
        rows = [
            (one["name"], charts.numbers(one.get("psi")), charts.numbers(one.get("ks")),
             charts.numbers(one.get("missing")), charts.numbers(one.get("missing_in_training")))
            for one in lines[:MOST_TRIALS]
        ]  # fmt: skip
        yield f"<h2>Drift seen by {escape(stage)}</h2>"
        yield "<p>PSI below 0.1 is alike, above 0.25 far apart; KS is the largest distance of the distributions.</p>"
        yield table(("predictions and features", "PSI", "KS", "missing", "missing in training"), rows)


def costs(found: Mapping[str, Any]) -> Iterable[str]:
    """Yield who paid what."""
    whole, paid = found["cost"]["whole"], found["cost"]["stages"]
    yield "<h2>Cost</h2><p>An estimate, from the prices in the cluster's definition.</p>"
    header = ("stage", "work", "idle", "saved by reuse", "start-up", "money")
    names = ("worker_seconds", "idle_seconds", "saved_seconds", "startup_seconds")
    lines = [*({**cost, "stage": cost["stage"] or "start-up"} for cost in paid), {**whole, "stage": "whole run"}]
    yield table(header, [(line["stage"], *(took(line[n]) for n in names), f"{line['money']:.4g}") for line in lines])


def quarantine(found: Mapping[str, Any]) -> Iterable[str]:
    """Yield the rows without a result."""
    listed = found["quarantine"]
    if listed:
        rows = [(one["stage"], one["unit"], one["bad_input"], one["model_error"], _because(one)) for one in listed]
        yield f"<h2>Quarantine</h2><p>Rows without a result, in {plural(len(listed), 'unit')} of this store.</p>"
        yield table(("stage", "unit", "bad input", "model errors", "first reason"), rows)


def _because(one: Mapping[str, Any]) -> str:
    return str(one["error"] or (one["reasons"][0][2] if one["reasons"] else ""))


def told(found: Mapping[str, Any]) -> Iterable[str]:
    """Yield warnings, scaling and history."""
    if found["warnings"]:
        yield "<h2>Warnings</h2>"
        yield table(("stage", "warning"), [(one["stage"], one["message"]) for one in found["warnings"]])
    if found["scaling"]:
        yield "<h2>Scaling</h2>"
        first = found["scaling"][0]["time"]
        for name in list(dict.fromkeys(one["worker_class"] for one in found["scaling"]))[:4]:
            mine = [one for one in found["scaling"] if one["worker_class"] == name]
            series = {key: [(one["time"] - first, one[key]) for one in mine] for key in ("have", "need")}
            yield charts.lines(series, title=f"Workers of class {name}", x="s", y="workers", stepped=True)
        decisions = [(moment(one["time"]), one["worker_class"], one["have"], one["need"], one["reason"])
                for one in found["scaling"]]  # fmt: skip
        yield table(("when", "class", "have", "need", "because"), decisions)
    if found["history"]:
        yield "<h2>History</h2>"
        rows = [(moment(one["time"]), one["epoch"], one["state"], one["message"]) for one in found["history"]]
        yield table(("when", "epoch", "state", ""), rows)


def performance(found: Mapping[str, Any]) -> Iterable[str]:
    """Yield Dask's performance report, in a frame that can neither load anything nor see this page."""
    if text := found.get("performance"):
        inside = text.replace("&", "&amp;").replace('"', "&quot;")
        yield "<h2>Dask's performance report</h2>"
        yield (
            '<iframe title="Dask\'s performance report" sandbox="allow-scripts" loading="lazy" '
            f'style="width:100%;height:48em;border:1px solid var(--line);background:#fff" srcdoc="{inside}"></iframe>'
        )


def origin(found: Mapping[str, Any]) -> Iterable[str]:
    """Yield where the results come from."""
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
