"""Predictions of cells of N-dimensional variables: equal to one call, whatever the chunks; lazy and written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.linear_model import LinearRegression, LogisticRegression

import daskml_scale as dms
from daskml_scale.artifacts.bundle import Bundle, load_model, save_model
from daskml_scale.errors import DaskMLError, UnitsFailedError, UsageError
from daskml_scale.stages.cubes import Cells, decoded, decoding
from daskml_scale.stages.predicting import predict
from daskml_scale.storage import stores
from daskml_scale.storage.backend import Backend
from daskml_scale.storage.ledger import Ledger

SHAPE = (5, 4, 6)


def cube(seed: int = 0) -> xr.Dataset:
    rng = np.random.default_rng(seed)
    return xr.Dataset(
        {
            "temp": (("time", "lat", "lon"), rng.normal(size=SHAPE).astype("float32")),
            "wind": (("time", "lat", "lon"), rng.normal(size=SHAPE).astype("float32")),
            "height": (("lon", "lat"), rng.normal(size=SHAPE[:0:-1]).astype("float32")),
        },
        coords={"lat": np.linspace(40, 50, 4), "time": np.datetime64("2020-01-01", "ns") + np.arange(5)},
    )


def stacked(ds: xr.Dataset, names: list[str]) -> np.ndarray:
    whole = [ds[name].broadcast_like(ds.temp).transpose("time", "lat", "lon").values.ravel() for name in names]
    return np.stack(whole, axis=1)


def written(path: Path, ds: xr.Dataset, chunks: tuple[int, ...] = (2, 4, 3), **encoding: Any) -> str:
    sizes = dict(zip(("time", "lat", "lon"), chunks, strict=True))
    made = {name: {"chunks": [sizes[str(dim)] for dim in ds[name].dims]} for name in ds.data_vars}
    for name, more in encoding.items():
        made[name].update(more)
    ds.to_zarr(path, encoding=made, consolidated=False, mode="w")
    return str(path)


def regressor(width: int = 3) -> Any:
    rng = np.random.default_rng(1)
    X = rng.normal(size=(200, width))
    return HistGradientBoostingRegressor(max_iter=5, random_state=0).fit(X, X[:, 0] - X[:, -1])


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    schema = {"features": ["temp", "wind", "height"], "dtype": "float32"}
    return save_model(regressor(), tmp_path / "model", schema=schema)


@pytest.mark.parametrize("chunks", [(2, 4, 3), (5, 4, 6), (1, 1, 1), (3, 3, 5)])
@pytest.mark.parametrize("place", ["memory", "lazy", "written"])
def test_cells_are_predicted_as_one_matrix_is_whatever_the_chunks(
    bundle: Bundle, tmp_path: Path, chunks: tuple[int, ...], place: str
) -> None:
    ds = cube()
    expected = bundle.predict(stacked(ds, ["temp", "wind", "height"])).reshape(SHAPE)
    url = written(tmp_path / "cube.zarr", ds, chunks)
    if place == "memory":
        found = dms.predict(bundle, ds, schema={"dtype": "float64"})
    elif place == "lazy":
        found = dms.predict(bundle, xr.open_zarr(url, consolidated=False), schema={"dtype": "float64"})
        assert hasattr(found.prediction.data, "dask")
    else:
        found = dms.predict(bundle, url, tmp_path / "p.zarr", schema={"dtype": "float64"})
        assert found.prediction.data.chunksize == chunks
    assert found.prediction.dims == found.status.dims == ("time", "lat", "lon")
    np.testing.assert_array_equal(found.prediction.values, expected)
    assert (found.status.values == 1).all()
    for name in ("lat", "time"):
        assert np.array_equal(found[name].values, ds[name].values)
    assert found.attrs["model_sha256"] == bundle.sha256


def test_probabilities_have_a_class_behind_the_cells(tmp_path: Path) -> None:
    ds = cube()
    X = stacked(ds, ["wind", "temp"])
    estimator = LogisticRegression().fit(X, np.digitize(X[:, 0], [-0.5, 0.5]))
    bundle = save_model(estimator, tmp_path / "model")
    url = written(tmp_path / "cube.zarr", ds)
    expected = estimator.predict_proba(X).reshape(*SHAPE, 3)
    for out in (None, tmp_path / "p.zarr"):
        found = predict(bundle, url, out, method="predict_proba", inputs=["wind", "temp"], schema={"dtype": "float64"})
        assert found.probability.dims == ("time", "lat", "lon", "class")
        assert found["class"].values.tolist() == [0, 1, 2]
        np.testing.assert_allclose(found.probability.values, expected, rtol=1e-5)


@pytest.mark.parametrize("place", ["memory", "lazy", "written"])
def test_a_window_adds_the_neighbours_and_nothing_beyond_the_edge(tmp_path: Path, place: str) -> None:
    ds = cube()[["temp"]]
    bundle = save_model(regressor(9), tmp_path / "model")
    padded = np.pad(ds.temp.values, [(0, 0), (1, 1), (1, 1)], constant_values=np.nan)
    shifted = [padded[:, lat : lat + 4, lon : lon + 6].ravel() for lat in range(3) for lon in range(3)]
    expected = bundle.predict(np.stack(shifted, axis=1)).reshape(SHAPE)
    url = written(tmp_path / "cube.zarr", ds, (2, 2, 3))
    data = {"memory": ds, "lazy": xr.open_zarr(url, consolidated=False), "written": url}[place]
    out = tmp_path / "p.zarr" if place == "written" else None
    options = {"inputs": ["temp"], "window": {"lat": 1, "lon": 1}, "schema": {"dtype": "float64"}}
    found = predict(bundle, data, out, **options)  # type: ignore[arg-type]
    np.testing.assert_array_equal(found.prediction.values, expected)


def test_packed_values_and_fills_are_decoded_as_xarray_does(tmp_path: Path) -> None:
    ds = cube()
    ds["temp"][0, 1, 2] = np.nan
    packed = {"dtype": "int16", "scale_factor": 0.01, "add_offset": 1.0, "_FillValue": -999}
    url = written(tmp_path / "cube.zarr", ds, temp=packed, wind={"_FillValue": np.float32(7.5)})
    bundle = save_model(regressor(2), tmp_path / "model")
    lazy = predict(bundle, url, inputs=["temp", "wind"]).load()
    found = predict(bundle, url, tmp_path / "p.zarr", inputs=["temp", "wind"]).load()
    np.testing.assert_allclose(found.prediction, lazy.prediction, rtol=1e-5)
    assert float(found.prediction[0, 1, 2]) == bundle.predict([[np.nan, float(ds.wind[0, 1, 2])]]).astype("float32")


def test_a_cell_without_any_input_stays_missing_and_is_not_bad(tmp_path: Path) -> None:
    ds = cube()
    for name in ("temp", "wind"):
        ds[name][:, 1:3, 0] = np.nan
    X = stacked(ds, ["temp", "wind"])
    sea = np.isnan(X).any(axis=1)
    estimator = LinearRegression().fit(X[~sea], X[~sea][:, 0])  # refuses missing values
    bundle = save_model(estimator, tmp_path / "model")
    url = written(tmp_path / "cube.zarr", ds)
    for out in (None, tmp_path / "p.zarr"):
        found = predict(bundle, url, out, inputs=["temp", "wind"]).load()
        assert np.array_equal(found.status.values.ravel() == 0, sea)
        assert np.array_equal(np.isnan(found.prediction.values.ravel()), sea)
        np.testing.assert_allclose(
            found.prediction.values.ravel()[~sea], estimator.predict(X[~sea]), rtol=1e-4, atol=1e-6
        )


def test_bad_cells_are_named_by_their_place_and_counted(tmp_path: Path) -> None:
    ds = cube()
    ds["temp"][3, 2, 4], ds["wind"][4, 0, 5] = np.inf, np.nan
    X = stacked(cube(), ["temp", "wind"])
    bundle = save_model(LinearRegression().fit(X, X[:, 0]), tmp_path / "model")
    url = written(tmp_path / "cube.zarr", ds)
    with pytest.raises(
        UnitsFailedError, match=r"2 of 120 cells .*cell \(time 3, lat 2, lon 4\): ValueError: .*infinity"
    ):
        predict(bundle, url, tmp_path / "p.zarr", inputs=["temp", "wind"])
    found = predict(bundle, url, tmp_path / "p.zarr", inputs=["temp", "wind"], max_bad=2).load()
    assert np.argwhere(found.status.values == 3).tolist() == [[3, 2, 4], [4, 0, 5]]
    with pytest.raises(DaskMLError, match="cannot be predicted"):
        predict(bundle, url, inputs=["temp", "wind"]).load()
    with pytest.raises(DaskMLError, match="cannot be predicted"):
        predict(bundle, url, tmp_path / "q.zarr", inputs=["temp", "wind"], on_error="raise")


def runs(out: Path) -> set[str]:
    """Keys of the units that the last call executed."""
    records = Ledger(str(out).replace(".zarr", ".ledger")).records()
    return {key for key, record in records.items() if record.seconds != EARLIER.get((str(out), key))}


EARLIER: dict[tuple[str, str], float] = {}


def remember(out: Path) -> None:
    for key, record in Ledger(str(out).replace(".zarr", ".ledger")).records().items():
        EARLIER[str(out), key] = record.seconds


def test_a_changed_chunk_runs_its_block_and_with_a_window_its_neighbours(bundle: Bundle, tmp_path: Path) -> None:
    ds, out = cube(), tmp_path / "p.zarr"
    url = written(tmp_path / "cube.zarr", ds, (2, 4, 3))
    predict(bundle, url, out)
    assert len(runs(out)) == 6 + 2
    remember(out)
    predict(bundle, url, out)
    assert runs(out) == set()
    stores.open_group(url, "r+")["temp"][4, 0, 5] = 3.0
    predict(bundle, url, out)
    assert runs(out) == {"block/00000002.00000001"} or runs(out) == {"block/00000002.00000000.00000001"}
    wide = tmp_path / "w.zarr"
    nine = save_model(regressor(9), tmp_path / "nine")
    options = {"inputs": ["temp"], "window": {"time": 1, "lon": 1}}
    predict(nine, url, wide, **options)  # type: ignore[arg-type]
    remember(wide)
    stores.open_group(url, "r+")["temp"][4, 0, 5] = 4.0
    predict(nine, url, wide, **options)  # type: ignore[arg-type]
    assert len(runs(wide)) == 4


def test_more_times_predict_no_earlier_block_again(bundle: Bundle, tmp_path: Path) -> None:
    ds, out = cube(), tmp_path / "p.zarr"
    more = xr.concat([ds, ds.assign_coords(time=ds.time + np.timedelta64(5, "ns"))], "time", data_vars="minimal")
    url = written(tmp_path / "cube.zarr", more.isel(time=slice(0, 6)))
    predict(bundle, url, out)
    remember(out)
    written(tmp_path / "cube.zarr", more)
    found = predict(bundle, url, out)
    # Three blocks of time, of two parts each, were there before, and so was the coordinate of the latitude.
    assert len(runs(out)) == 2 * 2 + 1
    expected = regressor().predict(stacked(more, ["temp", "wind", "height"])).astype("float32")
    np.testing.assert_array_equal(found.prediction.values.ravel(), expected)
    assert np.array_equal(found.time.values, more.time.values)


def test_another_model_predicts_all_blocks_again_and_copies_no_coordinate(bundle: Bundle, tmp_path: Path) -> None:
    out = tmp_path / "p.zarr"
    url = written(tmp_path / "cube.zarr", cube())
    predict(bundle, url, out)
    remember(out)
    other = save_model(HistGradientBoostingRegressor(max_iter=2).fit(np.eye(3), [0, 1, 2]), tmp_path / "other",
                       schema={"features": ["temp", "wind", "height"]})  # fmt: skip
    predict(other, url, out)
    assert len({key for key in runs(out) if key.startswith("block/")}) == 6


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"inputs": ["temp", "wind"]}, "takes 3 features, the inputs give 2 variables = 2; name as many"),
        (
            {"inputs": ["temp", "wind", "hight"]},
            "has no variable hight; it has (temp, wind, height|height, temp, wind)",
        ),
        ({"inputs": "temp"}, r"give a list of variables, \['temp'\]"),
        ({"window": {"lat": 1}}, "the inputs give 3 variables x 3 cells = 9"),
        ({"window": {"level": 1}}, "name dimensions of the inputs, time, lat, lon"),
        ({"schema": {"name": "time"}}, "'time' is a variable of these predictions and a dimension"),
    ],
)
def test_inputs_that_do_not_fit_are_refused_by_both_sides(
    bundle: Bundle, tmp_path: Path, options: dict[str, Any], text: str
) -> None:
    with pytest.raises(UsageError, match=text):
        predict(bundle, cube(), **options)
    with pytest.raises(UsageError, match=text):
        predict(bundle, written(tmp_path / "cube.zarr", cube()), tmp_path / "p.zarr", **options)


def test_a_dataset_in_memory_is_not_written_and_a_table_takes_no_inputs(bundle: Bundle, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="leave `out` away and call to_zarr"):
        predict(bundle, cube(), tmp_path / "p.zarr")
    stored = dms.open_dataset(written(tmp_path / "cube.zarr", cube()))
    for moved in (stored.assign_coords(lat=stored.lat + 1), stored.assign_coords(time=stored.time + np.timedelta64(1))):
        with pytest.raises(UsageError, match="leave `out` away and call to_zarr"):
            predict(bundle, moved, tmp_path / "p.zarr")
    made = save_model(regressor(), tmp_path / "with", recipe={"steps": [], "known_at": "t"})
    with pytest.raises(UsageError, match="are made by its recipe"):
        predict(made, cube(), inputs=["temp"])


def test_columns_of_a_plain_table_are_a_cube_of_one_dimension(tmp_path: Path) -> None:
    X = np.random.default_rng(0).normal(size=(90, 2))
    ds = xr.Dataset({"a": ("row", X[:, 0]), "b": ("row", X[:, 1])})
    estimator = LinearRegression().fit(X, X[:, 0] * 2)
    bundle = save_model(estimator, tmp_path / "model", schema={"features": ["a", "b"]})
    found = predict(bundle, ds)
    assert found.prediction.dims == ("row",)
    np.testing.assert_allclose(found.prediction, estimator.predict(X), rtol=1e-6)


@pytest.mark.parametrize("size", [0, 1])
def test_no_cell_and_one_cell_are_predicted(bundle: Bundle, tmp_path: Path, size: int) -> None:
    ds = cube().isel(time=slice(0, size), lat=slice(0, 1), lon=slice(0, 1))
    assert predict(bundle, ds).prediction.values.shape == (size, 1, 1)
    url = written(tmp_path / "cube.zarr", ds, (1, 1, 1))
    assert predict(bundle, url, tmp_path / "p.zarr").prediction.values.shape == (size, 1, 1)


def test_an_altered_model_is_refused_before_a_block_is_written(bundle: Bundle, tmp_path: Path) -> None:
    url = written(tmp_path / "cube.zarr", cube())
    opened = load_model(bundle.path)
    (tmp_path / "model" / "model.skops").write_bytes(b"nothing")
    with pytest.raises(DaskMLError, match="altered"):
        predict(opened, url, tmp_path / "p.zarr")
    assert not (tmp_path / "p.zarr").exists()


# ------------------------------------------------------------------------------------------------ pure parts


@settings(max_examples=50)
@given(st.tuples(st.integers(1, 4), st.integers(1, 4)), st.integers(0, 2), st.integers(0, 2), st.booleans())
def test_a_matrix_holds_each_cell_with_its_neighbours(shape: tuple[int, int], x: int, y: int, turned: bool) -> None:
    rng = np.random.default_rng(0)
    first = rng.normal(size=(shape[0] + 2 * x, shape[1] + 2 * y))
    second = rng.normal(size=shape[1] + 2 * y)
    own = ("y", "x") if turned else ("x", "y")
    window = {dim: size for dim, size in (("x", x), ("y", y)) if size}
    cells = Cells(("x", "y"), (("a", own), ("b", ("y",))), window)
    X = cells.matrix([first.T if turned else first, second], shape, "float64")
    assert X.shape == (shape[0] * shape[1], cells.width)
    for row, (i, j) in enumerate(np.ndindex(*shape)):
        near = first[i : i + 2 * x + 1, j : j + 2 * y + 1].ravel()
        beside = np.tile(second[j : j + 2 * y + 1], 2 * x + 1)
        assert np.array_equal(X[row], np.concatenate([near, beside]))


def test_decoding_is_nothing_where_values_mean_themselves() -> None:
    assert decoding("a", np.dtype("float32"), {"_FillValue": np.nan, "chunks": (1,)}) == {}
    how = decoding("a", np.dtype("int16"), {"_FillValue": -1, "missing_value": -2, "scale_factor": 0.5})
    assert decoded(np.array([-1, -2, 4], dtype="int16"), how).tolist()[2] == 2.0
    assert np.isnan(decoded(np.array([-1, -2, 4], dtype="int16"), how)[:2]).all()
    with pytest.raises(DaskMLError, match="a holds datetime64"):
        decoding("a", np.dtype("datetime64[ns]"), {})


def test_blocks_run_on_workers(bundle: Bundle, tmp_path: Path, client: Any) -> None:
    url = written(tmp_path / "cube.zarr", cube())
    found = predict(bundle, url, tmp_path / "p.zarr", schema={"dtype": "float64"}, client=client)
    expected = bundle.predict(stacked(cube(), ["temp", "wind", "height"])).reshape(SHAPE)
    np.testing.assert_array_equal(found.prediction.values, expected)
    assert {record.worker for record in Ledger(f"{tmp_path}/p.ledger").records().values()} <= {"0", "1"}
    lazy = predict(bundle, url, schema={"dtype": "float64"})
    np.testing.assert_array_equal(lazy.prediction.values, expected)


def test_workers_identify_what_they_read(
    bundle: Bundle, tmp_path: Path, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = written(tmp_path / "cube.zarr", cube())
    hashed: list[str] = []
    identity = Backend.identity

    def counting(self: Any, url: str, key: str, found: Any) -> str:
        hashed.append(key)
        return identity(self, url, key, found)

    monkeypatch.setattr(Backend, "identity", counting)
    predict(bundle, url, tmp_path / "p.zarr", client=client)
    assert {key.partition("/")[0] for key in hashed} <= {"time", "lat"}  # copied as they are
    Path(f"{tmp_path}/p.ledger/ids.json").unlink()
    predict(bundle, url, tmp_path / "p.zarr", client=client)
    assert {key.partition("/")[0] for key in hashed} >= {"temp", "wind", "height"}  # and finds the same
    row = dms.last_run()
    assert row is not None
    assert row.reused == row.units
