"""What fitting keeps of each chunk: a small JSON value that merges in unit order, never the data.

Statistics of the rows of ``fit_where``, fold by fold where folds are asked for, are what a recipe learns. What is
kept of a chunk beside them is for ``bounds``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

import numpy as np

from daskml_scale.errors import DaskMLError, SpecError
from daskml_scale.spec.expressions import Coded, Values, evaluate
from daskml_scale.spec.folds import FoldsBy
from daskml_scale.spec.steps_categories import OneHot

from . import carried
from .learning import labels, learn_steps, lessons, scan_steps
from .program import Program
from .rowwise import Functions
from .seen import runs
from .sketches import LABELS, Categories
from .target_mean import folds_of
from .timeline import MISSING


def instants(expression: str, columns: Mapping[str, Values], rows: int) -> np.ndarray:
    """Return the instants of an expression, datetime64[ns] of shape (rows,)."""
    return np.broadcast_to(evaluate(expression, columns).astype("datetime64[ns]", copy=False), (rows,))


@dataclass(frozen=True, slots=True)
class Place:
    """Where a chunk lies: its first row, and how many rows the table has."""

    start: int = 0
    total: int = 0


def scan(
    program: Program,
    columns: Mapping[str, Values],
    rows: int,
    where: str | None,
    place: Place = Place(),
    functions: Functions = MappingProxyType({}),
) -> dict[str, Any]:
    """Return the statistics of one chunk.

    Parameters
    ----------
    program : Program
    columns : mapping
        ``program.scan_columns(where)`` of the chunk, each of shape (rows,).
    where : str, optional
        Condition: rows that may be learnt from.
    place : Place
    functions : mapping of path to callable
        The user's functions.

    Returns
    -------
    dict
        ``learnt``: rows of ``where``, ``seen``: which those are; ``categories``: column -> counts, ``steps``: what
        other steps learn from, or ``folds``: fold -> both; ``known_at``: [first, last] in ns since 1970, or None;
        ``at``: time column -> the same, ``match``: match column -> the same; ``carried``: position -> states.
    """
    found: dict[str, Any] = {"rows": rows}
    if program.learns:
        wanted = selected(where, columns, rows)
        found["learnt"] = int(wanted.sum())
        if (said := runs(wanted)) is not None:
            found["seen"] = said
        if program.folds is None:
            found.update(_learnt_from(program, columns, wanted, functions))
        else:
            fold = fold_numbers(program.folds, columns, rows, place)
            found["folds"] = {
                str(number): _learnt_from(program, columns, wanted & (fold == number), functions)
                for number in np.unique(fold[wanted])
            }
    if program.trailing:
        ends = {name: _ends(np.asarray(columns[name])) for name in program.times}
        known_at = program.known_at.strip()
        found["known_at"] = ends[known_at] if known_at in ends else _ends(instants(known_at, columns, rows))
        found["at"] = ends
        found["match"] = {name: _extent(columns[name]) for name in program.matched}
    if program.carried:
        steps = program.carried.items()
        found["carried"] = {str(number): carried.scan(step, columns, rows, place.start) for number, step in steps}
    return found


def at_their_steps(program: Program, found: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the statistics of a chunk under the positions that their steps have now.

    A step that is put in, or taken out, moves others and changes nothing of what is kept of them: their order is that
    of the record, which counts as valid.
    """
    learn, carrying = lessons(program.steps).learn if program.learns else (), tuple(program.carried)

    def moved(part: Mapping[str, Any], name: str, positions: Sequence[int]) -> Mapping[str, Any]:
        if name not in part or list(part[name]) == [str(position) for position in positions]:
            return part
        kept = [part[name][key] for key in sorted(part[name], key=int)]
        return {**part, name: dict(zip(map(str, positions), kept, strict=True))}

    found = moved(moved(found, "steps", learn), "carried", carrying)
    if "folds" in found:
        found = {**found, "folds": {fold: moved(part, "steps", learn) for fold, part in found["folds"].items()}}
    return found


def selected(where: str | None, columns: Mapping[str, Values], rows: int) -> np.ndarray:
    """Return the rows that may be learnt from, bool of shape (rows,)."""
    if not where:
        return np.ones(rows, dtype=bool)
    condition = np.asarray(evaluate(where, columns), dtype="float64")
    return np.broadcast_to(np.nan_to_num(condition) != 0, (rows,))


def fold_numbers(folds: FoldsBy, columns: Mapping[str, Values], rows: int, place: Place) -> np.ndarray:
    """Return the fold of each row of a chunk, int64 of shape (rows,)."""
    if folds.by is not None:
        return folds_of(columns[folds.by], folds.count)
    return (place.start + np.arange(rows)) * folds.count // max(1, place.total)


def _learnt_from(
    program: Program, columns: Mapping[str, Values], wanted: np.ndarray, functions: Functions
) -> dict[str, Any]:
    taken = columns if wanted.all() else {name: column[wanted] for name, column in columns.items()}
    found: dict[str, Any] = {"categories": {name: labels(taken[name]).to_json() for name in program.ordinal}}
    if statistics := scan_steps(program.steps, taken, int(wanted.sum()), program.target, functions):
        found["steps"] = statistics
    return found


def _ends(times: np.ndarray) -> list[int] | None:
    present = times.astype("datetime64[ns]", copy=False).view("int64")
    if len(present) and present.min() == MISSING:
        present = present[present != MISSING]
    return [int(present.min()), int(present.max())] if len(present) else None


def _extent(column: Values) -> list[float] | None:
    """Return the smallest and largest value (of a category: code) of a column, for telling that two do not meet."""
    if isinstance(column, Coded):
        present = column.codes[column.codes >= 0]
    elif column.dtype.kind == "M":
        return _ends(column)  # type: ignore[return-value]
    else:
        present = column[~np.isnan(column)] if column.dtype.kind == "f" else column
    return [float(present.min()), float(present.max())] if len(present) else None


def learn(
    program: Program,
    scans: Iterable[Mapping[str, Any]],
    withheld: Sequence[str] = (),
    models: Mapping[str, Mapping[str, Any]] = MappingProxyType({}),
) -> Program:
    """Return the fitted recipe.

    Parameters
    ----------
    scans : iterable
        Statistics of all chunks, in unit order.
    withheld : sequence of str
        What ``checks.withheld`` says.
    models : mapping of position to mapping
        What is learnt beside the statistics: of all rows under ``all``, of all folds but one under its number.

    Raises
    ------
    DaskMLError
        When there are too many categories or groups; when two features have one name.
    """
    if program.categories is not None:
        return program
    chunks = list(scans)
    categories, learnt = _learnt(program, chunks, None)
    learnt |= {at: found["all"] for at, found in models.items()}
    fitted = program.fitted(categories, withheld, learnt)
    _check_names(fitted)
    if program.folds is None:
        return fitted
    others = []
    for number in range(program.folds.count):
        categories, learnt = _learnt(program, chunks, str(number))
        learnt |= {at: found.get(str(number), found["all"]) for at, found in models.items()}
        _check_levels(fitted, learnt, number)
        others.append({"categories": categories, "learnt": learnt})
    return replace(fitted, by_fold=tuple(others))


def _learnt(
    program: Program, chunks: Sequence[Mapping[str, Any]], left_out: str | None
) -> tuple[dict[str, list[str]], dict[str, Any]]:
    """Return categories and what steps learnt, without one fold."""
    if program.folds is None:
        parts = [chunk for chunk in chunks if "categories" in chunk]
    else:
        parts = [part for chunk in chunks for fold, part in chunk.get("folds", {}).items() if fold != left_out]
    categories = {}
    for name in program.ordinal:
        found = Categories.merged(Categories.from_json(part["categories"][name]) for part in parts)
        if found.error:
            raise DaskMLError(
                f"ordinal: {name!r} has about {found.cardinality:,} categories, more than {LABELS:,}: too many to "
                "number; use hashing or count"
            )
        categories[name] = found.levels
    return categories, learn_steps(program.steps, [part.get("steps", {}) for part in parts])


def _check_levels(program: Program, learnt: Mapping[str, Any], fold: int) -> None:
    """Refuse levels that the other folds do not have: a feature would mean another level there."""
    for position, step in enumerate(program.steps):
        if not isinstance(step, OneHot) or str(position) not in learnt:
            continue
        here, there = (set(found[str(position)]["levels"]) for found in (program.learnt, learnt))
        if odd := sorted(here ^ there):
            raise SpecError(
                f"{step.of!r} has the level {odd[0]!r} in all rows of fit or those without fold {fold}, not in both; "
                "name the levels by levels:, or put rows into folds by a column (folds: {by: ...}), not in their order",
                path=f"steps[{position}].{step.step}",
            )


def _check_names(program: Program) -> None:
    """Refuse names found in ``fit`` that other features have."""
    taken: set[str] = set()
    for position, step in enumerate(program.steps):
        names = program.outputs(position)
        doubled = sorted(taken.intersection(names)) if step.names_learnt else ()
        if not doubled and not step.names_learnt:
            later = {name for at in range(position) if program.steps[at].names_learnt for name in program.outputs(at)}
            doubled = sorted(later.intersection(names))
        if doubled:
            raise SpecError(
                f"duplicate name: feature {doubled[0]!r} is made by another step too; name it otherwise "
                "(prefix:, rename)",
                path=f"steps[{position}].{step.step}",
            )
        taken.update(names)
