"""The page of measurements holds what result files hold, losses first, and nothing where there is no file."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
import yaml

from benchmarks import report
from benchmarks.__main__ import MODULES
from benchmarks.plot import picture

ROOT = Path(__file__).parents[2]


def row(work: str, peer: str, ours: float, theirs: float, **counts: float) -> dict:
    def spread(value: float) -> dict:
        return {"min": value * 0.9, "median": value, "max": value * 1.1}

    return {
        "work": work, "peer": peer, "ours": spread(ours), "theirs": spread(theirs), "ratio": spread(ours / theirs),
        "limit": 0.01, "limit_is": "the calls alone", "scaled": 1.0, "counts": {"ours": counts, "peer": {}},
    }  # fmt: skip


@pytest.fixture
def folder(tmp_path) -> Path:
    rows = [
        row("100,000 calls of 1 us", "joblib loky", 0.5, 1.0, tasks=18),
        row("100,000 calls of 1 us", "client.map", 0.5, 100.0, tasks=18),
        row("4,000 x 5 ms computing", "Pool in chunks", 13.46, 10.0),
    ]
    about = {
        "size": "small",
        "repeat": 3,
        "python": "3.11",
        "cores": 2,
        "memory_gib": 8,
        "versions": {"dask": "2026.8.0"},
    }
    found = {**about, "modules": {"dispatch": {"seconds": 1.0, "load_before": 0.25, "rows": rows}}}
    (tmp_path / "dispatch.json").write_text(json.dumps(found))
    runs = {**about, "load": 0.5, "found": {"submit, s": [0.9, 1.0], "status, s": [0.4, None]}}
    (tmp_path / "runs.json").write_text(json.dumps(runs))
    goals = [["makespan against the defaults", "0.93x", "<= 1.0x", True], ["cost", "0.7x", "<= 0.6x", False]]
    (tmp_path / "scaling.json").write_text(json.dumps({**about, "size": "simulated", "goals": goals, "cells": {}}))
    return tmp_path


def test_missed_goals_come_first_then_kept_ones_then_those_that_nobody_measured(folder, tmp_path):
    target = tmp_path / "out" / "benchmarks.md"
    report.write(folder, target)
    text = target.read_text()
    missed, kept, unknown = (
        text.index(title) for title in ("Goals that are missed", "Goals that are kept", "not in these")
    )
    assert missed < kept < unknown
    assert "units of 5 ms, computing, of a chunked Pool | >= 0.88 | 0.743" in text[missed:kept]
    assert "of joblib | <= 1 | 0.5" in text[kept:unknown]
    assert "faster than client.map | >= 400 | 200" in text[missed:kept]
    assert "| runs | submit, s | <= 1 | 0.9 |" in text[kept:unknown]
    assert "| scaling, simulated | makespan against the defaults | <= 1.0x | 0.93x |" in text[kept:unknown]
    assert "| scaling, simulated | cost | <= 0.6x | 0.7x |" in text[missed:kept]
    table = text[text.index("## dispatch") :]
    assert table.index("Pool in chunks") < table.index("joblib loky") < table.index("client.map")
    assert "2 cores, 8 GiB" in text
    picture_of = target.parent / "images" / "measured" / "dispatch.svg"
    assert "images/measured/dispatch.svg" in text
    ElementTree.fromstring(picture_of.read_text())


def test_without_files_the_page_says_so_and_has_no_number(tmp_path):
    (tmp_path / "none").mkdir()
    listed = report.write(tmp_path / "none", tmp_path / "page.md")
    text = (tmp_path / "page.md").read_text()
    assert "No measurement is published" in text
    assert all(goal.value is None for goal in listed)
    rows = [line for line in text.splitlines() if line.startswith("| ") and not line.startswith("| area")]
    assert len(rows) == len(listed) > 30
    assert all(line.endswith("| - |") for line in rows)


def test_the_published_page_is_that_of_the_published_files():
    files = report.read(report.MEASURED)
    assert report.PAGE.read_text() == report.page(files, "images/measured")
    for module, (_, rows) in report.modules(files).items():
        ordered = sorted(rows, key=lambda one: -one["ratio"]["median"])
        assert (report.PAGE.parent / "images" / "measured" / f"{module}.svg").read_text() == picture(module, ordered)


def test_what_became_slower_against_its_limit_is_told(folder):
    before = report.read(folder)
    now = json.loads(json.dumps(before))
    rows = now["dispatch"]["modules"]["dispatch"]["rows"]
    rows[2]["ours"]["median"] *= 1.2
    for same in rows[:2]:
        same["ours"]["median"] *= 1.1
    (told,) = report.dropped(before, now)
    assert told.startswith("dispatch: 4,000 x 5 ms computing: ")
    assert told.endswith("(+20%)")


def test_goals_can_be_read_and_name_modules_that_exist():
    listed = yaml.safe_load((ROOT / "benchmarks" / "goals.yaml").read_text())
    for each in listed:
        assert {"area", "goal", "module", "work", "peer", "value", "wanted"} <= set(each)
        assert each["module"] in MODULES
        assert re.fullmatch(r"(<=|<|>=|>) [\d.]+", each["wanted"])
        assert each["value"] in ("ratio", "faster", "of the limit", "seconds") or each["value"].startswith("counts: ")
        re.compile(each["work"]), re.compile(each["peer"])


@pytest.mark.parametrize(
    ("value", "wanted", "held"), [(1.0, "<= 1", True), (1.0, "< 1", False), (3, ">= 3", True), (2, "> 3", False)]
)
def test_limits(value, wanted, held):
    assert report.holds(value, wanted) is held
