"""Keys and timelines: what is found never depends on which way of finding it was taken."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daskml_scale.spec.expressions import Coded
from daskml_scale.stages.features import timeline
from daskml_scale.stages.features.keys import Keys, plain
from daskml_scale.stages.features.timeline import Timeline

SCALES = [1, 10**3, 10**9, 86400 * 10**9, 2**61 // 50]
"""Steps of time in ns: whole seconds, finer ones, and so far apart that they cannot be told by a difference."""


def counted(groups, times, asked, instants, *, inclusive=True) -> list[int]:
    """Return what `Timeline.count` says, by its definition; a missing instant is before all."""
    order = sorted((g, t) for g, t in zip(groups, times, strict=True) if g >= 0 and t is not None)
    return [
        sum((g, t) < (group, -(2**63) if at is None else at) or (inclusive and (g, t) == (group, at)) for g, t in order)
        if group >= 0
        else 0
        for group, at in zip(asked, instants, strict=True)
    ]


def instants(values) -> np.ndarray:
    return np.array([-(2**63) if value is None else value for value in values], dtype="int64").view("datetime64[ns]")


moments = st.one_of(st.none(), st.integers(-20, 20))


@settings(max_examples=80, deadline=None)
@given(
    st.lists(st.tuples(st.integers(-1, 4), moments), max_size=40),
    st.lists(st.tuples(st.integers(-1, 5), moments), max_size=15),
    st.sampled_from(SCALES),
    st.integers(-1, 1),
    st.booleans(),
    st.sampled_from(["drawn", "by time", "by group and time"]),
    st.booleans(),
)
def test_a_timeline_counts_what_a_plain_loop_counts(events, asked, scale, shift, inclusive, ordered, indexed):
    if ordered != "drawn":
        by_time = (lambda e: (e[1] is not None, e[1] or 0)) if ordered == "by time" else (lambda e: (e[0], e[1] or 0))
        events = sorted(events, key=by_time)
    groups = np.array([g for g, _ in events], dtype="int64")
    times = [None if t is None else t * scale for _, t in events]
    wanted = np.array([g for g, _ in asked], dtype="int64")
    at = [None if t is None else t * scale + shift for _, t in asked]
    line = Timeline(groups, instants(times))
    expected = counted(groups, times, wanted, at, inclusive=inclusive)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(timeline, "_FEW", 0 if indexed else len(asked) + 1)
        assert line.count(wanted, instants(at), inclusive=inclusive).tolist() == expected
    assert line.first(wanted).tolist() == counted(groups, times, wanted, [None] * len(at))
    kept = [row for row in range(len(events)) if groups[row] >= 0 and times[row] is not None]
    assert line.order.tolist() == sorted(kept, key=lambda row: (groups[row], times[row]))
    assert line.arranged(np.arange(len(events))).tolist() == line.order.tolist()
    places = line.places(len(events), np.arange(len(events)))
    assert [places[row] for row in line.order] == list(range(len(kept)))


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 30), st.floats(0, 1), st.floats(0.01, 0.2))
def test_a_search_near_the_time_asked_about_is_the_whole_search(seed, groups, first, width):
    """Also where half of the events lie close together."""
    rng = np.random.default_rng(seed)
    times = np.where(rng.random(3000) < 0.5, rng.integers(0, 10**6, 3000), rng.integers(4000, 4100, 3000))
    line = Timeline(rng.integers(-1, groups, 3000), times.view("datetime64[ns]"))
    asked = rng.integers(-1, groups + 1, 2000)
    at = (first * 10**6 + rng.random(2000) * width * 10**6).astype("int64")
    found = line.count(asked, at.view("datetime64[ns]"))
    one_by_one = [line.count(asked[row : row + 1], at[row : row + 1].view("datetime64[ns]"))[0] for row in range(2000)]
    assert found.tolist() == one_by_one


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from([-(2**63), -3, 0, 1, 2, 2**63 - 1]), st.integers(-1, 2)), max_size=20),
    st.lists(st.tuples(st.sampled_from([-(2**63), -4, -3, 0, 5, 2**63 - 1]), st.integers(-1, 3)), max_size=20),
    st.booleans(),
)
def test_keys_are_equal_combinations_wherever_numbers_lie(rows, others, wide):
    """A narrow range of numbers goes through a table, a wide one through a search."""
    rows = rows if wide else [(number % 7, code) for number, code in rows]
    others = others if wide else [(number % 9 - 1, code) for number, code in others]
    labels, theirs = ("a", "b", "c"), ("c", "d", "a", "b")

    def columns(given, names):
        numbers = np.array([number for number, _ in given], dtype="int64")
        return [numbers, Coded(np.array([code for _, code in given], dtype="int32"), names)]

    keys = Keys(columns(rows, labels), len(rows))
    known = sorted({(number, labels[code]) for number, code in rows if code >= 0})
    number_of = {pair: number for number, pair in enumerate(known)}
    assert keys.size == len(known)
    assert keys.own.tolist() == [number_of.get((n, labels[c]) if c >= 0 else None, -1) for n, c in rows]
    expected = [number_of.get((n, theirs[c]) if c >= 0 else None, -1) for n, c in others]
    assert keys.encode(columns(others, theirs), len(others)).tolist() == expected


def test_numbers_with_fractions_match_whole_ones():
    keys = Keys([np.array([3, 1, 2])], 3)
    assert keys.encode([np.array([2.0, 2.5, np.nan, 1.0])], 4).tolist() == [1, -1, -1, 0]
    keys = Keys([np.array([0.5, np.nan, 2.0])], 3)
    assert keys.own.tolist() == [0, -1, 1]
    assert keys.encode([np.array([2, 0])], 2).tolist() == [1, -1]


def test_categories_match_no_numbers():
    with pytest.raises(TypeError, match="a category matches categories only"):
        Keys([np.array([1])], 1).encode([Coded(np.array([0]), ("1",))], 1)


def test_more_groups_than_a_short_sort_can_number():
    groups = np.arange(70_000)[::-1].copy()
    line = Timeline(groups, np.zeros(70_000, dtype="datetime64[ns]"))
    assert line.order.tolist() == list(range(69_999, -1, -1))
    assert plain(np.array([True])).dtype == "int64"


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 2**32 - 1), st.integers(1, 9), st.integers(1, 40), st.sampled_from([0, 1, 3, 60]), st.integers(1, 4)
)
def test_looking_back_from_regular_readings_is_the_whole_search(seed, groups, lag, jitter, step):
    """Readings at regular hours, give or take some; a step of 4 has days without any."""
    rng = np.random.default_rng(seed)
    each = 5000 // groups
    hours = np.cumsum(rng.integers(1, step + 1, (groups, each)), axis=1) * 60 + rng.integers(
        0, jitter + 1, (groups, each)
    )
    times = np.sort(hours, axis=1).ravel() * 10**9
    numbers = np.repeat(np.arange(groups), each)
    line = Timeline(numbers, times.view("datetime64[ns]"))
    for span in (lag * 60 * 10**9, lag * 60 * 10**9 + 1, 10**18):
        expected = [
            int(np.searchsorted(times[group * each : (group + 1) * each], at - span, "right")) + group * each
            for group, at in zip(numbers, times, strict=True)
        ]
        assert line.before_each(numbers, span).tolist() == expected
        assert line.count(numbers, (times - span).view("datetime64[ns]")).tolist() == expected
    assert line.of_each().tolist() == line.count(numbers, times.view("datetime64[ns]")).tolist()


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 2), st.integers(0, 30)), min_size=1, max_size=40),
    st.sampled_from(SCALES),
    st.integers(0, 2**62),
    st.booleans(),
)
def test_events_that_ask_for_themselves_find_what_rows_like_them_find(events, scale, span, ordered):
    from daskml_scale.stages.features.past import Past

    events = sorted(events) if ordered else events
    columns = {"key": np.array([key for key, _ in events]), "at": instants(at * scale - 2**62 for _, at in events)}
    own = np.arange(len(events))
    pasts = [Past("at", ["key"], columns, columns["at"], columns, own, each=each) for each in (True, False)]
    for window in (span, 2**63 - 1, scale, None):
        assert pasts[0].start(window).tolist() == pasts[1].start(window).tolist()
    assert pasts[0].stop.tolist() == pasts[1].stop.tolist()
