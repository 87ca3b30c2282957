from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from daskml_scale.errors import DaskMLError, StoreError
from daskml_scale.stages.isolate import REASONS, BadRows, isolate


@given(st.integers(0, 200), st.data())
def test_exactly_the_refused_rows_are_found_and_all_others_are_returned_in_order(
    rows: int, data: st.DataObject
) -> None:
    refused = data.draw(st.sets(st.integers(0, max(0, rows - 1)), max_size=min(rows, 8)))
    numbers = np.arange(1000, 1000 + rows)

    def double(start: int, stop: int) -> np.ndarray:
        if refused.intersection(range(start, stop)):
            raise ValueError(f"refused {start}")
        return 2 * numbers[start:stop]

    bad = BadRows(limit=8)
    done = isolate(double, numbers, 3, bad)
    found = np.concatenate([part for part, _ in done] or [np.empty(0, dtype="int64")])
    values = np.concatenate([part for _, part in done] or [np.empty(0, dtype="int64")])
    assert bad.status == {1000 + row: 3 for row in refused}
    assert found.tolist() == [number for number in numbers.tolist() if number - 1000 not in refused]
    assert (values == 2 * found).all()


def calls_for(rows: int, refused: int | None) -> int:
    calls = []

    def function(start: int, stop: int) -> np.ndarray:
        calls.append((start, stop))
        if refused is not None and start <= refused < stop:
            raise ValueError("refused")
        return np.zeros(stop - start)

    isolate(function, np.arange(rows), 3, BadRows(limit=1))
    return len(calls)


def test_no_bad_row_costs_one_call_and_one_bad_row_two_per_halving_at_most() -> None:
    assert calls_for(1024, None) == 1
    assert calls_for(1024, 0) == 1 + 2 * 10
    assert calls_for(1024, 1023) == 1 + 10 + 1  # the second half is known to be bad when the first is not


def test_rows_that_fail_only_together_are_all_returned() -> None:
    calls: list[int] = []

    def few(start: int, stop: int) -> np.ndarray:
        calls.append(stop - start)
        if len(calls) == 1:
            raise ValueError("once")
        return np.arange(start, stop)

    bad = BadRows(limit=1)
    done = isolate(few, np.arange(100), 3, bad)
    assert not bad.status
    assert np.concatenate([values for _, values in done]).tolist() == list(range(100))


def test_too_many_bad_rows_give_up_early_and_say_the_first() -> None:
    calls = []

    def never(start: int, stop: int) -> np.ndarray:
        calls.append(start)
        raise ValueError("always at 0x7f3a5c001230")

    with pytest.raises(DaskMLError, match=r"more than 10 rows .*first: row 0 of it: ValueError: always at 0x\.\.\."):
        isolate(never, np.arange(10_000), 3, BadRows(limit=10))
    assert len(calls) < 60


def test_errors_that_are_no_rows_fault_are_raised_at_once() -> None:
    for error in (StoreError("gone"), MemoryError(), PermissionError("no")):
        calls = []

        def function(start: int, stop: int, error: Exception = error, calls: list[int] = calls) -> np.ndarray:
            calls.append(start)
            raise error

        with pytest.raises(type(error)):
            isolate(function, np.arange(100), 2, BadRows(limit=100))
        assert len(calls) == 1


def test_an_output_of_another_length_is_refused() -> None:
    with pytest.raises(DaskMLError, match=r"4 rows went in and an array of shape \(3,\) came out"):
        isolate(lambda start, stop: np.zeros(3), np.arange(4), 3, BadRows(limit=1))


def test_reasons_are_bounded_and_in_row_order() -> None:
    def function(start: int, stop: int) -> np.ndarray:
        raise ValueError("x" * 1000)

    bad = BadRows(limit=500)
    isolate(function, np.arange(300), 3, bad)
    first = bad.first(offset=7000)
    assert [row for row, _, _ in first] == list(range(7000, 7000 + REASONS))
    assert all(len(text) <= 200 and status == 3 for _, status, text in first)
    assert len(bad.status) == 300
