"""Match columns as numbers: the distinct combinations of their values, numbered from 0.

Columns are compared by value and categories by label, never by code: two tables may be coded differently. A missing
key matches nothing. Numbers and instants in a narrow range are found by a table; what is found never depends on that.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from daskml_scale.spec.expressions import Coded, Values, missing


def plain(column: np.ndarray) -> np.ndarray:
    """Return a column as sortable numbers; whole numbers stay exact."""
    if column.dtype.kind == "M":
        return column.astype("datetime64[ns]", copy=False).view("int64")
    return column.astype("float64" if column.dtype.kind == "f" else "int64", copy=False)


class _Distinct:
    """The distinct values of an array, numbered in rising order."""

    def __init__(self, values: np.ndarray) -> None:
        self._low = 0
        self._table = self._values = np.empty(0, dtype="int64")
        if not len(values):
            self.size = 0
            return
        low, high = values.min(), values.max()
        if values.dtype.kind == "i" and int(high) - int(low) < 4 * len(values) + 1024:
            self._low = int(low)
            seen = np.zeros(int(high) - int(low) + 1, dtype=bool)
            seen[values - low] = True
            self._table = np.where(seen, np.cumsum(seen) - 1, -1)
            self.size = int(seen.sum())
        else:
            self._values = np.unique(values)
            self.size = len(self._values)

    def find(self, values: np.ndarray) -> np.ndarray:
        """Return the number of each value, -1 where it is not among them."""
        if not self.size:
            return np.full(len(values), -1)
        if not len(self._table) or values.dtype.kind != "i":
            known = self._values if len(self._values) else self._low + np.flatnonzero(self._table >= 0)
            at = np.minimum(np.searchsorted(known, values), len(known) - 1)
            return np.where(known[at] == values, at, -1)
        # A difference that wraps around is never within the table: it is the right one modulo 2**64.
        place = values - self._low
        inside = place.view("uint64") < len(self._table)
        if inside.all():
            return np.asarray(self._table.take(place))
        return np.where(inside, self._table[np.where(inside, place, 0)], -1)


class _Part:
    """Values of one match column, numbered."""

    def __init__(self, column: Values) -> None:
        self.labels: tuple[str, ...] | None = None
        if isinstance(column, Coded):
            self.labels = column.labels
            self.size = len(column.labels)
        else:
            absent, values = missing(column), plain(column)
            self._distinct = _Distinct(values[~absent] if absent.any() else values)
            self.size = self._distinct.size

    def encode(self, column: Values) -> np.ndarray:
        if isinstance(column, Coded) != (self.labels is not None):
            raise TypeError("a category matches categories only")
        if isinstance(column, Coded):
            assert self.labels is not None
            if column.labels == self.labels:
                return np.asarray(np.maximum(column.codes, -1), dtype="int64")
            known = {label: code for code, label in enumerate(self.labels)}
            table = np.array([known.get(label, -1) for label in column.labels] + [-1])
            return np.asarray(table[np.maximum(column.codes, -1)])
        found, absent = self._distinct.find(plain(column)), missing(column)
        return np.where(absent, -1, found) if absent.any() else found


class Keys:
    """The distinct combinations of some match columns, numbered from 0.

    Parameters
    ----------
    columns : sequence of Values, each of shape (rows,)
        None gives one combination: everything matches.
    """

    def __init__(self, columns: Sequence[Values], rows: int) -> None:
        self._parts = [_Part(column) for column in columns]
        self._combined: list[_Distinct] = []
        codes = np.zeros(rows, dtype="int64")
        for part, column in zip(self._parts, columns, strict=True):
            codes = self._joined(codes, part, column)
            if self._numbered:
                break
            absent = codes < 0
            self._combined.append(_Distinct(codes[~absent] if absent.any() else codes))
            codes = self._combined[-1].find(codes)
        self.size = self._parts[0].size if self._numbered else self._combined[-1].size if self._combined else 1
        self.own = codes
        """Number of each row's own combination, -1 where a part is missing."""

    @property
    def _numbered(self) -> bool:
        """Whether the first part is all there is and its values, not being labels, are numbered without a gap."""
        return len(self._parts) == 1 and self._parts[0].labels is None

    def _joined(self, codes: np.ndarray, part: _Part, column: Values) -> np.ndarray:
        new = part.encode(column)
        if part is self._parts[0]:
            return new
        return np.where((codes < 0) | (new < 0), -1, codes * part.size + new)

    def encode(self, columns: Sequence[Values], rows: int) -> np.ndarray:
        """Return the number of each row's combination, -1 where it is not among them; shape (rows,)."""
        if self._numbered:
            return self._parts[0].encode(columns[0])
        codes = np.zeros(rows, dtype="int64")
        for part, distinct, column in zip(self._parts, self._combined, columns, strict=True):
            codes = distinct.find(self._joined(codes, part, column))
        return codes
