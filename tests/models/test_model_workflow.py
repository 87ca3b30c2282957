"""What a workflow file says about models, from YAML to the predictions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import daskml_scale as dms
from daskml_scale.api import check
from daskml_scale.artifacts.bundle import load_model
from daskml_scale.cli import main
from daskml_scale.errors import SpecError, UntrustedError
from daskml_scale.storage import stores
from daskml_scale.storage.ledger import Ledger

WORKFLOW = """
version: 1
name: tiny
store: {folder}/store
cluster: none
stages:
  rows:
    kind: ingest
    source: {folder}/rows.csv
    row: {{dim: row, chunk: 50, sort_by: [t]}}
    derive: {{late: x > 0.5}}
  features: {{kind: features, input: rows, known_at: t, target: late, steps: [{{keep: {{of: [z]}}}}]}}
{stages}
"""


def write(folder: Path, stages: str) -> Path:
    """Write 100 rows and a workflow that makes features of them, followed by ``stages``."""
    rng = np.random.default_rng(1)
    x = rng.random(100)
    times = np.datetime64("2024-01-01T00:00:00") + np.arange(100) * np.timedelta64(1, "h")
    lines = [f"{t}Z,{a:.4f},{b:.4f}" for t, a, b in zip(times, x, x + rng.normal(size=100) / 10, strict=True)]
    (folder / "rows.csv").write_text("\n".join(["t,x,z", *lines]) + "\n")
    path = folder / "tiny.yaml"
    path.write_text(WORKFLOW.format(folder=folder, stages=stages))
    return path


TRAINED = """
  model: {{kind: train, input: features, estimator: {{model_helpers.Fragile: {{limit: 99.0}}}}{trusted}}}
  scores: {{kind: evaluate, model: model, input: features, metrics: [accuracy]}}
  predictions: {{kind: predict, model: model, input: rows, method: predict_proba}}
"""
SEARCHED = """
  search:
    kind: search
    input: features
    estimator: model_helpers.Fragile
    space: {{limit: [50.0, 99.0]}}
    sampler: {{grid: {{}}}}
    scoring: accuracy
    split: {{kfold: {{folds: 2}}}}
    {trusted}
  model: {{kind: train, input: features, params_from: search}}
  predictions: {{kind: predict, model: model, input: rows, method: predict_proba}}
"""


@pytest.mark.parametrize(
    ("stages", "trusted"),
    [(TRAINED, ", trusted: [model_helpers.Fragile]"), (SEARCHED, "trusted: [model_helpers.Fragile]")],
)
def test_types_named_where_the_estimator_is_named_are_trusted_down_to_the_predictions(
    tmp_path: Path, stages: str, trusted: str
) -> None:
    with pytest.raises(UntrustedError, match=r"outside scikit-learn: model_helpers\.Fragile; .*add trusted:"):
        dms.run(write(tmp_path, stages.format(trusted="")))
    summary = dms.run(write(tmp_path, stages.format(trusted=trusted)))
    assert summary.state == "succeeded"
    found = stores.open_dataset(f"{tmp_path}/store/predictions.zarr").load()
    assert (found.status == 1).all()


@pytest.mark.parametrize("name", ["Fragile", "a b.C", "os.system()", ".C", "a..C", 3])
def test_what_is_no_full_name_of_a_type_is_refused(tmp_path: Path, name: Any) -> None:
    with pytest.raises(SpecError, match="trusted"):
        check(write(tmp_path, TRAINED.format(trusted=f", trusted: ['{name}']" if name != 3 else ", trusted: [3]")))


COMPARED = """
  model: {kind: train, input: features, estimator: sklearn.linear_model.LogisticRegression}
  plain: {kind: train, input: features, estimator: sklearn.dummy.DummyClassifier}
  scores:
    kind: evaluate
    model: model
    against: plain
    input: features
    slices: [late, t]
    bootstrap: 20
    metrics: [roc_auc, balanced_accuracy]
"""


def test_an_evaluation_slices_compares_and_bounds(tmp_path: Path) -> None:
    dms.run(write(tmp_path, COMPARED))
    found = Ledger(f"{tmp_path}/store/scores.ledger").result()
    assert found is not None
    assert found["against"]["model"] == "plain"
    assert found["against"]["metrics"]["roc_auc"] == 0.5
    assert found["against"]["intervals"]["roc_auc"][0] > 0.2
    assert [entry["value"] for entry in found["slices"]["t"]] == ["2024-01"]
    with pytest.raises(SpecError, match="against"):
        check(write(tmp_path, COMPARED.replace("against: plain", "against: features")))


PREDICTED = """
  model: {kind: train, input: features, estimator: sklearn.linear_model.LogisticRegression}
  chances:
    kind: predict
    model: model
    input: rows
    method: asked:odds
    output: {name: odds, columns: [against, for], dtype: float64}
    on_error: raise
"""


def test_a_function_beside_the_workflow_is_predicted_by(tmp_path: Path) -> None:
    (tmp_path / "asked.py").write_text(
        "def odds(model, rows):\n    chances = model.predict_proba(rows)\n    return chances / (1 - chances)\n"
    )
    path = write(tmp_path, PREDICTED)
    dms.run(path)
    found = stores.open_dataset(f"{tmp_path}/store/chances.zarr").load()
    assert found.odds.dims == ("row", "output")
    assert found.output.values.tolist() == ["against", "for"]
    np.testing.assert_allclose(found.odds[:, 0] * found.odds[:, 1], 1, rtol=1e-5)
    assert found.attrs["method"] == "odds"
    with pytest.raises(
        SpecError, match=r"unknown method 'predcit'; did you mean 'predict'\? known: predict, .*; or write module:name"
    ):
        check(write(tmp_path, PREDICTED.replace("asked:odds", "predcit")))


def test_a_model_is_trained_in_parts(tmp_path: Path) -> None:
    stages = """
  model: {kind: train, input: features, estimator: sklearn.naive_bayes.GaussianNB, partial_fit: {passes: 2}}
  scores: {kind: evaluate, model: model, input: features, metrics: [roc_auc]}
"""
    dms.run(write(tmp_path, stages))
    assert load_model(tmp_path / "store" / "models" / "model").training["passes"] == 2
    with pytest.raises(SpecError, match="passes"):
        check(write(tmp_path, stages.replace("passes: 2", "passes: 0")))


REGISTERED = """
  model: {{kind: train, input: features, estimator: {estimator}, save_as: late}}
  scores: {{kind: evaluate, model: model, input: features, champion: late, metrics: [roc_auc]}}
  register: {{kind: register, model: model, scores: scores, champion_if: {{metric: roc_auc, least: 0.4}}}}
"""


def test_a_workflow_registers_and_the_command_line_shows_promotes_and_rolls_back(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = f"{tmp_path}/store"

    def command(*words: str) -> tuple[int, Any]:
        code = main(["models", *words, "--json"])
        out = capsys.readouterr().out
        return code, json.loads(out) if out else None

    assert command("list", store)[0] == 2
    for estimator in ("sklearn.dummy.DummyClassifier", "sklearn.linear_model.LogisticRegression"):
        dms.run(write(tmp_path, REGISTERED.format(estimator=estimator)))
    capsys.readouterr()
    code, listed = command("list", store)
    assert (code, listed[0]["name"], listed[0]["versions"], listed[0]["champion"]) == (0, "late", 2, 2)
    shown = command("show", store, "late")[1]
    assert [one["number"] for one in shown] == [2, 1]
    assert shown[0]["aliases"] == ["candidate", "champion"]
    assert "against 0.5 of 0001" in shown[0]["note"]
    assert command("rollback", store, "late")[1][1]["aliases"] == ["champion"]
    assert command("promote", store, "late", "candidate")[1][0]["aliases"] == ["candidate", "champion"]
    assert command("promote", store, "late", "7")[0] == 2
    assert main(["models", "show", store, "late"]) == 0
    assert "LogisticRegression" in capsys.readouterr().out
    with pytest.raises(SpecError, match="needs scores"):
        check(write(tmp_path, REGISTERED.format(estimator="a.B").replace("scores: scores, ", "")))


WATCHED = """
  model: {{kind: train, input: features, estimator: {estimator}}}
  predictions: {{kind: predict, model: model, input: rows, method: predict_proba, optimise: [onnx, columns]}}
  watch: {{kind: monitor, predictions: predictions, slices: [t], psi: {{warn: 0.1, fail: {fail}}}}}
"""


@pytest.mark.parametrize("estimator", ["sklearn.linear_model.LogisticRegression", "xgboost.XGBClassifier"])
def test_a_workflow_monitors_optimises_and_tells_what_it_cost(tmp_path: Path, estimator: str) -> None:
    pytest.importorskip(estimator.partition(".")[0])
    path = write(tmp_path, WATCHED.format(estimator=estimator, fail=5.0))
    summary = dms.run(path)
    assert summary.state == "succeeded"
    found = dms.drift(f"{tmp_path}/store/watch.zarr")
    assert found["features"][0]["psi"] == 0
    assert [one["value"] for one in found["slices"]["t"]] == ["2024-01"]
    assert summary.cost["worker_seconds"] > 0
    assert summary.cost["saved_seconds"] == summary.cost["money"] == 0
    again = dms.run(path)
    assert again.cost["worker_seconds"] == 0
    assert again.cost["saved_seconds"] == pytest.approx(summary.cost["worker_seconds"], abs=1e-5)
    assert sum(row.units for row in again.stages) == sum(row.reused for row in again.stages)
    with pytest.raises(SpecError, match=r"watch.*predictions"):
        check(write(tmp_path, WATCHED.format(estimator=estimator, fail=5.0).replace("{{", "{").replace(
            "predictions: predictions", "predictions: model"
        )))  # fmt: skip


def test_a_stage_that_is_monitored_later_counts_then(tmp_path: Path) -> None:
    stages = WATCHED.format(estimator="sklearn.linear_model.LogisticRegression", fail=5.0).splitlines()
    dms.run(write(tmp_path, "\n".join(stages[:-1])))
    assert not (tmp_path / "store" / "predictions.seen.json").exists()
    summary = dms.run(write(tmp_path, "\n".join(stages)))
    assert {row.name: row.units - row.reused for row in summary.stages}["predictions"] == 2
    assert dms.drift(f"{tmp_path}/store/watch.zarr")["rows"] == 100
