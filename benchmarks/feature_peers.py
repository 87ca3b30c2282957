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


def in_partitions(client: Any, work: Callable[..., Any], ranges: Ranges, *arguments: Any, **shared: Any) -> None:
    """Run ``work(start, stop, *arguments)`` for every range as one Dask task each, and wait; ``shared`` lie there."""
    each = lambda rows, **there: work(*rows, *arguments, **there)  # noqa: E731
    client.gather(client.map(each, list(ranges), pure=False, **shared))


def copy(start: int, stop: int, url: str, width: int, into: str) -> None:
    """Read a chunk of all columns and write as many bytes as the features have: what the disk allows."""
    from daskml_scale.storage import stores
    from daskml_scale.storage.tables import read_columns

    columns = read_columns(url, (*NUMBERS, *KINDS), start, stop)
    arrays = [np.asarray(getattr(values, "codes", values), dtype="float32") for values in columns.values()]
    block = np.stack([arrays[at % len(arrays)] for at in range(width)], axis=1)
    stores.write_region(into, start, {"features": block})


def rolled(start: int, stop: int, url: str, events: int, window: str, into: str) -> None:
    """Rolling and trailing means of the vehicles of a chunk, by pandas groupby-rolling.

    Columns grouped by an array, and a call for each statistic, are a tenth faster than a table grouped by a column, and
    ``agg`` with a list.
    """
    table = frame(url, ("time", "vehicle", "vibration", "load"), start, stop).set_index("time")
    vehicle = table["vehicle"].to_numpy()
    by_count = table["vibration"].groupby(vehicle, sort=False).rolling(events, min_periods=1)
    by_time = table["load"].groupby(vehicle, sort=False).rolling(window)
    made = [by_count.mean(), by_count.std(), by_count.max(), by_time.mean()]
    features = np.column_stack([each.to_numpy() for each in made]).astype("float32")
    _save(into, start, features=features, time=table.index.to_numpy(), vehicle=vehicle)


def joined_all(client: Any, ranges: Ranges, left: str, right: str, rows: int, into: str) -> None:
    """The newest fact of the same key for all rows: the facts are read once, and sent to every worker."""
    facts = frame(right, ("when", "key", "value"), 0, rows).rename(columns={"value": "fact"})
    there = client.scatter(facts, broadcast=True, hash=False)
    in_partitions(client, joined, ranges, left, into, facts=there)


def joined(start: int, stop: int, left: str, into: str, *, facts: Any) -> None:
    """The newest fact of the same key, by ``pandas.merge_asof``, for the rows of a chunk."""
    import pandas as pd

    found = pd.merge_asof(frame(left, ("when", "key"), start, stop), facts, on="when", by="key")
    _save(into, start, features=found["fact"].to_numpy("float32"), when=found["when"].to_numpy())


def _save(into: str, start: int, **arrays: np.ndarray) -> None:
    """Write features and the keys of their rows, which ours have too, as plain files."""
    for name, array in arrays.items():
        np.save(Path(into) / f"{start}-{name}.npy", array)


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
