"""``dms.Recipe``: the same numbers from a store, from memory, lazily and written."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from features_helpers import write_table
from sklearn.exceptions import NotFittedError

import daskml_scale as dms
from daskml_scale.errors import DaskMLError, PlanError, SpecError, StoreError, UsageError
from daskml_scale.spec.expressions import Coded
from daskml_scale.storage import files, stores
from daskml_scale.storage.ledger import Ledger

START = np.datetime64("2013-01-01", "ns")
MINUTE = np.timedelta64(1, "m")


@pytest.fixture
def store(tmp_path) -> str:
    rng = np.random.default_rng(3)
    due = START + np.arange(60) * MINUTE
    columns = {
        "due": due,
        "done": due + 5 * MINUTE,
        "place": Coded(rng.integers(-1, 3, 60).astype("int32"), ("b", "a", "c")),
        "site": rng.integers(0, 6, 60),
        "value": np.where(rng.random(60) < 0.2, np.nan, rng.normal(size=60)),
    }
    write_table(f"{tmp_path}/rows.zarr", columns, 10, row_key=["due", "place"], derived_from={})
    write_table(f"{tmp_path}/sites.zarr", {"site": np.arange(5), "size": np.arange(5) * 10.0}, 100)
    return str(tmp_path)


def recipe(**changes) -> dms.Recipe:
    steps = [
        dms.steps.DateParts(of="due", parts=["minute"]),
        {"ordinal": {"of": ["place"]}},
        dms.steps.Lookup(table="sites", key="site", take=["size"]),
        {"trailing": {"of": "value", "at": "done", "match": ["place"], "windows": ["20m"]}},
    ]
    return dms.Recipe(steps, known_at="due - minutes(1)", **{"target": "value", **changes})


def opened(store: str) -> tuple[xr.Dataset, dict[str, xr.Dataset]]:
    return stores.open_dataset(f"{store}/rows.zarr"), {"sites": stores.open_dataset(f"{store}/sites.zarr")}


def is_lazy(ds: xr.Dataset) -> bool:
    return all(hasattr(ds[name].data, "dask") for name in ("features", "value", "due"))


def test_lazy_written_stored_and_in_memory_features_are_the_same_dataset(store):
    rows, tables = opened(store)
    written = recipe().fit_transform(rows, f"{store}/f.zarr", where="site < 4", tables=tables)
    assert is_lazy(written)
    fitted = recipe().fit(f"{store}/rows.zarr", where="site < 4", tables={"sites": f"{store}/sites.zarr"})
    lazy = fitted.transform(rows, tables=tables)
    assert is_lazy(lazy)
    assert lazy.features.chunks == ((10,) * 6, (4,))
    loaded, loaded_tables = rows.load(), {"sites": tables["sites"].load()}
    from_memory = recipe().fit(loaded, where="site < 4", tables=loaded_tables)
    one, other = from_memory.to_json(), fitted.to_json()
    assert one["fitted"]["seen"].pop("table") != other["fitted"]["seen"].pop("table")  # content here, ids there
    assert one == other
    in_memory = from_memory.transform(loaded, tables=loaded_tables)
    assert hasattr(in_memory.features.data, "dask")
    assert not files.names(f"{store}/x.ledger")
    mixed = fitted.transform(rows, f"{store}/mixed.zarr", tables=loaded_tables)
    one_go = recipe().fit_transform(loaded, where="site < 4", tables=loaded_tables)
    for other in (lazy, in_memory, one_go):
        assert other.attrs["saw"] == written.attrs["saw"]
    for other in (lazy, in_memory, mixed, one_go):
        other.attrs["saw"] = written.attrs["saw"]  # rows that came from elsewhere are not known to be those learnt from
        xr.testing.assert_identical(other.load(), written.load())
    assert np.isnan(written.features.values).any()


def test_a_lazy_transform_reads_rows_only_when_it_is_asked_for(store):
    rows, tables = opened(store)
    fitted = recipe().fit(rows, tables=tables)
    lazy = fitted.transform(rows, tables=tables)
    first = lazy.features[:10].values
    assert first.dtype == "float32"
    stores.remove(f"{store}/rows.zarr")
    with pytest.raises(StoreError, match=r"cannot open .*rows\.zarr"):
        lazy.features[10:].compute()


def test_out_blocks_is_resumed_and_reported(store):
    rows, tables = opened(store)
    fitted = recipe().fit(rows, tables=tables)
    fitted.transform(rows, f"{store}/f.zarr", tables=tables)
    assert dms.last_run().name == "f"
    assert (dms.last_run().units, dms.last_run().reused) == (13, 0)
    fitted.transform(rows, f"{store}/f.zarr", tables=tables)
    assert (dms.last_run().units, dms.last_run().reused) == (13, 13)


def test_a_second_fit_in_one_process_scans_only_what_changed(store):
    rows, tables = opened(store)
    recipe().fit(rows, tables=tables)
    recipe().fit(rows, tables=tables)
    assert (dms.last_run().units, dms.last_run().reused) == (7, 7)
    raw, _ = stores.read_raw(f"{store}/rows.zarr", "done", 30, 40)
    stores.write_region(f"{store}/rows.zarr", 30, {"done": raw + 1})
    recipe().fit(rows, tables=tables)
    assert (dms.last_run().units, dms.last_run().reused) == (7, 6)


def test_memory_stores_work_without_files(store):
    rows, tables = opened(store)
    url = f"memory://recipe-test/{id(store)}.zarr"
    ds = recipe().fit_transform(rows, url, tables=tables)
    xr.testing.assert_identical(ds.load(), recipe().fit_transform(rows, tables=tables).load())


def test_a_plain_dataset_of_text_and_times_is_enough():
    ds = xr.Dataset(
        {
            "when": ("obs", START + np.arange(4) * 30 * MINUTE),
            "who": ("obs", np.array(["x", "y", "x", None], dtype=object)),
            "score": ("obs", [1.0, 2.0, 3.0, 4.0]),
        }
    )
    steps = [{"ordinal": {"of": "who"}}, {"trailing": {"of": "score", "at": "when", "match": "who", "windows": "2h"}}]
    with pytest.raises(SpecError, match="windows"):
        dms.Recipe(steps, known_at="when")
    steps[1]["trailing"]["windows"] = ["2h"]
    found = dms.Recipe(steps, known_at="when - minutes(1)").fit_transform(ds)
    np.testing.assert_array_equal(found.features, [[0, np.nan], [1, np.nan], [0, 1], [-1, np.nan]])
    assert found.features.dims == ("obs", "feature")
    assert found.feature.values.tolist() == ["who", "score_mean_2h"]


def test_a_recipe_survives_json(store, tmp_path):
    rows, tables = opened(store)
    fitted = recipe().fit(rows, tables=tables)
    fitted.save(tmp_path / "recipe.json")
    again = dms.Recipe.load(tmp_path / "recipe.json")
    assert again.fitted
    assert again.to_json() == fitted.to_json() == json.loads(json.dumps(fitted.to_json()))
    assert again.steps == fitted.steps
    assert (again.known_at, again.target) == ("due - minutes(1)", "value")
    xr.testing.assert_identical(
        again.transform(rows, tables=tables).load(), fitted.transform(rows, tables=tables).load()
    )
    assert not dms.Recipe.from_json(recipe().to_json()).fitted
    with pytest.raises(UsageError, match="holds no recipe"):
        dms.Recipe.load(tmp_path / "nothing.json")
    with pytest.raises(SpecError, match="format 99"):
        dms.Recipe.from_json({**fitted.to_json(), "format": 99})


def test_names_and_texts_for_people(store):
    made = recipe()
    assert made.get_feature_names_out().tolist() == ["minute", "place", "sites_size", "value_mean_20m"]
    assert repr(made) == "<Recipe: 4 steps, 4 features, known at 'due - minutes(1)', not fitted>"
    page = dms.Recipe([{"keep": {"of": ["<b>"]}}], known_at="due")._repr_html_()
    assert "&lt;b&gt;" in page
    assert "<b>" not in page
    assert "earlier value, recorded at done by place" in made._repr_html_()


def test_mistakes_are_refused_by_name(store):
    rows, tables = opened(store)
    with pytest.raises(NotFittedError, match=r"not fitted yet; call fit\(ds\) first"):
        recipe().transform(rows, tables=tables)
    with pytest.raises(SpecError, match=r"steps\[2\].lookup.table.*'sites'"):
        recipe().fit(rows)
    with pytest.raises(SpecError, match="known_at"):
        dms.Recipe([{"keep": {"of": ["x"]}}], known_at="due -")
    with pytest.raises(SpecError, match=r"steps\[0\].keep.of: .*'valeu'; did you mean 'value'"):
        dms.Recipe([{"keep": {"of": ["valeu"]}}], known_at="due").fit(rows.load())
    with pytest.raises(SpecError, match=r"steps\[0\].keep.of: column 'place'.*category"):
        dms.Recipe([{"keep": {"of": ["place"]}}], known_at="due").fit(rows.load())
    with pytest.raises(UsageError, match="ds is a list; pass an xarray Dataset or the URL"):
        recipe().fit([rows], tables=tables)
    with pytest.raises(UsageError, match=r"is a DataFrame; .*; a DataFrame: write it"):
        recipe().fit(rows, tables={name: pd.DataFrame({"a": [1]}) for name in tables})
    with pytest.raises(UsageError, match=r"f\.zarr; its ledger is written beside it"):
        recipe().fit_transform(rows, f"{store}/f", tables=tables)
    with pytest.raises(PlanError, match=r"nothing\.zarr does not exist"):
        recipe().fit(f"{store}/nothing.zarr", tables=tables)


def test_duplicate_keys_in_memory_are_refused(store):
    rows, tables = opened(store)
    twice = xr.concat([tables["sites"].load()] * 2, "row")
    with pytest.raises(DaskMLError, match=r"steps\[2\].lookup: table 'sites' has 2 rows with site = 0"):
        recipe().fit(rows, tables={"sites": twice})


def test_work_runs_on_the_default_client(store):
    from distributed import Client

    rows, tables = opened(store)
    here = recipe().fit_transform(rows, f"{store}/here.zarr", tables=tables)
    with Client(n_workers=1, threads_per_worker=1, dashboard_address="127.0.0.1:0", host="127.0.0.1") as client:
        there = recipe().fit_transform(rows, f"{store}/there.zarr", tables=tables)
        lazy = recipe().fit(rows, tables=tables).transform(rows, tables=tables)
        xr.testing.assert_identical(lazy.compute(), here.load())
        (worker,) = client.scheduler_info()["workers"].values()
        names = {record.worker for record in Ledger(f"{store}/there.ledger").records().values()}
    assert names == {str(worker["name"])}
    xr.testing.assert_identical(there.load(), here.load())


def test_lazy_blocks_are_named_by_what_they_are_computed_from(store):
    rows, tables = opened(store)
    fitted = recipe().fit(rows, tables=tables)

    def name(rows, sites) -> str:
        return fitted.transform(rows, tables={"sites": sites}).features.data.name

    stored = name(rows, tables["sites"])
    assert name(rows, tables["sites"]) == stored
    loaded, sites = rows.load(), tables["sites"].load()
    in_memory = name(loaded, sites)
    assert name(loaded, sites) == in_memory
    others = name(loaded.assign(site=loaded.site + 1), sites), name(loaded, sites.isel(row=[0, 1]))
    assert len({stored, in_memory, *others}) == 4
    raw, _ = stores.read_raw(f"{store}/sites.zarr", "size", 0, 5)
    stores.write_region(f"{store}/sites.zarr", 0, {"size": raw + 1})
    rows, tables = opened(store)
    assert name(rows, tables["sites"]) != stored


def test_a_condition_that_selects_no_row_is_refused(store):
    rows, tables = opened(store)
    never = "due > time('2099-01-01')"
    for data, others in ((rows, tables), (rows.load(), {"sites": tables["sites"].load()})):
        with pytest.raises(PlanError, match=r"none of the 60 rows.* is selected by .*2099.*widen the condition"):
            recipe().fit(data, where=never, tables=others)
        with pytest.raises(PlanError, match="none of the 60 rows"):
            recipe().fit_transform(data, f"{store}/f.zarr", where=never, tables=others)
    assert not stores.exists(f"{store}/f.zarr")
