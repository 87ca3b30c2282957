"""Histories as long as the table: state is carried from chunk to chunk, exactly, and few chunks are read."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from features_helpers import made_in_chunks, write_table
from hypothesis import given, settings
from hypothesis import strategies as st

import daskml_scale as dms
from daskml_scale.errors import PlanError
from daskml_scale.plan.units import row_ranges
from daskml_scale.spec.expressions import Coded
from daskml_scale.stages.features import carried
from daskml_scale.stages.features.bounds import Bounds
from daskml_scale.stages.features.program import Program, parse_steps
from daskml_scale.stages.features.statistics import Place, learn, scan
from daskml_scale.storage import stores

START = np.datetime64("2013-10-27T00:00", "ns")
COMMON = {"of": "value", "at": "time", "match": ["place"]}
STEPS = [
    {"exponential_mean": {**COMMON, "half_life": "30m"}}, {"forward_fill": COMMON}, {"since": {**COMMON, "of": "alarm"}}
]  # fmt: skip
BOUNDED = [{name: {**step, "within": "10000d"}} for each in STEPS for name, step in each.items()]
cells = st.tuples(
    st.one_of(st.none(), st.integers(0, 600), st.sampled_from([7, 7, 8])),
    st.integers(-1, 2),
    st.one_of(st.none(), st.floats(-1e4, 1e4), st.integers(-3, 3).map(float), st.just(np.inf)),
    st.sampled_from([0.0, 1.0, np.nan]),
)
histories = st.lists(cells, min_size=1, max_size=40)


def table(rows, ordered: bool = False) -> dict[str, object]:
    if ordered:
        rows = sorted(rows, key=lambda row: -1 if row[0] is None else row[0])
    minute, place, value, alarm = zip(*rows, strict=True)
    times = [np.datetime64("NaT") if m is None else START + np.timedelta64(m, "m") for m in minute]
    return {
        "time": np.array(times, dtype="datetime64[ns]"),
        "place": Coded(np.array(place, dtype="int32"), ("c", "a", "b")),
        "value": np.array([np.nan if v is None else v for v in value], dtype="float64"),
        "alarm": np.array(alarm),
    }


def features(steps, columns, chunk, shard, known_at) -> np.ndarray:
    return made_in_chunks(Program(parse_steps(steps), known_at), columns, chunk, shard)[1]


@settings(max_examples=100, deadline=None)
@given(histories, st.integers(1, 12), st.integers(1, 20), st.integers(-90, 90), st.booleans())
def test_what_is_carried_equals_what_is_read(rows, chunk, shard, delay, ordered):
    """Unsorted, equal and missing times, on any grid: as with a bound that reads all."""
    columns, known_at = table(rows, ordered), f"time + minutes({delay})"
    found = features(STEPS, columns, chunk, shard, known_at)
    wanted = features(BOUNDED, columns, len(rows), len(rows), known_at)
    np.testing.assert_allclose(found[:, 0], wanted[:, 0], rtol=1e-9, atol=1e-6)
    np.testing.assert_array_equal(found[:, 1:], wanted[:, 1:])


def test_an_exponential_mean_of_a_long_table_equals_pandas_and_reads_few_chunks():
    rng = np.random.default_rng(1)
    rows = 2000
    minutes = np.sort(rng.integers(0, 100_000, rows))
    columns = table(list(zip(minutes.tolist(), rng.integers(0, 3, rows).tolist(), rng.normal(size=rows).tolist(),
                             rng.integers(0, 2, rows).astype(float).tolist(), strict=True)))  # fmt: skip
    found = features(STEPS[:1], columns, 50, 50, "time")[:, 0]
    frame = pd.DataFrame({**columns, "place": columns["place"].codes})
    theirs = pd.concat(
        [part["value"].ewm(halflife="30min", times=part["time"]).mean() for _, part in frame.groupby("place")]
    )
    np.testing.assert_allclose(found, theirs.sort_index(), rtol=1e-6, atol=1e-9)
    program, ranges = Program(parse_steps(STEPS), "time"), row_ranges(rows, 50)
    scans = [scan(program, {k: v[a:b] for k, v in columns.items()}, b - a, None, Place(a, rows)) for a, b in ranges]
    bounds = Bounds.merge(learn(program, scans), ranges, scans)
    read = [sum(stop - start for start, stop in bounds.halo(*part)) for part in ranges]
    assert max(read) <= 150


def test_tables_sorted_by_entity_read_only_their_own_chunks():
    rows = [(minute, place, 1.0, 1.0) for place in range(3) for minute in range(0, 600, 10)]
    columns = table(rows)
    steps = [*STEPS, {"trailing": {**COMMON, "windows": ["100d"], "stat": "sum"}}]
    program, ranges = Program(parse_steps(steps), "time"), row_ranges(len(rows), 20)
    scans = [
        scan(program, {k: v[a:b] for k, v in columns.items()}, b - a, None, Place(a, len(rows))) for a, b in ranges
    ]
    bounds = Bounds.merge(learn(program, scans), ranges, scans)
    assert bounds.halo(60, 80) == ((60, 80),)
    assert bounds.halo(80, 100) == ((60, 100),)
    assert bounds.halo(120, 140) == ((120, 140),)


def test_a_change_of_an_early_chunk_reaches_its_entities_only(tmp_path):
    url, rows = f"{tmp_path}/rows.zarr", 100
    columns = {
        "time": START + np.arange(rows) * np.timedelta64(1, "m"),
        "place": Coded((np.arange(rows) // 10 % 2).astype("int32"), ("a", "b")),
        "value": np.arange(rows, dtype="float64"),
    }
    write_table(url, columns, 10, row_key=["time"], derived_from={})
    recipe = dms.Recipe([{"forward_fill": COMMON}], known_at="time", target=None)
    out = f"{tmp_path}/features.zarr"
    first = recipe.fit_transform(url, out).features.values
    np.testing.assert_array_equal(first[:, 0], np.arange(rows))
    stores.write_region(url, 30, {"value": np.full(10, np.nan)})
    second = recipe.fit_transform(url, out).features.values
    np.testing.assert_array_equal(second[30:40, 0], 19.0)
    np.testing.assert_array_equal(second[40:, 0], np.arange(40, rows))
    # The changed chunk's statistics and its own features; the next chunk of the same place holds another state.
    assert dms.last_run().reused == 20 - 1 - 2


def test_too_many_states_are_refused(monkeypatch):
    monkeypatch.setattr(carried, "MOST_STATES", 5)
    with pytest.raises(PlanError, match=r"steps\[0\].exponential_mean: .* states of entities.* give within:"):
        features(STEPS, table([(minute, minute % 3, 1.0, 1.0) for minute in range(20)]), 2, 2, "time")
