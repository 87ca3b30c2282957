"""The page of measurements holds what result files hold, losses first, and nothing where there is no file."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
import yaml

from benchmarks import readme, report, results
from benchmarks.__main__ import MODULES
from benchmarks.curves import curves


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
    assert "units of 5 ms, computing, of a chunked Pool | >= 0.88 | 0.743 (0.675-0.825) |" in text[missed:kept]
    assert "of joblib | <= 1 | 0.5 (0.45-0.55) |" in text[kept:unknown]
    assert "faster than client.map | >= 400 | 200" in text[missed:kept]
    assert "| runs | submit, s | < 2 | 0.9 |" in text[kept:unknown]
    assert "| scaling, simulated | makespan against the defaults | <= 1.0x | 0.93x |" in text[kept:unknown]
    assert "| scaling | cost | <= 0.6x | 0.7x | not looked into yet |" in text[missed:kept]
    table = text[text.index("## dispatch") :]
    assert table.index("Pool in chunks") < table.index("joblib loky") < table.index("client.map")
    assert "2 cores, 8 GiB" in text
    picture_of = target.parent / "images" / "measured" / "dispatch.svg"
    assert "images/measured/dispatch.svg" in text
    ElementTree.fromstring(picture_of.read_text())


def test_the_readme_tells_all_missed_goals_and_some_kept_ones(folder):
    told = report.goals(report.read(folder))
    numbers = readme.section(told, {goal: report._value(goal) for goal in told})
    text = readme.written(f"before\n{readme.BEGIN}\nold\n{readme.END}\nafter\n", numbers)
    assert text.startswith(f"before\n{readme.BEGIN}\n\nOf the goals")
    assert text.endswith(f"{readme.END}\nafter\n")
    assert "\nold\n" not in text
    assert "| units of 5 ms, computing, of a chunked Pool | >= 0.88 | 0.743 (0.675-0.825) | missed |" in text
    assert readme.written(text, numbers) == text
    assert {readme.BEGIN, readme.END} <= set(readme.README.read_text().splitlines())
    known = {entry["goal"] for entry in yaml.safe_load(results.GOALS.read_text()) if "goal" in entry}
    assert set(readme.SHOWN) <= known


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
    files = results.read(report.MEASURED)
    assert report.PAGE.read_text() == report.page(files)
    shown = {path.name: path.read_text() for path in (report.PAGE.parent / report.PICTURES).glob("*.svg")}
    assert shown == report.plots(files)


def test_rows_of_a_module_that_was_measured_in_parts_stand_together(folder, tmp_path):
    before = json.loads((folder / "dispatch.json").read_text())
    parts = before["modules"]["dispatch"]["rows"]
    for name, rows, load in (("dispatch-first", parts[:1], 0.5), ("dispatch-second", parts[1:], 7.0)):
        each = {**before, "modules": {"dispatch": {"seconds": 60.0, "load_before": load, "rows": rows}}}
        (folder / f"{name}.json").write_text(json.dumps(each))
    (folder / "dispatch.json").unlink()
    files = results.read(folder)
    measured = results.modules(files)["dispatch"]
    assert [(one.file, one.peer) for one in measured] == [
        ("dispatch-second", "Pool in chunks"), ("dispatch-first", "joblib loky"), ("dispatch-second", "client.map"),
    ]  # fmt: skip
    values = {(one.area, one.goal): one for one in results.goals(files)}
    assert values["engine", "100,000 units of 1 us, of joblib"].file == "dispatch-first"
    assert values["engine", "100,000 units of 1 us, faster than client.map"].file == "dispatch-second"
    text = report.page(files)
    assert text.count("## dispatch\n") == 1
    assert "| `dispatch-first.json` | small | 3 | 1.0 | 0.5 |" in text
    assert "| `dispatch-second.json` | small | 3 | 1.0 | 7 |" in text
    assert "| `dispatch-second` |" in text[text.index("## dispatch\n") :]
    assert list(report.plots(files)) == ["dispatch.svg"]


def test_the_worst_of_several_rows_is_held_against_a_goal(folder):
    found = json.loads((folder / "dispatch.json").read_text())
    rows = [row("100,000 calls of 1 us", "joblib loky", ours, 1.0) for ours in (0.9, 1.3)]
    (folder / "again.json").write_text(json.dumps({**found, "modules": {"dispatch": {"rows": rows}}}))
    (goal,) = (one for one in results.goals(results.read(folder)) if one.goal == "100,000 units of 1 us, of joblib")
    assert (goal.value, goal.held, goal.file) == (1.3, False, "again")


def test_a_goal_may_be_about_what_ours_counts_or_what_the_peer_counts(folder, monkeypatch):
    about = {"area": "a", "module": "dispatch", "work": "calls", "peer": "loky"}
    entries = ({**about, "goal": who, "value": f"{who}counts: tasks", "wanted": "<= 20"} for who in ("", "peer "))
    monkeypatch.setattr(results, "listed", lambda entries=tuple(entries): entries)
    values = {goal.goal: goal.value for goal in results.goals(results.read(folder)) if goal.area == "a"}
    assert values == {"": 18.0, "peer ": None}


def test_where_the_other_is_faster_the_page_says_why(folder, monkeypatch):
    said = {"module": "dispatch", "work": "5 ms computing", "peer": "Pool", "why": "three processes on two cores"}
    monkeypatch.setattr(results, "listed", lambda: (said,))
    text = report.page(results.read(folder))
    (line,) = (line for line in text.splitlines() if "three processes" in line)
    assert line == (
        "| dispatch | 4,000 x 5 ms computing | Pool in chunks | 1.35 (1.21-1.48) | three processes on two cores |"
    )


def test_a_goal_names_its_work_wherever_it_is_listed():
    goals = [goal.goal for goal in results.goals(results.read(report.MEASURED))]
    assert not [goal for goal in goals if re.match(r"the same|[^\w]", goal)]
    assert len(set(goals)) == len(goals)


def test_a_file_that_is_no_result_is_named(tmp_path):
    (tmp_path / "other.json").write_text('{"hello": 1}')
    with pytest.raises(SystemExit, match=r"other\.json: not a result file"):
        results.read(tmp_path)


def test_curves_are_drawn_and_told_with_their_growth(tmp_path):
    cubic = [[x, x**3, x**3 * 0.5, x**3 * 2] for x in (1.0, 10.0, 100.0)]
    busy = [[1, 1.0, 1.0, 1.0], [4000, 0.9, 0.9, 0.9]]
    data = {"curves": [
        {"name": "features <1>", "x": "MB", "y": "seconds", "lines": [{"name": "ours", "points": cubic}]},
        {"name": "map", "x": "workers", "y": "efficiency", "note": "A note.",
         "lines": [{"name": "1 s a unit", "points": busy, "simulated": True}]},
    ]}  # fmt: skip
    (tmp_path / "growth.json").write_text(json.dumps(data))
    files = results.read(tmp_path)
    assert curves(files)[0].lines[0].exponent == pytest.approx(3.0)
    text = report.page(files)
    assert "| 10 | 1e+03 s (500 s-2e+03 s) |" in text
    assert "twice the time): ours 3.00." in text
    assert "| workers | 1 s a unit (simulated) |" in text
    assert "| 4,000 | 90 % |" in text
    assert "A note." in text
    drawn = report.plots(files)
    assert set(drawn) == {"growth-1.svg", "growth-2.svg"}
    for picture in drawn.values():
        ElementTree.fromstring(picture)
    assert "stroke-dasharray" in drawn["growth-2.svg"]
    assert "stroke-dasharray" not in drawn["growth-1.svg"]


def test_pictures_of_files_that_are_gone_are_removed(folder, tmp_path):
    target = tmp_path / "out" / "benchmarks.md"
    report.write(folder, target)
    (folder / "dispatch.json").unlink()
    report.write(folder, target)
    assert list((target.parent / report.PICTURES).glob("*")) == []


def test_what_became_slower_against_its_limit_is_told(folder):
    before = results.read(folder)
    now = json.loads(json.dumps(before))
    rows = now["dispatch"]["modules"]["dispatch"]["rows"]
    rows[2]["ours"]["median"] *= 1.2
    for same in rows[:2]:
        same["ours"]["median"] *= 1.1
    (told,) = results.dropped(before, now)
    assert told.startswith("dispatch: 4,000 x 5 ms computing: ")
    assert told.endswith("(+20%)")


def test_goals_can_be_read_and_name_modules_that_exist():
    for each in results.listed():
        if "wanted" in each:
            assert {"area", "goal"} <= set(each)
            assert re.fullmatch(r"(<=|<|>=|>) [\d.]+", each["wanted"])
        else:
            assert each["why"]
        if "named" in each:
            re.compile(each["named"])
            continue
        assert {"module", "work", "peer"} <= set(each)
        assert each["module"] in MODULES
        re.compile(each["work"]), re.compile(each["peer"])
        if "wanted" in each:
            value = each["value"]
            assert value in ("ratio", "faster", "of the limit", "seconds") or re.match(r"(peer )?counts: \S", value)


@pytest.mark.parametrize(
    ("value", "wanted", "held"), [(1.0, "<= 1", True), (1.0, "< 1", False), (3, ">= 3", True), (2, "> 3", False)]
)
def test_limits(value, wanted, held):
    assert results.holds(value, wanted) is held
