from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from daskml_scale.plan.batching import MIN_SECONDS, Batching, take, window

seconds = st.floats(1e-6, 1e3)
weights = st.lists(st.floats(0.01, 100), min_size=1, max_size=200)


def test_the_first_tasks_are_probes_of_one_unit():
    assert take(Batching(), [1.0] * 100, left=100, slots=4) == 1


def test_a_remembered_duration_skips_the_probes():
    assert take(Batching(0.001), [1.0] * 10_000, left=1e6, slots=4) == 200


@given(seconds, weights, st.integers(1, 1000), st.integers(1, 500), st.integers(1, 10_000))
def test_a_batch_keeps_its_caps(per_weight, waiting, slots, max_units, max_bytes):
    sizes = [37] * len(waiting)
    count = take(
        Batching(per_weight),
        waiting,
        left=sum(waiting),
        slots=slots,
        sizes=sizes,
        max_units=max_units,
        max_bytes=max_bytes,
    )
    assert 1 <= count <= min(len(waiting), max_units)
    assert count == 1 or 37 * count <= max_bytes


@given(seconds, weights, st.integers(1, 1000))
def test_a_batch_of_several_units_does_not_exceed_its_target(per_weight, waiting, slots):
    batching = Batching(per_weight)
    count = take(batching, waiting, left=1e9, slots=slots)
    assert count == 1 or sum(waiting[:count]) * per_weight <= batching.target_seconds(slots) * (1 + 1e-9)


@given(seconds, st.integers(1, 64), st.integers(1, 20_000))
def test_the_end_is_shared_by_all_slots(per_weight, slots, left):
    """No batch takes more than half of a slot's fair share of what is left, so the last ones end together."""
    count = take(Batching(per_weight), [1.0] * left, left=left, slots=slots)
    assert count == 1 or count <= left / (2 * slots)


@given(st.lists(seconds, min_size=1, max_size=50))
def test_the_estimate_stays_within_what_was_measured(measured):
    batching = Batching()
    for value in measured:
        batching = batching.measured(value, 1.0)
    assert batching.seconds_per_weight is not None
    assert min(measured) * 0.999 <= batching.seconds_per_weight <= max(measured) * 1.001


def test_a_drift_of_a_hundredfold_is_followed_at_once():
    batching = Batching(0.001).measured(0.1, 1.0)
    assert batching.seconds_per_weight == 0.1


def test_large_clusters_get_longer_tasks():
    small, large = Batching(0.001).target_seconds(2), Batching(0.001).target_seconds(1000)
    assert small == MIN_SECONDS
    assert large == 2 * 0.0017 * 1000
    assert window(1000) == 2000
    assert window(0) == 1
