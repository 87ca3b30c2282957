"""Steps on the history of an entity: against pandas on whole data, over any chunking; and never the future."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from features_helpers import made_in_chunks, write_table
from hypothesis import given, settings
from hypothesis import strategies as st

import daskml_scale as dms
from daskml_scale.errors import SpecError
from daskml_scale.spec.expressions import Coded
from daskml_scale.stages.features import history
from daskml_scale.stages.features.program import Program, parse_steps

START = np.datetime64("2013-03-31T00:00", "ns")
COMMON = {"of": "value", "at": "time", "match": ["place"], "within": "100d"}
STEPS = [
    {"lag": {**COMMON, "lags": [1, 3]}},
    {"diff": {**COMMON, "lags": [1, 2]}},
    {"rolling": {**COMMON, "events": 3, "stats": ["mean", "sum", "count", "min", "max", "std"]}},
    {"exponential_mean": {**COMMON, "half_life": "30m"}},
    {"forward_fill": COMMON},
    {"since": {**COMMON, "of": "alarm"}},
]
cells = st.tuples(
    st.one_of(st.integers(0, 600), st.sampled_from([7, 7, 8])),
    st.integers(0, 2),
    st.one_of(st.none(), st.floats(-1e4, 1e4), st.integers(-3, 3).map(float), st.sampled_from([np.inf, -np.inf])),
    st.sampled_from([0.0, 1.0, np.nan]),
)
histories = st.lists(cells, min_size=1, max_size=40)


def table(rows) -> dict[str, object]:
    minute, place, value, alarm = zip(*rows, strict=True)
    return {
        "time": START + np.array(minute) * np.timedelta64(1, "m"),
        "place": Coded(np.array(place, dtype="int32"), ("c", "a", "b")),
        "value": np.array([np.nan if v is None else v for v in value], dtype="float64"),
        "alarm": np.array(alarm),
    }


def features(columns, chunk=1000, shard=0, known_at="time", steps=STEPS, target=None) -> np.ndarray:
    return made_in_chunks(Program(parse_steps(steps), known_at, target), columns, chunk, shard)[1]


def by_pandas(columns) -> np.ndarray:
    frame = pd.DataFrame({**columns, "place": columns["place"].codes})
    ordered = frame.sort_values("time", kind="stable")
    groups = ordered.groupby("place")
    value = groups["value"]
    rolled = value.rolling(3, min_periods=1)

    def rolling(stat: str) -> pd.Series:
        return getattr(rolled, stat)().reset_index(level=0, drop=True)

    decayed = pd.concat(
        [group["value"].ewm(halflife="30min", times=group["time"]).mean() for _, group in groups]
        if len(ordered) else [ordered["value"]]
    )  # fmt: skip
    count = rolling("count")
    alarmed = ordered["time"].where(ordered["alarm"].fillna(0) != 0).groupby(ordered["place"]).ffill()
    return pd.DataFrame({
        0: value.shift(1), 1: value.shift(3), 2: value.diff(1), 3: value.diff(2), 4: rolling("mean"),
        5: rolling("sum"), 6: count, 7: rolling("min"), 8: rolling("max"), 9: rolling("std"),
        10: decayed.where(value.ffill().notna()), 11: value.ffill(),
        12: (ordered["time"] - alarmed).dt.total_seconds(),
    }).sort_index().to_numpy()  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(histories, st.integers(1, 12), st.integers(1, 40))
def test_histories_equal_pandas_on_any_grid(rows, chunk, shard):
    """Unsorted and equal times, missing values, entities of one row: rows recorded when they are known."""
    columns = table(rows)
    found = features(columns, chunk, shard)
    np.testing.assert_allclose(found, by_pandas(columns), rtol=1e-6, atol=1e-4)
    assert found.tobytes() == features(columns).tobytes()


@settings(max_examples=40, deadline=None)
@given(histories, st.integers(1, 12), st.integers(-90, 90), st.sampled_from(["10m", "2h"]))
def test_histories_are_those_of_a_plain_loop(rows, chunk, delay, within):
    """known_at before and after the row's own record; a bounded look back."""
    columns = table(rows)
    steps = [
        {name: {**settings, "within": within}} for step in STEPS for name, settings in step.items()
        if name in ("lag", "forward_fill", "rolling")
    ]  # fmt: skip
    found = features(columns, chunk, steps=steps, known_at=f"time + minutes({delay})")
    times, value = columns["time"], columns["value"]
    order = np.argsort(times, kind="stable")
    for row in range(len(rows)):
        known = times[row] + np.timedelta64(delay, "m")
        after = known - (np.timedelta64(10, "m") if within == "10m" else np.timedelta64(120, "m"))
        past = [j for j in order if after < times[j] <= known and rows[j][1] == rows[row][1]]
        itself = row in past
        past = past[: past.index(row) + 1] if itself else past
        before = past[:-1] if itself else past
        wanted = [value[before[-n]] if len(before) >= n else np.nan for n in (1, 3)]
        np.testing.assert_array_equal(found[row, :2], wanted)
        present = [value[j] for j in past if not np.isnan(value[j])]
        assert found[row, 4] == sum(not np.isnan(value[j]) for j in past[-3:])
        np.testing.assert_array_equal(found[row, -1], present[-1] if present else np.nan)


@pytest.mark.parametrize("step", STEPS, ids=lambda step: next(iter(step)))
@pytest.mark.parametrize("garbage", [np.nan, 1e300, -7.0])
def test_garbage_recorded_after_known_at_changes_no_bit(step, garbage):
    rng = np.random.default_rng(4)
    drawn = rng.integers(0, 400, 60), rng.integers(0, 3, 60), rng.normal(size=60), rng.integers(0, 2, 60)
    columns = table(list(zip(*(part.tolist() for part in drawn), strict=True)))
    known_at = "time - minutes(20)"
    clean = features(columns, 7, known_at=known_at, steps=[step])
    assert np.isfinite(clean).any()
    for row in range(60):
        later = columns["time"] > columns["time"][row] - np.timedelta64(20, "m")
        spoilt = {**columns, **{name: np.where(later, garbage, columns[name]) for name in ("value", "alarm")}}
        found = features(spoilt, 7, known_at=known_at, steps=[step])
        assert found[row].tobytes() == clean[row].tobytes()


@pytest.mark.parametrize("step", STEPS, ids=lambda step: next(iter(step)))
def test_a_row_never_finds_its_own_target(step):
    (name, options), = step.items()  # fmt: skip
    columns = table([(minute, 0, float(minute), float(minute % 3 == 0)) for minute in range(0, 60, 2)])
    recipe = [{name: {**options, "of": "late"}}]
    columns = {**columns, "late": columns["value"], "known": columns["time"] + np.timedelta64(1, "s")}
    program = Program(parse_steps(recipe), "known", "late").fitted({}, ["late"])
    clean = made_fitted(program, columns)
    other = {**columns, "late": columns["late"].copy()}
    other["late"][20] = 0.0 if name == "since" else 1e9
    found = made_fitted(program, other)
    assert found[20].tobytes() == clean[20].tobytes()
    assert found[21].tobytes() != clean[21].tobytes()


def made_fitted(program: Program, columns) -> np.ndarray:
    return made_in_chunks(program, columns, 4)[1]


def test_blocks_of_histories_change_no_bit(monkeypatch):
    columns = table([(minute, minute % 2, float(minute), 1.0) for minute in range(50)])
    whole = features(columns)
    monkeypatch.setattr(history, "_BLOCK", 3)
    assert features(columns).tobytes() == whole.tobytes()


def test_summer_time_changes_no_history(tmp_path):
    """Instants are UTC: an hour that happens twice on the clock is two hours."""
    data = table([(30 * row, 0, float(row), 0.0) for row in range(8)])
    data["time"] = np.datetime64("2013-11-03T04:30", "ns") + np.arange(8) * np.timedelta64(30, "m")
    write_table(f"{tmp_path}/t.zarr", data, 3)
    step = dms.steps.Lag(of="value", at="time", match=["place"], within="61m", lags=[2])
    found = dms.Recipe([step], known_at="time").fit_transform(f"{tmp_path}/t.zarr", f"{tmp_path}/f.zarr")
    np.testing.assert_array_equal(found.features.values[:, 0], [np.nan, np.nan, 0, 1, 2, 3, 4, 5])


def test_what_a_history_says_is_recorded_later_is_refused_at_the_row(tmp_path):
    write_table(f"{tmp_path}/t.zarr", table([(0, 0, 1.0, 0.0)]), 3)
    steps = [{"keep": {"of": "value"}}, {"lag": {**COMMON, "lags": [1]}}]
    with pytest.raises(SpecError, match=r"steps\[0\]\.keep\.of: 'value' is recorded after known_at"):
        dms.Recipe(steps, known_at="time - hours(1)").fit(f"{tmp_path}/t.zarr")
    with pytest.raises(SpecError, match=r"steps\[0\]\.lag\.of: column 'place'.*is a category"):
        dms.Recipe([{"lag": {**COMMON, "of": "place", "lags": [1]}}], known_at="time").fit(f"{tmp_path}/t.zarr")
