"""What a column becomes, and what is said when one value decides otherwise than the rest."""

from __future__ import annotations

import io

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daskml_scale.spec.expressions import Coded
from daskml_scale.stages.cells import Doubt, typed


def column(*cells: str):
    """Type a column as it comes out of a file."""
    text = "a,b\n" + "".join(f"{cell},0\n" for cell in cells)
    return typed(pd.read_csv(io.StringIO(text), low_memory=False, index_col=False)["a"])


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        (("1", "2", "3"), np.array([1, 2, 3])),
        (("1", "", "2.5"), np.array([1, np.nan, 2.5])),
        (("True", "False", "True"), np.array([1.0, 0.0, 1.0])),
        (("True", "", "False"), np.array([1.0, np.nan, 0.0])),
        (("", "", ""), np.array([np.nan] * 3)),
        (("2024-01-01", "", "2024-01-01T10:00:00+02:00"),
         np.array(["2024-01-01", "NaT", "2024-01-01T08:00"], dtype="datetime64[ns]")),
    ],
)  # fmt: skip
def test_a_column_of_one_kind_is_of_that_kind(cells, expected):
    values, doubt = column(*cells)
    assert doubt is None
    assert values.dtype == expected.dtype
    np.testing.assert_array_equal(values, expected)


@pytest.mark.parametrize(
    ("cells", "value", "row", "reason", "bad", "good"),
    [
        (("1", "2", "x", "y", "5"), "x", 2, "is not a number", 2, 3),
        (("1.5", "", "2", " "), " ", 3, "is not a number", 1, 2),
        (("1", "99999999999999999999", "3"), "99999999999999999999", 1, "does not fit into 64 bits", 1, 2),
        (("-1", "18446744073709551615", "3"), "18446744073709551615", 1, "does not fit into 64 bits", 1, 2),
        (("1", "99999999999999999999999", "3"), "99999999999999999999999", 1, "does not fit into 64 bits", 1, 2),
        (("2024-01-01", "2024-02-30", "2024-01-03"), "2024-02-30", 1, "is not a time in ISO 8601", 1, 2),
        (("2024-01-01", "2024-01-02", "9999-12-31"), "9999-12-31", 2, "is a time outside the years", 1, 2),
        (("True", "yes", "False"), "yes", 1, "is neither True nor False", 1, 2),
    ],
)
def test_one_value_of_another_kind_makes_text_and_is_named(cells, value, row, reason, bad, good):
    values, doubt = column(*cells)
    assert isinstance(values, Coded)
    assert isinstance(doubt, Doubt)
    assert (doubt.value, doubt.row, doubt.bad, doubt.good) == (value, row, bad, good)
    assert doubt.reason.startswith(reason)
    assert values.labels[values.codes[row]] == value


@pytest.mark.parametrize(
    "cells",
    [
        ("JFK", "LGA", "1"),
        ("9E", "AA", "B6", "7"),
        ("1", "x"),
        ("9999-12-31", "9999-12-31", "2024-01-01"),
        ("99999999999999999999", "99999999999999999998", "1"),
        ("True", "no", "yes"),
    ],
)
def test_text_is_text_without_a_word(cells):
    values, doubt = column(*cells)
    assert isinstance(values, Coded)
    assert doubt is None


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 2000), st.data())
def test_one_bad_cell_is_found_wherever_it_lies(rows, data):
    row = data.draw(st.integers(0, rows + 1))
    series = pd.Series([str(number / 4) for number in range(rows + 2)])
    series[row] = "bad"
    _, doubt = typed(series)
    assert doubt == Doubt("bad", row, "is not a number", 1, rows + 1)
