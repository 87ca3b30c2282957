from __future__ import annotations

import math
from itertools import count, repeat

import numpy as np
from hypothesis import example, given
from hypothesis import strategies as st

from daskml_scale.plan.batching import (
    EVIDENCE,
    GAPS,
    MAX_GAP,
    MAX_OVERHEAD,
    MAX_SECONDS,
    MIN_OVERHEAD,
    MIN_SECONDS,
    SCHEDULER_SHARE,
    TASKS_PER_SLOT,
    WAIT_SHARE,
    Batching,
    Probes,
    share,
    take,
    take_uniform,
    window,
)

seconds = st.floats(1e-6, 1e3)
weights = st.lists(st.floats(0.01, 100), min_size=1, max_size=200)
dyadic = st.sampled_from([0.25, 0.5, 1.0, 2.0, 8.0])
overheads = st.floats(MIN_OVERHEAD, MAX_OVERHEAD)
spreads = st.floats(0, 100)


@st.composite
def batchings(draw) -> Batching:
    return Batching(draw(seconds), draw(overheads), draw(st.sampled_from([0.0, 1.0, 1e6])), draw(spreads))


def test_the_first_tasks_are_probes_of_one_unit_and_one_per_slot():
    assert take(Batching(), [1.0] * 100, left=100, slots=4) == 1
    assert take_uniform(Batching(), 100, left=100, slots=4) == 1
    assert Batching().per_slot == 1
    assert Batching(0.1).per_slot == TASKS_PER_SLOT


def test_a_remembered_duration_skips_the_probes():
    assert take(Batching(0.001), [1.0] * 10_000, left=1e6, slots=4) == 200
    assert take_uniform(Batching(0.001), 10_000, left=math.inf, slots=4) == 200


def test_one_probe_does_not_decide_the_size_alone():
    once = Batching().measured(1e-6, 1.0)
    assert take_uniform(once, 10**6, left=math.inf, slots=4) == EVIDENCE
    again = once.measured(1e-6 * EVIDENCE, EVIDENCE)
    assert take_uniform(again, 10**6, left=math.inf, slots=4) > EVIDENCE * EVIDENCE / 2


@given(batchings(), weights, st.integers(1, 1000), st.integers(1, 500), st.integers(1, 10_000))
def test_a_batch_keeps_its_caps(batching, waiting, slots, max_units, max_bytes):
    chosen = take(
        batching,
        waiting,
        left=sum(waiting),
        slots=slots,
        sizes=[37] * len(waiting),
        max_units=max_units,
        max_bytes=max_bytes,
    )
    assert 1 <= chosen <= min(len(waiting), max_units)
    assert chosen == 1 or 37 * chosen <= max_bytes


@given(batchings(), weights, st.integers(1, 10_000), st.floats(0, 1e6))
def test_a_batch_ends_with_the_last_unit_that_fits_or_that_the_scheduler_needs(batching, waiting, slots, overtaken):
    least, most = batching.bounds(1e9, slots, overtaken)
    chosen = take(batching, waiting, left=1e9, slots=slots, overtaken=overtaken)
    total = sum(waiting[:chosen])
    assert least <= most
    assert chosen == 1 or total <= most * (1 + 1e-9) or sum(waiting[: chosen - 1]) < least
    assert chosen == len(waiting) or sum(waiting[: chosen + 1]) > most * (1 - 1e-9)


@given(batchings(), st.integers(1, 3000), dyadic, st.integers(1, 9000), st.integers(0, 300), st.floats(0, 1e3))
def test_units_that_are_alike_are_taken_without_looking_at_them(batching, waiting, weight, slots, size, overtaken):
    left, more = 2.0 * waiting * weight, {"slots": slots, "max_bytes": 10_000, "max_units": 500}
    quick = take_uniform(batching, waiting, left=left, weight=weight, size=size, overtaken=overtaken, **more)
    slow = take(batching, [weight] * waiting, left=left, sizes=[size] * waiting, overtaken=overtaken, **more)
    assert quick == slow


@given(batchings(), st.integers(1, 100))
def test_no_more_units_are_looked_at_than_are_taken_and_one(batching, slots):
    looked = count()
    chosen = take(batching, (next(looked) * 0 + 1.0 for _ in repeat(None)), left=math.inf, slots=slots, max_units=300)
    assert next(looked) <= chosen + 1


@given(batchings(), st.integers(1, 64), st.integers(1, 20_000))
def test_the_end_is_shared_by_all_slots(batching, slots, left):
    """No batch takes more than half a slot's share of what is left, unless dispatching smaller ones lasts longer."""
    chosen = take_uniform(batching, left, left=left, slots=slots)
    floor = max(batching.overhead * slots, GAPS * batching.gap) / batching.seconds_per_weight
    assert chosen == 1 or chosen - 1 <= max(left / (2 * slots), floor)


@given(seconds, st.integers(2, 500), st.floats(10, 1e6), spreads, spreads)
def test_uneven_units_shrink_the_end_earlier(mean, slots, left, one, other):
    small, large = (Batching(mean, spread=spread).bounds(left, slots)[1] for spread in sorted((one, other)))
    assert large <= small * (1 + 1e-9)


@given(st.lists(st.tuples(seconds, st.floats(0.1, 1000)), min_size=1, max_size=50), st.integers(1, 10_000))
def test_the_estimate_stays_within_what_was_measured(measured, slots):
    batching = Batching()
    for each, weight in measured:
        batching = batching.measured(each * weight, weight, slots=slots)
    rates = [each for each, _ in measured]
    assert batching.seconds_per_weight is not None
    assert min(rates) * 0.999 <= batching.seconds_per_weight <= max(rates) * 1.001
    assert batching.spread >= 0
    assert math.isclose(batching.total, sum(weight for _, weight in measured))


@given(seconds, st.lists(st.floats(0.01, 100), min_size=1, max_size=100), st.integers(1, 5))
def test_seconds_in_proportion_to_weight_are_no_spread(rate, each, tasks):
    batching = Batching()
    for _ in range(tasks):
        squares = sum((rate * weight) ** 2 / weight for weight in each)
        batching = batching.measured(rate * sum(each), sum(each), squares=squares)
    assert math.isclose(batching.seconds_per_weight, rate, rel_tol=1e-6)
    assert batching.spread < 1e-6


def after(batching: Batching, draw, tasks: int, slots: int) -> tuple[Batching, list[float]]:
    """Run tasks one after the other; return the state and their seconds."""
    spent = []
    for _ in range(tasks):
        units = draw(take_uniform(batching, 10**9, left=math.inf, slots=slots))
        spent.append(float(units.sum()))
        batching = batching.measured(spent[-1], len(units), squares=float(np.square(units).sum()), slots=slots)
    return batching, spent


@given(st.floats(1e-4, 0.1), st.sampled_from([0.01, 100.0]), st.integers(1, 200), st.booleans())
@example(1e-4, 100.0, 2, True)
def test_a_hundredfold_drift_of_even_units_costs_one_task_per_probe(mean, factor, slots, remembered):
    def draw(size: int) -> np.ndarray:
        return np.full(size, mean)

    batching, _ = after(Batching(mean) if remembered else Batching(), draw, 40, slots)
    target = batching.target_seconds(slots)
    batching, spent = after(batching, lambda size: np.full(size, factor * mean), 10, slots)
    unit = factor * mean
    assert math.isclose(batching.seconds_per_weight, unit, rel_tol=0.01)
    assert all(value <= target + unit or math.isclose(value, unit) for value in spent[4:])
    assert spent[-1] > target - unit or spent[-1] > 0.99 * 16_384 * unit


@given(st.integers(0, 10**6), st.floats(1e-4, 1e-2))
def test_a_heavy_tail_is_estimated_within_its_spread(seed, mean):
    random = np.random.default_rng(seed)

    def draw(size: int) -> np.ndarray:
        return random.lognormal(math.log(mean) - 2, 2, size)

    batching, spent = after(Batching(), draw, 60, 2)
    half = spent[30:]
    # One giant may fill a task; the usual one is within an order of magnitude of the target.
    assert MIN_SECONDS / 10 < float(np.median(half)) < MIN_SECONDS * 10
    assert batching.spread > 1


@given(st.integers(0, 10**6), st.sampled_from([0.01, 100.0]))
def test_a_heavy_tail_that_drifts_is_followed(seed, factor):
    random = np.random.default_rng(seed)
    mean = 1e-3 if factor > 1 else 1e-1
    batching, _ = after(Batching(), lambda size: random.lognormal(math.log(mean) - 2, 2, size), 60, 2)

    def drifted(size: int) -> np.ndarray:
        return random.lognormal(math.log(mean * factor) - 2, 2, size)

    batching, _ = after(batching, drifted, 100, 2)
    estimates = []
    for _ in range(50):
        batching, _ = after(batching, drifted, 1, 2)
        estimates.append(batching.seconds_per_weight / (mean * factor))
    # One giant among the last tasks may lift the estimate fifty times for a while; the usual one is near.
    assert 0.2 < float(np.median(estimates)) < 5


def test_one_slow_task_of_a_large_cluster_does_not_erase_what_thousands_told():
    batching = Batching()
    for _ in range(4000):
        batching = batching.measured(1.0, 10.0, squares=0.5, slots=8000)
    slow = batching.measured(100.0, 10.0, squares=9000.0, slots=8000)
    assert slow.seconds_per_weight < 2 * batching.seconds_per_weight


@given(st.floats(0.2, 2.0), st.floats(0.001, 0.5), st.integers(1, 8))
def test_tasks_last_as_long_as_asked_for_while_there_are_many_units(aim, seconds, slots):
    batching = Batching(seconds, aim=aim)
    many = take_uniform(batching, 100_000, left=math.inf, slots=slots)
    assert (many - 1) * seconds <= batching.target_seconds(slots) <= (many + 1) * seconds
    # Towards the end they shrink all the same: no slot gets more than half of its share of what is left.
    rest = max(2 * slots, 8)
    few = take_uniform(batching, rest, left=float(rest), slots=slots)
    assert few <= 1 + max(rest / slots / 2, 4 * batching.gap / seconds, batching.overhead * slots / seconds)


def test_large_clusters_get_longer_tasks():
    small, large = Batching(0.001).target_seconds(2), Batching(0.001).target_seconds(1000)
    assert small == MIN_SECONDS
    assert large == 0.0017 * 1000 / SCHEDULER_SHARE
    assert (
        take_uniform(Batching(25.0), 100, left=math.inf, slots=8000) == 2
    )  # 34 s: one of 18 s would be too many tasks


@given(overheads, st.lists(st.floats(-1, 100), max_size=100))
def test_the_measured_overhead_stays_within_bounds(overhead, measured):
    batching = Batching(overhead=overhead)
    for value in measured:
        before, batching = batching.overhead, batching.overhead_measured(value)
        assert MIN_OVERHEAD <= batching.overhead <= MAX_OVERHEAD
        assert batching.overhead <= 1.3 * before + 1e-12
        assert value > 0 or batching.overhead == before


@given(overheads, overheads)
def test_the_overhead_follows_the_cluster(overhead, real):
    batching = Batching(overhead=overhead)
    for _ in range(200):
        batching = batching.overhead_measured(real)
    assert math.isclose(batching.overhead, real, rel_tol=1e-3)


@given(st.lists(st.floats(-1, 100), max_size=100))
def test_the_measured_gap_stays_within_bounds(measured):
    batching = Batching()
    for value in measured:
        before, batching = batching.gap, batching.waited(value)
        assert 0 <= batching.gap <= MAX_GAP
        assert batching.gap <= 1.3 * before + 1e-4
        assert value >= 0 or batching.gap == before


@given(st.floats(0, 1.0))
def test_tasks_last_longer_where_slots_wait_for_them(gap):
    batching = Batching(1e-3)
    for _ in range(300):
        batching = batching.waited(gap)
    target = batching.target_seconds(2)
    assert MIN_SECONDS <= target <= MAX_SECONDS
    assert gap <= WAIT_SHARE * target * 1.01 or target == MAX_SECONDS
    # On a large cluster the scheduler decides.
    assert batching.target_seconds(8000) == batching.overhead * 8000 / SCHEDULER_SHARE


def test_probes_in_order_change_nothing():
    probes = Probes()
    numbers = [probes.sent(float(now)) for now in range(5)]
    for number in numbers[:3]:
        probes.end(number)
        assert probes.overtaken(100.0) == 0
    batching = Batching().measured(1.0, 1.0)
    assert batching.bounds(math.inf, 4, 0.0) == batching.bounds(math.inf, 4)


def test_a_probe_that_others_overtook_counts_with_the_time_it_is_out():
    probes = Probes()
    first, second, third, _ = (probes.sent(now) for now in (10.0, 11.0, 12.0, 13.0))
    probes.end(third)
    assert probes.overtaken(20.0) == (20 - 10) + (20 - 11)
    probes.end(first)
    assert probes.overtaken(20.0) == 20 - 11
    probes.end(second)
    assert probes.overtaken(20.0) == 0
    measured = Batching().measured(0.5, 1.0)
    assert measured.bounds(math.inf, 2, 9.5)[1] == Batching(10.0).bounds(math.inf, 2)[1]


@given(st.integers(0, 10**6))
def test_overtaken_probes_correct_what_the_quickest_ones_tell(seed):
    """2,000 exponential probes at once, seen when a tenth is done: the mean of those is twenty times too small."""
    units = np.random.default_rng(seed).exponential(1.0, 2000)
    probes, batching = Probes(), Batching()
    numbers = [probes.sent(0.0) for _ in units]
    for index in np.argsort(units)[:200]:
        probes.end(numbers[index])
        batching = batching.measured(units[index], 1.0, slots=2000)
    now = float(np.sort(units)[200])
    corrected = batching.seconds_per_weight + probes.overtaken(now) / batching.total
    assert batching.seconds_per_weight < 0.1
    assert 0.5 < corrected < 2


@given(st.lists(st.tuples(st.floats(0, 100), st.booleans()), max_size=50), st.floats(100, 200))
def test_overtaken_time_is_never_negative_nor_more_than_all_probes_are_out(sends, now):
    probes, out = Probes(), {}
    for at, ends in sorted(sends):
        number = probes.sent(at)
        if ends:
            probes.end(number)
        else:
            out[number] = at
    assert -1e-6 <= probes.overtaken(now) <= sum(now - at for at in out.values()) + 1e-6


@given(st.integers(0, 10_000), st.floats(1, 3), st.floats(0, 1), st.floats(0, 1))
def test_the_window_grows_with_the_cluster_and_the_share(slots, per_slot, one, other):
    small, large = (window(slots, per_slot, part) for part in sorted((one, other)))
    assert 1 <= small <= large <= max(1, math.ceil(slots * per_slot))
    assert window(slots) == max(1, slots * TASKS_PER_SLOT)
    assert window(slots + 1, per_slot, one) >= window(slots, per_slot, one)


@given(st.lists(st.floats(0.01, 100), min_size=1, max_size=20), st.integers(1, 10_000))
def test_runs_on_one_cluster_share_it_by_weight(runs, slots):
    parts = [share(weight, runs[:at] + runs[at + 1 :]) for at, weight in enumerate(runs)]
    assert math.isclose(sum(parts), 1.0, rel_tol=1e-9)
    windows = [window(slots, share=part) for part in parts]
    assert window(slots) <= sum(windows) <= window(slots) + len(runs)
    assert max(abs(mine - part * 2 * slots) for mine, part in zip(windows, parts, strict=True)) <= 1


def test_a_run_alone_has_the_whole_cluster():
    assert share(1.0, []) == 1.0
    assert share(0.0, []) == 1.0
    assert share(1.0, [3.0]) == 0.25
    assert window(2, share=0.001) == 1
