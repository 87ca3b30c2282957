"""NetCDF files and Zarr datasets become one cube: read by region, compared before anything is written."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import xarray as xr

import daskml_scale as dms
from daskml_scale.errors import DaskMLError, PlanError, SpecError
from daskml_scale.storage.ledger import Ledger

LAT, LON = 6, 8


def cube(day: int, steps: int = 5) -> xr.Dataset:
    """A few hours of a field, each file with a reference date of its own, packed into int16."""
    values = np.random.default_rng(day).integers(0, 100, (steps, LAT, LON)).astype("float32") / 2
    values[0, 0, 0] = np.nan
    at = np.datetime64(f"2024-01-{day:02d}", "ns") + np.arange(steps) * np.timedelta64(1, "h")
    ds = xr.Dataset(
        {"t2m": (("time", "lat", "lon"), values, {"units": "K", "long_name": "temperature"}),
         "height": (("lat", "lon"), np.arange(LAT * LON, dtype="float64").reshape(LAT, LON))},
        {"time": at, "lat": np.linspace(50, 55, LAT), "lon": np.linspace(0, 7, LON)},
        {"title": "fields"},
    )  # fmt: skip
    packing = {"dtype": "int16", "scale_factor": 0.5, "_FillValue": -1}
    ds["t2m"].encoding = packing
    ds["time"].encoding = {"units": f"hours since 2024-01-{day:02d}", "dtype": "int32"}
    return ds


def expected(*days: int) -> xr.Dataset:
    return xr.concat([cube(day) for day in days], "time", data_vars="minimal")


def written(folder: Path, *days: int, engine: str = "h5netcdf") -> str:
    folder.mkdir(exist_ok=True)
    for day in days:
        cube(day).to_netcdf(folder / f"{day:02d}.nc", engine=engine)
    return f"{folder}/*.nc"


def seconds(folder: Path) -> dict[str, float]:
    return {unit: record.seconds for unit, record in Ledger(str(folder)).records().items()}


@pytest.mark.parametrize("engine", ["h5netcdf", "scipy"])
def test_netcdf_files_follow_one_another(tmp_path, engine):
    source = written(tmp_path / "in", 1, 2, 3, engine=engine)
    ds = dms.ingest(source, tmp_path / "t.zarr", chunks={"time": 4, "lat": 3}, concat="time")
    wanted = expected(1, 2, 3)
    np.testing.assert_array_equal(ds.t2m.values, wanted.t2m.values)
    np.testing.assert_array_equal(ds.time.values, wanted.time.values)
    np.testing.assert_array_equal(ds.height.values, wanted.height.values)
    assert ds.t2m.chunks == ((4, 4, 4, 3), (3, 3), (8,))
    assert ds.t2m.dtype.kind == "f"
    assert ds.t2m.attrs["units"] == "K"
    assert ds.attrs["title"] == "fields"
    again = xr.open_zarr(tmp_path / "t.zarr", consolidated=False)
    np.testing.assert_array_equal(again.t2m.values, wanted.t2m.values)
    dms.ingest(source, tmp_path / "t.zarr", chunks={"time": 4, "lat": 3}, concat="time")
    assert dms.last_run().reused == dms.last_run().units


def test_bounds_of_times_are_times(tmp_path):
    (tmp_path / "in").mkdir()
    for day in (1, 2):
        ds = cube(day)
        ends = np.stack([ds.time.values, ds.time.values + np.timedelta64(1, "h")], axis=1)
        ds = ds.assign(time_bnds=(("time", "bnds"), ends))  # xarray leaves out their units, as CF allows
        ds.time.attrs["bounds"] = "time_bnds"
        ds.to_netcdf(tmp_path / "in" / f"{day}.nc", engine="h5netcdf")
    source = str(tmp_path / "in" / "*.nc")
    ds = dms.ingest(source, tmp_path / "t.zarr", chunks={"time": 4}, concat="time")
    expected = xr.concat(
        [xr.open_dataset(tmp_path / "in" / f"{day}.nc") for day in (1, 2)], "time", data_vars="minimal"
    )
    np.testing.assert_array_equal(ds.time_bnds.values, expected.time_bnds.values)


def test_a_cube_is_selected_from_by_its_coordinates_whatever_their_order(tmp_path):
    written(tmp_path / "in", 1, 2)
    ds = dms.ingest(f"{tmp_path}/in/*.nc", tmp_path / "t.zarr", chunks={"time": 4}, concat="time")
    wanted = expected(1, 2).t2m.sel(time="2024-01-02T01", lat=51)
    np.testing.assert_array_equal(ds.t2m.sel(time="2024-01-02T01", lat=51).values, wanted.values)
    cube(1).transpose("lat", "lon", "time").to_netcdf(tmp_path / "turned.nc", engine="h5netcdf")
    turned = dms.ingest(tmp_path / "turned.nc", tmp_path / "turned.zarr", chunks={"lat": 2})
    np.testing.assert_array_equal(turned.time.values, cube(1).time.values)
    assert turned.t2m.sel(time="2024-01-01T02").dims == ("lat", "lon")


def test_a_new_file_is_read_and_the_old_ones_are_not(tmp_path):
    source = written(tmp_path / "in", 1, 2)
    dms.ingest(source, tmp_path / "t.zarr", chunks={"time": 5}, concat="time")
    before = seconds(tmp_path / "t.ledger")
    written(tmp_path / "in", 3)
    ds = dms.ingest(source, tmp_path / "t.zarr", chunks={"time": 5}, concat="time")
    np.testing.assert_array_equal(ds.t2m.values, expected(1, 2, 3).t2m.values)
    after = seconds(tmp_path / "t.ledger")
    assert {unit for unit in after if after[unit] != before.get(unit)} == {
        "scan/03.nc", "write/t2m/00000002.00000000.00000000", "write/time/00000002",
    }  # fmt: skip


def test_a_zarr_dataset_of_either_format_is_read_by_region(tmp_path):
    for version in (2, 3):
        expected(1, 2).chunk(time=3).to_zarr(tmp_path / f"in{version}.zarr", zarr_format=version, consolidated=False)
        ds = dms.ingest(tmp_path / f"in{version}.zarr", tmp_path / f"t{version}.zarr", chunks={"time": 4, "lon": 5})
        np.testing.assert_array_equal(ds.t2m.values, expected(1, 2).t2m.values)
        np.testing.assert_array_equal(ds.time.values, expected(1, 2).time.values)
        assert ds.t2m.chunks == ((4, 4, 2), (6,), (5, 3))


def test_of_a_zarr_dataset_only_what_a_changed_chunk_is_in_is_written_again(tmp_path):
    source = tmp_path / "in.zarr"
    ds = expected(1, 2).drop_encoding()
    ds.chunk(time=2).to_zarr(source, consolidated=False)
    dms.ingest(source, tmp_path / "t.zarr", chunks={"time": 4})
    before = seconds(tmp_path / "t.ledger")
    ds.t2m[5] = 7.0
    ds[["t2m"]].isel(time=slice(4, 6)).drop_vars(["lat", "lon", "time"]).to_zarr(
        source, region={"time": slice(4, 6)}, consolidated=False
    )
    found = dms.ingest(source, tmp_path / "t.zarr", chunks={"time": 4})
    assert (found.t2m.values[5] == 7).all()
    after = seconds(tmp_path / "t.ledger")
    assert {unit for unit in after if after[unit] != before[unit]} == {
        "scan/in.zarr", "write/t2m/00000001.00000000.00000000",
    }  # fmt: skip


def test_files_that_do_not_fit_are_refused_with_both_before_anything_is_written(tmp_path):
    source = written(tmp_path / "in", 1)
    bad = tmp_path / "in" / "02.nc"
    other = cube(2)
    for ds, message in (
        (other.assign(height=other.height + 1), r"02\.nc: the values of 'height' differ from those in .*01\.nc"),
        (other.assign_coords(lat=other.lat + 1), r"02\.nc: the values of 'lat' differ from those"),
        (other.drop_vars("height"), r"01\.nc has a variable 'height' and .*02\.nc has none"),
        (other.isel(lon=slice(4)), r"02\.nc: variable 'height' has shape \[6, 4\], and \[6, 8\] in .*01\.nc"),
        (other.assign(t2m=other.t2m.assign_attrs(units="C")), r"'t2m' has units C, and K in"),
        (other.assign(t2m=other.t2m.astype("float32").drop_attrs().assign_attrs(units="K")), r"'t2m' has type float32"),
        (cube(1), r"02\.nc begins at time 2024-01-01T00:00:00, and .*01\.nc, which it follows, ends at 2024-01-01T04"),
    ):  # fmt: skip
        bad.unlink(missing_ok=True)
        if "float32" in message:
            ds = ds.drop_encoding()
        ds.to_netcdf(bad, engine="h5netcdf")
        with pytest.raises(PlanError, match=message):
            dms.ingest(source, tmp_path / "t.zarr", chunks={"time": 4}, concat="time")
        assert not (tmp_path / "t.zarr").exists()


def test_wrong_names_and_files_are_refused(tmp_path):
    source = written(tmp_path / "in", 1, 2)
    with pytest.raises(PlanError, match=r"2 sources, and nothing says how they follow one another; give `concat"):
        dms.ingest(source, tmp_path / "t.zarr", chunks={"time": 4})
    with pytest.raises(SpecError, match=r"chunks\.tme: unknown dimension 'tme'; did you mean 'time'"):
        dms.ingest(source, tmp_path / "t.zarr", chunks={"tme": 4}, concat="time")
    with pytest.raises(DaskMLError, match="unknown variable 't2'; did you mean 't2m'"):
        dms.ingest(source, tmp_path / "t.zarr", chunks={"time": 4}, concat="time", columns=["t2"])
    with pytest.raises(SpecError, match="derive: is for tables"):
        dms.ingest(source, tmp_path / "t.zarr", chunks={"time": 4}, derive={"a": "t2m + 1"})
    cube(1).assign(expver=("time", ["0001"] * 5)).to_netcdf(tmp_path / "text.nc", engine="h5netcdf")
    with pytest.raises(DaskMLError, match=r"'expver' is .*, or name what to keep, `columns: \[t2m, height\]`"):
        dms.ingest(tmp_path / "text.nc", tmp_path / "t.zarr", chunks={"time": 4})
    (tmp_path / "x.nc").write_bytes(b"no netcdf at all")
    with pytest.raises(DaskMLError, match=r"x\.nc is no readable NetCDF file or Zarr dataset"):
        dms.ingest(tmp_path / "x.nc", tmp_path / "t.zarr", chunks={"time": 4})


def test_a_sample_is_of_whole_chunks(tmp_path):
    source = written(tmp_path / "in", 1, 2, 3)
    ds = dms.ingest(source, tmp_path / "t.zarr", chunks={"time": 3}, concat="time", sample=0.4)
    wanted = expected(1, 2, 3).sel(time=ds.time.values)
    assert ds.sizes["time"] == 6
    np.testing.assert_array_equal(ds.t2m.values, wanted.t2m.values)
    assert (np.diff(ds.time.values[:3]) > np.timedelta64(0)).all()


def test_a_cube_is_the_same_on_a_cluster(tmp_path, own_client):
    source = written(tmp_path / "in", 1, 2)
    for name, client in (("a", None), ("b", own_client)):
        dms.ingest(source, tmp_path / f"{name}.zarr", chunks={"time": 3}, concat="time", client=client)
    one, two = (
        {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}
        for root in (tmp_path / "a.zarr", tmp_path / "b.zarr")
    )
    assert one == two
