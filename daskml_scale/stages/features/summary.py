"""Small mergeable statistics of a column of numbers: moments, buckets for quantiles, counts of values.

Everything is a JSON value of plain numbers. Counts merge by addition, so quantiles, extremes and value
counts do not depend on any order; moments merge by Chan, Golub & LeVeque (1983) in the order of the units.
A bucket is the upper half of a float64 (sign, exponent, 10 bits of the mantissa): a value and its bucket's
edge towards 0 differ by less than 2**-10 of the value, and whole numbers below 2048 not at all. NaN counts as
missing; infinite values do not count at all.
"""

from __future__ import annotations

import base64
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

BUCKET_ERROR = 2.0**-10
"""Largest relative error of an order statistic."""
_SHIFT = 42
DISTINCT = 100_000
"""Most distinct values whose counts are kept."""


@dataclass(frozen=True)
class Moments:
    """Count, mean, sum of squared deviations, extremes; ``missing`` values beside them.

    ``low`` and ``high`` are meaningless when ``count`` is 0.
    """

    count: int = 0
    missing: int = 0
    mean: float = 0.0
    squares: float = 0.0
    low: float = 0.0
    high: float = 0.0

    @classmethod
    def of(cls, values: np.ndarray) -> Moments:
        """Return the moments of values of shape (rows,)."""
        finite = np.isfinite(values)
        whole = bool(finite.all())
        missing = 0 if whole else int(np.count_nonzero(np.isnan(values)))
        present = values if whole else values[finite]
        if not len(present):
            return cls(missing=missing)
        mean = float(present.mean())
        apart = present - mean
        with np.errstate(over="ignore"):
            squares = float(np.square(apart, out=apart).sum())
        return cls(len(present), missing, mean, squares, float(present.min()), float(present.max()))

    def merged(self, other: Moments) -> Moments:
        """Return the moments of both, this one's values first."""
        if not self.count or not other.count:
            some = other if other.count else self
            return Moments(some.count, self.missing + other.missing, some.mean, some.squares, some.low, some.high)
        count = self.count + other.count
        delta = other.mean - self.mean
        return Moments(
            count,
            self.missing + other.missing,
            self.mean + delta * (other.count / count),
            self.squares + other.squares + delta * delta * (self.count * (other.count / count)),
            min(self.low, other.low),
            max(self.high, other.high),
        )

    @property
    def deviation(self) -> float:
        """Standard deviation, divisor n; exactly 0 for a constant column."""
        return 0.0 if self.low == self.high else float(np.sqrt(self.squares / max(1, self.count)))


def bucket_of(values: np.ndarray) -> np.ndarray:
    """Return the bucket of finite values, int64: larger values never have smaller buckets."""
    bits = np.abs(values).view("int64") >> _SHIFT
    return np.asarray(np.where(values < 0, -bits, bits))


def edge_of(buckets: np.ndarray) -> np.ndarray:
    """Return the edges of buckets towards 0, float64."""
    return np.asarray(np.copysign((np.abs(buckets) << _SHIFT).view("float64"), buckets.astype("float64")))


@dataclass(frozen=True, eq=False)
class Histogram:
    """Counts of sorted keys: buckets (int64) or values (float64)."""

    keys: np.ndarray
    counts: np.ndarray

    @classmethod
    def of(cls, keys: np.ndarray) -> Histogram:
        """Count equal keys."""
        found, counts = np.unique(keys, return_counts=True)
        return cls(found, counts.astype("int64"))

    @classmethod
    def merged(cls, parts: Sequence[Histogram], dtype: str = "int64") -> Histogram:
        """Add the counts of all parts, in any order."""
        keys = np.concatenate([np.empty(0, dtype=dtype), *(part.keys for part in parts)])
        found, place = np.unique(keys, return_inverse=True)
        counts = np.zeros(len(found), dtype="int64")
        np.add.at(counts, place, np.concatenate([np.empty(0, dtype="int64"), *(part.counts for part in parts)]))
        return cls(found, counts)

    def quantiles(self, shares: Sequence[float], moments: Moments) -> list[float]:
        """Return quantiles of a histogram of buckets, as ``numpy.quantile`` (linear) up to ``BUCKET_ERROR``."""
        total = int(self.counts.sum())
        if not total:
            return [float("nan")] * len(shares)
        places = np.asarray(shares) * (total - 1)
        until = np.cumsum(self.counts)

        def at(rank: np.ndarray) -> np.ndarray:
            found = edge_of(self.keys[np.searchsorted(until, rank, "right")])
            return np.asarray(np.clip(found, moments.low, moments.high))

        low = at(np.floor(places).astype("int64"))
        high = at(np.ceil(places).astype("int64"))
        return [float(value) for value in low + (high - low) * (places - np.floor(places))]

    def pack(self) -> list[str]:
        """Return the histogram as text; :meth:`unpack` is the inverse."""
        return [pack(self.keys), pack(self.counts)]

    @classmethod
    def unpack(cls, value: Sequence[str], dtype: str = "int64") -> Histogram:
        return cls(unpack(value[0], dtype), unpack(value[1], "int64"))


def pack(array: np.ndarray) -> str:
    raw = np.diff(array, prepend=0) if array.dtype.kind == "i" else array
    return base64.b85encode(zlib.compress(raw.astype(raw.dtype.newbyteorder("<")).tobytes(), 6)).decode()


def unpack(text: str, dtype: str) -> np.ndarray:
    raw = np.frombuffer(zlib.decompress(base64.b85decode(text)), dtype=np.dtype(dtype).newbyteorder("<"))
    return np.cumsum(raw) if dtype == "int64" else raw.astype(dtype)


@dataclass(frozen=True, eq=False)
class Summary:
    """What is known of one column: moments, and what some steps ask for beside them.

    Attributes
    ----------
    moments : Moments
    buckets, values : Histogram or None
        ``values`` are counts of distinct values, at most ``DISTINCT``; beyond that ``crowded`` is true.
    """

    moments: Moments = field(default_factory=Moments)
    buckets: Histogram | None = None
    values: Histogram | None = None
    crowded: bool = False

    @classmethod
    def of(cls, values: np.ndarray, asked: Iterable[str], moments: Moments | None = None) -> Summary:
        """Summarize values of shape (rows,).

        Parameters
        ----------
        asked : of ``buckets``, ``values``
        moments : Moments, optional
            Of the values, where they are known.
        """
        asked = set(asked)
        present = values[np.isfinite(values)] if asked else values
        distinct = Histogram.of(present) if "values" in asked else None
        crowded = distinct is not None and len(distinct.keys) > DISTINCT
        return cls(
            moments or Moments.of(values),
            Histogram.of(bucket_of(present)) if "buckets" in asked else None,
            None if crowded else distinct,
            crowded,
        )

    @classmethod
    def merged(cls, parts: Sequence[Summary]) -> Summary:
        """Join summaries in the order of the units."""
        moments = Moments()
        for part in parts:
            moments = moments.merged(part.moments)
        buckets = [part.buckets for part in parts if part.buckets is not None]
        values = [part.values for part in parts if part.values is not None]
        together = Histogram.merged(values, "float64") if values else None
        crowded = any(part.crowded for part in parts) or (together is not None and len(together.keys) > DISTINCT)
        return cls(moments, Histogram.merged(buckets) if buckets else None, None if crowded else together, crowded)

    def filled(self, value: float) -> Summary:
        """Return the summary of the same column with ``value`` in the place of missing ones."""
        if not np.isfinite(value):
            return self
        missing = self.moments.missing
        one = Moments(missing, 0, value, 0.0, value, value)
        moments = Moments(**{**vars(self.moments), "missing": 0}).merged(one) if missing else self.moments
        more = np.full(min(1, missing), value)
        extra = Histogram(bucket_of(more), np.full(len(more), missing, dtype="int64"))
        buckets = None if self.buckets is None else Histogram.merged([self.buckets, extra])
        return Summary(moments, buckets, None)

    def to_json(self) -> dict[str, Any]:
        """Return a small JSON value; :meth:`from_json` is the inverse."""
        value: dict[str, Any] = {"moments": list(vars(self.moments).values())}
        if self.buckets is not None:
            value["buckets"] = self.buckets.pack()
        if self.values is not None:
            value["values"] = self.values.pack()
        if self.crowded:
            value["crowded"] = True
        return value

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Summary:
        buckets, values = value.get("buckets"), value.get("values")
        return cls(
            Moments(*value["moments"]),
            None if buckets is None else Histogram.unpack(buckets),
            None if values is None else Histogram.unpack(values, "float64"),
            value.get("crowded", False),
        )


def comoments(values: np.ndarray) -> tuple[int, np.ndarray, np.ndarray]:
    """Return count, mean (columns,) and sum of products of deviations (columns, columns) of complete rows."""
    complete = values[np.isfinite(values).all(axis=1)]
    width = values.shape[1]
    if not len(complete):
        return 0, np.zeros(width), np.zeros((width, width))
    mean = complete.mean(axis=0)
    centred = complete - mean
    return len(complete), mean, centred.T @ centred


def merge_comoments(
    one: tuple[int, np.ndarray, np.ndarray], other: tuple[int, np.ndarray, np.ndarray]
) -> tuple[int, np.ndarray, np.ndarray]:
    """Return the comoments of both (Chan et al. 1983, for every pair of columns)."""
    count = one[0] + other[0]
    if not one[0] or not other[0]:
        return one if one[0] else other
    delta = other[1] - one[1]
    mean = one[1] + delta * (other[0] / count)
    return count, mean, one[2] + other[2] + np.outer(delta, delta) * (one[0] * (other[0] / count))
