"""Strict YAML: what is refused, on which line, and what it costs to refuse."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daskml_scale.errors import SpecError
from daskml_scale.spec.key_paths import dotted, line_of
from daskml_scale.spec.yaml_text import MAX_DEPTH, MAX_VALUES, read_yaml


@pytest.mark.parametrize(
    ("plain", "value"),
    [
        ("1", 1), ("-7", -7), ("+7", 7), ("0", 0), ("1.5", 1.5), (".5", 0.5), ("1.", 1.0), ("1e-3", 0.001), ("2E6",
        2e6),
        ("true", True), ("false", False), ("null", None), ("~", None), ("", None), (".inf", math.inf), ("-.inf",
        -math.inf),
        ("a b", "a b"), ("127.0.0.1:8787", "127.0.0.1:8787"), ("1.2.3", "1.2.3"), ("3h", "3h"), ("-", "-"), ("=", "="),
        ("./runs/x", "./runs/x"), ("pkg://a/b.csv", "pkg://a/b.csv"), ("year", "year"), ("none", "none"), ("1e", "1e"),
    ],
)  # fmt: skip
def test_plain_values_mean_what_they_look_like(plain: str, value: object) -> None:
    if plain == "-":
        plain = "'-'"
    found = read_yaml(f"a: {plain}").data["a"]
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize("text", ["010", "22:00", "on", "2013-10-01", "1_000", "~", "true", "3", "1e3", "", "<<", "*x"])
def test_a_quoted_value_is_text(text: str) -> None:
    assert read_yaml(f"a: '{text}'").data == {"a": text}
    assert read_yaml(f'a: "{text}"').data == {"a": text}


@pytest.mark.parametrize(
    "trap",
    [
        "on", "off", "yes", "no", "y", "n", "On", "YES", "N", "True", "FALSE", "Null", ".NaN", "22:00", "1:30:00",
        "08:15",
        "190:20:30.15", "2013-10-01", "2013-10-01T06:00", "2013-1-1 06:00", "010", "08", "-007", "00.5", "0x1F", "0o17",
        "0b101", "1_000", "1_0.5",
    ],
)  # fmt: skip
def test_yaml_1_1_traps_are_refused_as_values_items_and_keys(trap: str) -> None:
    for text, path in ((f"x: 1\na: {trap}", "a"), (f"x: 1\na: [1, {trap}]", "a[1]"), (f"x: 1\n{trap}: 1", None)):
        with pytest.raises(SpecError) as caught:
            read_yaml(text, "f.yaml")
        assert (caught.value.file, caught.value.line, caught.value.path) == ("f.yaml", 2, path)
        assert f"quote it: '{trap}'" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("a: 1\nb: 2\na: 3", 3, "a: duplicate key 'a', first on line 1; rename or remove one"),
        ("a:\n  b: 1\n  'b': 2", 3, "a.b: duplicate key 'b', first on line 2"),
        ("stages:\n  x: 1\n  x: 2", 3, "stages.x: duplicate name 'x', first on line 2"),
        ("a: &x 1\nb: *x", 1, "'&x': anchors and aliases are not taken"),
        ("a: 1\nb: *x", 2, "'*x': anchors and aliases are not taken"),
        ("a: *.csv", 1, "needs quotes"),
        ("a:\n  <<: {b: 1}", 2, "merge keys are not taken"),
        ("a: !!str 010", 1, "'!!str': tags are not taken"),
        ("x: 1\na: !!python/object/apply:os.system [id]", 2, "tags are not taken"),
        ("!x {a: 1}", 1, "'!x': tags are not taken"),
        ("a: 1\n---\nb: 2", 2, "more than one document"),
        ("1: a", 1, "key 1 is not text; quote it: '1'"),
        ("x: 1\ntrue: a", 2, "key true is not text; quote it: 'true'"),
        ("~: a", 1, "key ~ is not text"),
        ("? [a, b]\n: 1", 1, "a key is a list or a mapping; keys are text"),
        ("a:\n\tb: 1", 2, "a tab; indent with spaces"),
        ("a: [1, 2\nb: 3", 2, "the '[' opened on line 1 is not closed"),
        ("a: {b: origin in ['x']}", 1, "needs quotes"),
        ("x: 1\na: 'b\n\n", 2, "a quote that is opened here is never closed"),
        ("x: 1\na: b: c", 2, "unexpected ': '"),
        ("a: 1\n b: 2", 2, "unexpected ': '; check the indentation"),
        ("a: @b", 1, "cannot start with this character; quote it"),
        ('a: "\\d"', 1, "single quotes"),
        ("- a\nb: 1", 2, "check the indentation"),
        ("a: 99999999999999999999", 1, "does not fit into 64 bits"),
        ("a: " + "9" * 5000, 1, "does not fit into 64 bits"),
        ("a: 1e999", 1, "too large for a number"),
        ("a: 1\nb: \x07", 2, "control character '\\x07'"),
        ('a: 1\nb: "\\0"', 2, "b: control character"),
        ('a: "\\ud800"', 1, "a: control character"),
        ("\n\n", None, "the file is empty"),
        ("%YAML 3.0\n---\na: 1", 1, "not valid YAML: found incompatible YAML document"),
    ],
)
def test_what_is_refused_is_one_error_with_its_line(text: str, line: int | None, words: str) -> None:
    with pytest.raises(SpecError) as caught:
        read_yaml(text, "f.yaml")
    assert (caught.value.file, caught.value.line) == ("f.yaml", line)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: [" + "1," * MAX_VALUES + "1]", f"more than {MAX_VALUES} values"),
        ("[" * 500_000, f"deeper than {MAX_DEPTH} levels"),
        ("{a: " * 100_000, f"deeper than {MAX_DEPTH} levels"),
        ("- " * 100_000, f"deeper than {MAX_DEPTH} levels"),
        ("a: &a [x,x]\nb: &b [*a,*a]\nc: &c [*b,*b]", "anchors and aliases"),
        ("a: " + "x" * (1 << 20), "larger than 1 MiB"),
    ],
    ids=["wide", "deep list", "deep mapping", "deep block", "laughs", "large"],
)
def test_hostile_texts_are_refused_before_they_cost_memory(text: str, words: str) -> None:
    with pytest.raises(SpecError, match=words):
        read_yaml(text)


def test_regular_expressions_do_not_backtrack_on_long_values() -> None:
    # Quadratic matching of this would take minutes and run into the test's time limit.
    text = "1" + "_" * 500_000 + "x"
    assert read_yaml(f"a: {text}").data == {"a": text}


def test_every_path_has_the_line_of_its_key_or_item() -> None:
    text = "a: 1\nb:\n  - x\n  -\n    z: 2\nc: {d: [1,\n  2]}\n'e.f g':\n  h: 1\n"
    assert read_yaml(text).lines == {
        "": 1, "a": 1, "b": 2, "b[0]": 3, "b[1]": 5, "b[1].z": 5, "c": 6, "c.d": 6, "c.d[0]": 6, "c.d[1]": 7,
        "['e.f g']": 8, "['e.f g'].h": 9,
    }  # fmt: skip


def test_a_path_that_the_text_lacks_has_the_line_of_its_parent() -> None:
    lines = read_yaml("a:\n  b: 1\n'c.d':\n  - 2").lines
    assert line_of(lines, "a.b.x[3]['q'].z") == 2
    assert line_of(lines, dotted(("c.d", 5, "x"))) == 3
    assert line_of(lines, "zzz") == 1


TEXT = st.text(st.characters(max_codepoint=0xFFFF, exclude_categories=["Cc", "Cs"]))
scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT
)
# YAML takes keys of up to 1024 characters as they are written: six for one that JSON escapes.
KEYS = st.text(st.characters(max_codepoint=0xFFFF, exclude_categories=["Cc", "Cs"]), max_size=150)
trees = st.recursive(scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=4))


@settings(max_examples=150, deadline=None)
@given(trees)
def test_json_reads_back_as_it_was_written(tree: object) -> None:
    assert read_yaml(json.dumps({"top": tree})).data == {"top": tree}
