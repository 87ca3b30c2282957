"""What a column becomes, and what is said when one value decides otherwise than the rest."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daskml_scale.errors import PlanError
from daskml_scale.spec.expressions import Coded
from daskml_scale.stages.file_patterns import sources
from daskml_scale.stages.ingest_blocks import Reading
from daskml_scale.stages.ingest_files import blocks_of, opened
from daskml_scale.stages.ingest_table import table_of
from daskml_scale.stages.merged_types import Part, merge
from daskml_scale.stages.read_types import Seen


@pytest.fixture
def column(tmp_path: Path):
    """Type a column as it comes out of a file."""

    def of(*cells: str):
        path = tmp_path / "t.csv"
        path.write_text("a,b\n" + "".join(f"{cell},0\n" for cell in cells))
        files = opened(sources(str(path), quick=True))
        table = table_of(Reading(files, tuple(blocks_of(0, files[0])), ("a",)), "t.csv", ())
        return table.columns["a"], "".join(table.doubts)

    return of


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        (("1", "2", "3"), np.array([1, 2, 3])),
        (("1", "", "2.5"), np.array([1, np.nan, 2.5])),
        (("1", "NA", "3"), np.array([1, np.nan, 3])),
        (("True", "False", "True"), np.array([1.0, 0.0, 1.0])),
        (("True", "", "False"), np.array([1.0, np.nan, 0.0])),
        (("", "", ""), np.array([np.nan] * 3)),
        (("2024-01-01", "", "2024-01-01T10:00:00+02:00"),
         np.array(["2024-01-01", "NaT", "2024-01-01T08:00"], dtype="datetime64[ns]")),
        (("2024-01-01 10:00:00.25", "2024-01-01"),
         np.array(["2024-01-01T10:00:00.25", "2024-01-01"], dtype="datetime64[ns]")),
    ],
)  # fmt: skip
def test_a_column_of_one_kind_is_of_that_kind(column, cells, expected):
    values, doubt = column(*cells)
    assert doubt == ""
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
def test_one_value_of_another_kind_makes_text_and_is_named(column, cells, value, row, reason, bad, good):
    values, doubt = column(*cells)
    assert isinstance(values, Coded)
    assert doubt.startswith(f"t.csv: column 'a' became text, a category: {value!r} in row {row + 1} {reason}")
    assert f"{good} values are" in doubt
    assert (f"(nor are {bad - 1} other values)" in doubt) == (bad > 1)
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
        ("10:30", "11:00"),
    ],
)
def test_text_is_text_without_a_word(column, cells):
    values, doubt = column(*cells)
    assert isinstance(values, Coded)
    assert [values.labels[code] for code in values.codes] == list(cells)
    assert doubt == ""


def test_numbers_are_exact_to_the_last_bit(column):
    values, _ = column("0.1", "1e-310", "123456789.123456789", "-0.0")
    assert values.tobytes() == np.array([0.1, 1e-310, 123456789.123456789, -0.0]).tobytes()


SEEN = st.one_of(
    st.builds(
        lambda kind, present, missing: Seen(kind, present, missing),
        st.sampled_from(["int", "float"]), st.integers(1, 9), st.booleans(),
    ),
    st.just(Seen("none", 0, True)),
    st.builds(
        lambda labels: Seen("text", len(labels), labels=tuple(sorted(labels))), st.sets(st.text("ab"), min_size=1)
    ),
)  # fmt: skip


@settings(deadline=None)
@given(st.lists(SEEN, min_size=1), st.randoms())
def test_kinds_and_labels_do_not_depend_on_the_order_of_blocks(found, chance):
    parts = [Part(f"{number}.csv", 0, {"a": seen}) for number, seen in enumerate(found)]
    kind, _ = merge(parts, "a")
    chance.shuffle(parts)
    assert merge(parts, "a")[0] == kind
    assert list(kind.labels) == sorted(kind.labels)


def test_what_is_seen_survives_json():
    seen = Seen("text", 3, True, True, False, 7, ("a", "b"), {"number": 2}, ("x", 1, "is not a number"))
    assert Seen.of(seen.to_json()) == seen
    assert Seen.of(Seen().to_json()) == Seen()


def test_two_files_of_different_kinds_are_refused_with_both():
    parts = [
        Part("a.csv", 0, {"x": Seen("int", 3)}),
        Part("b.csv", 0, {"x": Seen("none", 0, True)}),
        Part("c.csv", 0, {"x": Seen("time", 2)}),
    ]
    with pytest.raises(PlanError, match=r"column 'x' holds whole numbers in a\.csv and times in c\.csv; mend one"):
        merge(parts, "x")


def test_whole_numbers_that_float64_cannot_hold_are_told():
    parts = [Part("a.csv", 0, {"x": Seen("int", 3, most=2**53 + 1)}), Part("b.csv", 0, {"x": Seen("float", 1)})]
    kind, told = merge(parts, "x")
    assert kind.kind == "float"
    assert "a.csv: column 'x' holds whole numbers up to 9,007,199,254,740,993" in told
