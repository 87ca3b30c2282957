"""What a prediction may be: several columns, embeddings, functions of the caller; and how it is declared."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from model_helpers import (
    NAMES,
    Fragile,
    fragile,
    identities,
    matrix,
    opened,
    plan_of,
    stage_of,
    write_matrix,
    write_table,
)
from sklearn.decomposition import PCA
from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.multioutput import MultiOutputClassifier
from sklearn.preprocessing import OneHotEncoder
from sklearn.svm import SVC

from daskml_scale.artifacts.bundle import Bundle, load_model, save_model
from daskml_scale.errors import DaskMLError, PlanError, UnitsFailedError, UsageError
from daskml_scale.spec.workflow import MatrixOut
from daskml_scale.stages.functions import Sent
from daskml_scale.stages.isolate import BadRows
from daskml_scale.stages.model_output import Output
from daskml_scale.stages.predict import PredictStage
from daskml_scale.stages.predicting import predict
from daskml_scale.stages.run import run_stage
from daskml_scale.stages.scoring import Model
from daskml_scale.storage import stores

X, Y = np.nan_to_num(matrix()[0]), matrix()[1]
FLOAT64 = MatrixOut(dtype="float64")


def saved(folder: Path, estimator: Any) -> Bundle:
    write_matrix(f"{folder}/features.zarr", X, Y)
    return save_model(estimator, folder / "models" / "m", schema={"features": list(NAMES), "dtype": "float32"})


def stage(folder: Path, **fields: Any) -> PredictStage:
    return stage_of(folder, **{"input": f"{folder}/features.zarr", "tables": {}, "matrix": FLOAT64, **fields})


def top_two(estimator: Any, X: np.ndarray) -> np.ndarray:
    return np.sort(estimator.predict_proba(X), axis=1)[:, ::-1][:, :2]


def score(estimator: Any, X: np.ndarray) -> np.ndarray:
    return estimator.predict_proba(X)[:, 1] * 2


# ------------------------------------------------------------------------------------------------ of the bundle


def test_a_bundle_tells_the_shapes_of_its_methods(tmp_path: Path) -> None:
    outputs = saved(tmp_path, PCA(2).fit(X)).schema["outputs"]
    assert outputs == {"transform": {"shape": [2], "dtype": "float64", "columns": ["pca0", "pca1"]}}
    outputs = saved(tmp_path, LogisticRegression().fit(X, Y)).schema["outputs"]
    assert {method: found["shape"] for method, found in outputs.items()} == {
        "predict": [], "predict_proba": [2], "decision_function": [],
    }  # fmt: skip
    assert load_model(tmp_path / "models" / "m").schema["outputs"] == outputs


@pytest.mark.parametrize("lazy", [False, True])
def test_a_regressor_of_several_targets_gives_a_column_each(tmp_path: Path, lazy: bool) -> None:
    estimator = LinearRegression().fit(X, np.stack([X[:, 0], X[:, 1] - 2], axis=1))
    bundle = saved(tmp_path, estimator)
    if lazy:
        found = predict(bundle, f"{tmp_path}/features.zarr", schema={"dtype": "float64"}).load()
    else:
        run_stage(writing := stage(tmp_path, method="predict"))
        found = opened(writing)
    assert found.prediction.dims == ("row", "output")
    assert found.output.values.tolist() == [0, 1]
    np.testing.assert_allclose(found.prediction, estimator.predict(X), rtol=1e-6)
    assert (found.status == 1).all()


def test_a_classifier_of_several_targets_gives_classes_and_probabilities(tmp_path: Path) -> None:
    several = np.stack([Y, (X[:, 2] > 0) + 3.0], axis=1)
    for estimator in (MultiOutputClassifier(LogisticRegression()), RandomForestClassifier(3, random_state=0)):
        saved(tmp_path, estimator.fit(X, several))
        writing = stage(tmp_path, method="predict", ledger=f"{tmp_path}/{type(estimator).__name__}.ledger")
        run_stage(writing)
        assert np.array_equal(opened(writing).prediction, estimator.predict(X))
        chances = stage(tmp_path, method="predict_proba", ledger=f"{tmp_path}/{type(estimator).__name__}-p.ledger")
        run_stage(chances)
        found = opened(chances).probability
        assert found.attrs["classes"] == [[0.0, 1.0], [3.0, 4.0]]
        np.testing.assert_allclose(found, np.stack(estimator.predict_proba(X), axis=1), rtol=1e-6)


@pytest.mark.parametrize("lazy", [False, True])
def test_a_transformer_gives_an_embedding_with_its_names(tmp_path: Path, lazy: bool) -> None:
    estimator = PCA(3).fit(X)
    bundle = saved(tmp_path, estimator)
    if lazy:
        found = predict(bundle, f"{tmp_path}/features.zarr", method="transform", schema={"dtype": "float64"}).load()
    else:
        run_stage(writing := stage(tmp_path, method="transform"))
        found = opened(writing)
    assert found.embedding.dims == ("row", "component")
    assert found.component.values.tolist() == ["pca0", "pca1", "pca2"]
    np.testing.assert_allclose(found.embedding, estimator.transform(X), rtol=1e-5, atol=1e-6)


def test_a_sparse_transform_is_written_dense(tmp_path: Path) -> None:
    coded = (np.abs(X[:, :2]) > 0.5).astype("float32")
    estimator = OneHotEncoder(handle_unknown="ignore").fit(coded)
    write_matrix(f"{tmp_path}/features.zarr", coded, Y, names=("a", "b"))
    save_model(estimator, tmp_path / "models" / "m", schema={"features": ["a", "b"], "dtype": "float32"})
    run_stage(writing := stage(tmp_path, method="transform"))
    assert np.array_equal(opened(writing).embedding, estimator.transform(coded).toarray())


def test_one_decision_value_per_pair_of_classes_is_one_column_each(tmp_path: Path) -> None:
    classes = np.digitize(X[:, 0], [-0.7, 0, 0.7]).astype("float64")
    estimator = SVC(decision_function_shape="ovo").fit(X, classes)
    saved(tmp_path, estimator)
    run_stage(writing := stage(tmp_path, method="decision_function"))
    found = opened(writing).decision
    assert found.dims == ("row", "output")
    np.testing.assert_allclose(found, estimator.decision_function(X), rtol=1e-6)


# ------------------------------------------------------------------------------------------------ of the caller


@pytest.mark.parametrize("lazy", [False, True])
def test_a_function_of_the_estimator_is_predicted_by(tmp_path: Path, lazy: bool) -> None:
    estimator = RandomForestRegressor(9, random_state=0).fit(X, X[:, 0])
    bundle = saved(tmp_path, estimator)
    levels = [0.1, 0.5, 0.9]

    def quantiles(model: Any, rows: np.ndarray) -> np.ndarray:
        return np.quantile([tree.predict(rows) for tree in model.estimators_], levels, axis=0).T

    out = None if lazy else tmp_path / "q.zarr"
    schema = {"name": "q", "dim": "quantile", "columns": levels, "dtype": "float64"}
    found = predict(bundle, f"{tmp_path}/features.zarr", out, method=quantiles, schema=schema).load()
    assert found.q.dims == ("row", "quantile")
    assert found["quantile"].values.tolist() == levels
    np.testing.assert_allclose(found.q, quantiles(estimator, X))
    assert found.attrs["method"] == "quantiles"


def test_a_function_runs_on_workers_and_is_reused_until_its_code_changes(tmp_path: Path, client: Any) -> None:
    saved(tmp_path, LogisticRegression().fit(X, Y))
    factor = 2

    def scaled(model: Any, rows: np.ndarray) -> np.ndarray:
        return model.predict_proba(rows)[:, 1] * factor

    first = stage(tmp_path, method="scaled", function=Sent(scaled))
    run_stage(first, client=client)
    expected = 2 * load_model(tmp_path / "models" / "m").predict_proba(X)[:, 1]
    np.testing.assert_allclose(opened(first).prediction, expected)
    assert plan_of(stage(tmp_path, method="scaled", function=Sent(scaled))).units == ()
    factor = 3
    assert plan_of(stage(tmp_path, method="scaled", function=Sent(scaled))).reasons == {"parameters changed": 3}


def test_a_function_that_gives_another_shape_than_declared_is_refused_by_both_shapes(tmp_path: Path) -> None:
    bundle = saved(tmp_path, LogisticRegression().fit(X, Y))
    with pytest.raises(
        DaskMLError, match=r"top_two of m gives an array of shape \(100, 2\), expected \('rows',\); declare"
    ):
        predict(bundle, f"{tmp_path}/features.zarr", tmp_path / "p.zarr", method=top_two)
    found = predict(
        bundle, f"{tmp_path}/features.zarr", tmp_path / "p.zarr", method=top_two, schema={"columns": ["a", "b"]}
    )
    assert found.prediction.dims == ("row", "output")


def test_a_lambda_is_taken_too(tmp_path: Path) -> None:
    bundle = saved(tmp_path, LogisticRegression().fit(X, Y))
    found = predict(
        bundle, f"{tmp_path}/features.zarr", tmp_path / "p.zarr", method=lambda m, rows: m.predict(rows) + 5
    )
    assert np.array_equal(found.prediction, LogisticRegression().fit(X, Y).predict(X) + 5)


# ------------------------------------------------------------------------------------------------ declared


def test_what_is_declared_wins_and_what_cannot_be_is_refused() -> None:
    schema = {"classes": ["no", "yes"], "outputs": {}}
    assert Output.of("predict", schema, "float32").labels == ("no", "yes")
    named = Output.of("predict_proba", schema, "float32", {"name": "chance", "dtype": "float16"})
    assert (named.name, named.dtype, named.columns) == ("chance", "float16", ("no", "yes"))
    with pytest.raises(UsageError, match="an output has no 'colums'; it has name, dtype, dim, columns"):
        Output.of("predict", schema, "float32", {"colums": []})
    with pytest.raises(UsageError, match="dtype 'int8' cannot say that a value is missing; use float16, float32"):
        Output.of("predict", schema, "float32", {"dtype": "int8"})
    with pytest.raises(PlanError, match="the number of columns is not known; declare"):
        Output.of("transform", schema, "float32")
    assert Output.of("transform", schema, "float32", {"columns": ["x", "y"]}).shape == (2,)


@given(st.lists(st.text(min_size=1, max_size=6), min_size=1, max_size=8, unique=True), st.data())
def test_labels_survive_their_codes(labels: list[str], data: st.DataObject) -> None:
    labels = [label for label in labels if "\0" not in label] or ["a"]
    output = Output("prediction", "int32", labels=tuple(labels))
    values = np.array(data.draw(st.lists(st.sampled_from(labels), max_size=20)), dtype=object)
    codes = output.encode(values)
    assert [labels[code] for code in codes] == list(values)


def test_a_label_that_the_bundle_does_not_name_is_refused() -> None:
    with pytest.raises(PlanError, match="gave the label 'maybe', the bundle names yes, no"):
        Output("prediction", "int32", labels=("yes", "no")).encode(np.array(["no", "maybe"]))


def test_a_key_column_named_like_a_declared_output_is_refused(tmp_path: Path) -> None:
    when = np.datetime64("2013-01-01", "ns") + np.arange(9) * np.timedelta64(1, "h")
    bundle = load_model(fragile(tmp_path, {}).bundle, trusted=["model_helpers.Fragile"])
    write_table(f"{tmp_path}/rows.zarr", {"when": when, "score": np.zeros(9), "q": np.zeros(9)}, ["when", "q"])
    assert predict(bundle, f"{tmp_path}/rows.zarr").prediction.shape == (9,)
    with pytest.raises(PlanError, match="'q' is a variable of these predictions"):
        predict(bundle, f"{tmp_path}/rows.zarr", schema={"name": "q"})


# ------------------------------------------------------------------------------------------------ on_error


def test_on_error_raise_writes_nothing_of_the_shard_and_names_the_row(tmp_path: Path) -> None:
    writing = fragile(tmp_path, {7: 3.5, 250: 9.0}, on_error="raise")
    with pytest.raises(DaskMLError, match=r"row 7 of the batch cannot be predicted: ValueError: value 3\.500 above"):
        run_stage(writing)
    found = opened(writing)
    assert (found.status.values[:100] == 0).all()
    assert (found.status.values[100:200] == 1).all()
    assert len(identities(writing)) == 3
    repaired = fragile(tmp_path, {}, on_error="raise")
    shutil.rmtree(tmp_path / "p.ledger")
    assert run_stage(repaired).rows == 300


def test_on_error_is_quarantine_or_raise(tmp_path: Path) -> None:
    bundle = saved(tmp_path, LogisticRegression().fit(X, Y))
    with pytest.raises(UsageError, match="on_error='ignore' is not known; use quarantine or raise"):
        predict(bundle, f"{tmp_path}/features.zarr", on_error="ignore")
    with pytest.raises(UsageError, match="contradict each other"):
        predict(bundle, f"{tmp_path}/features.zarr", on_error="raise", max_bad=3)


class Counting(Fragile):
    """Counts its calls."""

    calls: ClassVar[list[int]] = []

    def predict_proba(self, X: np.ndarray) -> np.ndarray:
        self.calls.append(len(X))
        if not np.isfinite(X).all():
            raise ValueError("Input contains NaN")
        return super().predict_proba(X)


def test_a_batch_with_missing_features_costs_two_calls_and_two_per_bad_row() -> None:
    rows = np.linspace(0, 1, 10_000)[:, None]
    rows[::1000] = np.nan
    estimator = Counting().fit(rows, [0.0, 1.0])
    Counting.calls.clear()
    bundle = Bundle("m", {"schema": {"features": ["x"], "classes": [0.0, 1.0]}})
    model = Model(bundle, "predict_proba", Output("probability", "float64", "class", (0.0, 1.0)))
    bad = BadRows(limit=100)
    done = model._scored(estimator, rows, np.arange(10_000), bad, {})
    assert sorted(bad.status) == list(range(0, 10_000, 1000))
    assert Counting.calls[:2] == [10_000, 9_990]
    assert len(Counting.calls) == 2 + 2 * 10 - 1
    found = np.setdiff1d(np.concatenate([numbers for numbers, _ in done]), list(bad.status))
    assert len(found) == 9_990
    assert found[0] == 1


# ------------------------------------------------------------------------------------------------ ends


@pytest.mark.parametrize("rows", [0, 1])
@pytest.mark.parametrize("lazy", [False, True])
def test_no_row_and_one_row_are_predicted(tmp_path: Path, rows: int, lazy: bool) -> None:
    bundle = saved(tmp_path, LogisticRegression().fit(X, Y))
    write_matrix(f"{tmp_path}/few.zarr", X[:rows], Y[:rows])
    out = None if lazy else tmp_path / "p.zarr"
    found = predict(bundle, f"{tmp_path}/few.zarr", out, method="predict_proba").load()
    assert found.probability.shape == (rows, 2)
    assert (found.status == 1).all()


@pytest.mark.parametrize("rows", [0, 1])
def test_no_row_and_one_row_of_a_raw_table_are_predicted(tmp_path: Path, rows: int) -> None:
    writing = fragile(tmp_path, {}, rows=rows)
    run_stage(writing)
    found = opened(writing)
    assert found.probability.shape == (rows, 2)
    bundle = load_model(writing.bundle, trusted=["model_helpers.Fragile"])
    assert predict(bundle, stores.open_dataset(writing.input).load()).prediction.shape == (rows,)


def test_infinite_features_are_found_and_named_where_the_model_refuses_them(tmp_path: Path) -> None:
    bundle = saved(tmp_path, LogisticRegression().fit(X, Y))
    poisoned = X.copy()
    poisoned[[3, 120], 0], poisoned[207, 2] = np.inf, np.nan
    write_matrix(f"{tmp_path}/bad.zarr", poisoned, Y)
    found = predict(bundle, f"{tmp_path}/bad.zarr", tmp_path / "p.zarr", max_bad=3).load()
    assert np.flatnonzero(found.status != 1).tolist() == [3, 120, 207]
    with pytest.raises(
        UnitsFailedError, match=r"row 3: ValueError: Input X contains infinity.*row 207: .*contains NaN"
    ):
        predict(bundle, f"{tmp_path}/bad.zarr", tmp_path / "p.zarr")
