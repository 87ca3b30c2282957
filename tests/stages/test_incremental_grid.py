"""A stage over an N-dimensional grid with a halo: what it plans, repeats, refuses, and survives."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

from daskml_scale import events
from daskml_scale.engine.worker import WorkerContext
from daskml_scale.errors import PlanError
from daskml_scale.plan.grids import Grid, Read, common_grid, grid_units
from daskml_scale.plan.memory import Need
from daskml_scale.plan.records import Record, Written, select
from daskml_scale.plan.units import Parts, Plan, Snapshot, Template, Unit, Variable
from daskml_scale.stages.accounting import LAST
from daskml_scale.stages.base import Input, Ref, StageBase
from daskml_scale.stages.run import run_stage
from daskml_scale.storage import files, stores
from daskml_scale.storage.ledger import Ledger

HALO = {"time": (2, 0)}


@dataclass(frozen=True)
class Smooth(StageBase):
    """The mean of three steps of ``temp`` as anomaly from the climate, where ``mask`` is; and its top by time."""

    input: str
    climate: str
    fixed: int = 0
    kind: str = "smooth"

    def reads(self) -> Mapping[str, Ref]:
        return {"input": Ref("dataset", self.input), "climate": Ref("dataset", self.climate)}

    def plan(self, inputs: Mapping[str, Input], records: Mapping[str, Record]) -> Plan:
        cube, climate = inputs["input"], inputs["climate"]
        assert isinstance(cube, Snapshot)
        assert isinstance(climate, Snapshot)
        temp = cube.variables["temp"]
        outputs = {
            "smooth": Variable("float32", temp.dims, temp.shape, (2, *temp.shape[1:]), (4, *temp.shape[1:]), fill=0.0),
            "top": Variable("float32", temp.dims[:1], temp.shape[:1], (4,)),
        }
        reads = [Read(cube, ("temp",), HALO), Read(cube, ("mask",)), Read(climate, ("normal",))]
        grid = common_grid(outputs)
        need = Need(grid, reads, outputs, fixed=self.fixed)
        return select(
            grid_units(grid, reads), Parts(code="smooth-1"), records,
            template=Template("time", temp.shape[0], outputs), grid=str(grid), memory=need.total, need=need,
            shared=grid,
        )  # fmt: skip

    def kernel(self, unit: Unit, worker: WorkerContext) -> Any:
        grid: Grid = worker.shared
        (start, stop), *_ = region = grid.region(unit.payload)
        first = max(0, start - 2)
        temp = stores.read_region(self.input, "temp", [(first, stop)])
        mask, normal = (
            stores.read_region(*where, [(0, 3)]) for where in ((self.input, "mask"), (self.climate, "normal"))
        )
        mean = np.stack([temp[max(0, at - 2 - first) : at + 1 - first].mean(axis=0) for at in range(start, stop)])
        smooth = np.where(mask != 0, mean - normal, 0).astype("float32")
        values = {"smooth": smooth, "top": smooth.max(axis=(1, 2))}
        return Written(stores.write_region(self.out, [part[0] for part in region[:1]], values), rows=stop - start)


def cube(path: Path, times: int = 20, chunk: int = 2) -> xr.Dataset:
    rng = np.random.default_rng(0)
    ds = xr.Dataset(
        {
            "temp": (("time", "lat", "lon"), rng.normal(size=(40, 3, 4)).astype("float32")[:times]),
            "mask": (("lat", "lon"), np.ones((3, 4), "int8")),
        }
    )
    ds.to_zarr(path, encoding={"temp": {"chunks": (chunk, 3, 2)}}, consolidated=False, mode="w")
    return ds


@pytest.fixture
def work(tmp_path) -> Smooth:
    cube(tmp_path / "cube.zarr")
    xr.Dataset({"normal": (("lat", "lon"), np.ones((3, 4), "float32"))}).to_zarr(
        tmp_path / "climate.zarr", consolidated=False
    )
    return Smooth(
        "s", str(tmp_path / "s.ledger"), input=str(tmp_path / "cube.zarr"), climate=str(tmp_path / "climate.zarr")
    )


def ran(stage: Smooth, told: list[events.Event] | None = None) -> dict[str, str]:
    """Run a stage and return unit -> why, of those that it executed."""
    before = {unit: record.seconds for unit, record in Ledger(stage.ledger).records().items()} if told is None else {}
    seen: list[events.Event] = []
    run_stage(stage, sink=seen.append)
    if told is not None:
        told += seen
    records = Ledger(stage.ledger).records()
    return {unit: record.why for unit, record in records.items() if before.get(unit) != record.seconds}


def blocks(*numbers: int) -> set[str]:
    return {f"block/{number:08d}.00000000.00000000" for number in numbers}


def expected(stage: Smooth) -> np.ndarray:
    temp = xr.open_zarr(stage.input, consolidated=False).temp.values
    return np.stack([temp[max(0, at - 2) : at + 1].mean(axis=0) for at in range(len(temp))]).astype("float32") - 1


def test_it_writes_whole_shards_of_all_variables_and_runs_once(work):
    assert set(ran(work)) == blocks(0, 1, 2, 3, 4)
    found = stores.open_dataset(work.out)
    np.testing.assert_allclose(found.smooth.values, expected(work), rtol=1e-6)
    np.testing.assert_array_equal(found.top.values, found.smooth.values.max(axis=(1, 2)))
    assert ran(work) == {}
    assert (LAST[-1].units, LAST[-1].reused, LAST[-1].rows) == (5, 5, 20)


@pytest.mark.parametrize(("step", "units"), [(0, (0,)), (7, (1, 2)), (5, (1,)), (19, (4,))])
def test_an_overwritten_chunk_runs_its_block_and_those_whose_halo_reaches_it(work, step, units):
    ran(work)
    stores.open_group(work.input, "r+")["temp"][step, 0, 0] = 9
    assert ran(work) == dict.fromkeys(blocks(*units), "input changed")
    np.testing.assert_allclose(stores.open_dataset(work.out).smooth.values, expected(work), rtol=1e-6)


def test_an_input_that_every_block_reads_whole_runs_all(work):
    ran(work)
    stores.open_group(work.input, "r+")["mask"][0, 0] = 0
    assert len(ran(work)) == 5
    stores.open_group(work.climate, "r+")["normal"][0, 0] = 0
    assert len(ran(work)) == 5


def test_appended_time_steps_run_the_ragged_last_block_and_new_ones(work, tmp_path):
    ran(work)
    cube(tmp_path / "more.zarr", 27)
    more = xr.open_zarr(tmp_path / "more.zarr", consolidated=False).isel(time=slice(20, 22))
    for _ in range(2):
        more[["temp"]].to_zarr(work.input, append_dim="time", consolidated=False, safe_chunks=False)
        again = ran(work)
        assert set(again) == blocks(5)
    assert again == {"block/00000005.00000000.00000000": "input changed"}
    np.testing.assert_allclose(stores.open_dataset(work.out).smooth.values, expected(work), rtol=1e-6)


def test_an_all_fill_chunk_is_done_although_nothing_is_stored(work):
    group = stores.open_group(work.input, "r+")
    group["temp"][...] = 1
    ran(work)
    assert not list(Path(work.out, "smooth", "c").rglob("*"))
    assert ran(work) == {}


def test_a_chunk_altered_under_an_older_clock_is_noticed(work):
    ran(work)
    path = sorted(path for path in Path(work.input, "temp", "c", "3").rglob("*") if path.is_file())[0]
    content = path.read_bytes()
    stores.open_group(work.input, "r+")["temp"][6, 0, 0] = 9
    assert path.read_bytes() != content
    os.utime(path, ns=(10**9, 10**9))
    assert set(ran(work)) == blocks(1, 2)
    out = sorted(path for path in Path(work.out, "smooth", "c", "2").rglob("*") if path.is_file())[0]
    whole = out.read_bytes()
    out.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    os.utime(out, ns=(10**9, 10**9))
    assert ran(work) == dict.fromkeys(blocks(2), "output altered")
    assert out.read_bytes() == whole


def test_missing_torn_and_altered_outputs_have_their_own_reasons(work):
    ran(work)
    first, second, third = (next(Path(work.out, "smooth", "c", number).rglob("0")) for number in "012")
    first, second, third = (
        next(path for path in folder.rglob("*") if path.is_file()) for folder in (first, second, third)
    )
    first.unlink()
    second.write_bytes(second.read_bytes()[:-4])
    third.write_bytes(third.read_bytes() + b"x")
    again = ran(work)
    assert [again[unit] for unit in sorted(blocks(0, 1, 2))] == [
        "output missing", "output torn", "output altered",
    ]  # fmt: skip


def test_units_of_a_half_written_segment_run_again_and_the_run_says_so(work):
    ran(work)
    (name,) = [name for name in files.names(work.ledger) if name.endswith(".seg")]
    ledger = Ledger(work.ledger)
    ledger.append([ledger.records()[unit] for unit in blocks(3)])
    segment = Path(work.ledger, name)
    segment.write_bytes(segment.read_bytes()[:-30])
    told: list[events.Event] = []
    ran(work, told)
    (warned,) = [event.message for event in told if isinstance(event, events.Warned)]
    assert warned == f"{segment} is torn: the units that only it named run again"
    assert (LAST[-1].units, LAST[-1].reused) == (5, 1)
    assert Ledger(work.ledger).torn == ()
    assert ran(work) == {}


def test_a_unit_too_large_for_a_worker_is_refused_before_anything_is_written(work):
    large = Smooth(work.name, work.ledger, work.input, work.climate, fixed=2**60)
    with pytest.raises(PlanError, match=r"s: one unit of \(time 4, lat 3, lon 4\) needs about .* and a worker has"):
        run_stage(large)
    assert not Path(large.out).exists()
    assert not Path(large.ledger).exists()
