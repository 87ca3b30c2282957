"""What is told of a run before it exists: a dry run's plan, as far as it is quickly made; bad ones are refused."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from daskml_scale.runs import projection
from daskml_scale.runs.enter import Asked, Options, _checked, _planned
from daskml_scale.runs.records import Registry
from daskml_scale.storage.ledger import Ledger

from .conftest import write_workflow


def plan(*settings: str, **asked: str) -> list[dict[str, object]]:
    """The plan of a submission of ``tiny.yaml``, without one."""
    wanted = Asked("tiny.yaml", options=Options(settings=settings), **asked)
    found = _checked(wanted, detached=True)
    return [row.to_dict() for row in _planned(found, wanted.options.again)]


def test_a_submission_is_planned_as_a_dry_run_is(command, folder):
    dry = json.loads(command("run", "tiny.yaml", "--dry-run", "--json")[1])
    assert plan() == dry
    assert [(row["units"], row["reused"]) for row in dry] == [(4, 0), (4, 0)]
    assert command("run", "tiny.yaml", "-q")[0] == 0
    changed = ("stages.check.rules=[{unique: [x]}]",)
    assert [(row["units"], row["reused"]) for row in plan(*changed)] == [(0, 4), (1, 3)]


def test_submit_tells_its_plan_and_the_run_that_waits_shows_it(command, folder):
    code, out, err = command("submit", "tiny.yaml", "--json")
    assert code == 0, err
    told = json.loads(out)
    assert [row["name"] for row in told["plan"]] == ["table", "check"]
    assert [(stage["name"], stage["units"], stage["state"]) for stage in told["stages"]] == [
        ("table", 4, "waiting"), ("check", 4, "waiting"),
    ]  # fmt: skip
    assert "Its plan:            2 stages: 8 units to run, 0 reused" in err
    assert command("wait", told["id"])[0] == 0
    assert json.loads(command("provenance", told["id"])[1])["plan"] == told["plan"]
    found = Registry().get(told["id"], now=time.time())
    assert [(stage.units, stage.done) for stage in found.stages] == [(4, 4), (4, 4)]


def test_a_unit_that_no_worker_can_hold_is_refused_before_there_is_a_run(command, folder):
    write_workflow(folder, rows=30_000, chunk=30_000)
    (folder / "small.yaml").write_text(
        "version: 1\nname: small\nbackend: local\nclasses: {cpu: {workers: {max: 1}, memory: 1MiB}}\n"
    )
    code, out, err = command("submit", "tiny.yaml", "--cluster", "small.yaml")
    assert (code, out) == (2, "")
    assert "check: one unit needs about" in err
    assert "a worker has 1 MiB" in err
    assert not Registry().path.exists()
    assert command("submit", "tiny.yaml", "--cluster", "small.yaml", "--json")[0] == 2


def test_a_plan_that_cannot_be_carried_out_is_refused_with_its_stage(command, folder):
    (folder / "tiny.yaml").write_text(
        "version: 1\nname: tiny\nstore: ./runs/tiny\ncluster: none\nstages:\n"
        "  old: {kind: rechunk, source: ./nothing.zarr, chunks: {x: 10}}\n"
    )
    (folder / "nothing.zarr").mkdir()
    code, out, err = command("submit", "tiny.yaml")
    assert (code, out) == (2, "")
    assert "old: " in err
    assert "nothing.zarr does not exist" in err
    assert not Registry().path.exists()


def test_the_users_python_is_left_to_the_run_with_all_that_needs_it(folder):
    (folder / "mine.py").write_text("def work(item):\n    return {'z': item}\n")
    (folder / "tiny.yaml").write_text(
        "version: 1\nname: tiny\nstore: ./runs/tiny\ncluster: none\nstages:\n"
        "  work: {kind: map, function: 'mine:work', over: {range: 5}}\n"
        "  check: {kind: validate, input: work, rules: [{unique: [z]}]}\n"
        "  table: {kind: ingest, source: a.csv, row: {dim: row, chunk: 20}}\n"
    )
    rows = plan()
    assert "mine" not in sys.modules
    assert [(row["name"], row["later"], row["note"]) for row in rows] == [
        ("work", 1, "planned by the run: it imports your Python"),
        ("check", 1, "planned by the run: after work"),
        ("table", 0, ""),
    ]


def test_large_sources_are_looked_at_by_the_run_and_known_ones_need_no_look(command, folder, monkeypatch):
    monkeypatch.setattr(projection, "SOURCE_BYTES", 100)
    rows = plan()
    assert [str(row["note"]).partition(":")[0] for row in rows] == ["planned by the run"] * 2
    assert "its sources hold 4" in str(rows[0]["note"])
    assert command("run", "tiny.yaml", "-q")[0] == 0
    assert [(row["units"], row["reused"]) for row in plan()] == [(0, 4), (0, 4)]
    monkeypatch.setattr(projection, "LEDGER_BYTES", 10)
    assert "its ledgers hold" in str(plan()[0]["note"])


def test_what_is_done_again_is_planned_so(command, folder):
    assert command("run", "tiny.yaml", "-q")[0] == 0
    wanted = Asked("tiny.yaml", options=Options(again="check"))
    rows = _planned(_checked(wanted, detached=True), "check")
    assert [(row.units, row.reused, dict(row.reasons)) for row in rows] == [
        (0, 4, {}), (4, 0, {"asked to run again": 4}),
    ]  # fmt: skip


def test_a_store_that_cannot_be_read_just_now_is_left_to_the_run(command, folder):
    assert command("run", "tiny.yaml", "-q")[0] == 0
    ledger = Ledger(str(folder / "runs/tiny/table.ledger")).url
    Path(ledger, "00000009.new").write_text("of a newer version")
    assert "planned by the run" in str(plan()[0]["note"])


def test_the_memory_of_a_worker_is_what_its_definition_says(folder):
    text = "version: 1\nname: one\nbackend: local\nclasses: {cpu: {memory: 700MiB}, big: {memory: 100MiB}}\n"
    (folder / "one.yaml").write_text(text)
    assert projection.most_memory("one.yaml") == 700 << 20
    (folder / "one.yaml").write_text(text.replace("100MiB", "auto"))
    assert projection.most_memory("one.yaml") == projection.most_memory("none") > 1 << 28
    assert projection.most_memory("nowhere") == 0
