from __future__ import annotations

import json
import shutil
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from model_helpers import NAMES, Fragile, matrix, write_matrix
from sklearn import metrics
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from daskml_scale.artifacts.bundle import load_model, save_model
from daskml_scale.engine.worker import CACHE, WorkerContext
from daskml_scale.errors import PlanError, UnitsFailedError, UntrustedError, UsageError
from daskml_scale.plan.units import Plan
from daskml_scale.stages.base import Stage, StageResult
from daskml_scale.stages.evaluate import EvaluateStage
from daskml_scale.stages.inputs import checked_records, gather
from daskml_scale.stages.matrix import load_rows, matrix_inputs, read_rows
from daskml_scale.stages.run import run_stage
from daskml_scale.stages.train import TrainStage
from daskml_scale.storage import stores
from daskml_scale.storage.ledger import Ledger

HIST = {"sklearn.ensemble.HistGradientBoostingClassifier": {"max_iter": 8, "early_stopping": False}}
METRICS = ("roc_auc", "average_precision", "log_loss", "brier", "accuracy", "calibration")
LATER = "when >= time('2013-01-09')"
"""Rows from 192 on."""


def train_stage(store: Path, **fields: Any) -> TrainStage:
    defaults = {"name": "model", "ledger": f"{store}/model.ledger", "input": f"{store}/features.zarr"}
    return TrainStage(**{**defaults, "bundle": f"{store}/models/m", "estimator": HIST, "seed": 7, **fields})


def evaluate_stage(store: Path, **fields: Any) -> EvaluateStage:
    defaults = {"name": "scores", "ledger": f"{store}/scores.ledger", "input": f"{store}/features.zarr"}
    return EvaluateStage(**{**defaults, "bundle": f"{store}/models/m", "metrics": METRICS, **fields})


def plan_of(stage: Stage) -> Plan:
    return stage.plan(gather(stage.reads()), checked_records(Ledger(stage.ledger)))


def identities(stage: Stage) -> list[tuple[str, str, str, str]]:
    return sorted(record.identity() for record in Ledger(stage.ledger).records().values())


@pytest.fixture
def store(tmp_path: Path) -> Path:
    X, y = matrix()
    y[5] = np.nan
    write_matrix(f"{tmp_path}/features.zarr", X, y)
    return tmp_path


def test_train_fits_what_scikit_learn_fits(store: Path) -> None:
    X, y = matrix()
    wanted = (np.arange(300) < 192) & (np.arange(300) != 5)
    stage = train_stage(store, where="when < time('2013-01-09')")
    result = run_stage(stage)
    direct = HistGradientBoostingClassifier(max_iter=8, early_stopping=False, random_state=7).fit(X[wanted], y[wanted])
    bundle = load_model(store / "models" / "m")
    assert np.array_equal(bundle.predict_proba(X), direct.predict_proba(X))
    assert result.rows == 191
    assert result.result == {
        "path": "models/m",
        "model": "m",
        "sha256": bundle.sha256,
        "rows": 191,
        "estimator": "sklearn.ensemble._hist_gradient_boosting.gradient_boosting.HistGradientBoostingClassifier",
        "params": {},
    }
    assert {name: bundle.schema[name] for name in ("features", "classes", "dtype", "target")} == {
        "features": list(NAMES), "classes": [0.0, 1.0], "dtype": "float32", "target": "late",
    }  # fmt: skip
    assert bundle.recipe == {"steps": []}
    assert bundle.training["rows"] == 191


def test_train_takes_estimator_and_parameters_of_the_search(store: Path) -> None:
    Ledger(f"{store}/search.ledger").put_result(
        {"estimator": HIST, "best_params": {"learning_rate": 0.3, "max_iter": 3}}
    )
    stage = train_stage(store, estimator=None, params_from=f"{store}/search.ledger")
    result = run_stage(stage)
    estimator = load_model(store / "models" / "m").estimator
    assert (estimator.learning_rate, estimator.max_iter, estimator.random_state) == (0.3, 3, 7)
    assert result.result["params"] == {"learning_rate": 0.3, "max_iter": 3}
    Ledger(f"{store}/search.ledger").put_result({"estimator": HIST, "best_params": {"learning_rate": 0.2}})
    assert plan_of(stage).reasons == {"parameters changed": 1}


def test_train_runs_once(store: Path) -> None:
    stage = train_stage(store)
    first = run_stage(stage)
    plan = plan_of(stage)
    assert (plan.units, plan.reused) == ((), 1)
    assert run_stage(stage) == first


@pytest.mark.parametrize("file", ["model.skops", "bundle.json"])
@pytest.mark.parametrize("harm", ["gone", "altered"])
def test_a_bundle_that_is_gone_or_altered_is_trained_again(store: Path, file: str, harm: str) -> None:
    stage = train_stage(store)
    first = run_stage(stage)
    content = (store / "models" / "m" / file).read_bytes()
    if harm == "gone":
        (store / "models" / "m" / file).unlink()
    else:
        (store / "models" / "m" / file).write_bytes(content[:-1] + b" ")
    assert plan_of(stage).reasons == {"output altered" if harm == "altered" else "output missing": 1}
    assert run_stage(stage) == first
    assert (store / "models" / "m" / file).read_bytes() == content
    assert not plan_of(stage).units


def test_another_name_is_another_place_to_save(store: Path) -> None:
    run_stage(train_stage(store))
    moved = train_stage(store, bundle=f"{store}/models/other")
    assert plan_of(moved).reasons == {"output missing": 1}
    run_stage(moved)
    assert load_model(store / "models" / "other").sha256 == load_model(store / "models" / "m").sha256


def test_equal_runs_in_two_stores_have_equal_models_and_ledgers(store: Path, tmp_path_factory: Any) -> None:
    other = tmp_path_factory.mktemp("elsewhere") / "deeper"
    shutil.copytree(store / "features.zarr", other / "features.zarr")
    for root in (store, other):
        run_stage(train_stage(root))
        run_stage(evaluate_stage(root))
    for file in ("model.skops", "bundle.json"):
        assert (store / "models" / "m" / file).read_bytes() == (other / "models" / "m" / file).read_bytes()
    assert identities(train_stage(store)) == identities(train_stage(other))
    assert identities(evaluate_stage(store)) == identities(evaluate_stage(other))
    assert Ledger(f"{store}/model.ledger").result() == Ledger(f"{other}/model.ledger").result()


def test_changed_rows_train_and_evaluate_again(store: Path) -> None:
    train, evaluate = train_stage(store), evaluate_stage(store)
    for stage in (train, evaluate):
        run_stage(stage)
    X, y = matrix()
    X[250, 0] += 1
    y[5] = np.nan
    write_matrix(f"{store}/features.zarr", X, y)
    assert plan_of(train).reasons == {"input changed": 1}
    assert plan_of(evaluate).reasons == {"input changed": 1}
    run_stage(train)
    assert plan_of(evaluate).reasons == {"model changed": 1}


def test_a_bundle_outside_the_store_is_refused(store: Path, tmp_path_factory: Any) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    with pytest.raises(PlanError, match="is not in the store"):
        run_stage(train_stage(store, bundle=f"{elsewhere}/m"))
    assert not (elsewhere / "m").exists()


def test_a_missing_matrix_is_refused_by_name(tmp_path: Path) -> None:
    for stage in (train_stage(tmp_path), evaluate_stage(tmp_path)):
        with pytest.raises(PlanError, match=r"features\.zarr does not exist"):
            run_stage(stage)


def test_a_dry_run_plans_before_the_search_and_the_training_are_done(store: Path) -> None:
    for stage in (train_stage(store, estimator=None, params_from=f"{store}/s.ledger"), evaluate_stage(store)):
        plan = plan_of(stage)
        assert [unit.key for unit in plan.units] in (["model"], ["metrics"])
        with pytest.raises(PlanError, match=r"holds no result|does not exist"):
            run_stage(stage)


def test_a_plan_on_a_matrix_that_is_not_written_yet_projects_its_memory(store: Path) -> None:
    stage = train_stage(store)
    snapshot = gather(stage.reads())["input"]
    plan = stage.plan({**dict.fromkeys(stage.reads()), "input": replace(snapshot, ids={})}, {})  # type: ignore[type-var]
    assert len(plan.units) == 1
    assert plan.memory >= 300 * 4 * (4 + 8)
    assert "300 rows x 4 features" in plan.grid


def test_evaluate_gives_scikit_learns_numbers(store: Path) -> None:
    run_stage(train_stage(store, where="when < time('2013-01-09')"))
    result = run_stage(evaluate_stage(store, where=LATER))
    X, y = matrix()
    said = load_model(store / "models" / "m").predict_proba(X[192:])[:, 1]
    truth, found = y[192:], result.result["metrics"]
    assert result.rows == result.result["rows"] == 108
    assert found["roc_auc"] == pytest.approx(metrics.roc_auc_score(truth, said), abs=1e-15)
    assert found["average_precision"] == pytest.approx(metrics.average_precision_score(truth, said), abs=1e-15)
    assert found["log_loss"] == pytest.approx(metrics.log_loss(truth, said), abs=1e-15)
    assert found["brier"] == pytest.approx(metrics.brier_score_loss(truth, said), abs=1e-15)
    assert found["accuracy"] == pytest.approx(metrics.accuracy_score(truth, said > 0.5), abs=1e-15)
    assert json.loads(json.dumps(result.result, allow_nan=False)) == result.result


def test_calibration_bins_hold_every_row_once(store: Path) -> None:
    run_stage(train_stage(store))
    table = run_stage(evaluate_stage(store, metrics=("calibration",))).result["metrics"]["calibration"]
    assert [(entry["from"], entry["to"]) for entry in table] == [(k / 10, (k + 1) / 10) for k in range(10)]
    assert sum(entry["rows"] for entry in table) == 299
    for entry in table:
        if entry["rows"]:
            assert entry["from"] <= entry["predicted"] <= entry["to"]
        else:
            assert entry["predicted"] is entry["observed"] is None
    _, y = matrix()
    y[5] = 0
    happened = sum(entry["rows"] * entry["observed"] for entry in table if entry["rows"])
    assert happened == pytest.approx(y.sum())


def evaluated(store: Path, X: np.ndarray, y: np.ndarray, estimator: Any, **fields: Any) -> StageResult:
    write_matrix(f"{store}/features.zarr", X, y)
    save_model(estimator, store / "models" / "m", schema={"features": list(NAMES)})
    return run_stage(evaluate_stage(store, **fields))


def test_metrics_of_several_classes_are_macro_averages(store: Path) -> None:
    X, y = matrix()
    X = np.nan_to_num(X)
    y = y + (X[:, 2] > 0.5)
    estimator = LogisticRegression().fit(X, y)
    names = ("roc_auc", "average_precision", "log_loss", "brier", "accuracy")
    found = evaluated(store, X, y, estimator, metrics=names).result["metrics"]
    said = estimator.predict_proba(X)
    assert found["roc_auc"] == pytest.approx(metrics.roc_auc_score(y, said, multi_class="ovr"))
    indicator = y[:, None] == estimator.classes_
    assert found["average_precision"] == pytest.approx(metrics.average_precision_score(indicator, said))
    assert found["log_loss"] == pytest.approx(metrics.log_loss(y, said))
    assert found["brier"] == pytest.approx(metrics.brier_score_loss(y, said, labels=estimator.classes_))
    with pytest.raises(UsageError, match="calibration is of two classes"):
        run_stage(evaluate_stage(store, metrics=("calibration",)))


def test_a_ranking_needs_rows_of_every_class(store: Path) -> None:
    X, y = matrix()
    estimator = HistGradientBoostingClassifier(max_iter=3).fit(X, y)
    y[192:] = 0
    with pytest.raises(UsageError, match=r"roc_auc needs rows of every class \[0\.0, 1\.0\]; the 108 rows have only"):
        evaluated(store, X, y, estimator, metrics=("roc_auc",), where=LATER)


def test_a_regressor_and_an_unknown_class_are_refused(store: Path) -> None:
    from sklearn.linear_model import Ridge

    X, y = matrix()
    X = np.nan_to_num(X)
    with pytest.raises(UsageError, match="accuracy is a metric of classifiers, m is a regressor; use r2"):
        evaluated(store, X, y, Ridge().fit(X, y), metrics=("accuracy",))
    with pytest.raises(UsageError, match=r"value .*2\.0.*classes \[0\.0, 1\.0\]"):
        evaluated(store, X, 2 * y, LogisticRegression().fit(X, y), metrics=("accuracy",))


def test_a_matrix_of_other_features_is_refused(store: Path) -> None:
    run_stage(train_stage(store))
    X, y = matrix()
    write_matrix(f"{store}/features.zarr", X, y, names=("a", "b", "d", "c"))
    with pytest.raises(UsageError, match=r"was trained on .* own features stage$"):
        run_stage(evaluate_stage(store))
    with pytest.raises(UsageError, match="leave champion: out, and choose by daskml-scale models"):
        run_stage(replace(evaluate_stage(store), store=f"{store}", champion="m"))


def test_evaluate_loads_only_trusted_types(store: Path) -> None:
    X, y = matrix()
    with pytest.raises(UntrustedError, match="Fragile"):
        evaluated(store, X, y, Fragile(limit=99).fit(X, y), metrics=("accuracy",))
    result = run_stage(evaluate_stage(store, metrics=("accuracy",), trusted=("model_helpers.Fragile",)))
    assert result.result["metrics"]["accuracy"] == pytest.approx(np.mean((X[:, 0] > 0.5) == y))


def test_conditions_on_columns_that_the_matrix_lacks_are_refused_before_anything_runs(store: Path) -> None:
    with pytest.raises(PlanError, match="departed"):
        run_stage(train_stage(store, where="departed < time('2013-01-09')"))
    assert not (store / "models").exists()


@pytest.mark.parametrize(
    "kind",
    [
        "ensemble.RandomForestClassifier",
        "ensemble.ExtraTreesClassifier",
        "ensemble.BaggingClassifier",
        "tree.DecisionTreeClassifier",
        "tree.DecisionTreeRegressor",
    ],
)
def test_trees_are_trained_on_rows_with_missing_features(store: Path, kind: str) -> None:
    X, y = matrix()
    known = np.arange(300) != 5
    run_stage(train_stage(store, estimator={f"sklearn.{kind}": {}}))
    module, _, name = kind.rpartition(".")
    direct = getattr(import_module(f"sklearn.{module}"), name)(random_state=7).fit(X[known], y[known])
    assert np.isnan(X[known]).any()
    assert np.array_equal(load_model(store / "models" / "m").predict(X), direct.predict(X))


def test_an_estimator_that_takes_no_missing_values_is_told_with_the_features_that_have_some(store: Path) -> None:
    X, y = matrix()
    holes = np.isnan(X[np.arange(300) != 5]).sum(axis=0)
    with pytest.raises(UnitsFailedError) as raised:
        run_stage(train_stage(store, estimator={"sklearn.linear_model.LogisticRegression": {}}))
    assert "model: LogisticRegression takes no missing or infinite values" in str(raised.value)
    assert f"({holes.max()})" in str(raised.value)
    assert "impute" in str(raised.value)
    assert "Traceback" not in str(raised.value)
    X[12:, :] = np.nan_to_num(X[12:, :])
    write_matrix(f"{store}/features.zarr", X, y)
    clean = "when >= time('2013-01-02')"
    run_stage(train_stage(store, estimator={"sklearn.linear_model.LogisticRegression": {}}, where=clean))
    with pytest.raises(UnitsFailedError, match="scores: LogisticRegression takes no missing or infinite values; feat"):
        run_stage(evaluate_stage(store))


def test_an_estimator_that_changes_its_input_changes_nobody_elses(store: Path) -> None:
    before = read_rows(f"{store}/features.zarr", None)
    CACHE.clear()
    for number in range(2):
        estimator = {"model_helpers.InPlace": {"tag": number}}
        trusted = ("model_helpers.InPlace",)
        places = {"ledger": f"{store}/m{number}.ledger", "bundle": f"{store}/models/{number}"}
        run_stage(train_stage(store, estimator=estimator, trusted=trusted, **places))
        ids = matrix_inputs(stores.snapshot(f"{store}/features.zarr"))
        shared = load_rows(f"{store}/features.zarr", ids, None, WorkerContext())
        assert np.array_equal(shared.X, before.X, equal_nan=True)
        assert np.array_equal(shared.y, before.y)
    X = np.nan_to_num(matrix()[0])
    one, two = (
        load_model(store / "models" / str(number), trusted=["model_helpers.InPlace"]).predict(X.copy())
        for number in range(2)
    )
    assert np.array_equal(one, two)


def test_every_metric_of_a_model_that_scales_in_place_sees_the_rows_as_they_are(store: Path) -> None:
    X, y = np.nan_to_num(matrix()[0]) * 3 + 1, matrix()[1]
    found = []
    for copy in (True, False):
        estimator = make_pipeline(StandardScaler(copy=copy), LogisticRegression()).fit(X.copy(), y)
        found.append(evaluated(store, X, y, estimator).result["metrics"])
    assert found[0] == found[1]


@pytest.mark.parametrize("kind", ["train", "evaluate"])
@pytest.mark.parametrize(
    ("where", "text"),
    [
        ("when > time('2030-01-01')",
         "none of the 300 rows matches where: when > time('2030-01-01'); when runs from 2013-01-01T00:00:00 to "
         "2013-01-13T11:00:00"),
        ("late > 1", "none of the 300 rows matches where: late > 1; late runs from 0.0 to 1.0"),
        ("when == time('2013-01-01T05:00:00')",
         "none of the 1 rows that match where: when == time('2013-01-01T05:00:00') has a value of the target 'late'"),
    ],
)  # fmt: skip
def test_a_condition_without_rows_fails_and_says_what_there_is(store: Path, kind: str, where: str, text: str) -> None:
    run_stage(train_stage(store))
    stage = evaluate_stage(store, where=where) if kind == "evaluate" else train_stage(store, where=where)
    before = (store / "models" / "m" / "bundle.json").read_bytes()
    with pytest.raises(PlanError) as caught:
        run_stage(stage)
    assert text in str(caught.value)
    assert (store / "models" / "m" / "bundle.json").read_bytes() == before
    assert Ledger(stage.ledger).result() is None or kind == "train"


def test_a_type_outside_scikit_learn_is_refused_before_it_is_fitted_and_taken_when_it_is_named(store: Path) -> None:
    estimator = {"model_helpers.Fragile": {"limit": 99.0}}
    with pytest.raises(UntrustedError, match=r"add trusted: \[model_helpers\.Fragile\]"):
        run_stage(train_stage(store, estimator=estimator))
    assert not (store / "models").exists()
    named = train_stage(store, estimator=estimator, trusted=("model_helpers.Fragile",))
    run_stage(named)
    assert plan_of(train_stage(store, estimator=estimator)).units == ()  # trust is no part of what is computed
    assert run_stage(evaluate_stage(store, metrics=("accuracy",), trusted=named.trusted)).rows == 299
