"""Files of rows on their way to a sorted table, in a folder beside it: raw bytes of parts, and sorted pieces.

A piece is an Arrow stream of a chunk's length. None of these files outlives the sort, so none is written durably.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from daskml_scale.errors import StoreError
from daskml_scale.storage import files
from daskml_scale.storage.backend import Known, hash_bytes

from .csv_files import shown


def put(scratch: str, name: str, data: memoryview) -> Known:
    """Write a file of the folder ``scratch``; return what it is known by."""
    size, stamp = files.backend(scratch).write(files.join(scratch, name), data, durable=False)
    return hash_bytes(data), size, stamp


def get(scratch: str, name: str, start: int, size: int) -> bytes:
    """Return bytes [start, start + size) of a file.

    Raises
    ------
    StoreError
        When it is gone, or shorter than it was written.
    """
    url = files.join(scratch, name)
    with files.explained(url, "read"), files.open_read(url) as raw:
        raw.seek(start)
        data = raw.read(size)
    if len(data) != size:
        raise StoreError(f"{shown(url)} is shorter than it was written; run again, and it is made anew")
    return data


def put_piece(scratch: str, name: str, columns: Mapping[str, np.ndarray]) -> Known:
    """Write rows as a piece."""
    import pyarrow as pa

    batch = pa.record_batch({key: np.ascontiguousarray(values) for key, values in columns.items()})
    target = io.BytesIO()
    with pa.ipc.new_stream(target, batch.schema) as writer:
        writer.write_batch(batch)
    return put(scratch, name, target.getbuffer())


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


def listed(out: str, scratch: str, written: Mapping[str, Known]) -> dict[str, Known]:
    """Return what was written by its key from the table at ``out``, so that a ledger can tell if it still is there."""
    folder, _, name = scratch.rpartition("/")
    beside = folder == out.rpartition("/")[0]
    return {f"../{name}/{key}": stored for key, stored in written.items()} if beside else {}
