"""The feature matrix of the flights as one writes it by hand: pandas, the whole table in memory.

A peer and a reference: the benchmarks compare its numbers with ours before they compare seconds.
Windows are sums over sorted events by ``searchsorted``: the quick way, not the obvious one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import pandas as pd

HOUR = np.timedelta64(3600 * 10**9, "ns")
TAKEN = ["temp", "wind_speed", "precip", "visib"]


def matrix(flights: pd.DataFrame, weather: pd.DataFrame, planes: pd.DataFrame) -> np.ndarray:
    """Return the features of all flights, float32 of shape (flights, 23), in the order of the recipe."""
    import pandas as pd

    local = flights.sched.dt.tz_convert("America/New_York")
    minute, day = local.dt.hour * 60 + local.dt.minute, local.dt.day_of_year
    columns = [local.dt.month, local.dt.day_of_week, day, minute]
    for values, period in ((minute, 1440), (day, 366)):
        angle = 2 * np.pi * values.to_numpy() / period
        columns += [np.sin(angle), np.cos(angle)]
    learnt = flights[flights.sched < pd.Timestamp("2013-10-01", tz="UTC")]
    for name in ("carrier", "origin", "dest"):
        labels = sorted(learnt[name].unique())
        columns.append(pd.Categorical(flights[name], categories=labels).codes)
    joined = flights[["tailnum"]].merge(planes[["tailnum", "year", "seats"]], how="left", on="tailnum")
    columns += [joined.year, joined.seats]
    columns += _weather_at(flights, weather)
    known = _instants(flights.sched) - 2 * HOUR
    late = (flights.arr_delay > 15).astype(float).where(flights.arr_delay.notna()).to_numpy()
    delay = flights.dep_delay.to_numpy()
    departed = _instants(flights.sched + pd.to_timedelta(flights.dep_delay, unit="m"))
    arrived = _instants(flights.sched + pd.to_timedelta(flights.dep_delay + flights.air_time + 30, unit="m"))
    for values, at, hours in ((late, arrived, (1, 3, 6)), (delay, departed, (1, 3))):
        columns += _trailing(flights.origin.to_numpy(), values, at, known, hours)
    columns.append(flights.distance)
    return np.column_stack([np.asarray(column, dtype="float32") for column in columns])


def _instants(values: pd.Series) -> np.ndarray:
    return np.asarray(values.dt.tz_convert(None), dtype="datetime64[ns]")


def _weather_at(flights: pd.DataFrame, weather: pd.DataFrame) -> list[np.ndarray]:
    """Return the newest reading at the airport, at most three hours old two hours before departure."""
    import pandas as pd

    left = pd.DataFrame({"known": flights.sched - pd.Timedelta("2h"), "origin": flights.origin})
    right = weather[["time_hour", "origin", *TAKEN]].sort_values("time_hour", kind="stable")
    found = pd.merge_asof(left, right, left_on="known", right_on="time_hour", by="origin", tolerance=pd.Timedelta("3h"))
    return [found[name].to_numpy() for name in TAKEN]


def _trailing(
    origin: np.ndarray, values: np.ndarray, at: np.ndarray, known: np.ndarray, hours: tuple[int, ...]
) -> list[np.ndarray]:
    """Return the means of the values recorded at the airport in (known - h, known] for each h."""
    means = [np.full(len(known), np.nan) for _ in hours]
    for airport in np.unique(origin):
        here = origin == airport
        events = here & ~np.isnat(at) & ~np.isnan(values)
        order = np.argsort(at[events], kind="stable")
        when, sums = at[events][order], np.concatenate([[0.0], np.cumsum(values[events][order])])
        last = np.searchsorted(when, known[here], side="right")
        for mean, h in zip(means, hours, strict=True):
            first = np.searchsorted(when, known[here] - h * HOUR, side="right")
            with np.errstate(invalid="ignore"):
                mean[here] = (sums[last] - sums[first]) / (last - first)
    return means
