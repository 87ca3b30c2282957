"""The meter of a stage: busy and idle seconds, money."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from daskml_scale.scaling.cost import Meter

HOUR = 3600.0


def test_an_idle_hour_costs_as_much_as_a_busy_one() -> None:
    meter = Meter().seen(0.0, 2, 3.0).worked(HOUR, 500).stopped(HOUR)
    assert (meter.capacity, meter.money, meter.busy) == (2 * HOUR, 3.0, HOUR)
    assert meter.idle_share == 0.5
    assert meter.per_thousand == 6.0


def test_nothing_is_counted_before_and_after() -> None:
    meter = Meter().at(100.0).seen(200.0, 4, 1.0).stopped(200.0).at(HOUR)
    assert meter == Meter(slots=4, price=1.0)
    assert meter.idle_share == meter.per_thousand == 0.0


def test_workers_that_come_and_go_are_counted_while_they_are_there() -> None:
    meter = Meter().seen(0.0, 1, 1.0).seen(HOUR, 3, 5.0).stopped(2 * HOUR)
    assert (meter.capacity, meter.money) == (4 * HOUR, 6.0)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.tuples(st.floats(0, 1e4), st.integers(0, 50), st.floats(0, 100)), max_size=12))
def test_looking_more_often_changes_nothing(steps: list[tuple[float, int, float]]) -> None:
    rare, often, now = Meter(), Meter(), 0.0
    for seconds, slots, price in steps:
        rare, often = rare.seen(now, slots, price), often.seen(now, slots, price)
        often = often.at(now + seconds / 3).at(now + seconds / 2)
        now += seconds
    rare, often = rare.stopped(now), often.stopped(now)
    assert often.capacity == pytest.approx(rare.capacity, abs=1e-3)
    assert often.money == pytest.approx(rare.money, abs=1e-3)
    assert 0 <= often.idle_share <= 1


def test_a_clock_that_goes_back_counts_nothing() -> None:
    assert Meter().seen(10.0, 2, 1.0).at(5.0).capacity == 0
