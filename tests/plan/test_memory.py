from __future__ import annotations

import re

from hypothesis import assume, given
from hypothesis import strategies as st

from daskml_scale.plan.grids import Read, common_grid, prove
from daskml_scale.plan.memory import AT_A_TIME, Need, RowNeed, Share
from daskml_scale.plan.units import Snapshot, Variable

MIB = 2**20


def variable(shape, chunks, dims=("time", "lat")) -> Variable:
    return Variable("float64", dims[: len(shape)], shape, chunks)


def need(outputs, inputs=None, halo=None, **more) -> Need:
    reads = [Read(Snapshot("in", "time", 1, inputs), tuple(inputs), halo or {})] if inputs else []
    return Need(common_grid(outputs), reads, outputs, **more)


def test_inputs_outputs_the_halo_and_the_kernel_are_counted():
    a = variable((1000, 100), (10, 100))
    whole = 10 * 100 * 8
    alone = need({"a": a})
    assert alone.total == 2 * whole
    aligned = need({"a": a}, {"b": a})
    assert aligned.total - alone.total == 2 * whole  # the values, and the chunk that is decoded into them
    around = need({"a": a}, {"b": a}, {"time": (20, 5)})
    assert around.total - alone.total == 35 * 100 * 8 + 5 * whole
    wide = need({"a": variable((1000, 100), (1000, 100))}, {"b": a})
    assert wide.shares[0].nbytes == 2 * 100 * whole
    assert wide.shares[1].nbytes == 100 * whole + AT_A_TIME * whole
    assert need({"a": a}, {"b": a}, factor=3.0, fixed=7).total == aligned.total + 3 * 2 * whole + 7


def test_a_refusal_names_sizes_the_worst_variable_and_chunks_that_fit():
    found = need({"a": variable((8760, 1000), (8760, 100))}, {"temp": variable((8760, 1000), (24, 1000))})
    text = found.refusal(16 * MIB)
    assert text == (
        "one unit of (time 8,760, lat 100) needs about 22 MiB and a worker has 16 MiB; writing a takes 13 MiB of it; "
        "output chunks of (time 4,380, lat 100) fit (12 MiB), or use workers with more memory"
    )
    coarse = need({"a": variable((100, 100), (1, 1))}, {"temp": variable((100, 100), (100, 100))})
    assert coarse.refusal(1000).endswith(
        "reading temp takes 78 KiB of it, and no chunks of the output fit; "
        "rechunk temp, or use workers with more memory"
    )


sizes = st.tuples(st.integers(1, 500), st.integers(1, 500))


@given(sizes, sizes, sizes, st.integers(1, 10**6))
def test_what_is_said_to_fit_fits_and_is_aligned(shape, chunks, stored, limit):
    found = need({"a": variable(shape, chunks)}, {"b": variable(shape, stored)}, factor=1.5)
    fits = found.fitting(limit)
    if fits is None:
        assert found.total > limit
        return
    assert fits.total <= limit
    assert fits.total <= found.total
    if found.total <= limit:
        assert fits is found
    prove(fits.grid, {"a": variable(shape, fits.grid.blocks)})


def test_a_unit_of_rows_that_does_not_fit_names_what_takes_most_and_the_rows_that_fit():
    found = RowNeed(20_000, [Share("reading", "x", 20 * MIB), Share("writing", "y", 60 * MIB)], [], "matrix.shard")
    assert found.total == 80 * MIB
    assert found.refusal(40 * MIB) == (
        "one unit of 20,000 rows needs about 80 MiB and a worker has 40 MiB; writing y takes 60 MiB of it; "
        "units of 10,000 rows fit: set matrix.shard, or use workers with more memory"
    )
    joined = RowNeed(20_000, [Share("reading", "x", 20 * MIB)], [Share("holding", "table late", 64 * MIB)])
    assert joined.refusal(48 * MIB).endswith("holding table late takes 64 MiB of it; use workers with more memory")


@given(st.integers(1, 10**6), st.integers(1, 500), st.integers(0, 10**6), st.integers(1, 10**9))
def test_the_rows_that_are_said_to_fit_do(rows, each, fixed, limit):
    def of(count: int) -> RowNeed:
        return RowNeed(count, [Share("reading", "x", each * count)], [Share("holding", "t", fixed)])

    need = of(rows)
    assume(need.total > limit)
    said = re.search(r"units of ([\d,]+) rows fit", need.refusal(limit))
    if said is None:
        assert of(1).total > limit
    else:
        fits = int(said[1].replace(",", ""))
        assert 1 <= fits < rows
        assert of(fits).total <= limit
