"""What a stage raises for its failed units."""

from __future__ import annotations

import pytest

from daskml_scale import errors
from daskml_scale.errors import Exit, PlanError, SpecError, StoreError, UnitsFailedError
from daskml_scale.plan.records import FAILED, Record
from daskml_scale.stages.failures import failure


def record(unit: str, error: str) -> Record:
    return Record(unit, "f", "", FAILED, error=error)


@pytest.mark.parametrize(
    ("kind", "code"), [(SpecError, Exit.USAGE), (PlanError, Exit.USAGE), (StoreError, Exit.FAILED)]
)
def test_what_our_code_refused_is_raised_again_in_one_line(kind: type[errors.DaskMLError], code: Exit) -> None:
    found = failure("rows", [record("a", f"{kind.__name__}: no room: here\nTraceback (most recent call last)")], 1)
    assert type(found) is kind
    assert found.exit_code == code
    assert str(found) == ("no room: here" if kind is SpecError else "rows: no room: here")


def test_an_error_without_a_class_of_its_own_is_a_failed_unit_in_one_line() -> None:
    found = failure("rows", [record("a", "DaskMLError: no\nTraceback")], 1)
    assert (type(found), str(found)) == (UnitsFailedError, "rows: no")


def test_a_stage_is_named_once() -> None:
    assert str(failure("rows", [record("a", "PlanError: rows: no")], 1)) == "rows: no"


def test_the_first_unit_speaks_for_the_others_in_whatever_order_they_ended() -> None:
    found = failure("rows", [record("b", "ValueError: b"), record("a", "PlanError: a")], 5)
    assert str(found) == "rows: a (2 of 5 units failed; the rest is committed)"


@pytest.mark.parametrize("error", ["ValueError: odd\nTraceback", "Exit: 3", "IntEnum: x", "annotations: x", "odd", ""])
def test_anything_else_keeps_its_traceback(error: str) -> None:
    found = failure("rows", [record("a", error)], 2)
    assert type(found) is UnitsFailedError
    assert str(found) == f"rows: 1 of 2 units failed; the rest is committed. First: a: {error}"
