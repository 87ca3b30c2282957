"""Tables for the feature benchmarks, made region by region so that any size fits: numbers, readings, facts.

Every value follows from its place alone. The same rows are what the peers read.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parent.parent
NUMBERS = tuple(f"x{number}" for number in range(8))
KINDS = {"colour": ("blue", "green", "red", "white"), "place": tuple(f"p{number:02d}" for number in range(10))}
ROW_BYTES = 8 * len(NUMBERS) + 4 * len(KINDS)
"""Bytes of a row of ``numbers`` as it is stored, before compression."""
EVENT_BYTES = 3 * 8


def _draw(seed: int, start: int, stop: int) -> Any:
    """Return a random stream for the block of rows that ``start`` begins."""
    return np.random.Generator(np.random.Philox(key=[seed, start])), stop - start


def numbers(region: Mapping[str, slice], *, seed: int = 1) -> Any:
    """Return eight columns of numbers with gaps, and two categories."""
    import xarray as xr

    (rows,) = region.values()
    random, count = _draw(seed, rows.start, rows.stop)
    columns: dict[str, Any] = {}
    for place, name in enumerate(NUMBERS):
        values = random.normal(10.0 * place, 1.0 + place, count).round(3)
        values[random.random(count) < 0.02] = np.nan
        columns[name] = ("row", values)
    for name, labels in KINDS.items():
        columns[name] = ("row", random.integers(0, len(labels), count).astype("int32"), {"categories": list(labels)})
    return xr.Dataset(columns, attrs={"row_key": []})


def events(region: Mapping[str, slice], *, keys: int, span: int, seed: int = 2) -> Any:
    """Return rows of (key, when, value) in the order of time: ``span`` seconds in all, one row after the other."""
    import xarray as xr

    (rows,) = region.values()
    random, count = _draw(seed, rows.start, rows.stop)
    when = np.datetime64("2024-01-01", "s") + (np.arange(rows.start, rows.stop) * span // 10**6).astype(
        "timedelta64[s]"
    )
    columns = {"when": when, "key": random.integers(0, keys, count), "value": random.normal(size=count).round(3)}
    return xr.Dataset({name: ("row", values) for name, values in columns.items()}, attrs={"row_key": ["when"]})


def write(url: Path, function: str, rows: int, chunk: int, client: Any | None = None, **options: Any) -> str:
    """Write a table by our stage ``generate``; return its URL."""
    from daskml_scale.stages.generate import GenerateStage
    from daskml_scale.stages.run import run_stage

    folders = (ROOT / "workflows",) if function.startswith("fleet_data") else (ROOT,)
    ledger = str(url.with_suffix(".ledger"))
    run_stage(GenerateStage(url.stem, ledger, function, folders, {"row": rows}, {"row": chunk}, options), client=client)
    return str(url)


def frame(url: str, names: tuple[str, ...], start: int, stop: int) -> Any:
    """Return rows of a table as a DataFrame, read as we read them."""
    import pandas as pd

    from daskml_scale.spec.expressions import Coded
    from daskml_scale.storage.tables import read_columns

    columns = read_columns(url, names, start, stop)
    found = {
        name: pd.Categorical.from_codes(values.codes, list(values.labels)) if isinstance(values, Coded) else values
        for name, values in columns.items()
    }
    return pd.DataFrame(found)
