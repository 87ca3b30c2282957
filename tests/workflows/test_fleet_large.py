"""The features of a fleet of 50 MB, against pandas on the whole table."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pandas as pd

import daskml_scale as dms

ROOT = Path(__file__).parents[2]
VEHICLES, DAYS, PER_DAY = 660, 120, 8
ROWS = VEHICLES * DAYS * PER_DAY


def test_rolling_and_trailing_of_50_mb_equal_pandas(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "workflows")
    monkeypatch.delitem(sys.modules, "fleet_data", raising=False)
    import fleet_data

    table = fleet_data.readings({"row": slice(0, ROWS)}, vehicles=VEHICLES, days=DAYS, per_day=PER_DAY)
    assert table.nbytes > 50e6
    at = {"at": "time", "match": ["vehicle"]}
    recipe = dms.Recipe(
        [
            {"rolling": {"of": "vibration", **at, "events": 24, "stats": ["mean", "std", "max"], "within": "60d"}},
            {"trailing": {"of": "load", **at, "windows": ["7d"], "stat": "mean"}},
        ],
        known_at="time",
    )
    found = recipe.fit_transform(table, str(tmp_path / "features.zarr")).features.values
    frame = table.to_dataframe().set_index("time")
    groups = frame.groupby("vehicle", sort=False)
    by_count = groups["vibration"].rolling(24, min_periods=1).agg(["mean", "std", "max"])
    by_time = groups["load"].rolling("7D").mean()
    expected = np.column_stack([by_count.to_numpy(), by_time.to_numpy()])
    assert isinstance(by_time, pd.Series)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
