"""Stored rows chunk by chunk, not read yet, and models that are judged block by block.

A chunk is a stored object (shard, else chunk) of X. No process holds more rows of X than those of one, so X may
be larger than the memory of a worker; y and the row numbers of the splits are in memory. In which order the
chunks of a split are given to a model depends on the split's number only. Nothing here decides how many.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from functools import wraps
from typing import Any

import numpy as np

from .stored import StoredRows

RESPONSES = ("predict", "predict_proba", "predict_log_proba", "decision_function")


class View:
    """Some rows of a stored array, not read yet.

    Parameters
    ----------
    stored : StoredRows
    parts : sequence of array of int
        Row numbers, those of one stored object together.
    """

    def __init__(self, stored: StoredRows, parts: Sequence[np.ndarray]) -> None:
        self.stored, self.parts = stored, list(parts)
        self.shape = (sum(map(len, self.parts)), *stored.shape[1:])
        self.ndim, self.dtype = stored.ndim, stored.dtype

    def __len__(self) -> int:
        return self.shape[0]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.concatenate(list(self.blocks())).astype(dtype or self.dtype, copy=False)

    def blocks(self) -> Iterator[np.ndarray]:
        """Yield the rows, part by part."""
        for part in self.parts:
            yield self.stored[part]


def chunk_rows(stored: StoredRows, train: Any, split: int) -> list[np.ndarray]:
    """Return the rows to train on by chunk, in the order in which a model gets them."""
    rows = numbers_of(train)
    parts = by_chunk(stored, np.sort(rows))
    return [parts[place] for place in np.random.RandomState(split).permutation(len(parts))]


def by_chunk(stored: StoredRows, rows: np.ndarray) -> list[np.ndarray]:
    """Return row numbers as runs that lie in one stored object each, in their order."""
    return [part for part in np.split(rows, np.flatnonzero(np.diff(rows // stored.step)) + 1) if len(part)]


def numbers_of(rows: Any) -> np.ndarray:
    """Return row numbers; a mask becomes numbers."""
    found = np.asarray(rows)
    return np.flatnonzero(found) if found.dtype == bool else found


def some(parts: Sequence[np.ndarray], start: int, stop: int) -> list[np.ndarray]:
    """Return the chunks ``start`` to ``stop`` of a model's way; after the last one comes the first again."""
    return [parts[number % len(parts)] for number in range(start, stop)]


def in_blocks(model: Any) -> Any:
    """Return a model that predicts the rows of a `View` part by part, and is the same else."""
    shown = copy.copy(model)
    for name in RESPONSES:
        method = getattr(model, name, None)
        if method is not None:
            setattr(shown, name, _joined(method))
    return shown


def _joined(method: Any) -> Any:
    @wraps(method)  # scorers ask for its name
    def joined(X: Any, **more: Any) -> Any:
        if not isinstance(X, View):
            return method(X, **more)
        return np.concatenate([method(rows, **more) for rows in X.blocks()])

    return joined
