"""The generators of fleet and grid: any part by itself, always the same, and with something to be learnt in it."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import xarray as xr

WORKFLOWS = Path(__file__).parents[2] / "workflows"


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, WORKFLOWS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def fleet() -> ModuleType:
    return load("fleet_data")


@pytest.fixture(scope="module")
def readings(fleet) -> xr.Dataset:
    return fleet.readings({"row": slice(0, 19_200)}, vehicles=20, days=120)


@pytest.mark.parametrize(("start", "stop"), [(0, 1), (5, 5), (959, 962), (3_000, 9_000), (19_199, 19_200)])
def test_any_part_of_the_fleet_is_made_by_itself(fleet, readings, start, stop):
    part = fleet.readings({"row": slice(start, stop)}, vehicles=20, days=120)
    xr.testing.assert_identical(part, readings.isel(row=slice(start, stop)))


def test_a_vehicle_is_the_same_in_a_larger_fleet(fleet, readings):
    last = fleet.readings({"row": slice(479_999_990, 480_000_000)}, vehicles=500_000, days=120)
    assert np.unique(last.vehicle).tolist() == [499_999]
    same = fleet.readings({"row": slice(960, 1_920)}, vehicles=500_000, days=120)
    xr.testing.assert_identical(same, readings.isel(row=slice(960, 1_920)))
    with pytest.raises(ValueError, match="set dims:"):
        fleet.readings({"row": slice(0, 20_000)}, vehicles=20, days=120)


def test_wear_shows_before_a_failure(readings):
    failing = readings.fails_7d.values
    assert 0.05 < np.nanmean(failing) < 0.5
    assert 0 < np.isnan(failing).mean() < 0.1
    vibration = readings.vibration.values
    assert np.nanmean(vibration[failing == 1]) > np.nanmean(vibration[failing == 0]) + 0.2
    assert 0.01 < np.isnan(vibration).mean() < 0.1
    times, vehicles = readings.time.values, readings.vehicle.values
    assert (np.diff(times)[np.diff(vehicles) == 0] > np.timedelta64(0, "s")).all()
    assert readings.failed.values.sum() >= 20


def test_the_label_is_whether_a_failure_follows(readings):
    one = readings.isel(row=slice(0, 960))
    failures = one.time.values[one.failed.values == 1]
    horizon = np.timedelta64(7 * 8 * 3 * 3600, "s") + np.timedelta64(600, "s")
    for row in range(0, 960, 37):
        now, label = one.time.values[row], one.fails_7d.values[row]
        follows = ((failures > now) & (failures <= now + horizon)).any()
        if not np.isnan(label):
            assert bool(label) == follows
        else:
            assert now + horizon > one.time.values[-1]
            assert not (failures > now).any()


def test_vehicles_have_a_nature(fleet):
    whole = fleet.vehicles({"entry": slice(0, 20)})
    assert whole.vehicle.values.tolist() == list(range(20))
    xr.testing.assert_identical(fleet.vehicles({"entry": slice(4, 9)}), whole.isel(entry=slice(4, 9)))


def test_any_part_of_the_globe_is_made_by_itself():
    grid = load("grid_data")
    sizes = {"time": 40, "lat": 6, "lon": 9}
    whole = grid.climate({dim: slice(0, size) for dim, size in sizes.items()}, lats=6, lons=9)
    for part in (
        {"time": slice(13, 20), "lat": slice(0, 6), "lon": slice(2, 4)},
        {"time": slice(0, 0), "lat": slice(0, 6), "lon": slice(0, 0)},
        {"time": slice(39, 40), "lat": slice(5, 6), "lon": slice(8, 9)},
    ):
        found = grid.climate(part, lats=6, lons=9)
        xr.testing.assert_allclose(found, whole.isel(part))
        assert found.t2m.shape == tuple(part[dim].stop - part[dim].start for dim in sizes)


def test_the_globe_has_seasons_a_trend_and_anomalies_that_last():
    grid = load("grid_data")
    whole = grid.climate({"time": slice(0, 480), "lat": slice(0, 8), "lon": slice(0, 12)}, lats=8, lons=12)
    north = whole.t2m.isel(lat=-1).mean("lon").groupby("time.month").mean()
    south = whole.t2m.isel(lat=0).mean("lon").groupby("time.month").mean()
    assert north.sel(month=7) > north.sel(month=1) + 20
    assert south.sel(month=1) > south.sel(month=7) + 20
    years = whole.t2m.mean(["lat", "lon"]).groupby("time.year").mean()
    assert 0.01 < np.polyfit(years.year, years, 1)[0] < 0.06
    anomaly = (whole.t2m.groupby("time.month") - whole.t2m.groupby("time.month").mean()).values.reshape(480, -1)
    lasting = [np.corrcoef(cell[:-1], cell[1:])[0, 1] for cell in anomaly.T]
    assert np.mean(lasting) > 0.4
