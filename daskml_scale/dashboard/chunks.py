"""The chunk map of one pass of a stage: what became of the units of each cell. Bounded by ``plan.cells.MAX_CELLS``.

Folded on the scheduler, and by the publisher, which tells a scheduler that came back. Events come from other
processes: what does not fit the grid is dropped.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Mapping, Sequence
from math import prod
from typing import Any

from daskml_scale.dashboard import bounds
from daskml_scale.events import Cell, CellGrid
from daskml_scale.plan.cells import MAX_CELLS

STATES = "trpcqf"
"""Of a cell, one letter: to do, reused, partly done, committed, quarantined rows, failed."""
_COUNTS = ("todo", "done", "failed", "quarantined")


class ChunkMap:
    """The cells of one grid.

    Attributes
    ----------
    grid : CellGrid
    todo, done, failed, quarantined : array of int
        Units per cell; quarantined ones are among those done.
    seconds : array of float
        Kernel seconds per cell.
    told : dict of int to (unit, worker, why)
        Of the unit of a cell that says most.
    """

    def __init__(self, grid: CellGrid, todo: Sequence[int] = (), units: int = 0) -> None:
        if not grid.shape or len(grid.shape) != len(grid.step) or min(*grid.shape, *grid.step) < 1:
            raise ValueError(f"no grid: {grid}")
        size = prod(grid.counts)
        if size > MAX_CELLS:
            raise ValueError(f"{size} cells are more than {MAX_CELLS}")
        self.grid = CellGrid(bounds.name(grid.name), grid.shape, grid.step)
        self.sizes = array("q", sizes(grid))
        zeros = bytes(8 * size)
        self.todo = array("q", todo) if len(todo) == size else self.sizes[:] if units else array("q", zeros)
        self.done, self.failed, self.quarantined = (array("q", zeros) for _ in range(3))
        self.seconds = array("d", zeros)
        self.told: dict[int, tuple[str, str, str]] = {}

    def take(self, cells: Iterable[Cell]) -> None:
        """Add what was committed."""
        for cell in cells:
            if not 0 <= cell.at < len(self.sizes):
                continue
            self.done[cell.at] += bounds.count(cell.done)
            self.failed[cell.at] += bounds.count(cell.failed)
            self.quarantined[cell.at] += bounds.count(cell.quarantined)
            self.seconds[cell.at] += bounds.seconds(cell.seconds)
            if cell.failed or not self.failed[cell.at]:
                self.told[cell.at] = bounds.name(cell.unit), bounds.name(cell.worker), bounds.name(cell.why)

    def states(self) -> str:
        """Return one letter of ``STATES`` per cell."""
        return "".join(map(_state, self.todo, self.done, self.failed, self.quarantined))

    def shown(self) -> dict[str, Any]:
        """Return what the page draws."""
        return {
            "name": self.grid.name,
            "shape": list(self.grid.shape),
            "step": list(self.grid.step),
            "counts": list(self.grid.counts),
            "cells": self.states(),
            "units": sum(self.sizes),
            "done": sum(self.done),
            "failed": sum(self.failed),
            "todo": sum(self.todo),
        }

    def cell(self, at: int) -> dict[str, Any]:
        """Return everything about one cell; empty for one that is not there."""
        if not 0 <= at < len(self.sizes):
            return {}
        unit, worker, why = self.told.get(at, ("", "", ""))
        index, rest = [], at
        for count in reversed(self.grid.counts):
            rest, place = divmod(rest, count)
            index.append(place)
        ranges = [
            [place * step, min((place + 1) * step, size) - 1]
            for place, step, size in zip(reversed(index), self.grid.step, self.grid.shape, strict=True)
        ]
        counts = {name: getattr(self, name)[at] for name in _COUNTS}
        over = max(1, counts["done"] + counts["failed"])
        return {
            "at": at, "name": self.grid.name, "ranges": ranges, "units": self.sizes[at], **counts,
            "seconds": self.seconds[at] / over, "unit": unit, "worker": worker, "why": why,
        }  # fmt: skip

    def to_dict(self) -> dict[str, Any]:
        """Return everything, as plain data."""
        return {
            "grid": [self.grid.name, list(self.grid.shape), list(self.grid.step)],
            "seconds": list(self.seconds),
            "told": [[at, *told] for at, told in self.told.items()],
            **{name: list(getattr(self, name)) for name in _COUNTS},
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> ChunkMap:
        """Rebuild what `to_dict` returned."""
        name, shape, step = data["grid"]
        found = cls(CellGrid(str(name), tuple(map(int, shape)), tuple(map(int, step))))
        for column in _COUNTS:
            setattr(found, column, _column("q", map(bounds.count, data[column]), len(found.sizes)))
        found.seconds = _column("d", map(bounds.seconds, data["seconds"]), len(found.sizes))
        found.told = {
            int(at): (bounds.name(unit), bounds.name(worker), bounds.name(why))
            for at, unit, worker, why in data["told"]
            if 0 <= int(at) < len(found.sizes)
        }
        return found


def _column(kind: str, values: Iterable[float], size: int) -> Any:
    found = array(kind, values)
    if len(found) != size:
        raise ValueError(f"a column has {len(found)} values for {size} cells")
    return found


def _state(todo: int, done: int, failed: int, quarantined: int) -> str:
    if failed:
        return "f"
    if quarantined:
        return "q"
    if done >= todo:
        return "c" if done else "r"
    return "p" if done else "t"


def sizes(grid: CellGrid) -> list[int]:
    """Return the number of units in each cell, in C order."""
    found = [1]
    for size, step, count in zip(grid.shape, grid.step, grid.counts, strict=True):
        along = [min(step, size - at * step) for at in range(count)]
        found = [before * each for before in found for each in along]
    return found
