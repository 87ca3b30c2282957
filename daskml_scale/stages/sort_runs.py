"""Stretches of equal values in sorted columns, and which of two keys stands first; NaN is equal to NaN, and last."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np


def stretches(groups: Sequence[np.ndarray], rows: int) -> list[tuple[list[Any], int]]:
    """Return [values, rows] of the stretches of equal values of sorted columns, each of shape (rows,)."""
    if not groups:
        return []
    new = np.zeros(rows, dtype=bool)
    new[0] = True
    for values in groups:
        same = values[1:] == values[:-1]
        if values.dtype.kind == "f":
            same |= np.isnan(values[1:]) & np.isnan(values[:-1])
        new[1:] |= ~same
    starts = np.flatnonzero(new)
    lengths = np.diff([*starts.tolist(), rows]).tolist()
    return [([values[at].item() for values in groups], length) for at, length in zip(starts, lengths, strict=True)]


def joined(runs: Sequence[tuple[list[Any], int]]) -> list[tuple[list[Any], int]]:
    """Return stretches of rows, those of equal values that follow each other as one."""
    found: list[tuple[list[Any], int]] = []
    for values, rows in runs:
        if found and _same(found[-1][0], values):
            found[-1] = (values, found[-1][1] + rows)
        else:
            found.append((values, rows))
    return found


def _same(one: Sequence[Any], other: Sequence[Any]) -> bool:
    return all(a == b or (a != a and b != b) for a, b in zip(one, other, strict=True))


def less(one: Sequence[Any], other: Sequence[Any]) -> bool:
    """Return whether keys stand before others; NaN is last."""
    for a, b in zip(one, other, strict=True):
        if a != a or b != b:
            if (a != a) != (b != b):
                return bool(b != b)
            continue
        if a != b:
            return bool(a < b)
    return False
