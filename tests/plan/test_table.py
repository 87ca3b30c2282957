from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daskml_scale.plan.columns import Digests, Labels, Texts, concatenated
from daskml_scale.plan.records import MISSING, TORN, Record, digest, fingerprint, select, to_record
from daskml_scale.plan.table import Block, Records, stored_objects
from daskml_scale.plan.units import Outcome, Parts, Unit

HEX = st.one_of(st.integers(0, 5).map(digest), st.sampled_from(["", "-", "x", "A" * 40, " " * 40, "é" * 40]))
COLUMNS = {"texts": (Texts, st.text(max_size=5)), "digests": (Digests, HEX), "labels": (Labels, st.sampled_from("abc"))}
JSON = st.one_of(
    st.none(), st.integers(), st.floats(allow_nan=False), st.just(""), st.just({}), st.just({"a": [1, None]})
)


CHUNK = st.tuples(HEX, st.integers(0, 2**40), st.integers(0, 2**62))
RECORD = st.builds(
    Record,
    unit=st.sampled_from("abcdefgh"),
    fingerprint=HEX,
    digest=HEX,
    status=st.sampled_from(["ok", "failed", "torn"]),
    rows=st.integers(0, 2**40),
    attempt=st.integers(1, 9),
    inputs=HEX,
    parts=st.builds(Parts, st.sampled_from(["", "é"]), st.sampled_from("ab"), st.just('"'), HEX),
    result=JSON,
    chunks=st.dictionaries(st.text(max_size=4), CHUNK, max_size=2),
    error=st.sampled_from(["", "Boom\n"]),
    seconds=st.floats(0, 1e6),
    worker=st.sampled_from(["cpu-0", "local", ""]),
    why=st.sampled_from(["new", "input changed"]),
)
RECORDS = st.lists(RECORD, max_size=6)
few = settings(max_examples=50)


@pytest.mark.parametrize("kind", COLUMNS)
@given(data=st.data())
def test_columns_give_back_their_values_whole_in_part_and_joined(kind, data):
    column, element = COLUMNS[kind]
    values, more = data.draw(st.lists(element)), data.draw(st.lists(element))
    found = column.of(values)
    assert found.list() == values
    assert [found[index] for index in range(len(found))] == values
    chosen = data.draw(st.lists(st.integers(0, len(values) - 1))) if values else []
    assert found.take(np.array(chosen, "int64")).list() == [values[index] for index in chosen]
    both = concatenated([found, column.of(more), found])
    assert not isinstance(both, np.ndarray)
    assert both.list() == values + more + values


@few
@given(RECORDS, RECORDS)
def test_records_as_columns_are_the_records_and_later_ones_win(first, second):
    table = Records([Block.of(first), Block.of(second)])
    wanted = {record.unit: record for record in (*first, *second)}
    assert dict(table) == wanted
    assert table.total("rows") == sum(record.rows for record in wanted.values())
    assert sorted(stored_objects(table)) == sorted(item for r in wanted.values() for item in r.chunks.items())
    assert [table.newest().record(index) for index in range(len(wanted))] == [wanted[unit] for unit in sorted(wanted)]


@few
@given(RECORDS, st.sets(st.sampled_from("abcdefgh")))
def test_a_part_of_the_records_keeps_them_and_their_marks(records, wanted):
    table = Records.of(records).marked(dict.fromkeys({record.unit for record in records}, TORN))
    part = table.only(sorted(wanted))
    assert dict(part) == {unit: record for unit, record in table.items() if unit in wanted}
    assert all(record.status == TORN for record in part.values())
    assert all(record.status != TORN or record in records for record in Records.of(records).values())


@few
@given(RECORDS, st.sampled_from("abcdefghi"), HEX)
def test_plans_over_columns_are_plans_over_records(records, key, read):
    parts = Parts("code", "model")
    mine = [
        replace(record, parts=parts, fingerprint=fingerprint(parts, record.unit, record.inputs)) for record in records
    ]
    units = [(Unit(unit), mine[0].inputs if mine else read) for unit in sorted({key, *(r.unit for r in mine)})]
    for marks in ({}, {key: MISSING}):
        listed = {record.unit: record for record in mine}
        listed = {u: replace(r, status=marks[u]) if u in marks else r for u, r in listed.items()}
        assert select(units, parts, Records.of(mine).marked(marks)) == select(units, parts, listed)


def test_a_fingerprint_is_the_digest_of_format_parts_key_and_inputs():
    """The shared head is hashed once; the value is that of the first format, so stores keep their work."""
    parts = Parts(code="c", model='m"', parameters="p", schema="s\n")
    for key, read in (("rows/00000001", digest(1)), ('odd "key"', "é"), ("", "")):
        assert fingerprint(parts, key, read) == digest(1, parts, key, read)


def test_every_unit_that_runs_has_its_reason_and_its_record_keeps_it():
    parts = Parts("c")
    done = select([(Unit(key), "r") for key in "abcd"], parts, {})
    records = Records.of([to_record(Outcome(unit, 1), done) for unit in done.units])
    assert {record.why for record in records.values()} == {"new"}
    plan = select(
        [(Unit(key), "other" if key == "b" else "r") for key in "abcdef"], parts, records.marked({"c": MISSING})
    )
    assert {unit.key: plan.why.get(unit.key) for unit in plan.units} == {
        "b": "input changed", "c": "output missing", "e": "new", "f": "new",
    }  # fmt: skip
    assert plan.reasons == {"input changed": 1, "new": 2, "output missing": 1}
    assert to_record(Outcome(plan.units[0], 1), plan).why == "input changed"
