"""A report's charts: drawn from what was logged, described in words, with nothing that a name could smuggle in."""

from __future__ import annotations

import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import auc, roc_auc_score

from daskml_scale import events
from daskml_scale.runs import report
from daskml_scale.runs.charts import lines
from daskml_scale.runs.report_log import MOST_POINTS, Logged
from daskml_scale.stages.curves import POINTS, curves
from daskml_scale.stages.metrics import Scored

HOSTILE = "<script>alert(1)</script>'\""


def logged(name: str = "search") -> Logged:
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 400).astype(float)
    proba = np.clip(y * 0.3 + rng.random(400) * 0.7, 0, 1)
    scored = Scored("m", np.array([0, 1]), y, proba=np.stack([1 - proba, proba], axis=1))
    trials = [{"trial": n, "score": n / 9, "params": {name: n}, "rung": n % 2, "resource": 1 + n % 2} for n in range(9)]
    moved = {"name": name, "psi": 0.4, "ks": 0.2, "missing": 0.1, "missing_in_training": 0.0}
    end = {"state": "ok", "seconds": 5.0, "units": 9, "reused": 0}
    found = Logged()
    for event in (
        events.StageStarted(time=1.0, stage=name, stage_kind="search"),
        events.StagePlanned(time=1.0, stage=name, units=9, reused=0, reasons={"new": 9}),
        *(events.UnitsCommitted(time=1.0 + second, stage=name, units=2) for second in range(60)),
        events.StageFinished(time=61.0, stage=name, result={"trials": trials}, **end),
        events.StageFinished(time=62.0, stage="score", result={"curves": curves(scored)}, **end),
        events.StageFinished(time=63.0, stage="drift", result={"features": [moved], "predictions": [moved]}, **end),
        events.Scaled(time=2.0, worker_class=name, have=1, need=3, backlog_seconds=9.0, reason=HOSTILE),
        events.Scaled(time=9.0, worker_class=name, have=3, need=3, backlog_seconds=9.0, reason="steady"),
    ):
        found.take(event)
    return found


def document(found: Logged) -> dict[str, Any]:
    run = {
        "id": "w-1", "state": "succeeded", "started": 1.0, "finished": 70.0, "source": "w.yaml", "store": "s",
        "cluster": "local", "owner": HOSTILE, "labels": {}, "message": "", "stages": [],
        "summary": {"metrics": {"roc_auc": 0.7}},
    }  # fmt: skip
    zero = dict.fromkeys(("worker_seconds", "idle_seconds", "saved_seconds", "startup_seconds", "money"), 0.0)
    return {
        "run": run, "history": [], "cost": {"whole": zero, "stages": []}, "why": {}, "warnings": found.warnings,
        "scaling": found.scaling, "timeline": found.timeline, "throughput": found.throughput(),
        "results": found.results, "quarantine": [], "provenance": {},
    }  # fmt: skip


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def test_a_report_draws_and_describes_everything_and_loads_nothing() -> None:
    page = report.page(document(logged()))
    tags = Tags()
    tags.feed(page)
    pictures = [attributes for tag, attributes in tags.found if tag == "svg"]
    said = " ".join(str(attributes["aria-label"]) for attributes in pictures)
    assert all(attributes.get("role") == "img" and attributes.get("aria-label") for attributes in pictures)
    for wanted in ("When each stage worked", "Throughput", "Best score", "ROC", "Precision", "Calibration", "Workers"):
        assert wanted in said, wanted
    assert not {"script", "img", "link", "iframe"} & {tag for tag, _ in tags.found}
    assert not re.search(r"https?://|url\(|@import", page)
    assert "width=device-width" in page
    for heading in ("Trials of search", "Curves of score", "Drift seen by drift", "Scaling", "Cost"):
        assert f"<h2>{heading}" in page, heading


def test_quarantined_and_failed_units_have_their_own_columns_and_colours() -> None:
    found = Logged()
    end = {"state": "ok", "seconds": 5.0, "units": 9, "reused": 0}
    for event in (
        events.StageStarted(time=1.0, stage="p", stage_kind="predict"),
        events.UnitsCommitted(time=1.0, stage="p", units=9, quarantined=9),
        events.StageStarted(time=2.0, stage="p", stage_kind="predict"),
        events.UnitsCommitted(time=3.0, stage="p", units=5, quarantined=2),
        events.UnitsCommitted(time=4.0, stage="p", units=4, quarantined=1),
        events.StageFinished(time=5.0, stage="p", **end),
    ):
        found.take(event)
    assert dict(found.quarantined) == {"p": 3}, "of the last time that the stage ran"
    stage = {"name": "p", "kind": "predict", "state": "ok", "units": 9, "reused": 0, "failed": 4, "seconds": 1.0}
    whole = document(found)
    whole["run"]["stages"] = [{**stage, "rows": 1}]
    page = report.page({**whole, "quarantined": dict(found.quarantined)})
    assert "color:var(--four)'>3<" in page
    assert "color:var(--two)'>4<" in page
    assert "p partial" in page, "the timeline says so, too"


def test_names_stay_text_in_charts_and_tables() -> None:
    page = report.page(document(logged(HOSTILE)))
    tags = Tags()
    tags.feed(page)
    assert "script" not in {tag for tag, _ in tags.found}
    assert not any(name.startswith("on") for _, attributes in tags.found for name in attributes)


@pytest.mark.skipif(not shutil.which("chromedriver"), reason="chromium and its driver are not installed")
def test_a_report_is_written_as_a_picture_and_as_json(tmp_path: Path) -> None:
    found = document(logged())
    assert report.written(found, str(tmp_path / "r.png")).read_bytes()[:4] == b"\x89PNG"
    assert json.loads(report.written(found, str(tmp_path / "r.json")).read_text())["run"]["id"] == "w-1"


def test_throughput_adds_up_and_the_log_of_a_large_run_is_bounded() -> None:
    found = Logged()
    for second in range(10 * MOST_POINTS):
        found.take(events.UnitsCommitted(time=float(second), stage="a", units=3, failed=1))
    assert len(found.done) <= MOST_POINTS
    points = found.throughput()
    span = points[1][0] - points[0][0]
    assert sum(rate * span for _, rate in points) == pytest.approx(found.units)
    assert Logged().throughput() == []


def test_thinned_curves_keep_their_area_and_ends() -> None:
    rng = np.random.default_rng(1)
    y = rng.integers(0, 2, 20_000).astype(float)
    proba = np.clip(0.2 * y + 0.8 * rng.random(20_000), 0, 1)
    found = curves(Scored("m", np.array([0, 1]), y, proba=np.stack([1 - proba, proba], axis=1)))
    roc = np.array(found["roc"])
    assert len(roc) <= POINTS + 2
    assert (roc[0].tolist(), roc[-1].tolist()) == ([0, 0], [1, 1])
    assert auc(roc[:, 0], roc[:, 1]) == pytest.approx(roc_auc_score(y, proba), abs=1e-3)
    assert sum(row["rows"] for row in found["calibration"]) == 20_000
    assert curves(Scored("m", np.array([0, 1]), np.zeros(5), proba=np.ones((5, 2)))) == {}
    assert curves(Scored("m", np.array([]), y)) == {}


def test_a_chart_of_nothing_is_no_chart() -> None:
    assert lines({"a": []}, title="t", x="x", y="y") == ""
    assert "ends at 5" in lines({"a": [(1.0, 5.0)]}, title="t", x="x", y="y")
