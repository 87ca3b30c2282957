"""Kinds of models beside scikit-learn's: saved, refused where untrusted, and equal to one call whatever the chunks."""

from __future__ import annotations

import hashlib
import io
import json
import pickle
import zipfile
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest
import xarray as xr
from model_helpers import NAMES, BatchMean, Tiny, matrix, write_matrix
from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor
from sklearn.linear_model import LinearRegression, LogisticRegression

import daskml_scale as dms
from daskml_scale.artifacts.bundle import Bundle, load_model, save_model
from daskml_scale.artifacts.registry import Registry
from daskml_scale.engine.worker import Cache, WorkerContext
from daskml_scale.errors import UntrustedError, UsageError
from daskml_scale.stages.predict import PredictStage
from daskml_scale.stages.run import run_stage

X, Y = np.nan_to_num(matrix()[0]), matrix()[1]
SCHEMA = {"features": list(NAMES), "dtype": "float32"}


def sha(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def xgb_classifier(folder: Path) -> tuple[Bundle, np.ndarray]:
    xgboost = pytest.importorskip("xgboost")
    model = xgboost.XGBClassifier(n_estimators=5, n_jobs=1).fit(X, Y.astype(int) + (X[:, 2] > 1))
    return save_model(model, folder, schema=SCHEMA), model.predict_proba(X)


def xgb_booster(folder: Path) -> tuple[Bundle, np.ndarray]:
    xgboost = pytest.importorskip("xgboost")
    booster = xgboost.train({"nthread": 1}, xgboost.DMatrix(X, Y), 5)
    return save_model(booster, folder, schema=SCHEMA), booster.predict(xgboost.DMatrix(X))


def onnx_file(path: Path, model: Any) -> Path:
    pytest.importorskip("skl2onnx")
    pytest.importorskip("onnxruntime")
    from skl2onnx import to_onnx

    path.write_bytes(to_onnx(model, X[:1]).SerializeToString())
    return path


def onnx_classifier(folder: Path) -> tuple[Bundle, np.ndarray]:
    model = RandomForestClassifier(5, random_state=0).fit(X, Y)
    path = onnx_file(folder.with_suffix(".onnx"), model)
    return save_model(path, folder, schema=SCHEMA), model.predict_proba(X)


def onnx_regressor(folder: Path) -> tuple[Bundle, np.ndarray]:
    model = RandomForestRegressor(5, random_state=0).fit(X, X[:, 0])
    path = onnx_file(folder.with_suffix(".onnx"), model)
    return save_model(path, folder, schema=SCHEMA), model.predict(X)


def torch_module(folder: Path) -> tuple[Bundle, np.ndarray]:
    torch = pytest.importorskip("torch")
    from torch_helpers import Net

    torch.manual_seed(0)
    net = Net(hidden=3).eval()
    return save_model(net, folder, schema=SCHEMA, params={"hidden": 3}), net(torch.as_tensor(X)).detach().numpy()[:, 0]


def torch_program(folder: Path) -> tuple[Bundle, np.ndarray]:
    torch = pytest.importorskip("torch")
    from torch_helpers import Net

    torch.manual_seed(0)
    net = Net(hidden=3).eval()
    rows = {0: torch.export.Dim("rows", min=1, max=10**9)}
    program = torch.export.export(net, (torch.as_tensor(X[:7]),), dynamic_shapes=(rows,))
    return save_model(program, folder, schema=SCHEMA), net(torch.as_tensor(X)).detach().numpy()[:, 0]


def user_class(folder: Path) -> tuple[Bundle, np.ndarray]:
    data = folder.with_suffix(".weights")
    data.mkdir()
    np.save(data / "w.npy", np.arange(1.0, 5.0))
    return save_model(BatchMean, folder, schema=SCHEMA, data=data), X.astype("float64") @ np.arange(1.0, 5.0)


def pickled(folder: Path) -> tuple[Bundle, np.ndarray]:
    path = folder.with_suffix(".pkl")
    model = LinearRegression().fit(X, X[:, 0])
    path.write_bytes(pickle.dumps(model))
    return save_model(path, folder, schema=SCHEMA, trust=sha(path)), model.predict(X)


def joblib_file(folder: Path) -> tuple[Bundle, np.ndarray]:
    path = folder.with_suffix(".joblib")
    model = LinearRegression().fit(X, X[:, 0])
    joblib.dump(model, path, compress=3)
    return save_model(path, folder, schema=SCHEMA, trust=sha(path)), model.predict(X)


def forest(folder: Path) -> tuple[Bundle, np.ndarray]:
    model = RandomForestClassifier(5, random_state=0).fit(X, Y)
    return save_model(model, folder, schema=SCHEMA), model.predict_proba(X)


KINDS = [
    forest, xgb_classifier, xgb_booster, onnx_classifier, onnx_regressor, torch_module, torch_program, user_class,
    pickled, joblib_file,
]  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("chunk", [1, 37, 300])
def test_every_kind_predicts_as_one_call_whatever_the_chunks(kind: Any, chunk: int, tmp_path: Path) -> None:
    bundle, expected = kind(tmp_path / "m")
    rows = 300 if chunk > 1 else 12
    write_matrix(f"{tmp_path}/f.zarr", X[:rows], Y[:rows], chunk=chunk)
    method = "predict_proba" if expected.ndim == 2 else "predict"
    expected = expected[:rows].astype("float32")
    found = dms.predict(bundle, f"{tmp_path}/f.zarr", tmp_path / "p.zarr", method=method)
    values = found["probability" if expected.ndim == 2 else "prediction"].values
    np.testing.assert_allclose(values, expected, rtol=1e-5, atol=1e-6)
    assert (found.status.values == 1).all()


@pytest.mark.parametrize("kind", KINDS)
def test_a_bundle_opens_again_and_is_registered_with_its_file(kind: Any, tmp_path: Path) -> None:
    bundle, expected = kind(tmp_path / "m")
    Registry(str(tmp_path / "store")).register("m", bundle.path, now=0.0, champion=True)
    again = load_model(
        f"{tmp_path}/store/registry/m@champion",
        trusted=[name for name in bundle.trusted if not name.startswith("sha256:")],
        trust=next((name for name in bundle.trusted if name.startswith("sha256:")), None),
    )
    found = again.predict_proba(X) if expected.ndim == 2 else again.predict(X)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    assert bundle.kind in repr(bundle) or bundle.kind == "skops"


class Started:
    """A client that counts how often it is asked for: a refused model must start no worker."""

    def __init__(self) -> None:
        self.times = 0

    def __call__(self) -> None:
        self.times += 1


def refused(bundle: Bundle, tmp_path: Path, match: str) -> None:
    """Check that neither opening the bundle nor a stage that predicts with it goes on, and that no worker starts."""
    write_matrix(f"{tmp_path}/f.zarr", X, Y)
    with pytest.raises(UntrustedError, match=match):
        load_model(bundle.path)
    started = Started()
    stage = PredictStage("p", f"{tmp_path}/p.ledger", f"{tmp_path}/f.zarr", bundle.path)
    with pytest.raises(UntrustedError, match=match):
        run_stage(stage, client=started)
    assert not started.times
    assert not (tmp_path / "p.zarr").exists()


def test_a_pickle_without_trust_is_refused_before_a_worker_starts(tmp_path: Path) -> None:
    path = tmp_path / "m.pkl"
    path.write_bytes(pickle.dumps(LinearRegression().fit(X, Y)))
    with pytest.raises(UntrustedError, match=r"m\.pkl is a pickle, which runs code .*pass trust="):
        save_model(path, tmp_path / "m", schema=SCHEMA)
    bundle = save_model(path, tmp_path / "m", schema=SCHEMA, trust=sha(path))
    refused(bundle, tmp_path, "is a pickle, which runs code")


def test_another_pickle_than_the_pinned_one_is_never_unpickled(tmp_path: Path) -> None:
    good, evil = tmp_path / "good.pkl", tmp_path / "evil.pkl"
    good.write_bytes(pickle.dumps(LinearRegression().fit(X, Y)))

    class Evil:
        def __reduce__(self) -> Any:
            return Path.touch, (tmp_path / "ran",)

    evil.write_bytes(pickle.dumps(Evil()))
    with pytest.raises(UntrustedError, match="another file than the one that you trust"):
        save_model(evil, tmp_path / "m", schema=SCHEMA, trust=sha(good))
    bundle = save_model(good, tmp_path / "m", schema=SCHEMA, trust=sha(good))
    (tmp_path / "m" / "model.pkl").write_bytes(evil.read_bytes())
    with pytest.raises(UntrustedError, match="the file was altered"):
        load_model(bundle.path, trust=sha(good))
    manifest = tmp_path / "m" / "bundle.json"
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "sha256": sha(evil)}))
    with pytest.raises(UntrustedError, match="another file than the one that you trust"):
        load_model(bundle.path, trust=sha(good))
    assert not (tmp_path / "ran").exists()
    with pytest.raises(UsageError, match="is no SHA-256"):
        load_model(bundle.path, trust="yes")


def test_a_class_that_nobody_named_is_refused(tmp_path: Path) -> None:
    bundle, _ = user_class(tmp_path / "m")
    refused(bundle, tmp_path, r'loaded by model_helpers\.BatchMean.*trusted=\["model_helpers\.BatchMean"\]')
    load_model(bundle.path, trusted=[BatchMean])


def test_an_archive_that_leads_out_of_its_folder_is_refused(tmp_path: Path) -> None:
    bundle, _ = user_class(tmp_path / "m")
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("../outside", b"x")
    _replace(bundle, "model.zip", out.getvalue())
    with pytest.raises(UntrustedError, match=r"names '\.\./outside', which leads out"):
        load_model(bundle.path, trusted=[BatchMean])


def _replace(bundle: Bundle, name: str, data: bytes) -> None:
    """Put another file into a bundle whose manifest names its hash, as an attacker would."""
    folder = Path(bundle.path)
    (folder / name).write_bytes(data)
    manifest = json.loads((folder / "bundle.json").read_text())
    (folder / "bundle.json").write_text(json.dumps({**manifest, "sha256": hashlib.sha256(data).hexdigest()}))


@pytest.mark.parametrize("place", ["../../secret", "/etc/passwd", "weights.bin"])
def test_external_data_of_an_onnx_file_is_refused(place: str, tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    bundle, _ = onnx_regressor(tmp_path / "m")
    graph = onnx.load(str(tmp_path / "m.onnx"))
    tensor = graph.graph.initializer.add() if not graph.graph.initializer else graph.graph.initializer[0]
    tensor.name, tensor.data_type, tensor.data_location = "w", onnx.TensorProto.FLOAT, onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=place)
    outside = tmp_path / "escape.onnx"
    outside.write_bytes(graph.SerializeToString())
    with pytest.raises(UntrustedError, match=f"lies in another file, '{place}'"):
        save_model(outside, tmp_path / "other", schema=SCHEMA)
    _replace(bundle, "model.onnx", graph.SerializeToString())
    refused(bundle, tmp_path, f"lies in another file, '{place}'")


def test_external_data_hidden_in_a_subgraph_is_found(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    tensor = onnx.TensorProto(name="w", data_type=1, data_location=onnx.TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value="../x")
    constant = onnx.helper.make_node("Constant", [], ["c"], value=tensor)
    inner = onnx.helper.make_graph([constant], "inner", [], [])
    outer = onnx.helper.make_graph([onnx.helper.make_node("If", ["b"], ["y"], then_branch=inner)], "outer", [], [])
    path = tmp_path / "m.onnx"
    path.write_bytes(onnx.helper.make_model(outer).SerializeToString())
    with pytest.raises(UntrustedError, match=r"lies in another file, '\.\./x'"):
        save_model(path, tmp_path / "m", schema=SCHEMA)


@pytest.mark.parametrize("kind", [xgb_classifier, onnx_classifier])
@pytest.mark.parametrize("harm", ["tampered", "truncated"])
def test_a_harmed_file_is_refused(kind: Any, harm: str, tmp_path: Path) -> None:
    bundle, _ = kind(tmp_path / "m")
    (path,) = [path for path in Path(bundle.path).iterdir() if path.name != "bundle.json"]
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2] if harm == "truncated" else data[:-1] + bytes([data[-1] ^ 1]))
    refused(bundle, tmp_path, "the file was altered, or a save was cut short")


@pytest.mark.parametrize(("kind", "name"), [(xgb_classifier, "model.ubj"), (onnx_classifier, "model.onnx")])
def test_a_file_of_another_kind_is_refused_with_the_reason(kind: Any, name: str, tmp_path: Path) -> None:
    bundle, _ = kind(tmp_path / "m")
    _replace(bundle, name, b"not a model")
    with pytest.raises(UntrustedError, match=f"{name} is no "):
        load_model(bundle.path).load()


def test_what_is_given_wrongly_is_refused_with_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="name what its load takes by data="):
        save_model(BatchMean, tmp_path / "m", schema=SCHEMA)
    with pytest.raises(UsageError, match="no model file that is known; give one of"):
        save_model(tmp_path / "m.bin", tmp_path / "m")
    with pytest.raises(UsageError, match="does not exist"):
        save_model(tmp_path / "m.onnx", tmp_path / "m")
    with pytest.raises(UsageError, match="data= is for a class"):
        save_model(LinearRegression().fit(X, Y), tmp_path / "m", data=tmp_path)
    with pytest.raises(UsageError, match="pins the hash of a file"):
        save_model(LinearRegression().fit(X, Y), tmp_path / "m", trust="0" * 64)
    assert not (tmp_path / "m").exists()


def test_equal_models_give_equal_bundles_of_every_kind(tmp_path: Path) -> None:
    for kind in (xgb_booster, user_class):
        first, _ = kind(tmp_path / f"a-{kind.__name__}")
        second, _ = kind(tmp_path / f"b-{kind.__name__}")
        assert first.sha256 == second.sha256


def test_a_model_is_loaded_once_and_warmed_up(tmp_path: Path) -> None:
    from daskml_scale.stages.predicting import asked_of

    bundle, _ = user_class(tmp_path / "m")
    cache = Cache()
    model = asked_of(bundle, "predict", None, "float32")
    worker = WorkerContext(cache=cache)
    for _ in range(3):
        model.values(lambda start, stop: X[start:stop], len(X), worker, 0)
    assert cache.loads == 1
    assert model.estimator(cache).model.batches == [1, 300, 300, 300]


def test_a_fitted_object_predicts_without_a_bundle(tmp_path: Path) -> None:
    model = LogisticRegression().fit(X, Y)
    write_matrix(f"{tmp_path}/f.zarr", X, Y, names=("x0", "x1", "x2", "x3"))
    found = dms.predict(model, f"{tmp_path}/f.zarr", tmp_path / "p.zarr", method="predict_proba")
    np.testing.assert_allclose(found.probability.values, model.predict_proba(X), rtol=1e-3)
    lazy = dms.predict(model, f"{tmp_path}/f.zarr", method="predict_proba")
    xr.testing.assert_allclose(found.drop_attrs(), lazy.drop_attrs())


def test_a_class_of_main_is_refused(tmp_path: Path) -> None:
    Tiny.__module__ = "__main__"
    try:
        with pytest.raises(UsageError, match="cannot be loaded by another process"):
            save_model(Tiny, tmp_path / "m", data=tmp_path)
    finally:
        Tiny.__module__ = "model_helpers"
