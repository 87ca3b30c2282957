"""The rows that a search stage trains and scores on, split by split. Pure functions of the matrix and a seed."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np

from daskml_scale.spec.base import seconds
from daskml_scale.spec.expressions import Coded, evaluate
from daskml_scale.spec.searching import Folds, Groups, Predefined, Refit, TimeSplit
from daskml_scale.spec.space import seed_from
from daskml_scale.stages.features.stage import FOLD
from daskml_scale.stages.matrix import Matrix

AnySplit: TypeAlias = "TimeSplit | Folds | Groups | Predefined | Refit"
Split: TypeAlias = "tuple[slice | np.ndarray, slice | np.ndarray]"
"""Rows to train on, rows to score on."""


def column_of(split: AnySplit) -> str | None:
    """Return the row-key column that a split reads."""
    if isinstance(split, TimeSplit):
        return split.time.of
    if isinstance(split, Groups):
        return split.group.of
    if isinstance(split, Refit):
        return FOLD
    return split.predefined.of if isinstance(split, Predefined) else None


def count_splits(split: AnySplit) -> int | None:
    """Return how many times each setting is fitted and scored; None where only the data knows."""
    if isinstance(split, Folds):
        return split.kfold.folds
    if isinstance(split, Groups):
        return split.group.folds
    return 1 if isinstance(split, TimeSplit) else None


def make_splits(split: AnySplit, matrix: Matrix, estimator: Any, seed: int) -> list[Split]:
    """Return the rows to train and to score on.

    Raises
    ------
    ValueError
        When one of them has no rows.
    """
    if isinstance(split, TimeSplit):
        return [_by_time(split, matrix)]
    if isinstance(split, Groups):
        from sklearn.model_selection import GroupKFold

        groups = values_of(matrix, split.group.of)
        return list(GroupKFold(split.group.folds).split(matrix.X, matrix.y, groups))
    if isinstance(split, Refit):
        folds = values_of(matrix, FOLD)
        return [(_rows(folds != fold), _rows(folds == fold)) for fold in range(int(folds.max(initial=-1)) + 1)]
    if isinstance(split, Predefined):
        folds = fold_numbers(matrix, split.predefined.of)
        return [(np.flatnonzero(folds != fold), np.flatnonzero(folds == fold)) for fold in _known(folds)]
    return list(_folds(split, estimator, matrix.y, seed).split(matrix.X, matrix.y))


def values_of(matrix: Matrix, column: str) -> np.ndarray:
    """Return a row-key column as an array to group by."""
    values = matrix.keys[column]
    return values.codes if isinstance(values, Coded) else np.asarray(values)


def fold_numbers(matrix: Matrix, column: str) -> np.ndarray:
    """Return the fold of each row; -1 where it is never validated.

    Raises
    ------
    ValueError
        When no row is in a fold.
    """
    values = values_of(matrix, column)
    if values.dtype.kind not in "iuf":
        raise ValueError(f"{column} holds no fold numbers but {values.dtype}; give a column of numbers or categories")
    folds: np.ndarray = np.where(np.isnan(values.astype(float)) | (values < 0), -1, values).astype("int64")
    if not len(_known(folds)):
        raise ValueError(f"no row has a fold number of 0 or more in {column}")
    return folds


def _known(folds: np.ndarray) -> np.ndarray:
    found: np.ndarray = np.unique(folds[folds >= 0])
    return found


def _by_time(split: TimeSplit, matrix: Matrix) -> Split:
    of = split.time.of
    first, last = (evaluate(f"time('{until}')", {}) for until in (split.time.train_until, split.time.validate_until))
    times = np.asarray(matrix.keys[of])
    until = first
    if split.time.embargo is not None:
        until = first - np.timedelta64(round(seconds(split.time.embargo) * 1e9), "ns")
    parts = [_rows(times < until), _rows((times >= first) & (times < last))]
    for rows, said in zip(parts, (f"before {until}", f"from {first} to {last}"), strict=True):
        if isinstance(rows, slice) and rows == slice(0, 0):
            raise ValueError(f"no row with a target has {of} {said}")
    return parts[0], parts[1]


def _folds(split: Folds, estimator: Any, y: np.ndarray, seed: int) -> Any:
    from sklearn.base import is_classifier
    from sklearn.model_selection import KFold, StratifiedKFold
    from sklearn.utils.multiclass import type_of_target

    folds, shuffle = split.kfold.folds, split.kfold.shuffle
    if not shuffle:
        return KFold(folds)
    is_class = is_classifier(estimator) and type_of_target(y) in ("binary", "multiclass")
    return (StratifiedKFold if is_class else KFold)(folds, shuffle=True, random_state=seed_from(seed, "folds"))


def _rows(chosen: np.ndarray) -> slice | np.ndarray:
    """Return rows as a slice where they are contiguous, so that taking them copies nothing."""
    numbers = np.flatnonzero(chosen)
    if not len(numbers):
        return slice(0, 0)
    first, stop = int(numbers[0]), int(numbers[-1]) + 1
    return slice(first, stop) if stop - first == len(numbers) else numbers
