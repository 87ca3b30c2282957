"""Results of ``dms.map(out=...)``: a folder of segments, read as a sequence in the order of the items.

The folder holds segments (``storage.result_segments``), ``results.json`` (how many items the last complete run had)
and ``durations.json``. Only the index lies in memory, 40 bytes per item; values are read when they are asked for.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from daskml_scale.errors import StoreError
from daskml_scale.plan.units import Outcome, Unit

from . import files
from . import result_segments as segments
from .result_segments import OK, SIZE, Columns
from .values import unpack

MANIFEST = "results.json"
FORMAT = 1
MANY = 32
"""Segments above which small ones are merged when a run ends."""
SMALL = 4 << 20
"""Bytes below which a segment is small; merged ones grow to four times that."""
KEPT = 4
"""Segments whose values a reader keeps in memory."""
_BLOCK = 10_000


class Index:
    """Where the newest row of every item is.

    Attributes
    ----------
    names : list of str
        The segments, oldest first.
    where : int64, shape (items,)
        ``segment << 32 | row``; -1 where there is none.
    prints : uint8, shape (items, 16)
    ok : bool, shape (items,)
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.names = segment_names(url)
        self.rows: list[int] = []
        self.codes: dict[bytes, int] = {}
        self.where = np.full(0, -1, "int64")
        self.prints = np.zeros((0, SIZE), "uint8")
        self.ok = np.zeros(0, bool)
        self.code = np.zeros(0, "uint16")
        for place, name in enumerate(self.names):
            self._add(place, segments.read(url, name, values=False))

    def _add(self, place: int, columns: Columns) -> None:
        self.rows.append(len(columns))
        more = int(columns.numbers.max(initial=-1)) + 1 - len(self.where)
        if more > 0:
            more = max(more, len(self.where) // 2)
            self.where = np.concatenate([self.where, np.full(more, -1, "int64")])
            self.prints = np.concatenate([self.prints, np.zeros((more, SIZE), "uint8")])
            self.ok = np.concatenate([self.ok, np.zeros(more, bool)])
            self.code = np.concatenate([self.code, np.zeros(more, "uint16")])
        at = columns.numbers
        self.where[at] = (place << 32) + np.arange(len(columns))
        self.prints[at] = columns.prints
        self.ok[at] = columns.status == OK
        self.code[at] = segments.places(columns.codes, self.codes)[columns.code]

    def __len__(self) -> int:
        """Return the number of the last item that has a row, and one."""
        present = np.flatnonzero(self.where >= 0)
        return int(present[-1]) + 1 if len(present) else 0

    def reason(self, number: int, print_now: bytes, code: bytes) -> str:
        """Return why an item must run."""
        if number >= len(self.where) or self.where[number] < 0:
            return "new"
        if self.prints[number].tobytes() == print_now:
            return "failed before"
        return "input changed" if self.codes.get(code) == self.code[number] else "code changed"


def segment_names(url: str) -> list[str]:
    """Return the names of the segments in a folder, oldest first."""
    return [name for name in files.names(url) if name.endswith(".results") and name.partition(".")[0].isdigit()]


def next_number(url: str) -> int:
    """Return the number of the next segment."""
    names = segment_names(url)
    return int(names[-1].partition(".")[0]) + 1 if names else 1


def finish(url: str, items: int, function: str) -> None:
    """Say that a run over so many items is complete; merge small segments where there are many."""
    if len(segment_names(url)) > MANY:
        _merge(url, items)
    names = segment_names(url)
    found = {"format": FORMAT, "items": items, "function": function, "last": names[-1] if names else ""}
    if files.read_json(files.join(url, MANIFEST)) != found:
        files.write_json(files.join(url, MANIFEST), found)


def _merge(url: str, items: int) -> None:
    """Write the live rows of small and of mostly dead segments anew, then remove those segments."""
    index = Index(url)
    live = index.where[:items]
    live = live[live >= 0]
    counts = np.bincount(live >> 32, minlength=len(index.names))
    number = next_number(url)
    batch: list[tuple[Columns, NDArray[np.int64]]] = []
    held, done = 0, []
    for place, name in enumerate(index.names):
        size = segments.size(url, name)
        if size >= SMALL and counts[place] * 2 >= index.rows[place]:
            continue
        batch.append((segments.read(url, name, values=True), np.sort(live[live >> 32 == place] & 0xFFFFFFFF)))
        held += size
        done.append(name)
        if held >= 4 * SMALL or name == index.names[-1]:
            number = _write_joined(url, number, batch)
            batch, held = [], 0
    _write_joined(url, number, batch)
    for name in done:
        segments.remove(url, name)


def _write_joined(url: str, number: int, batch: Sequence[tuple[Columns, NDArray[np.int64]]]) -> int:
    if not sum(len(rows) for _, rows in batch):
        return number
    segments.write(url, number, segments.joined(batch))
    return number + 1


class Results(Sequence[Any]):
    """Results in the order of the items, read from their folder when asked for.

    Compares equal to a list of the same values.

    Parameters
    ----------
    url : str
        Folder that ``dms.map(out=...)`` wrote.

    Raises
    ------
    StoreError
        When there are no results, or a segment is torn.
    """

    def __init__(self, url: str, *, reasons: dict[str, int] | None = None) -> None:
        self.url = files.normal(url)
        self.reasons = reasons
        """Why items ran in the call that made this object -> how many; the others were reused."""
        manifest = files.read_json(files.join(self.url, MANIFEST)) or {}
        if manifest.get("format", FORMAT) != FORMAT:
            raise StoreError(f"{self.url} has results of format {manifest['format']}; this version reads {FORMAT}")
        names = segment_names(self.url)
        if not manifest and not names:
            raise StoreError(f"{self.url} holds no results; check the path, or run dms.map(..., out=...) first")
        self.complete = bool(manifest) and manifest["last"] == (names[-1] if names else "")
        """Whether the last run over the items came to its end (some may have failed)."""
        self._items: int | None = manifest["items"] if self.complete else None
        self._open: OrderedDict[int, tuple[Columns, list[int]]] = OrderedDict()

    @cached_property
    def _index(self) -> Index:
        return Index(self.url)

    def __len__(self) -> int:
        return len(self._index) if self._items is None else self._items

    @property
    def failed(self) -> dict[int, str]:
        """Item number -> error, of items whose last attempt failed."""
        index = self._index
        numbers = np.flatnonzero((index.where[: len(self)] >= 0) & ~index.ok[: len(self)])
        return {int(number): self._error(int(number)) for number in numbers}

    def _error(self, number: int) -> str:
        where = int(self._index.where[number])
        return self._columns(where >> 32)[0].errors.get(where & 0xFFFFFFFF, "")

    def rows(self) -> Iterator[dict[str, Any]]:
        """Yield what the ledger says of every item, in order: unit, status, fingerprint, digest, seconds, ...

        ``unit``, ``status``, ``fingerprint`` and ``digest`` are equal between equal runs.
        """
        for number, where in enumerate(self._index.where[: len(self)].tolist()):
            if where < 0:
                continue
            columns, row = self._columns(where >> 32)[0], where & 0xFFFFFFFF
            ok = columns.status[row] == OK
            yield {
                "unit": str(number),
                "status": "ok" if ok else "failed",
                "fingerprint": columns.prints[row].tobytes().hex(),
                "digest": columns.value(row)[:SIZE].hex(),
                "bytes": max(0, len(columns.value(row)) - SIZE),
                "attempt": int(columns.attempts[row]),
                "seconds": int(columns.nanoseconds[row]) / 1e9,
                "worker": columns.workers[columns.worker[row]],
                "error": columns.errors.get(row, ""),
            }

    def outcome(self, number: int) -> Outcome:
        """Return the row of an item that is ok, without the item itself."""
        where = int(self._index.where[number])
        columns, row = self._columns(where >> 32)[0], where & 0xFFFFFFFF
        return Outcome(
            Unit(str(number)),
            unpack(columns.value(row)[SIZE:]),
            seconds=int(columns.nanoseconds[row]) / 1e9,
            worker=columns.workers[columns.worker[row]],
            attempt=int(columns.attempts[row]),
        )

    def _columns(self, place: int) -> tuple[Columns, list[int]]:
        found = self._open.get(place)
        if found is None:
            columns = segments.read(self.url, self._index.names[place], values=True)
            found = self._open[place] = (columns, [0, *columns.ends.tolist()])
            if len(self._open) > KEPT:
                self._open.popitem(last=False)
        self._open.move_to_end(place)
        return found

    def _read(self, start: int, stop: int) -> Iterator[Any]:
        """Yield the values of items [start, stop)."""
        index = self._index
        place, values, ends = -1, b"", [0]
        for number, where in enumerate(index.where[start:stop].tolist(), start):
            if where < 0:
                raise StoreError(f"{self.url}: item {number} has no result yet; call dms.map with the same items again")
            if not index.ok[number]:
                raise StoreError(f"{self.url}: item {number} failed: {self._error(number)}")
            if where >> 32 != place:
                place = where >> 32
                columns, ends = self._columns(place)
                values = columns.values
            row = where & 0xFFFFFFFF
            yield unpack(values[ends[row] + SIZE : ends[row + 1]])
        missing = max(start, len(index.where))
        if missing < stop:
            raise StoreError(f"{self.url}: item {missing} has no result yet; call dms.map with the same items again")

    def __iter__(self) -> Iterator[Any]:
        for start in range(0, len(self), _BLOCK):
            yield from self._read(start, min(start + _BLOCK, len(self)))

    @overload
    def __getitem__(self, index: int) -> Any: ...
    @overload
    def __getitem__(self, index: slice) -> list[Any]: ...
    def __getitem__(self, index: int | slice) -> Any:
        numbers = range(len(self))[index]
        if isinstance(numbers, range):
            return [next(self._read(number, number + 1)) for number in numbers]
        return next(self._read(numbers, numbers + 1))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, (list, tuple, Results)):
            return NotImplemented
        return len(self) == len(other) and all(_equal(mine, theirs) for mine, theirs in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        parts = [f"{len(self):,} items" + ("" if self.complete else " so far; the run was interrupted")]
        if self.reasons is not None:
            ran = sum(self.reasons.values())
            why = ", ".join(f"{count:,} {reason}" for reason, count in self.reasons.items())
            parts.append(f"{ran:,} run ({why}), {len(self) - ran:,} reused" if ran else "all reused")
        return f"<Results {self.url}: {', '.join(parts)}>"


def _equal(mine: Any, theirs: Any) -> bool:
    if isinstance(mine, np.ndarray) or isinstance(theirs, np.ndarray):
        return bool(np.array_equal(mine, theirs))
    return bool(mine == theirs)


def open_results(url: str | os.PathLike[str]) -> Results:
    """Open the results that ``dms.map(out=url)`` wrote, as a sequence in the order of the items.

    Raises
    ------
    StoreError
        When there are none.
    """
    return Results(os.fspath(url))
