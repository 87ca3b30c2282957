"""Statistics by group, joined back to rows: what is kept of a chunk, learnt, and made of a row.

Moments of every group (and fold) merge by Chan, Golub & LeVeque (1983) in the order of the units. Groups are
known by the values of their columns, categories by label; a group with a missing part is none. Infinite values
do not count, like missing ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from daskml_scale.errors import DaskMLError
from daskml_scale.plan.records import digest
from daskml_scale.spec.expressions import Coded, Values
from daskml_scale.spec.steps_learned import Aggregate

from .kernels import numbers
from .keys import Keys
from .summary import pack, unpack
from .target_mean import folds_of

GROUPS = 100_000
"""Most groups whose statistics are kept."""


@dataclass(frozen=True, eq=False)
class Cells:
    """Moments of cells, float64 arrays of one shape; the extremes of an empty cell are NaN."""

    count: np.ndarray
    mean: np.ndarray
    squares: np.ndarray
    low: np.ndarray
    high: np.ndarray

    @classmethod
    def empty(cls, *shape: int) -> Cells:
        zero, nan = np.zeros(shape), np.full(shape, np.nan)
        return cls(zero, zero, zero, nan, nan)

    @classmethod
    def of(cls, values: np.ndarray, cell: np.ndarray, size: int) -> Cells:
        """Return the moments of finite values, each in a cell numbered from 0."""
        count = np.bincount(cell, minlength=size).astype("float64")
        with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
            mean = np.where(count > 0, np.bincount(cell, values, minlength=size) / count, 0.0)
            squares = np.bincount(cell, np.square(values - mean[cell]), minlength=size)
        low, high = np.full(size, np.nan), np.full(size, np.nan)
        np.fmin.at(low, cell, values)
        np.fmax.at(high, cell, values)
        return cls(count, mean, squares, low, high)

    def merged(self, other: Cells) -> Cells:
        """Return the moments of both, cell by cell, this one's values first."""
        count = self.count + other.count
        share = np.where(count > 0, other.count / np.maximum(count, 1), 0.0)
        delta = other.mean - self.mean
        with np.errstate(over="ignore", invalid="ignore"):
            mean = np.where(self.count > 0, self.mean + delta * share, other.mean)
            squares = self.squares + other.squares + np.where(
                (self.count > 0) & (other.count > 0), delta * delta * self.count * share, 0.0
            )  # fmt: skip
        return Cells(count, mean, squares, np.fmin(self.low, other.low), np.fmax(self.high, other.high))

    def statistic(self, stat: str) -> np.ndarray:
        """Return a statistic of every cell, NaN where there is none."""
        if stat == "count":
            return self.count
        with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
            found = {
                "mean": self.mean, "sum": self.mean * self.count, "min": self.low, "max": self.high,
                "std": np.sqrt(self.squares / (self.count - 1)),
            }[stat]  # fmt: skip
            return np.where(self.count > (stat == "std"), found, np.nan)

    def pack(self) -> list[str]:
        return [pack(array.ravel()) for array in vars(self).values()]

    @classmethod
    def unpack(cls, value: Sequence[str], folds: int) -> Cells:
        return cls(*(unpack(text, "float64").reshape(folds, -1) for text in value))


def _folds(step: Aggregate) -> int:
    return step.folds if step.fold_by else 1


def scan(step: Aggregate, columns: Mapping[str, Values]) -> dict[str, Any]:
    """Return the groups of a chunk and their moments by fold: a JSON value."""
    by = [columns[name] for name in step.by]
    rows = len(by[0])
    keys = Keys(by, rows)
    if keys.size > GROUPS:
        return {"crowded": True}
    present = np.flatnonzero(keys.own >= 0)
    first = np.zeros(keys.size, dtype="int64")
    first[keys.own[present][::-1]] = present[::-1]
    fold = folds_of(columns[step.fold_by], step.folds) if step.fold_by else np.zeros(rows, dtype="int64")
    found: dict[str, Any] = {"keys": [packed(column[first]) for column in by], "of": {}}
    for name in step.of:
        values = numbers(columns[name])
        used = present[np.isfinite(values[present])]
        cell = fold[used] * keys.size + keys.own[used]
        found["of"][name] = Cells.of(values[used], cell, _folds(step) * keys.size).pack()
    return found


def packed(column: Values) -> Any:
    if isinstance(column, Coded):
        return {"labels": [column.labels[code] for code in column.codes]}
    if column.dtype.kind == "M":
        return {"times": pack(column.astype("datetime64[ns]").view("int64"))}
    kind = "float64" if column.dtype.kind == "f" else "int64"
    return {kind: pack(column.astype(kind))}


def joined_columns(parts: Sequence[Mapping[str, Any]]) -> Values:
    """Join the key columns of several chunks."""
    kinds = {kind for part in parts for kind in part}
    if kinds <= {"labels"}:
        labels = tuple(sorted({label for part in parts for label in part["labels"]}))  # whatever the chunks
        code = {label: number for number, label in enumerate(labels)}
        return Coded(np.array([code[label] for part in parts for label in part["labels"]], dtype="int64"), labels)
    arrays = [
        unpack(text, "float64" if kind == "float64" else "int64") for part in parts for kind, text in part.items()
    ]
    joined = np.concatenate(arrays)
    return joined.view("datetime64[ns]") if kinds == {"times"} else joined


def learn(step: Aggregate, position: int, parts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the groups of all chunks and the statistics that their rows of each fold get.

    Raises
    ------
    DaskMLError
        When there are too many groups.
    """
    folds = _folds(step)
    crowded = any(part.get("crowded") for part in parts)
    if parts and not crowded:
        columns = [joined_columns([part["keys"][number] for part in parts]) for number in range(len(step.by))]
        keys = Keys(columns, len(columns[0]))
        crowded = keys.size > GROUPS
    if crowded:
        raise DaskMLError(
            f"steps[{position}].aggregate: more than {GROUPS:,} groups by {', '.join(step.by)}, too many to keep; "
            "group by fewer columns, or use trailing, which looks at earlier rows and keeps nothing"
        )
    if not parts or not len(columns[0]):
        return {"keys": [], "of": {}, "id": ""}
    first = np.zeros(keys.size, dtype="int64")
    first[keys.own[::-1]] = np.arange(len(keys.own))[::-1]
    learnt: dict[str, Any] = {"keys": [packed(column[first]) for column in columns], "of": {}}
    for name in step.of:
        total, done = Cells.empty(folds, keys.size), 0
        for part in parts:
            found = Cells.unpack(part["of"][name], folds)
            own = keys.own[done : done + found.count.shape[1]]
            done += len(own)
            total = _added(total, found, own)
        learnt["of"][name] = {stat: pack(_others(total).statistic(stat).ravel()) for stat in step.stats}
    return {**learnt, "id": digest(learnt)}


def _added(total: Cells, part: Cells, own: np.ndarray) -> Cells:
    """Merge the cells of a chunk into those of its groups."""
    both = Cells(*(array[:, own] for array in vars(total).values())).merged(part)
    made = {name: array.copy() for name, array in vars(total).items()}
    for name, array in vars(both).items():
        made[name][:, own] = array
    return Cells(**made)


def _others(total: Cells) -> Cells:
    """Return for each fold the moments of the other folds, merged without it: what is taken off leaves no rounding."""
    folds, groups = total.count.shape
    if folds == 1:
        return total
    rows = []
    for left_out in range(folds):
        found = Cells.empty(groups)
        for fold in range(folds):
            if fold != left_out:
                found = found.merged(Cells(*(array[fold] for array in vars(total).values())))
        rows.append(found)
    return Cells(*(np.stack(arrays) for arrays in zip(*(vars(row).values() for row in rows), strict=True)))


@dataclass(frozen=True, eq=False)
class Groups:
    """What was learnt, ready for rows; made once per process."""

    keys: Keys | None
    of: Mapping[str, Mapping[str, np.ndarray]]

    @classmethod
    def of_learnt(cls, step: Aggregate, learnt: Mapping[str, Any]) -> Groups:
        if not learnt["keys"]:
            return cls(None, {})
        columns = [joined_columns([part]) for part in learnt["keys"]]
        keys = Keys(columns, len(columns[0]))
        order = np.argsort(keys.own)  # the number of a group in the keys -> its place in what was learnt
        return cls(
            keys,
            {
                name: {
                    stat: unpack(text, "float64").reshape(_folds(step), -1)[:, order] for stat, text in stats.items()
                }
                for name, stats in learnt["of"].items()
            },
        )

    @property
    def nbytes(self) -> int:
        own = 0 if self.keys is None else 3 * self.keys.own.nbytes
        return own + sum(array.nbytes for stats in self.of.values() for array in stats.values())


def encode(step: Aggregate, groups: Groups, columns: Mapping[str, Values]) -> list[np.ndarray]:
    """Return the statistics of each row's group, float64, each of shape (rows,)."""
    by = [columns[name] for name in step.by]
    rows = len(by[0])
    absent = [0.0 if stat == "count" else np.nan for _ in step.of for stat in step.stats]
    if groups.keys is None:
        return [np.full(rows, value) for value in absent]
    own = groups.keys.encode(by, rows)
    fold = folds_of(columns[step.fold_by], step.folds) if step.fold_by else np.zeros(rows, dtype="int64")
    tables = [groups.of[name][stat] for name in step.of for stat in step.stats]
    return [
        np.where(own >= 0, table[fold, np.maximum(own, 0)], value) for table, value in zip(tables, absent, strict=True)
    ]
