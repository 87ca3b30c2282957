"""What a recipe's text gives away: unknown tables, doubled features, columns recorded after ``known_at``."""

from __future__ import annotations

from typing import Any

import pytest

from daskml_scale.errors import SpecError
from daskml_scale.spec.recipe_checks import check_steps, recorded_later
from daskml_scale.spec.steps import AsOf, Cyclical, DateParts, Keep, Lookup, Ordinal, Trailing

LATE = Trailing(of="late", at="arrived", windows=["1h"])
DELAY = Trailing(of="dep_delay", at="departed", windows=["1h"])
DERIVED = {
    "sched": ("time_hour", "minute"),
    "departed": ("dep_delay", "sched"),
    "arrived": ("dep_delay", "air_time", "sched"),
    "late": ("arr_delay",),
    "twice": ("arr_delay", "distance"),
    "miles": ("distance",),
}


def check(*steps: Any, **changes: Any) -> None:
    settings: dict[str, Any] = {
        "known_at": "sched - hours(2)", "target": "late", "tables": ("planes", "weather"), "derived_from": DERIVED,
    }  # fmt: skip
    check_steps(steps, **(settings | changes))


def refusal(*steps: Any, **changes: Any) -> SpecError:
    with pytest.raises(SpecError) as caught:
        check(*steps, **changes)
    return caught.value


def test_what_is_known_in_time_may_be_read() -> None:
    check(
        DateParts(of="sched", parts=["month", "minute_of_day"]),
        Cyclical(of="minute_of_day", periods=[1440]),
        Ordinal(of=["origin"]),
        Keep(of=["distance", "minute", "miles"]),
        Lookup(table="planes", key="tailnum", take="seats"),
        AsOf(table="weather", match="origin", their_time="time_hour", take="temp"),
        LATE,
        DELAY,
    )


@pytest.mark.parametrize(
    ("step", "path", "column"),
    [
        (Keep(of=["distance", "late"]), "keep.of", "late"),
        (Keep(of="arr_delay"), "keep.of", "arr_delay"),
        (Keep(of="dep_delay"), "keep.of", "dep_delay"),
        (DateParts(of="arrived", parts=["hour"]), "date_parts.of", "arrived"),
        (Cyclical(of="dep_delay", periods=[60]), "cyclical.of", "dep_delay"),
        (Ordinal(of="late"), "ordinal.of", "late"),
        (Lookup(table="planes", key="late", take="seats"), "lookup.key", "late"),
        (AsOf(table="weather", match=["origin", "late"], their_time="time_hour", take="temp"), "as_of.match", "late"),
        (Trailing(of="origin_count", at="sched", match="late", windows=["1h"]), "trailing.match", "late"),
        (Keep(of="twice"), "keep.of", "twice"),
    ],
)
def test_a_column_recorded_later_is_refused_where_a_step_reads_it_at_the_row(step: Any, path: str, column: str) -> None:
    error = refusal(LATE, DELAY, step)
    assert error.path == f"steps[2].{path}"
    assert f"{column!r} is recorded after known_at (sched - hours(2))" in error.message
    assert "Remove it from this step; a trailing step may read it from earlier rows" in error.message


def test_nothing_is_later_without_a_target_and_trailing_steps() -> None:
    check(Keep(of=["late", "arr_delay"]), target=None)
    assert recorded_later([], known_at="sched", target=None, derived_from=DERIVED) == {}


def test_columns_that_known_at_names_and_their_sources_are_exempt() -> None:
    check(Keep(of=["dep_delay", "distance"]), LATE, DELAY, known_at="departed + hours(1)")
    error = refusal(Keep(of=["arr_delay"]), LATE, DELAY, known_at="departed + hours(1)")
    assert "arr_delay" in error.message


def test_a_value_recorded_by_known_at_may_be_read_at_its_own_row() -> None:
    amount = Trailing(of="amount", at="ordered", windows=["1d"])
    for known_at in ("ordered", "ordered + minutes(5)"):
        check(amount, Keep(of="amount"), known_at=known_at, target="fraud", derived_from={})
    assert "amount" in refusal(amount, Keep(of="amount"), known_at="ordered - minutes(5)", target="fraud").message


def test_a_window_that_would_hold_the_rows_own_target_is_refused() -> None:
    peeking = Trailing(of="late", at="sched", windows=["1h"])
    error = refusal(peeking, known_at="sched")
    assert error.path == "steps[0].trailing.at"
    assert "a row's own target 'late' would count in its window" in error.message


def test_one_of_several_sources_of_the_target_is_freed_by_a_derived_copy() -> None:
    error = refusal(Keep(of="distance"), target="twice")
    assert "if it is known in time, derive a copy of it and read that" in error.message
    check(Keep(of="miles"), target="twice")
    assert "'late' is recorded after" in refusal(Keep(of="late"), target="arr_delay").message


def test_known_at_may_not_read_the_target() -> None:
    error = refusal(Keep(of="distance"), known_at="arrived", target="arrived")
    assert (error.path, "reads the target 'arrived'" in error.message) == ("known_at", True)


def test_an_earlier_feature_hides_a_column_of_the_same_name() -> None:
    check(DateParts(of="sched", parts=["hour"]), Cyclical(of="hour", periods=[24]), target="hour", derived_from={})
    assert "'hour' is recorded" in refusal(Cyclical(of="hour", periods=[24]), target="hour", derived_from={}).message


def test_an_unknown_table_is_refused_with_the_nearest() -> None:
    error = refusal(Lookup(table="plane", key="tailnum", take="seats"))
    assert error.path == "steps[0].lookup.table"
    assert "there is no table 'plane'; did you mean 'planes'? known: planes, weather" in error.message
    error = refusal(AsOf(table="weather", their_time="t", take="temp"), tables=())
    assert "there is no table 'weather'; add it to tables:; known: none" in error.message


@pytest.mark.parametrize(
    ("steps", "path", "words"),
    [
        ([Keep(of="a"), Ordinal(of="a")], "steps[1].ordinal", "feature 'a' is made by steps[0] too"),
        ([Keep(of=["a", "a"])], "steps[0].keep", "feature 'a' is made twice by this step"),
        ([DateParts(of="s", parts=["hour"]), DateParts(of="t", parts=["hour"])], "steps[1].date_parts",
        "give one date_parts a prefix:"),
        ([Trailing(of="a", at="b", windows=["1h", "1 h"])], "steps[0].trailing", "feature 'a_mean_1h' is made twice"),
    ],
)  # fmt: skip
def test_a_feature_made_twice_is_refused(steps: list[Any], path: str, words: str) -> None:
    error = refusal(*steps)
    assert error.path == path
    assert "duplicate name" in error.message
    assert words in error.message


def test_several_problems_are_counted() -> None:
    assert refusal(Keep(of=["late"]), Keep(of=["arr_delay", "late"])).message.endswith("(and 2 more)")


def test_columns_derived_from_each_other_do_not_loop() -> None:
    check(Keep(of="a"), derived_from={"x": ("y",), "y": ("x",), "late": ("late",)})
    assert "'y' is recorded" in refusal(Keep(of="y"), target="x", derived_from={"x": ("y",), "y": ("x",)}).message
