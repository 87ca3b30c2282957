"""Rows in order: as one part, in many, in one process and on a cluster; always the same bytes."""

from __future__ import annotations

import gc
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import daskml_scale as dms
from daskml_scale.errors import PlanError, UnitsFailedError
from daskml_scale.stages import sort_work
from daskml_scale.storage import files
from daskml_scale.storage.ledger import Ledger

ROWS = 3_000


def rows(count: int = ROWS) -> pd.DataFrame:
    chance = np.random.default_rng(3)
    x = chance.normal(size=count).round(1)
    x[::50] = np.nan
    at = pd.Series(pd.Timestamp("2024-01-01") + pd.to_timedelta(chance.integers(0, 500, count), unit="h"))
    at[::70] = pd.NaT
    who = pd.Series(chance.choice(["b", "a", "ä", "c"], count), dtype=object)
    who[::90] = None
    return pd.DataFrame({"id": np.arange(count), "x": x, "at": at, "who": who})


@pytest.fixture
def parquet(tmp_path: Path) -> str:
    folder = tmp_path / "in"
    folder.mkdir()
    table = rows()
    for number in range(4):
        part = table.iloc[number * ROWS // 4 : (number + 1) * ROWS // 4]
        part.to_parquet(folder / f"{number}.parquet", row_group_size=200)
    return f"{folder}/*.parquet"


@pytest.fixture
def small_partitions(monkeypatch):
    """Some twenty parts."""
    monkeypatch.setattr("daskml_scale.stages.ingest_sort.PARTITION", 5_000)


def stored(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def identities(folder: Path) -> set[tuple[str, str, str, str]]:
    """Return what of a ledger must be equal."""
    return {record.identity() for record in Ledger(str(folder)).records().values()}


def expected(by: list[str]) -> np.ndarray:
    table = rows()
    table["who"] = table.who.map({"a": 0, "b": 1, "c": 2, "ä": 3}).fillna(-1)  # missing texts come first
    return table.sort_values(by, kind="stable").id.to_numpy()


@pytest.mark.parametrize("by", [["x"], ["at", "who"], ["who", "x", "at"]])
def test_a_table_of_many_parts_is_sorted_as_pandas_would_and_stable(parquet, tmp_path, small_partitions, by):
    ds = dms.ingest(parquet, tmp_path / "t.zarr", chunk=700, sort_by=by)
    np.testing.assert_array_equal(ds.id.values, expected(by))
    np.testing.assert_array_equal(ds.x.values, rows().x.to_numpy()[ds.id.values])
    assert not (tmp_path / "t.sorted").exists()
    dms.ingest(parquet, tmp_path / "t.zarr", chunk=700, sort_by=by)
    assert dms.last_run().reused == dms.last_run().units


def test_equal_keys_are_spread_over_partitions(tmp_path, small_partitions):
    """A column of one value is no partition of all rows: their places in the files part them."""
    folder = tmp_path / "in"
    folder.mkdir()
    rows().assign(same=1).to_parquet(folder / "0.parquet", row_group_size=100)
    ds = dms.ingest(f"{folder}/*.parquet", tmp_path / "t.zarr", chunk=700, sort_by="same")
    assert ds.id.values.tolist() == list(range(ROWS))


def test_the_bytes_depend_neither_on_workers_nor_on_the_number_of_parts(
    parquet, tmp_path, small_partitions, monkeypatch, own_client
):
    dms.ingest(parquet, tmp_path / "one.zarr", chunk=700, sort_by=["at", "x"])
    dms.ingest(parquet, tmp_path / "two.zarr", chunk=700, sort_by=["at", "x"], client=own_client)
    assert stored(tmp_path / "one.zarr") == stored(tmp_path / "two.zarr")
    assert identities(tmp_path / "one.ledger") == identities(tmp_path / "two.ledger")
    monkeypatch.undo()
    dms.ingest(parquet, tmp_path / "three.zarr", chunk=700, sort_by=["at", "x"])
    assert stored(tmp_path / "one.zarr") == stored(tmp_path / "three.zarr")


def test_a_sort_that_was_cleared_away_is_made_again_where_a_chunk_is_lost(parquet, tmp_path, small_partitions):
    dms.ingest(parquet, tmp_path / "t.zarr", chunk=700, sort_by="x")
    objects = stored(tmp_path / "t.zarr")
    (tmp_path / "t.zarr" / "x" / "c" / "1").unlink()
    dms.ingest(parquet, tmp_path / "t.zarr", chunk=700, sort_by="x")
    assert stored(tmp_path / "t.zarr") == objects
    whys = {unit: record.why for unit, record in Ledger(str(tmp_path / "t.ledger")).records().items()}
    assert whys["rows/00000001"] == "output missing"
    assert whys["rows/00000000"] == "new"


def test_sorted_in_memory_and_in_a_bucket(parquet, tmp_path, small_partitions):
    ds = dms.ingest(parquet, "memory://sorted/t.zarr", chunk=700, sort_by="at")
    np.testing.assert_array_equal(ds.id.values, expected(["at"]))
    assert files.names("memory://sorted/t.sorted") == []
    files.remove("memory://sorted")


def test_an_interrupted_sort_goes_on_with_what_is_missing(parquet, tmp_path, small_partitions, monkeypatch):
    real, sorted_parts, split_runs = sort_work.order, [], []

    def order(work, number):
        sorted_parts.append(number)
        if number == 3 and len(split_runs) == 0:
            raise OSError("the machine went away")
        return real(work, number)

    monkeypatch.setattr(sort_work, "order", order)
    with pytest.raises(UnitsFailedError, match="the machine went away"):
        dms.ingest(parquet, tmp_path / "t.zarr", chunk=700, sort_by="x")
    assert len(sorted_parts) > 10
    sorted_parts.clear()
    (tmp_path / "t.sorted" / "split.000002").unlink()
    split = sort_work.split
    monkeypatch.setattr(sort_work, "split", lambda work, *run: (split_runs.append(run), split(work, *run))[1])
    ds = dms.ingest(parquet, tmp_path / "t.zarr", chunk=700, sort_by="x")
    np.testing.assert_array_equal(ds.id.values, expected(["x"]))
    assert [start for start, _ in split_runs] == [2]
    assert sorted_parts == [3]


def test_appended_rows_are_sorted_in_many_parts_too(tmp_path, small_partitions):
    folder = tmp_path / "in"
    folder.mkdir()
    for number in range(2):
        part = rows().assign(day=number)
        part.to_parquet(folder / f"{number}.parquet", row_group_size=200)
        by = ["day", "x"]
        ds = dms.ingest(f"{folder}/*.parquet", tmp_path / "t.zarr", chunk=700, sort_by=by, append=True)
    assert ds.id.values.tolist() == [*expected(["x"]), *expected(["x"])]
    rows().assign(day=0).to_parquet(folder / "2.parquet", row_group_size=200)
    with pytest.raises(PlanError, match="comes before the last row of the table"):
        dms.ingest(f"{folder}/*.parquet", tmp_path / "t.zarr", chunk=700, sort_by=by, append=True)


@pytest.mark.slow
def test_a_table_larger_than_the_memory_of_a_worker_is_sorted(tmp_path):
    """Two workers of 400 MiB sort a table of more. None is lost, or comes near to its limit."""
    from distributed import Client, LocalCluster

    folder, count, limit = tmp_path / "in", 1_500_000, 400 << 20
    folder.mkdir()
    chance = np.random.default_rng(5)
    for number in range(4):
        columns = {f"v{k}": chance.normal(size=count) for k in range(8)}
        part = pd.DataFrame({"key": chance.integers(0, 10**12, count), **columns})
        part.to_parquet(folder / f"{number}.parquet", row_group_size=125_000, compression="none")
        del part, columns
        gc.collect()
    assert sum(path.stat().st_size for path in folder.iterdir()) > limit
    with (
        LocalCluster(
            n_workers=2, threads_per_worker=1, host="127.0.0.1", dashboard_address="127.0.0.1:0", memory_limit=limit
        ) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        before = client.run(os.getpid)
        ds = dms.ingest(f"{folder}/*.parquet", tmp_path / "t.zarr", chunk=100_000, sort_by="key", client=client)
        assert client.run(os.getpid) == before
        assert max(client.run(_peak).values()) < limit
    keys = ds.key.values
    assert len(keys) == count * 4
    assert (np.diff(keys) >= 0).all()


def _peak() -> int:
    """Return the most bytes that this process ever had in memory."""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024
