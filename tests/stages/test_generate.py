"""Data from a function: any region by itself, tables and cubes, only what changed again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

import daskml_scale as dms
from daskml_scale.errors import DaskMLError, PlanError
from daskml_scale.stages.generate import GenerateStage
from daskml_scale.stages.run import run_stage
from daskml_scale.storage import stores, tables

MODULE = """\
import numpy as np, xarray as xr

def table(region, *, times=1.0, seed=0):
    rows = np.arange(region["row"].start, region["row"].stop)
    when = np.datetime64("2024-01-01", "s") + rows.astype("timedelta64[h]")
    codes = ("row", (rows % 2).astype("int32"), {"categories": ["even", "odd"]})
    return xr.Dataset({"x": ("row", rows * times), "n": ("row", rows), "when": ("row", when), "kind": codes},
                      attrs={"row_key": ["n"]})

def cube(region):
    t, y = (np.arange(region[dim].start, region[dim].stop) for dim in ("t", "y"))
    return xr.Dataset({"v": (("t", "y"), (10 * t[:, None] + y).astype("float32")), "h": ("y", y * 1.0)},
                      coords={"t": ("t", t), "y": ("y", y)})

def short(region):
    return xr.Dataset({"x": ("row", np.zeros(1))})

def nothing(region):
    return {"x": 1}

def text(region):
    return xr.Dataset({"x": ("row", np.array(["a"] * (region["row"].stop - region["row"].start)))})
"""


@pytest.fixture
def stage(tmp_path: Path):
    (tmp_path / "made_here.py").write_text(MODULE)

    def make(name: str, dims: dict[str, int], chunks: dict[str, int] | None = None, **options: Any) -> GenerateStage:
        ledger = str(tmp_path / f"{name}.ledger")
        return GenerateStage(name, ledger, f"made_here:{name}", (tmp_path,), dims, chunks or {}, options)

    return make


def test_a_table_has_times_categories_and_its_row_key(stage):
    made = stage("table", {"row": 7}, {"row": 3}, times=2.0)
    result = run_stage(made)
    assert result.rows == 7
    assert dms.last_run().units == 1 + 3
    columns = tables.read_columns(made.out, ["x", "n", "when", "kind"])
    assert columns["x"].tolist() == [0, 2, 4, 6, 8, 10, 12]
    assert columns["when"][3] == np.datetime64("2024-01-01T03:00")
    assert (columns["kind"].labels, columns["kind"].codes.tolist()) == (("even", "odd"), [0, 1, 0, 1, 0, 1, 0])
    assert stores.open_group(made.out).attrs["row_key"] == ["n"]


def test_a_cube_is_the_same_in_any_chunks_and_small_variables_are_written_once(stage):
    found = []
    for chunks in ({"t": 2, "y": 2}, {}, {"t": -1, "y": 1}):
        made = stage("cube", {"t": 5, "y": 4}, chunks)
        run_stage(made)
        found.append(stores.open_dataset(made.out).load())
        stores.remove(made.out)
    for ds in found:
        xr.testing.assert_equal(ds, found[0])
    assert found[0].v.values[4, 3] == 43
    assert found[0].h.values.tolist() == [0, 1, 2, 3]


def test_only_new_regions_are_made_when_there_are_more_rows(stage):
    run_stage(stage("table", {"row": 6}, {"row": 3}))
    run_stage(stage("table", {"row": 6}, {"row": 3}))
    assert dms.last_run().reused == dms.last_run().units == 3
    run_stage(stage("table", {"row": 9}, {"row": 3}))
    assert (dms.last_run().units, dms.last_run().reused) == (4, 3)
    run_stage(stage("table", {"row": 9}, {"row": 3}, seed=1))
    assert dms.last_run().reused == 0


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("short", DaskMLError, r"'x' is float64 of shape \(1,\)"),
        ("nothing", DaskMLError, "returned a dict; return an xarray Dataset"),
        ("text", PlanError, "codes with the attribute categories"),
        ("absent", PlanError, "has no 'absent'"),
    ],
)
def test_a_function_that_makes_something_else_is_refused(stage, name, error, message):
    with pytest.raises(error, match=message):
        run_stage(stage(name, {"row": 4}))


def test_a_dimension_that_nothing_has_is_refused(stage):
    with pytest.raises(PlanError, match="no variable has all dimensions row, other"):
        run_stage(stage("table", {"row": 2, "other": 3}))


def test_no_rows(stage):
    made = stage("table", {"row": 0})
    assert run_stage(made).rows == 0
    assert json.dumps(dict(stores.open_dataset(made.out).sizes)) == '{"row": 0}'
