"""Rows between the steps of a pipeline: which kinds can be kept, their copies, their bytes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np


def can_be_copied(rows: Any) -> bool:
    """Return whether rows are of a kind that is kept: arrays, sparse matrices, frames."""
    from scipy import sparse

    return (type(rows) is np.ndarray and rows.dtype != object) or sparse.issparse(rows) or _is_frame(rows)


def copied(rows: Any) -> Any:
    """Return a copy in the same layout: another one changes the last bits of sums."""
    return rows.copy(order="K") if type(rows) is np.ndarray else rows.copy()


def _is_frame(rows: Any) -> bool:
    return type(rows).__module__.partition(".")[0] == "pandas" and hasattr(rows, "memory_usage")


def size_of(found: tuple[Any, Any, float]) -> int:
    """Return the bytes of kept rows and of the step that made them (about)."""
    rows, fitted, _ = found
    return _bytes(rows) + sum(map(_bytes, vars(fitted).values() if hasattr(fitted, "__dict__") else ()))


def _bytes(value: Any) -> int:
    if _is_frame(value):
        return int(np.sum(value.memory_usage(deep=True)))
    if isinstance(value, dict):
        return 200 * len(value)
    arrays: Sequence[Any] = [getattr(value, name, None) for name in ("data", "indices", "indptr")]
    if isinstance(value, np.ndarray):
        return int(value.nbytes)
    return sum(int(each.nbytes) for each in arrays if isinstance(each, np.ndarray)) or 100
