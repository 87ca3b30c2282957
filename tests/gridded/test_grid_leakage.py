"""Garbage in everything that is measured later changes no bit of what gridded steps say of a time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from gridded_helpers import cube, run, stored

from daskml_scale.spec.steps_grid import GRID_STEPS

NOW = 15
"""Position of the time after which all is garbage: within a block of time, and beyond the times of ``fit_where``."""
EXAMPLES = {
    "keep": [{"keep": {"of": "t"}}],
    "anomalies": [{"anomalies": {"of": "t"}}],
    "lag": [{"lag": {"of": "t", "lags": [1, 3]}}],
    "window": [{"window": {"of": "t", "size": {"lat": 1, "lon": 2}, "stat": "std"}}],
    "lead": [{"lead": {"of": "t", "leads": [2]}}],
    "chained": [
        {"anomalies": {"of": "t"}},
        {"window": {"of": "t_anomaly", "size": {"lon": 1}}},
        {"lag": {"of": "t_anomaly_mean_near", "lags": [1]}},
        {"lead": {"of": "t_anomaly", "leads": [2]}},
        {"lag": {"of": "t_anomaly_lead_2", "lags": [1]}},
    ],
}


def made(ds: xr.Dataset, folder: Path, name: str, **more: object) -> xr.Dataset:
    url = stored(ds, folder / f"{name}.zarr", (4, 2, 3))
    return run(
        url, folder / f"out-{name}", steps=EXAMPLES[name.partition("-")[0]],
        fit_where="time < time('2000-05-01')", chunks={"time": 6, "lat": 4, "lon": 4}, **more,
    ).load()  # fmt: skip


def test_every_gridded_step_has_an_example():
    assert set(EXAMPLES) >= set(GRID_STEPS)


@pytest.mark.parametrize("coarsen", [None, {"sizes": {"lat": 2, "lon": 2}, "boundary": "trim"}])
@pytest.mark.parametrize("name", sorted(EXAMPLES))
def test_nothing_measured_later_counts(tmp_path: Path, name: str, coarsen):
    ds, more = cube(20), {} if coarsen is None else {"coarsen": coarsen}
    clean = made(ds, tmp_path, f"{name}-clean", **more)
    later = set(clean.attrs["later"])
    features = set(clean.data_vars) - later
    assert all(np.isfinite(clean[each].values[: NOW + 1]).any() for each in clean.data_vars)
    for number, garbage in enumerate((np.nan, 1e30)):
        spoilt = ds.assign(t=ds.t.where(ds.time <= ds.time[NOW], garbage))
        found = made(spoilt, tmp_path, f"{name}-{number}", **more)
        for each in features:
            assert found[each].values[: NOW + 1].tobytes() == clean[each].values[: NOW + 1].tobytes(), each
        # What looks ahead says so, and the garbage is seen where it is looked for.
        for each in later:
            assert found[each].values[: NOW + 1].tobytes() != clean[each].values[: NOW + 1].tobytes(), each
    assert bool(later) == (name in ("lead", "chained"))
