"""Lookup, as-of and trailing windows against pandas and against plain loops."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daskml_scale.errors import DaskMLError
from daskml_scale.spec.expressions import Coded
from daskml_scale.spec.steps import AsOf, Lookup, Trailing
from daskml_scale.stages.features.joins import as_of, lookup, prepare, trailing
from daskml_scale.stages.features.windows import Present, Windows

MINUTES = st.one_of(st.none(), st.integers(0, 400))
AIRPORTS = ("EWR", "JFK", "LGA")


def times(minutes) -> np.ndarray:
    return np.array(
        ["NaT" if m is None else np.datetime64("2013-01-01T00:00") + np.timedelta64(m, "m") for m in minutes],
        dtype="datetime64[ns]",
    )


def coded(labels, order) -> Coded:
    """Code labels in an order of its own: two tables never share codes."""
    return Coded(
        np.array([-1 if label is None else order.index(label) for label in labels], dtype="int32"), tuple(order)
    )


rows_of = st.lists(st.tuples(MINUTES, st.sampled_from([*AIRPORTS, None]), st.integers(0, 1)), max_size=12)
events_of = st.lists(
    st.tuples(MINUTES, st.sampled_from([*AIRPORTS[:2], "SFO", None]), st.integers(0, 3), st.floats(-5, 5)), max_size=25
)
tolerances = st.sampled_from([None, "1m", "1h", "3h"])


@settings(max_examples=60, deadline=None)
@given(rows_of, events_of, tolerances, st.sampled_from([(), ("origin",), ("origin", "gate")]))
def test_as_of_is_pandas_merge_asof_backward(rows, events, tolerance, match):
    known = times(row[0] for row in rows)
    ours = {
        "origin": coded([row[1] for row in rows], AIRPORTS),
        "gate": np.array([row[2] for row in rows], dtype="int64"),
    }
    theirs = {
        "at": times(event[0] for event in events),
        "origin": coded([event[1] for event in events], ("SFO", "JFK", "EWR")),
        "gate": np.array([event[2] for event in events], dtype="float64"),
        "value": np.array([event[3] for event in events], dtype="float64"),
    }
    step = AsOf(table="w", match=list(match), their_time="at", take=["value"], tolerance=tolerance)
    (found,) = as_of(step, prepare(step, theirs), ours, known)

    left = pd.DataFrame({"k": known, "origin": [row[1] for row in rows], "gate": ours["gate"], "row": range(len(rows))})
    right = pd.DataFrame({"t": theirs["at"], "origin": [e[1] for e in events], "gate": [e[2] for e in events]})
    right["value"] = theirs["value"]
    left["origin"], right["origin"] = left.origin.astype(object), right.origin.astype(object)
    left["gate"], right["gate"] = left.gate.astype("int64"), right.gate.astype("int64")
    keys = list(match)
    # pandas refuses missing times and matches missing keys with each other: neither is a match here.
    left = left.dropna(subset=["k", *keys]).sort_values("k", kind="stable")
    right = right.dropna(subset=["t", *keys]).sort_values("t", kind="stable")
    expected = np.full(len(rows), np.nan)
    if len(left) and len(right):
        columns = ["t", *keys, "value"]
        merged = pd.merge_asof(
            left, right[columns], left_on="k", right_on="t", by=keys or None,
            tolerance=pd.Timedelta(tolerance) if tolerance else None,
        )  # fmt: skip
        expected[merged.row.to_numpy()] = merged.value.to_numpy()
    np.testing.assert_array_equal(found, expected)


def test_of_several_rows_at_one_time_the_last_in_table_order_counts():
    step = AsOf(table="w", their_time="at", take=["value"])
    theirs = {"at": times([5, 3, 5]), "value": np.array([1.0, 2.0, 3.0])}
    (found,) = as_of(step, prepare(step, theirs), {}, times([4, 5, 2]))
    np.testing.assert_array_equal(found, [2.0, 3.0, np.nan])


@pytest.mark.parametrize("kind", ["category", "number"])
def test_lookup_matches_values_not_codes(kind):
    step = Lookup(table="planes", key="tail", their_key="id", take=["seats", "year"])
    if kind == "category":
        theirs, ours = coded(["b", None, "a"], ["a", "b"]), coded(["a", "b", "zz", None], ["zz", "b", "a"])
    else:
        theirs, ours = np.array([7, 3, 5]), np.array([5.0, 7.0, 6.0, np.nan])
    join = prepare(step, {"id": theirs, "seats": np.array([10, 20, 30]), "year": np.array([np.nan, 2, 3])})
    seats, year = lookup(step, join, {"tail": ours})
    np.testing.assert_array_equal(seats, [30, 10, np.nan, np.nan])
    np.testing.assert_array_equal(year, [3, np.nan, np.nan, np.nan])


def test_lookup_in_an_empty_table_finds_nothing():
    step = Lookup(table="planes", key="id", take=["seats"])
    join = prepare(step, {"id": coded([], []), "seats": np.empty(0)})
    assert np.isnan(lookup(step, join, {"id": coded(["a"], ["a"])})[0]).all()


def test_duplicate_keys_of_a_lookup_are_refused_by_name():
    step = Lookup(table="planes", key="tail", take=["seats"])
    with pytest.raises(DaskMLError, match=r"steps\[4\]\.lookup.*'planes' has 2 rows with tail = 'b'.*unique"):
        prepare(step, {"tail": coded(["b", "a", "b"], ["a", "b"]), "seats": np.arange(3)}, 4)


@settings(max_examples=80, deadline=None)
@given(rows_of, events_of, st.sampled_from(["mean", "sum", "count"]), st.booleans())
def test_trailing_is_its_definition(rows, events, stat, matched):
    match = ["origin"] if matched else []
    step = Trailing(of="value", at="at", match=match, windows=["1m", "1h", "3h"], stat=stat)
    known = times(row[0] for row in rows)
    ours = {"origin": coded([row[1] for row in rows], AIRPORTS)}
    values = np.array([{0: np.nan, 3: np.inf}.get(event[2], event[3]) for event in events], dtype="float64")
    left_out = np.isnan if stat == "count" else lambda value: not np.isfinite(value)
    theirs = {"at": times(e[0] for e in events), "value": values}
    theirs["origin"] = coded([e[1] for e in events], ("SFO", "JFK", "EWR"))
    found = trailing(step, ours, known, theirs)
    for minutes, feature in zip((1, 60, 180), found, strict=True):
        for row, (k, origin, _) in enumerate(rows):
            inside = [
                (at, order, value)
                for order, ((at, other, _, _), value) in enumerate(zip(events, values, strict=True))
                if at is not None and k is not None and k - minutes < at <= k and not left_out(value)
                if not matched or (origin is not None and origin == other)
            ]
            picked = [value for *_, value in sorted(inside)]
            empty = np.nan if stat == "mean" else 0.0
            expected = {"mean": np.mean, "sum": np.sum, "count": len}[stat](picked) if picked else empty
            np.testing.assert_allclose(feature[row], expected, rtol=1e-12, atol=1e-12)


def test_a_window_is_open_at_its_start_and_closed_at_its_end():
    step = Trailing(of="v", at="at", windows=["1h"], stat="sum")
    events = {"at": times([0, 1, 60, 61]), "v": np.array([1.0, 10.0, 100.0, 1000.0])}
    assert trailing(step, {}, times([60]), events)[0].tolist() == [110.0]


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 700), st.integers(0, 40))
def test_a_sum_depends_on_its_window_alone_to_the_bit(seed, size, padding):
    rng = np.random.default_rng(seed)
    values = rng.normal(size=size) * 10.0 ** rng.integers(-8, 8, size)
    first = rng.integers(0, size + 1, 20)
    last = np.maximum(first, rng.integers(0, size + 1, 20))
    alone = [
        Windows(np.array([0]), np.array([b - a])).sums(values[a:b].copy())[0] for a, b in zip(first, last, strict=True)
    ]
    garbage = np.full(padding, np.nan), np.tile([np.inf, 1e300], padding)
    around = np.concatenate([garbage[0], values, garbage[1]])
    present = Present(np.isfinite(around))
    found = present.windows(first + padding, last + padding).sums(present.values(around))
    assert found.tobytes() == np.array(alone).tobytes()
