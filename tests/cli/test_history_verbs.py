"""What was: reports, costs, provenance, what changed since, doing it again, and removing what is old."""

from __future__ import annotations

import json
import os
import subprocess
import time
from html.parser import HTMLParser
from pathlib import Path

import pytest

from daskml_scale.runs import gc
from daskml_scale.runs.costs import Cost, bills, charged
from daskml_scale.runs.provenance import changes
from daskml_scale.runs.records import Registry
from daskml_scale.storage.ledger import Ledger

DAY = 86400.0


def ran(command, *words: str):
    assert command("run", "tiny.yaml", "-q", *words)[0] == 0
    return Registry().get(now=time.time())


def test_rerun_does_a_stage_and_what_needs_it_again(command, folder):
    first = ran(command)
    code, out, _ = command("rerun", first.id, "--from", "check", "--json")
    assert (code, [(row["units"], row["reused"]) for row in json.loads(out)["stages"]]) == (0, [(4, 4), (4, 0)])
    code, out, _ = command("rerun", first.id, "--from", "table", "--json", "-q")
    assert (code, [row["reused"] for row in json.loads(out)["stages"]]) == (0, [0, 0])
    why = json.loads(command("report", "--json")[1])["why"]
    assert why["table"] == {"asked to run again": 4}
    code, out, _ = command("resume", Registry().get(now=time.time()).id, "--json")  # does not do it once more
    assert [row["reused"] for row in json.loads(out)["stages"]] == [4, 4]
    code, _, err = command("rerun", first.id, "--from", "chekc")
    assert code == 2
    assert "there is no stage 'chekc'" in err


def test_resume_says_what_changed_since(command, folder):
    (folder / "beside.py").write_text("x = 1\n")
    first = ran(command)
    assert "since" not in command("resume", first.id, "--json")[2]
    (folder / "beside.py").write_text("x = 2\n")
    (folder / "tiny.yaml").write_text((folder / "tiny.yaml").read_text().replace("chunk: 20", "chunk: 30"))
    err = command("resume", first.id, "--json")[2]
    assert f"since {first.id}: workflow: stages.table.row.chunk: 20 -> 30" in err
    assert f"since {first.id}: code: beside.py changed" in err


def test_what_changed_names_versions_commits_and_no_more_than_a_dozen():
    old = {
        "resolved": {"a": {"b": 1}},
        "code": {"commit": "1" * 40, "dirty": "", "files": {}},
        "versions": {"zarr": "3"},
    }
    new = {
        "resolved": {"a": {"c": 2}},
        "code": {"commit": "2" * 40, "dirty": "x", "files": {}},
        "versions": {"zarr": "4"},
    }
    assert changes(old, new) == [
        "workflow: a.b is gone", "workflow: a.c is new: 2", "code: commit 1111111111 -> 2222222222",
        "code: uncommitted changes are others than they were", 'version: zarr: "3" -> "4"',
    ]  # fmt: skip
    many = {**new, "resolved": {str(n): n for n in range(40)}}
    assert len(changes(old, many)) == 13
    assert changes({}, new) == []
    assert changes(new, new) == []


def test_provenance_names_file_settings_commit_versions_seed_and_inputs(command, folder):
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b"]
    for words in (["init", "-q"], ["add", "tiny.yaml"], ["commit", "-qm", "x"]):
        subprocess.run([*git, *words], check=True, cwd=folder)
    run = ran(command, "--set", "seed=3")
    found = json.loads(command("provenance", run.id)[1])
    assert found["run"] == run.id
    assert found["settings"] == ["seed=3"]
    assert found["seed"] == found["resolved"]["seed"] == 3
    assert found["spec"] == (folder / "tiny.yaml").read_text()
    assert len(found["code"]["commit"]) == 40
    assert found["code"]["dirty"]  # a.csv and what the run wrote are not in it
    assert {"python", "zarr", "scikit-learn"} <= set(found["versions"])
    assert list(found["inputs"]["table"]) == [str(folder / "a.csv")]


class Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.words = ""

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        assert not [value for name, value in attrs if name in ("src", "href")], "it needs another file"

    def handle_data(self, data):
        self.words += data


def test_a_report_is_one_page_with_all_that_is_known(command, folder):
    run = ran(command, "--label", "who=<script>alert(1)</script>")
    code, out, _ = command("report", run.id)
    text = Path(out.strip()).read_text()
    page = Page()
    page.feed(text)
    assert (code, Path(out.strip()).name) == (0, f"report-{run.id}.html")
    assert "script" not in page.tags
    for wanted in (run.id, "succeeded", "table", "4 new", "who=<script>", "seed", "zarr", str(folder / "a.csv")):
        assert wanted in page.words, wanted
    found = json.loads(command("report", run.id, "--json")[1])
    assert found["run"]["id"] == run.id
    assert [event["state"] for event in found["history"]] == ["queued", "running", "succeeded"]
    code, _, err = command("report", run.id, "--out", "no/where.html")
    assert code == 1
    assert "the report cannot be written" in err


def test_costs_are_summed_by_run_label_and_owner(command):
    first, second = ran(command, "--label", "team=a"), ran(command, "--label", "team=b", "--store", "runs/two")
    by_run = {bill["group"]: bill for bill in json.loads(command("cost", "--json")[1])}
    assert set(by_run) == {first.id, second.id}
    assert by_run[first.id]["worker_seconds"] > 0
    teams = {bill["group"]: bill for bill in json.loads(command("cost", "--by", "label:team", "--json")[1])}
    assert teams["a"]["worker_seconds"] == by_run[first.id]["worker_seconds"]
    (owner,) = json.loads(command("cost", "--by", "owner", "--json")[1])
    assert owner["runs"] == 2
    assert owner["worker_seconds"] == pytest.approx(sum(bill["worker_seconds"] for bill in by_run.values()))
    (one,) = json.loads(command("cost", "--by", "label", "--label", "team=b", "--json")[1])
    assert one["group"] == "team=b"
    assert command("cost")[1].startswith("run ")
    assert command("cost", "--by", "colour")[0] == 2


def test_idle_time_start_up_and_money_come_from_the_events():
    from daskml_scale.events import ClusterStarted, StageFinished, UnitsCommitted
    from daskml_scale.runs.state import RunRecord

    costs: dict[str, Cost] = {}
    for event in (
        ClusterStarted(time=1.0, run="r", cluster="c", dashboard="", seconds=2.5),
        UnitsCommitted(time=2.0, run="r", stage="a", units=1, seconds=1.0),
        StageFinished(time=3.0, run="r", stage="a", state="ok", seconds=1, units=1, reused=0, worker_seconds=3.0,
                      idle_share=0.25, saved_seconds=7.0, cost=0.5),
        UnitsCommitted(time=2.0, run="r", stage="b", units=1, seconds=4.0),  # its stage never ended
    ):  # fmt: skip
        costs = dict(charged(costs, event))
    assert costs["a"] == Cost("r", "a", 3.0, 1.0, 7.0, 0.0, 0.5)
    assert costs["b"].worker_seconds == 4.0
    run = RunRecord("r", "w", "", "", "", (), "", "succeeded", 1, 0.0, "", 0, 0.0, None, None, 0, "", "", {})
    (bill,) = bills([run], costs.values(), "label")
    assert (bill.group, bill.worker_seconds, bill.startup_seconds, bill.idle_share) == ("(none)", 7.0, 2.5, 0.125)


@pytest.fixture
def aged(command, folder):
    """Two runs and their leftovers, and the time 40 days later."""
    first, second = ran(command), ran(command, "--store", "runs/two")
    return first, second, time.time() + 40 * DAY


def test_gc_lists_first_and_removes_only_what_is_old(aged, command, folder):
    first, second, later = aged
    registry = Registry()
    home = registry.path.parent
    assert gc.found(registry, 30 * DAY, now=time.time()) == []
    (home / "runs" / "stray").mkdir()
    stale = folder / "runs/tiny/removed.ledger"
    stale.mkdir()
    torn = folder / "runs/tiny/table.zarr/.zarr.json.99-98"
    torn.write_text("half")
    listed = gc.found(registry, 30 * DAY, now=later)
    names = {one.name for one in listed}
    assert names == {first.id, second.id, str(home / "runs" / "stray"), str(stale), str(torn)}
    assert len(registry.list(now=later)) == 2
    gc.remove(registry, listed)
    assert registry.list(now=later) == []
    assert registry.costs() == []
    assert list((home / "runs").iterdir()) == []
    assert not stale.exists()
    assert not torn.exists()
    assert len(Ledger(str(folder / "runs/tiny/table.ledger")).records()) == 4  # what a run can reuse stays
    assert command("run", "tiny.yaml", "-q")[0] == 0


def test_gc_leaves_live_runs_and_stores_in_use_alone(aged, folder):
    from daskml_scale.storage.lock import hold

    first, _, later = aged
    registry = Registry()
    torn = folder / "runs/tiny/table.zarr/.zarr.json.99-98"
    torn.write_text("half")
    waiting = registry.create(workflow="w", source="", store=first.store, cluster="none", command=[], cwd="", now=later)
    assert str(torn) not in {one.name for one in gc.found(registry, 30 * DAY, now=later)}
    assert waiting.id not in {one.name for one in gc.found(registry, 30 * DAY, now=later)}
    registry.finish(waiting.id, 0, now=later, state="failed", exit_code=1)
    with hold(first.store, "somebody"):
        assert str(torn) not in {one.name for one in gc.found(registry, 30 * DAY, now=later)}
    assert str(torn) in {one.name for one in gc.found(registry, 30 * DAY, now=later)}


def test_gc_says_what_it_would_do_and_refuses_what_is_too_young(command):
    run = ran(command)
    with Registry()._write() as connection:
        connection.exec_driver_sql("update runs set created = 1, finished = 1, lease_until = 1")
    assert "Nothing was removed; do it with --yes" in command("gc")[1]
    assert Registry().get(run.id, now=time.time()).id == run.id
    assert json.loads(command("gc", "--yes", "--json")[1])[0]["name"] == run.id
    assert command("gc")[1] == "Nothing to remove.\n"
    for age in ("1s", "soon"):
        code, _, err = command("gc", "--older", age)
        assert code == 2
        assert "--older" in err


def test_logs_tell_of_one_unit_what_is_kept_of_it(command, folder):
    (folder / "broken.py").write_text("def work(item):\n    raise ValueError('no such item')\n")
    (folder / "tiny.yaml").write_text(
        "version: 1\nname: tiny\nstore: ./runs/tiny\ncluster: none\n"
        "stages: {work: {kind: map, function: 'broken:work', over: {range: 1}}}\n"
    )
    assert command("run", "tiny.yaml", "-q")[0] == 1
    (unit,) = Ledger(str(folder / "runs/tiny/work.ledger")).records()
    code, out, _ = command("logs", "--unit", f"work:{unit}")
    assert code == 0
    assert out.startswith(f"work:{unit}: failed, attempt 1")
    assert "Traceback" in out
    assert "ValueError: no such item" in out
    code, _, err = command("logs", "--unit", "nothing")
    assert code == 2
    assert "no ledger in" in err


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_there_is_a_completion_for_every_shell(command, shell):
    assert "_DASKML_SCALE_COMPLETE" in command("completion", shell)[1]


def test_a_shell_completes_verbs_and_ids(command, process):
    run = ran(command)
    env = {**os.environ, "_DASKML_SCALE_COMPLETE": "bash_complete"}
    assert run.id in process(env={**env, "COMP_WORDS": "daskml-scale status ti", "COMP_CWORD": "2"}).stdout
    assert "submit" in process(env={**env, "COMP_WORDS": "daskml-scale su", "COMP_CWORD": "1"}).stdout
