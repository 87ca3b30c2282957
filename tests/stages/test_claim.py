"""No output replaces what it is made from, an output of another kind, or what another process writes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from sklearn.linear_model import LinearRegression

import daskml_scale as dms
from daskml_scale.errors import ConflictError, UsageError
from daskml_scale.plan.records import Record
from daskml_scale.storage import stores
from daskml_scale.storage.ledger import Ledger

ROWS = "".join(f"2024-01-01T{hour:02d}:00:00Z,{hour % 5},{hour * 2}\n" for hour in range(24))


@pytest.fixture
def table(tmp_path: Path) -> str:
    (tmp_path / "in.csv").write_text("t,k,x\n" + ROWS)
    dms.ingest(str(tmp_path / "in.csv"), tmp_path / "in.zarr", chunk=10, sort_by=["t"])
    return str(tmp_path / "in.zarr")


def recipe(target: str | None = "x", **lookup: str) -> dms.Recipe:
    joined = [{"lookup": {"table": name, "key": "k", "take": [take]}} for name, take in lookup.items()]
    return dms.Recipe([{"keep": {"of": ["k"]}}, *joined], known_at="t", target=target)


def unharmed(url: str) -> bool:
    return bool((np.sort(dms.open_dataset(url).x.values) == np.arange(24) * 2).all())


def spellings(url: str, tmp_path: Path) -> list[str | Path]:
    folder, name = os.path.split(url)
    (tmp_path / "link").symlink_to(folder, target_is_directory=True)
    (tmp_path / "other.zarr").symlink_to(url, target_is_directory=True)
    return [
        url, Path(url), f"file://{url}", f"{folder}/x/../{name}", f"{folder}/./{name}",
        tmp_path / "link" / name, tmp_path / "other.zarr", f"{url}/inside.zarr",
    ]  # fmt: skip


@pytest.mark.parametrize("number", range(8))
def test_features_are_not_written_over_the_table_they_are_made_from(table, tmp_path, number):
    out = spellings(table, tmp_path)[number]
    (tmp_path / "x").mkdir()
    for rows in (table, dms.open_dataset(table), dms.open_dataset(table).isel(row=slice(5, 20))):
        with pytest.raises(UsageError, match=r"would .*in\.zarr.*choose another out") as caught:
            recipe().fit_transform(rows, out)
        assert table in str(caught.value)
    assert unharmed(table)


def test_relative_and_trailing_slash_spellings_are_the_same_place(table, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for out in ("in.zarr", "./in.zarr"):
        with pytest.raises(UsageError, match="choose another out"):
            recipe().fit_transform(table + "/", out)
    assert unharmed(table)


def test_nor_over_a_joined_table_stored_or_mixed(table, tmp_path):
    (tmp_path / "other.csv").write_text("k,y\n" + "".join(f"{k},{k}\n" for k in range(5)))
    other = str(tmp_path / "other.zarr")
    dms.ingest(str(tmp_path / "other.csv"), other)
    for rows in (table, dms.open_dataset(table).load()):
        with pytest.raises(UsageError, match=r"tables\['other'\].*other\.zarr"):
            recipe(other="y").fit_transform(rows, other, tables={"other": other})
    assert dms.open_dataset(other).y.values.tolist() == [0, 1, 2, 3, 4]


def test_nor_in_memory(table):
    url = f"memory://claim-{id(table)}/in.zarr"
    dms.ingest(str(Path(table).with_suffix(".csv")), url)
    for out in (url, url + "/", url.replace("/in", "//in")):
        with pytest.raises(UsageError, match="choose another out"):
            recipe().fit_transform(url, out)
    assert unharmed(url)


def test_predictions_are_not_written_over_what_the_model_reads(table, tmp_path):
    matrix = recipe().fit_transform(table, tmp_path / "f.zarr")
    estimator = LinearRegression().fit(matrix.features.values, matrix.x.values)
    raw = dms.save_model(estimator, tmp_path / "raw", recipe=recipe().fit(table))
    bare = dms.save_model(estimator, tmp_path / "bare", schema={"features": ["k"]})
    with pytest.raises(UsageError, match=r"would .*in\.zarr"):
        dms.predict(raw, table, out=table)
    with pytest.raises(UsageError, match=r"would .*f\.zarr"):
        dms.predict(bare, str(tmp_path / "f.zarr"), out=tmp_path / "f.zarr")
    with pytest.raises(UsageError, match="a table that ingest wrote"):
        dms.predict(raw, dms.open_dataset(table).load(), out=table)
    assert unharmed(table)
    assert dms.open_dataset(str(tmp_path / "f.zarr")).sizes == {"row": 24, "feature": 1}


@pytest.mark.filterwarnings("ignore:Object at new.csv is not recognized")
def test_a_source_inside_the_output_is_not_removed_with_it(table):
    source = Path(table) / "new.csv"
    source.write_text("a\n1\n")
    with pytest.raises(UsageError, match=r"would .*new\.csv"):
        dms.ingest(str(source), table)
    assert source.exists()
    assert unharmed(table)


def test_an_output_of_another_kind_is_kept_and_one_of_the_same_kind_replaced(table, tmp_path):
    features, predictions = tmp_path / "f.zarr", tmp_path / "p.zarr"
    matrix = recipe().fit_transform(table, features)
    model = dms.save_model(
        LinearRegression().fit(matrix.features.values, matrix.x.values), tmp_path / "m", recipe=recipe().fit(table)
    )
    dms.predict(model, table, out=predictions)
    loaded = dms.open_dataset(table).load()
    with pytest.raises(UsageError, match=rf"{predictions} holds predictions.*feature matrix.*choose another out"):
        recipe().fit_transform(loaded, predictions)
    with pytest.raises(UsageError, match="holds predictions"):
        recipe().fit_transform(table, predictions)
    with pytest.raises(UsageError, match="holds a feature matrix"):
        dms.predict(model, table, out=features)
    with pytest.raises(UsageError, match="holds a feature matrix"):
        dms.ingest(str(Path(table).with_suffix(".csv")), features)
    two = dms.Recipe([{"keep": {"of": ["k", "x"]}}], known_at="t")
    assert two.fit_transform(table, features).sizes == {"row": 24, "feature": 2}
    assert two.fit_transform(loaded, features).sizes == {"row": 24, "feature": 2}
    assert dms.predict(model, loaded, out=predictions).sizes == {"row": 24}


def test_a_dataset_of_ours_of_no_known_kind_is_kept(table, tmp_path):
    url = str(tmp_path / "own.zarr")
    stores.create(url, stores_template(7))
    with pytest.raises(UsageError, match=r"own\.zarr holds another dataset"):
        recipe().fit_transform(table, url)
    assert stores.snapshot(url).rows == 7


def stores_template(rows: int):
    from daskml_scale.plan.units import Template, Variable

    return Template("row", rows, {"a": Variable("int64", ("row",), (rows,), (rows,))})


def test_the_ledger_of_a_search_is_not_taken_for_that_of_an_output(table, tmp_path):
    from daskml_scale.plan.units import Parts

    Ledger(str(tmp_path / "search.ledger")).append([Record("trial/1", "f", "d", "ok", parts=Parts(code="search-1"))])
    with pytest.raises(UsageError, match=r"search\.ledger holds the records of search"):
        recipe().fit_transform(table, tmp_path / "search.zarr")
    assert list(Ledger(str(tmp_path / "search.ledger")).records()) == ["trial/1"]


HOLDER = """
import sys
from daskml_scale.stages.claim import claim
with claim(sys.argv[1], sys.argv[2], []):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_second_writer_is_refused_and_told_who_holds_the_output(table, tmp_path):
    out = str(tmp_path / "f.zarr")
    held = subprocess.Popen(
        [sys.executable, "-c", HOLDER, out, "features"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert held.stdout.readline() == "held\n"
        for rows in (table, dms.open_dataset(table).load()):
            with pytest.raises(ConflictError, match=rf"in use by features f\.zarr \(process {held.pid}\)"):
                recipe().fit_transform(rows, out)
        with pytest.raises(ConflictError):
            dms.ingest(str(Path(table).with_suffix(".csv")), out)
        assert recipe().fit_transform(table, tmp_path / "g.zarr").sizes["row"] == 24  # beside it is free
    finally:
        held.communicate("")
    assert recipe().fit_transform(table, out).sizes["row"] == 24


def test_predictions_hold_their_output_too(table, tmp_path):
    matrix = recipe().fit_transform(table, tmp_path / "f.zarr")
    model = dms.save_model(
        LinearRegression().fit(matrix.features.values, matrix.x.values), tmp_path / "m", recipe=recipe().fit(table)
    )
    from daskml_scale.stages.claim import claim

    with claim(str(tmp_path / "p.zarr"), "predict", []):
        for rows in (table, dms.open_dataset(table).load()):
            with pytest.raises(ConflictError, match=rf"in use by predict p\.zarr \(process {os.getpid()}\)"):
                dms.predict(model, rows, out=tmp_path / "p.zarr")
    assert dms.predict(model, table, out=tmp_path / "p.zarr").sizes["row"] == 24


def test_an_output_in_the_store_of_a_running_workflow_waits(table, tmp_path):
    from daskml_scale.storage.lock import hold

    with hold(str(tmp_path), "run flights-1"), pytest.raises(ConflictError, match="in use by run flights-1"):
        recipe().fit_transform(table, tmp_path / "f.zarr")
    assert not (tmp_path / "f.zarr").exists()
