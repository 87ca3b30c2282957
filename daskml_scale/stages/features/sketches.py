"""Counts of categories, and of distinct values, in bounded memory: deterministic, merged in the order of the units.

``Categories`` keeps the most frequent labels (Misra & Gries 1982; merged as Agarwal et al. 2012): exact up to
``LABELS`` of them, then every count is low by at most ``error`` rows, which is known. ``Distinct`` keeps the
smallest hashes (Bar-Yossef et al. 2002): exact up to ``HASHES`` values, then within about 3 %. Its hash is fixed,
so it depends on no order and no seed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from daskml_scale.spec.expressions import Coded

from .summary import pack, unpack

LABELS = 100_000
"""Most labels whose counts are kept."""
HASHES = 1024


@dataclass(frozen=True, eq=False)
class Distinct:
    """The smallest hashes of the values seen, rising, uint64, at most ``HASHES``."""

    hashes: np.ndarray = field(default_factory=lambda: np.empty(0, dtype="uint64"))

    @classmethod
    def of_labels(cls, labels: Iterable[str]) -> Distinct:
        """Return the sketch of texts."""
        raw = b"".join(hashlib.blake2b(label.encode(), digest_size=8).digest() for label in labels)
        return cls._smallest(np.frombuffer(raw, dtype="<u8"))

    @classmethod
    def of_numbers(cls, values: np.ndarray) -> Distinct:
        """Return the sketch of numbers that are not missing (splitmix64, Steele et al. 2014)."""
        bits = (values[~np.isnan(values)].astype("float64") + 0.0).view("uint64")  # -0.0 becomes 0.0
        bits = bits + np.uint64(0x9E3779B97F4A7C15)
        for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
            bits = (bits ^ (bits >> np.uint64(shift))) * np.uint64(factor)
        return cls._smallest(bits ^ (bits >> np.uint64(31)))

    @classmethod
    def _smallest(cls, hashes: np.ndarray) -> Distinct:
        return cls(np.unique(hashes)[:HASHES].astype("uint64"))

    @classmethod
    def merged(cls, parts: Iterable[Distinct]) -> Distinct:
        """Return the sketch of all values of all parts, in any order."""
        return cls._smallest(np.concatenate([np.empty(0, dtype="uint64"), *(part.hashes for part in parts)]))

    @property
    def count(self) -> int:
        """How many distinct values there are: exact below ``HASHES``."""
        if len(self.hashes) < HASHES:
            return len(self.hashes)
        return round((HASHES - 1) / (float(self.hashes[-1]) / 2.0**64))

    def to_json(self) -> str:
        return pack(self.hashes.view("int64"))

    @classmethod
    def from_json(cls, value: str) -> Distinct:
        return cls(unpack(value, "int64").view("uint64"))


@dataclass(frozen=True, eq=False)
class Categories:
    """Counts of labels, at most ``LABELS``.

    Attributes
    ----------
    counts : mapping of label to rows
    error : int
        Rows by which a count may be too low; a label that is not there has at most so many.
    distinct : Distinct or None
        Of all labels, once some were dropped.
    rows : int
        Rows that have a category.
    """

    counts: Mapping[str, int] = field(default_factory=dict)
    error: int = 0
    distinct: Distinct | None = None
    rows: int = 0

    @classmethod
    def of(cls, column: Coded) -> Categories:
        """Count the labels of a column; missing ones do not count."""
        found = np.bincount(column.codes[column.codes >= 0], minlength=len(column.labels))
        counts = {column.labels[code]: int(found[code]) for code in np.flatnonzero(found)}
        return cls(counts, rows=sum(counts.values()))._bounded()

    def _bounded(self) -> Categories:
        if len(self.counts) <= LABELS:
            return self
        less = sorted(self.counts.values(), reverse=True)[LABELS]
        counts = {label: rows - less for label, rows in self.counts.items() if rows > less}
        return Categories(counts, self.error + less, self._distinct(), self.rows)

    def _distinct(self) -> Distinct:
        return self.distinct or Distinct.of_labels(self.counts)

    @classmethod
    def merged(cls, parts: Iterable[Categories]) -> Categories:
        """Add the counts of all parts, in their order."""
        total = cls({})
        for part in parts:
            lost = total.distinct is not None or part.distinct is not None
            distinct = Distinct.merged([total._distinct(), part._distinct()]) if lost else None
            counts: dict[str, int] = total.counts  # type: ignore[assignment]
            for label, rows in part.counts.items():
                counts[label] = counts.get(label, 0) + rows
            total = cls(counts, total.error + part.error, distinct, total.rows + part.rows)._bounded()
        return total

    @property
    def cardinality(self) -> int:
        """How many labels there are: exact unless some were dropped."""
        return len(self.counts) if self.distinct is None else max(len(self.counts), self.distinct.count)

    @property
    def levels(self) -> list[str]:
        """The labels kept, sorted."""
        return sorted(self.counts)

    def to_json(self) -> dict[str, Any]:
        """Return a JSON value; :meth:`from_json` is the inverse."""
        value: dict[str, Any] = {"counts": dict(sorted(self.counts.items())), "rows": self.rows}
        if self.distinct is not None:
            value |= {"error": self.error, "distinct": self.distinct.to_json()}
        return value

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Categories:
        sketch = value.get("distinct")
        distinct = None if sketch is None else Distinct.from_json(sketch)
        return cls(value["counts"], value.get("error", 0), distinct, value["rows"])
