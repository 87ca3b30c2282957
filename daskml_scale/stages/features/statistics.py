"""What fitting keeps of each chunk: a small JSON value that merges in unit order, never the data.

Categories under ``fit_where`` are what a recipe learns. The first and last instants of a chunk are
not learnt: they tell which chunks the trailing windows of a row range can reach (its halo).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from daskml_scale.spec.expressions import Coded, Values, evaluate

from .learning import learn_steps, scan_steps
from .program import Program

_NEVER = (2**63 - 1, -(2**63))
"""First and last instant of a chunk that has none."""

Ranges = tuple[tuple[int, int], ...]
"""Row ranges [start, stop) in rising order."""


def instants(expression: str, columns: Mapping[str, Values], rows: int) -> np.ndarray:
    """Return the instants of an expression, datetime64[ns] of shape (rows,)."""
    return np.broadcast_to(evaluate(expression, columns).astype("datetime64[ns]"), (rows,))


def scan(program: Program, columns: Mapping[str, Values], rows: int, where: str | None) -> dict[str, Any]:
    """Return the statistics of one chunk.

    Parameters
    ----------
    program : Program
    columns : mapping
        ``program.scan_columns(where)`` of the chunk, each of shape (rows,).
    where : str, optional
        Condition: rows that may be learnt from.

    Returns
    -------
    dict
        ``learnt``: rows of ``where``; ``categories``: column -> label -> rows; ``steps``: what
        other steps learn from; ``known_at``: [first, last] in ns
        since 1970, or None; ``at``: time column -> the same.
    """
    found: dict[str, Any] = {"rows": rows}
    if program.learns:
        wanted = np.ones(rows, dtype=bool)
        if where:
            condition = np.asarray(evaluate(where, columns), dtype="float64")
            wanted = np.broadcast_to(np.nan_to_num(condition) != 0, (rows,))
        found["learnt"] = int(wanted.sum())
        found["categories"] = {name: _counts(columns[name], wanted) for name in program.ordinal}
        if statistics := scan_steps(
            program.steps, {name: column[wanted] for name, column in columns.items()}, int(wanted.sum()), program.target
        ):
            found["steps"] = statistics
    if program.trailing:
        found["known_at"] = _ends(instants(program.known_at, columns, rows))
        found["at"] = {name: _ends(np.asarray(columns[name])) for name in program.windows}
    return found


def _counts(column: Values, wanted: np.ndarray) -> dict[str, int]:
    assert isinstance(column, Coded)
    codes = column.codes[wanted]
    counts = np.bincount(codes[codes >= 0], minlength=len(column.labels))
    return {column.labels[code]: int(counts[code]) for code in np.flatnonzero(counts)}


def _ends(times: np.ndarray) -> list[int] | None:
    present = times[~np.isnat(times)].astype("datetime64[ns]").view("int64")
    return [int(present.min()), int(present.max())] if len(present) else None


def learn(program: Program, scans: Iterable[Mapping[str, Any]], withheld: Sequence[str] = ()) -> Program:
    """Return the fitted recipe from the statistics of all chunks, in unit order, and what ``checks.withheld`` says."""
    if program.categories is not None:
        return program
    counts: dict[str, dict[str, int]] = {name: {} for name in program.ordinal}
    chunks = list(scans)
    learnt = learn_steps(program.steps, [found.get("steps", {}) for found in chunks])
    for found in chunks:
        for name, labels in found.get("categories", {}).items():
            for label, rows in labels.items():
                counts[name][label] = counts[name].get(label, 0) + rows
    return program.fitted({name: sorted(labels) for name, labels in counts.items()}, withheld, learnt)


@dataclass(frozen=True, eq=False)
class Bounds:
    """First and last instants of every chunk, in ns since 1970.

    Attributes
    ----------
    edges : ndarray of int, shape (chunks + 1,)
        Chunk c holds rows [edges[c], edges[c + 1]).
    known_at : ndarray of int, shape (2, chunks)
    at : mapping of time column to ndarray of int, shape (2, chunks)
    windows : mapping of time column to int
        Longest window, ns.
    """

    edges: np.ndarray
    known_at: np.ndarray
    at: Mapping[str, np.ndarray]
    windows: Mapping[str, int]

    @classmethod
    def merge(cls, program: Program, ranges: Sequence[tuple[int, int]], scans: Sequence[Mapping[str, Any]]) -> Bounds:
        """Join the statistics of all chunks, in unit order."""

        def ends(values: Iterable[list[int] | None]) -> np.ndarray:
            return np.array([value or _NEVER for value in values], dtype="int64").reshape(-1, 2).T

        return cls(
            np.array([0, *(stop for _, stop in ranges)]),
            ends(found["known_at"] for found in scans),
            {name: ends(found["at"][name] for found in scans) for name in program.windows},
            program.windows,
        )

    def halo(self, start: int, stop: int) -> Ranges:
        """Return the rows that trailing windows of rows [start, stop) may reach: whole chunks, neighbours joined."""
        first, last = np.searchsorted(self.edges, [start, stop - 1], "right") - 1
        earliest = int(self.known_at[0, first : last + 1].min())
        latest = int(self.known_at[1, first : last + 1].max())
        if earliest > latest:
            return ()
        reached = np.zeros(len(self.edges) - 1, dtype=bool)
        for name, (low, high) in self.at.items():
            after = max(earliest - self.windows[name], _NEVER[1])
            reached |= (high > after) & (low <= latest)
        return joined((int(self.edges[c]), int(self.edges[c + 1])) for c in np.flatnonzero(reached))


def joined(ranges: Iterable[tuple[int, int]]) -> Ranges:
    """Join ranges in rising order where one ends and the next begins."""
    result: list[tuple[int, int]] = []
    for start, stop in ranges:
        if result and result[-1][1] == start:
            result[-1] = (result[-1][0], stop)
        else:
            result.append((start, stop))
    return tuple(result)
