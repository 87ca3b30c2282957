"""Statistics of windows: those of a plain loop, of their own elements alone, and as precise as a loop."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daskml_scale.stages.features import windows
from daskml_scale.stages.features.windows import Present, Windows


def among(values: np.ndarray, *window: np.ndarray) -> tuple[Windows, np.ndarray]:
    """Return windows of the values that are there, and those."""
    present = Present(np.isfinite(values))
    return present.windows(*window), present.values(values)


def made(statistic, values: np.ndarray, *window: np.ndarray) -> np.ndarray:
    return statistic(*among(values, *window))


def deviations(values: np.ndarray, *window: np.ndarray) -> np.ndarray:
    return made(lambda some, there: some.spreads(there)[1], values, *window)


MADE = {
    "count": partial(made, lambda some, _: some.counts()),
    "sum": partial(made, Windows.sums),
    "std": deviations,
    "sum beside std": partial(made, lambda some, there: some.spreads(there)[0]),
    "min": partial(made, partial(Windows.extremes, largest=False)),
    "max": partial(made, partial(Windows.extremes, largest=True)),
}


def by_loop(stat: str, values: np.ndarray) -> float:
    here = values[~np.isnan(values)]
    if stat.startswith("sum"):
        return float(here.sum())
    if stat == "count":
        return len(here)
    if stat == "std":
        return float(here.std(ddof=1)) if len(here) > 1 else np.nan
    return float(getattr(here, stat)()) if len(here) else np.nan


def drawn(seed: int, size: int, windows: int = 60) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    values = rng.normal(size=size) * 10.0 ** rng.integers(-3, 3, size)
    first, last = rng.integers(0, size + 1, (2, windows))
    return values, first, np.maximum(first - 1, last)  # some are empty, some end before they begin


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 300), st.sampled_from(sorted(MADE)), st.floats(0, 1))
def test_windows_are_those_of_a_plain_loop(seed, size, stat, missing):
    values, start, stop = drawn(seed, size)
    values[np.random.default_rng(seed).random(size) < missing] = np.nan
    found = MADE[stat](values, start, stop)
    expected = [by_loop(stat, values[a : max(a, b)]) for a, b in zip(start, stop, strict=True)]
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-9)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 200), st.integers(0, 40), st.sampled_from(sorted(MADE)))
def test_what_lies_beside_a_window_changes_no_bit(seed, size, padding, stat):
    values, start, stop = drawn(seed, size)
    values[::7] = np.nan
    alone = [MADE[stat](values[a : max(a, b)].copy(), np.array([0]), np.array([max(0, b - a)]))[0]
             for a, b in zip(start, stop, strict=True)]  # fmt: skip
    around = np.concatenate([np.full(padding, np.nan), values, np.tile([np.inf, 1e300, -np.inf], padding)])
    assert MADE[stat](around, start + padding, stop + padding).tobytes() == np.array(alone).tobytes()


@pytest.mark.parametrize("stat", sorted(MADE))
def test_windows_made_in_turns_are_those_made_at_once(stat, monkeypatch):
    values, start, stop = drawn(5, 300, 200)
    start = np.sort(start)
    values[::9] = np.nan
    whole = MADE[stat](values, start, stop)
    monkeypatch.setattr(windows, "_TURN", 7)
    assert MADE[stat](values, start, stop).tobytes() == whole.tobytes()


@pytest.mark.parametrize("stat", sorted(MADE))
def test_windows_of_one_length_are_made_as_those_of_many(stat):
    """Where many windows have one length, they are made another way: to the bit the same."""
    values = np.random.default_rng(3).normal(size=400) * 1e3
    start = np.arange(370)
    for length in (1, 2, 7, 24, 30):
        together = MADE[stat](values, start, start + length)
        alone = np.concatenate([MADE[stat](values, start[at : at + 1], start[at : at + 1] + length) for at in start])
        missing = np.append(values, np.nan)  # far from any of them
        assert MADE[stat](missing, start, start + length).tobytes() == alone.tobytes()
        assert together.tobytes() == alone.tobytes()


def test_small_deviations_far_from_zero_are_not_lost():
    values = 1e8 + np.tile([0.0, 1e-3], 500)
    found = deviations(values, np.arange(500), np.arange(500) + 24)
    np.testing.assert_allclose(found, by_loop("std", values[:24]), rtol=1e-4)
    assert (deviations(np.full(100, 0.1), np.array([0, 3]), np.array([100, 60])) == 0).all()


@pytest.mark.parametrize("stat", sorted(MADE))
def test_no_windows_and_no_values(stat):
    none = np.empty(0, dtype="int64")
    assert MADE[stat](np.arange(3.0), none, none).shape == (0,)
    found = MADE[stat](np.empty(0), np.array([0]), np.array([0]))
    np.testing.assert_array_equal(found, [0.0 if stat.startswith(("sum", "count")) else np.nan])
