"""What is read for a range of rows, and how features become a matrix."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daskml_scale.stages.features import look
from daskml_scale.stages.features.look import places, read_events, stacked
from daskml_scale.stages.features.sources import MemoryTable

TABLE = MemoryTable({"time": np.arange(100), "value": np.arange(100) * 0.5})


class Watched:
    """A table that counts how often each row of each column is read."""

    version = ""

    def __init__(self) -> None:
        self.read_rows: Counter[tuple[str, int]] = Counter()

    def read(self, names, start=0, stop=None):
        for name in names:
            self.read_rows.update((name, row) for row in range(start, 100 if stop is None else stop))
        return TABLE.read(names, start, stop)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 100), min_size=4, max_size=4, unique=True), st.booleans())
def test_rows_that_are_there_are_not_read_again(cuts, around):
    first, start, stop, last = sorted(cuts)
    halo = ((first, last),) if around else ((start, stop),)
    table = Watched()
    rows = table.read(["time"], start, stop)
    found = read_events(table, ["time", "value"], halo, start, stop, rows)
    expected = TABLE.read(["time", "value"], *halo[0])
    assert all(found[name].tolist() == expected[name].tolist() for name in expected)
    assert set(table.read_rows.values()) == {1}


def test_a_halo_beside_the_rows_is_read_as_it_is():
    found = read_events(TABLE, ["time"], ((0, 10), (50, 60)), 20, 30, TABLE.read(["time"], 20, 30))
    assert found["time"].tolist() == [*range(10), *range(50, 60)]
    assert read_events(TABLE, ["time"], (), 20, 30, {})["time"].tolist() == []
    assert places(((0, 10), (15, 25)), 20, 30).tolist() == [15, 16, 17, 18, 19, -1, -1, -1, -1, -1]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_columns_of_any_kind_become_one_matrix_block_by_block(monkeypatch, dtype):
    monkeypatch.setattr(look, "_BLOCK", 1)
    columns = [np.linspace(-1, 1, 1000), np.arange(1000) % 2 == 0, np.broadcast_to(3.0, (1000,)), np.full(1000, 1e300)]
    with np.errstate(over="ignore"):
        expected = np.stack([column.astype(dtype) for column in columns], axis=1)
    np.testing.assert_array_equal(stacked(columns, 1000, dtype), expected)
    assert stacked([], 5, dtype).shape == (5, 0)
    assert stacked(columns, 0, dtype).shape == (0, 4)
