"""Maps of units: their shape from keys, binned, and that every unit is in exactly one cell."""

from __future__ import annotations

from itertools import product
from math import prod

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daskml_scale.events import Cell
from daskml_scale.plan.cells import MAX_CELLS, cells, places, steps_of
from daskml_scale.plan.grids import block_key
from daskml_scale.plan.units import row_key


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 40), min_size=1, max_size=3), st.integers(1, 50))
def test_every_unit_has_one_cell_and_there_are_not_too_many(shape: list[int], most: int) -> None:
    keys = [block_key(index, "block") for index in product(*map(range, shape))]
    found = places(["scan", *keys], keys[0], most)
    assert found is not None
    assert found.grid.shape == tuple(shape)
    assert prod(found.grid.counts) <= most
    counted = found.count(keys)
    assert sum(counted) == len(keys)
    assert min(counted) >= 1
    assert found.of("scan") is None


@given(st.lists(st.integers(1, 10**7), min_size=1, max_size=5))
def test_huge_grids_are_binned_quickly_and_use_the_room(shape: list[int]) -> None:
    steps = steps_of(shape)
    cells_of = [-(-size // step) for size, step in zip(shape, steps, strict=True)]
    assert prod(cells_of) <= MAX_CELLS
    assert prod(shape) <= MAX_CELLS or prod(cells_of) > MAX_CELLS / 40 ** len(shape)
    assert prod(shape) > MAX_CELLS or steps == (1,) * len(shape)


def test_keys_without_a_place_are_numbered_while_they_are_few() -> None:
    keys = [f"trial/{trial:04d}/split/{split}" for trial in range(3) for split in range(2)]
    found = places(keys, keys[0])
    assert found is not None
    assert (found.grid.name, found.grid.shape, [found.of(key) for key in keys]) == ("trial", (6,), list(range(6)))
    assert places(keys, keys[0], most=5) is None
    assert places(["train"], "train").grid.shape == (1,)  # type: ignore[union-attr]


def test_keys_that_are_a_place_alone_are_on_the_map() -> None:
    found = places([f"{number:04d}" for number in range(30)], "0000")
    assert found is not None
    assert found.grid.shape == (30,)
    assert found.of("0007") == 7


def test_a_grid_with_gaps_is_numbered_and_another_pass_is_not_on_the_map() -> None:
    keys = [row_key(10 * at, 10) for at in (0, 1, 5)]
    found = places([*keys, row_key(0, 10, "fit")], keys[0])
    assert found is not None
    assert [found.of(key) for key in keys] == [0, 1, 2]
    assert found.of(row_key(0, 10, "fit")) is None


def test_a_million_units_fit() -> None:
    found = places([f"rows/{at:08d}" for at in range(1_000_000)], "rows/00000000")
    assert found is not None
    assert (found.grid.step, found.of("rows/00999999")) == ((100,), 9999)
    assert found.of("rows/01000000") is None


def test_cells_add_up_and_tell_of_the_unit_that_failed() -> None:
    rows = [
        Cell(3, 1, 0, 0, 1.0, "a", "w", "new"),
        Cell(3, 0, 1, 0, 2.0, "b", "w", "ValueError"),
        Cell(3, 1, 0, 1, 4.0, "c", "w", "new"),
        Cell(4, 1, 0, 0, 1.0, "d", "w", "new"),
    ]
    assert cells(rows) == (Cell(3, 2, 1, 1, 7.0, "b", "w", "ValueError"), rows[3])


@pytest.mark.parametrize("key", ["rows/12", "other/00000001", "rows/00000009", "rows/", ""])
def test_what_is_not_on_the_map_has_no_cell(key: str) -> None:
    found = places([f"rows/{at:08d}" for at in range(9)], "rows/00000000")
    assert found is not None
    assert found.of(key) is None
