"""What a worker does to put rows in order: look at samples, part blocks by range, sort one part.

An external sort by ranges (sample sort, Frazer & McKellar 1970). Samples of all blocks give the borders of the parts;
``split`` lays the rows of some blocks beside the table, those of a part together; ``order`` reads one part out of all
of these, sorts it in memory, and leaves it in pieces of a chunk's length, from which the chunks are written. Rows
that are equal in all columns stay in the order of their files, so the result depends neither on the number of workers
nor on what ends first. A unit holds a few blocks or one part: nothing here may hold the table. What runs when is for
``ingest_sort`` to say.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from daskml_scale.errors import PlanError
from daskml_scale.plan.records import Written
from daskml_scale.plan.units import Unit
from daskml_scale.storage import files, stores, tables

from .ingest_blocks import Reading
from .read_types import Kind
from .sort_files import get, listed, put, put_piece
from .sort_runs import joined, less, stretches

KEPT = 999_999
"""Number of the part that holds rows of the table that are there already."""
REQUESTS = 8
"""Made at a time of a bucket."""


@dataclass(frozen=True)
class Sorting:
    """One sort.

    Attributes
    ----------
    reading : Reading
    first : tuple of int
        Row that each block begins at, before the sort.
    by : tuple of str
        Columns that order the rows.
    out, scratch : str
        URLs of the table, and of the folder for what is on its way.
    chunk : int
        Rows of a piece.
    partitions, samples : int
        Parts that are sorted at a time; rows of a block that are looked at to find their borders.
    kept : tuple of int
        Rows [start, stop) that are in the table already and stand before the sorted ones; equal when there are none.
    grouped : int
        How many of ``by`` are ``partition_by``.
    borders : tuple of ndarray
        Keys, and the place, of the first row of every part but the first.
    splits : tuple of str
        Names of what ``split`` wrote.
    counts : ndarray, shape (splits, partitions)
        Rows of each part in each of them.
    """

    reading: Reading
    first: tuple[int, ...]
    by: tuple[str, ...]
    out: str
    scratch: str
    chunk: int
    partitions: int
    samples: int
    kept: tuple[int, int] = (0, 0)
    grouped: int = 0
    borders: tuple[np.ndarray, ...] = ()
    splits: tuple[str, ...] = ()
    counts: np.ndarray = field(default_factory=lambda: np.empty((0, 0), dtype="int64"))

    @property
    def dtypes(self) -> dict[str, np.dtype[Any]]:
        """Stored type of every column."""
        return {name: np.dtype(kind.dtype) for name, kind in self.reading.kinds.items()}

    def keys(self, columns: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        """Return what orders the rows, from stored columns; missing numbers and times are last, missing texts first."""
        return [_key(columns[name], self.reading.kinds[name]) for name in self.by]


def _key(values: np.ndarray, kind: Kind) -> np.ndarray:
    if kind.kind == "text":
        rank = np.empty(len(kind.labels) + 1, dtype="int64")
        rank[np.argsort(np.array(kind.labels, dtype=object), kind="stable")] = np.arange(len(kind.labels))
        rank[-1] = -1
        return np.asarray(rank[values])
    if kind.kind == "time":
        return np.where(values == tables.NO_TIME, np.iinfo("int64").max, values)
    return values


def run(unit: Unit, work: Sorting) -> Any:
    """Return the result of a unit of the sort."""
    verb, _, rest = unit.key.partition("/")
    if verb == "samples":
        return sample(work, unit.payload)
    if verb == "split":
        return split(work, *unit.payload)
    if rest == "kept":
        region = [work.kept]
        return _written(work, {name: stores.read_region(work.out, name, region) for name in work.dtypes}, KEPT)
    return order(work, unit.payload)


# ---- samples and borders


def sample(work: Sorting, number: int) -> list[list[Any]]:
    """Return the keys of evenly spaced rows of a block, their places, and how many rows each stands for."""
    columns = work.reading.only(work.by).fresh(number)
    rows = len(columns[work.by[0]])
    at = np.unique(np.linspace(0, rows - 1, min(rows, work.samples)).astype("int64")) if rows else np.empty(0, "int64")
    keys = work.keys({name: columns[name][at] for name in work.by})
    return [*(key.tolist() for key in keys), (at + work.first[number]).tolist(), [rows / max(1, len(at))] * len(at)]


def borders(samples: Sequence[Sequence[Sequence[Any]]], work: Sorting) -> tuple[np.ndarray, ...]:
    """Return the keys, and the place, of the first row of every part but the first, from the samples of all blocks."""
    empty = {name: np.empty(0, work.dtypes[name]) for name in work.by}
    kinds = [*(key.dtype for key in work.keys(empty)), np.dtype("int64")]
    columns = [
        np.concatenate([np.asarray(one[place], dtype=kind) for one in samples]) for place, kind in enumerate(kinds)
    ]
    weights = np.concatenate([np.asarray(one[-1], dtype="float64") for one in samples])
    if not len(weights):
        return tuple(column[:0] for column in columns)
    ordered = np.lexsort(tuple(reversed(columns)))
    reached = np.cumsum(weights[ordered])
    wanted = reached[-1] * np.arange(1, work.partitions) / work.partitions
    chosen = ordered[np.minimum(np.searchsorted(reached, wanted), len(ordered) - 1)]
    return tuple(column[chosen] for column in columns)


# ---- rows to their parts


def split(work: Sorting, start: int, stop: int) -> Written:
    """Lay the rows of blocks [start, stop) beside the table, part after part, in each column after column."""
    blocks = [work.reading.fresh(number) for number in range(start, stop)]
    part = np.concatenate([_part(work, start + place, block) for place, block in enumerate(blocks)])
    counts = np.bincount(part, minlength=work.partitions)
    ordered, before = np.argsort(part, kind="stable"), np.concatenate([[0], np.cumsum(counts)])
    width = sum(dtype.itemsize for dtype in work.dtypes.values())
    data, offset = np.empty(len(part) * width, dtype="uint8"), 0
    for name, dtype in work.dtypes.items():
        values = np.concatenate([block.pop(name) for block in blocks])[ordered].astype(dtype, copy=False).view("uint8")
        for number in np.flatnonzero(counts).tolist():
            rows, at = int(counts[number]), int(before[number])
            place = at * width + rows * offset
            data[place : place + rows * dtype.itemsize] = values[at * dtype.itemsize : (at + rows) * dtype.itemsize]
        offset += dtype.itemsize
    name = f"split.{start:06d}"
    return Written(
        listed(work.out, work.scratch, {name: put(work.scratch, name, data.data)}), rows=0, result=counts.tolist()
    )


def _part(work: Sorting, number: int, block: Mapping[str, np.ndarray]) -> np.ndarray:
    """Return the part of every row of a block."""
    rows = len(block[work.by[0]])
    keys = [*work.keys(block), np.arange(work.first[number], work.first[number] + rows, dtype="int64")]
    count = len(work.borders[0])
    both = [np.concatenate([border, key]) for border, key in zip(work.borders, keys, strict=True)]
    ordered = np.lexsort(tuple(reversed(both)))  # a border is the first row of its part, and stands before it
    part = np.empty(len(ordered), dtype="int64")
    part[ordered] = np.cumsum(ordered < count)
    return part[count:]


def _gathered(work: Sorting, number: int) -> dict[str, np.ndarray]:
    """Return the rows of a part, in the order of their files."""
    rows = work.counts[:, number]
    columns = {name: np.empty(int(rows.sum()), dtype) for name, dtype in work.dtypes.items()}
    width = sum(dtype.itemsize for dtype in work.dtypes.values())
    ends = np.cumsum(rows)

    def one(place: int) -> None:
        count, at = int(rows[place]), int(work.counts[place, :number].sum())
        data, offset = get(work.scratch, work.splits[place], at * width, count * width), 0
        for name, dtype in work.dtypes.items():
            columns[name][ends[place] - count : ends[place]] = np.frombuffer(data, dtype, count, offset)
            offset += count * dtype.itemsize

    wanted = np.flatnonzero(rows).tolist()
    if files.is_local(work.scratch):
        for place in wanted:
            one(place)
    else:
        with ThreadPoolExecutor(REQUESTS) as pool:
            list(pool.map(one, wanted))
    return columns


# ---- a part in order


def order(work: Sorting, number: int) -> Written:
    """Sort a part, or all rows where there is only one, and leave it beside the table."""
    if work.partitions > 1:
        columns = _gathered(work, number)
    else:
        blocks = [work.reading.fresh(place) for place in range(len(work.reading.blocks))]
        columns = {
            name: np.concatenate([np.empty(0, dtype), *(block.pop(name) for block in blocks)])
            for name, dtype in work.dtypes.items()
        }
    keys = work.keys(columns)
    if not len(keys[0]):
        return Written({}, rows=0, result={"pieces": [], "runs": []})
    ordered = np.lexsort(tuple(reversed(keys)))
    if work.kept[1]:
        _check_order(work, tuple(key[ordered[0]].item() for key in keys))
    return _written(work, columns, number, ordered)


def _written(
    work: Sorting, columns: Mapping[str, np.ndarray], number: int, ordered: np.ndarray | None = None
) -> Written:
    """Write rows beside the table, a chunk's length at a time."""
    rows, chunks, pieces, runs = len(next(iter(columns.values()))), {}, [], []
    for at in range(0, rows, work.chunk):
        rest = slice(at, min(at + work.chunk, rows))
        chosen = ordered[rest] if ordered is not None else rest
        name, part = f"{number:06d}.{at // work.chunk:06d}", {key: values[chosen] for key, values in columns.items()}
        stored = put_piece(work.scratch, name, part)
        chunks[name] = stored
        pieces.append([name, rest.stop - rest.start, stored[0]])
        runs += stretches([part[column] for column in work.by[: work.grouped]], rest.stop - rest.start)
    found = [[list(values), count] for values, count in joined(runs)] if number != KEPT else []
    return Written(listed(work.out, work.scratch, chunks), rows=0, result={"pieces": pieces, "runs": found})


# ---- what follows the rows of the table


def _check_order(work: Sorting, first: tuple[Any, ...]) -> None:
    """Refuse new rows that stand before the last row of the table."""
    stop = work.kept[1]
    last = {name: stores.read_region(work.out, name, [(stop - 1, stop)]) for name in work.by}
    before = tuple(key[0].item() for key in work.keys(last))
    if less(first, before):
        raise PlanError(
            f"append: the first new row ({_told(work, first)}) comes before the last row of the table "
            f"({_told(work, before)}) in the order of {', '.join(work.by)}; remove `append` to sort all rows anew"
        )


def _told(work: Sorting, keys: Sequence[Any]) -> str:
    shown_keys = []
    for name, key in zip(work.by, keys, strict=True):
        kind = work.reading.kinds[name]
        if kind.kind == "text":
            key = sorted(kind.labels)[key] if key >= 0 else "missing"
        elif kind.kind == "time":
            key = np.datetime64(key, "s" if kind.seconds else "ns")
        shown_keys.append(f"{name} {key}")
    return ", ".join(shown_keys)
