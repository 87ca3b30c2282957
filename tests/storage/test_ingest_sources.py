"""Sources by URL: files in a bucket are listed, looked at and read by range; what is read there is what lies there."""

from __future__ import annotations

import io
import uuid

import numpy as np
import pandas as pd
import pytest
from storage_helpers import Server, icechunk_or_skip

import daskml_scale as dms
from daskml_scale.errors import DaskMLError, PlanError, UnitsFailedError
from daskml_scale.storage import files
from daskml_scale.storage.ledger import Ledger

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@pytest.fixture
def bucket(s3: Server) -> str:
    return s3.make_bucket(f"in-{uuid.uuid4().hex[:8]}")


def frame(start: int, rows: int = 6) -> pd.DataFrame:
    return pd.DataFrame({"n": np.arange(start, start + rows), "who": [f"w{k % 2}" for k in range(rows)]})


def put(url: str, rows: pd.DataFrame) -> None:
    target = io.BytesIO()
    if url.endswith(".parquet"):
        rows.to_parquet(target, row_group_size=2)
    else:
        rows.to_csv(target, index=False, compression="gzip" if url.endswith(".gz") else None)
    files.write_bytes(url, target.getvalue())


@pytest.mark.parametrize("end", ["parquet", "csv", "csv.gz"])
def test_files_in_a_bucket_become_a_table(bucket, tmp_path, end):
    for number in range(3):
        put(f"{bucket}/2024/{number}.{end}", frame(6 * number))
    put(f"{bucket}/2024/deep/9.{end}", frame(100))
    put(f"{bucket}/2025/0.{end}", frame(200))
    ds = dms.ingest(f"{bucket}/2024/*.{end}", tmp_path / "t.zarr", chunk=5, sort_by="who")
    assert ds.n.values.tolist() == [*range(0, 18, 2), *range(1, 18, 2)]
    assert dms.ingest(f"{bucket}/**/*.{end}", tmp_path / "u.zarr").sizes["row"] == 30
    dms.ingest(f"{bucket}/2024/*.{end}", tmp_path / "t.zarr", chunk=5, sort_by="who")
    assert dms.last_run().reused == dms.last_run().units
    before = {unit: record.seconds for unit, record in Ledger(str(tmp_path / "t.ledger")).records().items()}
    put(f"{bucket}/2024/1.{end}", frame(60))
    assert 60 in dms.ingest(f"{bucket}/2024/*.{end}", tmp_path / "t.zarr", chunk=5, sort_by="who").n.values
    after = {unit: record.seconds for unit, record in Ledger(str(tmp_path / "t.ledger")).records().items()}
    scans = {unit for unit in after if unit.startswith("scan/") and after[unit] != before.get(unit)}
    assert {unit.split("/")[1] for unit in scans} == {f"1.{end}"}


def test_from_a_bucket_into_a_bucket(bucket):
    for number in range(2):
        put(f"{bucket}/in/{number}.parquet", frame(6 * number))
    ds = dms.ingest(f"{bucket}/in/*.parquet", f"{bucket}/out/t.zarr", chunk=5, sort_by="who", partition_by="who")
    assert ds.n.values.tolist() == [*range(0, 12, 2), *range(1, 12, 2)]
    assert files.names(f"{bucket}/out/t.sorted") == []
    assert files.read_json(f"{bucket}/out/t.partitions.json")["partitions"] == [["w0", 0, 6], ["w1", 6, 12]]


def test_only_the_columns_and_row_groups_that_are_needed_are_fetched(bucket, tmp_path, s3):
    wide = pd.DataFrame(
        {"n": np.arange(60_000), **{f"x{k}": np.random.default_rng(k).random(60_000) for k in range(9)}}
    )
    put_bytes = io.BytesIO()
    wide.to_parquet(put_bytes, row_group_size=20_000)
    files.write_bytes(f"{bucket}/w.parquet", put_bytes.getvalue())
    ds = dms.ingest(f"{bucket}/w.parquet", tmp_path / "t.zarr", columns=["n"])
    assert ds.n.values.tolist() == list(range(60_000))


def test_a_missing_bucket_and_a_pattern_without_files_are_named(bucket, tmp_path):
    with pytest.raises(DaskMLError, match="no such bucket"):
        dms.ingest("s3://no-such-bucket-here/*.parquet", tmp_path / "t.zarr")
    with pytest.raises(PlanError, match="no file matches"):
        dms.ingest(f"{bucket}/*.parquet", tmp_path / "t.zarr")


def test_files_in_memory_become_a_table():
    put("memory://in/a/0.csv", frame(0))
    put("memory://in/a/1.csv", frame(6))
    assert dms.ingest("memory://in/a/*.csv", "memory://in/t.zarr").n.values.tolist() == list(range(12))
    files.remove("memory://in")


@pytest.mark.parametrize("parts", ["one part", "many parts"])
def test_into_an_icechunk_repository(tmp_path, parts, monkeypatch):
    icechunk_or_skip()
    if parts == "many parts":
        monkeypatch.setattr("daskml_scale.stages.ingest_sort.PARTITION", 40)
    for number in range(3):
        put(str(tmp_path / "in" / f"{number}.parquet"), frame(6 * number))
    out = f"icechunk+file://{tmp_path}/repo/t.zarr"
    ds = dms.ingest(f"{tmp_path}/in/*.parquet", out, chunk=5, sort_by="who", append=True)
    assert ds.n.values.tolist() == [*range(0, 18, 2), *range(1, 18, 2)]
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["in", "repo"]
    dms.ingest(f"{tmp_path}/in/*.parquet", out, chunk=5, sort_by="who", append=True)
    assert dms.last_run().reused == dms.last_run().units


def test_a_sort_into_an_icechunk_repository_goes_on_where_it_was_interrupted(tmp_path, monkeypatch):
    icechunk_or_skip()
    from daskml_scale.stages import sort_work

    monkeypatch.setattr("daskml_scale.stages.ingest_sort.PARTITION", 40)
    for number in range(3):
        put(str(tmp_path / "in" / f"{number}.parquet"), frame(6 * number))
    real, done = sort_work.order, []

    def order(work, number):
        if number == 2 and 2 not in done:
            done.append(number)
            raise OSError("the machine went away")
        done.append(number)
        return real(work, number)

    monkeypatch.setattr(sort_work, "order", order)
    out = f"icechunk+file://{tmp_path}/repo/t.zarr"
    with pytest.raises(UnitsFailedError, match="the machine went away"):
        dms.ingest(f"{tmp_path}/in/*.parquet", out, chunk=5, sort_by="who")
    assert len(done) > 5
    done[:] = [2]
    (gone,) = (tmp_path / "repo.t.sorted").glob("000001.*")
    gone.unlink()
    ds = dms.ingest(f"{tmp_path}/in/*.parquet", out, chunk=5, sort_by="who")
    assert ds.n.values.tolist() == [*range(0, 18, 2), *range(1, 18, 2)]
    assert sorted(done) == [1, 2, 2]
