"""The simulated cluster: the goal for 1,000 workers of 8 threads, and that the model is not too kind."""

from __future__ import annotations

import math

import pytest

from daskml_scale.plan.batching import Batching
from daskml_scale.scaling.simulate import Costs, Draw, constant, lognormal, simulate

SLOTS = 8000
SLOW, QUICK = Costs(scheduler=0.0017, driver=0.0012), Costs(scheduler=0.0010, driver=0.0006)


@pytest.mark.parametrize(
    ("units", "costs"),
    [
        pytest.param(constant(0.05), SLOW, id="50ms"),
        pytest.param(constant(5.0), SLOW, id="5s"),
        pytest.param(lognormal(0.1), SLOW, id="lognormal-100ms"),
        pytest.param(lognormal(10.0), SLOW, id="lognormal-10s"),
        pytest.param(constant(1.0), QUICK, id="1s-quick"),
        pytest.param(lognormal(0.1), QUICK, id="lognormal-100ms-quick", marks=pytest.mark.faults_long),
    ],
)
def test_one_scheduler_keeps_8000_slots_busy_within_half_of_its_time(units, costs):
    """Five minutes, filling and unknown durations included."""
    report = simulate(SLOTS, units, costs=costs)
    assert report.simulated
    assert report.seconds == 300
    assert report.slots >= 0.95
    assert report.scheduler <= 0.50


@pytest.mark.parametrize("mean", [0.001, 0.01])
def test_below_the_drivers_cost_per_unit_no_policy_helps_and_the_report_shows_it(mean):
    """3 us of one driver per unit feed 333,000 units a second."""
    report = simulate(SLOTS, constant(mean), costs=SLOW)
    possible = mean / SLOW.driver_unit / SLOTS
    assert possible < 0.5
    assert 0.8 * possible < report.slots <= possible
    assert report.driver > 0.99


def test_a_policy_that_ignores_the_cluster_would_fail_the_goal():
    """Tasks of 0.2 s, which suit two slots, saturate the scheduler and starve the slots."""
    report = simulate(SLOTS, constant(0.05), costs=SLOW, batching=Batching(overhead=1e-6), seconds=30)
    assert report.scheduler > 0.9
    assert report.slots < 0.5


def test_tasks_of_a_heavy_tail_are_as_long_as_meant_though_short_probes_come_back_first():
    report = simulate(SLOTS, lognormal(10.0), costs=SLOW)
    target = report.batching.target_seconds(SLOTS)
    assert target / 3 < report.task_seconds[0] < 3 * target


def test_a_remembered_duration_fills_the_cluster_at_least_as_fast():
    known = simulate(SLOTS, constant(1.0), costs=SLOW, batching=Batching(1.0, SLOW.scheduler), seconds=60)
    unknown = simulate(SLOTS, constant(1.0), costs=SLOW, seconds=60)
    assert known.first > unknown.first > 0.5


def changing(before: Draw, after: Draw, at: float) -> Draw:
    """Units whose durations change in mid-run."""
    return lambda now, count: (before if now < at else after)(now, count)


@pytest.mark.parametrize(("before", "after"), [(1.0, 0.01), (0.01, 1.0)])
@pytest.mark.parametrize("slots", [2, 64])
def test_a_hundredfold_drift_in_mid_run_leaves_the_slots_busy(slots, before, after):
    report = simulate(slots, changing(constant(before), constant(after), 60), seconds=120)
    assert report.slots > 0.97
    assert report.scheduler < 0.5
    assert report.batching.seconds_per_weight == pytest.approx(after, rel=0.01)


@pytest.mark.parametrize("slots", [2, 16])
@pytest.mark.parametrize("units", [constant(0.01), lognormal(0.01, 1.0)], ids=["even", "lognormal"])
def test_slots_end_together(slots, units):
    """10 s of work: whoever ends first waits little."""
    count = 1000 * slots
    report = simulate(slots, units, units=count, seconds=math.inf)
    assert report.units == count
    assert report.slots > 0.96


def test_slots_far_from_their_scheduler_get_longer_tasks():
    """50 ms one way: a task of 0.2 s would leave its slot idle for a third of the time."""
    report = simulate(4, constant(0.005), costs=Costs(latency=0.05), seconds=120)
    assert report.task_seconds[0] > 1
    assert report.slots > 0.94


def test_a_job_smaller_than_the_cluster_ends():
    report = simulate(64, constant(0.5), units=10, seconds=math.inf)
    assert report.units == report.tasks == 10
    assert 0.5 < report.seconds < 0.6


def test_equal_seeds_give_equal_runs():
    one, two = (simulate(100, lognormal(0.1, seed=3), seconds=20) for _ in range(2))
    assert one == two
    assert simulate(100, lognormal(0.1, seed=4), seconds=20) != one


def test_sums_of_many_units_have_the_mean_and_the_variance_of_the_units():
    """Above 256 units a sum is one draw: as a sum of single draws in its first two moments."""
    draw, count = lognormal(2.0, 1.0, seed=1), 1000
    sums = [draw(0.0, count)[0] for _ in range(4000)]
    mean = sum(sums) / len(sums)
    variance = sum((value - mean) ** 2 for value in sums) / len(sums)
    assert mean == pytest.approx(2.0 * count, rel=0.01)
    assert variance == pytest.approx(4.0 * math.expm1(1.0) * count, rel=0.15)
