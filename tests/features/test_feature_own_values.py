"""A row's own target, and what goes with it, never counts among the earlier rows: not in windows, not in joins."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from features_helpers import write_table
from sklearn.linear_model import LinearRegression

import daskml_scale as dms
from daskml_scale.errors import SpecError
from daskml_scale.spec.expressions import Coded
from daskml_scale.stages.features.checks import withheld
from daskml_scale.stages.features.program import Program
from daskml_scale.stages.scoring import without_target
from daskml_scale.storage import stores

ROWS = 60
MINUTE = np.timedelta64(1, "m")
DERIVED_FROM = {"late": ["delay"], "hours": ["delay"], "other": ["size"]}


def columns() -> dict[str, object]:
    """One row per minute; every second row says that its delay was seen before it was due."""
    rng = np.random.default_rng(5)
    due = np.datetime64("2013-01-01", "ns") + np.arange(ROWS) * MINUTE
    delay = np.where(rng.random(ROWS) < 0.1, np.nan, rng.normal(size=ROWS) * 10)
    return {
        "due": due,
        "seen": due + np.where(np.arange(ROWS) % 2, 180, -30) * np.timedelta64(1, "s"),
        "place": Coded(rng.integers(-1, 2, ROWS).astype("int32"), ("a", "b")),
        "number": np.arange(ROWS),
        "delay": delay,
        "late": np.where(np.isnan(delay), np.nan, (delay > 0).astype("float64")),
        "hours": delay / 60,
        "size": rng.normal(size=ROWS),
        "other": rng.normal(size=ROWS),
    }


def steps(own_table: bool = True) -> list[dict]:
    made = [
        {"trailing": {"of": of, "at": "seen", "match": ["place"], "windows": ["5m", "30m"], "stat": stat}}
        for of in ("late", "delay", "hours")
        for stat in ("mean", "sum", "count")
    ]
    if own_table:
        made.append({"as_of": {"table": "past", "match": ["place"], "their_time": "seen", "take": ["late", "size"]}})
    return made


def features(data: object, past: object = None, target: str | None = "late", made=None) -> np.ndarray:
    tables = {} if past is None else {"past": past}
    recipe = dms.Recipe(made or steps(past is not None), known_at="due", target=target)
    return recipe.fit_transform(data, tables=tables).features.values


def table(folder, name: str = "rows", chunk: int = 7, **changes) -> str:
    write_table(f"{folder}/{name}.zarr", {**columns(), **changes}, chunk, derived_from=DERIVED_FROM, row_key=["due"])
    return f"{folder}/{name}.zarr"


def expected(of: str, stat: str, minutes: int, row: int) -> float:
    data = columns()
    known, seen, place, values = data["due"], data["seen"], data["place"].codes, np.asarray(data[of])
    inside = [
        other
        for other in range(ROWS)
        if known[row] - minutes * MINUTE < seen[other] <= known[row]
        and place[other] == place[row] >= 0
        and not np.isnan(values[other])
        and other != row
    ]
    picked = values[inside]
    if stat == "mean":
        return picked.mean() if len(picked) else np.nan
    return picked.sum() if stat == "sum" else float(len(picked))


def test_a_window_over_the_target_leaves_the_row_itself_out(tmp_path):
    found = features(table(tmp_path))
    wanted = [
        [
            expected(of, stat, minutes, row)
            for of in ("late", "delay", "hours")
            for stat in ("mean", "sum", "count")
            for minutes in (5, 30)
        ]
        for row in range(ROWS)
    ]
    np.testing.assert_allclose(found, wanted, rtol=1e-6, atol=1e-6)
    assert np.nansum(found) != 0


@pytest.mark.parametrize("garbage", [1e300, np.nan, np.inf, -1.0])
def test_no_feature_of_a_row_depends_on_its_own_target(tmp_path, garbage):
    """at <= known_at on the row itself in every second row: garbage in its target changes nothing of that row."""
    ds = dms.open_dataset(table(tmp_path)).load()
    clean = features(ds, ds)
    for row in (0, 6, 7, 20, 58, 59):
        other = ds.copy(deep=True)
        for name in ("delay", "late", "hours"):
            other[name].values[row] = garbage
        np.testing.assert_array_equal(features(other, other)[row].view("uint32"), clean[row].view("uint32"))


def test_other_columns_count_in_the_row_itself_as_they_always_did(tmp_path):
    made = [{"trailing": {"of": "size", "at": "seen", "windows": ["5m"], "stat": "count"}}]
    data, url = columns(), table(tmp_path)
    inside = (data["seen"] > data["due"][20] - 5 * MINUTE) & (data["seen"] <= data["due"][20])
    assert inside[20]
    assert features(url, made=made)[20, 0] == inside.sum()
    made[0]["trailing"]["of"] = "late"
    assert not np.isnan(data["late"][20])
    known = (inside & ~np.isnan(data["late"])).sum()
    assert features(url, made=made)[20, 0] == known - 1
    assert features(url, made=made, target=None)[20, 0] == known


@pytest.mark.parametrize("chunk", [5, 60])
def test_the_grid_and_the_place_of_the_tables_change_no_bit(tmp_path, chunk):
    url = table(tmp_path)
    here = features(url, url)
    regridded = table(tmp_path, "regridded", chunk)
    np.testing.assert_array_equal(features(regridded, regridded), here)
    loaded = dms.open_dataset(url).load()
    copy = loaded.copy(deep=True)
    stored = table(tmp_path, "copy")
    for rows, past in ((loaded, loaded), (loaded, copy), (url, loaded), (loaded, url), (url, stored)):
        np.testing.assert_array_equal(features(rows, past), here)


def test_the_last_earlier_row_of_the_own_table_is_never_the_row_itself(tmp_path):
    url = table(tmp_path)
    step = {"as_of": {"table": "past", "their_time": "seen", "take": ["late"]}}
    found = features(url, url, made=[step])[:, 0]
    data = columns()
    order = np.argsort(data["seen"], kind="stable")
    for row in range(ROWS):
        before = [other for other in order if data["seen"][other] <= data["due"][row] and other != row]
        np.testing.assert_array_equal(found[row], data["late"][before[-1]] if before else np.nan)
    foreign = table(tmp_path, "foreign", size=np.zeros(ROWS), late=np.ones(ROWS))
    known = features(url, foreign, made=[step])[:, 0]
    assert known[0] == 1.0  # another table's row of the same time is no row of this one


def test_a_lookup_in_the_own_table_takes_no_target(tmp_path):
    url = table(tmp_path)
    step = {"lookup": {"table": "past", "key": "number", "take": ["late"]}}
    for rows, past in ((url, url), (dms.open_dataset(url).load(), url)):
        with pytest.raises(SpecError, match=r"steps\[0\]\.lookup\.take: .*'late'.*own.*use trailing"):
            features(rows, past, made=[step])
    step["lookup"]["take"] = ["size"]
    np.testing.assert_allclose(features(url, url, made=[step])[:, 0], columns()["size"], rtol=1e-6)


def test_what_is_withheld_follows_the_target_both_ways():
    assert withheld(None, "due", DERIVED_FROM) == ()
    assert withheld("late", "due", {}) == ("late",)
    assert withheld("late", "due", DERIVED_FROM) == ("delay", "hours", "late")
    assert withheld("delay", "due", DERIVED_FROM) == ("delay", "hours", "late")
    known = {"late": ["delay", "due"], "due": ["day"], "hours": ["late"], "hour": ["due"]}
    assert withheld("late", "due - hours(2)", known) == ("delay", "hours", "late")


def test_a_saved_recipe_withholds_in_prediction_too(tmp_path):
    """Prediction reads no target, and must make the same features from a table that has one."""
    url = table(tmp_path)
    made = [{"trailing": {"of": "delay", "at": "seen", "windows": ["30m"], "stat": "sum"}}]
    recipe = dms.Recipe(made, known_at="due", target="late").fit(url)
    assert without_target(recipe.to_json()).withheld == ("delay", "hours", "late")
    assert dms.Recipe.from_json(recipe.to_json()).to_json() == recipe.to_json()
    matrix = recipe.transform(url).features.values
    model = LinearRegression().fit(matrix, matrix[:, 0])
    saved = dms.save_model(model, tmp_path / "m", recipe=recipe)
    np.testing.assert_allclose(dms.predict(saved, url).prediction.values, matrix[:, 0], rtol=1e-4, atol=1e-4)


def test_a_recipe_saved_before_withholds_its_target(tmp_path):
    recipe = dms.Recipe(steps(False), known_at="due", target="late").fit(table(tmp_path))
    old = recipe.to_json()
    del old["fitted"]["withheld"]
    assert Program.from_dict(old).withheld == ("late",)


def test_a_dataset_in_memory_without_provenance_withholds_its_target():
    data = columns()
    ds = xr.Dataset({name: ("row", data[name]) for name in ("due", "seen", "late")})
    made = [{"trailing": {"of": "late", "at": "seen", "windows": ["4m"], "stat": "count"}}]
    found = features(ds, made=made)[:, 0]
    assert found[20] == sum(
        data["due"][20] - 4 * MINUTE < seen <= data["due"][20] and not np.isnan(late)
        for row, (seen, late) in enumerate(zip(data["seen"], data["late"], strict=True))
        if row != 20
    )
    assert stores.source_of(ds) is None
