"""`daskml-scale run fleet` and `run grid`: planned, run, and nothing done the second time."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr

import daskml_scale as dms

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.timeout(280)


def run(workflow: str, store: Path) -> None:
    """Run by the command line, in a process of its own."""
    command = [sys.executable, "-m", "daskml_scale", "run", workflow, "--store", str(store), "--cluster", "none", "-q"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=250, check=False)
    assert done.returncode == 0, done.stderr


def file(workflow: str) -> Path:
    return ROOT / "workflows" / f"{workflow}.yaml"


@pytest.fixture(scope="module")
def fleet(tmp_path_factory) -> Path:
    store = tmp_path_factory.mktemp("fleet") / "store"
    planned = dms.dry_run(file("fleet"), store=store)
    assert [stage.name for stage in planned][:4] == ["vehicles", "readings", "check", "features"]
    assert not store.exists()
    run("fleet", store)
    return store


@pytest.fixture(scope="module")
def grid(tmp_path_factory) -> Path:
    store = tmp_path_factory.mktemp("grid") / "store"
    planned = dms.dry_run(file("grid"), store=store)
    assert all(stage.units for stage in planned if not stage.note)
    assert not store.exists()
    run("grid", store)
    return store


@pytest.mark.parametrize("workflow", ["fleet", "grid"])
def test_a_second_run_does_nothing(workflow, request):
    store = request.getfixturevalue(workflow)
    summary = dms.run(file(workflow), store=store, cluster="none")
    assert all(stage.units == stage.reused > 0 for stage in summary.stages)


def test_failures_are_foreseen(fleet):
    metrics = json.loads((fleet / "summary.json").read_text())["metrics"]
    assert 0.75 < metrics["roc_auc"] < 0.999
    ds = dms.open_dataset(str(fleet / "predictions.zarr"))
    assert (ds.status.values == 1).all()
    assert ds.sizes["row"] == 19_200


def test_the_fleets_features_are_in_the_catalogue(fleet):
    sets = dms.feature_sets(fleet)
    asked = pd.DataFrame({"vehicle": [3, 3, 99], "time": pd.to_datetime(["2024-02-01", "2023-01-01", "2024-02-01"])})
    found = sets.historical(asked, "fleet-health:vibration_mean_last_24")
    assert found.vibration_mean_last_24.notna().tolist() == [True, False, False]


def test_the_profile_is_written(fleet):
    profile = json.loads((fleet / "check.profile.json").read_text())
    assert profile["rows"] == 19_200
    assert 0 < profile["columns"]["vibration"]["missing_share"] < 0.1


def test_next_month_is_predicted_as_a_cube(grid):
    metrics = json.loads((grid / "summary.json").read_text())["metrics"]
    assert 0.2 < metrics["r2"] < 0.95
    predicted = dms.open_dataset(str(grid / "predictions.zarr")).load()
    climate = dms.open_dataset(str(grid / "climate.zarr")).load()
    assert predicted.prediction.dims == ("time", "lat", "lon")
    xr.testing.assert_equal(predicted.time, climate.time)
    means = climate.t2m.sel(time=slice(None, "2009-12-31")).groupby("time.month").mean()
    anomaly = climate.t2m - means.sel(month=climate.time.dt.month)
    features = dms.open_dataset(str(grid / "features.zarr")).load()
    np.testing.assert_allclose(features.t2m_anomaly, anomaly, atol=1e-3)
    late = climate.time.values >= np.datetime64("2010-01-01")
    following = anomaly.shift(time=-1).values[late][:-1].ravel()
    assert np.corrcoef(predicted.prediction.values[late][:-1].ravel(), following)[0, 1] > 0.5
