"""Faster ways: used where predictions are the same, told where not; what the model ignores is not read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from model_helpers import NAMES, matrix, plan_of, stage_of, train, write_matrix
from sklearn.ensemble import (
    GradientBoostingRegressor,
    HistGradientBoostingClassifier,
    RandomForestClassifier,
)
from sklearn.linear_model import Lasso, LinearRegression, LogisticRegression
from sklearn.tree import DecisionTreeRegressor

import daskml_scale as dms
from daskml_scale.artifacts.bundle import load_model, save_model
from daskml_scale.artifacts.used import used_features
from daskml_scale.errors import UntrustedError, UsageError
from daskml_scale.stages.features.program import Program
from daskml_scale.stages.optimise import parity, pruned_program, tried
from daskml_scale.stages.run import run_stage
from daskml_scale.storage import files, regions, stores
from daskml_scale.storage.ledger import Ledger

X, Y = np.nan_to_num(matrix()[0]), matrix()[1]
SCHEMA = {"features": list(NAMES), "dtype": "float32"}


@pytest.fixture
def data(tmp_path: Path) -> str:
    write_matrix(f"{tmp_path}/f.zarr", X, Y)
    return f"{tmp_path}/f.zarr"


def outcome(out: Path) -> dict[str, Any]:
    found = Ledger(stores.beside(str(out), "ledger")).records()["optimise"].result
    return {one["way"]: one for one in found}


@pytest.mark.parametrize(
    ("model", "method"),
    [
        (RandomForestClassifier(5, random_state=0), "predict_proba"),
        (RandomForestClassifier(5, random_state=0), "predict"),
        (LogisticRegression(), "predict_proba"),
        (GradientBoostingRegressor(n_estimators=5), "predict"),
    ],
)
def test_onnx_predicts_the_same_and_is_used(model: Any, method: str, data: str, tmp_path: Path) -> None:
    pytest.importorskip("skl2onnx")
    bundle = save_model(model.fit(X, Y), tmp_path / "m", schema=SCHEMA)
    plain = dms.predict(bundle, data, tmp_path / "a.zarr", method=method)
    found = dms.predict(bundle, data, tmp_path / "b.zarr", method=method, optimise="onnx")
    xr.testing.assert_allclose(plain.drop_attrs(), found.drop_attrs(), rtol=1e-4, atol=1e-5)
    one = outcome(tmp_path / "b.zarr")["onnx"]
    assert one["used"], one
    assert one["max_diff"] < 1e-4
    assert (tmp_path / "b.onnx").exists()
    dms.predict(bundle, data, tmp_path / "b.zarr", method=method, optimise="onnx")
    row = dms.last_run()
    assert row is not None
    assert (row.units, row.reused) == (4, 4)


def test_predictions_that_are_moved_with_their_exported_model_are_reused(data: str, tmp_path: Path) -> None:
    pytest.importorskip("skl2onnx")
    bundle = save_model(RandomForestClassifier(3, random_state=0).fit(X, Y), tmp_path / "m", schema=SCHEMA)
    dms.predict(bundle, data, tmp_path / "here" / "p.zarr", optimise="onnx")
    (tmp_path / "here").rename(tmp_path / "there")
    dms.predict(bundle, data, tmp_path / "there" / "p.zarr", optimise="onnx")
    row = dms.last_run()
    assert row is not None
    assert (row.units, row.reused) == (4, 4)


def test_what_does_not_convert_is_told_and_predicted_as_usual(data: str, tmp_path: Path) -> None:
    model = HistGradientBoostingClassifier(max_iter=3).fit(X, Y)
    bundle = save_model(model, tmp_path / "m", schema=SCHEMA)
    found = dms.predict(bundle, data, tmp_path / "p.zarr", method="predict_proba", optimise="onnx")
    np.testing.assert_allclose(found.probability.values, model.predict_proba(X), rtol=1e-6)
    one = outcome(tmp_path / "p.zarr")["onnx"]
    assert not one["used"]
    assert one["reason"]
    row = dms.last_run()
    assert row is not None
    assert any("optimise onnx is not used" in text for text in row.warnings)


def test_an_exported_file_that_was_altered_is_refused(data: str, tmp_path: Path) -> None:
    pytest.importorskip("skl2onnx")
    bundle = save_model(LogisticRegression().fit(X, Y), tmp_path / "m", schema=SCHEMA)
    dms.predict(bundle, data, tmp_path / "p.zarr", optimise="onnx")
    write_matrix(data, X + 1, Y)
    (tmp_path / "p.onnx").write_bytes(b"other")
    from daskml_scale.engine.worker import CACHE
    from daskml_scale.stages.optimise import Exported

    CACHE.clear()
    with pytest.raises(UntrustedError, match="is not the file that was exported"):
        Exported(str(tmp_path / "p.onnx"), "0" * 64).load()


def test_a_way_that_differs_is_not_used() -> None:
    usual, other = np.ones(5), np.ones(5)
    other[3] += 0.01
    found = tried("onnx", lambda: usual, lambda: other)
    assert not found["used"]
    assert "predictions of 5 real rows differ by up to 0.01" in found["reason"]
    assert parity(usual, usual + 1e-7)[0]
    assert not parity(np.asarray(["a"]), np.asarray(["b"]))[0]
    assert not parity(usual, usual[:4])[0]
    nan = np.full(2, np.nan)
    assert parity(nan, nan)[0]
    assert not parity(nan, np.zeros(2))[0]


def sparse_targets() -> np.ndarray:
    return 3 * X[:, 1] + X[:, 3]


@pytest.mark.parametrize(
    ("model", "known"),
    [
        (Lasso(0.5), True),
        (DecisionTreeRegressor(max_depth=2, random_state=0), True),
        (RandomForestClassifier(3, max_depth=1, max_features=None, random_state=0), True),
        (GradientBoostingRegressor(n_estimators=2, max_depth=1), True),
        (HistGradientBoostingClassifier(max_iter=1, max_depth=1), True),
        (LinearRegression(), False),
    ],
)
def test_ignored_features_change_no_prediction(model: Any, known: bool) -> None:
    y = sparse_targets() if not hasattr(model, "predict_proba") else Y
    model.fit(X, y)
    used = used_features(model, 4)
    assert (used is not None) == known
    other = np.random.default_rng(1).normal(size=X.shape).astype("float32") * 100
    kept = list(range(4)) if used is None else used
    other[:, kept] = X[:, kept]
    assert np.array_equal(model.predict(X), model.predict(other))
    if used is not None:
        assert 0 < len(used) < 4


def test_features_that_a_booster_ignores_are_known() -> None:
    xgboost = pytest.importorskip("xgboost")
    from daskml_scale.artifacts.kind_xgboost import pack

    model = xgboost.XGBRegressor(n_estimators=2, max_depth=1, n_jobs=1).fit(X, 5 * X[:, 2])
    assert used_features(pack(model).model, 4) == [2]


def wide(tmp_path: Path, variables: int = 40, rows: int = 4000) -> tuple[str, np.ndarray, list[str]]:
    rng = np.random.default_rng(0)
    values = rng.normal(size=(rows, variables)).astype("float32")
    names = [f"v{number:02d}" for number in range(variables)]
    ds = xr.Dataset({name: (("row",), values[:, at]) for at, name in enumerate(names)})
    ds.to_zarr(tmp_path / "w.zarr", encoding={name: {"chunks": [1000]} for name in names}, consolidated=False)
    return str(tmp_path / "w.zarr"), values, names


class Counted:
    """Counts the bytes of stored objects that are read of a dataset, per variable."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.bytes: dict[str, int] = {}
        read = regions.read_region

        def counting(url: str, name: str, region: Any) -> np.ndarray:
            values = read(url, name, region)
            self.bytes[name] = self.bytes.get(name, 0) + values.nbytes
            return values

        monkeypatch.setattr(stores, "read_region", counting)


def test_only_the_variables_of_the_model_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url, values, names = wide(tmp_path)
    model = LinearRegression().fit(values[:, :4], values[:, 0])
    bundle = save_model(model, tmp_path / "m", schema={"features": names[:4], "dtype": "float32"})
    counted = Counted(monkeypatch)
    dms.predict(bundle, url, tmp_path / "p.zarr")
    assert set(counted.bytes) == set(names[:4])
    assert sum(counted.bytes.values()) <= 1.2 * values[:, :4].nbytes
    hashed = files.read_json(f"{tmp_path}/p.ledger/ids.json")
    assert {Path(key).relative_to(url).parts[0] for key in hashed if key.startswith(url)} == set(names[:4])


def test_what_the_model_does_not_read_may_change(tmp_path: Path) -> None:
    url, values, names = wide(tmp_path)
    model = LinearRegression().fit(values[:, :4], values[:, 0])
    bundle = save_model(model, tmp_path / "m", schema={"features": names[:4], "dtype": "float32"})
    dms.predict(bundle, url, tmp_path / "p.zarr")
    for name, ran in ((names[9], 0), (names[2], 1)):
        block = np.zeros(1000, "float32")
        stores.write_region(url, 1000, {name: block})
        dms.predict(bundle, url, tmp_path / "p.zarr")
        row = dms.last_run()
        assert row is not None
        assert (row.units, row.units - row.reused) == (4, ran)


def test_variables_that_the_model_ignores_are_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url, values, names = wide(tmp_path)
    model = Lasso(0.01).fit(values, values[:, 3] - 2 * values[:, 30])
    assert (model.coef_ != 0).sum() == 2
    bundle = save_model(model, tmp_path / "m", schema={"features": names, "dtype": "float32"})
    plain = dms.predict(bundle, url, tmp_path / "a.zarr")
    counted = Counted(monkeypatch)
    found = dms.predict(bundle, url, tmp_path / "b.zarr", optimise="columns")
    np.testing.assert_allclose(found.prediction.values, plain.prediction.values, rtol=1e-5, atol=1e-5)
    trial = 1000 * 4 * (len(names) + 2)  # the first block in both ways
    assert sum(counted.bytes.values()) == values[:, [3, 30]].nbytes + trial
    assert outcome(tmp_path / "b.zarr")["columns"] == {"way": "columns", "used": True, "max_diff": 0.0, "features": 2}


def test_a_recipe_makes_only_the_features_that_the_model_uses(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tree = {"sklearn.ensemble.HistGradientBoostingClassifier": {"max_iter": 1, "max_depth": 1}}
    run_stage(train(root, estimator=tree))
    bundle = load_model(root / "models" / "m")
    used = [bundle.features[at] for at in bundle.schema["uses"]]
    plain, faster = stage_of(root), stage_of(root, name="q", ledger=f"{root}/q.ledger", optimise=("columns",))
    run_stage(plain)
    result = run_stage(faster)
    assert result.result["optimised"][0]["used"]
    a, b = (stores.open_dataset(stage.out).load() for stage in (plain, faster))
    assert np.array_equal(a.probability, b.probability)
    program = pruned_program(Program.from_dict(bundle.recipe), used)
    assert len(program.steps) < len(Program.from_dict(bundle.recipe).steps)
    assert set(used) <= set(program.features)
    assert plan_of(faster).reused == len(Ledger(faster.ledger).records())


def test_an_unknown_way_and_a_lazy_one_are_refused(data: str, tmp_path: Path) -> None:
    bundle = save_model(LogisticRegression().fit(X, Y), tmp_path / "m", schema=SCHEMA)
    with pytest.raises(UsageError, match="optimise='gpu' is not known; use onnx, columns"):
        dms.predict(bundle, data, tmp_path / "p.zarr", optimise="gpu")
    with pytest.raises(UsageError, match="give out="):
        dms.predict(bundle, data, optimise="onnx")
