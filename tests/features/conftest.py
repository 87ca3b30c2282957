"""The real flights as tables in memory, read once."""

from __future__ import annotations

import pytest
from features_helpers import DERIVED, as_columns, data_folder

from daskml_scale.spec.expressions import Coded, Values, evaluate


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
