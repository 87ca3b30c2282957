"""The cube: a documented, seeded generator of monthly temperature and precipitation on a globe.

Every value follows from the seed, its month and its cell alone, so any part can be made by itself:

* **seasonal cycle**: by latitude, opposite in the hemispheres; **trend**: 0.02 K a year, twice that at the poles;
* **anomalies**: six patterns of planetary size whose strengths are autoregressive (0.8 from month to month), so next
  month can be predicted in part; **coupled**: precipitation follows the temperature patterns of the month before;
* noise of each cell and month, which nobody can predict.

``elevation`` has no time. `grid.yaml` uses this.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import xarray as xr

MODES = 6
MEMORY = 0.8
"""Autocorrelation of the patterns from month to month."""


def climate(region: Mapping[str, slice], *, lats: int, lons: int, start: str = "1980-01", seed: int = 7) -> xr.Dataset:
    """Return temperature (K), precipitation (mm a day) and elevation (m) of a region of (time, lat, lon)."""
    time, lat, lon = (np.arange(region[dim].start, region[dim].stop) for dim in ("time", "lat", "lon"))
    latitude, longitude = (lat + 0.5) * 180 / lats - 90, (lon + 0.5) * 360 / lons
    months = np.datetime64(start, "M") + time
    season = np.cos(2 * np.pi * (months.astype("int64") % 12 - 6.5) / 12)
    patterns = _patterns(seed, latitude, longitude)
    strength = _strengths(seed, region["time"].stop)
    now, before = strength[time + 1], strength[time]
    noise = (
        _noise(seed, time, (lats, lons))[:, :, lat[:, None], lon] if len(time) else np.zeros((2, 0, len(lat), len(lon)))
    )
    north = (latitude / 90)[:, None]
    elevation = 1500 * np.maximum(0, np.sin(np.radians(3 * longitude)) * np.cos(np.radians(2 * latitude))[:, None])
    t2m = (
        (300 - 45 * north**2 - 0.0065 * elevation)
        + (18 * north * season[:, None, None])
        + (0.02 / 12 * time)[:, None, None] * (1 + np.abs(north))
        + np.einsum("tk,kyx->tyx", now, patterns)
        + 0.5 * noise[0]
    )
    wet = 3 + 2 * np.cos(3 * np.radians(latitude))[:, None] + season[:, None, None] * north
    precip = np.maximum(0, wet + 0.4 * np.einsum("tk,kyx->tyx", before, patterns) + 0.3 * noise[1])
    dims = ("time", "lat", "lon")
    return xr.Dataset(
        {
            "t2m": (dims, t2m.astype("float32"), {"units": "K", "long_name": "temperature at 2 m"}),
            "precip": (dims, precip.astype("float32"), {"units": "mm day-1", "long_name": "precipitation"}),
            "elevation": (("lat", "lon"), elevation.astype("float32"), {"units": "m"}),
        },
        coords={
            "time": ("time", months.astype("datetime64[s]")),
            "lat": ("lat", latitude, {"units": "degrees_north"}),
            "lon": ("lon", longitude, {"units": "degrees_east"}),
        },
    )


def _patterns(seed: int, latitude: np.ndarray, longitude: np.ndarray) -> np.ndarray:
    """Return patterns of planetary size, shape (modes, lat, lon)."""
    random = np.random.Generator(np.random.Philox(key=[seed, 1]))
    waves, phases = random.integers(1, 4, (2, MODES)), random.uniform(0, 2 * np.pi, (2, MODES))
    up = np.sin(waves[0][:, None] * np.radians(latitude) + phases[0][:, None])
    along = np.cos(waves[1][:, None] * np.radians(longitude) + phases[1][:, None])
    return up[:, :, None] * along[:, None, :]


def _strengths(seed: int, months: int) -> np.ndarray:
    """Return how strong each pattern is, from the month before the first on, shape (months + 1, modes)."""
    random = np.random.Generator(np.random.Philox(key=[seed, 2]))
    found = random.standard_normal((months + 1, MODES))
    for month in range(1, months + 1):
        found[month] = MEMORY * found[month - 1] + np.sqrt(1 - MEMORY**2) * found[month]
    return found


def _noise(seed: int, time: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Return the noise of both variables, shape (2, time, lat, lon)."""
    streams = (np.random.Generator(np.random.Philox(key=[seed, 1000 + int(month)])) for month in time)
    return np.stack([stream.standard_normal((2, *shape)) for stream in streams], axis=1)
