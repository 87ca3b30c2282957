"""Learning how long workers take, and waiting longer and longer for those that never come."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daskml_scale.scaling.startup import LEAST_PATIENCE, MOST_PAUSE, Startup

REPEATABLE = settings(deadline=None, derandomize=True)


def test_the_mean_follows_what_is_measured():
    known = Startup.guess(2.0)
    for _ in range(6):
        known = known.learnt([9.0, 11.0])
    assert 9.8 < known.mean <= 10.0


@REPEATABLE
@given(st.floats(1, 300), st.lists(st.floats(0, 500), max_size=30))
def test_a_start_as_long_as_the_longest_is_never_given_up(guess, measured):
    known = Startup.guess(guess)
    for seconds in measured:
        known = known.arrived(seconds)
    assert all(seconds < known.patience for seconds in measured)
    assert known.patience >= LEAST_PATIENCE


def test_the_fast_half_of_many_does_not_condemn_the_slow_half():
    """Starts of 60 to 120 s, asked for at once, arrive in order: the first ones must not shorten the patience."""
    known = Startup.guess(90.0)
    for seconds in range(60, 121):
        assert seconds < known.patience
        known = known.arrived(float(seconds))


@REPEATABLE
@given(st.floats(1, 100), st.integers(1, 20))
def test_pauses_double_up_to_ten_minutes_and_one_arrival_ends_them(guess, tries):
    known, now, pauses = Startup.guess(guess), 0.0, []
    for _ in range(tries):
        known = known.missed(now)
        pauses.append(known.until - now)
        now = known.until
    first = min(MOST_PAUSE, Startup.guess(guess).patience)
    assert pauses == pytest.approx([min(MOST_PAUSE, first * 2.0**n) for n in range(tries)])
    assert known.arrived(5.0).misses == 0
    assert known.arrived(5.0).until < 0
