"""The scaling policy: properties that hold for every backlog, and the rules one by one."""

from __future__ import annotations

import math
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from daskml_scale.scaling.demand import Demand, Shape, WorkerView, assign
from daskml_scale.scaling.policy import (
    ClassSnapshot,
    Decision,
    Limits,
    State,
    decide,
    horizon_of,
)
from daskml_scale.scaling.startup import Startup

REPEATABLE = settings(deadline=None, derandomize=True)
CPU = Shape("cpu", threads=1)
GPU = Shape("gpu", threads=4, resources={"GPU": 1.0}, price=3.5)


def workers(count: int, busy: int = 0, idle_since: float = 0.0, starting: int = 0) -> list[WorkerView]:
    """``count`` workers, the first ``busy`` of them busy and the last ``starting`` not there yet."""
    return [
        WorkerView(f"cpu-{n}", ready=n < count - starting, idle_since=None if n < busy else idle_since)
        for n in range(count)
    ]


def demand(units: int, seconds: float | None, runnable: int | None = None) -> Demand:
    return Demand("stage", units, units if runnable is None else runnable, seconds)


def settled(now: float, need: int) -> State:
    """A state that has seen ``need`` for long enough."""
    return State(since=now - 1e6, needs=((now - 1, need),))


def need_of(demands: list[Demand], limits: Limits, have: int = 0) -> int:
    snapshot = ClassSnapshot(CPU, workers(have, busy=have), demands)
    return decide(snapshot, limits, State(), 0.0)[0].need


counts = st.integers(0, 10_000)
durations = st.one_of(st.none(), st.floats(1e-4, 5000, allow_nan=False))
demands = st.lists(
    st.builds(lambda u, r, s: Demand("s", u, min(u, r), s), st.integers(1, 10_000), st.integers(1, 10_000), durations),
    max_size=4,
)
limits = st.builds(
    lambda low, extra, spend, cheap: Limits(minimum=low, maximum=low + extra, spend=spend, cheap=cheap),
    st.integers(0, 5),
    st.integers(1, 60),
    st.one_of(st.none(), st.floats(0, 100)),
    st.booleans(),
)
views = st.builds(
    lambda n, states: [
        WorkerView(f"cpu-{i}", ready=s != 0, idle_since=None if s == 1 else 0.0, unique_bytes=i * 7 % 5)
        for i, s in zip(range(n), states, strict=False)
    ],
    st.integers(0, 40),
    st.lists(st.integers(0, 2), min_size=40, max_size=40),
)


@REPEATABLE
@given(views, demands, limits, st.floats(0, 20))
def test_no_decision_exceeds_the_maximum_or_the_money(have, wanted, bounds, price):
    shape = replace(CPU, price=price)
    decision, _ = decide(ClassSnapshot(shape, have, wanted), bounds, State(), 0.0)
    total = len(have) + decision.launch
    assert decision.launch == 0 or total <= bounds.maximum
    if bounds.spend is not None:
        assert decision.launch == 0 or total * price <= bounds.spend * (1 + 1e-6) + 1e-6


@REPEATABLE
@given(views, demands, limits)
def test_a_worker_that_is_busy_is_never_given_up(have, wanted, bounds):
    decision, _ = decide(ClassSnapshot(CPU, have, wanted), bounds, settled(1000.0, 0), 1000.0)
    busy = {worker.name for worker in have if worker.ready and worker.idle_since is None}
    assert not busy & {*decision.retire, *decision.cancel}


@REPEATABLE
@given(views, demands, limits)
def test_one_decision_goes_one_way_and_gives_up_at_most_a_quarter(have, wanted, bounds):
    decision, _ = decide(ClassSnapshot(CPU, have, wanted), bounds, settled(1000.0, 0), 1000.0)
    gone = len(decision.retire) + len(decision.cancel) + len(decision.stop)
    assert not (decision.launch and gone)
    assert gone <= max(1, len(have) // 4) or (gone == len(have) - bounds.maximum and decision.rule == "maximum")
    assert decision.need == len(have) + decision.launch - gone
    assert decision.reasons


@REPEATABLE
@given(views, demands, limits)
def test_the_minimum_is_kept(have, wanted, bounds):
    decision, _ = decide(ClassSnapshot(CPU, have, wanted), bounds, settled(1000.0, 0), 1000.0)
    assert decision.need >= bounds.minimum


def test_a_maximum_lowered_below_what_is_there_ends_the_rest_idle_ones_first():
    have = [*workers(4, busy=3), WorkerView("cpu-9", ready=False)]
    decision, _ = decide(ClassSnapshot(CPU, have, [demand(50, 60.0)]), Limits(maximum=2), State(), 0.0)
    assert (decision.cancel, decision.stop, decision.rule) == (("cpu-9",), ("cpu-3", "cpu-0"), "maximum")


def test_money_wins_over_the_minimum():
    priced = replace(CPU, price=2.0)
    decision, _ = decide(ClassSnapshot(priced, (), []), Limits(minimum=3, maximum=9, spend=4.5), State(), 0.0)
    assert (decision.launch, decision.caps) == (2, ("budget",))


@REPEATABLE
@given(demands, limits, st.data())
def test_more_backlog_never_asks_for_fewer_workers(wanted, bounds, data):
    state = State(ramp=data.draw(st.integers(1, 9)))
    more = [
        replace(d, units=d.units + data.draw(counts), runnable=d.runnable + data.draw(st.integers(0, 50)))
        for d in wanted
    ]
    more = [replace(d, units=max(d.units, d.runnable)) for d in more]
    small, _ = decide(ClassSnapshot(CPU, (), wanted), bounds, state, 0.0)
    large, _ = decide(ClassSnapshot(CPU, (), more), bounds, state, 0.0)
    assert large.need >= small.need


@REPEATABLE
@given(demands, st.integers(0, 500))
def test_demand_of_one_class_does_not_move_another(wanted, gpu_units):
    gpu_work = Demand("infer", gpu_units + 1, gpu_units + 1, 3.0, {"GPU": 1})
    bounds = Limits(maximum=100)

    def cpu(all_demands: list[Demand]) -> Decision:
        given_to, _ = assign(all_demands, [CPU, GPU])
        return decide(ClassSnapshot(CPU, workers(2), given_to["cpu"]), bounds, State(), 0.0)[0]

    assert cpu(wanted) == cpu([*wanted, gpu_work])


class Simulation:
    """Workers that arrive after ``startup`` seconds and go when told; all of them busy while there is demand.

    ``changes`` has (time, workers asked for, workers given up, workers after it, need at that time).
    """

    def __init__(self, bounds: Limits, startup: float) -> None:
        self.bounds, self.startup, self.state, self.number = bounds, startup, State(), 0
        self.names: dict[str, float] = {}
        self.changes: list[tuple[float, int, int, int, int]] = []
        self.needs: list[tuple[float, int]] = []

    def tick(self, now: float, wanted: list[Demand]) -> None:
        have = [
            WorkerView(name, ready=now >= there, idle_since=None if wanted else there)
            for name, there in self.names.items()
        ]
        decision, self.state = decide(
            ClassSnapshot(CPU, have, wanted, Startup.guess(self.startup)), self.bounds, self.state, now
        )
        for _ in range(decision.launch):
            self.names[f"cpu-{self.number}"] = now + self.startup
            self.number += 1
        for name in (*decision.retire, *decision.cancel):
            del self.names[name]
        need = self.state.needs[-1][1]
        self.needs.append((now, need))
        if decision.changes:
            gone = len(decision.retire) + len(decision.cancel)
            self.changes.append((now, decision.launch, gone, len(self.names), need))

    def largest_need(self, now: float) -> int:
        return max(need for then, need in self.needs if now - self.bounds.window <= then <= now)


loads = st.lists(st.tuples(st.integers(0, 300), st.floats(0.1, 20)), min_size=2, max_size=8)


@REPEATABLE
@given(loads, st.sampled_from([7, 20, 60]), st.floats(0.5, 90), st.booleans())
def test_nothing_goes_up_and_down_within_a_window(load, pace, startup, cheap):
    bounds = Limits(minimum=1, maximum=50, window=30, keep_idle=0, cheap=cheap)
    simulation = Simulation(bounds, startup)
    for step in range(pace * len(load) + 120):
        units, seconds = load[step // pace] if step // pace < len(load) else (0, 1.0)
        simulation.tick(float(step), [demand(units, seconds)] if units else [])
    downs = [change for change in simulation.changes if change[2]]
    ups = [change for change in simulation.changes if change[1]]
    for now, _, _, left, _ in downs:  # what was needed within the window stays
        assert left >= simulation.largest_need(now)
    for up_at, launched, _, _, need in ups:  # what went comes back only for more than the window had asked for
        for down_at, *_ in downs:
            if down_at < up_at <= down_at + bounds.window:
                assert launched > 0
                assert need > simulation.largest_need(down_at)


@REPEATABLE
@given(st.integers(0, 500), st.floats(0.01, 50), st.floats(0.5, 90), st.booleans())
def test_constant_load_settles(units, seconds, startup, cheap):
    bounds = Limits(minimum=1, maximum=40, cheap=cheap)
    simulation = Simulation(bounds, startup)
    for step in range(600):
        simulation.tick(step * 1.0, [demand(units, seconds)] if units else [])
    last = simulation.changes[-1][0] if simulation.changes else 0.0
    assert last <= 200 + startup
    waves = horizon_of(bounds, startup) / seconds
    waves = max(1, math.ceil(waves - 1e-9)) if waves <= 4 else waves  # few tasks on a slot are whole ones
    expected = math.ceil(units / waves - 1e-9) if units else 0
    assert len(simulation.names) == min(max(1, expected), 40)


def test_the_need_is_work_over_horizon_but_no_more_than_can_run():
    assert need_of([demand(100, 6.0)], Limits(maximum=99)) == 20  # 600 s in 30 s
    assert need_of([demand(100, 6.0, runnable=3)], Limits(maximum=99)) == 3
    assert need_of([demand(100, 6.0)], Limits(maximum=8)) == 8
    assert need_of([demand(1, 0.001)], Limits(maximum=8)) == 1
    assert need_of([], Limits(maximum=8)) == 0


def test_slots_count_threads_and_resources():
    work = Demand("infer", 100, 100, 6.0, {"GPU": 0.5})
    snapshot = ClassSnapshot(GPU, (), [work])
    assert decide(snapshot, Limits(maximum=99), State(), 0.0)[0].need == 10  # two at a time, not four


def test_a_long_start_up_raises_the_horizon():
    assert horizon_of(Limits(horizon=30), startup=120) == 90
    assert horizon_of(Limits(horizon=30), startup=2) == 30


def test_cheap_workers_are_used_for_short_jobs():
    short = [demand(60, 0.2)]  # 12 s of work
    assert need_of(short, Limits(maximum=2)) == 1
    assert need_of(short, Limits(maximum=2, cheap=True)) == 2
    assert need_of([demand(10, 0.2)], Limits(maximum=2, cheap=True)) == 1  # over before a process could help
    assert horizon_of(Limits(cheap=True), startup=1.5) == 5.0
    assert horizon_of(Limits(cheap=True), startup=4.0) == 12.0
    assert horizon_of(Limits(cheap=True, horizon=2.0), startup=4.0) == 3.0


def test_starting_workers_count():
    snapshot = ClassSnapshot(CPU, workers(4, busy=1, starting=3), [demand(100, 1.2)])
    assert decide(snapshot, Limits(maximum=99), State(), 0.0)[0].launch == 0


def test_unknown_durations_double_and_wait_for_those_that_start():
    bounds, state = Limits(maximum=64, ramp=5), State()
    unknown = [demand(1000, None)]
    have, seen = 1, []
    for step in range(5):
        snapshot = ClassSnapshot(CPU, workers(have, busy=have), unknown)
        decision, state = decide(snapshot, bounds, state, step * 5.0)
        have += decision.launch
        seen.append(have)
    assert seen == [1, 2, 4, 8, 16]
    snapshot = ClassSnapshot(CPU, workers(16, busy=1, starting=15), unknown)
    assert decide(snapshot, bounds, state, 100.0)[0].launch == 0


def test_what_becomes_known_ends_the_doubling():
    bounds = Limits(maximum=64)
    state = State(ramp=16, ramped=0.0)
    decision, state = decide(ClassSnapshot(CPU, workers(4, busy=4), [demand(1000, 0.01)]), bounds, state, 1.0)
    assert decision.launch == 0
    assert state.ramp == 0


def test_nobody_goes_before_a_whole_window_was_seen():
    bounds = Limits(maximum=9, window=30, keep_idle=20)
    state, gone = State(), []
    for now in range(40):
        decision, state = decide(ClassSnapshot(CPU, workers(8), []), bounds, state, float(now))
        gone.append(len(decision.retire))
    assert sum(gone[:30]) == 0
    assert gone[30] == 2


def test_the_largest_need_of_the_window_is_kept():
    bounds = Limits(maximum=9, window=30, keep_idle=0)
    state = State(since=-1e6)
    _, state = decide(ClassSnapshot(CPU, workers(8), [demand(100, 2.0)]), bounds, state, 0.0)  # 7 needed
    decision, state = decide(ClassSnapshot(CPU, workers(8), []), bounds, state, 29.0)
    assert len(decision.retire) == 1
    decision, state = decide(ClassSnapshot(CPU, workers(7), []), bounds, state, 29.5)
    assert decision.retire == ()
    decision, state = decide(ClassSnapshot(CPU, workers(7), []), bounds, state, 31.0)
    assert len(decision.retire) == 1


def test_idle_workers_with_the_fewest_unique_bytes_go_first():
    have = [
        WorkerView("cpu-0", idle_since=0.0, unique_bytes=900),
        WorkerView("cpu-1", idle_since=None, unique_bytes=0),
        WorkerView("cpu-2", idle_since=0.0, unique_bytes=10),
        WorkerView("cpu-3", idle_since=995.0, unique_bytes=0),
    ]
    decision, _ = decide(ClassSnapshot(CPU, have, []), Limits(maximum=9), settled(1000.0, 0), 1000.0)
    assert decision.retire == ("cpu-2",)  # cpu-1 is busy, cpu-3 idle for 5 s only


def test_workers_that_never_arrived_are_given_up_before_idle_ones():
    decision, _ = decide(ClassSnapshot(CPU, workers(4, starting=2), []), Limits(maximum=9), settled(1000.0, 0), 1000.0)
    assert (decision.cancel, decision.retire) == (("cpu-3",), ())  # the one asked for last


def test_a_cap_that_holds_back_is_named():
    priced = replace(CPU, price=2.0)
    decision, _ = decide(ClassSnapshot(priced, (), [demand(100, 60.0)]), Limits(maximum=50, spend=9.0), State(), 0.0)
    assert (decision.launch, decision.caps) == (4, ("budget",))
    assert any("9.00 per hour" in reason and "at most 4" in reason for reason in decision.reasons)
    decision, _ = decide(ClassSnapshot(CPU, (), [demand(100, 60.0)]), Limits(maximum=3), State(), 0.0)
    assert (decision.launch, decision.caps) == (3, ("maximum",))
