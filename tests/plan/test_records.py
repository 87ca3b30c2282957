from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daskml_scale.plan.records import MISSING, Written, after, digest, fingerprint, reason, select, to_record
from daskml_scale.plan.units import Outcome, Parts, Snapshot, Unit, Variable, row_key, row_ranges

PARTS = Parts(code="1", model="m", parameters="p", schema="s")


def plan_of(keys, parts=PARTS, records=None, read="r"):
    return select([(Unit(key), read) for key in keys], parts, records or {})


def committed(plan):
    return {unit.key: to_record(Outcome(unit, {"x": 1}), plan) for unit in plan.units}


def test_a_unit_without_a_record_is_new_and_with_one_is_reused():
    first = plan_of("ab")
    assert first.reasons == {"new": 2}
    second = plan_of("abc", records=committed(first))
    assert [unit.key for unit in second.units] == ["c"]
    assert (second.reused, second.keys) == (2, ("a", "b", "c"))


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"code": "2"}, "code changed"),
        ({"model": "n"}, "model changed"),
        ({"parameters": "q"}, "parameters changed"),
        ({"schema": "t"}, "output schema changed"),
    ],
)
def test_every_changed_part_is_named_as_the_reason(change, why):
    records = committed(plan_of("a"))
    assert plan_of("a", replace(PARTS, **change), records).reasons == {why: 1}


def test_changed_input_failed_and_missing_output_are_reasons():
    plan = plan_of("a")
    records = committed(plan)
    assert plan_of("a", records=records, read="other").reasons == {"input changed": 1}
    failed = {"a": to_record(Outcome(plan.units[0], error="Boom: x", traceback="..."), plan)}
    assert plan_of("a", records=failed).reasons == {"failed before": 1}
    gone = {"a": replace(records["a"], status=MISSING)}
    assert plan_of("a", records=gone).reasons == {"output missing": 1}
    now = fingerprint(PARTS, "a", "r")
    assert reason(replace(records["a"], fingerprint="x"), PARTS, "r", now) == "format changed"


def test_a_digest_depends_on_the_values_written_not_on_time_or_worker():
    plan = plan_of("a")
    chunks = {"v/c/0": ("d", 10, 111)}
    one = to_record(Outcome(plan.units[0], Written(chunks, 5), seconds=1.0, worker="w1"), plan)
    two = to_record(Outcome(plan.units[0], Written({"v/c/0": ("d", 10, 222)}, 5), seconds=9.0, worker="w2"), plan)
    other = to_record(Outcome(plan.units[0], Written({"v/c/0": ("e", 10, 111)}, 5)), plan)
    assert one.identity() == two.identity()
    assert one.identity() != other.identity()
    assert one.rows == 5


def test_a_later_pass_keeps_the_keys_and_the_reuse_of_the_earlier_one():
    first = plan_of("ab", records=committed(plan_of("ab")))
    both = after(first, plan_of("cd"))
    assert both.keys == ("a", "b", "c", "d")
    assert (both.reused, len(both.units)) == (2, 2)


@given(st.integers(0, 10_000), st.integers(1, 500))
def test_row_ranges_cover_every_row_once(rows, size):
    ranges = row_ranges(rows, size)
    assert [row for start, stop in ranges for row in range(start, stop)] == list(range(rows))
    assert len({row_key(start, size) for start, _ in ranges}) == len(ranges)


@given(st.integers(1, 50), st.integers(1, 9), st.data())
def test_row_ids_are_those_of_the_objects_that_hold_the_rows(rows, chunk, data):
    start = data.draw(st.integers(0, rows - 1))
    stop = data.draw(st.integers(start + 1, rows))
    ids = tuple(str(number) for number in range(-(-rows // chunk)))
    snapshot = Snapshot("x", "row", rows, {"v": Variable("int64", ("row",), (rows,), (chunk,))}, ids={"v": ids})
    wanted = sorted({row // chunk for row in range(start, stop)})
    assert snapshot.row_ids(("v",), start, stop) == tuple(map(str, wanted))


def test_digests_are_stable_over_versions_of_this_file():
    """A changed digest function would silently recompute everybody's stores."""
    assert digest(1, ["a", {"b": None}]) == "449b857778089b1f7c17b8cedb164a266fc3767c"
