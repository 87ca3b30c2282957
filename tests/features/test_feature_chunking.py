"""The grid of chunks and shards never shows in the features, and halos hold every row that a window reaches."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from daskml_scale.engine.worker import Cache
from daskml_scale.plan.units import row_ranges
from daskml_scale.spec.expressions import Coded
from daskml_scale.stages.features.bounds import Bounds, joined
from daskml_scale.stages.features.program import Program, parse_steps
from daskml_scale.stages.features.statistics import learn, scan
from daskml_scale.stages.features.transformer import MemoryTable, RowTransformer

STEPS = parse_steps(
    [
        {"date_parts": {"of": "due", "parts": ["hour", "week"], "zone": "Europe/Paris"}},
        {"cyclical": {"of": "hour", "periods": [24]}},
        {"ordinal": {"of": ["place", "kind"]}},
        {"trailing": {"of": "value", "at": "done", "match": ["place"], "windows": ["10m", "2h"], "stat": "mean"}},
        {"trailing": {"of": "value", "at": "done", "windows": ["1h"], "stat": "sum"}},
        {"trailing": {"of": "kind", "at": "seen", "match": ["place", "kind"], "windows": ["3h"], "stat": "count"}},
        {"keep": {"of": ["value", "hour_sin"]}},
    ]
)
# Leaks on purpose (keep of value): the grid is what is tested here.
PROGRAM = Program(STEPS[:-1], "due - minutes(30)", "value")

minutes = st.one_of(st.none(), st.integers(0, 600))
cells = st.tuples(
    minutes,
    minutes,
    minutes,
    st.integers(-1, 2),
    st.integers(-1, 3),
    st.one_of(st.none(), st.floats(-1e6, 1e6), st.sampled_from([1e300, 1e-300])),
)


def table(rows) -> dict[str, object]:
    def times(values) -> np.ndarray:
        start = np.datetime64("2013-03-31T00:00", "ns")
        return np.array(
            ["NaT" if v is None else start + np.timedelta64(v, "m") for v in values], dtype="datetime64[ns]"
        )

    due, done, seen, place, kind, value = zip(*rows, strict=True) if rows else ((),) * 6
    return {
        "due": times(due),
        "done": times(done),
        "seen": times(seen),
        "place": Coded(np.array(place, dtype="int32"), ("c", "a", "b")),
        "kind": Coded(np.array(kind, dtype="int32"), ("w", "z", "y", "x")),
        "value": np.array([np.nan if v is None else v for v in value], dtype="float64"),
    }


def chunked(columns, rows: int, chunk: int, shard: int) -> tuple[Program, np.ndarray]:
    """Fit and transform as the stage does, on a grid."""
    ranges = row_ranges(rows, chunk)
    scans = [scan(PROGRAM, {k: v[a:b] for k, v in columns.items()}, b - a, "value > 0") for a, b in ranges]
    program = learn(PROGRAM, scans)
    bounds = Bounds.merge(program, ranges, scans)
    transformer = RowTransformer(program, MemoryTable(columns), {})
    cache = Cache()
    parts = [transformer.matrix(a, b, bounds.halo(a, b), cache, "float64") for a, b in row_ranges(rows, shard)]
    return program, np.concatenate(parts)


@settings(max_examples=60, deadline=None)
@given(st.lists(cells, min_size=1, max_size=40), st.integers(1, 12), st.integers(1, 40))
def test_features_are_bit_identical_on_any_grid(rows, chunk, shard):
    columns = table(rows)
    whole = chunked(columns, len(rows), len(rows), len(rows))
    program, matrix = chunked(columns, len(rows), chunk, shard)
    assert program == whole[0]
    assert matrix.tobytes() == whole[1].tobytes()


@settings(max_examples=60, deadline=None)
@given(st.lists(cells, min_size=1, max_size=40), st.integers(1, 8), st.data())
def test_a_halo_holds_every_row_that_a_window_reaches(rows, chunk, data):
    columns = table(rows)
    ranges = row_ranges(len(rows), chunk)
    scans = [scan(PROGRAM, {k: v[a:b] for k, v in columns.items()}, b - a, None) for a, b in ranges]
    start = data.draw(st.integers(0, len(rows) - 1))
    stop = data.draw(st.integers(start + 1, len(rows)))
    halo = Bounds.merge(PROGRAM, ranges, scans).halo(start, stop)
    assert halo == joined(halo)
    held = np.zeros(len(rows), dtype=bool)
    for first, last in halo:
        held[first:last] = True
    known = columns["due"][start:stop] - np.timedelta64(30, "m")
    for at, hours, match in (("done", 2, ["place"]), ("done", 1, []), ("seen", 3, ["place", "kind"])):
        times = columns[at][:, None]
        reached = (times <= known) & (times > known - np.timedelta64(hours, "h"))
        for name in match:
            codes = columns[name].codes
            reached &= (codes[:, None] == codes[start:stop]) & (codes[:, None] >= 0)
        assert not (reached.any(axis=1) & ~held).any()


def test_a_halo_leaves_out_chunks_that_no_window_reaches():
    rows = [(600 * hour // 10, 600 * hour // 10 + 5, None, 0, 0, 1.0) for hour in range(100)]
    columns = table(rows)
    ranges = row_ranges(100, 10)
    scans = [scan(PROGRAM, {k: v[a:b] for k, v in columns.items()}, b - a, None) for a, b in ranges]
    assert Bounds.merge(PROGRAM, ranges, scans).halo(50, 60) == ((40, 60),)


def test_only_rows_of_the_condition_are_learnt():
    columns = table([(0, 0, 0, 0, 0, 1.0), (0, 0, 0, 1, 1, -1.0), (0, 0, 0, -1, 2, 2.0), (0, 0, 0, 2, 3, None)])
    found = scan(PROGRAM, columns, 4, "value > 0")
    counted = {name: counts["counts"] for name, counts in found["categories"].items()}
    assert counted == {"place": {"c": 1}, "kind": {"w": 1, "y": 1}}
    assert learn(PROGRAM, [found]).categories == {"place": ("c",), "kind": ("w", "y")}
    assert scan(PROGRAM, columns, 4, "time('2020-01-01') > time('2019-01-01')")["categories"]["place"]["counts"] == {
        "c": 1, "a": 1, "b": 1
    }  # fmt: skip


def test_learnt_categories_are_sorted_and_merge_over_chunks():
    columns = table([(0, 0, 0, place, 0, 1.0) for place in (0, 2, 1, 0)])
    scans = [scan(PROGRAM, {k: v[a : a + 1] for k, v in columns.items()}, 1, None) for a in range(4)]
    assert learn(PROGRAM, scans).categories == learn(PROGRAM, scans[::-1]).categories
    assert learn(PROGRAM, scans).categories["place"] == ("a", "b", "c")
