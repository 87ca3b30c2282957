"""The bytes of a ledger segment: named columns, a header that says what they are, a checksum over all.

Layout: magic, version, length of the header (little endian, 4 bytes each), JSON header, columns, BLAKE2b
of everything before it. A segment that is cut short or altered is told from one that a newer version
wrote: the first may be done without (its units run again), the second must not be.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from daskml_scale.errors import StoreError
from daskml_scale.plan.columns import Column, Digests, Labels, Texts
from daskml_scale.plan.records import Record
from daskml_scale.plan.table import Block
from daskml_scale.plan.units import Parts

VERSION = 2
"""Of the segments that are written; those of version 1, which were JSON, are read."""
_MAGIC = b"DMLEDGER"
_SUM = 20


class TornError(ValueError):
    """A segment is cut short or altered."""


class NewerError(StoreError):
    """A segment is of a version that this one does not know."""


def encode(block: Block) -> bytes:
    """Return the segment of some records."""
    buffers: list[bytes] = []
    listed = [[name, *_fields(column, buffers)] for name, column in block.columns().items()]
    header = json.dumps(listed, separators=(",", ":")).encode()
    head = _MAGIC + VERSION.to_bytes(4, "little") + len(header).to_bytes(4, "little")
    body = b"".join([head, header, *buffers])
    return body + hashlib.blake2b(body, digest_size=_SUM).digest()


def _fields(column: Column, buffers: list[bytes]) -> list[Any]:
    """Put the buffers of a column at the end of the list; return its kind, their lengths and what else it needs."""
    more: Any
    if isinstance(column, Texts):
        added, more = [column.lengths.tobytes(), column.blob], None
    elif isinstance(column, Digests):
        added, more = [column.raw], [[position, text] for position, text in column.odd.items()]
    elif isinstance(column, Labels):
        added, more = [column.codes.tobytes()], list(column.table)
    else:
        added, more = [column.tobytes()], column.dtype.str
    buffers.extend(added)
    return [type(column).__name__, [len(buffer) for buffer in added], more]


def decode(data: bytes) -> Block:
    """Return the records of a segment, of this version or of version 1.

    Raises
    ------
    TornError
        When the bytes are not whole.
    NewerError
        When a newer version wrote them.
    """
    try:
        return _version_1(json.loads(data)) if data.startswith(b"{") else Block(**_columns(data))
    except (TornError, NewerError):
        raise
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise TornError(f"{type(error).__name__}: {error}") from None


def _columns(data: bytes) -> dict[str, Any]:
    at = len(_MAGIC)
    if data[:at] != _MAGIC or len(data) < at + 8 + _SUM:
        raise TornError("it does not begin as a segment does")
    _refuse_newer(int.from_bytes(data[at : at + 4], "little"))
    if hashlib.blake2b(memoryview(data)[:-_SUM], digest_size=_SUM).digest() != data[-_SUM:]:
        raise TornError("its checksum does not fit its content")
    length = int.from_bytes(data[at + 4 : at + 8], "little")
    listed = json.loads(data[at + 8 : at + 8 + length])
    at += 8 + length
    columns: dict[str, Column] = {}
    for name, kind, sizes, more in listed:
        buffers = []
        for size in sizes:
            buffers.append(data[at : at + size])
            at += size
        columns[name] = _column(kind, buffers, more)
    return columns


def _column(kind: str, buffers: list[bytes], more: Any) -> Column:
    match kind:
        case "Texts":
            return Texts(buffers[1], np.frombuffer(buffers[0], "<u4"))
        case "Digests":
            return Digests(buffers[0], dict(more))
        case "Labels":
            return Labels(np.frombuffer(buffers[0], "<u4"), tuple(more))
    return np.frombuffer(buffers[0], more)


def _refuse_newer(version: Any) -> None:
    if isinstance(version, int) and version > VERSION:
        raise NewerError(
            f"was written by a newer daskml-scale (ledger version {version}, this one knows {VERSION}); "
            "use that version, or choose another store"
        )


def _version_1(content: Mapping[str, Any]) -> Block:
    _refuse_newer(content["format"])
    parts = [Parts(*values) for values in content["parts"]]

    def record(row: Mapping[str, Any]) -> Record:
        chunks = {key: tuple(stored) for key, stored in row.get("chunks", {}).items()}
        return replace(Record(**{"digest": "", **row, "parts": parts[row["parts"]]}), chunks=chunks)

    return Block.of([record(row) for row in content["records"]])
