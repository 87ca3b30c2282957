"""The simulated cluster: it loses no task, counts what it claims, and equal seeds give equal runs."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daskml_scale.scaling.demand import Shape
from daskml_scale.scaling.fleet import run_fleet
from daskml_scale.scaling.policy import Limits
from daskml_scale.scaling.scalers import BacklogScaler, FixedScaler
from daskml_scale.scaling.usage import Orders, Seen, Supply
from daskml_scale.scaling.workload import Batch, Prefix

CPU = Shape("cpu", threads=2, price=3600.0)
GPU = Shape("gpu", threads=2, resources={"GPU": 1.0})
NEEDS = (("GPU", 1.0),)
AT_ONCE = Supply((0.0, 0.0))
REPEATABLE = settings(deadline=None, derandomize=True, max_examples=40)


def ours(*shapes: Shape, maximum: int = 50, startup: float = 90.0, **limits: float) -> BacklogScaler:
    bounds = {shape.name: Limits(maximum=maximum, **limits) for shape in shapes}
    return BacklogScaler(shapes, bounds, dict.fromkeys(bounds, startup))


def test_a_fixed_number_of_workers_takes_work_over_slots():
    used = run_fleet([Batch("a", [10.0] * 40)], (CPU,), FixedScaler(CPU, 5), AT_ONCE, close=True)
    assert used.makespan == 40.0
    assert used.worker_seconds == 5 * 40.0
    assert used.cost == 5 * 40.0
    assert used.task_seconds == 400.0
    assert used.idle == 0.0
    assert (used.started, used.unused, used.reversals, used.reruns) == (5, 0, 0, 0)


def test_start_ups_are_waited_for_and_paid():
    used = run_fleet([Batch("a", [10.0] * 2)], (CPU,), FixedScaler(CPU, 1), Supply((60.0, 60.0)), close=True)
    assert (used.makespan, used.worker_seconds) == (70.0, 70.0)


def test_batches_wait_for_those_before_them_and_for_the_driver():
    work = [
        Batch("a", [5.0], job="one"),
        Batch("b", [7.0], after=(0,), delay=3.0, job="one"),
        Batch("c", [2.0], at=100.0, job="two"),
    ]
    used = run_fleet(work, (CPU,), FixedScaler(CPU, 2), AT_ONCE, close=True)
    assert used.done == {"one": 15.0, "two": 102.0}


def test_special_work_runs_where_the_resource_is_one_at_a_time():
    work = [Batch("infer", [10.0] * 4, needs=NEEDS), Batch("plain", [10.0] * 4)]
    used = run_fleet(work, (GPU,), FixedScaler(GPU, 1), AT_ONCE, close=True)
    assert used.makespan == 40.0  # beside each infer one plain task
    assert run_fleet(work, (CPU,), FixedScaler(CPU, 1), AT_ONCE, close=True, most=1000.0).makespan == math.inf


class Leaver:
    """Two workers; at 15 s the first one is retired, whatever it does."""

    interval = 5.0

    def step(self, seen: Seen, now: float) -> Orders:
        if now == 0:
            return Orders({"cpu": 2})
        return Orders({}, ["cpu-0"]) if now == 15 else Orders()


def test_tasks_of_a_worker_that_goes_run_again():
    used = run_fleet([Batch("a", [10.0] * 8)], (CPU,), Leaver(), AT_ONCE, close=True)
    assert used.reruns == 2
    assert used.makespan == 30.0
    assert used.task_seconds == 80.0  # only what counted
    assert used.worker_seconds == 15.0 + 30.0


def test_workers_that_never_arrive_are_given_up_and_others_tried():
    used = run_fleet([Batch("a", [10.0] * 100, hint=10.0)], (CPU,), ours(CPU), Supply((60.0, 120.0), fail=0.5), seed=1)
    assert math.isfinite(used.makespan)
    assert used.failed > 0
    assert used.started > used.failed


def test_preempted_workers_are_replaced_until_the_work_is_done():
    work = [Batch("a", [20.0] * 2000, hint=20.0)]
    used = run_fleet(work, (CPU,), ours(CPU), Supply((60.0, 120.0), lifetime=300.0))
    assert math.isfinite(used.makespan)
    assert used.preempted > 0
    assert used.reruns > 0
    assert used.task_seconds == 40_000.0


@REPEATABLE
@given(
    st.lists(
        st.tuples(st.integers(1, 60), st.floats(0.1, 40), st.booleans(), st.floats(0, 200)), min_size=1, max_size=5
    ),
    st.floats(0, 0.4),
    st.sampled_from([math.inf, 400.0]),
    st.integers(0, 5),
)
def test_every_task_is_done_whatever_happens_to_workers(batches, fail, lifetime, seed):
    work = []
    for count, seconds, waits, at in batches:
        after = (len(work) - 1,) if waits and work else ()
        work.append(Batch(f"p{len(work) % 2}", [seconds] * count, at=at, after=after, hint=seconds))
    supply = Supply((5.0, 30.0), fail, lifetime)
    first = run_fleet(work, (CPU,), ours(CPU, startup=20.0), supply, seed=seed)
    assert first.task_seconds == pytest.approx(sum(sum(batch.seconds) for batch in work))
    assert first.worker_seconds * CPU.threads >= first.task_seconds
    assert 0.0 <= first.idle <= 1.0
    assert first == run_fleet(work, (CPU,), ours(CPU, startup=20.0), supply, seed=seed)


def test_gpu_work_with_no_gpu_worker_starts_gpu_workers_only():
    work = [Batch("infer", [15.0] * 100, needs=NEEDS, hint=15.0)]
    used = run_fleet(work, (CPU, replace(GPU, price=9.0)), ours(CPU, GPU))
    assert math.isfinite(used.makespan)
    assert used.cost == pytest.approx(used.worker_seconds * 9.0 / 3600)  # not one CPU worker


def test_what_the_scheduler_learns_of_durations_is_what_dask_learns():
    prefix = Prefix("a", units=3)
    prefix.started(0.0)
    assert prefix.known is None
    prefix.heartbeat(4.0)
    assert (prefix.longest, prefix.known) == (4.0, 8.0)
    prefix.ended(0.0, 6.0)
    assert (prefix.average, prefix.known, prefix.units) == (6.0, 6.0, 2)
    prefix.started(10.0)
    prefix.ended(10.0, 2.0)
    assert prefix.average == 4.0  # weight one half
    prefix.started(20.0)
    prefix.heartbeat(29.0)
    assert prefix.average == -1.0  # twice the average: forgotten
