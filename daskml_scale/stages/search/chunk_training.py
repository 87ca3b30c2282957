"""Models that learn from stored rows chunk by chunk, by ``partial_fit``: in memory are the rows of one chunk."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ._compat import params_of
from .chunks import View, chunk_rows, some
from .stored import StoredRows


def train(model: Any, X: View, y: Any, more: Mapping[str, Any], classes: Any) -> Any:
    """Give the parts of X to ``partial_fit``, one after the other; return the model."""
    known, at = ({} if classes is None else {"classes": classes}), 0
    for rows in X.blocks():
        of = np.arange(at, at + len(rows))
        given = () if y is None else (np.asarray(y)[of],)
        model.partial_fit(rows, *given, **known, **params_of(X, more, of))
        at += len(rows)
    return model


def train_on_all(model: Any, X: StoredRows, y: Any, passes: float, more: Mapping[str, Any], classes: Any) -> Any:
    """Give all chunks of X to ``partial_fit``, so many times; return the model.

    Parameters
    ----------
    passes : float
        0.5 is half of the chunks.
    """
    parts = chunk_rows(X, np.arange(len(X)), 0)
    given = some(parts, 0, max(1, round(passes * len(parts))))
    rows = np.concatenate(given)
    return train(model, View(X, given), None if y is None else np.asarray(y)[rows], params_of(X, more, rows), classes)
