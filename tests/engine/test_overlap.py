"""Reading ahead and writing behind within one task: order, bounds, failures."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest

from daskml_scale.engine.overlap import BEHIND, Overlap, Pending
from daskml_scale.engine.task import Limits, calls, run_units
from daskml_scale.engine.worker import WorkerContext
from daskml_scale.plan.units import Unit

UNITS = [Unit(f"u{number}", number) for number in range(8)]


def run(kernel: Any, units: list[Unit] = UNITS, limits: Limits | None = None) -> Any:
    context = WorkerContext(overlap=Overlap(lambda: units))
    try:
        columns = [u.key for u in units], [u.payload for u in units], [1.0] * len(units)
        return run_units(*calls(kernel, *columns, context), limits or Limits())
    finally:
        assert context.overlap is not None
        context.overlap.close()


def test_values_come_in_order_and_nothing_is_pending() -> None:
    rows = run(lambda unit, worker: worker.write(lambda: worker_value(unit)))
    assert rows.values == [number * 10 for number in range(8)]
    assert not rows.failures
    assert len(rows.nanoseconds) == 8


def worker_value(unit: Unit) -> int:
    return int(unit.payload) * 10


def test_the_next_unit_is_read_while_one_computes() -> None:
    reading = {unit.key: threading.Event() for unit in UNITS}

    def read(unit: Unit) -> int:
        reading[unit.key].set()
        return int(unit.payload)

    def kernel(unit: Unit, worker: WorkerContext) -> int:
        found = worker.read(unit, read)
        after = UNITS[unit.payload + 1 : unit.payload + 2]
        assert all(reading[other.key].wait(10) for other in after)  # only a read ahead can set it
        return found

    assert run(kernel).values == list(range(8))


def test_the_next_unit_computes_while_one_is_written() -> None:
    computed = [threading.Event() for _ in UNITS]

    def kernel(unit: Unit, worker: WorkerContext) -> Any:
        computed[unit.payload].set()

        def write() -> bool:
            return unit.payload == 7 or computed[unit.payload + 1].wait(10)

        return worker.write(write)

    assert run(kernel).values == [True] * 8


def test_what_a_read_or_a_write_raises_fails_its_own_unit() -> None:
    def read(unit: Unit) -> int:
        if unit.payload == 3:
            raise OSError("torn")
        return int(unit.payload)

    def write(value: int) -> int:
        if value == 5:
            raise ValueError("full")
        return value

    def kernel(unit: Unit, worker: WorkerContext) -> Any:
        found = worker.read(unit, read)
        return worker.write(lambda: write(found))

    rows = run(kernel)
    assert {place: failure.error for place, failure in rows.failures.items()} == {
        3: "OSError: torn",
        5: "ValueError: full",
    }
    assert [value for value in rows.values if value is not None] == [0, 1, 2, 4, 6, 7]


def test_few_units_are_held_at_a_time() -> None:
    lock, held, most = threading.Lock(), 0, 0

    def change(by: int) -> None:
        nonlocal held, most
        with lock:
            held += by
            most = max(most, held)

    def write(unit: Unit) -> int:
        time.sleep(0.002)
        change(-1)
        return int(unit.payload)

    def kernel(unit: Unit, worker: WorkerContext) -> Any:
        change(1)
        return worker.write(lambda: write(unit))

    assert run(kernel).values == list(range(8))
    assert most <= BEHIND + 2


def test_a_task_that_stops_early_has_written_what_it_returns() -> None:
    written: list[int] = []

    def kernel(unit: Unit, worker: WorkerContext) -> Any:
        return worker.write(lambda: written.append(unit.payload))

    rows = run(kernel, limits=Limits(seconds=0))
    assert len(rows) == len(written) == 1
    assert not any(isinstance(value, Pending) for value in rows.values)


def test_without_overlap_functions_are_just_called() -> None:
    context = WorkerContext()
    assert context.read(UNITS[3], lambda unit: unit.payload) == 3
    assert context.write(lambda: "done") == "done"


def test_a_kernel_that_asks_for_nothing_starts_no_thread() -> None:
    before = threading.active_count()
    assert run(lambda unit, worker: threading.active_count()).values == [before] * 8


def test_an_interrupt_in_a_write_is_not_swallowed_silently() -> None:
    def stop() -> None:
        raise SystemExit(3)

    rows = run(lambda unit, worker: worker.write(stop), UNITS[:2])
    assert set(rows.failures) == {0, 1}
    with pytest.raises(SystemExit):
        Overlap(list).write(stop).result()
