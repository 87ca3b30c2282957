"""Rows that are equal in some columns: found by value, in memory that is bounded by sharing rows by their hash."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from daskml_scale.plan.units import row_ranges
from daskml_scale.spec.expressions import Coded
from daskml_scale.storage import tables

_BLOCK = 1_000_000
"""Rows read at a time."""


def duplicates(url: str, names: Sequence[str], rows: int, part: int, parts: int) -> dict[str, Any]:
    """Return how many rows have an equal, the first such row, and its values.

    Parameters
    ----------
    url : str
        Of the table.
    names : sequence of str
        Columns; missing values are equal to each other.
    part, parts : int
        Of the rows those whose hash is ``part`` modulo ``parts``: equal rows meet in one part.
    """
    import pandas as pd

    kept, places = [], []
    for start, stop in row_ranges(rows, _BLOCK):
        columns = tables.read_columns(url, names, start, stop)
        frame = pd.DataFrame({name: getattr(values, "codes", values) for name, values in columns.items()})
        place = np.arange(start, stop)
        if parts > 1:
            mine = pd.util.hash_pandas_object(frame, index=False).to_numpy() % np.uint64(parts) == part
            frame, place = frame[mine], place[mine]
        kept.append(frame)
        places.append(place)
    if not kept:
        return {"count": 0}
    twice = pd.concat(kept, ignore_index=True).duplicated(keep=False).to_numpy()
    if not twice.any():
        return {"count": 0}
    row = int(np.concatenate(places)[np.flatnonzero(twice)[0]])
    return {"count": int(twice.sum()), "row": row, "shown": _shown(url, names, row)}


def _shown(url: str, names: Sequence[str], row: int) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, values in tables.read_columns(url, names, row, row + 1).items():
        if isinstance(values, Coded):
            found[name] = values.labels[values.codes[0]] if values.codes[0] >= 0 else None
        else:
            found[name] = str(values[0])
    return found
