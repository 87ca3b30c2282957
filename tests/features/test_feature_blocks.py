"""Matrices are made a block of rows at a time, and no value shows it."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from daskml_scale.engine.worker import Cache
from daskml_scale.spec.expressions import Coded
from daskml_scale.stages.features import blocks
from daskml_scale.stages.features.program import Program, parse_steps
from daskml_scale.stages.features.statistics import learn, scan
from daskml_scale.stages.features.transformer import MemoryTable, RowTransformer

ROWS = 40_000
STEPS = [
    {"impute": {"of": ["size", "width"], "indicator": True}},
    {"standardize": {"of": ["size", "width"]}},
    {"compute": {"features": {"area": "size * width"}}},
    {"cyclical": {"of": "hour", "periods": [24.0]}},
    {"one_hot": {"of": "place", "unknown": "other"}},
    {"hashing": {"of": "name", "buckets": 3}},
    {"bin": {"of": "depth", "by": "quantile", "bins": 7}},
    {"rename": {"of": {"length": "size"}}},
]


def table() -> dict[str, np.ndarray | Coded]:
    rng = np.random.default_rng(0)
    found: dict[str, np.ndarray | Coded] = {
        name: np.where(rng.random(ROWS) < 0.1, np.nan, rng.normal(size=ROWS)) for name in ("size", "width", "depth")
    }
    found["depth"][::1000] = np.inf
    found["hour"] = rng.integers(0, 24, ROWS)
    found["place"] = Coded(rng.integers(-1, 3, ROWS).astype("int32"), ("a", "b", "c"))
    found["name"] = Coded(rng.integers(-1, 500, ROWS).astype("int32"), tuple(f"n{number}" for number in range(500)))
    return found


@pytest.fixture(scope="module")
def made() -> RowTransformer:
    program = Program(parse_steps(STEPS), "time('2024-01-01')")
    columns = table()
    return RowTransformer(learn(program, [scan(program, columns, ROWS, None)]), MemoryTable(columns), {})


def test_the_rows_of_many_blocks_are_those_of_single_rows_to_the_bit(made: RowTransformer) -> None:
    whole = made.matrix(0, ROWS, (), Cache(), "float64")
    edges = [0, 1, 7, 5_000, 33_333, ROWS - 1, ROWS]
    parts = [made.matrix(a, b, (), Cache(), "float64") for a, b in pairwise(edges)]
    assert np.array_equal(whole.view("int64"), np.concatenate(parts).view("int64"))


def test_they_are_those_of_steps_made_for_all_rows_at_once(made: RowTransformer) -> None:
    twice = made.matrices((made.program, made.program), 0, ROWS, (), Cache(), "float64")
    assert np.array_equal(twice[0].view("int64"), made.matrix(0, ROWS, (), Cache(), "float64").view("int64"))


def test_what_needs_all_rows_is_not_made_in_blocks(made: RowTransformer) -> None:
    columns = table()
    assert blocks.in_blocks(made.program, columns) == {0, 1, 2, 3, 4, 6, 7}, "a column of many categories"
    scaled = [{"standardize": {"of": "size"}}, {"sklearn": {"of": "size", "transformer": {}}}]
    scaled[1]["sklearn"]["transformer"] = {"sklearn.preprocessing.MaxAbsScaler": {}}
    assert blocks.in_blocks(Program(parse_steps(scaled), "due"), columns) is None, "it reads what was made before"


def test_no_rows_make_an_empty_matrix(made: RowTransformer) -> None:
    assert made.matrix(5, 5, (), Cache(), "float32").shape == (0, len(made.program.features))
