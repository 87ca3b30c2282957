"""How others do the work of the feature benchmarks: chunk by chunk with plain Dask, pandas, or scikit-learn.

The peers read the same Zarr table and write plain NumPy files, one per chunk; nothing is recorded. Functions
that run on workers are plain and importable there by value.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .feature_data import KINDS, NUMBERS, frame

Ranges = Sequence[tuple[int, int]]


def in_partitions(client: Any, work: Callable[..., Any], ranges: Ranges, *arguments: Any) -> None:
    """Run ``work(start, stop, *arguments)`` for every range as one Dask task each, and wait."""
    futures = client.map(lambda rows: work(*rows, *arguments), list(ranges), pure=False)
    client.gather(futures)


def copy(start: int, stop: int, url: str, width: int, into: str) -> None:
    """Read a chunk of all columns and write as many bytes as the features have: what the disk allows."""
    from daskml_scale.storage import stores
    from daskml_scale.storage.tables import read_columns

    columns = read_columns(url, (*NUMBERS, *KINDS), start, stop)
    arrays = [np.asarray(getattr(values, "codes", values), dtype="float32") for values in columns.values()]
    block = np.stack([arrays[at % len(arrays)] for at in range(width)], axis=1)
    stores.write_region(into, start, {"features": block})


def rolled(start: int, stop: int, url: str, events: int, window: str, into: str) -> None:
    """Rolling and trailing means of the vehicles of a chunk, by pandas groupby-rolling."""
    table = frame(url, ("time", "vehicle", "vibration", "load"), start, stop).set_index("time")
    groups = table.groupby("vehicle", sort=False)
    by_count = groups["vibration"].rolling(events, min_periods=1).agg(["mean", "std", "max"])
    by_time = groups["load"].rolling(window).mean()
    np.save(Path(into) / f"{start}.npy", np.column_stack([by_count.to_numpy(), by_time.to_numpy()]).astype("float32"))


def joined(start: int, stop: int, left: str, right: str, rows: int, into: str) -> None:
    """The newest fact of the same key, by ``pandas.merge_asof``, for the rows of a chunk."""
    import pandas as pd

    names = ("when", "key", "value")
    facts = frame(right, names, 0, rows).rename(columns={"value": "fact"})
    found = pd.merge_asof(frame(left, ("when", "key"), start, stop), facts, on="when", by="key")
    np.save(Path(into) / f"{start}.npy", found["fact"].to_numpy("float32"))


def by_scikit_learn(url: str, rows: int, into: Path) -> None:
    """Impute, standardize and one-hot in memory, in one process."""
    pipeline, table = _pipeline(), frame(url, (*NUMBERS, *KINDS), 0, rows)
    np.save(into / "features.npy", pipeline.fit_transform(table).astype("float32"))


def _pipeline() -> Any:
    from sklearn.compose import ColumnTransformer
    from sklearn.impute import SimpleImputer
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    numeric = make_pipeline(SimpleImputer(), StandardScaler())
    one_hot = OneHotEncoder(categories=[list(labels) for labels in KINDS.values()], sparse_output=False)
    return ColumnTransformer([("numbers", numeric, list(NUMBERS)), ("kinds", one_hot, list(KINDS))])


def by_dask_ml(client: Any, url: str, ranges: Ranges, into: Path) -> None:
    """The same with dask-ml's transformers on a Dask DataFrame of the same partitions.

    Raises
    ------
    ImportError
        When dask-ml, or what it needs, is not installed.
    """
    import dask.dataframe as dd
    from dask_ml.impute import SimpleImputer
    from dask_ml.preprocessing import DummyEncoder, StandardScaler

    meta = frame(url, (*NUMBERS, *KINDS), 0, 0)
    table = dd.from_map(lambda rows: frame(url, (*NUMBERS, *KINDS), *rows), list(ranges), meta=meta)
    with client.as_current():
        numeric = StandardScaler().fit_transform(SimpleImputer().fit_transform(table[list(NUMBERS)]))
        both = dd.concat([numeric, DummyEncoder().fit_transform(table[list(KINDS)])], axis=1)
        both.astype("float32").to_parquet(str(into / "features"))
