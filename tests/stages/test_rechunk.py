from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from daskml_scale import api
from daskml_scale.errors import PlanError, SpecError, UnitsFailedError, UsageError
from daskml_scale.stages.accounting import LAST
from daskml_scale.stages.rechunk import RechunkStage, rechunk
from daskml_scale.stages.run import run_stage
from daskml_scale.storage import stores
from daskml_scale.storage.ledger import Ledger

KIB = 1024
SERIES = {"time": -1, "lat": 4, "lon": 4}


def maps(path: Path, times: int = 40, chunk: int = 1) -> xr.Dataset:
    """Write a cube of maps: one chunk per hour, 16 x 20 places, and a mask of the places."""
    rng = np.random.default_rng(0)
    ds = xr.Dataset(
        {
            "temp": (("time", "lat", "lon"), rng.normal(size=(times, 16, 20)).astype("float32"), {"units": "K"}),
            "mask": (("lat", "lon"), rng.integers(0, 2, (16, 20)).astype("int8")),
        },
        coords={"time": np.arange(times), "lat": np.linspace(0, 1, 16)},
        attrs={"title": "a cube"},
    )
    ds.to_zarr(path, encoding={"temp": {"chunks": (chunk, 16, 20)}}, consolidated=False, mode="w")
    return ds


def stage(folder: Path, memory: int = 20 * KIB, **options) -> RechunkStage:
    options = {"chunks": SERIES, **options}
    return RechunkStage("x", str(folder / "x.ledger"), input=str(folder / "maps.zarr"), memory=memory, **options)


def ran(again: RechunkStage) -> list[str]:
    """Run a stage and return the units that it executed, in order."""
    counted = Counting(again)
    run_stage(counted)
    return counted.calls


@dataclass
class Counting:
    """A stage that notes its kernel calls, and fails at some of them."""

    stage: RechunkStage
    fails: str = "-"

    def __post_init__(self) -> None:
        self.calls: list[str] = []

    def __getattr__(self, name):
        return getattr(self.stage, name)

    def kernel(self, unit, worker):
        if unit.key.startswith(self.fails):
            raise RuntimeError("told to")
        self.calls.append(unit.key)
        return self.stage.kernel(unit, worker)


@pytest.mark.parametrize("place", ["in process", "on a cluster"])
@pytest.mark.parametrize("shards", [{}, {"lat": 8, "lon": 8}])
def test_maps_become_series_and_the_intermediate_is_gone(tmp_path, place, shards, request):
    ds = maps(tmp_path / "maps.zarr")
    work = stage(tmp_path, shards=shards, memory=40 * KIB)
    run_stage(work, client=request.getfixturevalue("client") if place == "on a cluster" else None)
    found = xr.open_zarr(work.out, consolidated=False)
    xr.testing.assert_identical(found.drop_attrs(), ds.drop_attrs())
    assert found.temp.attrs == {"units": "K"}
    assert found.attrs["title"] == "a cube"
    assert found.temp.encoding["chunks"] == (40, 4, 4)
    assert found.temp.encoding["shards"] == ((40, 8, 8) if shards else None)
    assert not Path(work.scratch).exists()
    assert {unit.split("/")[0] for unit in Ledger(work.ledger).records()} == {"join"}


def test_a_second_run_executes_nothing(tmp_path):
    maps(tmp_path / "maps.zarr")
    first = ran(stage(tmp_path))
    assert {key.rpartition("/")[0] for key in first} == {
        "split/temp",
        "join/temp",
        "join/mask",
        "join/time",
        "join/lat",
    }
    assert len(first) == len(set(first))
    assert ran(stage(tmp_path)) == []
    assert (LAST[-1].units, LAST[-1].reused) == (LAST[-1].units, LAST[-1].units)


def test_one_changed_map_writes_only_the_series_again_that_hold_it(tmp_path):
    maps(tmp_path / "maps.zarr", chunk=10)
    work = stage(tmp_path, chunks={"time": 20, "lat": 4, "lon": 4}, memory=48 * KIB)
    whole = ran(work)
    group = stores.open_group(work.input, "r+")
    group["temp"][25, 3, 3] = 7
    again = ran(work)
    assert LAST[-1].reused == sum(key.startswith("join/") for key in whole) - sum(
        key.startswith("join/") for key in again
    )
    written = [key.rpartition("/")[2].split(".") for key in again if key.startswith("join/temp")]
    assert written
    assert {int(time) for time, *_ in written} == {1}
    assert len(written) == sum(key.startswith("join/temp/00000001") for key in whole)
    assert not [key for key in again if key.startswith("join/") and not key.startswith("join/temp")]
    assert {record.why for record in Ledger(work.ledger).records().values()} == {"new", "input changed"}
    assert xr.open_zarr(work.out, consolidated=False).temp.values[25, 3, 3] == 7


def test_appended_time_steps_write_only_the_last_blocks(tmp_path):
    maps(tmp_path / "maps.zarr", times=40)
    work = stage(tmp_path, chunks={"time": 20, "lat": 16, "lon": 20}, memory=200 * KIB)
    whole = ran(work)
    longer = maps(tmp_path / "longer.zarr", times=60)
    more = longer.isel(time=slice(40, 60)).drop_vars(["mask", "lat"])
    more.to_zarr(tmp_path / "maps.zarr", append_dim="time", consolidated=False)
    again = ran(work)
    assert [key for key in again if key.startswith("join/temp")] == ["join/temp/00000002.00000000.00000000"]
    assert len(again) < len(whole)
    np.testing.assert_array_equal(xr.open_zarr(work.out, consolidated=False).temp.values[40:], more.temp.values)


@pytest.mark.parametrize("fails", ["split/temp/00000003", "join/temp/00000000.00000001"])
def test_a_run_that_broke_off_goes_on_where_it_was(tmp_path, fails):
    ds = maps(tmp_path / "maps.zarr")
    broken = Counting(stage(tmp_path), fails)
    with pytest.raises(UnitsFailedError, match="told to"):
        run_stage(broken)
    again = ran(stage(tmp_path))
    assert not set(again).intersection(broken.calls)
    assert any(key.startswith(fails) for key in again)
    np.testing.assert_array_equal(xr.open_zarr(stage(tmp_path).out, consolidated=False).temp.values, ds.temp.values)
    assert not Path(stage(tmp_path).scratch).exists()


def test_a_torn_intermediate_is_made_again_and_nothing_else(tmp_path):
    ds = maps(tmp_path / "maps.zarr")
    work = stage(tmp_path)
    broken = Counting(work, "join/temp")
    with pytest.raises(UnitsFailedError):
        run_stage(broken)
    torn = sorted((Path(work.scratch) / "temp" / "c" / "0").rglob("*"))[-1]
    torn.write_bytes(torn.read_bytes()[:-3])
    again = ran(work)
    assert [key for key in again if key.startswith("split/")] == ["split/temp/00000000.00000000.00000000"]
    np.testing.assert_array_equal(xr.open_zarr(work.out, consolidated=False).temp.values, ds.temp.values)


@given(st.data())
@settings(max_examples=25, deadline=None)
def test_any_chunks_become_any_others_within_the_memory(tmp_path_factory, data):
    axes = data.draw(st.integers(1, 3))
    shape = tuple(data.draw(st.integers(1, 12)) for _ in range(axes))
    dims = ("a", "b", "c")[:axes]
    read, write = (tuple(data.draw(st.integers(1, size)) for size in shape) for _ in range(2))
    values = np.arange(np.prod(shape), dtype="int32").reshape(shape)
    folder = tmp_path_factory.mktemp("any")
    source = xr.Dataset({"v": (dims, values)})
    source.to_zarr(folder / "maps.zarr", encoding={"v": {"chunks": read}}, consolidated=False)
    work = stage(folder, memory=data.draw(st.integers(50, 20_000)), chunks=dict(zip(dims, write, strict=True)))
    try:
        run_stage(work)
    except PlanError:
        return
    found = xr.open_zarr(work.out, consolidated=False)
    np.testing.assert_array_equal(found.v.values, values)
    assert found.v.encoding["chunks"] == write


def test_python_rechunks_a_url_or_an_opened_dataset(tmp_path):
    ds = maps(tmp_path / "maps.zarr")
    one = rechunk(tmp_path / "maps.zarr", tmp_path / "one.zarr", chunks={"time": 8}, memory="1 MiB")
    np.testing.assert_array_equal(one.temp.values, ds.temp.values)
    assert one.temp.chunks[0] == (8,) * 5
    two = rechunk(one[["temp"]], tmp_path / "two.zarr", chunks={"time": -1}, shards={"time": -1})
    assert list(two.data_vars) == ["temp"]
    assert two.temp.chunks[0] == (40,)
    with pytest.raises(UsageError, match="no dataset as it lies in a store"):
        rechunk(one + 1, tmp_path / "three.zarr", chunks={"time": 1})
    with pytest.raises(UsageError, match="would write over data"):
        rechunk(one, tmp_path / "one.zarr", chunks={"time": 1})


def test_what_cannot_be_is_refused_before_anything_is_written(tmp_path):
    maps(tmp_path / "maps.zarr")
    for options, message in (
        ({"chunks": {"height": 3}}, "has no dimension 'height'; it has lat, lon, time"),
        ({"shards": {"lat": 6}}, "a shard of 6 along lat is no multiple of its chunk of 4; use 4"),
        ({"memory": 1000}, r"temp: one unit needs \d+ KiB to turn chunks of \(time 1, lat 16, lon 20\) into"),
    ):
        with pytest.raises(PlanError, match=message):
            run_stage(stage(tmp_path, **options))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["maps.zarr"]


WORKFLOW = """
version: 1
name: chunks
store: {store}
cluster: none
stages:
  series: {{kind: rechunk, source: {source}, chunks: {{time: -1, lat: 4, lon: 4}}, memory: 24KiB}}
  maps: {{kind: rechunk, input: series, chunks: {{time: 1, lat: -1, lon: -1}}, memory: 24KiB}}
"""


def test_a_workflow_rechunks_and_resumes(tmp_path):
    ds = maps(tmp_path / "maps.zarr")
    file = tmp_path / "chunks.yaml"
    file.write_text(WORKFLOW.format(store=tmp_path / "store", source=tmp_path / "maps.zarr"))
    rows = {row.name: row for row in api.dry_run(file)}
    assert rows["series"].reasons == {"new": rows["series"].units - rows["series"].later}
    first = api.run(file)
    again = api.run(file)
    assert all(row.units == row.reused for row in again.stages)
    assert all(row.units and not row.reused for row in first.stages)
    found = xr.open_zarr(tmp_path / "store" / "maps.zarr", consolidated=False)
    np.testing.assert_array_equal(found.temp.values, ds.temp.values)
    assert found.temp.encoding["chunks"] == (1, 16, 20)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{kind: rechunk, chunks: {time: 1}}", "give input: .* or source:"),
        ("{kind: rechunk, source: a, input: b, chunks: {time: 1}}", "give input: .* or source:"),
        ("{kind: rechunk, source: a, chunks: {time: 0}}", "0 is no length of a chunk; use 1 or more, or -1"),
        ("{kind: rechunk, source: a, chunks: {}}", "at least 1"),
    ],
)
def test_a_wrong_specification_is_refused(tmp_path, line, message):
    file = tmp_path / "w.yaml"
    file.write_text(f"version: 1\nname: w\nstore: s\nstages:\n  x: {line}\n")
    with pytest.raises(SpecError, match=message):
        api.check(file)


def test_memory_stays_bounded(tmp_path):
    """96 MiB of maps become series in tasks of 12 MiB; the process grows by a small part of the data."""
    program = """
import json, resource, sys
import numpy as np
from daskml_scale.stages.rechunk import rechunk
from daskml_scale.storage import stores
from daskml_scale.plan.units import Template, Variable
folder = sys.argv[1]
shape = (48, 512, 1024)
cube = Variable("float32", ("time", "lat", "lon"), shape, (1, 512, 1024))
stores.create(f"{folder}/in.zarr", Template("time", 48, {"t": cube}))
rng = np.random.default_rng(0)
for hour in range(48):
    stores.write_region(f"{folder}/in.zarr", hour, {"t": rng.random((1, 512, 1024), "float32")})
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
rechunk(f"{folder}/in.zarr", f"{folder}/warm.zarr", chunks={"time": 1}, memory="12MiB")
before = peak()
rechunk(f"{folder}/in.zarr", f"{folder}/out.zarr", chunks={"time": -1, "lat": 64, "lon": 64}, memory="12MiB")
print(json.dumps({"grown": peak() - before, "same": bool((stores.read_region(f"{folder}/out.zarr", "t", [(7, 8)])
    == stores.read_region(f"{folder}/in.zarr", "t", [(7, 8)])).all())}))
"""
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["same"]
    assert found["grown"] < 32 * 2**20


def test_workers_with_less_than_the_memory_asked_for_are_refused(tmp_path, monkeypatch):
    maps(tmp_path / "maps.zarr")
    monkeypatch.setattr("daskml_scale.stages.run.memory_limit", lambda client: 8 * KIB)
    with pytest.raises(
        PlanError, match=r"x: one unit takes up to \d+ KiB and a worker has 8 KiB; set `memory` to less"
    ):
        run_stage(stage(tmp_path))
