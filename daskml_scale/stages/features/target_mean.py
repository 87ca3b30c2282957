"""Means of the target by category, out of fold: what is kept of a chunk, learnt, and made of a row.

A row's fold depends on one value of the row, not on its place: it is the same in every table, chunking and
run. Sums and counts of each fold are added over chunks; an encoding adds those of all folds but the row's own.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from daskml_scale.errors import DaskMLError
from daskml_scale.spec.expressions import Coded, Values, missing
from daskml_scale.spec.steps_categories import TargetMean

LABELS = 100_000
"""Most categories whose means are kept."""
ALL = ""
"""Key of the sums of all rows, beside those of the names."""


def folds_of(column: Values, folds: int) -> np.ndarray:
    """Return the fold of each row, from 0; rows of equal values are in one fold, missing ones in the first."""
    if isinstance(column, Coded):
        digests = [hashlib.blake2b(label.encode(), digest_size=8).digest() for label in column.labels]
        table = np.array([int.from_bytes(digest, "little") % folds for digest in digests] + [0])
        return np.asarray(table[np.where(column.codes < 0, -1, column.codes)])
    if column.dtype.kind == "M":
        bits = column.astype("datetime64[ns]").view("uint64")
    else:
        bits = (column.astype("float64") + 0.0).view("uint64")  # -0.0 becomes 0.0
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):  # Steele et al. 2014, splitmix64
        bits = (bits ^ (bits >> np.uint64(shift))) * np.uint64(factor)
    found = ((bits ^ (bits >> np.uint64(31))) % np.uint64(folds)).astype("int64")
    return np.asarray(np.where(missing(column), 0, found))


def scan(step: TargetMean, columns: Mapping[str, Values], target: np.ndarray) -> dict[str, Any]:
    """Return [counts, sums] per fold of all rows with a target, and of each category: a JSON value."""
    present = np.isfinite(target)
    target, fold = target[present], folds_of(columns[step.fold_by][present], step.folds)
    found: dict[str, Any] = {ALL: _sums(np.zeros(len(fold), dtype="int64"), 1, fold, target, step.folds)[0]}
    for name in step.of:
        column = columns[name][present]
        assert isinstance(column, Coded)
        here = column.codes >= 0
        sums = _sums(column.codes[here].astype("int64"), len(column.labels), fold[here], target[here], step.folds)
        seen = zip(column.labels, sums, strict=True)
        found[f"of {name}"] = {label: value for label, value in seen if any(value[0])}
    return found


def _sums(codes: np.ndarray, size: int, fold: np.ndarray, target: np.ndarray, folds: int) -> list[list[list[float]]]:
    at, cells = codes * folds + fold, size * folds
    count = np.bincount(at, minlength=cells).reshape(size, folds)
    total = np.bincount(at, target, minlength=cells).reshape(size, folds)
    return [[c.astype("float64").tolist(), t.tolist()] for c, t in zip(count, total, strict=True)]


def learn(step: TargetMean, parts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the encoding of every category for the rows of each fold, and the mean that stands for the others."""
    nothing = np.zeros((2, step.folds))
    everything = _others(sum((np.asarray(part[ALL]) for part in parts), nothing))
    with np.errstate(invalid="ignore"):
        mean = np.where(everything[0] > 0, everything[1] / everything[0], 0.0)
    learnt: dict[str, Any] = {ALL: mean.tolist()}
    for name in step.of:
        total: dict[str, np.ndarray] = {}
        for part in parts:
            for label, value in part[f"of {name}"].items():
                total[label] = total.get(label, nothing) + np.asarray(value)
        if len(total) > LABELS:
            raise DaskMLError(
                f"target_mean: {name!r} has {len(total):,} categories, more than {LABELS:,}, too many to keep; use "
                "hashing, or trailing with match:, which keeps nothing"
            )
        learnt[f"of {name}"] = {label: _smoothed(step, _others(total[label]), mean) for label in sorted(total)}
    return learnt


def _others(sums: np.ndarray) -> np.ndarray:
    """Return for each fold the sum over the other folds, added without it: what is taken off leaves no rounding."""
    folds = np.arange(sums.shape[1])
    return np.stack([sums[:, folds != fold].sum(axis=1) for fold in folds], axis=1)


def _smoothed(step: TargetMean, others: np.ndarray, mean: np.ndarray) -> list[float]:
    with np.errstate(invalid="ignore", divide="ignore"):
        value = (others[1] + step.smooth * mean) / (others[0] + step.smooth)
    return [float(found) for found in np.where(others[0] > 0, value, mean)]


def encode(step: TargetMean, columns: Mapping[str, Values], learnt: Mapping[str, Any]) -> list[np.ndarray]:
    """Return the encodings, float64, each of shape (rows,)."""
    fold, features = folds_of(columns[step.fold_by], step.folds), []
    for name in step.of:
        column = columns[name]
        assert isinstance(column, Coded)
        known = learnt[f"of {name}"]
        table = np.array([*(known.get(label, learnt[ALL]) for label in column.labels), learnt[ALL]])
        features.append(table[np.where(column.codes < 0, -1, column.codes), fold])
    return features
