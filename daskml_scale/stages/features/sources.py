"""Where the rows of a table come from: a store, or memory; pieces of a column joined."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np

from daskml_scale.spec.expressions import Coded, Values


class Table(Protocol):
    """Where rows are read from."""

    @property
    def version(self) -> str:
        """Equal versions mean equal content."""
        ...

    def read(self, names: Sequence[str], start: int = 0, stop: int | None = None) -> dict[str, Values]:
        """Return rows [start, stop) of the named columns, decoded; all rows by default."""
        ...


@dataclass(frozen=True)
class StoredTable:
    """A table in a store; ``version`` is a digest of the stored objects that a recipe reads."""

    url: str
    version: str = ""

    def read(self, names: Sequence[str], start: int = 0, stop: int | None = None) -> dict[str, Values]:
        from daskml_scale.storage.tables import read_columns

        return read_columns(self.url, names, start, stop)


@dataclass(frozen=True, eq=False)
class MemoryTable:
    """A table in memory: name -> Values of shape (rows,)."""

    columns: Mapping[str, Values]

    @cached_property
    def version(self) -> str:
        hasher = hashlib.blake2b(digest_size=20)
        for name, column in sorted(self.columns.items()):
            labels = column.labels if isinstance(column, Coded) else ()
            array = np.ascontiguousarray(column.codes if isinstance(column, Coded) else column)
            hasher.update(repr((name, labels, array.dtype.str, array.shape)).encode())
            hasher.update(array.view("uint8").data)
        return hasher.hexdigest()

    def read(self, names: Sequence[str], start: int = 0, stop: int | None = None) -> dict[str, Values]:
        return {name: self.columns[name][start:stop] for name in names}


def coded(column: Values) -> Coded:
    """Return a column that must be a category."""
    if not isinstance(column, Coded):
        raise TypeError(f"a column of {column.dtype} is not a category")
    return column


def concatenate(pieces: Sequence[Values]) -> Values:
    """Join pieces of one column; pieces of a category share their labels."""
    if len(pieces) == 1:
        return pieces[0]
    first = pieces[0]
    if isinstance(first, Coded):
        return Coded(np.concatenate([coded(piece).codes for piece in pieces]), first.labels)
    return np.concatenate([np.asarray(piece) for piece in pieces])
