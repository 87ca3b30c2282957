"""Rows in the order of columns, for tables beyond memory: an external sort through Dask's own shuffle.

Samples of all blocks give the borders of the partitions; ``set_index`` with these known divisions brings every row to
its partition (on a cluster by Dask's P2P shuffle, which spills to the disks of the workers; in one process
through a folder); each partition is sorted in memory and left beside the table in pieces of a chunk's length,
from which the chunks are written. Rows that are equal in all columns stay in the order of their files, so the
result depends neither on the number of workers nor on what arrives first.

The shuffle is one unit: it is repeated whole when it is interrupted. Its progress is told to the scheduler as a
backlog of its own, so that a cluster that follows the backlog does not shrink beneath it.
"""

from __future__ import annotations

import io
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from daskml_scale.errors import PlanError
from daskml_scale.plan.records import Written
from daskml_scale.storage import files, stores, tables
from daskml_scale.storage.backend import hash_bytes

from .ingest_blocks import Pieces, Reading
from .read_types import Kind

PARTITION = 64 << 20
"""Bytes of a partition, decoded: what is sorted at a time."""
_SAMPLES = 200
"""Rows of a block that are looked at to find the borders."""
KEPT = "999999"
"""Begins the names of pieces of rows that are in the table already."""
MAX_PARTITIONS = 100_000
"""Most distinct values of ``partition_by``: the rows of each are listed beside the table."""


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
        URLs of the table, and of the folder for the pieces.
    chunk : int
        Rows of a piece.
    partitions : int
    kept : tuple of int
        Rows [start, stop) that are in the table already and stand before the sorted ones; equal when there are none.
    grouped : int
        How many of ``by`` are ``partition_by``.
    """

    reading: Reading
    first: tuple[int, ...]
    by: tuple[str, ...]
    out: str
    scratch: str
    chunk: int
    partitions: int
    kept: tuple[int, int] = (0, 0)
    grouped: int = 0

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self.reading.kinds)

    def keys(self, columns: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        """Return what orders the rows, from stored columns; missing numbers and times are last, missing texts first."""
        return [_key(columns[name], self.reading.kinds[name]) for name in self.by]

    def write(self, columns: Mapping[str, np.ndarray], partition: int) -> list[Piece]:
        """Write sorted rows beside the table, a chunk's length at a time."""
        rows = len(next(iter(columns.values()))) if columns else 0
        return [
            self._write_one({name: values[at : at + self.chunk] for name, values in columns.items()}, partition, at)
            for at in range(0, rows, self.chunk)
        ]

    def _write_one(self, columns: dict[str, np.ndarray], partition: int, at: int) -> Piece:
        import pyarrow as pa

        batch = pa.record_batch({name: np.ascontiguousarray(values) for name, values in columns.items()})
        target = io.BytesIO()
        with pa.ipc.new_stream(target, batch.schema) as writer:
            writer.write_batch(batch)
        name, data = f"{partition:06d}.{at // self.chunk:06d}", target.getbuffer()
        size, stamp = files.backend(self.scratch).write(files.join(self.scratch, name), data, durable=False)
        groups = [columns[name] for name in self.by[: self.grouped]]
        keys = self.keys(columns)
        ends = (tuple(key[0].item() for key in keys), tuple(key[-1].item() for key in keys))
        return Piece(name, len(batch), (hash_bytes(data), size, stamp), _runs(groups, len(batch)), ends)


@dataclass(frozen=True)
class Piece:
    """Sorted rows that lie beside the table.

    Attributes
    ----------
    stored : tuple
        (digest, size, stamp) of the object.
    runs : list of (values of ``partition_by``, rows)
    ends : pair of tuple
        Keys of the first and of the last row.
    """

    name: str
    rows: int
    stored: tuple[str, int, int]
    runs: list[tuple[list[Any], int]]
    ends: tuple[tuple[Any, ...], tuple[Any, ...]]


def _key(values: np.ndarray, kind: Kind) -> np.ndarray:
    if kind.kind == "text":
        rank = np.empty(len(kind.labels) + 1, dtype="int64")
        rank[np.argsort(np.array(kind.labels, dtype=object), kind="stable")] = np.arange(len(kind.labels))
        rank[-1] = -1
        return np.asarray(rank[values])
    if kind.kind == "time":
        return np.where(values == tables.NO_TIME, np.iinfo("int64").max, values)
    return values


def _runs(groups: Sequence[np.ndarray], rows: int) -> list[tuple[list[Any], int]]:
    """Return the stretches of equal values of sorted columns."""
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


def count(nbytes: int) -> int:
    """Return the partitions of a table of so many bytes."""
    return max(1, -(-nbytes // PARTITION))


def sort(work: Sorting) -> Written:
    """Sort the rows of all blocks and leave them beside the table; runs on a worker, or in this process."""
    files.remove(work.scratch)
    pieces = [] if work.kept[0] == work.kept[1] else _kept(work)
    with _client() as client:
        pieces += _in_memory(work) if work.partitions == 1 else _shuffled(work, client)
    if work.kept[1]:
        _check_order(work, pieces)
    place = f"../{work.scratch.rpartition('/')[2]}"
    runs = joined([run for piece in pieces if not piece.name.startswith(KEPT) for run in piece.runs])
    if len(runs) > MAX_PARTITIONS:
        raise PlanError(
            f"row.partition_by: {len(runs):,} distinct values, more than {MAX_PARTITIONS:,}; name the column in "
            "`sort_by` instead"
        )
    listed = [[piece.name, piece.rows, piece.stored[0]] for piece in pieces]
    chunks = {f"{place}/{piece.name}": piece.stored for piece in pieces}
    return Written(chunks, rows=0, result={"pieces": listed, "runs": [[list(values), rows] for values, rows in runs]})


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


def _kept(work: Sorting) -> list[Piece]:
    """Copy the rows of the last chunk, which the new rows will fill: it can then be written again at any time."""
    region = [work.kept]
    found = {name: stores.read_region(work.out, name, region) for name in work.names}
    return work.write(found, int(KEPT))


def _check_order(work: Sorting, pieces: Sequence[Piece]) -> None:
    new = [piece for piece in pieces if not piece.name.startswith(KEPT)]
    if not new:
        return
    stop = work.kept[1]
    last = {name: stores.read_region(work.out, name, [(stop - 1, stop)]) for name in work.by}
    before = tuple(key[0].item() for key in work.keys(last))
    if _less(new[0].ends[0], before):
        raise PlanError(
            f"append: the first new row ({_told(work, new[0].ends[0])}) comes before the last row of the table "
            f"({_told(work, before)}) in the order of {', '.join(work.by)}; remove `append` to sort all rows anew"
        )


def _less(one: Sequence[Any], other: Sequence[Any]) -> bool:
    """Return whether keys stand before others; NaN is last."""
    for a, b in zip(one, other, strict=True):
        if a != a or b != b:
            if (a != a) != (b != b):
                return bool(b != b)
            continue
        if a != b:
            return bool(a < b)
    return False


def _told(work: Sorting, keys: Sequence[Any]) -> str:
    shown = []
    for name, key in zip(work.by, keys, strict=True):
        kind = work.reading.kinds[name]
        if kind.kind == "text":
            key = sorted(kind.labels)[key] if key >= 0 else "missing"
        elif kind.kind == "time":
            key = np.datetime64(key, "s" if kind.seconds else "ns")
        shown.append(f"{name} {key}")
    return ", ".join(shown)


def _in_memory(work: Sorting) -> list[Piece]:
    blocks = [work.reading.encoded(number) for number in range(len(work.reading.blocks))]
    empty = {name: np.empty(0, dtype=kind.dtype) for name, kind in work.reading.kinds.items()}
    columns = {name: np.concatenate([empty[name], *(block[name] for block in blocks)]) for name in work.names}
    order = np.lexsort(tuple(reversed(work.keys(columns))))
    return work.write({name: values[order] for name, values in columns.items()}, 0)


@contextmanager
def _client() -> Iterator[Any]:
    """Give the client of the worker that this runs on, ``None`` where it runs on none."""
    from distributed import get_worker, worker_client

    try:
        get_worker()
    except ValueError:
        yield None
        return
    with worker_client() as client:
        yield client


def _shuffled(work: Sorting, client: Any) -> list[Piece]:
    import dask
    import dask.dataframe as dd

    numbers = list(range(len(work.reading.blocks)))
    samples = _computed([dask.delayed(_sample)(work, number) for number in numbers], client, "samples")
    borders = _borders(samples, work.partitions)
    meta = _frame(work, {name: np.empty(0, kind.dtype) for name, kind in work.reading.kinds.items()}, 0)
    meta = meta.assign(part=np.empty(0, dtype="int64"))
    with dask.config.set({"dataframe.convert-string": False}):
        frame = dd.from_map(_block, numbers, work=work, borders=borders, meta=meta)
        shuffled = frame.set_index(
            "part", divisions=list(range(work.partitions + 1)), shuffle_method="p2p" if client else "disk"
        )
        parts = shuffled.to_delayed()
    written = _computed([dask.delayed(_partition)(work, number, part) for number, part in enumerate(parts)], client, "")
    return [piece for part in written for piece in part]


def _computed(tasks: Sequence[Any], client: Any, what: str) -> list[Any]:
    """Compute tasks on the cluster, telling the scheduler how many are left; or in this process."""
    import dask

    if client is None:
        return list(dask.compute(*tasks, scheduler="sync"))
    from distributed import as_completed

    from daskml_scale.engine.reporter import BacklogReporter

    reporter, began = BacklogReporter(client, f"sort {what}".strip()), time.monotonic()
    futures = client.compute(list(tasks))
    left = len(futures)
    try:
        reporter.report(units_left=left, runnable=left, seconds_per_unit=None, in_flight=left, now=began, force=True)
        for done in as_completed(futures):
            done.result()
            left -= 1
            passed = time.monotonic() - began
            each = passed * max(1, reporter.slots) / max(1, len(futures) - left)
            reporter.report(units_left=left, runnable=left, seconds_per_unit=each, in_flight=left, now=time.monotonic())
        return [future.result() for future in futures]
    finally:
        reporter.close()


def _sample(work: Sorting, number: int) -> tuple[list[np.ndarray], np.ndarray, float]:
    """Return the keys of evenly spaced rows of a block, their places, and how many rows each stands for."""
    columns = work.reading.encoded(number)
    rows = len(columns[work.by[0]])
    at = np.unique(np.linspace(0, rows - 1, min(rows, _SAMPLES)).astype("int64")) if rows else np.empty(0, "int64")
    keys = work.keys({name: columns[name][at] for name in work.by})
    return keys, at + work.first[number], rows / max(1, len(at))


def _borders(samples: Sequence[tuple[list[np.ndarray], np.ndarray, float]], partitions: int) -> list[np.ndarray]:
    """Return the keys, and the place, of the first row of every partition but the first."""
    columns = [np.concatenate(each) for each in zip(*((*keys, at) for keys, at, _ in samples), strict=True)]
    weights = np.concatenate([np.full(len(at), weight) for _, at, weight in samples])
    order = np.lexsort(tuple(reversed(columns)))
    reached = np.cumsum(weights[order])
    wanted = reached[-1] * np.arange(1, partitions) / partitions
    chosen = order[np.minimum(np.searchsorted(reached, wanted), len(order) - 1)]
    return [column[chosen] for column in columns]


def _frame(work: Sorting, columns: Mapping[str, np.ndarray], first: int) -> Any:
    """Return stored columns and the place of each row as a DataFrame of whole numbers: floats travel bit for bit."""
    import pandas as pd

    found = {f"c{place}": columns[name] for place, name in enumerate(work.names)}
    rows = len(next(iter(columns.values())))
    plain = {name: values.view("int64") if values.dtype.kind == "f" else values for name, values in found.items()}
    return pd.DataFrame({**plain, "at": np.arange(first, first + rows, dtype="int64")})


def _block(number: int, work: Sorting, borders: list[np.ndarray]) -> Any:
    """Return the rows of a block, each with its partition."""
    columns = work.reading.encoded(number)
    frame = _frame(work, columns, work.first[number])
    keys = [*work.keys(columns), frame["at"].to_numpy()]
    count = len(borders[0])
    both = [np.concatenate([border, key]) for border, key in zip(borders, keys, strict=True)]
    order = np.lexsort(tuple(reversed(both)))  # a border is the first row of its partition, and stands before it
    part = np.empty(len(order), dtype="int64")
    part[order] = np.cumsum(order < count)
    return frame.assign(part=part[count:])


def _partition(work: Sorting, number: int, frame: Any) -> list[Piece]:
    """Sort a partition and write it."""
    columns = {}
    for place, (name, kind) in enumerate(work.reading.kinds.items()):
        values, dtype = frame[f"c{place}"].to_numpy(), np.dtype(kind.dtype)
        columns[name] = values.astype("int64").view(dtype) if dtype.kind == "f" else values.astype(dtype)
    order = np.lexsort((frame["at"].to_numpy(), *reversed(work.keys(columns))))
    return work.write({name: values[order] for name, values in columns.items()}, number)


def read_pieces(scratch: str, names: Sequence[str], parts: Sequence[tuple[str, int, int]]) -> dict[str, np.ndarray]:
    """Return rows of pieces, one below the other.

    Parameters
    ----------
    parts : sequence of (name of the piece, first row, row after the last)

    Raises
    ------
    FileNotFoundError
        When a piece is gone.
    """
    import pyarrow as pa

    found: list[Any] = []
    for piece, start, stop in parts:
        with files.open_read(files.join(scratch, piece)) as raw:
            found.append(pa.ipc.open_stream(raw.read()).read_all().slice(start, stop - start))
    return {name: np.concatenate([table[name].to_numpy() for table in found]) for name in names}


def pieces_of(result: Mapping[str, Any], *, kept: bool = True) -> Pieces:
    """Return the pieces of a finished sort, those of rows that were in the table before only where ``kept``."""
    chosen = [(rows, known) for name, rows, known in result["pieces"] if kept or not name.startswith(KEPT)]
    return Pieces(tuple(rows for rows, _ in chosen), tuple(known for _, known in chosen))


def partitions(
    by: Sequence[str], runs: Sequence[tuple[Sequence[Any], int]], kinds: Mapping[str, Kind]
) -> list[list[Any]]:
    """Return [value of each column, first row, row after the last] of every partition, as people read them."""
    found, start = [], 0
    for values, rows in runs:
        found.append(
            [*(_shown(value, kinds[name]) for name, value in zip(by, values, strict=True)), start, start + rows]
        )
        start += rows
    return found


def _shown(value: Any, kind: Kind) -> Any:
    if kind.kind == "text":
        return kind.labels[value] if value >= 0 else None
    if kind.kind == "time":
        return None if value == tables.NO_TIME else str(np.datetime64(value, "s" if kind.seconds else "ns"))
    return None if value != value else value
