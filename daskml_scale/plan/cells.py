"""Where units are on a map for people: their grid, read from their keys, in at most ten thousand cells.

A unit's key ends in its place (``rows/00000003``, ``block/00000003.00000000``, see ``grids.block_key``), so no table
of a million keys is needed. Where keys have no place, units are numbered in their order as long as they are few.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import ceil, prod

from daskml_scale.events import Cell, CellGrid

MAX_CELLS = 10_000
_PLACE = re.compile(r"\d{3,}(?:\.\d{3,})*\Z")
_MAX_TEXT = 200


@dataclass(frozen=True)
class Places:
    """A map and how units are found on it.

    Attributes
    ----------
    known : mapping of key to int
        Cells of units whose keys do not tell their place.
    """

    grid: CellGrid
    known: Mapping[str, int] = field(default_factory=dict)

    def of(self, key: str) -> int | None:
        """Return the number of the cell of a unit; ``None`` for a unit of another pass."""
        if self.known:
            return self.known.get(key)
        prefix, _, place = key.rpartition("/")
        index = tuple(map(int, place.split("."))) if prefix == self.grid.name and _PLACE.match(place) else ()
        if len(index) != len(self.grid.shape) or any(
            at >= size for at, size in zip(index, self.grid.shape, strict=True)
        ):
            return None
        cell = 0
        for at, step, count in zip(index, self.grid.step, self.grid.counts, strict=True):
            cell = cell * count + at // step
        return cell

    def count(self, keys: Iterable[str]) -> tuple[int, ...]:
        """Return how many of the units are in each cell."""
        found = [0] * prod(self.grid.counts)
        for key in keys:
            cell = self.of(key)
            if cell is not None:
                found[cell] += 1
        return tuple(found)


def steps_of(shape: Sequence[int], most: int = MAX_CELLS) -> tuple[int, ...]:
    """Return units per cell and dimension, so that there are at most ``most`` cells; the longest are binned first."""
    steps = [1] * len(shape)

    def cells() -> list[int]:
        return [-(-size // step) for size, step in zip(shape, steps, strict=True)]

    while prod(now := cells()) > most:
        longest = max(range(len(now)), key=lambda dim: now[dim])
        wanted = max(1, most // (prod(now) // now[longest])) if now[longest] > 1 else 1
        # Not below the next longest dimension: a square map stays square.
        rest = sorted(now)[-2] if len(now) > 1 else 1
        steps[longest] = max(steps[longest] + 1, ceil(shape[longest] / max(wanted, min(rest, now[longest] - 1))))
    return tuple(steps)


def places(keys: Sequence[str], of: str, most: int = MAX_CELLS) -> Places | None:
    """Return the map of the units of a pass, or ``None`` when they have no places and are many.

    Parameters
    ----------
    keys : sequence of str
        All units of a stage, in order.
    of : str
        Key of one unit of the pass: units whose keys begin like it belong to it.
    """
    name, mark, place = of.rpartition("/")
    if not _PLACE.match(place):
        return _numbered(keys, of.partition("/")[0], most)
    head, length = name + mark, len(of)
    mine = [key for key in keys if len(key) == length and key.startswith(head)]
    # In C order the last place is the largest of every dimension.
    shape = tuple(int(part) + 1 for part in mine[-1][len(head) :].split("."))
    if prod(shape) != len(mine):
        return _numbered(mine, name, most)
    return Places(CellGrid(name, shape, steps_of(shape, most)))


def _numbered(keys: Sequence[str], name: str, most: int) -> Places | None:
    if not 0 < len(keys) <= most:
        return None
    return Places(CellGrid(name, (len(keys),), (1,)), {key: cell for cell, key in enumerate(keys)})


def cells(rows: Iterable[Cell]) -> tuple[Cell, ...]:
    """Return the sums of what happened in each cell; of its units the one that failed is told, else the last."""
    found: dict[int, Cell] = {}
    for row in rows:
        old = found.get(row.at)
        if old is None:
            found[row.at] = row
            continue
        told = old if old.failed and not row.failed else row
        found[row.at] = Cell(
            row.at, old.done + row.done, old.failed + row.failed, old.quarantined + row.quarantined,
            old.seconds + row.seconds, told.unit, told.worker, told.why,
        )  # fmt: skip
    return tuple(found.values())


def short(text: str) -> str:
    """Return the first line of a text, cut to what a map shows."""
    return text.partition("\n")[0][:_MAX_TEXT]
