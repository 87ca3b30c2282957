"""A recipe that does not fit its tables is refused by name, before anything runs."""

from __future__ import annotations

import pytest

from daskml_scale.errors import SpecError
from daskml_scale.plan.units import Snapshot, Variable
from daskml_scale.stages.features.planner import RecipePlanner
from daskml_scale.stages.features.program import Program, parse_steps

ATTRS = {
    "number": {},
    "time": {"units": "seconds since 1970-01-01"},
    "category": {"categories": ["a"]},
}


def snapshot(name: str, attrs=None, **columns: str) -> Snapshot:
    variables = {
        column: Variable("string" if kind == "other" else "int64", ("row",), (10,), (5,), None, ATTRS.get(kind, {}))
        for column, kind in columns.items()
    }
    return Snapshot(name, "row", 10, variables, attrs or {})


FLIGHTS = snapshot(
    "flights", {"derived_from": {"late": ["arr_delay"]}},
    sched="time", arrived="time", origin="category", distance="number", late="number", arr_delay="number",
    tailnum="category", gate="category", note="other",
)  # fmt: skip
PLANES = snapshot("planes", tailnum="number", id="category", seats="number", model="category", built="time")
WEATHER = snapshot("weather", origin="category", time_hour="time", temp="number", text="other")


def check(*steps, known_at="sched - hours(2)", target=None, where=None, tables=None) -> None:
    tables = {"planes": PLANES, "weather": WEATHER} if tables is None else tables
    RecipePlanner(Program(parse_steps(steps), known_at, target), FLIGHTS, tables, where).check()


def as_of(**changes):
    return {"as_of": {"table": "weather", "match": ["origin"], "their_time": "time_hour", "take": ["temp"], **changes}}


def trailing(**changes):
    return {"trailing": {"of": "late", "at": "arrived", "match": ["origin"], "windows": ["1h"], **changes}}


KEEP = {"keep": {"of": ["distance"]}}

REFUSED = {
    "keep of a category": (
        [KEEP, {"keep": {"of": ["origin"]}}],
        r"steps\[1\].keep.of: column 'origin'.*category, number.*ordinal",
    ),
    "keep of a time": ([{"keep": {"of": ["sched"]}}], r"steps\[0\].keep.of: column 'sched'.*time, number.*date_parts"),
    "keep of text": ([{"keep": {"of": ["note"]}}], r"'note' of the table is neither a number.*, number needed"),
    "unknown column": ([{"keep": {"of": ["distanse"]}}], r"steps\[0\].keep.of: .*'distanse'; did you mean 'distance'"),
    "parts of a number": (
        [{"date_parts": {"of": "distance", "parts": ["hour"]}}],
        r"steps\[0\].date_parts.of: .*'distance'.*number, time",
    ),
    "waves of a category": (
        [{"cyclical": {"of": "origin", "periods": [3]}}],
        r"cyclical.of: column 'origin'.*category, number",
    ),
    "ordinal of a number": (
        [{"ordinal": {"of": "distance"}}],
        r"ordinal.of: column 'distance'.*number, category.*keep",
    ),
    "ordinal of a feature": (
        [{"date_parts": {"of": "sched", "parts": ["hour"]}}, {"ordinal": {"of": "hour"}}],
        r"steps\[1\].ordinal: duplicate name: feature 'hour'",
    ),
    "table not bound": (
        [{"lookup": {"table": "plane", "key": "tailnum", "take": "seats"}}],
        r"steps\[0\].lookup.table.*'plane'.*planes",
    ),
    "keys of two kinds": (
        [{"lookup": {"table": "planes", "key": "tailnum", "take": "seats"}}],
        r"lookup.key: column 'tailnum' is a category .*'tailnum' a number in table 'planes'",
    ),
    "lookup of a category": (
        [{"lookup": {"table": "planes", "key": "tailnum", "their_key": "id", "take": "model"}}],
        r"lookup.take.*'model' of table 'planes'.*category",
    ),
    "lookup by a time": (
        [{"lookup": {"table": "planes", "key": "sched", "their_key": "built", "take": "seats"}}],
        r"lookup.key.*time.*as_of",
    ),
    "unknown key there": (
        [{"lookup": {"table": "weather", "key": "tailnum", "take": "temp"}}],
        r"table 'weather' has no column 'tailnum'",
    ),
    "their time is none": (
        [as_of(their_time="temp")],
        r"as_of.their_time: column 'temp' of table 'weather' is a number, time",
    ),
    "match missing here": ([as_of(match=["door"])], r"as_of.match: the table has no column 'door'"),
    "take of text": ([as_of(take=["text"])], r"as_of.take: column 'text'"),
    "window at a number": ([trailing(at="distance", of="arr_delay")], r"trailing.at: column 'distance'.*number, time"),
    "mean of a category": ([trailing(of="tailnum")], r"trailing.of: column 'tailnum'.*category, number"),
    "match of a feature": (
        [{"date_parts": {"of": "sched", "parts": ["hour"]}}, trailing(match=["hour"])],
        r"steps\[1\].trailing.match.*no column 'hour'",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_step_that_does_not_fit_is_refused(case):
    steps, message = REFUSED[case]
    with pytest.raises(SpecError, match=message):
        check(*steps)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"known_at": "sched - 2"}, "known_at: .*does not fit"),
        ({"known_at": "distance * 2"}, "known_at: .*a number.*instant"),
        ({"known_at": "schedd"}, "known_at: unknown column 'schedd'"),
        ({"where": "sched - time('2013-01-01')"}, "fit_where: .*a span.*condition"),
        ({"where": "origin"}, "fit_where: .*text"),
        ({"target": "origin"}, r"target: column 'origin'.*category, number.*derive: \{label: origin == 'A'\}.*== 'B'"),
        (
            {"target": "arrived"},
            r"target: column 'arrived'.*time, number needed; derive one .*\{soon: arrived < ",
        ),
        ({"target": "lat"}, "target: .*no column 'lat'; did you mean 'late'"),
    ],
)
def test_expressions_and_target_must_fit(options, message):
    with pytest.raises(SpecError, match=message):
        check(KEEP, **options)


def test_the_target_and_what_it_is_computed_from_are_refused_at_the_row_itself():
    for leak in ("late", "arr_delay"):
        with pytest.raises(SpecError, match=rf"steps\[0\].keep.of: '{leak}' is recorded after known_at"):
            check({"keep": {"of": [leak]}}, target="late")
    check(trailing(), KEEP, target="late")


def test_a_recipe_that_fits_passes():
    check(
        {"date_parts": {"of": "sched", "parts": ["hour"]}},
        {"cyclical": {"of": "hour", "periods": [24]}},
        {"ordinal": {"of": ["origin"]}},
        {"lookup": {"table": "planes", "key": "tailnum", "their_key": "id", "take": "seats"}},
        as_of(),
        trailing(),
        trailing(of="gate", stat="count"),
        KEEP,
        target="late",
        where="origin != 'JFK' and sched < time('2013-10-01')",
    )


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        ([{"as_off": {}}], r"steps\[0\].*as_off"),
        ([KEEP, {"keep": {"off": ["x"]}}], r"steps\[1\].keep.*off"),
        ([KEEP, {"trailing": {"of": "a", "at": "b", "windows": ["soon"]}}], r"steps\[1\].trailing.windows.*soon"),
        ([], "steps"),
        (["keep"], r"steps\[0\]"),
    ],
)
def test_a_wrong_step_is_refused_with_its_position(steps, message):
    with pytest.raises(SpecError, match=message):
        parse_steps(steps)


def test_step_instances_and_mappings_mix():
    from daskml_scale.spec.steps import Keep

    both = parse_steps([Keep(of=["distance"]), {"cyclical": {"of": "distance", "periods": [2]}}])
    assert both[0] == parse_steps([KEEP])[0]
    with pytest.raises(SpecError, match=r"steps\[1\]"):
        parse_steps([Keep(of=["distance"]), {"cyclical": {"of": "distance", "period": [2]}}])
