"""One segment of results: the columns of a group of finished items, as one immutable object.

Written whole by the driver (``00000007.results``) and never changed; a later segment wins. In the file::

    daskml-results-1\\n   magic and format version
    16 bytes             BLAKE2b of all that follows
    8 bytes              length of the head, little endian
    head                 MessagePack map of columns, one entry per row, little endian
        numbers          int64: the item's position among all items, from 0
        prints           16 bytes each: fingerprint of function and item
        status           uint8: 0 ok, 1 failed
        attempts         uint8
        nanoseconds      int64: time in the function
        worker, code     uint16 each: positions in the lists `workers` and `codes` (digests of the function)
        ends             uint64: where the row's value ends among the values
        errors           map of row to text, for failed rows
    values               per row that is ok: 16 bytes BLAKE2b of the rest, then the value (``storage.values``)

Values of more than `INLINE` bytes lie in an object of their own (``00000007.values``), written before the
segment, so that the columns can be read without them; the head then holds their digest as ``apart``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import msgpack
import numpy as np
from numpy.typing import NDArray

from daskml_scale.errors import StoreError

from . import files

T = TypeVar("T")
MAGIC = b"daskml-results-1\n"
OK, FAILED = 0, 1
SIZE = 16
"""Bytes of a digest."""
INLINE = 256 * 1024
_HEAD = len(MAGIC) + SIZE
_COLUMNS = {
    "numbers": "<i8", "prints": "u1", "status": "u1", "attempts": "u1", "nanoseconds": "<i8", "worker": "<u2",
    "code": "<u2", "ends": "<u8",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Columns:
    """The rows of a segment.

    Attributes
    ----------
    numbers, nanoseconds : int64, shape (n,)
    prints : uint8, shape (n, 16)
    status, attempts : uint8, shape (n,)
    worker, code : uint16, shape (n,)
        Positions in ``workers`` and ``codes``.
    ends : uint64, shape (n,)
    values : bytes or str
        A name instead of bytes where they lie in an object of their own.
    """

    numbers: NDArray[np.int64]
    prints: NDArray[np.uint8]
    status: NDArray[np.uint8]
    attempts: NDArray[np.uint8]
    nanoseconds: NDArray[np.int64]
    worker: NDArray[np.uint16]
    code: NDArray[np.uint16]
    ends: NDArray[np.uint64]
    workers: Sequence[str]
    codes: Sequence[bytes]
    values: bytes = b""
    apart: bytes = b""
    """Digest of values that lie in an object of their own."""
    errors: dict[int, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.numbers)

    def value(self, row: int) -> memoryview:
        """Return the digest and the bytes of the value of a row."""
        start = int(self.ends[row - 1]) if row else 0
        return memoryview(self.values)[start : int(self.ends[row])]


def digest(data: bytes | memoryview) -> bytes:
    """Return the BLAKE2b digest (16 bytes)."""
    return hashlib.blake2b(data, digest_size=SIZE).digest()


def name_of(number: int) -> str:
    """Return the name of a segment."""
    return f"{number:08d}.results"


def write(url: str, number: int, columns: Columns) -> str:
    """Write a segment durably and return its name.

    Raises
    ------
    StoreError
        Without permission, on a full disk, and so on.
    """
    name = name_of(number)
    values, apart = columns.values, b""
    if len(values) > INLINE:
        apart = digest(values)
        files.write_bytes(_apart(url, name), values)
        values = b""
    content: dict[str, Any] = {
        column: np.ascontiguousarray(getattr(columns, column), kind).tobytes() for column, kind in _COLUMNS.items()
    }
    content |= {
        "workers": list(columns.workers),
        "codes": list(columns.codes),
        "apart": apart,
        "errors": columns.errors,
    }
    head: bytes = msgpack.packb(content)
    body = len(head).to_bytes(8, "little") + head + values
    files.write_bytes(files.join(url, name), MAGIC + digest(body) + body)
    return name


def read(url: str, name: str, *, values: bool) -> Columns:
    """Read a segment.

    Parameters
    ----------
    values : bool
        Whether to read values that lie in an object of their own.

    Raises
    ------
    StoreError
        When it is torn, altered or of another format: names it and the remedy.
    """
    where = files.join(url, name)
    data = files.read_bytes(where) or b""
    if data[: len(MAGIC)] != MAGIC:
        raise _refused(where, f"it does not begin with {MAGIC[:-1].decode()}")
    body = memoryview(data)[_HEAD:]
    if digest(body) != data[len(MAGIC) : _HEAD]:
        raise _refused(where, "it is torn or was altered")
    length = int.from_bytes(body[:8], "little")
    content = msgpack.unpackb(body[8 : 8 + length], strict_map_key=False)
    arrays: dict[str, Any] = {column: np.frombuffer(content[column], kind) for column, kind in _COLUMNS.items()}
    arrays["prints"] = arrays["prints"].reshape(-1, SIZE)
    stored = bytes(body[8 + length :])
    if content["apart"] and values:
        stored = files.read_bytes(_apart(url, name)) or b""
        if digest(stored) != content["apart"]:
            raise _refused(_apart(url, name), "it is missing, torn or was altered", also=where)
    return Columns(
        **arrays, workers=content["workers"], codes=content["codes"], values=stored, apart=content["apart"],
        errors=content["errors"],
    )  # fmt: skip


def remove(url: str, name: str) -> None:
    """Remove a segment and its values."""
    files.remove(files.join(url, name))
    files.remove(_apart(url, name))


def size(url: str, name: str) -> int:
    """Return the bytes of a segment, its values included."""
    found = (files.stat(files.join(url, name)), files.stat(_apart(url, name)))
    return sum(stat[0] for stat in found if stat is not None)


def joined(parts: Sequence[tuple[Columns, NDArray[np.int64]]]) -> Columns:
    """Return the given rows of several segments (read with their values) as one, by number."""
    workers: dict[str, int] = {}
    codes: dict[bytes, int] = {}
    fields: dict[str, list[Any]] = {column: [] for column in _COLUMNS}
    values: list[memoryview] = []
    errors: list[str | None] = []
    for columns, rows in parts:
        for column in fields:
            fields[column].append(getattr(columns, column)[rows])
        fields["worker"][-1] = places(columns.workers, workers)[fields["worker"][-1]]
        fields["code"][-1] = places(columns.codes, codes)[fields["code"][-1]]
        values += [columns.value(row) for row in rows.tolist()]
        errors += [columns.errors.get(row) for row in rows.tolist()]
    arrays: dict[str, Any] = {column: np.concatenate(found) for column, found in fields.items()}
    order = np.argsort(arrays["numbers"], kind="stable")
    arrays = {column: found[order] for column, found in arrays.items()}
    picked = [values[place] for place in order.tolist()]
    arrays["ends"] = np.cumsum([len(value) for value in picked])
    texts = {row: text for row, place in enumerate(order.tolist()) if (text := errors[place]) is not None}
    return Columns(**arrays, workers=list(workers), codes=list(codes), values=b"".join(picked), errors=texts)


def places(names: Sequence[T], known: dict[T, int]) -> NDArray[np.int64]:
    """Return the place of each name among all known ones; new names are added."""
    return np.array([known.setdefault(name, len(known)) for name in names] or [0])


def _apart(url: str, name: str) -> str:
    return files.join(url, name.removesuffix(".results") + ".values")


def _refused(where: str, why: str, also: str = "") -> StoreError:
    remove = f"{where} and {also}" if also else where
    return StoreError(f"{where} is not a segment of results: {why}; remove {remove}, its items will run again")
