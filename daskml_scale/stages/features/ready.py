"""A fitted recipe that knows its table: what a range of rows reads, depends on, and costs. No I/O."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from operator import attrgetter
from typing import TYPE_CHECKING

from daskml_scale.plan.memory import RowNeed
from daskml_scale.plan.records import digest
from daskml_scale.plan.units import Snapshot

from . import memory
from .bounds import Bounds, Ranges
from .program import Program
from .seen import Seen
from .transformer import RowTransformer

if TYPE_CHECKING:
    from .planner import RecipePlanner


@dataclass(frozen=True, eq=False)
class Ready:
    """A fitted recipe that knows its table.

    Attributes
    ----------
    program : Program
    planner : RecipePlanner
    bounds : Bounds or None
        ``None`` when no step looks at other rows of the table.
    learnt_rows : tuple of int
        How many rows of each chunk were learnt from.
    """

    program: Program
    planner: RecipePlanner
    bounds: Bounds | None
    learnt_rows: tuple[int, ...] = ()

    @cached_property
    def transformer(self) -> RowTransformer:
        """Runs the recipe on a range of rows; picklable, the ``shared`` of a plan."""
        return self.planner.bind(self.program, self.bounds)

    @property
    def saw(self) -> Seen | None:
        """Which rows of this table the recipe learnt from; ``None`` where it learnt nothing, or from another table."""
        seen = None if self.program.seen is None else Seen.from_json(self.program.seen)
        return seen if seen is not None and seen.table and seen.table == self.planner.identity else None

    def halo(self, start: int, stop: int) -> Ranges:
        """Return the rows that trailing windows of rows [start, stop) may reach."""
        return self.bounds.halo(start, stop) if self.bounds is not None else ()

    def inputs(self, start: int, stop: int, also: Sequence[str] = ()) -> str:
        """Return the digest of the ids of all stored objects that rows [start, stop) depend on.

        Parameters
        ----------
        also : sequence of str
            Other columns of the same rows that the caller reads.
        """
        halo, rows = self.halo(start, stop), self.planner.rows
        own = rows.row_ids((*self.program.row_columns, *also), start, stop)
        around = [rows.row_ids(self.program.event_columns, first, last) for first, last in halo]
        carried = self.bounds.digest(start, stop) if self.bounds is not None else []
        more = [carried] if carried else []
        return digest((start, stop), own, halo, around, self._joined_ids, self.planner.own, *more)

    @cached_property
    def _joined_ids(self) -> str:
        used = self.program.tables
        return digest([(name, all_ids(self.planner.tables[name], columns)) for name, columns in sorted(used.items())])

    def need(self, ranges: Sequence[tuple[int, int]], itemsize: int = 4) -> RowNeed | None:
        """Return the projected memory of the features of the largest of some ranges of rows, ``None`` without any.

        See ``memory.of_rows``.
        """
        needs = (memory.of_rows(self, start, stop, itemsize) for start, stop in ranges)
        return max(needs, key=attrgetter("total"), default=None)


def all_ids(snapshot: Snapshot, columns: Sequence[str]) -> list[tuple[str, tuple[str, ...]]]:
    return [(name, snapshot.ids.get(name, ())) for name in columns]
