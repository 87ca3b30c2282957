from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from model_helpers import (
    KNOWN_AT,
    NAMES,
    Fragile,
    Logging,
    contents,
    fragile,
    identities,
    matrix,
    opened,
    plan_of,
    stage_of,
    train,
    trips,
    write_matrix,
    write_table,
)
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

import daskml_scale as dms
from daskml_scale.artifacts.bundle import Bundle, load_model, save_model
from daskml_scale.engine.worker import CACHE
from daskml_scale.errors import DaskMLError, PlanError, UnitsFailedError, UntrustedError, UsageError
from daskml_scale.plan.units import FileId, Snapshot, Variable
from daskml_scale.spec.workflow import MatrixOut
from daskml_scale.stages.inputs import gather
from daskml_scale.stages.predict import PredictStage
from daskml_scale.stages.predicting import predict
from daskml_scale.stages.run import run_stage
from daskml_scale.storage import stores
from daskml_scale.storage.ledger import Ledger

# ------------------------------------------------------------------------------------------------ what is written


def test_predictions_from_raw_rows_equal_scikit_learn_on_the_feature_matrix(root: Path) -> None:
    stage = stage_of(root, matrix=MatrixOut(dtype="float64"))
    result = run_stage(stage)
    X = stores.open_dataset(f"{root}/features.zarr").features.values
    direct = HistGradientBoostingClassifier(max_iter=8, early_stopping=False, random_state=0)
    late = trips()["late"]
    direct.fit(X[~np.isnan(late)], late[~np.isnan(late)])
    found = opened(stage)
    assert np.array_equal(found.probability.values, direct.predict_proba(X))
    assert found["class"].values.tolist() == [0.0, 1.0]
    assert result.rows == 400
    assert result.result == {"rows": 400, "bad_input": 0, "model_error": 0, "method": "predict_proba"}


def test_rows_without_a_target_are_predicted_too(root: Path) -> None:
    stage = stage_of(root)
    run_stage(stage)
    found = opened(stage)
    assert np.isnan(trips()["late"]).sum() > 5
    assert (found.status == 1).all()
    assert np.isfinite(found.probability.values).all()


def test_a_table_without_the_target_column_is_predicted(root: Path) -> None:
    columns = trips()
    del columns["late"]
    write_table(f"{root}/new.zarr", columns, ["sched", "origin"])
    with_target, without = stage_of(root), stage_of(root, input=f"{root}/new.zarr", ledger=f"{root}/n.ledger")
    run_stage(with_target)
    run_stage(without)
    assert np.array_equal(opened(with_target).probability, opened(without).probability)


def test_keys_are_copied_and_the_origin_of_the_predictions_is_named(root: Path) -> None:
    stage = stage_of(root)
    run_stage(stage)
    found, table = opened(stage), stores.open_dataset(f"{root}/trips.zarr")
    for name in ("sched", "origin"):
        assert np.array_equal(found[name].values, table[name].values)
        assert found[name].attrs == table[name].attrs
    assert found.attrs["model_sha256"] == load_model(root / "models" / "m").sha256
    assert found.attrs["recipe_hash"] == stores.open_dataset(f"{root}/features.zarr").attrs["recipe_hash"]
    assert found.status.attrs["flag_meanings"] == "missing ok bad_input model_error"


def test_the_output_has_the_chunks_and_shards_that_were_asked_for(root: Path) -> None:
    stage = stage_of(root, matrix=MatrixOut(chunk=50, shard=150))
    plan = plan_of(stage)
    assert plan.later == 3
    run_stage(stage)
    snapshot = stores.snapshot(stage.out)
    assert snapshot is not None
    for name in ("probability", "status", "sched"):
        assert (snapshot.variables[name].chunks[0], snapshot.variables[name].write_unit[0]) == (50, 150)
    whole = stage_of(root, ledger=f"{root}/whole.ledger")
    run_stage(whole)
    assert np.array_equal(opened(stage).probability, opened(whole).probability)


def plain(tmp_path: Path, estimator: Any, **fields: Any) -> PredictStage:
    """A stage with a model without a recipe, on a feature matrix."""
    X, y = matrix()
    write_matrix(f"{tmp_path}/features.zarr", np.nan_to_num(X), y)
    save_model(estimator, tmp_path / "models" / "m", schema={"features": list(NAMES), "dtype": "float32"})
    defaults = {"input": f"{tmp_path}/features.zarr", "tables": {}, "method": "predict"}
    return stage_of(tmp_path, **{**defaults, **fields})


def test_a_model_without_a_recipe_predicts_from_a_feature_matrix(tmp_path: Path) -> None:
    X, y = np.nan_to_num(matrix()[0]), matrix()[1]
    estimator = LogisticRegression().fit(X, y)
    stage = plain(tmp_path, estimator)
    run_stage(stage)
    assert np.array_equal(opened(stage).prediction, estimator.predict(X))
    write_matrix(f"{tmp_path}/features.zarr", X, y, names=("b", "a", "c", "d"))
    fresh = replace(stage, ledger=f"{tmp_path}/q.ledger")
    with pytest.raises(PlanError, match=r"has features \['b', 'a', 'c', 'd'\], the model was trained on"):
        run_stage(fresh)


def test_text_classes_are_stored_as_codes_with_their_labels(tmp_path: Path) -> None:
    X, y = np.nan_to_num(matrix()[0]), matrix()[1]
    names = np.array(["on time", "late"])[y.astype(int)]
    estimator = LogisticRegression().fit(X, names)
    stage = plain(tmp_path, estimator)
    run_stage(stage)
    found = opened(stage).prediction
    assert found.attrs["categories"] == ["late", "on time"]
    assert np.array_equal(np.array(found.attrs["categories"])[found.values], estimator.predict(X))
    chances = plain(tmp_path, estimator, method="predict_proba", ledger=f"{tmp_path}/q.ledger")
    run_stage(chances)
    assert opened(chances)["class"].values.tolist() == ["late", "on time"]


def test_a_regressor_predicts_numbers_and_has_no_probabilities(tmp_path: Path) -> None:
    X, y = np.nan_to_num(matrix()[0]), matrix()[0][:, 0]
    estimator = HistGradientBoostingRegressor(max_iter=4, random_state=0).fit(X, y)
    stage = plain(tmp_path, estimator, matrix=MatrixOut(dtype="float64"))
    run_stage(stage)
    assert np.array_equal(opened(stage).prediction, estimator.predict(X))
    with pytest.raises(PlanError, match="this model has no classes; use predict"):
        run_stage(plain(tmp_path, estimator, method="predict_proba"))


@pytest.mark.parametrize("classes", [2, 3])
def test_decision_values_are_one_per_row_or_one_per_class(tmp_path: Path, classes: int) -> None:
    X, y = np.nan_to_num(matrix()[0]), matrix()[1]
    y = y + (X[:, 2] > 0.5) if classes == 3 else y
    estimator = SVC(random_state=0).fit(X, y)
    stage = plain(tmp_path, estimator, method="decision_function", matrix=MatrixOut(dtype="float64"))
    run_stage(stage)
    expected = estimator.decision_function(X)
    assert opened(stage).decision.shape == expected.shape
    assert np.array_equal(opened(stage).decision, expected)


def test_a_method_that_the_model_lacks_fails_every_unit_by_name(tmp_path: Path) -> None:
    X, y = np.nan_to_num(matrix()[0]), matrix()[1]
    with pytest.raises(UsageError, match="SVC has no method 'predict_proba'"):
        run_stage(plain(tmp_path, SVC().fit(X, y), method="predict_proba"))


# ------------------------------------------------------------------------------------------------ bad rows


def test_rows_that_the_model_refuses_are_missing_with_a_status_and_a_reason(tmp_path: Path) -> None:
    stage = fragile(tmp_path, {7: 3.5, 250: 9.0, 251: 8.0}, max_bad=3)
    result = run_stage(stage)
    found = opened(stage)
    assert np.flatnonzero(found.status == 3).tolist() == [7, 250, 251]
    assert np.flatnonzero(np.isnan(found.probability).all("class")).tolist() == [7, 250, 251]
    assert (found.status == 1).sum() == 297
    expected = np.linspace(0, 1, 300).astype("float32")
    good = (found.status == 1).values
    assert np.array_equal(found.probability[good, 1], expected[good])
    assert result.bad_rows == 3
    assert result.rows == 300
    assert "row 7: ValueError: value 3.500 above the limit 2.0; row 250:" in result.warnings[0]
    records = Ledger(stage.ledger).records()
    assert records["rows/00000000"].result == {
        "bad_input": 0,
        "model_error": 1,
        "reasons": [[7, 3, "ValueError: value 3.500 above the limit 2.0"]],
    }
    assert records["rows/00000001"].result is None


def test_more_bad_rows_than_max_bad_fail_the_stage_and_the_rest_is_kept(tmp_path: Path) -> None:
    stage = fragile(tmp_path, {7: 3.5, 250: 9.0}, max_bad=1)
    with pytest.raises(UnitsFailedError, match=r"2 of 300 rows .*0 bad input, 2 model errors.*row 7: .*max_bad = 1"):
        run_stage(stage)
    assert (opened(stage).status == 1).sum() == 298
    allowed = fragile(tmp_path, {7: 3.5, 250: 9.0}, max_bad=2)
    assert plan_of(allowed).units == ()
    assert run_stage(allowed).bad_rows == 2


def test_a_model_that_refuses_every_row_fails_its_units_soon(tmp_path: Path) -> None:
    stage = fragile(tmp_path, dict.fromkeys(range(300), 5.0), matrix=MatrixOut(chunk=150))
    with pytest.raises(UnitsFailedError, match=r"^p: more than 100 rows of one batch"):
        run_stage(stage)


def test_a_value_that_is_not_finite_is_a_model_error(tmp_path: Path) -> None:
    stage = fragile(tmp_path, {7: np.nan}, max_bad=1)
    assert run_stage(stage).result["model_error"] == 1
    assert opened(stage).status.values[7] == 3


@pytest.mark.parametrize("lazy", [False, True])
def test_rows_scaled_in_place_before_the_batch_failed_are_scaled_once(tmp_path: Path, lazy: bool) -> None:
    X, y = np.nan_to_num(matrix()[0]).astype("float64"), matrix()[1]
    X[:, 3] = np.linspace(0, 1, 300)
    estimators = [
        make_pipeline(StandardScaler(copy=copy).fit(X), Fragile(limit=2.0).fit(X, y)) for copy in (True, False)
    ]
    X[[7, 250], 0] = 50.0
    write_matrix(f"{tmp_path}/features.zarr", X, y)
    found = []
    for number, estimator in enumerate(estimators):
        bundle = save_model(estimator, tmp_path / "models" / str(number), schema={"features": list(NAMES)})
        if lazy:
            data = stores.open_dataset(f"{tmp_path}/features.zarr").load()
            before = data.features.values.copy()
            done = predict(bundle, data, method="predict_proba", max_bad=20).load()
            assert np.array_equal(data.features.values, before)
        else:
            done = predict(bundle, f"{tmp_path}/features.zarr", f"{tmp_path}/{number}.zarr", method="predict_proba",
                           max_bad=20).load()  # fmt: skip
        found.append(done)
    assert {7, 250} <= set(np.flatnonzero(found[0].status == 3).tolist())
    assert np.array_equal(found[0].status, found[1].status)
    assert np.array_equal(found[0].probability, found[1].probability, equal_nan=True)


# ------------------------------------------------------------------------------------------------ resume and re-runs


def test_equal_runs_in_two_places_have_equal_chunks_metadata_and_ledgers(root: Path, tmp_path: Path) -> None:
    other = tmp_path / "another" / "place"
    shutil.copytree(root, other)
    for place in (root, other):
        run_stage(stage_of(place))
    assert contents(root / "p.zarr") == contents(other / "p.zarr")
    assert len(contents(root / "p.zarr")) > 10
    assert identities(stage_of(root)) == identities(stage_of(other))


def test_a_second_run_reuses_everything(root: Path) -> None:
    stage = stage_of(root)
    first = run_stage(stage)
    plan = plan_of(stage)
    assert plan.units == ()
    assert plan.reused == len(plan.keys) == 8  # four scans for bounds, four shards
    assert run_stage(stage) == first


def test_a_run_that_lost_half_its_records_and_a_chunk_continues(root: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(root, other)
    whole, stage = stage_of(other), stage_of(root)
    run_stage(whole)
    run_stage(stage)
    ledger = Ledger(stage.ledger)
    kept = [record for key, record in ledger.records().items() if key != "rows/00000001"]
    shutil.rmtree(stage.ledger)
    Ledger(stage.ledger).append(kept)
    (root / "p.zarr" / "probability" / "c" / "2" / "0").unlink()
    plan = plan_of(stage)
    assert [unit.key for unit in plan.units] == ["rows/00000001", "rows/00000002"]
    assert plan.reasons == {"new": 1, "output missing": 1}
    run_stage(stage)
    assert contents(root / "p.zarr") == contents(other / "p.zarr")
    assert identities(stage) == identities(whole)


def test_another_model_predicts_everything_again(root: Path) -> None:
    stage = stage_of(root)
    run_stage(stage)
    run_stage(train(root, seed=1, estimator={"sklearn.ensemble.HistGradientBoostingClassifier": {"max_iter": 5}}))
    plan = plan_of(stage)
    assert plan.reasons == {"model changed": 4}
    run_stage(stage)
    assert opened(stage).attrs["model_sha256"] == load_model(root / "models" / "m").sha256


def test_training_the_same_model_again_changes_nothing(root: Path) -> None:
    stage = stage_of(root)
    run_stage(stage)
    shutil.rmtree(root / "models")
    run_stage(train(root))
    assert plan_of(stage).units == ()


def test_one_changed_input_chunk_runs_its_dependants_only(root: Path) -> None:
    stage = stage_of(root)
    run_stage(stage)
    before = opened(stage)
    columns = trips()
    columns["distance"][310:320] += 500
    write_table(f"{root}/trips.zarr", columns, ["sched", "origin"])
    plan = plan_of(stage)
    assert [unit.key for unit in plan.units] == ["rows/00000003"]
    assert plan.reasons == {"input changed": 1}
    run_stage(stage)
    changed = np.flatnonzero((opened(stage).probability != before.probability).any("class"))
    assert set(changed) <= set(range(310, 320))


def test_a_change_that_later_windows_read_runs_those_rows_too(root: Path) -> None:
    stage = stage_of(root)
    run_stage(stage)
    columns = trips()
    columns["delay"][180:199] += 100.0  # recorded before rows of the next chunk are predicted
    write_table(f"{root}/trips.zarr", columns, ["sched", "origin"])
    assert [unit.key for unit in plan_of(stage).units] == ["rows/00000001", "rows/00000002"]
    run_stage(stage)
    fresh = stage_of(root, ledger=f"{root}/fresh.ledger")
    run_stage(fresh)
    assert np.array_equal(opened(stage).probability, opened(fresh).probability)


def test_max_bad_is_no_part_of_what_is_computed(root: Path) -> None:
    run_stage(stage_of(root))
    assert plan_of(stage_of(root, max_bad=50)).units == ()
    assert plan_of(stage_of(root, method="predict")).reasons == {"parameters changed": 4}


# ------------------------------------------------------------------------------------------------ loading


def test_the_model_is_loaded_once_in_this_process(tmp_path: Path, executions: Path) -> None:
    stage = fragile(tmp_path, {}, model=Logging(folder=str(executions)))
    assert plan_of(stage)
    before = CACHE.loads
    run_stage(stage)
    assert len(list(executions.iterdir())) == 1
    assert CACHE.loads == before + 1


def test_an_altered_or_untrusted_model_is_refused_before_a_unit_runs(root: Path, tmp_path: Path) -> None:
    file = root / "models" / "m" / "model.skops"
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(UntrustedError, match="altered"):
        run_stage(stage_of(root))
    assert not (root / "p.zarr").exists()
    stage = fragile(tmp_path, {})
    with pytest.raises(UntrustedError, match=r"model_helpers\.Fragile"):
        run_stage(stage_of(tmp_path, tables={}))
    assert run_stage(stage).rows == 300


# ------------------------------------------------------------------------------------------------ plans


def test_a_dry_run_before_training_names_units_grid_and_memory(root: Path) -> None:
    shutil.rmtree(root / "models")
    plan = plan_of(stage_of(root))
    assert [unit.key for unit in plan.units] == [f"rows/{number:08d}" for number in range(4)]
    assert plan.grid == "4 shards of 100 rows"
    assert plan.memory > 0
    with pytest.raises(PlanError, match="train the model first"):
        run_stage(stage_of(root))


def test_a_dry_run_before_the_table_is_written_gives_the_expected_schema(root: Path) -> None:
    stage = stage_of(root)
    inputs = gather(stage.reads())
    table = inputs["input"]
    assert isinstance(table, Snapshot)
    unknown = Snapshot(table.url, table.dim, table.rows, table.variables, table.attrs)
    plan = stage.plan({**inputs, "input": unknown}, {})
    assert plan.later == 4
    assert plan.template is not None
    assert {"probability", "status", "class", "sched", "origin"} == set(plan.template.variables)
    with pytest.raises(PlanError, match=r"trips\.zarr does not exist"):
        stage.plan({**inputs, "input": None}, {})


def test_a_missing_table_of_the_recipe_is_named(root: Path) -> None:
    with pytest.raises(PlanError, match="name weather in `tables`"):
        run_stage(stage_of(root, tables={}))


def test_a_key_column_that_would_be_overwritten_is_refused(tmp_path: Path) -> None:
    stage = fragile(tmp_path, {})
    when = np.datetime64("2013-01-01", "ns") + np.arange(9) * np.timedelta64(1, "h")
    columns = {"when": when, "score": np.zeros(9), "status": np.zeros(9)}
    write_table(f"{tmp_path}/trips.zarr", columns, ["when", "status"])
    with pytest.raises(PlanError, match="'status' is a variable of these predictions"):
        run_stage(stage)


# ------------------------------------------------------------------------------------------------ dms.predict


@pytest.fixture
def bundle(root: Path) -> Bundle:
    return load_model(root / "models" / "m")


def test_predict_writes_what_the_stage_writes(root: Path, bundle: Bundle) -> None:
    stage = stage_of(root)
    run_stage(stage)
    arguments = {"method": "predict_proba", "tables": {"weather": f"{root}/weather.zarr"}}
    for model in (bundle, root / "models" / "m"):
        found = predict(model, f"{root}/trips.zarr", root / "q.zarr", **arguments)  # type: ignore[arg-type]
        assert contents(root / "q.zarr") == contents(root / "p.zarr")
        assert hasattr(found.probability.data, "dask")
    row = dms.last_run()
    assert row is not None
    assert (row.name, row.units, row.reused, row.rows) == ("q", 8, 8, 400)


@pytest.mark.parametrize("method", ["predict", "predict_proba", "decision_function"])
@pytest.mark.parametrize("where", ["store", "memory"])
def test_a_lazy_prediction_equals_a_written_one(root: Path, bundle: Bundle, method: str, where: str) -> None:
    table = stores.open_dataset(f"{root}/trips.zarr")
    tables = {"weather": f"{root}/weather.zarr"}
    written = predict(bundle, table, root / "q.zarr", method=method, tables=tables)
    lazy = predict(bundle, table if where == "store" else table.load(), method=method, tables=tables)
    name = {"predict": "prediction", "predict_proba": "probability", "decision_function": "decision"}[method]
    assert hasattr(lazy[name].data, "dask")
    if where == "store":
        assert lazy[name].data.chunks == written[name].data.chunks
    assert set(map(str, lazy.variables)) == set(map(str, written.variables))
    for variable in lazy.variables:
        assert np.array_equal(lazy[variable].values, written[variable].values)
        assert lazy[variable].attrs == written[variable].attrs
    assert dict(lazy.attrs) == dict(written.attrs)


def test_a_lazy_prediction_computes_nothing_but_the_rows_asked_for(
    root: Path, tmp_path: Path, executions: Path
) -> None:
    fragile(tmp_path, {250: 9.0}, model=Logging(folder=str(executions)))
    model = load_model(tmp_path / "models" / "m", trusted=[Logging])
    lazy = predict(model, f"{tmp_path}/trips.zarr", method="predict_proba")
    assert not list(executions.iterdir())
    assert lazy.probability[:3, 1].values.tolist() == pytest.approx([0, 1 / 299, 2 / 299])
    with pytest.raises(DaskMLError, match="above the limit"):
        lazy.compute()
    allowed = predict(model, f"{tmp_path}/trips.zarr", method="predict_proba", max_bad=1)
    assert np.flatnonzero(allowed.status.values == 3).tolist() == [250]
    assert len(list(executions.iterdir())) == 1


def test_a_table_in_memory_is_written_as_one_in_a_store(root: Path, bundle: Bundle) -> None:
    tables = {"weather": stores.open_dataset(f"{root}/weather.zarr").load()}
    table = stores.open_dataset(f"{root}/trips.zarr").load()
    found = predict(bundle, table, root / "q.zarr", method="predict_proba", tables=tables).load()
    stage = stage_of(root)
    run_stage(stage)
    for name in ("probability", "status", "sched", "origin"):
        assert np.array_equal(found[name].values, opened(stage)[name].values)


def test_bad_rows_of_a_table_in_memory_count_too(tmp_path: Path) -> None:
    fragile(tmp_path, {7: 3.5, 250: 9.0})
    model = load_model(tmp_path / "models" / "m", trusted=[Fragile])
    table = stores.open_dataset(f"{tmp_path}/trips.zarr").load()
    with pytest.raises(UnitsFailedError, match=r"2 of 300 rows.*row 7"):
        predict(model, table, tmp_path / "q.zarr")
    found = predict(model, table, tmp_path / "q.zarr", max_bad=2)
    assert np.flatnonzero(found.status.values != 1).tolist() == [7, 250]


def test_a_matrix_model_predicts_a_matrix_dataset_lazily(tmp_path: Path) -> None:
    X, y = np.nan_to_num(matrix()[0]), matrix()[1]
    estimator = LogisticRegression().fit(X, y)
    plain(tmp_path, estimator)
    for data in (f"{tmp_path}/features.zarr", stores.open_dataset(f"{tmp_path}/features.zarr").load()):
        lazy = predict(tmp_path / "models" / "m", data, method="predict_proba")
        assert np.array_equal(lazy.probability.values, estimator.predict_proba(X).astype("float32"))  # as before 1.9
        assert set(map(str, lazy.variables)) == {"probability", "status", "class", "when"}
    with pytest.raises(UsageError, match="takes a feature matrix"):
        predict(tmp_path / "models" / "m", stores.open_dataset(f"{tmp_path}/features.zarr")[["late"]])
    with pytest.raises(UsageError, match="leave `out` away"):
        predict(tmp_path / "models" / "m", data, tmp_path / "q.zarr")


def test_wrong_arguments_are_refused_by_name(root: Path, bundle: Bundle) -> None:
    with pytest.raises(
        UsageError, match="'transfrom' is not known; use predict, predict_proba, decision_function, transform"
    ):
        predict(bundle, f"{root}/trips.zarr", method="transfrom")
    with pytest.raises(UsageError, match=r"name it q\.zarr"):
        predict(bundle, f"{root}/trips.zarr", "q", tables={"weather": f"{root}/weather.zarr"})
    with pytest.raises(DaskMLError, match="weather"):
        predict(bundle, f"{root}/trips.zarr")


def test_a_model_saved_by_hand_with_a_recipe_predicts_raw_rows(root: Path) -> None:
    recipe = dms.Recipe([{"ordinal": {"of": "origin"}}, {"keep": {"of": "distance"}}], known_at=KNOWN_AT, target="late")
    with pytest.raises(UsageError, match="not fitted"):
        dms.save_model(LogisticRegression(), root / "models" / "hand", recipe=recipe)
    features = recipe.fit_transform(f"{root}/trips.zarr").load()
    known = ~np.isnan(features.late.values)
    estimator = LogisticRegression().fit(features.features.values[known], features.late.values[known])
    schema = {"features": features.feature.values.tolist(), "dtype": "float32"}
    saved = dms.save_model(estimator, root / "models" / "hand", recipe=recipe, schema=schema)
    found = dms.predict(saved, f"{root}/trips.zarr")
    assert np.array_equal(found.prediction.values, estimator.predict(features.features.values))


def test_another_recipe_of_the_same_estimator_predicts_everything_again(root: Path) -> None:
    steps = [{"ordinal": {"of": "origin"}}, {"keep": {"of": "distance"}}]
    estimator, hashes, whys = LogisticRegression(), set(), []
    for order in (steps, steps[::-1]):
        recipe = dms.Recipe(order, known_at=KNOWN_AT, target="late")
        features = recipe.fit_transform(f"{root}/trips.zarr").load()
        if not hashes:
            known = ~np.isnan(features.late.values)
            estimator.fit(features.features.values[known], features.late.values[known])
        schema = {"features": features.feature.values.tolist(), "dtype": "float32"}
        saved = dms.save_model(estimator, root / "models" / "hand", recipe=recipe, schema=schema)
        found = dms.predict(saved, f"{root}/trips.zarr", root / "q.zarr")
        assert np.array_equal(found.prediction.values, estimator.predict(features.features.values))
        hashes.add(saved.sha256)
        records = Ledger(f"{root}/q.ledger").records()
        whys.append([record.why for key, record in records.items() if key.startswith("rows/")])
    assert len(hashes) == 1
    assert whys == [["new"] * 4, ["model changed"] * 4]


@pytest.mark.slow
def test_many_tiny_chunks_are_planned(tmp_path: Path) -> None:
    X, y = matrix(300)
    save_model(LogisticRegression().fit(np.nan_to_num(X), y), tmp_path / "m", schema={"features": list(NAMES)})
    rows = 200_000
    variables = {"features": Variable("float32", ("row", "feature"), (rows, 4), (1, 4))}
    ids = {"features": tuple(f"{number:040x}" for number in range(rows))}
    snapshot = Snapshot(f"{tmp_path}/f.zarr", "row", rows, variables, {}, ids)
    stage = PredictStage("p", f"{tmp_path}/p.ledger", f"{tmp_path}/f.zarr", f"{tmp_path}/m")
    plan = stage.plan({"input": snapshot, "bundle": FileId("", "", 0)}, {})
    assert len(plan.units) == plan.rows == rows
    assert plan.reasons == {"new": rows}
