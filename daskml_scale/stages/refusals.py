"""Rows of a batch that a model refuses, found at the least cost; all others are predicted in one call. Pure.

scikit-learn refuses a whole matrix for one missing or infinite feature, whatever else is in it. So rows in which the
same features are odd are all refused if one is: one call per kind tells, and a process remembers the answer. The rows
that are refused are then lent the values of a good one, so that one call of the same shape predicts the others: to
the bit what it would give if the bad rows were mended, and no copy of the matrix is made. Only what fails for any
other reason is looked for in halves.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import TypeAlias

import numpy as np

from daskml_scale.errors import PlanError

from .isolate import NOT_A_ROWS_FAULT, REFUSED, BadRows, isolate
from .outputs import MODEL_ERROR

Said: TypeAlias = dict[bytes, str]
"""Kind of row (which of its features are missing and which infinite) -> how a model refuses it; empty: it does not."""
REMEMBERED = 1_024
"""Most kinds that are remembered of one model."""
_NONE = np.empty(0, dtype="int64")


@lru_cache(maxsize=64)
def remembered(*model: str) -> Said:
    """Return what a model is known to refuse in this process, to be added to."""
    return {}


class OtherLength(ValueError):
    """A model left rows out, or made some up."""


def scored(
    call: Callable[[np.ndarray], np.ndarray], X: np.ndarray, rows: np.ndarray, bad: BadRows, said: Said, about: str
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Predict a batch in one call; where that fails, all but what is refused in one; what is left in halves.

    The model gets a read-only view: what an estimator scales in place must not be scaled again when the batch is
    tried once more.

    Parameters
    ----------
    call : callable (array of shape (n, ...)) -> array of shape (n, ...)
    X : ndarray, shape (rows, ...)
        Where it is writeable it belongs to this call; it is as it was afterwards.
    rows : ndarray of int, shape (rows,)
        Row numbers, for the report.
    bad : BadRows
        Receives the rows that cannot be predicted.
    said : dict
        What this model is known to refuse; more is added.
    about : str
        The model, for an error.

    Returns
    -------
    list of (rows, values)
        Rows that ``bad`` received may be among them, with the values of another row.

    Raises
    ------
    PlanError
        When the model joins rows: what it gives for one depends on the others.
    """
    kinds = kinds_of(X) if any(said.values()) else {}
    failed: Exception | None = None
    if not any(said.get(kind) for kind in kinds):
        try:
            return [(rows, call(_read_only(X)))]
        except NOT_A_ROWS_FAULT:
            raise
        except Exception as error:
            failed, kinds = error, kinds or kinds_of(X)
    refused = _NONE
    if failed is None or (kinds and REFUSED.match(_text(failed))):
        refused = _refused(call, X, rows, bad, kinds, said)
    left = np.delete(np.arange(len(X)), refused)
    if len(refused) and len(left):
        try:
            with _lent(X, refused, left[0]) as whole:
                return [(rows, call(whole))]  # to leave rows out costs as much as to predict them
        except NOT_A_ROWS_FAULT:
            raise
        except Exception as error:
            failed = error
    known, done = len(bad.status), []
    odd = np.setdiff1d(np.concatenate([_NONE, *kinds.values()]), refused, assume_unique=True)
    for part in (np.setdiff1d(left, odd, assume_unique=True), odd):
        done += isolate(_on_rows(call, X, part), rows[part], MODEL_ERROR, bad)
    if isinstance(failed, OtherLength) and len(bad.status) == known:
        # Each row alone is right: the model joins rows, and what it gives for one depends on the others.
        raise PlanError(f"{about}: {failed}; it must give one value, or list, per row")
    return done


def _on_rows(
    call: Callable[[np.ndarray], np.ndarray], X: np.ndarray, part: np.ndarray
) -> Callable[[int, int], np.ndarray]:
    return lambda start, stop: call(X[part[start:stop]])


def _refused(
    call: Callable[[np.ndarray], np.ndarray],
    X: np.ndarray,
    rows: np.ndarray,
    bad: BadRows,
    kinds: dict[bytes, np.ndarray],
    said: Said,
) -> np.ndarray:
    """Note the rows that are refused as one like them is; return their positions, rising."""
    found = [_NONE]
    for kind, places in kinds.items():
        text = said.get(kind)
        if text is None:
            text = _answer(call, X[places[:1]])
            if len(said) < REMEMBERED:
                said[kind] = text
        if not text:
            continue
        for row in rows[places].tolist():
            bad.add(row, MODEL_ERROR, text)
        found.append(places)
    return np.sort(np.concatenate(found))


def _answer(call: Callable[[np.ndarray], np.ndarray], row: np.ndarray) -> str:
    """Return how a row is refused for what is missing or infinite in it; empty where it is not for that."""
    try:
        call(row)
    except NOT_A_ROWS_FAULT:
        raise
    except Exception as error:
        return _text(error) if REFUSED.match(_text(error)) else ""
    return ""


@contextmanager
def _lent(X: np.ndarray, refused: np.ndarray, like: int) -> Iterator[np.ndarray]:
    """Give the batch with the values of one row in place of those that are refused."""
    whole = X if X.flags.writeable else X.copy()
    own = whole[refused]
    whole[refused] = whole[like]
    try:
        yield _read_only(whole)
    finally:
        whole[refused] = own


def _read_only(X: np.ndarray) -> np.ndarray:
    view = X.view()
    view.flags.writeable = False
    return view


def _text(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


def kinds_of(X: np.ndarray) -> dict[bytes, np.ndarray]:
    """Return the positions of rows that hold missing or infinite numbers, rising, by which features these are."""
    odd, found = not_finite(X), dict[bytes, list[int]]()
    if len(odd):
        some = X[odd].reshape(len(odd), -1)
        for place, kind in zip(odd.tolist(), np.isnan(some) + 2 * np.isinf(some).astype("uint8"), strict=True):
            found.setdefault(kind.tobytes(), []).append(place)
    return {kind: np.asarray(places) for kind, places in found.items()}


def not_finite(X: np.ndarray) -> np.ndarray:
    """Return the rows that hold a missing or an infinite number, rising.

    The sum of such a row is none; a matrix product finds sums in a quarter of the time of a look at every number.
    """
    if X.dtype.kind != "f" or not X.size:
        return _NONE
    flat = X.reshape(len(X), -1)
    with np.errstate(invalid="ignore", over="ignore"):
        some = np.flatnonzero(~np.isfinite(flat @ np.ones(flat.shape[1], flat.dtype)))
    odd: np.ndarray = ~np.isfinite(flat[some]).all(axis=1)
    return np.asarray(some[odd])  # large numbers may add up to no number too
