"""Workflows that decide: stages on a condition, tries, time limits, stages side by side, a command at the end."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import daskml_scale as dms
from daskml_scale.cli import main
from daskml_scale.events import StageFinished, Warned
from daskml_scale.runs import branches
from daskml_scale.runs.branches import StageTimeoutError
from daskml_scale.runs.records import Registry
from daskml_scale.storage.ledger import Ledger

JUDGED = """
version: 1
name: judged
store: ./runs/judged
cluster: none
stages:
  table: {kind: ingest, source: a.csv, row: {dim: row, chunk: 200}}
  features: {kind: features, input: table, known_at: at, target: late, steps: [{keep: {of: [x]}}]}
  model:
    kind: train
    input: features
    estimator: {sklearn.linear_model.LogisticRegression: {C: 1.0}}
    matrix: {estimator.sklearn.linear_model.LogisticRegression.C: [0.000001, 1.0]}
  scores: {kind: evaluate, model: model, input: features, metrics: [roc_auc]}
  good: {kind: predict, model: model, input: table, when: {of: scores, metric: roc_auc, least: 0.6}}
  bad: {kind: predict, model: model, input: table, when: {of: scores, metric: roc_auc, most: 0.6}}
  after: {kind: validate, input: bad, rules: [{rows: {least: 1}}]}
"""
TWO = """
version: 1
name: two
store: ./runs/two
parallel: 2
stages:
  left: {kind: map, function: 'work:left', over: {range: 1}}
  right: {kind: map, function: 'work:right', over: {range: 1}}
  last: {kind: map, function: 'work:last', over: {range: 1}, after: [left, right]}
"""
WORK = """
import time
from pathlib import Path
HERE = Path(__file__).parent

def met(mine, other):
    (HERE / mine).touch()
    deadline = time.monotonic() + 60
    while not (HERE / other).exists():
        assert time.monotonic() < deadline, "alone"
        time.sleep(0.02)
    return 1

def left(item):
    return met("left.there", "right.there")

def right(item):
    return met("right.there", "left.there")

def last(item):
    return item

def second_time(item):
    flag = HERE / f"tried-{item}"
    if not flag.exists():
        flag.touch()
        raise OSError("no answer")
    return item

def slow(item):
    time.sleep(0.05)
    return item
"""
ONE = """
version: 1
name: one
store: ./runs/one
cluster: none
on_end: {end}
stages:
  work: {{kind: map, function: 'work:{function}', over: {{range: {items}}}, chunk: 1{more}}}
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "work.py").write_text(WORK)
    monkeypatch.delitem(sys.modules, "work", raising=False)
    return tmp_path


def one(here: Path, function: str, *, items: int = 3, more: str = "", end: str = "[]") -> str:
    (here / "one.yaml").write_text(ONE.format(function=function, items=items, more=more, end=end))
    return "./one.yaml"


def test_a_stage_and_what_needs_it_are_skipped_when_a_metric_is_not_as_asked(here):
    rng = np.random.default_rng(0)
    x = rng.normal(size=400)
    minutes = np.datetime64("2024-01-01T00:00") + np.arange(400).astype("m8[m]")
    frame = pd.DataFrame(
        {"at": [f"{minute}:00Z" for minute in minutes], "x": x, "late": (x + rng.normal(size=400) > 0).astype(int)}
    )
    frame.to_csv("a.csv", index=False)
    (here / "judged.yaml").write_text(JUDGED)
    events = []
    found = dms.run("./judged.yaml", cluster="none", sink=events.append)
    values = {name.rpartition("-")[2]: value for name, value in found.metrics.items()}
    assert len(values) == 2
    assert all(value > 0.6 for name, value in found.metrics.items()), found.metrics
    assert {name.partition("-")[0] for name in found.skipped} == {"bad", "after"}
    assert {name for name, why in found.skipped.items() if "not at most 0.6" in why} == {
        name for name in found.skipped if name.startswith("bad")
    }
    assert all("which is skipped" in why for name, why in found.skipped.items() if name.startswith("after"))
    rows = {row.name: row.units for row in found.stages}
    assert all((units == 0) is (name in found.skipped) for name, units in rows.items())
    told = {event.stage: event.state for event in events if isinstance(event, StageFinished)}
    assert {name for name, state in told.items() if state == "skipped"} == set(found.skipped)
    assert len(list((here / "runs/judged").glob("good-*.zarr"))) == 2
    again = dms.run("./judged.yaml", cluster="none")
    assert sum(row.units - row.reused for row in again.stages) == 0


def test_a_stage_that_fails_is_tried_again_and_keeps_what_it_committed(here, monkeypatch):
    monkeypatch.setattr(branches, "pause", lambda attempt: 0.0)
    events = []
    found = dms.run(one(here, "second_time", more=", retries: 2"), cluster="none", sink=events.append)
    assert found.state == "succeeded"
    assert [event.message for event in events if isinstance(event, Warned)]
    (here / "tried-0").unlink()
    (here / "tried-1").unlink()
    with pytest.raises(dms.DaskMLError if hasattr(dms, "DaskMLError") else Exception, match="no answer"):
        dms.run(one(here, "second_time", items=2), store="./runs/other", cluster="none")


def test_a_stage_beyond_its_time_ends_and_the_next_run_goes_on(here):
    path = one(here, "slow", items=60, more=", timeout: 1s")
    with pytest.raises(StageTimeoutError, match="work: it took longer than its timeout of 1 s"):
        dms.run(path, cluster="none")
    kept = len(Ledger(str(here / "runs/one/work.ledger")).records())
    assert kept < 60
    found = dms.run(one(here, "slow", items=60), cluster="none")
    assert found.stages[0].reused >= kept


def test_stages_that_do_not_need_one_another_are_at_work_at_once(here, client):
    (here / "two.yaml").write_text(TWO)
    found = dms.run("./two.yaml", client=client)
    assert [(row.name, row.units) for row in found.stages] == [("left", 2), ("right", 2), ("last", 2)]
    assert dms.run("./two.yaml", client=client).stages[2].reused == 2


def test_a_command_is_called_at_the_end_with_the_run(here, capsys):
    noting = "import json, os, sys; run = json.load(sys.stdin); open(os.environ['DASKML_STATE'], 'w').write(run['id'])"
    end = json.dumps([sys.executable, "-c", noting])
    assert main(["run", one(here, "last", end=end), "-q"]) == 0
    assert (here / "succeeded").read_text() == Registry().get(now=time.time()).id
    assert main(["run", one(here, "second_time", end=end), "-q", "--store", "./runs/b"]) == 1
    assert (here / "failed").read_text() == Registry().get(now=time.time()).id


@pytest.mark.parametrize(
    ("end", "said"), [("[no-such-program]", "No such file"), ("['false']", "'false' ended with exit code 1")]
)
def test_a_command_that_does_not_work_changes_nothing(here, capsys, end, said):
    assert main(["run", one(here, "last", end=end)]) == 0
    assert said.replace("'", "") in capsys.readouterr().err
    assert Registry().get(now=time.time()).state == "succeeded"
