"""How many rows go to a device at a time: doubled while that pays, halved when they do not fit.

`after` and `too_large` decide, and are pure; `in_batches` calls. What was learnt belongs to a loaded model and
lasts as long as its process.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

FIRST = 256
"""Rows of the first batch."""
GAIN = 0.05
"""A doubling that makes less than this share more rows per second was the last."""
MOST = 1 << 24


@dataclass(frozen=True, slots=True)
class Batches:
    """What is known of a model on its device.

    Attributes
    ----------
    rows : int
        Of the next batch.
    rate : float
        Rows per second of the batches before the last doubling; 0 at first.
    settled : bool
        Whether ``rows`` stays, out of memory aside.
    """

    rows: int = FIRST
    rate: float = 0.0
    settled: bool = False


def after(state: Batches, rows: int, seconds: float) -> Batches:
    """Return the state after a batch of ``rows`` took ``seconds``; one that was not full tells nothing."""
    if state.settled or rows < state.rows:
        return state
    rate = rows / max(seconds, 1e-9)
    if rate < state.rate * (1 + GAIN):
        return replace(state, rows=max(1, state.rows // 2), settled=True)
    if state.rows * 2 > MOST:
        return replace(state, rate=rate, settled=True)
    return Batches(state.rows * 2, rate)


def too_large(state: Batches) -> Batches | None:
    """Return the state after a batch that did not fit; ``None`` when it was a single row."""
    return None if state.rows <= 1 else Batches(state.rows // 2, state.rate, settled=True)


def in_batches(
    call: Callable[[np.ndarray], np.ndarray],
    X: np.ndarray,
    state: Batches,
    out_of_memory: type[BaseException] | tuple[type[BaseException], ...],
    clock: Callable[[], float] = time.perf_counter,
) -> tuple[np.ndarray, Batches]:
    """Call a function on all rows, batch by batch; return its values and what was learnt.

    Parameters
    ----------
    call : callable (rows, ...) -> array (rows, ...)
    X : ndarray, shape (rows, ...)
    state : Batches
    out_of_memory : exception class, or several
        What ``call`` raises when a batch does not fit.

    Raises
    ------
    BaseException
        Of ``out_of_memory``, when a single row does not fit.
    """
    parts: list[np.ndarray] = []
    start = 0
    while start < len(X) or not parts:
        some = X[start : start + state.rows]
        began = clock()
        try:
            parts.append(call(some))
        except out_of_memory:
            smaller = too_large(replace(state, rows=min(state.rows, max(1, len(some)))))
            if smaller is None:
                raise
            state = smaller
            continue
        state = after(state, len(some), clock() - began)
        start += len(some)
    return (parts[0] if len(parts) == 1 else np.concatenate(parts)), state
