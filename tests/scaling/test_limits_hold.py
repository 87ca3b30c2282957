"""What no backlog may bring about: more than the caps, lost data, money beyond the budget, endless tries."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from daskml_scale.scaling.controller import Controller, Money
from daskml_scale.scaling.demand import Demand, Shape, WorkerView
from daskml_scale.scaling.fleet import run_fleet
from daskml_scale.scaling.policy import ClassSnapshot, Limits, State, decide
from daskml_scale.scaling.scalers import BacklogScaler
from daskml_scale.scaling.startup import Startup
from daskml_scale.scaling.usage import Orders, Seen, Supply
from daskml_scale.scaling.workload import Batch

REPEATABLE = settings(deadline=None, derandomize=True, max_examples=20)
CPU = Shape("cpu", threads=1)
PRICED = Shape("cpu", threads=1, price=3.6)
GPU = Shape("gpu", threads=1, resources={"GPU": 1.0}, price=36.0)

sizes = st.integers(0, 5)
held = st.lists(st.tuples(sizes, sizes, st.booleans()), min_size=1, max_size=12)


def idle_workers(rows: list[tuple[int, int, bool]]) -> list[WorkerView]:
    """Workers that idle since 0 (the busy ones: since never), with (bytes, unique bytes) and a limit of 10 each."""
    return [
        WorkerView(f"cpu-{n}", True, None if busy else 0.0, min(unique, size), size, 10)
        for n, (size, unique, busy) in enumerate(rows)
    ]


@REPEATABLE
@given(held, st.booleans())
def test_the_last_place_of_somebodys_data_is_never_given_up(rows, refuge):
    have = idle_workers(rows)
    state, gone = State(since=-1e6, needs=((999.0, 0),)), set()
    for step in range(40):
        left = [worker for worker in have if worker.name not in gone]
        snapshot = ClassSnapshot(CPU, left, (), refuge=refuge)
        decision, state = decide(snapshot, Limits(maximum=99), state, 1000.0 + step)
        gone |= set(decision.retire)
        going = [worker for worker in left if worker.name in decision.retire]
        staying = [worker for worker in left if worker.name not in decision.retire]
        assert all(worker.idle_since is not None for worker in going)
        if any(worker.unique_bytes for worker in going) and not refuge:
            assert staying
            # What is in memory fills at most half of what remains.
            assert sum(worker.nbytes for worker in left) * 2 <= sum(worker.memory for worker in staying)


def test_results_that_fill_the_memory_ask_for_more_workers_at_most_twice_as_many():
    full = [WorkerView("cpu-0", True, None, 9, 9, 10), WorkerView("cpu-1", True, None, 9, 9, 10)]
    work = [Demand("stage", 100, 100, 0.01)]
    decision, _ = decide(ClassSnapshot(CPU, full, work), Limits(maximum=99), State(), 0.0)
    assert (decision.need, decision.rule) == (3, "memory")  # 18 bytes are 60 % of 3 workers
    overfull = [replace(worker, nbytes=100) for worker in full]
    assert decide(ClassSnapshot(CPU, overfull, work), Limits(maximum=99), State(), 0.0)[0].need == 4


@REPEATABLE
@given(st.lists(st.tuples(st.floats(0.5, 50), st.integers(0, 200)), max_size=40), st.integers(1, 20))
def test_no_minute_sees_more_launches_than_its_cap(steps, cap):
    bounds = Limits(maximum=1000, per_minute=cap)
    state, now, count, launched = State(), 0.0, 0, []
    for pause, units in steps:
        now += pause
        have = [WorkerView(f"cpu-{n}", True) for n in range(count)]
        wanted = [Demand("stage", units, units, 60.0)] if units else []
        decision, state = decide(ClassSnapshot(CPU, have, wanted), bounds, state, now)
        count += decision.launch
        launched.append((now, decision.launch))
    for end, _ in launched:
        assert sum(number for then, number in launched if end - 60 < then <= end) <= cap


def test_a_rate_cap_is_named():
    decision, _ = decide(
        ClassSnapshot(CPU, (), [Demand("s", 100, 100, 60.0)]), Limits(maximum=1000, per_minute=7), State(), 0.0
    )
    assert (decision.launch, decision.caps, decision.rule) == (7, ("rate",), "rate")
    assert "at most 7 workers" in decision.reasons[-1]


class Billed:
    """Our policy under a budget; what the workers cost is added up independently, second by second."""

    interval = 1.0

    def __init__(self, money: Money, minimum: int) -> None:
        shapes = (PRICED, GPU)
        bounds = {shape.name: Limits(minimum=minimum, maximum=500) for shape in shapes}
        self.inner = BacklogScaler(shapes, bounds, {"cpu": 30.0, "gpu": 30.0}, money)
        self.bills: list[float] = []
        self.paid = 0.0

    def step(self, seen: Seen, now: float) -> Orders:
        orders = self.inner.step(seen, now)
        bill = sum(
            shape.price * (len(seen.workers[shape.name]) + orders.launch.get(shape.name, 0)) for shape in (PRICED, GPU)
        )
        gone = {*orders.retire, *orders.cancel}
        bill -= sum((PRICED if name.startswith("cpu") else GPU).price for name in gone)
        self.bills.append(bill)
        self.paid += bill / 3600
        return orders


works = st.lists(
    st.tuples(st.integers(1, 200), st.floats(1, 60), st.booleans(), st.floats(0, 300)), min_size=1, max_size=4
)


def batches(rows: list[tuple[int, float, bool, float]]) -> list[Batch]:
    return [
        Batch(f"s{n}", [seconds] * count, at=at, needs=(("GPU", 1.0),) if special else (), hint=seconds)
        for n, (count, seconds, special, at) in enumerate(rows)
    ]


@REPEATABLE
@given(works, st.floats(0, 500), st.integers(0, 3))
def test_an_hourly_budget_holds_at_every_moment(rows, per_hour, minimum):
    scaler = Billed(Money(per_hour=per_hour), minimum)
    run_fleet(batches(rows), (PRICED, GPU), scaler, Supply((20.0, 40.0)), most=900.0)
    assert max(scaler.bills) <= per_hour + 1e-6


@REPEATABLE
@given(works, st.floats(0.01, 5), st.integers(0, 3))
def test_a_total_budget_holds_over_any_horizon_even_when_workers_are_busy(rows, total, minimum):
    scaler = Billed(Money(total=total), minimum)
    run_fleet(batches(rows), (PRICED, GPU), scaler, Supply((20.0, 40.0)), most=1800.0)
    assert scaler.paid <= total + 1e-6


def test_a_spent_budget_stops_busy_workers_and_says_so():
    have = [WorkerView("cpu-0", True), WorkerView("cpu-1", False)]
    decision, _ = decide(
        ClassSnapshot(PRICED, have, [Demand("s", 9, 9, 1.0)]), Limits(maximum=9, left=0.0), State(), 0.0
    )
    assert (decision.stop, decision.cancel, decision.rule) == (("cpu-0",), ("cpu-1",), "budget")
    assert "the total budget is spent" in decision.reasons
    free = decide(ClassSnapshot(CPU, have, [Demand("s", 9, 9, 1.0)]), Limits(maximum=9, left=0.0), State(), 0.0)[0]
    assert not free.stop  # what costs nothing may go on


def test_workers_that_never_arrive_are_given_up_and_asked_for_less_and_less_often():
    controller = Controller([CPU], {"cpu": Limits(maximum=4)}, {"cpu": 10.0})
    work, starting, tries = [Demand("s", 100, 100, 60.0)], {}, []
    for now in range(7200):
        views = [WorkerView(name, ready=False, asked=at) for name, at in starting.items()]
        (decision,) = controller.step(work, {"cpu": views}, float(now))
        for name in decision.cancel:
            del starting[name]
        if decision.launch:
            tries.append(now)
            starting.update({f"cpu-{now}-{n}": float(now) for n in range(decision.launch)})
    pauses = [later - earlier for earlier, later in pairwise(tries)]
    assert pauses == sorted(pauses)
    assert 5 <= len(tries) <= 16
    assert any("brought no worker" in reason for reason in controller.decisions["cpu"].reasons) or starting


def test_one_arrival_ends_the_back_off():
    controller = Controller([CPU], {"cpu": Limits(maximum=4)}, {"cpu": 10.0})
    work = [Demand("s", 100, 100, 60.0)]
    lost = [WorkerView("cpu-0", ready=False, asked=0.0)]
    controller.step(work, {"cpu": lost}, 0.0)
    assert controller.step(work, {"cpu": lost}, 100.0)[0].cancel == ("cpu-0",)
    assert controller.step(work, {}, 101.0)[0].caps == ("back-off",)
    assert controller.startups["cpu"].misses == 1
    again = controller.startups["cpu"].until
    assert controller.step(work, {}, again)[0].launch == 4
    controller.step(work, {"cpu": [WorkerView("cpu-1", ready=False, asked=again)]}, again + 1)
    controller.step(work, {"cpu": [WorkerView("cpu-1", ready=True)]}, again + 8)
    assert controller.startups["cpu"] == Startup(9.0, 15.0)


def test_idle_workers_are_held_for_a_start_up_while_work_is_known_to_come():
    have = [WorkerView(f"cpu-{n}", True, 0.0 if n else None) for n in range(8)]
    bounds, settled = Limits(maximum=99), State(since=-1e6, needs=((-1.0, 1),))
    reducing = [Demand("reduce", 1, 1, 60.0), Demand("apply", 100, 0, 60.0)]
    snapshot = ClassSnapshot(CPU, have, reducing, Startup.guess(90.0))
    assert decide(snapshot, bounds, settled, 60.0)[0].retire == ()
    assert len(decide(snapshot, bounds, settled, 91.0)[0].retire) == 2
    nothing_to_come = replace(snapshot, demands=reducing[:1])
    assert len(decide(nothing_to_come, bounds, settled, 60.0)[0].retire) == 2
