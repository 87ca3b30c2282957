"""Which rows a recipe learnt from: runs of row numbers, kept with the recipe and looked at before anything is scored.

A score on rows that the recipe has seen is too good. The runs belong to one table, known by what its columns
hold, so a recipe that is applied to another table claims nothing there. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .summary import pack, unpack

MOST_RUNS = 1_000_000
"""Beyond it every chunk of which a row was seen counts as seen."""


@dataclass(frozen=True, eq=False)
class Seen:
    """Rows that were learnt from.

    Attributes
    ----------
    table : str
        Digest of what the table holds; empty where it cannot be told.
    edges : ndarray of int64
        Start and stop of each run of rows, in turn, rising.
    """

    table: str
    edges: np.ndarray

    @property
    def rows(self) -> int:
        """Number of rows seen."""
        return int((self.edges[1::2] - self.edges[0::2]).sum())

    def mask(self, numbers: np.ndarray) -> np.ndarray:
        """Return which rows were seen, bool of the shape of ``numbers``, the rows' numbers in the table."""
        return np.asarray(np.searchsorted(self.edges, numbers, "right") % 2 == 1)

    def to_json(self) -> dict[str, Any]:
        """Return a JSON value; :meth:`from_json` is the inverse."""
        return {"table": self.table, **self.here()}

    def here(self) -> dict[str, Any]:
        """Return the JSON value without the table: for a place where it is known."""
        return {"rows": self.rows, "runs": pack(self.edges)}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Seen:
        return cls(value.get("table", ""), unpack(value["runs"], "int64"))

    @classmethod
    def merge(cls, table: str, ranges: Sequence[tuple[int, int]], scans: Iterable[Mapping[str, Any]]) -> Seen:
        """Join what :func:`runs` said of every chunk, in the order of the rows."""
        parts: list[np.ndarray] = []
        for (start, stop), found in zip(ranges, scans, strict=True):
            said = found.get("seen")
            inner = np.array([0, stop - start]) if said is None else unpack(said, "int64")
            if found.get("learnt"):
                parts.append(inner + start)
        if sum(len(part) for part in parts) > 2 * MOST_RUNS:
            parts = [part[[0, -1]] for part in parts]
        edges = np.concatenate([np.empty(0, dtype="int64"), *parts])
        meeting = np.flatnonzero(edges[1:-1:2] == edges[2::2])  # one run ends where the next begins
        return cls(table, np.delete(edges, np.concatenate([2 * meeting + 1, 2 * meeting + 2])))


def runs(wanted: np.ndarray) -> str | None:
    """Return the runs of rows that are learnt from, packed; ``None`` for all of a chunk."""
    if wanted.all():
        return None
    return pack(np.flatnonzero(np.diff(np.concatenate([[False], wanted, [False]]))).astype("int64"))
