"""Values as bytes: what goes in comes out, of the same type; the rest is refused or only told apart."""

from __future__ import annotations

import datetime
import math
import os
import subprocess
import sys
from collections import OrderedDict, namedtuple
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from daskml_scale.storage.values import identity, pack, unpack

scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.complex_numbers(allow_nan=False)
    | st.text()
    | st.binary()
)
keys = st.text() | st.integers() | st.tuples(st.integers(), st.text())
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner)
        | st.tuples(inner, inner)
        | st.dictionaries(keys, inner)
        | st.sets(st.text() | st.integers())
        | st.frozensets(st.floats(allow_nan=False))
    ),
    max_leaves=20,
)


def same(left: object, right: object) -> bool:
    if type(left) is not type(right):
        return False
    if isinstance(left, (list, tuple)):
        return len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, dict):
        return list(map(repr, left)) == list(map(repr, right)) and all(map(same, left.values(), right.values()))
    return left == right


@given(values)
def test_a_value_comes_back_as_it_was(value):
    assert same(unpack(pack(value)), value)
    assert identity(value) == identity(unpack(identity(value)))


@pytest.mark.parametrize(
    "array",
    [
        np.arange(6, dtype="int16").reshape(2, 3),
        np.zeros((0, 4)),
        np.array(3.5),
        np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        np.arange(10)[::-3],
        np.array(["a", "", "Ωmega"]),
        np.array([""]),
        np.array([b"ab", b"c"]),
        np.array(["2026-01-01", "NaT"], "datetime64[ns]"),
        np.array([1 + 2j]),
        np.array([1, 2], ">u4"),
        np.array([True, False]),
    ],
    ids=lambda array: f"{array.dtype}{array.shape}",
)
def test_arrays_keep_type_shape_and_values(array):
    back = unpack(pack({"x": [array]}))["x"][0]
    assert back.dtype == array.dtype
    assert back.shape == array.shape
    assert back.tobytes() == array.tobytes()
    assert back.flags.writeable


@pytest.mark.parametrize(
    "scalar",
    [np.float32(1.5), np.int64(-3), np.bool_(True), np.datetime64("2026-01-01T00:00"), np.str_("ab"), np.str_("")],
    ids=repr,
)
def test_numpy_scalars_stay_numpy_scalars(scalar):
    back = unpack(pack(scalar))
    assert type(back) is type(scalar)
    assert back == scalar


def test_nan_comes_back():
    assert math.isnan(unpack(pack(float("nan"))))


Point = namedtuple("Point", "x y")


@pytest.mark.parametrize(
    ("value", "name"),
    [
        (object(), "object"),
        ({"inner": [Point(1, 2)]}, "Point"),
        (OrderedDict(a=1), "collections.OrderedDict"),
        (datetime.date(2026, 1, 1), "datetime.date"),
        (np.array([{}], dtype=object), "numpy.ndarray"),
        (lambda: 1, "function"),
        (np.zeros(2, [("a", "i4")]), "numpy.ndarray"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_no_data_is_refused_by_name_with_the_remedy(value, name):
    with pytest.raises(TypeError, match=rf"is, or holds, a .*{name}, which cannot be stored; .*return one of these"):
        pack(value)
    assert unpack(pack([1])) == [1]  # a refusal leaves nothing behind
    if name != "function":
        assert identity(value) == identity(value) != identity([value])


@pytest.mark.parametrize("value", ["\udc80", {"a": "\udc80"}], ids=["text", "in a dict"])
def test_text_that_is_not_unicode_is_refused(value):
    with pytest.raises(ValueError, match="surrogates not allowed; a result is kept as"):
        pack(value)


def test_a_value_that_holds_itself_is_refused_and_has_an_identity():
    loop: list = []
    loop.append(loop)
    with pytest.raises(ValueError, match="cannot be stored: recursion"):
        pack(loop)
    assert identity(loop)
    knot: tuple = ([],)
    knot[0].append(knot)
    with pytest.raises(ValueError, match="cannot be stored"):
        pack(knot)


def test_identity_tells_types_apart_and_not_objects():
    found = [identity(value) for value in (1, 1.0, True, "1", b"1", [1], (1,), {1}, np.int64(1), np.array(1))]
    assert len(set(found)) == len(found)
    word = "".join(["ab", "cd"])
    assert identity(Path("x")) == identity(Path("x"))
    # One object twice or two equal ones: the same content.
    assert identity([Point(word, word)]) == identity([Point(word, "".join(["ab", "cd"]))])


def test_identity_does_not_depend_on_the_process():
    program = (
        "from pathlib import Path; from daskml_scale.storage.values import identity;"
        "print(identity([{'a', 'b', 'c'}, frozenset('xyz'), Path('p'), {'k': (1, 2.5)}]).hex())"
    )
    found = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2", "3")
    }
    assert len(found) == 1


def test_an_item_that_cannot_be_pickled_has_no_identity():
    with pytest.raises(TypeError, match="generator"):
        identity(number for number in [1])
