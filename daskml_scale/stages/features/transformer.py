"""Run a fitted recipe on a range of rows: the one code path of training, prediction and lazy previews.

``RowTransformer`` is picklable and small (recipe and URLs); the tables of joins are prepared once per
process. It decides nothing: ``planner.RecipePlanner`` says which rows a range needs.

For another stage (``predict``)::

    planner = RecipePlanner(Program.from_dict(recipe), snapshot, {"planes": planes_snapshot})
    planner.check()                            # SpecError before anything runs
    first = planner.scan(records)              # Plan of the bounds pass; without units it is done or not needed
    if first.units: return first               # kernel: worker.shared.scan_unit(unit, worker.cache)
    ready = planner.read(records)              # the fitted program and the bounds of all chunks
    halo = ready.halo(start, stop)             # ((start, stop), ...): rows that trailing windows may reach
    ready.inputs(start, stop)                  # digest of all stored objects that these rows depend on
    ready.need([(start, stop)])                # projected bytes
    return after(first, select(...))           # shared=ready.transformer; picklable
    worker.shared.matrix(start, stop, halo, worker.cache)      # kernel: ndarray (stop - start, features)
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np

from daskml_scale.engine.worker import CACHE, Cache
from daskml_scale.plan.units import Unit
from daskml_scale.spec.expressions import Coded, Values
from daskml_scale.spec.step_base import EventStep, Step
from daskml_scale.spec.steps import AsOf, Lookup, Ordinal, Trailing
from daskml_scale.spec.steps_history import HistoryStep

from . import history, joins, kernels
from .learning import reads_rows
from .program import Program, joined_columns
from .rowwise import rowwise
from .statistics import Ranges, instants, scan


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


@dataclass(frozen=True)
class RowTransformer:
    """A recipe bound to its tables.

    Attributes
    ----------
    program : Program
    rows : Table
        The table whose rows are transformed; trailing windows read it too.
    tables : mapping of name to Table
        The other tables of lookup and as-of steps.
    where : str or None
        Rows that the fitting pass learns from.
    own : frozenset of str
        The other tables that are the rows themselves.
    """

    program: Program
    rows: Table
    tables: Mapping[str, Table]
    where: str | None = None
    own: frozenset[str] = frozenset()

    def scan(self, start: int, stop: int) -> dict[str, Any]:
        """Return the statistics of rows [start, stop): a small JSON value."""
        columns = self.rows.read(self.program.scan_columns(self.where), start, stop)
        return scan(self.program, columns, stop - start, self.where)

    def scan_unit(self, unit: Unit, cache: Cache = CACHE) -> dict[str, Any]:
        """Run a unit of the fitting pass: one chunk, or the check of one joined table's keys."""
        kind, *payload = unit.payload
        if kind == "rows":
            return self.scan(*payload)
        (position,) = payload
        return {"rows": len(self.join(position, cache).keys.own)}

    def matrix(self, start: int, stop: int, halo: Ranges, cache: Cache = CACHE, dtype: str = "float32") -> np.ndarray:
        """Return the features of rows [start, stop).

        Parameters
        ----------
        start, stop : int
            Any range; it need not be aligned with chunks.
        halo : sequence of (start, stop)
            Rows of the table that trailing windows may reach, from ``planner``; more than needed
            changes nothing.
        cache : Cache
            Keeps the prepared tables of joins.

        Returns
        -------
        ndarray of ``dtype``, shape (stop - start, features)
        """
        rows = self.rows.read(self.program.row_columns, start, stop)
        events = self._events(halo) if self.program.trailing else {}
        known_at = instants(self.program.known_at, rows, stop - start)
        made: dict[str, np.ndarray] = {}
        out = np.empty((stop - start, len(self.program.features)), dtype=dtype)
        for position, step in enumerate(self.program.steps):
            join = self.join(position, cache) if isinstance(step, (Lookup, AsOf)) else None
            columns = {**rows, **made} if reads_rows(step) else rows
            itself = self._itself(step, start, stop, halo)
            arrays = self._step(position, columns, known_at, join, events, itself)
            made.update(zip(step.outputs(), arrays, strict=True))
        with np.errstate(over="ignore", invalid="ignore"):
            for column, name in enumerate(self.program.features):
                out[:, column] = made[name]
        return out

    def _step(
        self,
        position: int,
        columns: Mapping[str, Values],
        known_at: np.ndarray,
        join: joins.Join | None,
        events: Mapping[str, Values],
        itself: np.ndarray | None,
    ) -> list[np.ndarray]:
        """Return the features of one step, float64, each of shape (rows,)."""
        step = self.program.steps[position]
        match step:
            case Ordinal():
                learnt = self.program.categories or {}
                return [kernels.ordinal(_coded(columns[name]), learnt[name], step.unknown) for name in step.of]
            case Lookup():
                assert join is not None
                return joins.lookup(step, join, columns)
            case AsOf():
                assert join is not None
                return joins.as_of(step, join, columns, known_at, itself)
            case Trailing():
                return joins.trailing(step, columns, known_at, events, itself)
            case HistoryStep():
                hidden = step.of in self.program.withheld
                return history.history(step, columns, known_at, events, itself, hidden=hidden)
        return rowwise(step, columns, self.program.learnt.get(str(position)), len(known_at))

    def join(self, position: int, cache: Cache = CACHE) -> joins.Join:
        """Return the prepared table of the lookup or as-of step at ``position``, from the cache of this process."""
        step = self.program.steps[position]
        assert isinstance(step, (Lookup, AsOf))
        table = self.tables[step.table]
        load: Callable[[], joins.Join] = lambda: joins.prepare(step, table.read(joined_columns(step)), position)  # noqa: E731
        key = ("join", getattr(table, "url", ""), table.version, step.model_dump_json())
        return cache.get(key, load, lambda join: join.nbytes)

    def _itself(self, step: Step, start: int, stop: int, halo: Ranges) -> np.ndarray | None:
        """Return where each row is among those that a step looks at, -1 where it is not; ``None`` if it may count."""
        withheld = self.program.withheld
        if isinstance(step, HistoryStep) or (isinstance(step, EventStep) and step.of in withheld):
            return places(halo, start, stop)
        if isinstance(step, AsOf) and step.table in self.own and not set(withheld).isdisjoint(step.take):
            return np.arange(start, stop)
        return None

    def _events(self, halo: Ranges) -> dict[str, Values]:
        names = self.program.event_columns
        pieces = [self.rows.read(names, start, stop) for start, stop in halo or ((0, 0),)]
        return {name: concatenate([piece[name] for piece in pieces]) for name in names}


def _coded(column: Values) -> Coded:
    if not isinstance(column, Coded):
        raise TypeError(f"a column of {column.dtype} is not a category")
    return column


def places(ranges: Ranges, start: int, stop: int) -> np.ndarray:
    """Return the places of rows [start, stop) in the joined ``ranges``, -1 where a row is in none; shape (rows,)."""
    found = np.full(stop - start, -1)
    before = 0
    for first, last in ranges:
        low, high = max(first, start), min(last, stop)
        if low < high:
            found[low - start : high - start] = np.arange(before + low - first, before + high - first)
        before += last - first
    return found


def concatenate(pieces: Sequence[Values]) -> Values:
    """Join pieces of one column; pieces of a category share their labels."""
    if len(pieces) == 1:
        return pieces[0]
    first = pieces[0]
    if isinstance(first, Coded):
        return Coded(np.concatenate([_coded(piece).codes for piece in pieces]), first.labels)
    return np.concatenate([np.asarray(piece) for piece in pieces])
