"""Ledger records as columns: a mapping of unit key to ``Record`` that makes a record only when it is asked for.

A million records as objects are gigabytes and seconds; as columns they are what the ledger's segments
hold, and planning compares their bytes. No I/O.
"""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property, lru_cache
from itertools import islice
from typing import Any

import numpy as np

from .columns import DIGEST, Column, Digests, Labels, Texts, concatenated
from .records import OK, Record
from .units import Parts

_NOTHING = ""
"""Text of a result of ``None``: no JSON text is empty."""
_CHUNKS = ("chunk_key", "chunk_digest", "chunk_size", "chunk_stamp")


@dataclass(frozen=True, eq=False)
class Block:
    """Records in order, as columns of one length; see ``Record`` for what they mean.

    Attributes
    ----------
    parts : Labels
        JSON of the four parts.
    result : Texts
        JSON, empty for ``None``.
    chunks : ndarray of uint32
        How many stored objects each unit wrote; the ``chunk_`` columns hold them one after the other.
    """

    unit: Texts
    fingerprint: Digests
    digest: Digests
    status: Labels
    rows: np.ndarray
    attempt: np.ndarray
    inputs: Digests
    parts: Labels
    result: Texts
    error: Texts
    seconds: np.ndarray
    worker: Labels
    why: Labels
    chunks: np.ndarray
    chunk_key: Texts
    chunk_digest: Digests
    chunk_size: np.ndarray
    chunk_stamp: np.ndarray

    @classmethod
    def of(cls, records: Sequence[Record]) -> Block:
        """Return the columns of these records."""
        stored = [(key, *value) for record in records for key, value in record.chunks.items()]
        return cls(
            unit=Texts.of([record.unit for record in records]),
            fingerprint=Digests.of([record.fingerprint for record in records]),
            digest=Digests.of([record.digest for record in records]),
            status=Labels.of([record.status for record in records]),
            rows=np.array([record.rows for record in records], "<i8"),
            attempt=np.array([record.attempt for record in records], "<u4"),
            inputs=Digests.of([record.inputs for record in records]),
            parts=Labels.of([_parts_text(record.parts) for record in records]),
            result=Texts.of([_NOTHING if record.result is None else _json(record.result) for record in records]),
            error=Texts.of([record.error for record in records]),
            seconds=np.array([record.seconds for record in records], "<f8"),
            worker=Labels.of([record.worker for record in records]),
            why=Labels.of([record.why for record in records]),
            chunks=np.array([len(record.chunks) for record in records], "<u4"),
            chunk_key=Texts.of([row[0] for row in stored]),
            chunk_digest=Digests.of([row[1] for row in stored]),
            chunk_size=np.array([row[2] for row in stored], "<i8"),
            chunk_stamp=np.array([row[3] for row in stored], "<i8"),
        )

    @classmethod
    def gathered(cls, blocks: Sequence[Block], indices: np.ndarray) -> Block:
        """Return the records at these positions of several blocks, taken as one after the other.

        One column at a time: the blocks may be most of the memory that there is.
        """
        if not blocks:
            return cls.of([])
        counts = np.concatenate([block.chunks for block in blocks]).astype("int64")
        ends, chosen = np.cumsum(counts), counts[indices]
        ahead = np.cumsum(chosen) - chosen
        items = np.repeat(ends[indices] - chosen - ahead, chosen) + np.arange(int(chosen.sum()))
        columns: dict[str, Any] = {}
        for name in COLUMNS:
            column = concatenated([getattr(block, name) for block in blocks])
            columns[name] = _take(column, items if name in _CHUNKS else indices)
        return cls(**columns)

    def __len__(self) -> int:
        return len(self.rows)

    def columns(self) -> dict[str, Column]:
        """Return the columns by name."""
        return {name: getattr(self, name) for name in COLUMNS}

    @cached_property
    def chunk_ends(self) -> np.ndarray:
        """Position after the last stored object of each unit."""
        return np.cumsum(self.chunks, dtype="int64")

    def record(self, index: int) -> Record:
        """Return one record."""
        end = int(self.chunk_ends[index])
        result = self.result[index]
        return Record(
            unit=self.unit[index],
            fingerprint=self.fingerprint[index],
            digest=self.digest[index],
            status=self.status[index],
            rows=int(self.rows[index]),
            attempt=int(self.attempt[index]),
            inputs=self.inputs[index],
            parts=_parts(self.parts[index]),
            result=None if result == _NOTHING else json.loads(result),
            chunks={self.chunk_key[at]: self.stored(at) for at in range(end - int(self.chunks[index]), end)},
            error=self.error[index],
            seconds=float(self.seconds[index]),
            worker=self.worker[index],
            why=self.why[index],
        )

    def stored(self, item: int) -> tuple[str, int, int]:
        """Return (digest, size, stamp) of a stored object."""
        return self.chunk_digest[item], int(self.chunk_size[item]), int(self.chunk_stamp[item])


COLUMNS = tuple(field.name for field in fields(Block))


def _take(column: Any, indices: np.ndarray) -> Column:
    taken: Column = column[indices] if isinstance(column, np.ndarray) else column.take(indices)
    return taken


def _json(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))


@lru_cache(maxsize=1024)
def _parts_text(parts: Parts) -> str:
    return _json([parts.code, parts.model, parts.parameters, parts.schema])


@lru_cache(maxsize=1024)
def _parts(text: str) -> Parts:
    return Parts(*json.loads(text))


class Records(Mapping[str, Record]):
    """The newest record of every unit of a ledger.

    Parameters
    ----------
    blocks : iterable of Block
        In the order in which they were written; a later record of a unit wins.
    """

    def __init__(self, blocks: Iterable[Block] = ()) -> None:
        self.blocks: list[Block] = []
        self._starts: list[int] = []
        self._place: dict[str, int] = {}
        self._marks: Mapping[str, str] = {}
        self._length = 0
        for block in blocks:
            self.add(block)

    @classmethod
    def of(cls, records: Iterable[Record]) -> Records:
        """Return records in memory as columns."""
        return cls([Block.of(list(records))])

    def add(self, block: Block) -> None:
        """Take in the records of one more segment."""
        if not len(block):
            return
        self.blocks.append(block)
        self._starts.append(self._length)
        self._place.update(zip(block.unit.list(), range(self._length, self._length + len(block)), strict=True))
        self._length += len(block)

    def marked(self, statuses: Mapping[str, str]) -> Records:
        """Return the same records, of which some have another status."""
        if not statuses:
            return self
        other = Records()
        other.blocks, other._starts, other._place = self.blocks, self._starts, self._place
        other._length, other._marks = self._length, {**self._marks, **statuses}
        return other

    def _at(self, unit: str) -> tuple[Block, int]:
        place = self._place[unit]
        number = bisect_right(self._starts, place) - 1
        return self.blocks[number], place - self._starts[number]

    def __getitem__(self, unit: str) -> Record:
        block, index = self._at(unit)
        record = block.record(index)
        return replace(record, status=self._marks[unit]) if unit in self._marks else record

    def __contains__(self, unit: object) -> bool:
        return unit in self._place

    def __iter__(self) -> Iterator[str]:
        return iter(self._place)

    def __len__(self) -> int:
        return len(self._place)

    def holds(self, unit: str, fingerprint: bytes) -> bool:
        """Return whether the record of a unit is ``ok`` and bears this fingerprint (its 20 bytes)."""
        place = self._place.get(unit)
        if place is None or unit in self._marks:
            return False
        number = bisect_right(self._starts, place) - 1
        block, index = self.blocks[number], place - self._starts[number]
        if block.fingerprint.raw[index * DIGEST : (index + 1) * DIGEST] != fingerprint:
            return False
        return block.status[index] == OK

    def only(self, units: Iterable[str]) -> Records:
        """Return the records of these units; those without one are left out."""
        places = [place for unit in units if (place := self._place.get(unit)) is not None]
        if len(places) == len(self._place):
            return self
        chosen = np.array(places, "int64")
        other = Records([Block.gathered(self.blocks, chosen)] if places else [])
        other._marks = {unit: status for unit, status in self._marks.items() if unit in other._place}
        return other

    def newest(self) -> Block:
        """Return the newest record of every unit as one block, in the order of the units."""
        ordered = np.fromiter((self._place[unit] for unit in sorted(self._place)), "int64", len(self._place))
        if len(self.blocks) == 1 and np.array_equal(ordered, np.arange(self._length)):
            return self.blocks[0]
        return Block.gathered(self.blocks, ordered)

    def total(self, column: str) -> float:
        """Return the sum of a numeric column (``rows``, ``seconds``) over the newest records."""
        if not self._place:
            return 0
        places = np.fromiter(self._place.values(), "int64", len(self._place))
        values = np.concatenate([getattr(block, column) for block in self.blocks])
        return values[places].sum().item()  # type: ignore[no-any-return]

    def objects(self) -> Iterator[tuple[str, str, tuple[str, int, int]]]:
        """Yield (unit, object key, (digest, size, stamp)) of everything that the units wrote."""
        for number, block in enumerate(self.blocks):
            if not len(block.chunk_size):
                continue
            start, place = self._starts[number], self._place
            stored = zip(
                block.chunk_key.list(),
                zip(block.chunk_digest.list(), block.chunk_size.tolist(), block.chunk_stamp.tolist(), strict=True),
                strict=True,
            )
            for index, (unit, count) in enumerate(zip(block.unit.list(), block.chunks.tolist(), strict=True)):
                newest = place[unit] == start + index
                for key, known in islice(stored, count):
                    if newest:
                        yield unit, key, known


def stored_objects(records: Mapping[str, Record]) -> Iterator[tuple[str, tuple[str, int, int]]]:
    """Yield (object key, (digest, size, stamp)) of everything that the units of any records wrote."""
    if isinstance(records, Records):
        for _, key, known in records.objects():
            yield key, known
    else:
        for record in records.values():
            yield from record.chunks.items()


def total_rows(records: Mapping[str, Record]) -> int:
    """Return the rows of any records."""
    if isinstance(records, Records):
        return int(records.total("rows"))
    return sum(record.rows for record in records.values())
