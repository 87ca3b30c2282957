"""Fits of Amdahl's and Gunther's laws: they find what was put in, and refuse what they cannot know."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daskml_scale.errors import UsageError
from daskml_scale.scaling.laws import Law, fit

REPEATABLE = settings(deadline=None, derandomize=True)
COUNTS = (1, 2, 4, 8, 16, 64)


@REPEATABLE
@given(st.floats(0.1, 1e4), st.floats(0, 0.5), st.floats(0, 0.01))
def test_the_law_that_made_the_points_is_found(one, sigma, kappa):
    law = Law(one, sigma, kappa)
    found = fit([(n, law.throughput(n)) for n in COUNTS])
    assert found.one == pytest.approx(one, rel=1e-4)
    assert found.sigma == pytest.approx(sigma, abs=1e-5)
    assert found.kappa == pytest.approx(kappa, abs=1e-6)
    assert found.error < 1e-4


def test_a_serial_tenth_allows_ten_times_the_speed():
    found = fit([(n, n / (1 + 0.1 * (n - 1))) for n in COUNTS], coherence=False)
    assert found.speed_up == pytest.approx(10.0)
    assert found.most == math.inf
    assert found.efficiency(1) == 1.0
    assert found.efficiency(91) == pytest.approx(0.1)


def test_coherence_has_a_peak():
    law = Law(1.0, 0.02, 0.0005)
    assert law.most == pytest.approx(math.sqrt(0.98 / 0.0005))
    assert law.throughput(law.most) > law.throughput(law.most * 2)
    assert law.throughput(law.most) > law.throughput(law.most / 2)
    assert law.speed_up == law.throughput(law.most)


def test_perfect_scaling_has_no_bound():
    found = fit([(n, 3.0 * n) for n in COUNTS])
    assert (found.sigma, found.kappa) == pytest.approx((0.0, 0.0), abs=1e-9)


def test_two_points_are_too_few_for_three_unknowns():
    with pytest.raises(UsageError, match="needs 3 different numbers of workers and there are 2"):
        fit([(1, 1.0), (2, 1.9), (2, 1.8)])
    assert fit([(1, 1.0), (2, 1.9)], coherence=False).sigma > 0
