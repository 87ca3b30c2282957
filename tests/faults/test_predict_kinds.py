"""Predictions by other kinds of models, with rows in quarantine: struck, they end as if nothing had happened."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from harness import MEMORY, Run, assert_equal, assert_only_lost_work_repeated, assert_ran, unfinished

from daskml_scale.runs import quarantine
from daskml_scale.testing.faults import Fault, executions

pytest.importorskip("xgboost")
pytest.importorskip("skl2onnx")

WORKFLOW = """
version: 1
name: kinds
store: ./runs
cluster: none
stages:
  events:
    kind: ingest
    source: {source}
    row: {{dim: event, chunk: 40, sort_by: [at]}}
  features: {{kind: features, input: events, known_at: at, target: size, steps: [{{keep: {{of: [x, w]}}}}]}}
  trees:
    kind: train
    input: features
    estimator: {{xgboost.XGBRegressor: {{n_estimators: 1, learning_rate: 1.0, tree_method: exact, n_jobs: 1}}}}
  forest:
    kind: train
    input: features
    estimator: {{sklearn.ensemble.RandomForestRegressor: {{n_estimators: 3, bootstrap: false}}}}
  boosted: {{kind: predict, model: trees, input: events, output: {{dtype: float16}}, max_bad: {most}}}
  exported:
    {{kind: predict, model: forest, input: events, output: {{dtype: float16}}, max_bad: {most}, optimise: [onnx]}}
"""
ROWS, CHUNK = 1_200, 40
UNITS = ROWS // CHUNK
BAD = (900, 901, 1_150)
"""Rows whose prediction is beyond the declared type."""
GUILTY = "rows/00000020"
KINDS = ("boosted", "exported")
DELAY = 0.02


@pytest.fixture(scope="module")
def kinds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workflow of two models, and predictions by each: XGBoost's own, and a forest that runs as ONNX."""
    folder = tmp_path_factory.mktemp("kinds")
    rng = np.random.default_rng(0)
    x = rng.random(ROWS).round(4)
    x[list(BAD)] = 5.0
    at = np.datetime64("2024-01-01T00:00:00") + np.arange(ROWS) * np.timedelta64(1, "h")
    frame = pd.DataFrame({"at": [f"{time}Z" for time in at], "x": x, "w": rng.normal(size=ROWS).round(4)})
    frame["size"] = np.where(x == 5, 4e5, x)
    frame.to_csv(folder / "events.csv", index=False)
    path = folder / "kinds.yaml"
    path.write_text(WORKFLOW.format(source=folder / "events.csv", most=len(BAD) + CHUNK))
    return path


@pytest.fixture(scope="module")
def whole(kinds: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The store of a run that nothing happened to; its rows in quarantine are the large ones."""
    folder = tmp_path_factory.mktemp("whole")
    run = Run(kinds, folder / "store", folder / "run", "boosted", "none", {})
    ended = run.end()
    run.close()
    assert ended.code == 4, ended.said
    assert "is not used" not in ended.said
    for stage in KINDS:
        assert rows_held(folder / "store", stage) == list(BAD)
    return folder / "store"


def rows_held(store: Path, stage: str) -> list[int]:
    return [row for one in quarantine.held(str(store), stage) for row, _, _ in one.reasons]


@pytest.fixture
def without(whole: Path, tmp_path: Path) -> Callable[[str], None]:
    """Copy that store, but for one stage."""

    def copied(stage: str) -> None:
        left_out = shutil.ignore_patterns(f"{stage}.*", "summary.json", ".lock")
        shutil.copytree(whole, tmp_path / "store", ignore=left_out)

    return copied


@pytest.mark.parametrize("stage", ["boosted", pytest.param("exported", marks=pytest.mark.faults_long)])
def test_a_worker_killed_in_mid_predict_costs_its_work_and_no_row_in_quarantine(stage, kinds, whole, without, start):
    without(stage)
    run = start(kinds, stage, delay=DELAY, moments=(f"call.{UNITS // 2}",))
    reached = run.reach()
    run.strike(signal.SIGKILL, reached.pid)
    ended = run.end()
    assert ended.code == 4, ended.said
    assert_only_lost_work_repeated(run, ended.said)
    assert_ran(run, reached.unit, 2, ended.said)
    assert_equal(run.store, whole)
    assert quarantine.held(str(run.store)) == quarantine.held(str(whole))


def test_a_unit_that_exceeds_the_memory_of_its_worker_is_set_aside_beside_the_bad_rows(kinds, whole, without, start):
    stage = "boosted"
    without(stage)
    run = start(kinds, stage, delay=DELAY, faults=[Fault(GUILTY, "swell", amount=1.5 * MEMORY)])
    ended = run.end()
    assert ended.code == 4, ended.said
    assert set(unfinished(run.store, stage)) == {GUILTY}
    assert_equal(run.store, whole, but={stage: [GUILTY]})
    assert rows_held(run.store, stage) == list(BAD)
    (one,) = (one for one in quarantine.held(str(run.store), stage) if one.error)
    assert one.unit == GUILTY
    assert "MiB of memory" in one.error
    again = start(kinds, stage, cluster="none")
    assert again.end().code == 4
    assert executions(again.folder, stage) == {GUILTY: 1}
    assert_equal(run.store, whole)
