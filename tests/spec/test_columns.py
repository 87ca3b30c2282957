"""Column names that no file holds are found from headers alone, on the line that names them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from daskml_scale.errors import SpecError
from daskml_scale.spec.columns import column_problems, columns_of
from daskml_scale.spec.load import load_workflow

FLIGHTS = (Path(__file__).parents[2] / "workflows" / "flights.yaml").read_text()
HEADERS = {
    "flights": [
        "time_hour", "minute", "dep_delay", "arr_delay", "air_time", "origin", "dest", "carrier", "flight", "tailnum",
        "distance",
    ],
    "weather": ["origin", "time_hour", "temp", "wind_speed", "precip", "visib"],
    "planes": ["tailnum", "year", "seats"],
}  # fmt: skip


def problems(text: str, headers: dict[str, Sequence[str]] = HEADERS) -> list[tuple[str, str]]:  # type: ignore[assignment]
    return [(path, message) for path, message in column_problems(load_workflow(text), headers)]


def test_the_packaged_workflow_names_nothing_that_is_not_there() -> None:
    assert problems(FLIGHTS) == []


@pytest.mark.parametrize(
    ("old", "new", "path", "says"),
    [
        ("sort_by: [sched, origin", "sort_by: [shed, origin", "flights.row.sort_by[0]", "did you mean 'sched'?"),
        ("time_hour + minutes(minute)", "time_hour + minutes(minut)", "flights.derive.sched", "'minute'"),
        ("arr_delay > 15", "arival > 15", "flights.derive.late", "unknown column 'arival'"),
        ("{unique: [sched, origin,", "{unique: [sched, orgin,", "check.rules[0].unique[1]", "'origin'"),
        ("missing: {of: arr_delay", "missing: {of: arrdelay", "check.rules[1].missing.of", "'arr_delay'"),
        ("known_at: sched -", "known_at: shed -", "features.known_at", "did you mean 'sched'?"),
        ("fit_where: sched", "fit_where: shed", "features.fit_where", "did you mean 'sched'?"),
        ("target: late", "target: lated", "features.target", "did you mean 'late'?"),
        ("date_parts: {of: sched", "date_parts: {of: shed", "features.steps[0].date_parts.of", "'sched'"),
        ("[minute_of_day, dayofyear], p", "[minute_of_dy, dayofyear], p", "features.steps[1].cyclical.of[0]",
         "did you mean 'minute_of_day'?"),
        ("of: [carrier, origin, dest]", "of: [carrier, origin, dst]", "features.steps[2].ordinal.of[2]", "'dest'"),
        ("key: tailnum", "key: tailnumber", "features.steps[3].lookup.key", "did you mean 'tailnum'?"),
        ("take: [year, seats]", "take: [year, seat]", "features.steps[3].lookup.take[1]",
         "in table 'planes': unknown column 'seat'; did you mean 'seats'?"),
        ("match: [origin], their_time", "match: [orgin], their_time", "features.steps[4].as_of.match", "'origin'"),
        ("their_time: time_hour", "their_time: time_hours", "features.steps[4].as_of.their_time",
         "in table 'weather': unknown column 'time_hours'; did you mean 'time_hour'?"),
        ("precip, visib", "precip, visibility", "features.steps[4].as_of.take[3]", "did you mean 'visib'?"),
        ("of: dep_delay, at: departed", "of: dep_dely, at: departed", "features.steps[6].trailing.of", "'dep_delay'"),
        ("of: dep_delay, at: departed", "of: dep_delay, at: departd", "features.steps[6].trailing.at", "'departed'"),
        ("keep: {of: [distance]}", "keep: {of: [distanse]}", "features.steps[7].keep.of", "'distance'"),
        ("time: {of: sched", "time: {of: shed", "search.split.time.of", "did you mean 'sched'?"),
        ("    where: sched <", "    where: shed <", "model.where", "did you mean 'sched'?"),
        ("where: sched >=", "where: distance > 3 and sched >=", "scores.where", "add it to sort_by there"),
    ],
)  # fmt: skip
def test_a_misspelt_column_is_placed_with_the_nearest_name(old: str, new: str, path: str, says: str) -> None:
    assert old in FLIGHTS
    found = problems(FLIGHTS.replace(old, new, 1))
    assert f"stages.{path}" in [where for where, _ in found]
    assert says in dict(found)[f"stages.{path}"]


def test_derived_columns_and_earlier_features_are_known_but_later_ones_are_not() -> None:
    moved = FLIGHTS.replace("      departed: sched", "      early: departed\n      departed: sched", 1)
    assert [path for path, _ in problems(moved)] == ["stages.flights.derive.early"]
    cyclical = "      - cyclical: {of: [minute_of_day, dayofyear], periods: [1440, 366]}\n"
    late = FLIGHTS.replace(cyclical, "").replace("      - date_parts", cyclical + "      - date_parts", 1)
    assert {path for path, _ in problems(late)} == {
        "stages.features.steps[0].cyclical.of[0]", "stages.features.steps[0].cyclical.of[1]",
    }  # fmt: skip


def test_columns_that_are_left_out_are_not_known() -> None:
    kept = FLIGHTS.replace("row: {dim: plane}", "row: {dim: plane}, columns: [tailnum, year]", 1)
    assert [path for path, _ in problems(kept)] == ["stages.features.steps[3].lookup.take[1]"]


def test_a_table_whose_file_is_not_known_is_not_checked() -> None:
    wrong = FLIGHTS.replace("take: [year, seats]", "take: [year, seat]").replace(
        "keep: {of: [distance]}", "keep: {of: [x]}"
    )
    assert [path for path, _ in problems(wrong, {})] == []
    assert len(problems(wrong)) == 2


def test_predicting_another_table_needs_what_the_recipe_reads() -> None:
    other = FLIGHTS.replace("    input: flights\n    method", "    input: planes\n    method", 1)
    found = problems(other)
    assert {path for path, _ in found} == {"stages.predictions.input"}
    assert "'planes' has no column 'sched', which the model's recipe reads (stages.features.known_at)" in found[0][1]


def test_outputs_carry_the_keys_of_their_table() -> None:
    workflow = load_workflow(FLIGHTS)
    keys = ["sched", "origin", "carrier", "flight"]
    assert columns_of(workflow, HEADERS, "features") == [*keys, "late"]
    assert columns_of(workflow, HEADERS, "predictions") == [*keys, "probability", "status"]
    assert columns_of(workflow, HEADERS, "model") is None


def test_a_name_that_is_no_plain_word_is_shown_in_backticks() -> None:
    text = """
version: 1
name: shop
store: ./runs/shop
stages:
  orders:
    kind: ingest
    source: orders.csv
    row: {dim: order}
    derive: {known: Customer-No > 3, right: '`Customer-No` > 3', other: Customers > 3}
"""
    found = problems(text, {"orders": ["Customer-No"]})
    assert {path for path, _ in found} == {"stages.orders.derive.known", "stages.orders.derive.other"}
    assert (
        found[0][1]
        == "unknown column 'Customer'; 'Customer-No' is no plain word: in backticks, `Customer-No`, it is one"
    )
    assert "did you mean 'Customer-No'?" in found[-1][1]


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("arr_delay > 15", "price € > 15", "in backticks: `Price €`"),
        ("arr_delay > 15", "2m > 15", "in backticks: `Price €`"),
        ("ordinal: {of: [carrier, origin, dest], unknown: -1}", "one_hot: {of: [carrier, origin]}",
         "expected text, found ['carrier', 'origin']; one only: write it again for each"),
        ("row: {dim: plane}", "columns: [year]", "give one of the two: row: {dim: NAME} makes a table"),
    ],
)  # fmt: skip
def test_a_newcomers_mistakes_are_answered_with_the_remedy(old: str, new: str, says: str) -> None:
    assert old in FLIGHTS
    with pytest.raises(SpecError) as raised:
        load_workflow(FLIGHTS.replace(old, new))
    assert says in str(raised.value)


def test_a_column_that_cannot_be_stored_is_told_before_anything_is_read() -> None:
    headers = {**HEADERS, "planes": ["tailnum", "year", "seats", "speed (km/h)"]}
    assert problems(FLIGHTS, headers) == [
        ("stages.planes.source", "column 'speed (km/h)' cannot name a stored array; rename it in the files, or leave "
         "it out by columns:"),
    ]  # fmt: skip
    kept = FLIGHTS.replace("planes.csv, row", "planes.csv, columns: [tailnum, year, seats], row")
    assert problems(kept, headers) == []
