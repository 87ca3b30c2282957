"""Functions beside a workflow, transformers and carried state in the stage: on workers that know none of them."""

from __future__ import annotations

import shutil
import sys

import numpy as np
import pytest
from example_steps import EXAMPLES, KNOWN_AT, TARGET, columns
from features_helpers import write_table
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression
from sklearn.pipeline import make_pipeline

import daskml_scale as dms
from daskml_scale.errors import PlanError
from daskml_scale.spec.workflow import FeaturesSpec
from daskml_scale.stages.features.stage import FeaturesStage
from daskml_scale.stages.inputs import gather
from daskml_scale.stages.run import run_stage
from daskml_scale.storage import stores
from daskml_scale.storage.ledger import Ledger

ROWS = 60
CODE = "def tripled(columns):\n    return columns['size'] * {factor}\n"


@pytest.fixture
def folder(tmp_path):
    write_table(f"{tmp_path}/rows.zarr", columns(ROWS), 10, row_key=["due", "number"], derived_from={})
    (tmp_path / "beside_features.py").write_text(CODE.format(factor=3))
    yield tmp_path
    sys.modules.pop("beside_features", None)


def stage(folder, **changes) -> FeaturesStage:
    steps = [
        {"function": {"call": "beside_features:tripled", "of": ["size"], "makes": ["triple"]}},
        {"sklearn": {**EXAMPLES["sklearn"], "of": ["triple", "width"]}},
        {"exponential_mean": EXAMPLES["exponential_mean"]},
        {"aggregate": EXAMPLES["aggregate"]},
    ]
    spec = FeaturesSpec.model_validate({
        "kind": "features", "input": "rows", "known_at": KNOWN_AT, "target": TARGET, "steps": steps, **changes
    })  # fmt: skip
    return FeaturesStage.of(spec, name="features", ledger=f"{folder}/features.ledger", input=f"{folder}/rows.zarr",
                            tables={}, folders=(folder,))  # fmt: skip


def test_workers_make_the_same_features_as_this_process(folder, tmp_path):
    from distributed import Client

    here = stage(folder, folds={"count": 2})
    run_stage(here)
    matrix = stores.open_dataset(here.out).load()
    size = columns(ROWS)["size"]
    np.testing.assert_allclose(matrix.features.values[:, 0], size * 3, rtol=1e-6)
    full = np.where(np.isnan(size), np.nanmean(size), size) * 3
    np.testing.assert_allclose(matrix.features.sel(feature="full_triple").values, full, rtol=1e-5)
    shutil.rmtree(here.out)
    shutil.rmtree(here.ledger)
    with Client(n_workers=1, threads_per_worker=1, dashboard_address="127.0.0.1:0", host="127.0.0.1") as client:
        run_stage(here, client=client)
        assert {record.worker for record in Ledger(here.ledger).records().values()} != {"local"}
    again = stores.open_dataset(here.out).load()
    np.testing.assert_array_equal(again.features.values, matrix.features.values)
    np.testing.assert_array_equal(again.features_without_1.values, matrix.features_without_1.values)


def test_another_code_makes_the_features_again_and_the_same_one_nothing(folder):
    run_stage(stage(folder))

    def reasons():
        again = stage(folder)
        return again.plan(gather(again.reads(), again.ledger), Ledger(again.ledger).records()).reasons

    assert reasons() == {}
    (folder / "beside_features.py").write_text("# a comment\n" + CODE.format(factor=3))
    assert reasons() == {}
    (folder / "beside_features.py").write_text(CODE.format(factor=4))
    assert reasons()
    run_stage(stage(folder))
    found = stores.open_dataset(stage(folder).out).features.values[:, 0]
    np.testing.assert_allclose(found, columns(ROWS)["size"] * 4, rtol=1e-6)


def test_a_function_that_is_not_there_is_refused_before_anything_runs(folder):
    (folder / "beside_features.py").write_text("tripled = 3\n")
    with pytest.raises(PlanError, match="beside_features:tripled' is a int, no function"):
        run_stage(stage(folder))
    assert not Ledger(f"{folder}/features.ledger").records()


def test_a_saved_model_predicts_from_raw_rows_with_such_a_recipe(tmp_path):
    url = f"{tmp_path}/rows.zarr"
    write_table(url, columns(ROWS), 10, row_key=["due", "number"], derived_from={})
    names = ("sklearn", "exponential_mean", "since", "aggregate", "one_hot", "function", "cast")
    recipe = dms.Recipe([{name: EXAMPLES[name]} for name in names], known_at=KNOWN_AT, target=TARGET)
    made = recipe.fit(url, where="number < 40", folds=2).transform(url, f"{tmp_path}/features.zarr")
    matrix = np.nan_to_num(made.features.values)
    model = make_pipeline(SimpleImputer(strategy="constant", fill_value=0.0), LinearRegression())
    weights = np.arange(1, matrix.shape[1] + 1)
    saved = dms.save_model(model.fit(matrix, matrix @ weights), tmp_path / "model", recipe=recipe)
    expected = model.predict(made.features.values)
    for found in (dms.predict(saved, url), dms.predict(saved, url, f"{tmp_path}/predicted.zarr")):
        np.testing.assert_allclose(found.prediction.values, expected, rtol=1e-5, atol=1e-4)
        assert (found.status.values == 1).all()
