"""What a ``map`` stage runs over: each form, and what it says about a wrong one."""

from __future__ import annotations

import pytest

from daskml_scale.errors import SpecError
from daskml_scale.spec.columns import column_problems
from daskml_scale.spec.items import MapFiles, MapList, MapRange, MapRows
from daskml_scale.spec.load import load_workflow
from daskml_scale.spec.workflow import MapSpec

TEXT = """
version: 1
name: w
store: s
stages:
  t: {kind: ingest, source: x.csv, row: {dim: r}}
  m: {kind: map, function: 'mine:f', over: OVER}
  check: {kind: validate, input: m, rules: [{missing: {of: value}}]}
"""


def spec(over: str) -> MapSpec:
    found = load_workflow(TEXT.replace("OVER", over)).stages["m"]
    assert isinstance(found, MapSpec)
    return found


@pytest.mark.parametrize(
    ("over", "kind"),
    [
        ("{range: 3}", MapRange),
        ("{range: [1, 9, 2]}", MapRange),
        ("{list: [1, a, {x: 2}]}", MapList),
        ("{rows: {of: t, columns: [a, b]}}", MapRows),
        ("{files: 'data/*.csv'}", MapFiles),
    ],
)
def test_items_have_four_forms(over: str, kind: type) -> None:
    assert isinstance(spec(over).over, kind)


def test_rows_are_an_edge_to_their_table() -> None:
    assert spec("{rows: {of: t, columns: [a]}}").references() == {"over.rows.of": "t"}
    assert spec("{range: 3}").references() == {}


@pytest.mark.parametrize(
    ("over", "path", "says"),
    [
        ("{range: [1, 2, 0]}", "over.range", "the step of a range is 0"),
        ("{range: []}", "over.range", "at least 1 item"),
        ("{list: []}", "over.list", "at least 1 item"),
        ("{rows: {of: t}}", "over.rows.columns", "this key is missing"),
        ("{rows: {of: tt, columns: [a]}}", "over.rows.of", "there is no stage 'tt'; did you mean 't'?"),
        ("{filez: x}", "over.filez", "did you mean 'files'?"),
        ("3", "over", "range, list, rows, files; found 3"),
        ("{files: x}, chunk: 3", "", "files are units of their own; remove chunk:"),
        ("{range: 3}, chunk: 0", "chunk", "expected more than 0"),
        ("{range: 3}, retry: {OSError: 0}", "retry.OSError", "expected more than 0"),
    ],
)
def test_wrong_items_are_refused_at_their_key(over: str, path: str, says: str) -> None:
    with pytest.raises(SpecError) as raised:
        spec(over)
    assert raised.value.path == f"stages.m.{path}".rstrip(".")
    assert says in raised.value.message


@pytest.mark.parametrize("function", ["mine.f", "mine", ":f", "mine:", "mi ne:f", "mine:f()", "../mine:f"])
def test_a_function_is_module_and_name(function: str) -> None:
    with pytest.raises(SpecError, match="names no function; write module:name, such as simulate:run"):
        load_workflow(TEXT.replace("OVER", "{range: 3}").replace("mine:f", function))


def test_columns_that_the_table_lacks_are_found_from_its_header() -> None:
    workflow = load_workflow(TEXT.replace("OVER", "{rows: {of: t, columns: [a, bb]}}"))
    ((path, message),) = column_problems(workflow, {"t": ["a", "b"]})
    assert path == "stages.m.over.rows.columns[1]"
    assert "did you mean 'b'?" in message
