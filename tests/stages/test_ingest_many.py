"""Many files: what each holds is compared, joined in one order, and read again only where it is new."""

from __future__ import annotations

import functools
import gzip
import json
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import daskml_scale as dms
from daskml_scale.errors import DaskMLError, PlanError, SpecError, UsageError
from daskml_scale.storage.ledger import Ledger


def stored(folder: Path) -> dict[str, bytes]:
    """Return every file of a dataset."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def identities(folder: Path) -> set[tuple[str, str, str, str]]:
    return {record.identity() for record in Ledger(str(folder)).records().values()}


def ran(folder: Path, before: dict[str, float] | None = None) -> set[str]:
    """Return the units whose record is not the one of before."""
    records = Ledger(str(folder)).records()
    return {unit for unit, record in records.items() if (before or {}).get(unit) != record.seconds}


def seconds(folder: Path) -> dict[str, float]:
    return {unit: record.seconds for unit, record in Ledger(str(folder)).records().items()}


def text(ds, name: str) -> list[str | None]:
    labels = [*ds[name].attrs["categories"], None]
    return [labels[code] for code in ds[name].values]


def frame(start: int, rows: int = 5, **columns) -> pd.DataFrame:
    at = pd.Timestamp("2024-01-01") + pd.to_timedelta(np.arange(start, start + rows), unit="h")
    found = {"n": np.arange(start, start + rows), "who": [f"w{k % 3}" for k in range(start, start + rows)], "at": at}
    return pd.DataFrame({**found, "x": np.arange(start, start + rows) / 4, **columns})


@pytest.fixture
def parquet(tmp_path: Path) -> Path:
    folder = tmp_path / "in"
    folder.mkdir()
    for number in range(3):
        frame(5 * number).to_parquet(folder / f"{number}.parquet", row_group_size=2)
    return folder


def test_row_groups_of_many_files_become_one_table(parquet, tmp_path):
    ds = dms.ingest(f"{parquet}/*.parquet", tmp_path / "t.zarr", chunk=4, derive={"later": "at + hours(n)"})
    assert ds.n.values.tolist() == list(range(15))
    assert text(ds, "who") == [f"w{k % 3}" for k in range(15)]
    assert ds.at.values[3] == np.datetime64("2024-01-01T03")
    assert ds.later.values[3] == np.datetime64("2024-01-01T06")
    assert list(ds.data_vars) == ["n", "who", "at", "x", "later"]
    units = set(seconds(tmp_path / "t.ledger"))
    assert len(units) == 9 + 4
    assert "scan/1.parquet/000002" in units
    dms.ingest(f"{parquet}/*.parquet", tmp_path / "t.zarr", chunk=4, derive={"later": "at + hours(n)"})
    assert dms.last_run().reused == dms.last_run().units == 13


def test_the_same_rows_as_csv_and_as_parquet_are_the_same_table(parquet, tmp_path):
    for path in parquet.glob("*.parquet"):
        pd.read_parquet(path).to_csv(parquet / f"{path.stem}.csv", index=False)
    one = dms.ingest(f"{parquet}/*.parquet", tmp_path / "a.zarr", chunk=4)
    other = dms.ingest(f"{parquet}/*.csv", tmp_path / "b.zarr", chunk=4)
    assert one.drop_attrs().identical(other.drop_attrs())
    assert one.who.attrs == other.who.attrs


def test_only_a_changed_file_is_read_again(parquet, tmp_path):
    out, ledger = tmp_path / "t.zarr", tmp_path / "t.ledger"
    dms.ingest(f"{parquet}/*.parquet", out, chunk=5)
    before = seconds(ledger)
    frame(5).assign(x=7.0).to_parquet(parquet / "1.parquet", row_group_size=2)
    ds = dms.ingest(f"{parquet}/*.parquet", out, chunk=5)
    assert ds.x.values.tolist() == [*(k / 4 for k in range(5)), *[7.0] * 5, *(k / 4 for k in range(10, 15))]
    # A chunk is written again where a row group of that file is in it.
    assert ran(ledger, before) == {*(f"scan/1.parquet/{number:06d}" for number in range(3)), "rows/00000001"}


def test_a_new_file_in_the_middle_moves_the_rows_behind_it(parquet, tmp_path):
    dms.ingest(f"{parquet}/*.parquet", tmp_path / "t.zarr", chunk=5)
    before = seconds(tmp_path / "t.ledger")
    frame(100).to_parquet(parquet / "0b.parquet")
    ds = dms.ingest(f"{parquet}/*.parquet", tmp_path / "t.zarr", chunk=5)
    assert ds.n.values.tolist() == [*range(5), *range(100, 105), *range(5, 15)]
    again = ran(tmp_path / "t.ledger", before)
    assert {unit for unit in again if unit.startswith("scan")} == {"scan/0b.parquet/000000"}
    assert {unit for unit in again if unit.startswith("rows")} == {f"rows/0000000{number}" for number in (1, 2, 3)}


# ---- append


def appended(folder: Path, out: Path, **options):
    return dms.ingest(f"{folder}/*", out, chunk=4, append=True, **options)


@pytest.mark.parametrize("kind", ["parquet", "csv"])
def test_append_reads_only_new_files(tmp_path, kind):
    """The old files are overwritten by garbage of the same size and time: nothing of them is read."""
    folder, out, ledger = tmp_path / "in", tmp_path / "t.zarr", tmp_path / "t.ledger"
    folder.mkdir()

    def write(path: Path, rows: pd.DataFrame) -> None:
        rows.to_parquet(path) if kind == "parquet" else rows.to_csv(path, index=False)

    write(folder / f"5.{kind}", frame(0))
    write(folder / f"6.{kind}", frame(5))
    appended(folder, out)
    before, objects = seconds(ledger), stored(out)
    for path in folder.iterdir():
        seen, data = path.stat(), bytearray(path.read_bytes())
        middle = slice(40, 60) if kind == "parquet" else slice(data.index(b"\n") + 1, len(data))
        data[middle] = b"#" * len(data[middle])
        path.write_bytes(data)
        os.utime(path, ns=(seen.st_atime_ns, seen.st_mtime_ns))
    write(folder / f"1.{kind}", frame(10, who=["new", "w0", "w1", "w2", None]))
    ds = appended(folder, out)
    assert ds.n.values.tolist() == list(range(15))
    assert text(ds, "who") == [*(f"w{k % 3}" for k in range(10)), "new", "w0", "w1", "w2", None]
    # What ran: the scan of the new file, the chunk that it fills, and the new one.
    assert ran(ledger, before) == {f"scan/1.{kind}/000000", "rows/00000002", "rows/00000003"}
    kept = {name: data for name, data in stored(out).items() if name.endswith(("c/0", "c/1"))}
    assert kept == {name: data for name, data in objects.items() if name.endswith(("c/0", "c/1"))}
    appended(folder, out)
    assert dms.last_run().reused == dms.last_run().units == 7


def test_append_refuses_an_old_file_that_changed_or_is_gone(parquet, tmp_path):
    appended(parquet, tmp_path / "t.zarr")
    objects = stored(tmp_path / "t.zarr")
    frame(0).assign(x=1.0).to_parquet(parquet / "0.parquet")
    with pytest.raises(PlanError, match=r"append: .*0\.parquet changed since it was read; restore it"):
        appended(parquet, tmp_path / "t.zarr")
    (parquet / "0.parquet").unlink()
    with pytest.raises(PlanError, match=r"append: 0\.parquet was read before and is gone; put it back, or remove"):
        appended(parquet, tmp_path / "t.zarr")
    assert stored(tmp_path / "t.zarr") == objects
    assert dms.ingest(f"{parquet}/*", tmp_path / "t.zarr", chunk=4).n.values.tolist() == list(range(5, 15))


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"n": [1, None, 3, 4, 5]}, "'n' is stored as int64, which knows no missing values, and some are missing in"),
        ({"n": [1.5] * 5}, "'n' is stored as whole numbers and holds numbers in"),
        (
            {"at": pd.date_range("2024-02-01", periods=5, freq="100ms")},
            "'at' is stored in whole seconds and holds frac",
        ),
    ],
)
def test_append_refuses_what_the_stored_types_cannot_hold(parquet, tmp_path, columns, message):
    appended(parquet, tmp_path / "t.zarr")
    frame(15, **columns).to_parquet(parquet / "new.parquet")
    with pytest.raises(PlanError, match=message) as caught:
        appended(parquet, tmp_path / "t.zarr")
    assert "new.parquet" in str(caught.value)
    assert "remove `append` to write the table anew" in str(caught.value)
    assert dms.open_dataset(str(tmp_path / "t.zarr")).n.values.tolist() == list(range(15))


def test_appended_rows_of_a_sorted_table_must_follow(parquet, tmp_path):
    appended(parquet, tmp_path / "t.zarr", sort_by="at")
    before = seconds(tmp_path / "t.ledger")
    frame(15)[::-1].to_parquet(parquet / "new.parquet")
    ds = appended(parquet, tmp_path / "t.zarr", sort_by="at")
    assert ds.n.values.tolist() == list(range(20))
    again = ran(tmp_path / "t.ledger", before)
    assert again == {"scan/new.parquet/000000", "rows/00000003", "rows/00000004"}
    frame(-3, 2).to_parquet(parquet / "newer.parquet")
    with pytest.raises(DaskMLError, match=r"the first new row \(at 2023-12-31T21:00:00\) comes before the last row of"):
        appended(parquet, tmp_path / "t.zarr", sort_by="at")
    assert dms.open_dataset(str(tmp_path / "t.zarr")).n.values.tolist() == list(range(20))


def test_append_with_other_parameters_is_refused(parquet, tmp_path):
    appended(parquet, tmp_path / "t.zarr")
    with pytest.raises(PlanError, match="append: the table was written with other `columns`"):
        appended(parquet, tmp_path / "t.zarr", columns=["n"])


def test_a_lost_chunk_of_an_appended_table_is_read_from_its_files(parquet, tmp_path):
    appended(parquet, tmp_path / "t.zarr")
    objects = stored(tmp_path / "t.zarr")
    (tmp_path / "t.zarr" / "n" / "c" / "1").unlink()
    appended(parquet, tmp_path / "t.zarr")
    assert stored(tmp_path / "t.zarr") == objects


# ---- files as they come


def test_files_of_other_columns_types_or_formats_are_refused_before_work(parquet, tmp_path):
    out = tmp_path / "t.zarr"
    bad = parquet / "9.parquet"
    for rows, message in (
        (frame(0).assign(n="1"), r"9\.parquet: column 'n' is (large_)?string, and int64 in .*0\.parquet; write"),
        (frame(0).assign(at=pd.date_range("2024", periods=5, tz="UTC")),
         r"9\.parquet: column 'at' is timestamp\[\w+, tz=UTC\], and timestamp\[\w+\] in .*; write both with a time"),
        (frame(0).assign(who=[[1]] * 5), r"9\.parquet: column 'who' is list<.*cannot be a column of a table"),
        (frame(0).drop(columns="x"), r"0\.parquet has a column 'x' and .*9\.parquet has none"),
    ):  # fmt: skip
        rows.to_parquet(bad)
        before = dms.last_run()
        with pytest.raises(PlanError, match=message):
            dms.ingest(f"{parquet}/*.parquet", out)
        assert dms.last_run() is before
        assert not out.exists()
    assert dms.ingest(f"{parquet}/*.parquet", out, columns=["n", "at"]).sizes == {"row": 20}
    bad.unlink()
    frame(0).to_csv(parquet / "9.csv", index=False)
    with pytest.raises(PlanError, match=r"0\.parquet is parquet and .*9\.csv is csv; read them in two stages"):
        dms.ingest(f"{parquet}/*", out)


def test_csv_columns_of_different_kinds_in_two_files_are_refused_before_anything_is_written(tmp_path):
    (tmp_path / "a.csv").write_text("x,y\n1,2\n")
    (tmp_path / "b.csv").write_text("y,x\n2,2024-01-01\n")
    with pytest.raises(PlanError, match=r"column 'x' holds whole numbers in .*a\.csv and times in .*b\.csv; mend one"):
        dms.ingest(f"{tmp_path}/*.csv", tmp_path / "t.zarr")
    assert not (tmp_path / "t.zarr").exists()


def test_whole_numbers_with_a_missing_one_in_one_file_become_float(tmp_path):
    (tmp_path / "a.csv").write_text("x,y\n1,a\n2,b\n")
    (tmp_path / "b.csv").write_text("y,x\nc,NA\n,4\n")
    ds = dms.ingest(f"{tmp_path}/*.csv", tmp_path / "t.zarr")
    np.testing.assert_array_equal(ds.x.values, [1, 2, np.nan, 4])
    assert text(ds, "y") == ["a", "b", "c", None]


def test_a_file_that_two_patterns_name_is_read_once_with_a_word(parquet, tmp_path):
    with pytest.warns(UserWarning, match=r"1\.parquet is named twice; it was read once"):
        ds = dms.ingest([f"{parquet}/[01].parquet", f"{parquet}/[12].parquet"], tmp_path / "t.zarr")
    assert ds.n.values.tolist() == list(range(15))


def test_files_of_one_name_in_two_folders_are_two_files(tmp_path):
    for number, folder in enumerate(("a", "b")):
        (tmp_path / folder).mkdir()
        frame(5 * number).to_parquet(tmp_path / folder / "x.parquet")
    ds = dms.ingest([tmp_path / "a" / "x.parquet", tmp_path / "b" / "x.parquet"], tmp_path / "t.zarr")
    assert ds.n.values.tolist() == list(range(10))
    ds = dms.ingest(f"{tmp_path}/**/x.parquet", tmp_path / "u.zarr")
    assert ds.n.values.tolist() == list(range(10))


def test_empty_files_are_refused_by_name_and_files_without_rows_add_none(parquet, tmp_path):
    frame(0, 0).astype({"who": "str"}).to_parquet(parquet / "00.parquet")
    assert dms.ingest(f"{parquet}/*.parquet", tmp_path / "t.zarr").sizes["row"] == 15
    (parquet / "zero.parquet").write_bytes(b"")
    with pytest.raises(PlanError, match=r"zero\.parquet is not a readable Parquet file"):
        dms.ingest(f"{parquet}/*.parquet", tmp_path / "t.zarr")
    (tmp_path / "a.csv").write_text("x,y\n")
    (tmp_path / "b.csv").write_text("x,y\n1,2\n")
    assert dms.ingest(f"{tmp_path}/*.csv", tmp_path / "u.zarr").x.values.tolist() == [1]
    (tmp_path / "c.csv").write_text("")
    with pytest.raises(PlanError, match=r"c\.csv is empty: .*or leave the file out"):
        dms.ingest(f"{tmp_path}/*.csv", tmp_path / "u.zarr")


def test_a_file_of_another_encoding_among_others_is_named(tmp_path):
    (tmp_path / "a.csv").write_text("who\nÅsa\n", encoding="utf-8")
    (tmp_path / "b.csv").write_text("who\nÅke\n", encoding="latin-1")
    with pytest.raises(DaskMLError, match=r"b\.csv.*save it as UTF-8"):
        dms.ingest(f"{tmp_path}/*.csv", tmp_path / "t.zarr")


def test_times_with_zones_are_instants(tmp_path):
    pd.DataFrame({"at": pd.date_range("2024-01-01", periods=2, tz="Europe/Berlin")}).to_parquet(tmp_path / "a.parquet")
    pd.DataFrame({"at": pd.date_range("2024-01-01", periods=2, tz="UTC")}).to_parquet(tmp_path / "b.parquet")
    ds = dms.ingest(f"{tmp_path}/*.parquet", tmp_path / "t.zarr")
    hours = ((ds.at.values - np.datetime64("2024-01-01")) / np.timedelta64(1, "h")).tolist()
    assert hours == [-1, 23, 0, 24]


def test_dictionaries_small_types_and_unsigned_numbers_are_read(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.table({
        "c": pa.array(["a", None, "b"]).dictionary_encode(), "i": pa.array([1, 2, 3], pa.int8()),
        "f": pa.array([1.5, None, 2], pa.float32()), "b": pa.array([True, None, False]),
        "d": pa.array([0, 1, None], pa.date32()), "z": pa.nulls(3),
    })  # fmt: skip
    pq.write_table(table, tmp_path / "a.parquet")
    ds = dms.ingest(f"{tmp_path}/*.parquet", tmp_path / "t.zarr")
    assert text(ds, "c") == ["a", None, "b"]
    assert ds.i.values.tolist() == [1, 2, 3]
    np.testing.assert_array_equal(ds.f.values, [1.5, np.nan, 2])
    np.testing.assert_array_equal(ds.b.values, [1, np.nan, 0])
    assert ds.d.values[1] == np.datetime64("1970-01-02")
    assert np.isnan(ds.z.values).all()
    pq.write_table(pa.table({"i": pa.array([2**63 + 1], pa.uint64())}), tmp_path / "u.pq")
    with pytest.raises(DaskMLError, match=r"u\.pq: column 'i': an integer column goes up to 9223372036854775809"):
        dms.ingest(tmp_path / "u.pq", tmp_path / "u.zarr")


def test_a_pattern_without_a_file_and_an_unknown_scheme_are_refused(tmp_path):
    with pytest.raises(SpecError, match=r"matches no file"):
        dms.ingest(f"{tmp_path}/*.parquet", tmp_path / "t.zarr")
    with pytest.raises(SpecError, match=r"ftp:// is not known"):
        dms.ingest("ftp://host/x.csv", tmp_path / "t.zarr")
    with pytest.raises(SpecError, match="exclude each other"):
        dms.ingest("x.csv", tmp_path / "t.zarr", append=True, sample=0.5)


# ---- large files


@pytest.fixture
def small_blocks(monkeypatch):
    monkeypatch.setattr("daskml_scale.stages.ingest_passes.BLOCK", 1_000)
    monkeypatch.setattr("daskml_scale.stages.ingest_table.BLOCK", 1_000)
    monkeypatch.setattr("daskml_scale.stages.ingest_passes.LEAST", 200)


def rows(count: int) -> pd.DataFrame:
    chance = np.random.default_rng(1)
    who = chance.choice(["a", 'b "q"', "c\nd", "e,f"], count)
    return pd.DataFrame({
        "id": np.arange(count), "x": chance.normal(size=count), "who": who,
        "at": pd.Timestamp("2024-01-01") + pd.to_timedelta(chance.integers(0, 10**6, count), unit="s"),
    })  # fmt: skip


def test_pieces_of_one_csv_file_give_the_table_of_the_whole(tmp_path, small_blocks, monkeypatch):
    rows(400).to_csv(tmp_path / "t.csv", index=False)
    ds = dms.ingest(tmp_path / "t.csv", tmp_path / "a.zarr", chunk=64)
    units = seconds(tmp_path / "a.ledger")
    assert sum(unit.startswith("scan/") for unit in units) > 10
    monkeypatch.undo()
    whole = dms.ingest(tmp_path / "t.csv", tmp_path / "b.zarr", chunk=64)
    assert "scan" in seconds(tmp_path / "b.ledger")
    assert ds.identical(whole)
    assert stored(tmp_path / "a.zarr") == stored(tmp_path / "b.zarr")


def test_a_column_that_is_text_in_one_piece_is_text_in_all(tmp_path, small_blocks):
    table = rows(300)
    table["code"] = [f"{k}.50" if k != 250 else "none of these" for k in range(300)]
    table.to_csv(tmp_path / "t.csv", index=False)
    with pytest.warns(UserWarning, match="'code' became text, a category: 'none of these' in row 251 is not a number"):
        ds = dms.ingest(tmp_path / "t.csv", tmp_path / "a.zarr", chunk=64)
    assert text(ds, "code") == table.code.tolist()
    assert any(unit.startswith("text/") for unit in seconds(tmp_path / "a.ledger"))


def test_a_ragged_row_in_a_later_piece_names_the_file_and_the_row(tmp_path, small_blocks):
    data = rows(300).to_csv(index=False)
    (tmp_path / "t.csv").write_text(data + "1,2\n")
    with pytest.raises(DaskMLError, match=r"t\.csv: bytes [\d,]+ to [\d,]+: row \d+ has 2 values and the first line"):
        dms.ingest(tmp_path / "t.csv", tmp_path / "a.zarr")


def test_a_row_group_beyond_the_memory_of_a_worker_is_refused_with_the_remedy(parquet, tmp_path, monkeypatch):
    monkeypatch.setattr("daskml_scale.stages.run.memory_limit", lambda client: 100)
    with pytest.raises(PlanError, match=r"0\.parquet: row group 0 takes about .*write it with smaller row groups"):
        dms.ingest(f"{parquet}/*.parquet", tmp_path / "t.zarr")
    (tmp_path / "t.csv.gz").write_bytes(gzip.compress(rows(50).to_csv(index=False).encode()))
    with pytest.raises(PlanError, match=r"t\.csv\.gz takes about .*unpack it, so that it is read in pieces"):
        dms.ingest(tmp_path / "t.csv.gz", tmp_path / "u.zarr")


# ---- sample


def test_a_sample_reads_whole_blocks_the_same_ones_each_time(tmp_path, small_blocks):
    table = rows(2_000)
    table.to_csv(tmp_path / "t.csv", index=False)
    with pytest.warns(UserWarning, match=r"sample: \d+ blocks of sources of"):
        ds = dms.ingest(tmp_path / "t.csv", tmp_path / "a.zarr", chunk=64, sample=0.2)
    assert 0.1 < ds.sizes["row"] / 2_000 < 0.3
    chosen = table.set_index("id").loc[ds.id.values]
    np.testing.assert_array_equal(ds.x.values, chosen.x.to_numpy())
    scans = {unit for unit in seconds(tmp_path / "a.ledger") if unit.startswith("scan/")}
    with pytest.warns(UserWarning, match="sample"):
        again = dms.ingest(tmp_path / "t.csv", tmp_path / "b.zarr", chunk=64, sample=0.2)
    with pytest.warns(UserWarning, match="sample"):
        other = dms.ingest(tmp_path / "t.csv", tmp_path / "c.zarr", chunk=64, sample=0.2, seed=1)
    assert again.identical(ds)
    assert {unit for unit in seconds(tmp_path / "b.ledger") if unit.startswith("scan/")} == scans
    assert set(other.id.values.tolist()) != set(ds.id.values.tolist())


def test_a_workflow_is_sampled_into_a_store_of_its_own(parquet, tmp_path, monkeypatch):
    workflow = tmp_path / "w.yaml"
    workflow.write_text(
        f"version: 1\nname: w\nstore: {tmp_path}/store\ncluster: none\nstages:\n"
        f"  t: {{kind: ingest, source: '{parquet}/*.parquet', row: {{dim: row, chunk: 4}}}}\n"
    )
    with pytest.raises(UsageError, match=r"a sample of 0\.3 would replace the whole tables in .*--store"):
        dms.run(workflow, sample=0.3)
    assert dms.run(workflow, store=tmp_path / "try", sample=0.3).stages[0].rows == 4
    assert dms.run(workflow).stages[0].rows == 15


# ---- partitions


def test_partitions_lie_together_and_are_listed(parquet, tmp_path):
    ds = dms.ingest(f"{parquet}/*.parquet", tmp_path / "t.zarr", chunk=4, partition_by="who", sort_by="x")
    assert text(ds, "who") == sorted(f"w{k % 3}" for k in range(15))
    assert ds.attrs["row_key"] == ["who", "x"]
    listed = json.loads((tmp_path / "t.partitions.json").read_text())
    assert listed == {
        "by": ["who", "start", "stop"], "partitions": [["w0", 0, 5], ["w1", 5, 10], ["w2", 10, 15]],
    }  # fmt: skip
    start, stop = listed["partitions"][1][1:]
    assert set(text(ds.isel(row=slice(start, stop)), "who")) == {"w1"}


def test_the_command_line_takes_a_sample_into_a_store_of_its_own(parquet, tmp_path, monkeypatch, capsys):
    from daskml_scale import cli

    monkeypatch.setenv("DASKML_SCALE_HOME", str(tmp_path / "home"))
    workflow = tmp_path / "w.yaml"
    workflow.write_text(
        f"version: 1\nname: w\nstore: {tmp_path}/store\ncluster: none\nstages:\n"
        f"  t: {{kind: ingest, source: '{parquet}/*.parquet', row: {{dim: row, chunk: 4}}, append: true}}\n"
    )
    assert cli.main(["run", str(workflow), "--sample", "0.3"]) == 2
    assert "name another store: --store" in capsys.readouterr().err
    assert cli.main(["run", str(workflow), "--sample", "1.5", "--store", str(tmp_path / "try")]) == 2
    capsys.readouterr()
    words = ["run", str(workflow), "--sample", "0.3", "--store", str(tmp_path / "try"), "--json"]
    assert cli.main([*words, "--dry-run"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["units"] == 4
    assert cli.main(words) == 0
    assert json.loads(capsys.readouterr().out)["stages"][0]["rows"] == 4
    assert cli.main(["list", "--json"]) == 0
    assert "--sample 0.3" in " ".join(json.loads(capsys.readouterr().out)[0]["command"])


def test_large_files_are_hashed_by_workers_and_only_where_size_or_time_changed(tmp_path, monkeypatch):
    monkeypatch.setattr("daskml_scale.stages.inputs.LARGE", 100)
    for number in range(3):
        pd.DataFrame({"n": np.arange(50) + 50 * number}).to_parquet(tmp_path / f"{number}.parquet")
    (tmp_path / "9.parquet").write_bytes((tmp_path / "0.parquet").read_bytes())
    call = functools.partial(dms.ingest, f"{tmp_path}/*.parquet", tmp_path / "t.zarr", chunk=50)
    assert call().n.values.tolist() == [*range(150), *range(50)]
    assert {key for key in Ledger(str(tmp_path / "t.ledger")).records() if key.startswith("hash/")} == {
        f"hash/{number}.parquet" for number in (0, 1, 2, 9)
    }
    os.utime(tmp_path / "1.parquet", ns=(1, 1))  # the same bytes at another time
    call()
    assert dms.last_run().units - dms.last_run().reused == 1
    pd.DataFrame({"n": np.arange(50)}).to_parquet(tmp_path / "1.parquet")
    assert call().n.values.tolist() == [*range(50), *range(50), *range(100, 150), *range(50)]
    assert dms.last_run().units - dms.last_run().reused == 3
