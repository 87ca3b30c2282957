"""The report of a run shows what its tables hold and how far its predictions drifted."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from sklearn.linear_model import LogisticRegression

import daskml_scale as dms
from daskml_scale.plan.units import Template, Variable
from daskml_scale.runs.report_data import bars, documents, sections
from daskml_scale.stages.run import run_stage
from daskml_scale.stages.validate import ValidateStage
from daskml_scale.storage import stores
from daskml_scale.storage.tables import categorize, column_type, encode

STAGES = [
    {"name": "check", "kind": "validate"},
    {"name": "watch", "kind": "monitor"},
    {"name": "f", "kind": "features"},
]


def table(url: str) -> None:
    rng = np.random.default_rng(0)
    size = rng.normal(size=60)
    columns = {
        "size": np.where(np.arange(60) < 6, np.nan, size),
        "twice": 2 * size,
        "nothing": np.full(60, np.nan),
        "when": np.datetime64("2024-01-01", "ns") + np.arange(60) * np.timedelta64(1, "h"),
        "<b>place": categorize(["<i>a", "b", "b"] * 20),
    }
    kinds = {name: column_type(values) for name, values in columns.items()}
    stores.create(url, Template("row", 60, {name: kind.variable("row", 60, 25) for name, kind in kinds.items()}))
    stores.write_region(url, 0, {name: encode(values, kinds[name]) for name, values in columns.items()})


def test_profile_and_drift_of_a_store_are_in_the_page(tmp_path: Path) -> None:
    table(f"{tmp_path}/t.zarr")
    run_stage(ValidateStage("check", f"{tmp_path}/check.ledger", f"{tmp_path}/t.zarr", ()))
    X = np.random.default_rng(1).normal(size=(80, 2)).astype("float32")
    model = LogisticRegression().fit(X, X[:, 0] > 0)
    schema = {"features": ["one", "two"], "dtype": "float32"}
    bundle = dms.save_model(model, tmp_path / "m", schema=schema, reference=X)
    variables = {"features": Variable("float32", ("row", "feature"), X.shape, (40, 2)),
                 "feature": Variable("string", ("feature",), (2,), (2,))}  # fmt: skip
    stores.create(f"{tmp_path}/x.zarr", Template("row", 80, variables, {}, {"feature": ["one", "two"]}))
    stores.write_region(f"{tmp_path}/x.zarr", 0, {"features": X + np.float32(3)})
    with pytest.warns(UserWarning, match="PSI"):
        assert isinstance(dms.predict(bundle, f"{tmp_path}/x.zarr", tmp_path / "watch.zarr", monitor=True), xr.Dataset)

    found = documents(str(tmp_path), STAGES)
    assert (list(found["profile"]), list(found["drift"])) == (["check"], ["watch"])
    page = "".join(sections({"data": found}))
    for text in ("60 rows", "10.00%", "2 categories", "2024-01-03T11:00", "twice, size", "+1.000", "80 rows predicted"):
        assert text in page
    assert "&lt;b&gt;place" in page, "what comes from the data is escaped"
    assert "<b>" not in page
    assert "<i>" not in page
    assert page.count("<svg") == 2 + len(found["drift"]["watch"]["predictions"]) + 2, "two columns have a histogram"


def test_a_store_without_them_adds_nothing(tmp_path: Path) -> None:
    for store in (tmp_path, tmp_path / "gone"):
        assert "".join(sections({"data": documents(str(store), STAGES)})) == ""


def test_bars_show_shares_side_by_side() -> None:
    drawn = bars([[1, 3], [0, 0]], ["low & lower"])
    assert drawn.count("<rect") == 4
    assert "low &amp; lower: 25.0%" in drawn
    assert "75.0%" in drawn
    assert bars([[], []], []).count("<rect") == 0
