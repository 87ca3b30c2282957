"""Patches with a halo: equal to one call on the whole cube, whatever the chunks; refusals; missing cells."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from model_helpers import Blur

import daskml_scale as dms
from daskml_scale.artifacts.bundle import Bundle, save_model
from daskml_scale.errors import DaskMLError, UnitsFailedError, UsageError
from daskml_scale.stages.patches import Patches

SHAPE = (3, 7, 10)


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    (tmp_path / "w").write_text("1")
    schema = {"features": ["temp", "height"], "dtype": "float64"}
    return save_model(Blur, tmp_path / "m", schema=schema, data=tmp_path / "w")


def cube() -> xr.Dataset:
    rng = np.random.default_rng(0)
    return xr.Dataset(
        {
            "temp": (("time", "lat", "lon"), rng.normal(size=SHAPE)),
            "height": (("lat", "lon"), rng.normal(size=SHAPE[1:])),
        }
    )


def written(path: Path, ds: xr.Dataset, chunks: tuple[int, ...]) -> str:
    sizes = dict(zip(("time", "lat", "lon"), chunks, strict=True))
    encoding = {name: {"chunks": [sizes[str(dim)] for dim in ds[name].dims]} for name in ds.data_vars}
    ds.to_zarr(path, encoding=encoding, consolidated=False)
    return str(path)


def blurred(ds: xr.Dataset) -> np.ndarray:
    """Mean over the 3 x 3 cells around each cell of temp + height, the edge repeated."""
    whole = np.pad((ds.temp + ds.height).transpose("time", "lat", "lon").values, [(0, 0), (1, 1), (1, 1)], mode="edge")
    parts = [whole[:, a : a + SHAPE[1], b : b + SHAPE[2]] for a in range(3) for b in range(3)]
    return np.mean(parts, axis=0)


@pytest.mark.parametrize("chunks", [(3, 7, 10), (1, 4, 5), (2, 3, 10), (1, 1, 1)])
@pytest.mark.parametrize("patch", [{"lat": 4, "lon": 5}, {"lat": 2, "lon": 3}, {"lon": 16, "lat": 1}])
def test_patches_predict_as_the_whole_cube_at_once_whatever_the_chunks(
    bundle: Bundle, tmp_path: Path, chunks: tuple[int, ...], patch: dict[str, int]
) -> None:
    ds = cube()
    options: dict[str, Any] = {"patch": patch, "halo": {"lat": 1, "lon": 1}, "schema": {"dtype": "float64"}}
    found = dms.predict(bundle, written(tmp_path / "c.zarr", ds, chunks), tmp_path / "p.zarr", **options)
    assert found.prediction.dims == ("time", "lat", "lon")
    np.testing.assert_allclose(found.prediction.values, blurred(ds), rtol=1e-12)
    assert (found.status.values == 1).all()


def test_a_changed_chunk_runs_its_neighbours_too(bundle: Bundle, tmp_path: Path) -> None:
    ds = cube()
    url = written(tmp_path / "c.zarr", ds, (1, 7, 5))
    options: dict[str, Any] = {"patch": {"lat": 7, "lon": 5}, "halo": {"lat": 1, "lon": 1}}
    dms.predict(bundle, url, tmp_path / "p.zarr", **options)
    ds["temp"][1, 0, 0] += 1
    ds[["temp"]].to_zarr(url, mode="r+", consolidated=False)
    found = dms.predict(bundle, url, tmp_path / "p.zarr", **options)
    row = dms.last_run()
    assert row is not None
    assert row.units - row.reused == 2
    np.testing.assert_allclose(found.prediction.values, blurred(ds), rtol=1e-5, atol=1e-6)


def test_missing_cells_stay_missing_and_spoil_only_what_sees_them(bundle: Bundle, tmp_path: Path) -> None:
    ds = cube()
    ds["temp"][:, 0, 0], ds["height"][0, 0] = np.nan, np.nan
    url = written(tmp_path / "c.zarr", ds, (3, 7, 10))
    options: dict[str, Any] = {"patch": {"lat": 4, "lon": 5}, "halo": {"lat": 1, "lon": 1}, "max_bad": 9}
    found = dms.predict(bundle, url, tmp_path / "p.zarr", **options)
    status = found.status.values
    assert (status[:, 0, 0] == 0).all()
    assert {(int(a), int(b)) for _, a, b in np.argwhere(status == 3)} == {(0, 1), (1, 0), (1, 1)}
    assert np.isnan(found.prediction.values[status != 1]).all()
    with pytest.raises(UnitsFailedError, match=r"9 of 210 cells .*cell \(time 0, lat 0, lon 1\): the model gave nan"):
        dms.predict(bundle, url, tmp_path / "q.zarr", **{**options, "max_bad": 8})


def test_wrong_patches_are_refused_with_the_remedy(bundle: Bundle, tmp_path: Path) -> None:
    url = written(tmp_path / "c.zarr", cube(), (1, 7, 10))
    out = tmp_path / "p.zarr"
    for options, match in (
        ({"patch": {"depth": 4}}, "name dimensions of the inputs, time, lat, lon"),
        ({"patch": {"lat": 0}}, "name dimensions of the inputs"),
        ({"patch": {"lat": 4}, "halo": {"lon": 1}}, "name dimensions of the patch, lat"),
        ({"patch": {"lat": 4}, "window": {"lat": 1}}, "leave one of them away"),
    ):
        with pytest.raises((UsageError, DaskMLError), match=match):
            dms.predict(bundle, url, out, **options)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="give out="):
        dms.predict(bundle, url, patch={"lat": 4})
    assert not out.exists()


@given(
    st.lists(st.integers(1, 9), min_size=1, max_size=3),
    st.data(),
)
@settings(max_examples=60, deadline=None)
def test_what_is_cut_is_put_together_again(shape: list[int], data: Any) -> None:
    dims = ("a", "b", "c")[: len(shape)]
    chosen = data.draw(st.lists(st.sampled_from(dims), min_size=1, unique=True))
    sizes = {dim: data.draw(st.integers(1, 6)) for dim in chosen}
    halo = {dim: data.draw(st.integers(0, 2)) for dim in chosen}
    patches = Patches.of(dims, sizes, halo)
    wide = [size + 2 * halo.get(dim, 0) for dim, size in zip(dims, shape, strict=True)]
    block = np.arange(np.prod(wide), dtype="float64").reshape(wide)
    inner = tuple(slice(halo.get(dim, 0), halo.get(dim, 0) + size) for dim, size in zip(dims, shape, strict=True))
    cut = patches.cut([block, -block], "float64")
    assert cut.shape[1:] == (2, *(sizes[dim] + 2 * halo[dim] for dim in dims if dim in sizes))
    middle = cut[(slice(None), 0, *(slice(halo[d], halo[d] + sizes[d]) for d in dims if d in sizes))]
    assert np.array_equal(patches.join(middle, shape), block[inner])
