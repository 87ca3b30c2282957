"""The real job: every feature of every flight against pandas, and the leakage test."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from features_helpers import flights_program, write_table

from daskml_scale.engine.worker import Cache
from daskml_scale.plan.units import row_ranges
from daskml_scale.spec.steps import Trailing
from daskml_scale.spec.workflow import MatrixOut
from daskml_scale.stages.features.bounds import Bounds
from daskml_scale.stages.features.program import Program
from daskml_scale.stages.features.stage import FeaturesStage
from daskml_scale.stages.features.statistics import learn, scan
from daskml_scale.stages.features.transformer import MemoryTable, RowTransformer
from daskml_scale.stages.run import run_stage
from daskml_scale.storage import stores
from daskml_scale.storage.ledger import Ledger

ROWS, CHUNK = 336_776, 20_000
HOUR = np.timedelta64(3600 * 10**9, "ns")


@pytest.fixture(scope="module")
def fitted(tables) -> Program:
    program, where = flights_program()
    return learn(program, [scan(program, tables[0], ROWS, where)], ("late",))


@pytest.fixture(scope="module")
def matrix(tables, fitted) -> np.ndarray:
    flights, weather, planes = tables
    others = {"weather": MemoryTable(weather), "planes": MemoryTable(planes)}
    transformer = RowTransformer(fitted, MemoryTable(flights), others)
    return transformer.matrix(0, ROWS, ((0, ROWS),), Cache(), "float64")


@pytest.fixture(scope="module")
def reference(frames) -> pd.DataFrame:
    """The whole matrix by pandas alone, on the whole table at once."""
    flights, weather, planes = frames
    known = flights.sched - pd.Timedelta(hours=2)
    local = flights.sched.dt.tz_convert("America/New_York")
    found = pd.DataFrame(index=flights.index)
    found["month"], found["dayofweek"] = local.dt.month, local.dt.day_of_week
    found["dayofyear"], found["minute_of_day"] = local.dt.day_of_year, local.dt.hour * 60 + local.dt.minute
    for name, period in (("minute_of_day", 1440), ("dayofyear", 366)):
        found[f"{name}_sin"] = np.sin(2 * np.pi * found[name] / period)
        found[f"{name}_cos"] = np.cos(2 * np.pi * found[name] / period)
    learnt = flights[flights.sched < pd.Timestamp("2013-10-01", tz="UTC")]
    for name in ("carrier", "origin", "dest"):
        codes = {label: code for code, label in enumerate(sorted(learnt[name].unique()))}
        found[name] = flights[name].map(codes).fillna(-1)
    joined = flights[["tailnum"]].merge(planes[["tailnum", "year", "seats"]], how="left", on="tailnum")
    found["planes_year"], found["planes_seats"] = joined.year, joined.seats
    taken = ["temp", "wind_speed", "precip", "visib"]
    left = pd.DataFrame({"known": known, "origin": flights.origin}).sort_values("known", kind="stable")
    observed = weather[["time_hour", "origin", *taken]].sort_values("time_hour", kind="stable")
    nearest = pd.merge_asof(
        left, observed, left_on="known", right_on="time_hour", by="origin", tolerance=pd.Timedelta("3h")
    )
    nearest.index = left.index
    for name in taken:
        found[f"weather_{name}"] = nearest[name]
    departed = flights.sched + pd.to_timedelta(flights.dep_delay, unit="m")
    arrived = flights.sched + pd.to_timedelta(flights.dep_delay + flights.air_time + 30, unit="m")
    late = (flights.arr_delay > 15).astype(float).where(flights.arr_delay.notna())
    for name, values, at, hours in (
        ("late", late, arrived, (1, 3, 6)), ("dep_delay", flights.dep_delay, departed, (1, 3)),
    ):  # fmt: skip
        for h in hours:
            found[f"{name}_mean_{h}h"] = running_mean(flights.origin, values, at, known, h)
    found["distance"] = flights.distance
    return found


def running_mean(origin, values, at, known, hours: int) -> pd.Series:
    """Mean of the values recorded in (known - hours, known], by sums over all events up to each end."""
    parts = []
    for airport, rows in known.groupby(origin):
        events = pd.DataFrame({"at": at, "value": values})[origin == airport].dropna().sort_values("at")
        sums = events.groupby("at").value.agg(["sum", "count"]).cumsum()
        ends = [sums.reindex(rows - pd.Timedelta(hours=h), method="ffill").fillna(0) for h in (0, hours)]
        inside = ends[0].to_numpy() - ends[1].to_numpy()
        with np.errstate(invalid="ignore"):
            parts.append(pd.Series(inside[:, 0] / inside[:, 1], rows.index).where(inside[:, 1] > 0))
        assert airport in ("EWR", "JFK", "LGA")
    return pd.concat(parts)


def test_every_feature_of_every_flight_equals_pandas(matrix, reference, fitted):
    assert matrix.shape == (ROWS, 23)
    assert list(reference.columns) == list(fitted.features)
    for column, name in enumerate(fitted.features):
        expected = reference[name].to_numpy(dtype="float64")
        np.testing.assert_allclose(matrix[:, column], expected, rtol=0, atol=1e-6, err_msg=name)
    # The comparison is not one of missing values with each other.
    share = np.isnan(matrix).mean(axis=0)
    assert share.max() < 0.2
    assert {name for name, part in zip(fitted.features, share, strict=True) if part} == {
        "planes_year", "planes_seats", "weather_temp", "weather_wind_speed", "weather_precip", "weather_visib",
        "late_mean_1h", "late_mean_3h", "late_mean_6h", "dep_delay_mean_1h", "dep_delay_mean_3h",
    }  # fmt: skip


def test_the_stage_writes_the_same_matrix_shard_by_shard(tables, matrix, fitted, tmp_path):
    names = ("sched", "arrived", "departed", "late", "dep_delay", "origin", "dest", "carrier", "flight", "tailnum")
    flights = {name: tables[0][name] for name in (*names, "distance")}
    write_table(f"{tmp_path}/flights.zarr", flights, CHUNK, row_key=["sched", "origin", "carrier", "flight"])
    for name, table in zip(("weather", "planes"), tables[1:], strict=True):
        write_table(f"{tmp_path}/{name}.zarr", table, 10_000)
    program, where = flights_program()
    others = {name: f"{tmp_path}/{name}.zarr" for name in ("weather", "planes")}
    out = MatrixOut(chunk=5_000, shard=20_000)
    stage = FeaturesStage("features", f"{tmp_path}/f.ledger", f"{tmp_path}/flights.zarr", program, others, where, out)
    result = run_stage(stage)
    assert result.result == {"features": 23, "rows": ROWS, "recipe_hash": fitted.hash}
    written, _ = stores.read_raw(f"{tmp_path}/f.zarr", "features", 0, ROWS)
    assert written.tobytes() == matrix.astype("float32").tobytes()
    late, _ = stores.read_raw(f"{tmp_path}/f.zarr", "late", 0, ROWS)
    np.testing.assert_array_equal(late, tables[0]["late"])
    rows = [record for key, record in Ledger(stage.ledger).records().items() if key.startswith("rows/")]
    assert (len(rows), sum(record.rows for record in rows)) == (17, ROWS)


POOL = np.random.default_rng(7).choice([np.nan, np.inf, -np.inf, 1e300, -7.0, 123.456], 2 * ROWS)
LATER = np.random.default_rng(8).integers(1, 10**15, 2 * ROWS).astype("timedelta64[ns]")
LATER[::2] = np.timedelta64("NaT")


def spoil(columns, later: np.ndarray, names, instants, after, rng) -> None:
    """Overwrite what is recorded later: values by garbage, their instants by none or other later ones."""
    for name in names:
        start = rng.integers(0, ROWS)
        columns[name] = np.where(later, POOL[start : start + len(later)], columns[name])
    for name in instants:
        start = rng.integers(0, ROWS)
        columns[name] = np.where(later, after + LATER[start : start + len(later)], columns[name])


def one_row(program: Program, flights, weather, planes, row: int) -> bytes:
    """Return a row's features as the real path computes them: halo from the chunks' bounds."""
    ranges = row_ranges(ROWS, CHUNK)
    used = {name: flights[name] for name in program.scan_columns(None)}
    scans = [scan(program, {k: v[a:b] for k, v in used.items()}, b - a, None) for a, b in ranges]
    halo = Bounds.merge(program, ranges, scans).halo(row, row + 1)
    others = {"weather": MemoryTable(weather), "planes": MemoryTable(planes)}
    # A cache of its own: the garbage must be read.
    return RowTransformer(program, MemoryTable(flights), others).matrix(row, row + 1, halo, Cache()).tobytes()


def garbled(tables, known: np.datetime64, seed: int):
    """Return the tables as somebody at ``known`` could not have seen them."""
    rng = np.random.default_rng(seed)
    flights, weather, planes = (dict(table) for table in tables)
    not_departed = ~(tables[0]["departed"] <= known)  # missing instants are later, too
    not_arrived = ~(tables[0]["arrived"] <= known)
    spoil(flights, not_departed, ["dep_delay", "dep_time"], ["departed"], known, rng)
    spoil(flights, not_arrived, ["late", "arr_delay", "arr_time", "air_time"], ["arrived"], known, rng)
    observed = ["temp", "dewp", "humid", "wind_dir", "wind_speed", "wind_gust", "precip", "pressure", "visib"]
    spoil(weather, tables[1]["time_hour"] > known, observed, ["time_hour"], known, rng)
    return flights, weather, planes


def changed_rows(program: Program, tables, matrix: np.ndarray, rows) -> list[int]:
    """Return the rows whose features change when everything later than their ``known_at`` is garbage."""
    changed = []
    for row in rows:
        known = tables[0]["sched"][row] - 2 * HOUR
        flights, weather, planes = garbled(tables, known, int(row))
        assert not_equal(flights["late"], tables[0]["late"]) > 0
        if one_row(program, flights, weather, planes, row) != matrix[row].astype("float32").tobytes():
            changed.append(int(row))
    return changed


def not_equal(left: np.ndarray, right: np.ndarray) -> int:
    return int((~((left == right) | (np.isnan(left) & np.isnan(right)))).sum())


DRAWN = np.sort(np.random.default_rng(2013).choice(ROWS, 50, replace=False))


def test_garbage_in_all_that_is_recorded_later_leaves_50_rows_bit_identical(tables, fitted, matrix):
    assert changed_rows(fitted, tables, matrix, DRAWN) == []


@pytest.mark.parametrize("peek", ["trailing at sched", "weather to come"])
def test_the_leakage_test_finds_a_recipe_that_peeks(tables, fitted, peek):
    if peek == "trailing at sched":
        steps = [
            step.model_copy(update={"at": "sched"}) if isinstance(step, Trailing) else step for step in fitted.steps
        ]
        program = replace(fitted, steps=tuple(steps))
    else:
        program = replace(fitted, known_at="sched")
    flights, weather, planes = tables
    others = {"weather": MemoryTable(weather), "planes": MemoryTable(planes)}
    peeking = RowTransformer(program, MemoryTable(flights), others).matrix(0, ROWS, ((0, ROWS),), Cache(), "float64")
    assert len(changed_rows(program, tables, peeking, DRAWN[::5])) >= 8
