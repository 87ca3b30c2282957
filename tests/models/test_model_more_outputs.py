"""Several outputs: probabilities of each, quantiles, embeddings; declared types and codecs; resources."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from model_helpers import NAMES, matrix, write_matrix
from sklearn.decomposition import PCA
from sklearn.ensemble import HistGradientBoostingRegressor, RandomForestClassifier
from sklearn.neighbors import KNeighborsClassifier

import daskml_scale as dms
from daskml_scale.artifacts.bundle import save_model
from daskml_scale.errors import UsageError
from daskml_scale.stages.model_output import Output
from daskml_scale.storage import stores

X, Y = np.nan_to_num(matrix()[0]), matrix()[1]
SCHEMA = {"features": list(NAMES), "dtype": "float32"}


@pytest.fixture
def data(tmp_path: Path) -> str:
    write_matrix(f"{tmp_path}/f.zarr", X, Y, chunk=90)
    return f"{tmp_path}/f.zarr"


def padded(parts: list[np.ndarray]) -> np.ndarray:
    width = max(part.shape[1] for part in parts)
    return np.stack([np.pad(p, [(0, 0), (0, width - p.shape[1])], constant_values=np.nan) for p in parts], axis=1)


@pytest.mark.parametrize("lazy", [True, False])
@pytest.mark.parametrize("classes", [(2, 2), (2, 3)])
def test_probabilities_of_several_outputs(data: str, tmp_path: Path, lazy: bool, classes: tuple[int, int]) -> None:
    targets = np.stack([np.digitize(X[:, at], np.linspace(-0.5, 0.5, n - 1)) for at, n in enumerate(classes)], axis=1)
    model = RandomForestClassifier(5, random_state=0).fit(X, targets)
    bundle = save_model(model, tmp_path / "m", schema=SCHEMA)
    out = None if lazy else tmp_path / "p.zarr"
    found = dms.predict(bundle, data, out, method="predict_proba", schema={"dtype": "float64"})
    assert found.probability.dims == ("row", "output", "class")
    assert found["class"].values.tolist() == list(range(max(classes)))
    np.testing.assert_array_equal(found.probability.values, padded(model.predict_proba(X)))
    assert (found.status.values == 1).all()
    known = found.probability.attrs.get("classes")
    assert known == ([[0, 1], [0, 1, 2]] if classes == (2, 3) else None)


@pytest.mark.parametrize("lazy", [True, False])
def test_several_outputs_of_text_are_codes_of_common_labels(data: str, tmp_path: Path, lazy: bool) -> None:
    targets = np.stack([np.where(X[:, 0] > 0, "up", "down"), np.where(X[:, 1] > 0, "up", "flat")], axis=1)
    model = KNeighborsClassifier(3).fit(X, targets)
    bundle = save_model(model, tmp_path / "m", schema=SCHEMA)
    found = dms.predict(bundle, data, None if lazy else tmp_path / "p.zarr")
    labels = np.asarray(found.prediction.attrs["categories"])
    assert labels.tolist() == ["down", "flat", "up"]
    assert np.array_equal(labels[found.prediction.values], model.predict(X))


def test_quantiles_are_labelled(data: str, tmp_path: Path) -> None:
    xgboost = pytest.importorskip("xgboost")
    levels = [0.1, 0.5, 0.9]
    model = xgboost.XGBRegressor(objective="reg:quantileerror", quantile_alpha=levels, n_estimators=5, n_jobs=1)
    bundle = save_model(model.fit(X, X[:, 0]), tmp_path / "m", schema=SCHEMA)
    found = dms.predict(bundle, data, tmp_path / "p.zarr", schema={"columns": levels, "dim": "quantile"})
    assert found.prediction.dims == ("row", "quantile")
    assert found["quantile"].values.tolist() == levels
    np.testing.assert_allclose(found.sel(quantile=0.9).prediction.values, model.predict(X)[:, 2], rtol=1e-6)


def test_quantiles_of_scikit_learn_are_a_function_of_the_estimator(data: str, tmp_path: Path) -> None:
    model = HistGradientBoostingRegressor(loss="quantile", quantile=0.9, max_iter=3).fit(X, X[:, 0])
    bundle = save_model(model, tmp_path / "m", schema=SCHEMA)

    def both(estimator: Any, X: np.ndarray) -> np.ndarray:
        upper = estimator.predict(X)
        return np.stack([upper, -upper], axis=1)

    found = dms.predict(bundle, data, tmp_path / "p.zarr", method=both, schema={"columns": ["upper", "lower"]})
    np.testing.assert_allclose(found.prediction.values[:, 0], model.predict(X), rtol=1e-6)


def test_embeddings_with_a_declared_type_and_codec(data: str, tmp_path: Path) -> None:
    model = PCA(2).fit(X)
    bundle = save_model(model, tmp_path / "m", schema=SCHEMA)
    kinds = {}
    for codec in ("lz4", "zstd:9", "none"):
        out = tmp_path / f"{codec[:4]}.zarr"
        schema = {"dtype": "float16", "codec": codec}
        found = dms.predict(bundle, data, out, method="transform", schema=schema)
        assert found.embedding.dtype == "float16"
        np.testing.assert_allclose(found.embedding.values, model.transform(X), rtol=2e-3, atol=2e-3)
        kinds[codec] = [repr(one) for one in stores.open_group(str(out))["embedding"].compressors]
    assert "lz4" in kinds["lz4"][0]
    assert "zstd" in kinds["zstd:9"][0]
    assert "clevel=9" in kinds["zstd:9"][0]
    assert len(kinds["none"]) == 1
    assert all("Crc32c" in names[-1] for names in kinds.values())


def test_another_codec_writes_the_whole_output_anew(data: str, tmp_path: Path) -> None:
    bundle = save_model(PCA(2).fit(X), tmp_path / "m", schema=SCHEMA)
    for codec, reused in (("zstd", 0), ("zstd", 4), ("none", 0)):
        dms.predict(bundle, data, tmp_path / "p.zarr", method="transform", schema={"codec": codec})
        row = dms.last_run()
        assert row is not None
        assert (row.units, row.reused) == (4, reused)


@pytest.mark.parametrize("codec", ["gzip", "zstd:99", "zstd:x", "lz4:"])
def test_an_unknown_codec_is_refused(codec: str) -> None:
    with pytest.raises(UsageError, match=r"codec '.*' is not known; use lz4, zstd"):
        Output.of("predict", {}, "float32", {"codec": codec})


def test_a_value_beyond_the_declared_type_is_a_bad_row(data: str, tmp_path: Path) -> None:
    class_free = HistGradientBoostingRegressor(max_iter=3).fit(X, X[:, 0] * 1e6)
    bundle = save_model(class_free, tmp_path / "m", schema=SCHEMA)
    found = dms.predict(bundle, data, tmp_path / "p.zarr", schema={"dtype": "float16"}, max_bad=300)
    with np.errstate(over="ignore"):
        too_large = ~np.isfinite(class_free.predict(X).astype("float16"))
    assert too_large.any()
    assert np.array_equal(found.status.values == 3, too_large)


def test_every_task_asks_for_its_resources(data: str, tmp_path: Path) -> None:
    from distributed import Client, LocalCluster
    from distributed.diagnostics.plugin import SchedulerPlugin

    class Wanted(SchedulerPlugin):
        name = "wanted"

        def __init__(self) -> None:
            self.found: list[Any] = []

        def transition(self, key: Any, start: str, finish: str, *args: Any, **more: Any) -> None:
            task = cluster.scheduler.tasks.get(key)
            if finish == "processing" and task is not None:
                self.found.append(dict(task.resource_restrictions or {}))

    bundle = save_model(PCA(2).fit(X), tmp_path / "m", schema=SCHEMA)
    with (
        LocalCluster(
            n_workers=1, threads_per_worker=1, processes=False, resources={"GPU": 1}, dashboard_address=None
        ) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        cluster.scheduler.add_plugin(wanted := Wanted())
        found = dms.predict(bundle, data, tmp_path / "p.zarr", method="transform", client=client, resources={"GPU": 1})
        assert (found.status.values == 1).all()
    assert {"GPU": 1} in wanted.found
