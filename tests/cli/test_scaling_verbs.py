"""``scaling explain``, ``simulate`` and ``report``: on real runs, for people and for programs."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import pytest

from daskml_scale import events
from daskml_scale.runs.event_log import EventLog, path_of
from daskml_scale.runs.records import Registry


def data(command, *words):
    code, out, _ = command(*words, "--json")
    return code, json.loads(out)


def newest() -> str:
    return Registry().get(now=0.0).id


@pytest.fixture
def ran(command) -> str:
    """The id of a run of ``tiny.yaml``."""
    assert command("run", "tiny.yaml", "--quiet")[0] == 0
    return newest()


def decided(run: str, *found: events.Scaled) -> None:
    with EventLog(path_of(Registry().path.parent, run), print) as log:
        for event in found:
            log.sink(event)


def test_explain_lists_decisions_with_their_rule_and_reason(command, ran):
    began = Registry().get(ran, now=0.0).started
    decided(
        ran,
        events.Scaled(
            time=began + 5, run=ran, worker_class="cpu", have=1, need=8, starting=1, backlog_seconds=90.0,
            rule="budget", reason="table: 90 s of work per worker slot, to be done in 30 s; 9.00 per hour is left",
        ),
    )  # fmt: skip
    code, out, _ = command("scaling", "explain", ran)
    assert code == 0
    header, row = out.splitlines()
    assert header.split() == ["after", "class", "have", "starting", "need", "backlog", "rule", "why"]
    assert row.split()[:5] == ["0:05", "cpu", "1", "1", "8"]
    assert "budget" in row
    assert row.endswith("9.00 per hour is left")
    _, found = data(command, "scaling", "explain")
    assert [(one["worker_class"], one["need"], one["rule"]) for one in found] == [("cpu", 8, "budget")]


def test_explain_says_when_nothing_was_decided(command, ran):
    assert command("scaling", "explain")[1].startswith("No scaling decisions: the run started no cluster")
    assert data(command, "scaling", "explain") == (0, [])


def test_simulate_plays_a_run_with_other_maxima(command, ran, folder: Path):
    code, rows = data(command, "scaling", "simulate", ran, "--max", "8,1", "--startup", "10s", "--price", "3.6")
    assert code == 0
    assert [row["maximum"] for row in rows] == [1, 8]
    for row in rows:
        assert row["seconds"] >= 7.5  # a start takes three quarters of the time at least
        assert row["cost"] == pytest.approx(row["worker_hours"] * 3.6)
        assert 0 <= row["idle"] <= 1
        assert 1 <= row["started"] <= row["maximum"]
    _, again = data(command, "scaling", "simulate", "--max", "1,8", "--startup", "10s", "--price", "3.6")
    assert again == rows
    _, out, _ = command("scaling", "simulate", "--max", "1", "--plot", "limits.html")
    assert out.splitlines()[0].split() == [
        "max",
        "time",
        "worker-hours",
        "cost",
        "idle",
        "started",
        "unused",
        "preempted",
    ]
    assert "Simulated from 8 units" in out
    page = (folder / "limits.html").read_text()
    assert "workers over time" in page
    assert '<script type="text/javascript" src=' not in page  # it needs no network


def test_simulate_knows_failing_and_preempted_workers(command, ran):
    words = ("scaling", "simulate", "--max", "4", "--startup", "5s", "--fail", "0.5", "--seed", "3")
    code, (row,) = data(command, *words, "--lifetime", "1h")
    assert code == 0
    assert row["seconds"] is not None


def test_simulate_of_a_workflow_needs_to_know_durations(command):
    code, _, err = command("scaling", "simulate", "tiny.yaml")
    assert code == 2
    assert "nothing is known of how long units of table, check take" in err or "nothing is known" in err
    assert "--seconds table=0.5" in err
    code, (one, many) = data(
        command, "scaling", "simulate", "tiny.yaml", "--seconds", "table=60", "--seconds", "check=5",
        "--max", "1,64", "--startup", "30s",
    )  # fmt: skip
    assert code == 0
    assert many["seconds"] < one["seconds"]
    assert many["worker_hours"] > 0


def test_simulate_of_a_workflow_that_is_up_to_date_says_so(command, ran):
    code, _, err = command("scaling", "simulate", "tiny.yaml")
    assert code == 2
    assert "everything is up to date" in err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--max", "0"), "--max 0: write whole numbers from 1 to 100,000, as 1,8,64"),
        (("--max", "many"), "--max many: write whole numbers"),
        (("--startup", "soon"), "--startup 'soon' is not a duration"),
        (("--lifetime", "0s"), "--lifetime 0s: it must be longer than zero"),
        (("--seconds", "table=1"), "--seconds is for a workflow"),
        (("--plot", "limits.pdf"), "--plot limits.pdf: a plot is written as .html or .png"),
        (("--plot", "nowhere/limits.html"), "there is no folder nowhere"),
        (("--cluster", "nowhere"), "nowhere"),
    ],
)
def test_wrong_options_are_refused_in_one_line(command, ran, words, message):
    code, out, err = command("scaling", "simulate", *words)
    assert (code, out) == (2, "")
    assert message in err
    assert "Traceback" not in err


def test_wrong_subjects_are_refused(command, ran):
    assert command("scaling", "simulate", "nobody")[0] == 2
    assert command("scaling", "simulate", "nobody.yaml")[0] == 2
    code, _, err = command("scaling", "simulate", "tiny.yaml", "--seconds", "nope=3")
    assert code == 2
    code, _, err = command("scaling", "simulate", "tiny.yaml", "--seconds", "table=fast")
    assert "write STAGE=SECONDS" in err


def test_report_fits_both_laws_and_says_what_bounds_the_run(command, ran):
    code, found = data(command, "scaling", "report", ran)
    assert code == 0
    assert [row["workers"] for row in found["bounds"]] == [2**power for power in range(13)]
    seconds = [row["seconds"] for row in found["bounds"]]
    assert all(later <= earlier * 1.001 for earlier, later in pairwise(seconds))
    assert found["bounds"][0]["efficiency"] == pytest.approx(1.0)
    assert seconds[-1] >= found["serial"]
    assert found["amdahl"]["sigma"] >= 0
    assert found["measured"][0] == 1
    assert found["measured"][1] > 0
    out = command("scaling", "report")[1]
    assert "bound by" in out.splitlines()[0]
    assert "Amdahl" in out
    assert "Gunther" in out


def test_before_the_first_run_there_is_nothing_to_report(command):
    for verb in ("explain", "report", "simulate"):
        code, _, err = command("scaling", verb)
        assert code == 2
        assert "Traceback" not in err
