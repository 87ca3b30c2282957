"""What runs on a worker: isolation, early return, results that are too large or cannot be sent. No cluster."""

from __future__ import annotations

import threading
from array import array

import pytest

from daskml_scale.engine.outcomes import Finished, Outcomes
from daskml_scale.engine.suspects import merged, poisoned
from daskml_scale.engine.task import (
    MAX_HELD,
    Limits,
    OnPayload,
    calls,
    even_out,
    packed,
    run_units,
    unpacked,
)
from daskml_scale.engine.worker import WorkerContext
from daskml_scale.plan.records import Written
from daskml_scale.plan.units import Unit


def rows(func, payloads, limits=None):
    keys = [f"{index:03d}" for index in range(len(payloads))]
    call, arguments = calls(func, keys, payloads, [1.0] * len(payloads), WorkerContext(shared="shared"))
    return run_units(call, arguments, limits or Limits())


def test_a_kernel_sees_its_unit_and_the_shared_object():
    found = rows(lambda unit, worker: (unit.key, unit.payload, worker.shared), [5, 6])
    assert found.values == [("000", 5, "shared"), ("001", 6, "shared")]


def test_a_kernel_on_payloads_gives_the_same_as_one_on_units():
    def plain(payload):
        return payload * 2

    assert rows(OnPayload(plain), [1, 2]).values == rows(lambda unit, worker: plain(unit.payload), [1, 2]).values
    assert OnPayload(plain)(Unit("k", 4), WorkerContext()) == 8


def test_a_failure_carries_its_classes_for_a_retry_policy():
    def refuse(payload):
        raise ConnectionResetError("gone\nfor good")

    found = rows(OnPayload(refuse), [1])
    assert found.failures[0].error == "ConnectionResetError: gone for good"
    assert {"ConnectionResetError", "ConnectionError", "OSError", "Exception"} <= set(found.failures[0].kinds)
    assert "in refuse" in found.failures[0].traceback


def test_a_task_beyond_its_time_starts_no_further_unit():
    assert len(rows(OnPayload(abs), [1, 2, 3], Limits(seconds=0.0))) == 1
    assert len(rows(OnPayload(abs), [1, 2, 3], Limits(seconds=60.0))) == 3


def test_a_task_that_holds_many_bytes_returns_what_it_has():
    found = rows(OnPayload(bytes), [MAX_HELD // 2 + 1] * 5)
    assert [len(value) for value in found.values] == [MAX_HELD // 2 + 1] * 2


def test_a_result_larger_than_the_driver_takes_fails_its_own_unit():
    found = rows(OnPayload(bytes), [10, 3 << 20, 20], Limits(result_bytes=2 << 20))
    assert [value and len(value) for value in found.values] == [10, None, 20]
    assert "returned 3 MiB and the driver takes 2 MiB" in found.failures[1].error
    assert "ResultTooLargeError" in found.failures[1].kinds


def test_a_large_result_inside_an_object_is_found_when_it_is_pickled():
    sizes = [10, 3 << 20, 20]
    found = unpacked(packed(rows(OnPayload(lambda size: Written({}, size, "x" * size)), sizes), 2 << 20))
    assert [value and value.rows for value in found.values] == [10, None, 20]
    assert "returned 3 MiB and the driver takes 2 MiB" in found.failures[1].error


@pytest.mark.parametrize("value", [1, "text", None, [1, {"a": 2.0}], {1, 2}])
def test_results_come_back_as_they_were(value):
    found = unpacked(packed(rows(OnPayload(lambda _: value), [0, 0])))
    assert found.values == [value, value]
    assert len(found.nanoseconds) == 2
    assert not found.failures


def test_a_result_that_cannot_be_pickled_fails_its_own_unit():
    found = unpacked(packed(rows(OnPayload(lambda item: threading.Lock() if item == 1 else item), [0, 1, 2])))
    assert found.values == [0, None, 2]
    assert "cannot be pickled" in found.failures[1].error


def test_rows_of_several_children_join_in_order():
    first = packed(rows(OnPayload(lambda item: 1 // item), [1, 0]))
    found = merged([first, packed(poisoned("died of SIGSEGV")), packed(rows(OnPayload(abs), [-7]))])
    assert found.values == [1, None, None, 7]
    assert sorted(found.failures) == [1, 2]
    assert found.failures[2].error == (
        "PoisonedUnit: 3 processes died while they ran this unit; the last one died of SIGSEGV"
    )
    assert len(found.nanoseconds) == 4


def part(payloads, attempt=1, func=abs):
    units = [Unit(f"{index:03d}", payload) for index, payload in enumerate(payloads)]
    return Finished(units, rows(OnPayload(func), payloads), "w", attempt)


def test_outcomes_are_a_sequence_over_their_parts():
    group = Outcomes()
    for payloads in ([-1, -2], [], [-3]):
        group.add(part(payloads))
    assert len(group) == 3
    assert len(group.parts) == 2
    assert [outcome.value for outcome in group] == [1, 2, 3]
    assert group[-1] == list(group)[2]
    assert [outcome.value for outcome in group[1:]] == [2, 3]
    with pytest.raises(IndexError):
        group[3]
    assert group[0].worker == "w"
    assert group[0].seconds >= 0


def test_a_retry_policy_sends_a_class_and_those_below_it_again_so_often():
    def refuse(item):
        raise {1: ConnectionError, 2: ValueError, 3: OSError}[item]

    policy = {"OSError": 2}
    rest, again = part([1, 2, 3], 2, refuse).without_retries(policy)
    assert [unit.payload for unit in again] == [1, 3]
    assert [unit.payload for unit in rest.units] == [2]
    assert rest.rows.failures[0].error.startswith("ValueError")
    last, again = part([1, 2, 3], 3, refuse).without_retries(policy)
    assert not again
    assert len(last.units) == 3


def test_units_that_one_call_computed_share_its_time():
    found = rows(lambda unit, worker: unit.key, [1, 2, 3, 4])
    found.nanoseconds[:] = array("q", [900, 30, 60, 5])
    even_out(found, ["000", "001", "002", "003"], [["000", "001", "002"], ["003", "004"]])
    assert list(found.nanoseconds) == [330, 330, 330, 5]
