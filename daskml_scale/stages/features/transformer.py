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

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from daskml_scale.engine.worker import CACHE, Cache
from daskml_scale.plan.units import Unit
from daskml_scale.spec.expressions import Values
from daskml_scale.spec.step_base import EventStep, Step
from daskml_scale.spec.steps import AsOf, Lookup, Ordinal, Trailing
from daskml_scale.spec.steps_history import HistoryStep
from daskml_scale.spec.steps_learned import Aggregate, SklearnStep

from . import aggregate, blocks, estimators, history, joins, kernels
from .bounds import Bounds, Ranges
from .learning import reads_rows
from .look import Look, places, read_events, stacked
from .program import Program, joined_columns
from .rowwise import Functions, rowwise
from .sources import MemoryTable as MemoryTable
from .sources import StoredTable as StoredTable
from .sources import Table as Table
from .sources import coded
from .statistics import Place, fold_numbers, instants, scan
from .training import fit_model


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
    functions : mapping of path to callable
        The user's functions.
    carrying : Bounds or None
        What is carried from chunk to chunk, where a step needs it.
    total : int
        Rows of the table.
    """

    program: Program
    rows: Table
    tables: Mapping[str, Table]
    where: str | None = None
    own: frozenset[str] = frozenset()
    functions: Functions = field(default_factory=dict)
    carrying: Bounds | None = None
    total: int = 0

    def scan(self, start: int, stop: int, total: int = 0) -> dict[str, Any]:
        """Return the statistics of rows [start, stop) of a table of ``total`` rows: a small JSON value."""
        columns = self.rows.read(self.program.scan_columns(self.where), start, stop)
        return scan(self.program, columns, stop - start, self.where, Place(start, total), self.functions)

    def scan_unit(self, unit: Unit, cache: Cache = CACHE) -> dict[str, Any]:
        """Run a unit of the fitting pass: one chunk, one joined table's keys, or one transformer of scikit-learn."""
        kind, *payload = unit.payload
        if kind == "rows":
            return self.scan(*payload)
        if kind == "model":
            return fit_model(self, cache, *payload)
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
        return self.matrices((self.program,), start, stop, halo, cache, dtype)[0]

    def matrices(
        self,
        programs: Sequence[Program],
        start: int,
        stop: int,
        halo: Ranges,
        cache: Cache = CACHE,
        dtype: str = "float32",
    ) -> list[np.ndarray]:
        """Return the features of rows [start, stop) under several fits of this recipe.

        Rows are read once, and a step that learnt nothing is computed once. See :meth:`matrix`.
        """
        look = self._look(start, stop, halo)
        if len(programs) == 1 and (cheap := blocks.in_blocks(programs[0], look.rows)):
            bound = replace(self, program=programs[0])
            whole: Callable[[int], list[np.ndarray]] = lambda position: bound._step(position, look.rows, look, cache)  # noqa: E731
            return [blocks.matrix(programs[0], look.rows, stop - start, cheap, whole, dtype)]
        first: list[list[np.ndarray]] | None = None
        results = []
        for program in programs:
            bound = replace(self, program=program)
            arrays = bound._arrays(look, cache, len(program.steps), programs[0], first)
            first = first or arrays
            made: dict[str, np.ndarray] = {}
            for position, found in enumerate(arrays):
                made.update(zip(program.outputs(position), found, strict=True))
            results.append(stacked([made[name] for name in program.features], stop - start, dtype))
        return results

    def columns_before(
        self, position: int, start: int, stop: int, halo: Ranges, also: Sequence[str], cache: Cache = CACHE
    ) -> dict[str, Values]:
        """Return the table's columns, ``also`` among them, and the features of the steps before ``position``."""
        look = self._look(start, stop, halo, also)
        columns: dict[str, Values] = dict(look.rows)
        for number, found in enumerate(self._arrays(look, cache, position)):
            columns.update(zip(self.program.outputs(number), map(kernels.numbers, found), strict=True))
        return columns

    def folds(self, start: int, stop: int) -> np.ndarray:
        """Return the fold of each row, int8 of shape (stop - start,)."""
        folds = self.program.folds
        assert folds is not None
        columns = self.rows.read([] if folds.by is None else [folds.by], start, stop)
        return fold_numbers(folds, columns, stop - start, Place(start, self.total)).astype("int8")

    def _look(self, start: int, stop: int, halo: Ranges, also: Sequence[str] = ()) -> Look:
        rows = self.rows.read(tuple(dict.fromkeys((*self.program.row_columns, *also))), start, stop)
        names = self.program.event_columns
        events = read_events(self.rows, names, halo, start, stop, rows) if self.program.trailing else {}
        asked = self.program.known_at
        return Look(start, stop, halo, rows, instants(asked, rows, stop - start), events, asked)

    def _arrays(
        self,
        look: Look,
        cache: Cache,
        until: int,
        other: Program | None = None,
        known: list[list[np.ndarray]] | None = None,
    ) -> list[list[np.ndarray]]:
        """Return the features of the steps before ``until``; ``known`` are those of another fit."""
        made: dict[str, np.ndarray] = {}
        every: list[list[np.ndarray]] = []
        changed: set[str] = set()
        for position, step in enumerate(self.program.steps[:until]):
            names = self.program.outputs(position)
            if known and other and changed.isdisjoint(step.reads()) and _same_fit(self.program, other, position):
                arrays = known[position]
                changed.difference_update(names)
            else:
                columns: Mapping[str, Values] = look.rows
                if reads_rows(step):
                    earlier = {name: kernels.numbers(made[name]) for name in step.reads() if name in made}
                    columns = {**columns, **earlier}
                arrays = self._step(position, columns, look, cache)
                changed.update(names)
            every.append(arrays)
            made.update(zip(names, arrays, strict=True))
        return every

    def _step(self, position: int, columns: Mapping[str, Values], look: Look, cache: Cache) -> list[np.ndarray]:
        """Return the features of one step, float64 or bool, each of shape (rows,)."""
        step, learnt = self.program.steps[position], self.program.learnt.get(str(position))
        itself = self._itself(step, look)
        match step:
            case Ordinal():
                known = self.program.categories or {}
                return [kernels.ordinal(coded(columns[name]), known[name], step.unknown) for name in step.of]
            case Lookup():
                return joins.lookup(step, self.join(position, cache), columns)
            case AsOf():
                return joins.as_of(step, self.join(position, cache), columns, look.known_at, itself)
            case Trailing():
                return joins.trailing(step, columns, look.known_at, look.events, itself, look.past(step))
            case HistoryStep():
                return self._history(step, position, columns, look, itself)
            case Aggregate():
                assert learnt is not None
                groups = cache.get(
                    ("groups", learnt["id"]), lambda: aggregate.Groups.of_learnt(step, learnt), lambda made: made.nbytes
                )
                return aggregate.encode(step, groups, columns)
            case SklearnStep():
                if learnt is None:  # it is about to be fitted
                    return []
                size = 2 * len(learnt["skops"])
                load: Callable[[], Any] = lambda: estimators.load(step, position, learnt)  # noqa: E731
                model = cache.get(("transformer", learnt["sha256"], tuple(step.trusted)), load, size)
                return estimators.transform(step, position, model, columns, learnt["names"])
        return rowwise(step, columns, learnt, len(look.known_at), self.functions)

    def _history(
        self,
        step: HistoryStep,
        position: int,
        columns: Mapping[str, Values],
        look: Look,
        itself: np.ndarray | None,
    ) -> list[np.ndarray]:
        hidden = step.of in self.program.withheld
        if position not in self.program.carried:
            past = look.past(step)
            return history.history(step, columns, look.known_at, look.events, itself, hidden=hidden, past=past)
        assert self.carrying is not None
        carried, edges = self.carrying.carried[position], self.carrying.edges
        before = self.carrying.before(step.at, look.start, look.stop)
        entities = carried.keys.encode([columns[name] for name in step.match], len(look.known_at))
        entities = np.where(np.isnat(look.known_at), -1, entities)
        rows = np.concatenate([np.empty(0, dtype="int64"), *(np.arange(*part) for part in look.halo)])
        chunk = np.searchsorted(edges, rows, "right") - 1
        rows = np.where(carried.newest[chunk] < before, -1, rows) if len(rows) else rows
        state = carried.look(entities, before)
        return history.history(
            step, columns, look.known_at, look.events, itself, hidden=hidden, before=state, rows=rows
        )

    def join(self, position: int, cache: Cache = CACHE) -> joins.Join:
        """Return the prepared table of the lookup or as-of step at ``position``, from the cache of this process."""
        step = self.program.steps[position]
        assert isinstance(step, (Lookup, AsOf))
        table = self.tables[step.table]
        load: Callable[[], joins.Join] = lambda: joins.prepare(step, table.read(joined_columns(step)), position)  # noqa: E731
        key = ("join", getattr(table, "url", ""), table.version, step.model_dump_json())
        return cache.get(key, load, lambda join: join.nbytes)

    def _itself(self, step: Step, look: Look) -> np.ndarray | None:
        """Return where each row is among those that a step looks at, -1 where it is not; ``None`` if it may count."""
        withheld = self.program.withheld
        if isinstance(step, HistoryStep) or (isinstance(step, EventStep) and step.of in withheld):
            return places(look.halo, look.start, look.stop)
        if isinstance(step, AsOf) and step.table in self.own and not set(withheld).isdisjoint(step.take):
            return np.arange(look.start, look.stop)
        return None


def _same_fit(one: Program, other: Program, position: int) -> bool:
    """Return whether a step learnt the same in two fits of a recipe."""
    step = one.steps[position]
    if isinstance(step, Ordinal):
        mine, theirs = one.categories or {}, other.categories or {}
        return all(mine[name] == theirs[name] for name in step.of)
    return bool(one.learnt.get(str(position)) == other.learnt.get(str(position)))
