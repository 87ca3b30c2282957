"""What a lost run committed after its last word is counted in its ledgers."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from daskml_scale.plan.records import FAILED, OK, Record
from daskml_scale.runs.records import Registry
from daskml_scale.runs.recount import recounted
from daskml_scale.runs.state import RunRecord, StageRecord
from daskml_scale.storage.ledger import Ledger

BEGAN = 1_795_334_400.0


def lost(store: Path, *stages: StageRecord) -> RunRecord:
    registry = Registry(store / "registry.db")
    run = registry.create(workflow="w", source="", store=str(store), cluster="", command=[], cwd="", now=BEGAN)
    return replace(run, started=BEGAN, stages=stages)


def commit(store: Path, stage: str, units: list[str], status: str = OK, after: float = 50) -> None:
    folder = store / f"{stage}.ledger"
    before = set(folder.glob("*"))
    Ledger(str(folder)).append([Record(unit, "f", "d", status) for unit in units])
    for new in set(folder.glob("*")) - before:
        os.utime(new, (BEGAN + after,) * 2)


def done(run: RunRecord) -> list[int]:
    return [stage.done for stage in recounted(run).stages]


def test_units_since_the_start_count_once_and_earlier_and_failed_ones_do_not(tmp_path: Path) -> None:
    commit(tmp_path, "a", ["old", "1"], after=-1)
    commit(tmp_path, "a", ["1", "2"])
    commit(tmp_path, "a", ["2", "3"])
    commit(tmp_path, "a", ["4"], FAILED)
    run = lost(tmp_path, StageRecord("a", state="running", units=9, done=2, reused=1))
    assert done(run) == [1 + 3]


def test_a_pass_that_was_planned_after_the_last_word_counts(tmp_path: Path) -> None:
    commit(tmp_path, "a", [str(number) for number in range(50)])
    (stage,) = recounted(lost(tmp_path, StageRecord("a", state="running", units=2, done=1))).stages
    assert (stage.done, stage.units) == (50, 50)


def test_no_more_than_there_are_and_no_less_than_was_told(tmp_path: Path) -> None:
    commit(tmp_path, "a", ["1", "2", "3"])
    commit(tmp_path, "b", ["1"])
    stages = (
        StageRecord("a", state="running", units=3, done=1, reused=2),
        StageRecord("b", state="running", units=9, done=5),
        StageRecord("c", state="running", units=9, done=4),
        StageRecord("d", state="ok", units=2, done=2),
    )
    assert done(lost(tmp_path, *stages)) == [3, 5, 4, 2]


def test_a_stage_that_began_after_the_last_word_is_counted_too(tmp_path: Path) -> None:
    commit(tmp_path, "a", ["1", "2"])
    assert done(lost(tmp_path, StageRecord("a"))) == [2]


def test_what_cannot_be_read_changes_nothing(tmp_path: Path) -> None:
    commit(tmp_path, "a", ["1", "2"])
    (tmp_path / "a.ledger" / "00000009.seg").write_bytes(b"torn")
    assert done(lost(tmp_path, StageRecord("a", state="running", units=9))) == [2]
    run = lost(tmp_path, StageRecord("a", state="running", units=9, done=1))
    assert done(replace(run, store="memory://elsewhere")) == [1]
    assert recounted(replace(run, started=None)) == replace(run, started=None)
