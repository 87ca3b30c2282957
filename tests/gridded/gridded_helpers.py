"""A small cube of months and cells, and a way to run grid steps over it in any chunking."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from daskml_scale.plan.units import Template, Variable
from daskml_scale.spec.cube_stages import CubeSpec
from daskml_scale.stages.gridded.stage import GridStage
from daskml_scale.stages.run import run_stage
from daskml_scale.storage import stores, tables


def cube(times: int = 30, lats: int = 4, lons: int = 6, *, seed: int = 0, freq: str = "MS") -> xr.Dataset:
    """Return temperatures with a season, a trend, and missing cells."""
    import pandas as pd

    random = np.random.default_rng(seed)
    time = pd.date_range("1999-03-01", periods=times, freq=freq)
    values = 280 + 10 * np.cos(2 * np.pi * np.asarray(time.day_of_year) / 365)[:, None, None]
    values = values + random.standard_normal((times, lats, lons))
    values[random.random(values.shape) < 0.1] = np.nan
    values[:, 0, 0] = np.nan
    coords = {"time": time, "lat": np.linspace(-60.0, 60.0, lats), "lon": np.arange(lons) * 10.0}
    return xr.Dataset({"t": (("time", "lat", "lon"), values)}, coords=coords)


def stored(ds: xr.Dataset, url: Path, chunks: tuple[int, int, int]) -> str:
    """Write a cube as our stages do."""
    blocks = tuple(max(1, min(chunk, size)) for chunk, size in zip(chunks, ds.t.shape, strict=True))
    times = ds.time.values.astype("datetime64[ns]")
    kind = tables.column_type(times)
    variables = {
        "t": Variable("float64", ds.t.dims, ds.t.shape, blocks),
        "time": replace(kind.variable("time", ds.sizes["time"], 1), chunks=(1000,)),
        **{name: Variable("float64", (name,), (ds.sizes[name],), (ds.sizes[name],)) for name in ("lat", "lon")},
    }
    stores.create(str(url), Template("time", ds.sizes["time"], variables))
    values = {"t": ds.t.values, "lat": ds.lat.values, "lon": ds.lon.values, "time": tables.encode(times, kind)}
    for name, array in values.items():
        if array.size:
            stores.write_region(str(url), 0, {name: array})
    return str(url)


def run(source: str, out: Path, **settings: Any) -> xr.Dataset:
    """Run a cube stage in this process and return its output, loaded."""
    spec = CubeSpec.model_validate({"kind": "cube", "input": "x", "dtype": "float64", **settings})
    stage = GridStage(
        out.name, str(out.with_suffix(".ledger")), source, tuple(spec.steps), spec.time, spec.fit_where,
        spec.coarsen, spec.chunks, spec.dtype,
    )  # fmt: skip
    run_stage(stage)
    return stores.open_dataset(str(out.with_suffix(".zarr"))).load()
