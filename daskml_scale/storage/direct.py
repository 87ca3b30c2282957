"""Stored objects to values and back in the calling thread, for the codecs that this package writes.

Zarr takes each chunk through an event loop and two other threads and copies it twice: for an object of 2 MiB that is
half of the CPU time. Plain values of the machine's byte order, with or without Blosc and CRC32C, in shards or not,
need none of it. What is made here is what Zarr makes, byte for byte; arrays of any other kind (text, foreign codecs)
are left to Zarr. This module must not know where objects rest.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, TypeAlias

import google_crc32c
import numpy as np
from numcodecs import Blosc

Region: TypeAlias = Sequence[tuple[int, int]]
"""[start, stop) in every dimension."""
_CODECS = (["bytes"], ["bytes", "crc32c"], ["bytes", "blosc"], ["bytes", "blosc", "crc32c"])
_SHUFFLES = {"noshuffle": 0, "shuffle": 1, "bitshuffle": 2}
_KINDS = "biufcmM"
_CRC = 4
_HEADER = 16
"""Bytes before Blosc's own: versions, then the sizes of what it holds and of itself (format of Blosc 1)."""
_ABSENT = 2**64 - 1
"""Offset and length of a chunk that a shard does not hold."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """How a chunk is stored.

    Attributes
    ----------
    shape : tuple of int
        Also of the last ones along a dimension: these are padded.
    blosc : numcodecs.Blosc or None
    checked : bool
        A CRC32C stands behind the bytes.
    """

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    fill: Any
    blosc: Any
    checked: bool

    def encode(self, block: np.ndarray) -> bytes | None:
        """Return the stored form; ``None`` for one of only fill values, which is not stored."""
        if _all(block, self.fill):
            return None
        plain = np.ascontiguousarray(block).reshape(-1).view("u1")
        data: bytes = plain.tobytes() if self.blosc is None else self.blosc.encode(plain)
        return _with_checksum(data) if self.checked else data

    @property
    def how(self) -> tuple[Any, ...]:
        """Equal ones encode equal values into equal bytes."""
        return self.dtype, self.shape, str(self.fill), self.blosc, self.checked

    def decode(self, stored: np.ndarray, out: np.ndarray) -> None:
        """Write a stored chunk, as bytes, into a contiguous array of its shape.

        Raises
        ------
        ValueError
            When it is cut short or altered.
        """
        if self.checked:
            stored = _without_checksum(stored)
        if self.blosc is None:
            out[...] = stored.view(self.dtype).reshape(out.shape)
            return
        sizes = stored[:_HEADER].tobytes()
        if int.from_bytes(sizes[4:8], "little") != out.nbytes or int.from_bytes(sizes[12:], "little") != len(stored):
            raise ValueError(f"it does not hold the {out.nbytes:,} bytes of a chunk")
        self.blosc.decode(stored, out)


@dataclass(frozen=True, slots=True)
class Shard:
    """How a shard is stored: its chunks in C order, then where each of them is.

    Attributes
    ----------
    counts : tuple of int
        Chunks in it, per dimension; more than one in one dimension at most, where Zarr has the same order.
    """

    chunk: Chunk
    shape: tuple[int, ...]
    counts: tuple[int, ...]

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.chunk.dtype

    @property
    def fill(self) -> Any:
        return self.chunk.fill

    @property
    def how(self) -> tuple[Any, ...]:
        return (*self.chunk.how, self.shape)

    def _places(self) -> Iterator[tuple[slice, ...]]:
        for index in product(*map(range, self.counts)):
            yield tuple(slice(at * n, (at + 1) * n) for at, n in zip(index, self.chunk.shape, strict=True))

    def encode(self, block: np.ndarray) -> bytes | None:
        """Return the stored form; ``None`` for one of only fill values, which is not stored."""
        parts: list[bytes] = []
        index = np.full((len(list(self._places())), 2), _ABSENT, "<u8")
        end = 0
        for number, place in enumerate(self._places()):
            data = self.chunk.encode(block[place])
            if data is not None:
                parts.append(data)
                index[number] = end, len(data)
                end += len(data)
        return b"".join([*parts, _with_checksum(index.tobytes())]) if parts else None

    def decode(self, stored: np.ndarray, out: np.ndarray) -> None:
        """Write a stored shard, as bytes, into a contiguous array of its shape.

        Raises
        ------
        ValueError
            When it is cut short or altered.
        """
        places = list(self._places())
        size = 16 * len(places) + _CRC
        index = _without_checksum(stored[-size:]).view("<u8").reshape(len(places), 2)
        for place, (start, length) in zip(places, index.tolist(), strict=True):
            if start == length == _ABSENT:
                out[place] = self.fill
            elif start + length > len(stored) - size:
                raise ValueError("its index does not fit its content")
            else:
                _into(self.chunk, stored[start : start + length], out[place])


@dataclass(frozen=True, slots=True)
class Direct:
    """The stored objects of one array.

    Attributes
    ----------
    key : callable
        From the index of an object to its key.
    """

    stored: Chunk | Shard
    key: Callable[[tuple[int, ...]], str]

    def encoded(self, region: Region, values: np.ndarray) -> Iterator[bytes | None]:
        """Yield the stored forms of the objects of an aligned region, in C order; ragged ones padded."""
        shape = self.stored.shape
        for index in _indices(region, shape):
            block = values[_overlap(index, region, shape)[0]]
            if block.shape != shape:
                padded = np.full(shape, self.stored.fill, self.stored.dtype)
                padded[tuple(map(slice, block.shape))] = block
                block = padded
            yield self.stored.encode(block)

    def same(self, other: Direct | None) -> bool:
        """Return whether the objects of another array of this shape may be copied: they are what encoding makes."""
        return other is not None and self.stored.how == other.stored.how

    def copied(self, region: Region, read: Callable[[str], bytes | None]) -> Iterator[bytes | None]:
        """Yield the objects of an aligned region as they are stored; arguments and errors are those of `gather`."""
        for index in _indices(region, self.stored.shape):
            data = read(self.key(index))
            if data is not None:
                self._check(np.frombuffer(data, "u1"))
            yield data

    def _check(self, data: np.ndarray) -> None:
        if isinstance(self.stored, Chunk) and self.stored.checked:
            _without_checksum(data)
        else:
            self.stored.decode(data, np.empty(self.stored.shape, self.stored.dtype))

    def fits(self, shape: Sequence[int], region: Region) -> bool:
        """Return whether reading a region takes no more than its part of each object: always, but for shards."""
        if isinstance(self.stored, Chunk):
            return True
        ends = zip(region, self.stored.shape, shape, strict=True)
        return not any(start % unit or (stop % unit and stop != size) for (start, stop), unit, size in ends)

    def gather(self, region: Region, read: Callable[[str], bytes | None]) -> np.ndarray:
        """Return the values of a region.

        Parameters
        ----------
        region : sequence of (start, stop)
            In every dimension, within the array.
        read : callable
            From the key of an object to its bytes, ``None`` where none is stored.

        Raises
        ------
        ValueError
            When an object is cut short or altered.
        """
        out = np.empty([max(0, stop - start) for start, stop in region], self.stored.dtype)
        for index in _indices(region, self.stored.shape) if out.size else ():
            outer, inner = _overlap(index, region, self.stored.shape)
            data, target = read(self.key(index)), out[outer]
            if data is None:
                target[...] = self.stored.fill
            else:
                _into(self.stored, np.frombuffer(data, "u1"), target, inner)
        return out


def direct(array: Any) -> Direct | None:
    """Return how the objects of an opened Zarr array are stored; ``None`` where that is Zarr's business."""
    dtype, codecs = np.dtype(array.dtype), [codec.to_dict() for codec in array.metadata.codecs]
    if dtype.kind not in _KINDS or not dtype.isnative or not array.ndim:
        return None
    shard = codecs[0]["configuration"] if [codec["name"] for codec in codecs] == ["sharding_indexed"] else None
    chunk = _chunk(dtype, array.chunks, array.fill_value, shard["codecs"] if shard else codecs)
    if chunk is None or shard is None:
        return None if chunk is None else Direct(chunk, array.metadata.encode_chunk_key)
    index = [codec["name"] for codec in shard["index_codecs"]]
    counts = tuple(size // part for size, part in zip(array.shards, array.chunks, strict=True))
    if index != ["bytes", "crc32c"] or shard["index_location"] != "end" or sum(count > 1 for count in counts) > 1:
        return None
    return Direct(Shard(chunk, array.shards, counts), array.metadata.encode_chunk_key)


def _chunk(dtype: np.dtype[Any], shape: tuple[int, ...], fill: Any, codecs: Sequence[Any]) -> Chunk | None:
    names = [codec["name"] for codec in codecs]
    if names not in _CODECS or codecs[0].get("configuration", {}).get("endian", sys.byteorder) != sys.byteorder:
        return None
    blosc = None
    if "blosc" in names:
        how = codecs[1]["configuration"]
        blosc = Blosc(how["cname"], how["clevel"], _SHUFFLES[how["shuffle"]], how["blocksize"], how["typesize"])
    return Chunk(dtype, shape, fill, blosc, "crc32c" in names)


def _into(how: Chunk | Shard, stored: np.ndarray, target: np.ndarray, part: tuple[slice, ...] = ()) -> None:
    """Decode an object into an array of its shape, or that part of it of which the array has the shape."""
    if target.shape == how.shape and target.flags.c_contiguous:
        how.decode(stored, target)
    else:
        whole = np.empty(how.shape, how.dtype)
        how.decode(stored, whole)
        target[...] = whole[part]


def _with_checksum(data: bytes) -> bytes:
    return b"".join((data, google_crc32c.value(data).to_bytes(_CRC, "little")))


def _without_checksum(stored: np.ndarray) -> np.ndarray:
    if google_crc32c.value(stored[:-_CRC]).to_bytes(_CRC, "little") != stored[-_CRC:].tobytes():
        raise ValueError("its checksum does not fit its content")
    return stored[:-_CRC]


def _all(block: np.ndarray, fill: Any) -> bool:
    """Return whether a chunk holds only fill values, as Zarr sees it: a zero of another sign is another value."""
    first = block.flat[0]
    if first != fill and (first == first or fill == fill):
        return False  # comparing the whole takes a tenth of the time of writing it
    if block.dtype.kind == "f" and fill == 0:
        bits = f"u{block.dtype.itemsize}"
        return bool((block.view(bits) == np.asarray(fill, block.dtype).view(bits)).all())
    return bool(np.array_equal(block, np.broadcast_to(fill, block.shape), equal_nan=block.dtype.kind in "fcmM"))


def _indices(region: Region, unit: Sequence[int]) -> Iterator[tuple[int, ...]]:
    return product(*(range(start // size, -(-stop // size)) for (start, stop), size in zip(region, unit, strict=True)))


def _overlap(index: Sequence[int], region: Region, unit: Sequence[int]) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """Return where an object lies in the values of a region, and which part of the object that is."""
    outer, inner = [], []
    for at, (start, stop), size in zip(index, region, unit, strict=True):
        first, last = max(start, at * size), min(stop, (at + 1) * size)
        outer.append(slice(first - start, last - start))
        inner.append(slice(first - at * size, last - at * size))
    return tuple(outer), tuple(inner)
