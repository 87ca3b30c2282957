from __future__ import annotations

from collections import Counter
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daskml_scale.errors import PlanError
from daskml_scale.plan.grids import (
    Grid,
    Read,
    block_key,
    common_grid,
    grid_units,
    prove,
    sizes_of,
)  # fmt: skip
from daskml_scale.plan.objects import extents, object_identity
from daskml_scale.plan.records import digest
from daskml_scale.plan.units import Snapshot, Variable

DIMS = ("time", "lat", "lon")


@st.composite
def variables(draw, sizes=None, most=3):
    """Variables of one space, each with its own chunks, some sharded, some without the later dimensions."""
    sizes = sizes or draw(st.tuples(*[st.integers(1, 9)] * 3))
    found = {}
    for name in "abc"[: draw(st.integers(1, most))]:
        dims = draw(st.sampled_from([DIMS, DIMS, DIMS[:2], DIMS[:1], DIMS[1:]]))
        shape = tuple(sizes[DIMS.index(dim)] for dim in dims)
        chunks = tuple(draw(st.integers(1, size)) for size in shape)
        shards = draw(st.sampled_from([None, 1, 2]))
        found[name] = Variable("float32", dims, shape, chunks, shards and tuple(shards * chunk for chunk in chunks))
    return found


def objects_of(variable, region):
    """Return the stored objects that hold any element of a region, by brute force."""
    return {
        tuple(at // unit for at, unit in zip(element, variable.write_unit, strict=True))
        for element in product(*(range(start, stop) for start, stop in region))
    }


def part_of(variable, grid, region):
    """Return the part of a variable in a region of the grid."""
    found = dict(zip(grid.dims, region, strict=True))
    return [found.get(dim, (0, size)) for dim, size in zip(variable.dims, variable.shape, strict=True)]


@given(variables(), st.dictionaries(st.sampled_from(DIMS), st.integers(1, 9)))
@settings(max_examples=60)
def test_units_cover_every_object_of_every_variable_exactly_once(outputs, least):
    grid = common_grid(outputs, least)
    covered = Counter(
        element for index in grid.indices() for element in product(*(range(*part) for part in grid.region(index)))
    )
    assert set(covered) == set(product(*map(range, grid.shape)))
    assert set(covered.values()) == {1}
    for variable in outputs.values():
        writers = Counter(
            found
            for index in grid.indices()
            for found in objects_of(variable, part_of(variable, grid, grid.region(index)))
        )
        assert set(writers) == set(product(*map(range, variable.objects)))
        assert set(writers.values()) == {1}
    assert len({block_key(index, "b") for index in grid.indices()}) == len(grid)


@given(variables(), st.tuples(*[st.integers(1, 9)] * 3))
@settings(max_examples=60)
def test_a_grid_is_refused_exactly_when_two_units_write_one_object(outputs, blocks):
    sizes = sizes_of(outputs)
    grid = Grid(tuple(sizes), tuple(sizes.values()), blocks[: len(sizes)])
    clash = any(
        max(Counter(o for i in grid.indices() for o in objects_of(v, part_of(v, grid, grid.region(i)))).values()) > 1
        for v in outputs.values()
    )
    try:
        prove(grid, outputs)
    except PlanError:
        assert clash
    else:
        assert not clash


@given(variables(), st.data())
@settings(max_examples=60)
def test_a_unit_reads_exactly_the_objects_of_its_block_and_halo(inputs, data):
    """Changing the id of one object changes the digests of the units that read it, and of no others."""
    grid = common_grid(data.draw(variables(sizes=_sizes(inputs))))
    halo = {dim: data.draw(st.tuples(st.integers(0, 3), st.integers(0, 3))) for dim in DIMS[:2]}
    ids = {
        name: tuple(f"{name}{at}" for at in range(len(list(product(*map(range, v.objects))))))
        for name, v in inputs.items()
    }
    snapshot = Snapshot("x", "time", 1, inputs, ids=ids)
    before = {u.key: r for u, r in grid_units(grid, [Read(snapshot, tuple(inputs), halo)])}
    name = data.draw(st.sampled_from(sorted(inputs)))
    changed = data.draw(st.integers(0, len(ids[name]) - 1))
    other = {**ids, name: (*ids[name][:changed], "other", *ids[name][changed + 1 :])}
    after = {
        u.key: r for u, r in grid_units(grid, [Read(Snapshot("x", "time", 1, inputs, ids=other), tuple(inputs), halo)])
    }
    place = list(product(*map(range, inputs[name].objects)))[changed]
    read = Read(snapshot, tuple(inputs), halo)
    wanted = set()
    for index in grid.indices():
        region = read.region(grid, index)
        part = [region.get(dim, (0, size)) for dim, size in zip(inputs[name].dims, inputs[name].shape, strict=True)]
        if place in objects_of(inputs[name], part):
            wanted.add(block_key(index, "block"))
        assert set(snapshot.region_ids(name, region)) == {
            ids[name][list(product(*map(range, inputs[name].objects))).index(o)] for o in objects_of(inputs[name], part)
        }
    assert {key for key in before if before[key] != after[key]} == wanted


def _sizes(inputs):
    found = sizes_of(inputs)
    return tuple(found.get(dim, 4) for dim in DIMS)


def test_appending_along_a_dimension_keeps_keys_and_digests_of_whole_blocks():
    def plan(times: int) -> dict[str, str]:
        variable = Variable("float32", DIMS[:2], (times, 4), (3, 2))
        ids = tuple(f"{t}.{x}" for t in range(-(-times // 3)) for x in range(2))
        snapshot = Snapshot("x", "time", times, {"a": variable}, ids={"a": ids})
        halo = {"time": (2, 0)}
        return {u.key: read for u, read in grid_units(common_grid({"a": variable}), [Read(snapshot, ("a",), halo)])}

    seven, nine, ten = plan(7), plan(9), plan(10)
    assert {key for key in nine if nine[key] != seven.get(key)} == {
        "block/00000002.00000000",
        "block/00000002.00000001",
    }
    assert {key for key in ten if ten[key] != nine.get(key)} == {"block/00000003.00000000", "block/00000003.00000001"}


def test_misaligned_units_are_refused_with_both_chunkings_and_the_fix():
    variable = Variable("float32", ("time", "lat"), (100, 50), (10, 25), (20, 50))
    grid = Grid(("time", "lat"), (100, 50), (30, 50))
    with pytest.raises(
        PlanError,
        match=r"\(time 30, lat 50\) do not hold whole objects of t, \(time 20, lat 50\).*blocks of 20 or 40 along time",
    ):
        prove(grid, {"t": variable})
    mask = Variable("bool", ("lat",), (50,), (50,))
    with pytest.raises(PlanError, match=r"mask has no dimension time.*use blocks of 100 along time"):
        prove(Grid(("time", "lat"), (100, 50), (20, 50)), {"mask": mask})


def test_mismatched_dimensions_are_refused_with_both_sizes():
    a, b = Variable("int8", ("time",), (10,), (5,)), Variable("int8", ("time",), (11,), (5,))
    with pytest.raises(PlanError, match="a has 10 elements along time, b has 11"):
        common_grid({"a": a, "b": b})
    read = Read(Snapshot("in.zarr", "time", 11, {"b": b}), ("b",))
    with pytest.raises(PlanError, match=r"in.zarr: b has 11 elements along time, the output has 10"):
        list(grid_units(common_grid({"a": a}), [read]))
    with pytest.raises(PlanError, match=r"in.zarr has no variable 'c'; it has b"):
        list(grid_units(common_grid({"b": b}), [Read(read.snapshot, ("c",))]))


@given(variables(most=1), st.text("abc0", max_size=3))
def test_identities_are_the_digests_of_meaning_extent_and_bytes(found, stored):
    (variable,) = found.values()
    listed = list(extents(variable))
    assert len(listed) == len(list(product(*map(range, variable.objects))))
    for extent in listed:
        assert object_identity("m", extent, stored) == digest("m", extent, [stored])
