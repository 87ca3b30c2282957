"""Counts of categories and of distinct values: bounded, deterministic, and as exact as they say."""

from __future__ import annotations

import json
from collections import Counter

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from daskml_scale.spec.expressions import Coded
from daskml_scale.stages.features import sketches
from daskml_scale.stages.features.sketches import HASHES, Categories, Distinct


def coded(labels) -> Coded:
    known = tuple(sorted(set(labels)))
    return Coded(np.array([known.index(label) for label in labels], dtype="int32"), known)


def again(found: Categories) -> Categories:
    return Categories.from_json(json.loads(json.dumps(found.to_json())))


@settings(max_examples=100, deadline=None)
@given(st.lists(st.lists(st.sampled_from("abcdefghij"), max_size=12), max_size=8))
def test_counts_beyond_the_limit_are_low_by_no_more_than_they_say(parts):
    limit, sketches.LABELS = sketches.LABELS, 4
    try:
        found = Categories.merged(again(Categories.of(coded(part))) for part in parts)
    finally:
        sketches.LABELS = limit
    true = Counter(label for part in parts for label in part)
    assert len(found.counts) <= 4
    assert found.rows == sum(true.values())
    assert found.cardinality == len(true)
    for label, rows in true.items():
        assert rows - found.error <= found.counts.get(label, 0) <= rows
    assert found.error <= sum(true.values()) / 5
    if len(true) <= 4:
        assert (dict(found.counts), found.error) == (dict(true), 0)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 5000), st.integers(1, 7), st.randoms(use_true_random=False))
def test_the_number_of_distinct_values_is_exact_below_the_limit_and_near_above(count, parts, random):
    values = np.arange(count) * 1.5 - 7
    shuffled = [*values, *values[: count // 3]]
    random.shuffle(shuffled)
    found = Distinct.merged(Distinct.of_numbers(np.array([*shuffled[part::parts], np.nan])) for part in range(parts))
    assert Distinct.from_json(found.to_json()).count == found.count
    assert (found.hashes == Distinct.of_numbers(values).hashes).all()
    assert found.count == count if count < HASHES else abs(found.count - count) < 0.15 * count
    assert len(found.hashes) <= HASHES


def test_hashes_are_the_same_in_every_process():
    assert Distinct.of_labels(["a"]).hashes.tolist() == [3405396810240292928]
    assert Distinct.of_numbers(np.array([1.0])).hashes.tolist() == [9860564707913756141]
    assert Distinct.of_labels(["a", "b"]).hashes.tolist() == Distinct.of_labels(["b", "a", "b"]).hashes.tolist()
