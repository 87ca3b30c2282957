"""Steps on grids give what xarray gives on the whole cube, however it is chunked."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from gridded_helpers import cube, run, stored
from hypothesis import given, settings
from hypothesis import strategies as st

import daskml_scale as dms
from daskml_scale.errors import PlanError, SpecError
from daskml_scale.spec.cube_stages import CubeSpec
from daskml_scale.spec.steps_grid import Window
from daskml_scale.storage import stores

CHUNKS = st.tuples(st.integers(5, 31), st.integers(2, 5), st.integers(2, 7))
MANY = settings(max_examples=6, deadline=None)


def same(found: xr.DataArray, expected: xr.DataArray) -> None:
    np.testing.assert_allclose(found.values, expected.transpose(*found.dims).values, rtol=1e-9, atol=1e-9)


@MANY
@given(source=CHUNKS, out=CHUNKS, by=st.sampled_from(["month", "dayofyear"]), times=st.integers(14, 30))
def test_anomalies_are_those_of_xarray(source, out, by, times):
    ds = cube(times, freq="MS" if by == "month" else "9D")
    with tempfile.TemporaryDirectory() as folder:
        url = stored(ds, Path(folder) / "cube.zarr", source)
        found = run(
            url, Path(folder) / "out", steps=[{"anomalies": {"of": ["t"], "by": by}}],
            chunks=dict(zip(ds.t.dims, out, strict=True)),
        )  # fmt: skip
    groups = getattr(ds.time.dt, by)
    means = ds.t.groupby(f"time.{by}").mean()
    expected = ds.t - means.sel({by: groups})
    same(found.t_anomaly, expected)
    assert np.array_equal(found.time.values, ds.time.values)


@MANY
@given(source=CHUNKS, out=CHUNKS, lag=st.integers(1, 5), lead=st.integers(1, 3), near=st.integers(1, 3))
def test_chained_steps_read_as_far_as_they_need(source, out, lag, lead, near):
    ds = cube(17)
    steps = [
        {"anomalies": {"of": "t"}},
        {"window": {"of": "t_anomaly", "size": {"lat": near, "lon": 1}}},
        {"lag": {"of": ["t_anomaly", "t_anomaly_mean_near"], "lags": [lag]}},
        {"lead": {"of": "t_anomaly", "leads": [lead]}},
        {"keep": {"of": "t"}},
    ]
    with tempfile.TemporaryDirectory() as folder:
        url = stored(ds, Path(folder) / "cube.zarr", source)
        found = run(
            url, Path(folder) / "out", steps=steps, fit_where="time < time('2000-05-01')",
            chunks=dict(zip(ds.t.dims, out, strict=True)),
        )  # fmt: skip
    learnt = ds.t.sel(time=slice(None, "2000-04-30")).groupby("time.month").mean().reindex(month=range(1, 13))
    anomaly = ds.t - learnt.sel(month=ds.time.dt.month)
    around = anomaly.rolling({"lat": 2 * near + 1, "lon": 3}, center=True, min_periods=1).mean()
    same(found.t_anomaly, anomaly)
    same(found.t_anomaly_mean_near, around)
    same(found[f"t_anomaly_lag_{lag}"], anomaly.shift(time=lag))
    same(found[f"t_anomaly_mean_near_lag_{lag}"], around.shift(time=lag))
    same(found[f"t_anomaly_lead_{lead}"], anomaly.shift(time=-lead))
    same(found.t, ds.t)


@MANY
@given(source=CHUNKS, out=CHUNKS, stat=st.sampled_from(["mean", "min", "max", "std"]))
def test_windows_leave_out_missing_cells_and_the_edge(source, out, stat):
    ds = cube(9)
    with tempfile.TemporaryDirectory() as folder:
        url = stored(ds, Path(folder) / "cube.zarr", source)
        found = run(
            url, Path(folder) / "out", steps=[{"window": {"of": "t", "size": {"lat": 1, "lon": 2}, "stat": stat}}],
            chunks=dict(zip(ds.t.dims, out, strict=True)),
        )  # fmt: skip
    windows = ds.t.rolling(lat=3, lon=5, center=True, min_periods=1).construct(lat="a", lon="b")
    same(found[f"t_{stat}_near"], getattr(windows, stat)(["a", "b"]))


@MANY
@given(source=CHUNKS, out=CHUNKS, stat=st.sampled_from(["mean", "min", "max", "sum"]), size=st.integers(2, 3))
def test_coarsened_cells_are_those_of_xarray(source, out, stat, size):
    ds = cube(7, 7, 6)
    with tempfile.TemporaryDirectory() as folder:
        url = stored(ds, Path(folder) / "cube.zarr", source)
        found = run(
            url, Path(folder) / "out", steps=[{"keep": {"of": "t"}}, {"lag": {"of": "t", "lags": [2]}}],
            coarsen={"sizes": {"lat": size, "lon": 2}, "stat": stat, "boundary": "trim"},
            chunks=dict(zip(ds.t.dims, out, strict=True)),
        )  # fmt: skip
    expected = getattr(ds.t.coarsen(lat=size, lon=2, boundary="trim"), stat)()
    same(found.t, expected)
    same(found.t_lag_2, expected.shift(time=2))
    np.testing.assert_allclose(found.lat.values, expected.lat.values)


def test_a_changed_chunk_is_learnt_from_again_and_the_others_are_not(tmp_path: Path):
    ds = cube(24, 4, 4)
    url = stored(ds, tmp_path / "cube.zarr", (6, 4, 2))
    settings = {"steps": [{"anomalies": {"of": "t"}}]}
    run(url, tmp_path / "out", **settings)
    units = dms.last_run().units
    assert units == 1 + 8 + 2 + 8 + 3  # calendar, moments, climatologies, blocks, coordinates
    run(url, tmp_path / "out", **settings)
    assert dms.last_run().reused == units
    ds.t[0, :, :2] += 5
    stores.write_region(url, 0, {"t": ds.t.values})
    found = run(url, tmp_path / "out", **settings)
    # Its moments, the climatology of its half, and the four blocks of that half.
    assert dms.last_run().units - dms.last_run().reused == 1 + 1 + 4
    means = ds.t.groupby("time.month").mean()
    same(found.t_anomaly, ds.t - means.sel(month=ds.time.dt.month))


def test_more_times_read_no_earlier_block_again(tmp_path: Path):
    whole = cube(30, 4, 4)
    settings = {"steps": [{"anomalies": {"of": "t"}}, {"lag": {"of": "t_anomaly", "lags": [1]}}],
                "fit_where": "time < time('2001-01-01')"}  # fmt: skip
    url = stored(whole.isel(time=slice(0, 24)), tmp_path / "cube.zarr", (6, 4, 4))
    run(url, tmp_path / "out", **settings)
    assert stored(whole, tmp_path / "cube.zarr", (6, 4, 4)) == url
    found = run(url, tmp_path / "out", **settings)
    # The calendar, the new moments, their merge, the new block, the time coordinate.
    assert dms.last_run().units - dms.last_run().reused == 5
    learnt = whole.t.sel(time=slice(None, "2000-12-31")).groupby("time.month").mean()
    same(found.t_anomaly, whole.t - learnt.sel(month=whole.time.dt.month))


@pytest.mark.parametrize("calendar", ["noleap", "360_day"])
def test_months_and_days_are_those_of_the_cubes_own_calendar(tmp_path: Path, calendar: str):
    times = xr.date_range("2003-01-01", "2005-12-30", freq="D", calendar=calendar, use_cftime=True)
    ds = cube(len(times), 2, 3).assign_coords(time=times)
    ds.to_zarr(tmp_path / "cube.zarr", zarr_format=3, consolidated=False)
    learnt = ds.t.isel(time=[(day.year, day.month) < (2005, 2) for day in times])
    for by in ("month", "dayofyear"):
        steps = [{"anomalies": {"of": "t", "by": by}}]
        found = run(str(tmp_path / "cube.zarr"), tmp_path / by, steps=steps, fit_where="time < time('2005-02-01')")
        means = learnt.groupby(f"time.{by}").mean()
        same(found.t_anomaly, ds.t - means.sel({by: getattr(ds.time.dt, by)}))
        assert found.indexes["time"].calendar == calendar


def test_years_beyond_nanoseconds_are_refused(tmp_path: Path):
    times = xr.date_range("0001-01-01", periods=14, freq="MS", calendar="noleap", use_cftime=True)
    cube(14).assign_coords(time=times).to_zarr(tmp_path / "cube.zarr", zarr_format=3, consolidated=False)
    with pytest.raises(PlanError, match="a time of the year 1: nanoseconds reach from 1678 to 2261; shift"):
        run(str(tmp_path / "cube.zarr"), tmp_path / "out", steps=[{"anomalies": {"of": "t"}}])


def test_packed_values_are_unpacked(tmp_path: Path):
    ds = cube(14)
    packed = {"t": {"dtype": "int16", "scale_factor": 0.01, "add_offset": 280.0, "_FillValue": -32768}}
    ds.to_zarr(tmp_path / "cube.zarr", encoding=packed, zarr_format=3, consolidated=False)
    found = run(str(tmp_path / "cube.zarr"), tmp_path / "out", steps=[{"keep": {"of": "t"}}])
    np.testing.assert_allclose(found.t.values, ds.t.values, atol=0.006)


def test_what_cannot_work_is_refused_before_anything_runs(tmp_path: Path):
    ds = cube(6, 3, 4)
    url = stored(ds, tmp_path / "cube.zarr", (6, 3, 4))
    for steps, more, message in (
        ([{"keep": {"of": "x"}}], {}, "no variable 'x'"),
        ([{"keep": {"of": "t"}}], {"time": "month"}, "none is 'month'"),
        ([{"window": {"of": "t", "size": {"height": 1}}}], {}, "no dimension 'height'"),
        ([{"keep": {"of": "t"}}], {"coarsen": {"sizes": {"lat": 2}}}, "3 cells are no multiple of 2"),
        ([{"anomalies": {"of": "t"}}], {"fit_where": "time < time('1950-01-01')"}, "none of the 6 times is selected"),
    ):
        with pytest.raises(PlanError, match=message):
            run(url, tmp_path / "out", steps=steps, **more)
    backwards = stored(ds.isel(time=slice(None, None, -1)), tmp_path / "backwards.zarr", (6, 3, 4))
    with pytest.raises(PlanError, match="time does not rise at position 1"):
        run(backwards, tmp_path / "out2", steps=[{"lag": {"of": "t", "lags": [1]}}])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"steps": [Window(of="t", size={"time": 1})]}, "a window looks to both sides; use lag"),
        ({"steps": [{"keep": {"of": "t"}}], "coarsen": {"sizes": {"time": 2}}}, "is the dimension of time"),
        ({"steps": [{"lag": {"of": "t", "lags": [1]}}, {"lag": {"of": "t", "lags": [1]}}]}, "makes t_lag_1 again"),
        ({"steps": [{"keep": {"of": "t"}}], "fit_where": "lat > 3"}, "fit_where reads lat"),
        ({"steps": [{"lag": {"of": "t", "lags": [1]}}, {"anomalies": {"of": "t_lag_1"}}]}, "take the anomalies first"),
    ],
)
def test_a_leak_and_a_doubled_name_are_refused_by_the_file_alone(settings, message):
    with pytest.raises((SpecError, ValueError), match=message):
        CubeSpec(kind="cube", input="x", **settings)


def test_one_time_and_no_time(tmp_path: Path):
    for times in (1, 0):
        ds = cube(max(times, 1), 2, 2).isel(time=slice(0, times))
        url = stored(ds, tmp_path / f"cube{times}.zarr", (5, 5, 5))
        steps = [{"anomalies": {"of": "t"}}, {"lag": {"of": "t", "lags": [1]}}]
        found = run(url, tmp_path / f"out{times}", steps=steps)
        assert found.sizes["time"] == times
        assert np.isnan(found.t_lag_1.values).all()
        assert np.nan_to_num(found.t_anomaly.values).sum() == 0


def test_unsigned_times_that_fall_are_refused() -> None:
    from daskml_scale.stages.gridded.calendar import Calendar

    days = np.array([5, 9, 7], dtype="uint32")
    with pytest.raises(PlanError, match="time does not rise at position 2"):
        Calendar.of("time", days, {"units": "days since 2000-01-01"}, ("month",), None)
