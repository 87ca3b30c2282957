"""The fleet: a documented, seeded generator of vehicles that wear, heat up, drop out and fail.

Every vehicle has a random stream of its own (Philox, keyed by seed and number), so any part of the table can be
made by itself and always is the same. In the order in which it happens:

* **load** (0 to 1): a vehicle's own level, the time of day, less at weekends, noise;
* **ambient** temperature: a climate, the season, the time of day, noise;
* **wear** grows with the square of the load, more above 25 degrees, at a pace of the model; a life ends when it
  reaches a random limit. The failure is repaired within a day, during which nothing is measured, and wear starts
  anew. Nobody measures wear: it shows in vibration (its 4th power), temperature (3rd) and pressure (2nd);
* **dropouts**: each sensor falls silent for some hours now and then;
* **fails_7d**: whether a failure follows within 7 days; missing where the data ends before that is known.

Readings come at regular hours plus up to ten minutes. 20 vehicles x 120 days x 8 readings are 2 MB in memory;
100,000 are 10 GB. `fleet.yaml` uses both functions.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import xarray as xr

MODELS = 3
LIVES_A_DAY = 0.25
"""How many failures are drawn for a vehicle: more than will happen."""
HORIZON = 7
"""Days that the label looks ahead."""


def vehicles(region: Mapping[str, slice], *, seed: int = 7) -> xr.Dataset:
    """Return what is known of each vehicle: age in years, power in kW, mean temperature where it drives."""
    (entries,) = region.values()
    numbers = np.arange(entries.start, entries.stop)
    known = [_nature(_random(seed, number), number) for number in numbers]
    columns = {name: np.array([one[name] for one in known], dtype="float64") for name in ("age", "power", "climate")}
    return xr.Dataset(
        {"vehicle": ("entry", numbers), **{name: ("entry", values) for name, values in columns.items()}},
        attrs={"row_key": ["vehicle"]},
    )


def readings(
    region: Mapping[str, slice],
    *,
    vehicles: int,
    days: int,
    per_day: int = 8,
    start: str = "2024-01-01",
    seed: int = 7,
) -> xr.Dataset:
    """Return rows of the table of readings: vehicle after vehicle, each in the order of time."""
    (rows,) = region.values()
    steps = days * per_day
    if rows.stop > vehicles * steps:
        raise ValueError(
            f"{vehicles} vehicles x {days} days x {per_day} readings are {vehicles * steps} rows; set dims:"
        )
    first, last = rows.start // steps, -(-rows.stop // steps)
    made = [_life(seed, number, days, per_day, start) for number in range(first, last)] or [
        _life(seed, 0, 1, per_day, start)
    ]
    skipped = rows.start - first * steps
    inside = slice(skipped, skipped + rows.stop - rows.start)
    columns = {name: ("row", np.concatenate([one[name] for one in made])[inside]) for name in made[0]}
    return xr.Dataset(columns, attrs={"row_key": ["vehicle", "time"]})


def _random(seed: int, number: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(key=[seed, int(number)]))


def _nature(random: np.random.Generator, number: int) -> dict[str, float]:
    """Return the first draws of a vehicle's stream: what it is, and how it is used."""
    age, climate, level, strength, begun = random.uniform([0, 5, 0.35, 0.8, 0], [12, 25, 0.75, 1.25, 0.9])
    return {
        "age": round(age, 1), "power": 90.0 + 40 * (number % MODELS), "climate": round(climate, 1),
        "level": level, "strength": strength, "begun": begun,
    }  # fmt: skip


def _life(seed: int, number: int, days: int, per_day: int, start: str) -> dict[str, np.ndarray]:
    """Return all readings of one vehicle, every column of shape (days * per_day,)."""
    random = _random(seed, number)
    nature = _nature(random, number)
    limits = nature["strength"] * random.weibull(3.0, 4 + int(LIVES_A_DAY * days)) + 0.2
    steps = days * per_day
    hour = np.arange(steps) * (24 / per_day)
    noise = random.standard_normal((5, steps))
    load = nature["level"] * (1 + 0.3 * np.sin(2 * np.pi * (hour - 8) / 24)) * np.where(hour // 24 % 7 < 5, 1.0, 0.7)
    load = np.clip(load + 0.08 * noise[0], 0.02, 1.0)
    ambient = nature["climate"] + 9 * np.sin(2 * np.pi * (hour / 24 - 110) / 365) + 2 * noise[1]
    ambient += 4 * np.sin(2 * np.pi * (hour - 9) / 24)
    pace = (1 + 0.3 * (number % MODELS) + 0.03 * nature["age"]) / (15 * per_day)
    wear, failed = _worn(pace * load**2 * (1 + 0.03 * np.maximum(ambient - 25, 0)), limits, nature["begun"])
    sensors = {
        "load": load,
        "ambient": ambient,
        "temperature": ambient + 45 * load + 18 * wear**3 + 1.5 * noise[2],
        "vibration": 1 + 0.8 * load + 2.5 * wear**4 + 0.2 * noise[3],
        "pressure": 4.5 - 0.3 * load - 0.9 * wear**2 + 0.1 * noise[4],
    }
    silent = _spells(failed, per_day)
    for name, values in sensors.items():
        drops = _spells(random.random(steps) < 0.004, random.integers(2, 12, steps))
        sensors[name] = np.where(silent | drops, np.nan, values)
    seconds = (hour * 3600).astype("int64") + random.integers(0, 600, steps)
    return {
        "time": np.datetime64(start, "s") + seconds.astype("timedelta64[s]"),
        "vehicle": np.full(steps, number),
        **sensors,
        "mileage": np.cumsum(load) * 60 * 24 / per_day,
        "failed": failed.astype("float64"),
        "fails_7d": _label(failed, HORIZON * per_day),
    }


def _worn(growth: np.ndarray, limits: np.ndarray, begun: float) -> tuple[np.ndarray, np.ndarray]:
    """Return wear (0 to 1, of the limit of this life), and at which steps a life ends."""
    ends = np.cumsum(limits)
    total = np.cumsum(growth) + begun * limits[0]
    lives = np.minimum(np.searchsorted(ends, total, "right"), len(limits) - 1)
    wear = (total - np.append(0.0, ends)[lives]) / limits[lives]
    return np.clip(wear, 0, 1), np.diff(lives, prepend=0) > 0


def _spells(begins: np.ndarray, length: int | np.ndarray) -> np.ndarray:
    """Return which steps lie in a spell that begins at some steps and lasts ``length`` steps."""
    at = np.arange(len(begins))
    return np.maximum.accumulate(np.where(begins, at + length, 0)) > at


def _label(failed: np.ndarray, ahead: int) -> np.ndarray:
    """Return 1.0 where a failure follows within ``ahead`` steps, NaN where nobody can know yet."""
    steps = len(failed)
    coming = np.minimum.accumulate(np.where(failed, np.arange(steps), 10**9)[::-1])[::-1]
    after = np.append(coming[1:], 10**9) - np.arange(steps)
    unknown = (after >= 10**8) & (np.arange(steps) + ahead >= steps)
    return np.where(unknown, np.nan, (after <= ahead).astype("float64"))
