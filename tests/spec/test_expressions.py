"""Expressions: what the grammar takes, agreement with pandas, and what is missing stays missing."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daskml_scale.errors import SpecError
from daskml_scale.spec.expressions import Coded, evaluate, mask, names, parse

X, Y, N = np.array([1.5, -2.0, 0.0, 40.0]), np.array([3.0, 7.0, -1.25, 0.5]), np.array([1, 2, 3, 60])
T = np.array(["2013-01-01", "2013-06-01T12:00", "NaT", "2014-01-01"], dtype="datetime64[s]")
O = Coded(np.array([0, 1, -1, 1]), ("JFK", "LGA"))  # noqa: E741
COLUMNS: dict[str, Any] = {"x": X, "y": Y, "n": N, "t": T, "o": O, "m": np.array([1.0, np.nan, 0.0, np.nan])}
NAN = np.nan


@pytest.mark.parametrize(
    "text",
    [
        "a.b", "x.__class__", "().__class__", "x[0]", "x[0:1]", "lambda: x", "[i for i in x]", "{i: i for i in x}",
        "(i for i in x)", "f'{x}'", "(a := 1)", "x if y else n", "*x", "x @ y", "x & y", "x | y", "x ^ y", "~x",
        "x << 1",
        "None", "...", "b'a'", "1j", "[1, 2]", "(1, 2)", "{1}", "{}", "await x", "yield x", "print(x)",
        "__import__('os')",
        "eval('x')", "abs(x, y)", "abs()", "abs(x=1)", "abs(*x)", "abs(**x)", "(abs)(x)(y)", "x.abs()", "'a'.upper()",
        "time(x)", "time('soon')", "time('9999-01-01')", "time('0001-01-01T00:00+05:00')", "time('2013-01-01', 1)",
        "time(2013)",
        "x < y < n", "x is None", "x in y", "x in []", "x in [y]", "x in [None]", "x in [b'a']", "x in [[1]]",
        "x in {1}",
        "", " ", "x +", "(x", "x y", "x = 1", "x; y", "import os", "x\ny", "\0", "\ud800", "9223372036854775808",
        "-9223372036854775809", "10 ** " + "9" * 30,
    ],
)  # fmt: skip
def test_what_the_grammar_does_not_know_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r".") as caught:
        parse(text)
    assert type(caught.value) is SpecError
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "text", ["-" * 1500 + "x", "(" * 900 + "x" + ")" * 900, "+".join("x" * 600), "x" * 3000, "[" * 1900]
)
def test_deep_and_long_texts_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="expression"):
        parse(text)


@settings(max_examples=300, deadline=None)
@given(st.text("xyto0189.'\"()[]{}<>=!+-*/%,: \\\t\n_abnditmeinor", max_size=30) | st.text(max_size=30))
def test_random_text_is_a_value_or_a_value_error(text: str) -> None:
    try:
        evaluate(text, COLUMNS)
    except ValueError as error:
        assert str(error)  # noqa: PT017


def test_unknown_functions_name_the_nearest() -> None:
    with pytest.raises(ValueError, match=r"unknown function hour\(\); did you mean hours\(\)\? known: time"):
        parse("hour(x)")


def test_names_are_the_columns_not_the_functions() -> None:
    assert names("abs(abs) + hours(x) > y and o in ['x'] or missing(t)") == ("abs", "o", "t", "x", "y")


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("x + y * n - 1", X + Y * N - 1),
        ("-x ** 2", -(X**2)),
        ("n // 7", N // 7),
        ("n % 7", N % 7),
        ("n // 0", [np.inf] * 4),
        ("n % 0", [NAN] * 4),
        ("n // (n - 1)", [np.inf, 2, 1, 1]),
        ("1 / 0", np.inf),
        ("(-1) ** 0.5", NAN),
        ("2 ** 0.5 * x", 2**0.5 * X),
        ("sqrt(abs(x)) + exp(y / 10) + log1p(n)", np.sqrt(np.abs(X)) + np.exp(Y / 10) + np.log1p(N)),
        ("log(x)", [np.log(1.5), NAN, -np.inf, np.log(40)]),
        ("minimum(x, y) + maximum(n, 2)", np.minimum(X, Y) + np.maximum(N, 2)),
        ("round(x) + floor(y)", np.round(X) + np.floor(Y)),
        ("where(x > 0, x, y)", np.where(X > 0, X, Y)),
        ("x in [1.5, 40]", [1, 0, 0, 1]),
        ("x in [-2, True]", [0, 1, 0, 0]),
        ("x not in (0, 40)", [1, 1, 0, 0]),
        ("True", 1.0),
        ("x + True", X + 1),
        ("n ** -1", 1 / N),
        ("n ** 30", N.astype("float64") ** 30),
    ],
)
def test_numbers(text: str, wanted: Any) -> None:
    np.testing.assert_allclose(evaluate(text, COLUMNS), wanted)


def test_constants_can_neither_hang_nor_raise() -> None:
    for text in ("9**9**9**9", "2.0**99999", "0.0**-1", "1//0", "1%0", "0/0", "5**-1.0"):
        assert evaluate(text, {}).shape == ()


def test_whole_numbers_stay_whole() -> None:
    assert evaluate("n + 1", COLUMNS).dtype == np.int64
    assert evaluate("n // 7", COLUMNS).dtype == np.int64
    assert evaluate("n // n", COLUMNS).dtype == np.float64  # a zero among the divisors must not become 0


def test_times_and_spans() -> None:
    frame = pd.DataFrame({"t": T, "x": X})
    for text, wanted in (
        ("t + minutes(x)", frame.t + pd.to_timedelta(frame.x, "min")),
        ("t - hours(2)", frame.t - pd.Timedelta("2h")),
        ("t - time('2013-01-01')", frame.t - pd.Timestamp("2013-01-01")),
        ("t + seconds(1.5) + days(-1)", frame.t + pd.Timedelta("1.5s") - pd.Timedelta("1D")),
        ("(t - time('2013-01-01')) / hours(1)", (frame.t - pd.Timestamp("2013-01-01")) / pd.Timedelta("1h")),
        ("minutes(x) * 2", pd.to_timedelta(frame.x, "min") * 2),
        ("abs(minutes(x))", pd.to_timedelta(frame.x, "min").abs()),
    ):
        found = evaluate(text, COLUMNS)
        np.testing.assert_array_equal(found, wanted.to_numpy().astype(found.dtype))
    np.testing.assert_array_equal(evaluate("(t - time('2013-01-01')) // hours(24)", COLUMNS), [0, 151, NAN, 365])
    assert evaluate("time('2013-01-01T05:00+05:00')", {}) == np.datetime64("2013-01-01")


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("m > 0", [1, NAN, 0, NAN]),
        ("not m > 0", [0, NAN, 1, NAN]),
        ("m > 0 and x > 0", [1, 0, 0, NAN]),
        ("m > 0 or x > 0", [1, NAN, 0, 1]),
        ("m == m", [1, NAN, 1, NAN]),
        ("m in [0, 1]", [1, NAN, 1, NAN]),
        ("m not in [0]", [1, NAN, 0, NAN]),
        ("missing(m)", [0, 1, 0, 1]),
        ("missing(t) or missing(o)", [0, 0, 1, 0]),
        ("t > time('2013-03-01')", [0, 1, NAN, 1]),
        ("o == 'JFK'", [1, 0, NAN, 0]),
        ("'JFK' != o", [0, 1, NAN, 1]),
        ("o == 'none such'", [0, 0, NAN, 0]),
        ("o in ['LGA', 'EWR']", [0, 1, NAN, 1]),
        ("o not in ['LGA']", [1, 0, NAN, 0]),
        ("o == o", [1, 1, NAN, 1]),
    ],
)
def test_a_comparison_with_something_missing_is_missing(text: str, wanted: list[float]) -> None:
    np.testing.assert_array_equal(evaluate(text, COLUMNS), wanted)
    np.testing.assert_array_equal(mask(text, COLUMNS), np.nan_to_num(wanted) != 0)


TRUTHS = (0.0, 1.0, NAN)


@pytest.mark.parametrize(("word", "kleene"), [("and", min), ("or", max)])
def test_and_or_not_are_kleenes(word: str, kleene: Any) -> None:
    left, right = (grid.ravel() for grid in np.meshgrid(TRUTHS, TRUTHS))
    rank = {0.0: 0.0, 1.0: 1.0}
    wanted = [kleene(rank.get(a, 0.5), rank.get(b, 0.5)) for a, b in zip(left, right, strict=True)]
    wanted = [NAN if value == 0.5 else value for value in wanted]
    np.testing.assert_array_equal(evaluate(f"a {word} b", {"a": left, "b": right}), wanted)
    np.testing.assert_array_equal(evaluate("not a", {"a": np.array(TRUTHS)}), [1.0, 0.0, NAN])


def test_categories_with_different_labels_compare_by_label() -> None:
    other = Coded(np.array([1, 0, 0, -1]), ("LGA", "JFK"))
    np.testing.assert_array_equal(evaluate("o == p", {"o": O, "p": other}), [1, 1, NAN, NAN])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("t + 5", "write seconds(n), minutes(n)"), ("n - t", "write seconds(n)"),
        ("minutes(n) + 1", "write seconds(n)"),
        ("t > 5", "a time compares with a time"), ("t > '2013-01-01'", "write time('...')"), ("t * 2", "does not fit"),
        ("hours(t)", "take numbers"), ("hours(o)", "not text"), ("o + 1", "text has no arithmetic"),
        ("o < 'a'", "by == and !="),
        ("o == 1", "a category compares with text"), ("x == 'a'", "text compares with categories"),
        ("not t", "conditions"),
        ("x and o", "conditions"), ("sqrt(o)", "not text"), ("minimum(t, 1)", "times go with times"),
        ("-o", "does not fit"),
        ("where(x > 1, t, 1)", "times go with times"), ("where(x > 1, 'a', 'b')", "not text"),
        ("where(o, 1, 2)", "not text"),
        ("where(t, 1, 2)", "conditions"), ("'a' * 3", "text has no arithmetic"), ("'a'", "gives text"),
        ("o", "gives text"),
        ("missing('a')", "not text"), ("zzz + 1", "unknown column 'zzz'; known: m, n, o"),
        ("o + 1 + zzz", "text has no"),
        ("round(minutes(x))", "does not fit"), ("n << 1", "not allowed here"),
    ],
)  # fmt: skip
def test_operations_that_do_not_fit_their_columns_are_refused(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=r".") as caught:
        evaluate(text, COLUMNS)
    assert words in str(caught.value)


def test_a_constant_condition_masks_every_row() -> None:
    np.testing.assert_array_equal(mask("1 > 0", COLUMNS), [True] * 4)
    np.testing.assert_array_equal(mask("x > 1 and False", COLUMNS), [False] * 4)
    with pytest.raises(ValueError, match="is a time, not a condition"):
        mask("t", COLUMNS)


number = st.integers(0, 40).map(str) | st.floats(0, 50).map(lambda value: repr(round(value, 3)))
leaf = st.sampled_from(["x", "y", "n"]) | number
terms = st.recursive(
    leaf,
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from(["+", "-", "*"]), inner).map(lambda part: f"({part[0]} {part[1]} {part[2]})"),
        st.tuples(inner, st.sampled_from(["/", "//", "%"]), number).map(
            lambda part: f"({part[0]} {part[1]} ({part[2]} + 1))"
        ),
        inner.map(lambda part: f"(-{part})"),
        inner.map(lambda part: f"abs({part})"),
        st.tuples(st.sampled_from(["minimum", "maximum"]), inner, inner).map(
            lambda part: f"{part[0]}({part[1]}, {part[2]})"
        ),
    ),
    max_leaves=8,
)
comparison = st.tuples(terms, st.sampled_from(["<", "<=", ">", ">=", "==", "!="]), terms).map(
    lambda part: f"({part[0]} {part[1]} {part[2]})"
)
conditions = st.recursive(
    comparison,
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from(["and", "or"]), inner).map(lambda part: f"({part[0]} {part[1]} {part[2]})"),
        inner.map(lambda part: f"(not {part})"),
    ),
    max_leaves=5,
)
FRAME = pd.DataFrame({"x": X, "y": Y, "n": N})
PLAIN = {"minimum": np.minimum, "maximum": np.maximum, "abs": np.abs, "__builtins__": {}}


@settings(max_examples=300, deadline=None)
@given(terms)
def test_random_arithmetic_agrees_with_pandas(text: str) -> None:
    with np.errstate(all="ignore"):
        wanted = eval(text, PLAIN, dict(FRAME))
    np.testing.assert_allclose(evaluate(text, COLUMNS), wanted, rtol=1e-12)


@settings(max_examples=200, deadline=None)
@given(conditions)
def test_random_conditions_agree_with_pandas(text: str) -> None:
    with np.errstate(all="ignore"):
        rows = [dict(zip("xyn", map(float, row), strict=True)) for row in FRAME.itertuples(index=False)]
        wanted = [bool(eval(text, {"minimum": min, "maximum": max, "abs": abs}, row)) for row in rows]
    np.testing.assert_array_equal(mask(text, COLUMNS), wanted)


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("placed < 2024-05-01", "2024-05-01"),
        ("placed < 2024-10-11", "2024-10-11"),
        ("placed >= 2013-10-01T06:00 and n > 3", "2013-10-01T06:00"),
        ("placed < 2024-5-1", "2024-5-1"),
    ],
)
def test_an_instant_without_quotes_is_refused_with_the_way_to_write_it(text: str, written: str) -> None:
    with pytest.raises(SpecError, match=re.escape(f"write an instant as time('{written}')")):
        parse(text)


@pytest.mark.parametrize(
    "text", ["n - 2024", "1000-10-5", "n-2024-x", "2024-13-1", "origin == '2024-05-01'", "`2024-05-01` > 3"]
)
def test_what_only_looks_like_an_instant_is_left_alone(text: str) -> None:
    parse(text)


def test_columns_in_backticks_may_have_any_name() -> None:
    columns = {
        "my column": np.array([1.0, 5.0]),
        "class": np.array([2.0, 2.0]),
        "a'b": np.array([0.0, 1.0]),
        "n": np.ones(2),
    }
    assert names("`my column` + n > `class` and `my column` < 9") == ("class", "my column", "n")
    assert evaluate("`my column` > `class`", columns).tolist() == [0.0, 1.0]
    assert evaluate("`a'b` + n", columns).tolist() == [1.0, 2.0]
    assert evaluate(
        "where(`my column` > 3, n, 0) + _column0_", {**columns, "_column0_": np.array([7.0, 7.0])}
    ).tolist() == [7, 8]
    assert names("origin == '`x`'") == ("origin",)
    with pytest.raises(SpecError, match="unknown column 'no such'"):
        evaluate("`no such` > 3", columns)


@pytest.mark.parametrize("text", ["`", "``", "`a", "a`", "`a` `b`", "`a`(3)", "x.`a`"])
def test_backticks_that_name_no_column_are_refused(text: str) -> None:
    with pytest.raises(SpecError):
        parse(text)


def test_a_name_of_several_words_gets_a_hint() -> None:
    with pytest.raises(SpecError, match="in backticks: `my column`"):
        parse("my col > 3")
    with pytest.raises(SpecError) as caught:
        parse("x > and y")
    assert "backticks" not in str(caught.value)
