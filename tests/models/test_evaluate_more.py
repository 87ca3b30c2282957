"""Regressors, slices, intervals and two models side by side."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from model_helpers import NAMES, matrix, write_matrix
from sklearn import metrics
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.linear_model import LogisticRegression

from daskml_scale.artifacts.bundle import save_model
from daskml_scale.errors import DaskMLError, PlanError, UsageError
from daskml_scale.spec.expressions import Coded
from daskml_scale.stages.evaluate import EvaluateStage
from daskml_scale.stages.inputs import checked_records, gather
from daskml_scale.stages.metrics import METRICS, Scored, score
from daskml_scale.stages.run import run_stage
from daskml_scale.stages.score_tables import intervals, sliced
from daskml_scale.storage.ledger import Ledger

CLASSES = ("roc_auc", "log_loss", "accuracy", "balanced_accuracy", "f1", "calibration")
NUMBERS = ("r2", "mean_error", "mean_absolute_error", "median_absolute_error", "root_mean_squared_error")


def stage(store: Path, **fields: Any) -> EvaluateStage:
    defaults = {"name": "scores", "ledger": f"{store}/scores.ledger", "input": f"{store}/features.zarr"}
    return EvaluateStage(**{**defaults, "bundle": f"{store}/models/m", "metrics": CLASSES, **fields})


def save(store: Path, estimator: Any, name: str = "m") -> Any:
    save_model(estimator, store / "models" / name, schema={"features": list(NAMES)})
    return estimator


def reasons(evaluating: EvaluateStage) -> Any:
    return evaluating.plan(gather(evaluating.reads()), checked_records(Ledger(evaluating.ledger))).reasons


@pytest.fixture
def store(tmp_path: Path) -> Path:
    X, y = np.nan_to_num(matrix()[0]), matrix()[1]
    write_matrix(f"{tmp_path}/features.zarr", X, y)
    save(tmp_path, LogisticRegression().fit(X, y))
    save(tmp_path, LogisticRegression(C=1e-4).fit(X[:40], y[:40]), "worse")
    return tmp_path


def test_a_regressor_gets_scikit_learns_numbers(tmp_path: Path) -> None:
    X, y = matrix()[0], np.nan_to_num(matrix()[0])[:, 0] * 3
    write_matrix(f"{tmp_path}/features.zarr", X, y)
    estimator = save(tmp_path, HistGradientBoostingRegressor(max_iter=5).fit(X, y))
    found = run_stage(stage(tmp_path, metrics=NUMBERS)).result["metrics"]
    stored = y.astype("float64")
    said = estimator.predict(X)
    assert found["r2"] == pytest.approx(metrics.r2_score(stored, said), abs=1e-12)
    assert found["mean_error"] == pytest.approx(np.mean(said - stored), abs=1e-12)
    assert found["mean_absolute_error"] == pytest.approx(metrics.mean_absolute_error(stored, said))
    assert found["median_absolute_error"] == pytest.approx(metrics.median_absolute_error(stored, said))
    assert found["root_mean_squared_error"] == pytest.approx(metrics.root_mean_squared_error(stored, said))


def test_a_metric_of_the_other_kind_is_refused_before_anything_runs(store: Path) -> None:
    with pytest.raises(UsageError, match="r2 is a metric of regressors, m is a classifier; use roc_auc"):
        run_stage(stage(store, metrics=("r2",)))
    X, y = np.nan_to_num(matrix()[0]), matrix()[1]
    save(store, HistGradientBoostingRegressor(max_iter=2).fit(X, y))
    with pytest.raises(UsageError, match="roc_auc is a metric of classifiers, m is a regressor; use r2"):
        run_stage(stage(store, metrics=("roc_auc",)))
    assert not Ledger(f"{store}/scores.ledger").records()


def test_metrics_at_a_threshold_equal_scikit_learns_for_two_and_three_classes() -> None:
    rng = np.random.default_rng(5)
    for count in (2, 3):
        y, predicted = rng.integers(0, count, (2, 400)).astype("float64")
        scored = Scored("m", np.arange(float(count)), y, predicted)
        assert METRICS["accuracy"].of(scored) == pytest.approx(metrics.accuracy_score(y, predicted))
        assert METRICS["balanced_accuracy"].of(scored) == pytest.approx(metrics.balanced_accuracy_score(y, predicted))
        average = "binary" if count == 2 else "macro"
        assert METRICS["f1"].of(scored) == pytest.approx(metrics.f1_score(y, predicted, average=average))


def test_each_method_of_a_model_is_called_once() -> None:
    calls: list[str] = []
    y = np.array([0.0, 1.0, 1.0, 0.0])

    def call(method: str) -> np.ndarray:
        calls.append(method)
        return np.stack([1 - y, y], axis=1) if method == "predict_proba" else y

    scored = score(call, lambda method: True, Scored("m", np.array([0.0, 1.0]), y), CLASSES)
    assert calls == ["predict", "predict_proba"]
    assert METRICS["roc_auc"].of(scored) == 1.0


def test_slices_hold_every_row_once_and_the_metrics_of_their_rows(store: Path) -> None:
    result = run_stage(stage(store, slices=("when", "late"))).result
    months = result["slices"]["when"]
    assert [entry["value"] for entry in months] == ["2013-01"]
    assert months[0]["metrics"]["roc_auc"] == pytest.approx(result["metrics"]["roc_auc"])
    assert "calibration" not in months[0]["metrics"]
    by_class = result["slices"]["late"]
    assert [(entry["value"], entry["metrics"]["roc_auc"]) for entry in by_class] == [(0.0, None), (1.0, None)]
    assert sum(entry["rows"] for entry in by_class) == 300
    hit = sum(entry["rows"] * entry["metrics"]["accuracy"] for entry in by_class)
    assert hit / 300 == pytest.approx(result["metrics"]["accuracy"])
    assert json.loads(json.dumps(result, allow_nan=False)) == result


def test_slices_by_labels_months_and_missing_values() -> None:
    y = np.array([0.0, 1.0, 0.0, 1.0, 1.0, 0.0])
    scored = Scored("m", np.array([0.0, 1.0]), y, predicted=np.ones(6))
    coded = Coded(np.array([2, 0, 2, -1, 0, 2], dtype="int32"), ("a", "b", "c"))
    table = sliced(scored, "carrier", coded, ["accuracy"])
    assert [(e["value"], e["rows"], e["metrics"]["accuracy"]) for e in table] == [
        ("a", 2, 1.0),
        ("c", 3, 0.0),
        (None, 1, 1.0),
    ]
    times = np.array(["2013-01-31T23", "2013-02-01", "NaT", "2013-01-01", "2013-02-28", "NaT"], dtype="datetime64[ns]")
    assert [(e["value"], e["rows"]) for e in sliced(scored, "t", times, ["accuracy"])] == [
        ("2013-01", 2), ("2013-02", 2), (None, 2),
    ]  # fmt: skip
    many = Scored("m", np.array([0.0, 1.0]), np.zeros(500), predicted=np.zeros(500))
    with pytest.raises(UsageError, match="'number' has 500 values, at most 100 can be sliced by"):
        sliced(many, "number", np.arange(500), ["accuracy"])


def test_a_column_that_the_matrix_does_not_carry_cannot_be_sliced_by(store: Path) -> None:
    with pytest.raises(PlanError, match=r"carries no column 'whn'; did you mean 'when'\?"):
        run_stage(stage(store, slices=("whn",)))


def test_intervals_are_percentiles_of_resampled_metrics(store: Path) -> None:
    found = run_stage(stage(store, bootstrap=40, seed=3)).result
    assert set(found["intervals"]) == set(CLASSES) - {"calibration"}
    for name, (low, high) in found["intervals"].items():
        assert low <= found["metrics"][name] <= high
        assert low < high
    again = run_stage(stage(store, ledger=f"{store}/again.ledger", bootstrap=40, seed=3)).result
    assert again == found
    other = run_stage(stage(store, ledger=f"{store}/other.ledger", bootstrap=40, seed=4)).result
    assert other["metrics"] == found["metrics"]
    assert other["intervals"] != found["intervals"]


def test_the_interval_of_a_mean_is_as_wide_as_theory_says() -> None:
    rng = np.random.default_rng(0)
    y = np.zeros(2000)
    scored = Scored("m", np.empty(0), y, predicted=rng.normal(1, 2, 2000))
    own, apart = intervals(scored, None, ["mean_error"], 400, seed=0)
    low, high = own["mean_error"]
    assert high - low == pytest.approx(2 * 1.96 * 2 / np.sqrt(2000), rel=0.15)
    assert apart == {}


def test_two_models_are_compared_on_the_same_rows(store: Path) -> None:
    found = run_stage(stage(store, against=f"{store}/models/worse", bootstrap=40)).result
    theirs = run_stage(stage(store, bundle=f"{store}/models/worse", ledger=f"{store}/w.ledger")).result["metrics"]
    assert found["against"]["model"] == "worse"
    assert found["against"]["metrics"] == theirs
    difference = found["against"]["difference"]
    assert difference["log_loss"] == pytest.approx(found["metrics"]["log_loss"] - theirs["log_loss"])
    assert difference["log_loss"] < 0
    low, high = found["against"]["intervals"]["log_loss"]
    assert low <= difference["log_loss"] <= high
    assert high < 0
    assert "calibration" not in difference
    same = run_stage(stage(store, ledger=f"{store}/s.ledger", against=f"{store}/models/m", bootstrap=5)).result[
        "against"
    ]
    assert set(same["difference"].values()) == {0.0}
    assert all(bounds == [0.0, 0.0] for bounds in same["intervals"].values())


def test_what_is_asked_beyond_the_metrics_is_part_of_the_fingerprint(store: Path) -> None:
    run_stage(stage(store))
    assert not reasons(stage(store, seed=9))  # nothing is drawn
    assert reasons(stage(store, bootstrap=5)) == {"parameters changed": 1}
    assert reasons(stage(store, slices=("late",)))
    assert reasons(stage(store, against=f"{store}/models/worse")) == {"model changed": 1}
    run_stage(stage(store, against=f"{store}/models/worse"))
    X, y = np.nan_to_num(matrix()[0]), matrix()[1]
    save(store, HistGradientBoostingClassifier(max_iter=2).fit(X, y), "worse")
    assert reasons(stage(store, against=f"{store}/models/worse")) == {"model changed": 1}


def test_a_model_of_other_features_cannot_be_compared(store: Path) -> None:
    X, y = np.nan_to_num(matrix()[0]), matrix()[1]
    save_model(LogisticRegression().fit(X[:, :2], y), store / "models" / "other", schema={"features": ["a", "b"]})
    with pytest.raises(DaskMLError, match=r"other was trained on \['a', 'b'\]"):
        run_stage(stage(store, against=f"{store}/models/other"))


def test_a_comparison_before_the_other_model_is_trained_is_planned_and_not_run(store: Path) -> None:
    evaluating = stage(store, against=f"{store}/models/absent")
    assert len(evaluating.plan(gather(evaluating.reads()), {}).units) == 1
    with pytest.raises(DaskMLError, match="does not exist"):
        run_stage(evaluating)
