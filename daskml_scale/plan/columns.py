"""Columns of many small values: texts, digests, repeated labels. A million of them are a few buffers, not objects.

A ledger of a million units is read, compared and written through these; a single value becomes an
object only when somebody asks for it. Nothing here knows what a unit is. No I/O.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TypeAlias

import numpy as np

DIGEST = 20
"""Bytes of a digest; 40 characters as text."""


@dataclass(frozen=True, eq=False)
class Texts:
    """Any strings, as UTF-8 one after the other.

    Attributes
    ----------
    blob : bytes
    lengths : ndarray of uint32, shape (n,)
        Bytes of each.
    """

    blob: bytes
    lengths: np.ndarray

    @classmethod
    def of(cls, values: Sequence[str]) -> Texts:
        """Return the column of these values."""
        encoded = [value.encode(errors="surrogatepass") for value in values]
        return cls(b"".join(encoded), np.fromiter(map(len, encoded), "<u4", len(encoded)))

    @cached_property
    def _ends(self) -> np.ndarray:
        return np.cumsum(self.lengths, dtype="int64")

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, index: int) -> str:
        end = int(self._ends[index])
        return self.blob[end - int(self.lengths[index]) : end].decode(errors="surrogatepass")

    def list(self) -> list[str]:
        """Return all values."""
        ends = self._ends.tolist()
        starts = [0, *ends[:-1]] if ends else []
        if self.blob.isascii():  # then characters are bytes, and slices of one string are the values
            text = self.blob.decode()
            return [text[start:end] for start, end in zip(starts, ends, strict=True)]
        blob = self.blob
        return [blob[start:end].decode(errors="surrogatepass") for start, end in zip(starts, ends, strict=True)]

    def take(self, indices: np.ndarray) -> Texts:
        """Return the values at these positions."""
        values = self.list()
        return Texts.of([values[index] for index in indices.tolist()])


@dataclass(frozen=True, eq=False)
class Digests:
    """Hexadecimal digests of 20 bytes; any other text is kept beside them.

    Attributes
    ----------
    raw : bytes
        20 per value; zeros where it is something else.
    odd : mapping of position to str
    """

    raw: bytes
    odd: dict[int, str] = field(default_factory=dict)

    @classmethod
    def of(cls, values: Sequence[str]) -> Digests:
        """Return the column of these values."""
        odd = {position: value for position, value in enumerate(values) if len(value) != 2 * DIGEST}
        zero = "0" * (2 * DIGEST)
        text = "".join(values) if not odd else "".join(zero if len(v) != 2 * DIGEST else v for v in values)
        try:
            raw = bytes.fromhex(text)
            if raw.hex() == text:
                return cls(raw, odd)
        except ValueError:
            pass
        odd = {position: value for position, value in enumerate(values) if not _is_digest(value)}
        return cls(bytes.fromhex("".join(zero if n in odd else value for n, value in enumerate(values))), odd)

    def __len__(self) -> int:
        return len(self.raw) // DIGEST

    def __getitem__(self, index: int) -> str:
        if index in self.odd:
            return self.odd[index]
        return self.raw[index * DIGEST : (index + 1) * DIGEST].hex()

    def list(self) -> list[str]:
        """Return all values."""
        text = self.raw.hex()
        values = [text[at : at + 2 * DIGEST] for at in range(0, len(text), 2 * DIGEST)]
        for position, value in self.odd.items():
            values[position] = value
        return values

    def take(self, indices: np.ndarray) -> Digests:
        """Return the values at these positions."""
        rows = np.frombuffer(self.raw, f"V{DIGEST}")[indices]
        odd = {}
        if self.odd:
            odd = {new: self.odd[old] for new, old in enumerate(indices.tolist()) if old in self.odd}
        return Digests(rows.tobytes(), odd)


def _is_digest(value: str) -> bool:
    return len(value) == 2 * DIGEST and set(value) <= set("0123456789abcdef")


@dataclass(frozen=True, eq=False)
class Labels:
    """Strings of which many are equal.

    Attributes
    ----------
    codes : ndarray of uint32, shape (n,)
    table : tuple of str
        The distinct values.
    """

    codes: np.ndarray
    table: tuple[str, ...]

    @classmethod
    def of(cls, values: Sequence[str]) -> Labels:
        """Return the column of these values."""
        place = {value: code for code, value in enumerate(sorted(set(values)))}
        return cls(np.fromiter(map(place.__getitem__, values), "<u4", len(values)), tuple(place))

    def __len__(self) -> int:
        return len(self.codes)

    def __getitem__(self, index: int) -> str:
        return self.table[int(self.codes[index])]

    def list(self) -> list[str]:
        """Return all values."""
        table = self.table
        return [table[code] for code in self.codes.tolist()]

    def take(self, indices: np.ndarray) -> Labels:
        """Return the values at these positions; labels that are no longer used go."""
        used, codes = np.unique(self.codes[indices], return_inverse=True)
        return Labels(codes.astype("<u4"), tuple(self.table[code] for code in used.tolist()))


Column: TypeAlias = "Texts | Digests | Labels | np.ndarray"


def concatenated(columns: Sequence[Column]) -> Column:
    """Return columns of one type as one, in order."""
    first = columns[0]
    if isinstance(first, np.ndarray):
        return np.concatenate(columns)  # type: ignore[arg-type]
    if len(columns) == 1:
        return first
    if isinstance(first, Digests):
        parts = [column for column in columns if isinstance(column, Digests)]
        starts = np.cumsum([0, *(len(part) for part in parts[:-1])]).tolist()
        odd = {at + start: text for start, part in zip(starts, parts, strict=True) for at, text in part.odd.items()}
        return Digests(b"".join(part.raw for part in parts), odd)
    if isinstance(first, Texts):
        texts = [column for column in columns if isinstance(column, Texts)]
        return Texts(b"".join(text.blob for text in texts), np.concatenate([text.lengths for text in texts]))
    return Labels.of([value for column in columns if isinstance(column, Labels) for value in column.list()])


def runs(counts: np.ndarray) -> Iterator[tuple[int, int]]:
    """Return (start, stop) of every run of items, where ``counts`` says how many each row has."""
    ends = np.cumsum(counts, dtype="int64").tolist()
    return zip([0, *ends[:-1]] if ends else [], ends, strict=True)
