"""Measures of drift and their limits: pure, against brute force."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daskml_scale.artifacts.profile import BINS, ROWS, count, edges_of, entry, profiled, spaced
from daskml_scale.errors import UsageError
from daskml_scale.stages.drift import Limits, judged, ks, psi, report
from daskml_scale.stages.watch import Watch, added

floats = st.floats(-1e6, 1e6, width=32) | st.just(float("nan"))
columns = st.lists(floats, min_size=1, max_size=60).map(lambda values: np.asarray(values, dtype="float32"))


@given(columns, columns)
@settings(max_examples=60, deadline=None)
def test_counts_hold_every_value_once_and_add_up(trained: np.ndarray, seen: np.ndarray) -> None:
    edges = edges_of(trained)
    counts = count(seen, edges)
    assert len(counts) == len(edges) + 2
    assert sum(counts) == len(seen)
    assert counts[0] == np.isnan(seen).sum()
    half = len(seen) // 2
    assert counts == [a + b for a, b in zip(count(seen[:half], edges), count(seen[half:], edges), strict=True)]


@given(columns)
@settings(max_examples=60, deadline=None)
def test_nothing_of_training_lies_beyond_its_bins(trained: np.ndarray) -> None:
    made = entry("x", trained)
    if made["edges"]:
        assert made["counts"][0] == made["counts"][-1] == 0
    assert psi(made["counts"], made["counts"]) == pytest.approx(0)
    assert ks(made["counts"], made["counts"]) == 0


@given(st.integers(0, 2**31), st.floats(-2, 2), st.integers(50, 400))
@settings(max_examples=40, deadline=None)
def test_ks_is_the_exact_one_less_at_most_a_bin(seed: int, shift: float, rows: int) -> None:
    from scipy.stats import ks_2samp

    rng = np.random.default_rng(seed)
    trained, seen = rng.normal(size=400), rng.normal(loc=shift, size=rows)
    made = entry("x", trained)
    found = ks(made["counts"], count(seen, np.asarray(made["edges"]))[1:])
    exact = ks_2samp(trained, seen).statistic
    assert found <= exact + 1e-9
    assert found >= exact - 1 / BINS - 2 / 400


def test_psi_is_the_textbook_number() -> None:
    expected, actual = [100, 200, 300, 400], [400, 300, 200, 100]
    p, q = np.asarray(expected) / 1000, np.asarray(actual) / 1000
    assert psi(expected, actual) == pytest.approx(float(np.sum((q - p) * np.log(q / p))), rel=0.01)
    assert psi(expected, [0, 0, 0, 0]) == 0
    assert np.isfinite(psi([500, 500, 0], [0, 0, 1000]))
    assert psi([500, 500, 0], [0, 0, 1000]) > 5


def test_a_constant_and_a_flag_show_what_is_new() -> None:
    constant = entry("c", np.full(100, 3.0, dtype="float32"))
    for value in (2.0, 4.0):
        assert psi(constant["counts"], count(np.full(100, value), np.asarray(constant["edges"]))[1:]) > 1
    flag = entry("f", np.tile([0.0, 1.0], 50))
    assert psi(flag["counts"], count(np.tile([0.0, 1.0], 7), np.asarray(flag["edges"]))[1:]) < 0.01
    assert ks(flag["counts"], count(np.ones(10), np.asarray(flag["edges"]))[1:]) == 0.5


def test_infinite_values_are_counted_at_the_ends() -> None:
    edges = edges_of(np.arange(100.0))
    counts = count(np.asarray([-np.inf, np.inf, np.nan]), edges)
    assert (counts[0], counts[1], counts[-1]) == (1, 1, 1)


def test_a_profile_is_made_of_evenly_spaced_rows() -> None:
    assert spaced(ROWS).step == 1
    assert spaced(ROWS + 1).step == 2
    made = profiled(np.zeros((ROWS + 5, 1)), object(), {"features": ["a"]})
    assert made["rows"] == -(-(ROWS + 5) // 2)


PROFILE = {
    "rows": 100,
    "features": [entry("a", np.arange(100.0)), entry("b", np.full(100, np.nan))],
    "outputs": {"predict": [entry("0", np.arange(100.0) / 100)]},
}


def watched(X: np.ndarray, values: np.ndarray, keys: np.ndarray | None = None) -> dict[str, object]:
    watch = Watch(PROFILE, "predict", {} if keys is None else {"k": keys})
    for start in range(0, len(X), 7):
        watch.see(np.arange(start, min(start + 7, len(X))), X[start : start + 7])
    return watch.result(values)


def test_units_add_up_to_the_whole_with_its_slices() -> None:
    rng = np.random.default_rng(0)
    X, values, keys = rng.normal(50, 30, (90, 2)), rng.random(90), np.repeat([1.0, 2.0, np.nan], 30)
    whole = watched(X, values, keys)
    parts = [watched(X[at : at + 40], values[at : at + 40], keys[at : at + 40]) for at in (0, 40, 80)]
    assert added(parts) == added([whole]) == {**whole, "slices": {"k": dict(sorted(whole["slices"]["k"].items()))}}
    assert {name: part["rows"] for name, part in whole["slices"]["k"].items()} == {
        "1.0": 30,
        "2.0": 30,
        "(missing)": 30,
    }
    assert added([]) == {"rows": 0, "features": [], "outputs": [], "slices": {}}
    with pytest.raises(UsageError, match="more than 100 values to slice by"):
        added([watched(X[:60], values[:60], np.arange(at, at + 60.0)) for at in (0, 60)])


def test_limits_warn_and_fail_with_both_numbers() -> None:
    seen = watched(np.stack([np.arange(100.0) + 80, np.ones(100)], axis=1), np.linspace(0.9, 1, 100))
    found = report(PROFILE, "predict", added([seen]))
    assert next(line["name"] for line in found["features"]) == "a"
    told, failed = judged(found, Limits(psi=(0.1, None), ks=(None, 0.5), missing=(0.05, None), prediction=(0.1, 0.2)))
    assert any(text.startswith("a: PSI") and text.endswith("more than 0.1") for text in told)
    assert any(text.startswith("a: KS") and text.endswith("more than 0.5") for text in failed)
    assert any(text.startswith("predictions: PSI") for text in failed)
    assert judged(found, Limits((None, None), (None, None), (None, None), (None, None))) == ([], [])


def test_a_rise_of_missing_values_is_told_and_a_fall_is_not() -> None:
    X = np.stack([np.where(np.arange(100) < 20, np.nan, 50), np.full(100, np.nan)], axis=1)
    found = report(PROFILE, "predict", added([watched(X, np.full(100, np.nan))]))
    told, _ = judged(found, Limits((None, None), (None, None), (0.05, None), (None, None)))
    assert told == ["a: share of missing values rose by 0.200, more than 0.05"]
    X[:, 0], X[:, 1] = 1, 1
    found = report(PROFILE, "predict", added([watched(X, np.zeros(100))]))
    assert judged(found, Limits((None, None), (None, None), (0.05, None), (None, None)))[0] == []


def test_a_method_without_a_profile_has_no_prediction_drift() -> None:
    watch = Watch(PROFILE, "decision_function", {})
    watch.see(np.arange(3), np.zeros((3, 2)))
    assert report(PROFILE, "decision_function", added([watch.result(np.zeros(3))]))["predictions"] == []
