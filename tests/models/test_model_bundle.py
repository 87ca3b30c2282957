from __future__ import annotations

import hashlib
import io
import json
import os
import pickle
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import skops.io
from model_helpers import Fragile, matrix
from sklearn.calibration import CalibratedClassifierCV
from sklearn.ensemble import (
    BaggingClassifier,
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
)
from sklearn.linear_model import LogisticRegression, SGDClassifier
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from daskml_scale.artifacts.bundle import Bundle, dump, load_model, save_model
from daskml_scale.artifacts.canonical import canonical
from daskml_scale.errors import StoreError, UntrustedError, UsageError

ESTIMATORS: dict[str, Any] = {
    "hist": HistGradientBoostingClassifier(max_iter=8, random_state=0),
    "forest": RandomForestClassifier(5, random_state=0),
    "pipeline": Pipeline([("scale", StandardScaler()), ("model", LogisticRegression())]),
    "boosting": GradientBoostingClassifier(n_estimators=3, random_state=0),
    "bagging": BaggingClassifier(n_estimators=3, random_state=0),
    "calibrated": CalibratedClassifierCV(LogisticRegression(), cv=3),
    "neighbours": KNeighborsClassifier(),
    "network": MLPClassifier((4,), solver="lbfgs", max_iter=500, random_state=0),
    "sgd": SGDClassifier(random_state=0),
    "svc": SVC(),
}


def fitted(name: str) -> Any:
    X, y = matrix()
    return ESTIMATORS[name].fit(np.nan_to_num(X), y)


@pytest.mark.parametrize("name", ESTIMATORS)
def test_a_saved_model_loads_and_predicts_the_same(name: str, tmp_path: Path) -> None:
    X = np.nan_to_num(matrix()[0])
    estimator = fitted(name)
    save_model(estimator, tmp_path / "m")
    loaded = load_model(tmp_path / "m")
    assert np.array_equal(loaded.predict(X), estimator.predict(X))
    if hasattr(estimator, "predict_proba"):
        assert np.array_equal(loaded.predict_proba(X), estimator.predict_proba(X))
    assert loaded.classes == (0.0, 1.0)


def test_models_trained_in_two_processes_have_equal_files() -> None:
    script = (
        "import sys, random, hashlib; junk = [bytearray(random.randrange(4000)) for _ in range(500)]\n"
        "from test_model_bundle import ESTIMATORS, fitted, dump\n"
        "for name in ESTIMATORS: print(name, hashlib.sha256(dump(fitted(name))).hexdigest())\n"
    )
    started = [
        subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", script],
            cwd=Path(__file__).parent, env={**os.environ, "PYTHONHASHSEED": seed, "OMP_NUM_THREADS": threads},
            stdout=subprocess.PIPE, text=True,
        )
        for seed, threads in (("1", "1"), ("2", "2"))
    ]  # fmt: skip
    outputs = [process.communicate()[0].splitlines() for process in started]
    assert [process.returncode for process in started] == [0, 0]
    assert len(outputs[0]) == len(ESTIMATORS)
    assert outputs[0] == outputs[1]


@pytest.mark.parametrize("name", ["hist", "forest", "pipeline"])
def test_raw_skops_files_differ_where_canonical_ones_are_equal(name: str) -> None:
    estimator = fitted(name)
    one, two = skops.io.dumps(estimator), skops.io.dumps(pickle.loads(pickle.dumps(estimator)))
    assert one != two
    assert canonical(one) == canonical(two) == canonical(canonical(one))


def test_a_model_that_differs_in_one_number_has_another_file() -> None:
    estimator = fitted("pipeline")
    before = dump(estimator)
    intercept = estimator["model"].intercept_
    intercept[0] = np.nextafter(intercept[0], intercept.dtype.type(1))
    assert dump(estimator) != before


def test_sets_bytes_dicts_and_shared_objects_survive_canonicalisation() -> None:
    shared = np.arange(4.0)
    shared_list = [shared, "x"]
    content = {
        "__id__": {"file": "text", "__loader__": "DictNode"},
        "set": {"red", "green", "blue", "violet"},
        "raw": b"\x00\x01",
        "one": shared_list,
        "two": shared_list,
        3: (1, 2.5, None, True),
    }
    data = canonical(skops.io.dumps(content))
    assert data == canonical(skops.io.dumps(pickle.loads(pickle.dumps(content))))
    loaded = skops.io.loads(data)
    assert loaded["one"] is loaded["two"]
    assert np.array_equal(loaded["one"][0], shared)
    assert {key: loaded[key] for key in ("__id__", "set", "raw", 3)} == {
        key: content[key] for key in ("__id__", "set", "raw", 3)
    }


def test_padding_of_structured_arrays_is_zeroed() -> None:
    kind = np.dtype([("flag", "u1"), ("value", "f8")], align=True)
    dirty = np.full(3 * kind.itemsize, 255, dtype="u1").view(kind)
    clean = np.zeros(3, dtype=kind)
    for array in (dirty, clean):
        array["flag"], array["value"] = [1, 2, 3], [0.5, 1.5, 2.5]
    assert skops.io.dumps(dirty) != skops.io.dumps(clean)
    assert canonical(skops.io.dumps(dirty)) == canonical(skops.io.dumps(clean))


def test_the_bundle_holds_recipe_schema_and_training(tmp_path: Path) -> None:
    recipe = {"steps": [{"keep": {"of": ["a"]}}], "fitted": [1, 2]}
    schema = {"features": list("abcd"), "dtype": "float32", "target": "late"}
    save_model(fitted("hist"), tmp_path / "m", recipe=recipe, schema=schema, training={"rows": 300})
    bundle = load_model(tmp_path / "m")
    assert bundle.recipe == recipe
    assert bundle.features == tuple("abcd")
    assert {**bundle.schema, "outputs": {}} == {**schema, "classes": [0.0, 1.0], "outputs": {}}
    assert bundle.training == {"rows": 300}
    stored = json.loads((tmp_path / "m" / "bundle.json").read_text())
    assert stored["sha256"] == hashlib.sha256((tmp_path / "m" / "model.skops").read_bytes()).hexdigest()
    assert str(tmp_path) not in (tmp_path / "m" / "bundle.json").read_text()
    assert {"python", "scikit-learn", "skops", "numpy", "daskml-scale"} <= set(stored["versions"])


def test_saving_the_same_model_again_writes_nothing(tmp_path: Path) -> None:
    estimator = fitted("hist")
    save_model(estimator, tmp_path / "m")
    before = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "m").iterdir()}
    save_model(estimator, tmp_path / "m")
    assert {path.name: path.stat().st_mtime_ns for path in (tmp_path / "m").iterdir()} == before
    assert set(before) == {"model.skops", "bundle.json"}


def test_saving_another_model_replaces_the_current_one(tmp_path: Path) -> None:
    first = save_model(fitted("hist"), tmp_path / "m")
    second = save_model(fitted("forest"), tmp_path / "m")
    assert first.sha256 != second.sha256
    assert load_model(tmp_path / "m").sha256 == second.sha256
    with pytest.raises(UntrustedError, match="the bundle names"):
        _ = first.estimator  # the file is no longer the one that this bundle was opened on


def test_a_folder_of_something_else_is_not_written_into(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UsageError, match=r"notes\.txt"):
        save_model(fitted("hist"), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_an_altered_model_file_is_refused(tmp_path: Path) -> None:
    save_model(fitted("hist"), tmp_path / "m")
    file = tmp_path / "m" / "model.skops"
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(bytes(data))
    with pytest.raises(UntrustedError, match="altered"):
        load_model(tmp_path / "m")


def test_a_model_file_altered_after_opening_is_refused_on_use(tmp_path: Path) -> None:
    save_model(fitted("hist"), tmp_path / "m")
    bundle = load_model(tmp_path / "m")
    (tmp_path / "m" / "model.skops").write_bytes(dump(fitted("forest")))
    with pytest.raises(UntrustedError, match="altered"):
        bundle.predict(matrix()[0])


def test_a_type_that_is_not_known_is_refused_until_it_is_named(tmp_path: Path) -> None:
    X, y = matrix()
    saved = save_model(Fragile().fit(X, y), tmp_path / "m")
    with pytest.raises(UntrustedError, match=r'model_helpers\.Fragile.*trusted=\["model_helpers\.Fragile"\]'):
        load_model(tmp_path / "m")
    for trusted in (["model_helpers.Fragile"], [Fragile]):
        assert load_model(tmp_path / "m", trusted=trusted).estimator.limit == 2.0
    assert saved.estimator.limit == 2.0


def test_a_smuggled_function_is_refused(tmp_path: Path) -> None:
    bundle = save_model(fitted("pipeline"), tmp_path / "m")
    data = (tmp_path / "m" / "model.skops").read_bytes()
    with zipfile.ZipFile(io.BytesIO(data)) as source:
        schema = source.read("schema.json").replace(b"StandardScaler", b"system", 1)
        schema = schema.replace(b"sklearn.preprocessing._data", b"os", 1)
        files = {name: source.read(name) for name in source.namelist()}
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as target:
        for name, content in {**files, "schema.json": schema}.items():
            target.writestr(name, content)
    manifest = {**bundle.manifest, "sha256": hashlib.sha256(buffer.getvalue()).hexdigest()}
    (tmp_path / "m" / "model.skops").write_bytes(buffer.getvalue())
    (tmp_path / "m" / "bundle.json").write_text(json.dumps(manifest))
    with pytest.raises(UntrustedError, match=r"os\.system"):
        load_model(tmp_path / "m")


def test_a_pickle_in_place_of_the_model_is_refused_without_running_it(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> Any:
            return Path.touch, (tmp_path / "boom",)

    bundle = save_model(fitted("hist"), tmp_path / "m")
    data = pickle.dumps(Bomb())
    (tmp_path / "m" / "model.skops").write_bytes(data)
    manifest = {**bundle.manifest, "sha256": hashlib.sha256(data).hexdigest()}
    (tmp_path / "m" / "bundle.json").write_text(json.dumps(manifest))
    with pytest.raises(UntrustedError, match="not a model file"):
        load_model(tmp_path / "m")
    assert not (tmp_path / "boom").exists()


def test_what_is_no_bundle_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"there is no bundle\.json"):
        load_model(tmp_path / "absent")
    (tmp_path / "theirs.joblib").write_bytes(b"")
    with pytest.raises(StoreError, match=r"theirs\.joblib is a file, and a model bundle is a folder: write one by"):
        load_model(tmp_path / "theirs.joblib")
    save_model(fitted("hist"), tmp_path / "m")
    manifest = json.loads((tmp_path / "m" / "bundle.json").read_text())
    (tmp_path / "m" / "bundle.json").write_text(json.dumps({**manifest, "format": 99}))
    with pytest.raises(StoreError, match="format 99, expected 1"):
        load_model(tmp_path / "m")
    (tmp_path / "m" / "bundle.json").write_text(json.dumps(manifest))
    (tmp_path / "m" / "model.skops").unlink()
    with pytest.raises(StoreError, match=r"model\.skops is missing"):
        load_model(tmp_path / "m")


def test_an_estimator_that_skops_cannot_save_is_a_usage_error(tmp_path: Path) -> None:
    estimator = fitted("pipeline")
    estimator.note = (number for number in range(3))
    with pytest.raises(UsageError, match="without pickle"):
        save_model(estimator, tmp_path / "m")
    assert not (tmp_path / "m").exists()


def test_a_matrix_of_another_width_is_refused_with_both_shapes(tmp_path: Path) -> None:
    bundle = save_model(fitted("hist"), tmp_path / "m")
    with pytest.raises(UsageError, match=r"\(rows, 4\), not \(3, 2\)"):
        bundle.predict(np.zeros((3, 2)))


def test_a_data_frame_is_taken_by_column_name(tmp_path: Path) -> None:
    import pandas as pd

    X, y = matrix()
    frame = pd.DataFrame(X, columns=list("abcd"))
    bundle = save_model(HistGradientBoostingRegressor(max_iter=5, random_state=0).fit(frame, y), tmp_path / "m")
    assert bundle.classes == ()
    assert np.array_equal(bundle.predict(frame[list("dcba")]), bundle.predict(X))
    with pytest.raises(UsageError, match=r"needs columns \['b'\]"):
        bundle.predict(frame[["a", "c", "d"]])


def test_a_method_that_the_estimator_lacks_is_named(tmp_path: Path) -> None:
    bundle = save_model(fitted("svc"), tmp_path / "m")
    with pytest.raises(UsageError, match="no method 'predict_proba'; it has predict, decision_function"):
        bundle.predict_proba(matrix()[0])


def test_reprs_say_what_it_is_and_escape_text(tmp_path: Path) -> None:
    schema = {"features": ["<b>a</b>", "b", "c", "d"]}
    bundle = save_model(fitted("hist"), tmp_path / "m", schema=schema, training={"rows": 300})
    assert "HistGradientBoostingClassifier" in repr(bundle)
    assert bundle.sha256[:12] in repr(bundle)
    assert "&lt;b&gt;a&lt;/b&gt;" in bundle._repr_html_()
    assert "<b>a</b>" not in bundle._repr_html_()


def test_a_pickled_bundle_travels_without_its_estimator(tmp_path: Path) -> None:
    bundle = save_model(fitted("forest"), tmp_path / "m")
    _ = bundle.estimator
    data = pickle.dumps(bundle)
    assert len(data) < 2000
    clone = pickle.loads(data)
    assert isinstance(clone, Bundle)
    assert "estimator" not in clone.__dict__
    assert clone.sha256 == bundle.sha256


def test_a_bundle_in_memory_works_in_this_process() -> None:
    X = matrix()[0]
    estimator = fitted("hist")
    save_model(estimator, "memory://bundle-test/m")
    assert np.array_equal(load_model("memory://bundle-test/m").predict(X), estimator.predict(X))
