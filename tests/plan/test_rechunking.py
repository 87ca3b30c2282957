from __future__ import annotations

from math import prod

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daskml_scale.errors import PlanError
from daskml_scale.plan.grids import Grid, prove
from daskml_scale.plan.rechunking import MOST_READ, passes
from daskml_scale.plan.units import Variable

DIMS = ("time", "lat", "lon")


@st.composite
def cases(draw):
    axes = draw(st.integers(1, 3))
    shape = tuple(draw(st.integers(1, 400)) for _ in range(axes))
    read, write = (tuple(draw(st.integers(1, size)) for size in shape) for _ in range(2))
    return (Variable("float32", DIMS[:axes], shape, chunks) for chunks in (read, write))


@given(cases(), st.integers(1_000, 10_000_000))
@settings(max_examples=300)
def test_both_passes_write_whole_objects_within_the_memory(case, memory):
    source, target = case
    try:
        found = passes("x", source, target, memory)
    except PlanError:
        least = 2 * 4 * max(prod(source.chunks), prod(target.chunks))
        assert memory < 20 * least  # what is refused was never far from fitting
        return
    assert found.memory <= memory
    prove(Grid(target.dims, target.shape, found.last), {"x": target})
    assert (found.first is None) == (found.between is None)
    if found.first is not None and found.between is not None:
        between = Variable("float32", target.dims, target.shape, found.between)
        prove(Grid(target.dims, target.shape, found.first), {"x": between})
        assert 2 * prod(found.first) * 4 <= memory


@given(cases())
def test_with_memory_for_all_there_is_one_pass_and_little_is_read_twice(case):
    source, target = case
    found = passes("x", source, target, 20 * prod(source.shape) * 4 + 1000)
    assert found.first is None


def test_maps_become_series_in_two_passes_over_an_intermediate():
    """24 years of hourly maps: 4 MB chunks of one hour become 84 MB chunks of all hours."""
    shape = (210_240, 721, 1440)
    source, target = (Variable("float32", DIMS, shape, chunks) for chunks in ((1, 721, 1440), (210_240, 10, 10)))
    found = passes("t2m", source, target, 2**30)
    assert found.first is not None
    assert found.first[1:] == (721, 1440)
    assert found.first[0] > 50
    assert found.last == (210_240, 10, found.last[2])
    assert found.between == (found.first[0], 10, found.last[2])
    assert found.memory <= 2**30


def test_splitting_and_joining_neighbours_needs_no_intermediate():
    small, large, odd = (Variable("float32", ("time",), (10_000,), (chunk,)) for chunk in (100, 1000, 70))
    for source, target in ((small, large), (large, small), (small, odd), (odd, small)):
        found = passes("x", source, target, 100_000)
        assert found.first is None
        assert found.memory <= 100_000
    assert passes("x", large, small, 100_000).last == (1000,)
    assert MOST_READ > 1


def test_too_little_memory_is_refused_with_the_chunkings_and_what_is_needed():
    source, target = (Variable("float64", DIMS[:2], (1000, 1000), chunks) for chunks in ((1, 1000), (1000, 100)))
    with pytest.raises(
        PlanError,
        match=r"t: one unit needs \d+ MiB to turn chunks of \(time 1, lat 1,000\) into \(time 1,000, lat 100\), "
        r"and memory is 512 KiB; give it that much",
    ):
        passes("t", source, target, 2**19)
