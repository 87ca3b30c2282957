"""Does a recipe fit its tables? Decided from their schemas, before any unit runs.

Every refusal is one :class:`SpecError` that names the step's position, the column, the kind found,
the kind needed and the remedy. Pure. What the text alone gives away (leaks, doubled features, unknown
tables) was refused before by ``spec.recipe_checks``.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

import numpy as np

from daskml_scale.errors import SpecError
from daskml_scale.plan.units import Snapshot
from daskml_scale.spec.explain import nearest
from daskml_scale.spec.expressions import Coded, Values, evaluate, names
from daskml_scale.spec.expressions import column as written
from daskml_scale.spec.recipe_checks import sources_of
from daskml_scale.spec.step_base import EventStep, Step
from daskml_scale.spec.steps import AsOf, DateParts, Lookup, Ordinal, Trailing
from daskml_scale.spec.steps_categories import Count, Hashing, OneHot, TargetMean
from daskml_scale.spec.steps_learned import Aggregate, Function, SklearnStep
from daskml_scale.spec.steps_numeric import Cast, Compute
from daskml_scale.storage.tables import kind_of

from .learning import lessons, reads_rows
from .program import Program

Kinds = Mapping[str, str]
"""Column -> ``number``, ``time``, ``category`` or ``other``."""
RESERVED = ("features", "feature")
"""Variables of a feature matrix that no table column may be called."""
_EMPTY: dict[str, Values] = {
    "number": np.empty(0),
    "time": np.empty(0, dtype="datetime64[ns]"),
    "category": Coded(np.empty(0, dtype="int32"), ()),
}
_REMEDY = {
    ("number", "category"): "put it through ordinal",
    ("number", "time"): "put it through date_parts",
    ("category", "number"): "use keep for numbers",
    ("category", "time"): "use date_parts for times",
    ("time", "number"): "derive an instant in ingest, such as sched + minutes(delay)",
    ("time", "category"): "derive an instant in ingest; text in ISO 8601 is read as a time",
}


def kinds(snapshot: Snapshot) -> dict[str, str]:
    """Return the kinds of a table's columns."""
    return {name: kind_of(found) for name, found in snapshot.variables.items() if found.dims == (snapshot.dim,)}


def withheld(target: str | None, known_at: str, derived_from: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    """Return the target, what it is computed from, and what is computed from those: none of it is known at the row.

    Columns that ``known_at`` names, and what they are computed from, are known there and stay out of it.
    """
    if target is None:
        return ()
    exempt = sources_of(names(known_at), derived_from)
    found = sources_of([target], derived_from) - exempt
    while True:
        more = {column for column, sources in derived_from.items() if found.intersection(sources)} - exempt - found
        if not more:
            return tuple(sorted(found))
        found |= more


def check_own_tables(steps: Sequence[Step], own: Collection[str], hidden: Collection[str]) -> None:
    """Refuse a lookup that takes the target from the very table whose rows are predicted: keys know no time.

    Raises
    ------
    SpecError
    """
    for position, step in enumerate(steps):
        if isinstance(step, Lookup) and step.table in own:
            for name in step.take:
                if name in hidden:
                    raise SpecError(
                        f"{name!r} is the target or goes with it, and table {step.table!r} is the recipe's own: rows "
                        "would find their own value; use trailing or as_of, which look at earlier rows",
                        path=f"steps[{position}].lookup.take",
                    )


def check(program: Program, columns: Kinds, tables: Mapping[str, Kinds], where: str | None = None) -> None:
    """Refuse a recipe that does not fit its tables.

    Parameters
    ----------
    program : Program
    columns : mapping
        Kinds of the columns of the table whose rows are transformed.
    tables : mapping of name to mapping
        Kinds of the columns of the other tables.
    where : str, optional
        Rows that may be learnt from.

    Raises
    ------
    SpecError
    """
    _expression("known_at", program.known_at, columns, time=True)
    if where is not None:
        _expression("fit_where", where, columns, time=False)
    if program.target is not None:
        if columns.get(program.target) in ("category", "time"):
            raise SpecError(_no_number(program.target, columns[program.target]), path="target")
        _column("target", columns, program.target, "number", "the table")
        if program.target in RESERVED:
            raise SpecError(
                f"{program.target!r} is a variable of every feature matrix; rename the column", path="target"
            )
    if program.folds is not None and program.folds.by is not None:
        _column("folds.by", columns, program.folds.by, None)
    for position, step in enumerate(program.steps):
        made = dict.fromkeys(program.made_before(position), "number") if reads_rows(step) else {}
        _step(step, f"steps[{position}].{step.step}", {**columns, **made}, tables)
        if isinstance(step, TargetMean) and program.target is None and program.categories is None:
            raise SpecError("there is no target to learn from; give the recipe target:", path=f"steps[{position}]")
    if program.categories is None:
        lessons(program.steps)


def _no_number(target: str, kind: str) -> str:
    """Return what is said of a target that no estimator here takes: features are numbers, and so are labels."""
    name, head = written(target), f"column {target!r} of the table is a {kind}, number needed; derive one in ingest: "
    if kind == "time":
        return f"{head}derive: {{soon: {name} < time('2024-05-01')}}"
    return (
        f"{head}derive: {{label: {name} == 'A'}}, or of several labels {{label: ({name} == 'A') + 2 * ({name} == 'B')}}"
    )


def _step(step: Step, place: str, columns: Kinds, tables: Mapping[str, Kinds]) -> None:
    match step:
        case DateParts():
            _column(f"{place}.of", columns, step.of, "time")
        case Ordinal() | Count() | OneHot() | Hashing():
            for name in step.reads():
                _column(f"{place}.of", columns, name, "category")
        case TargetMean():
            for name in step.of:
                _column(f"{place}.of", columns, name, "category")
            _column(f"{place}.fold_by", columns, step.fold_by, None)
        case Aggregate():
            for name in step.of:
                _column(f"{place}.of", columns, name, "number")
            for name in step.reads():
                _column(f"{place}.{'by' if name in step.by else 'fold_by'}", columns, name, None)
        case Cast():
            for name in step.of:
                if columns.get(name) != "category":
                    _column(f"{place}.of", columns, name, "number")
        case SklearnStep() | Function():
            for name in step.of:
                _column(f"{place}.of", columns, name, None)
        case Compute():
            for name, text in step.features.items():
                _expression(f"{place}.features.{name}", text, columns, time=False)
        case Lookup():
            theirs = tables[step.table]
            other = step.their_key or step.key
            _same(f"{place}.key", columns, step.key, theirs, other, step.table)
            if columns[step.key] not in ("category", "number"):
                raise SpecError(
                    f"column {step.key!r} is a {columns[step.key]}; a lookup key is a category or a whole number; "
                    "for the last row before an instant use as_of", path=f"{place}.key",
                )  # fmt: skip
            _taken(place, theirs, step.take, step.table)
        case AsOf():
            theirs = tables[step.table]
            for name in step.match:
                _same(f"{place}.match", columns, name, theirs, name, step.table)
            _column(f"{place}.their_time", theirs, step.their_time, "time", f"table {step.table!r}")
            _taken(place, theirs, step.take, step.table)
        case EventStep():
            _column(f"{place}.at", columns, step.at, "time")
            for name in step.match:
                _column(f"{place}.match", columns, name, None)
            _column(
                f"{place}.of",
                columns,
                step.of,
                None if isinstance(step, Trailing) and step.stat == "count" else "number",
            )
        case _:
            for name in step.reads():
                _column(f"{place}.of", columns, name, "number")


def _taken(place: str, theirs: Kinds, names: Iterable[str], table: str) -> None:
    for name in names:
        _column(f"{place}.take", theirs, name, "number", f"table {table!r}")


def _column(path: str, columns: Kinds, name: str, wanted: str | None, where: str = "the table") -> str:
    """Return the kind of a column after checking that it exists and is of the kind wanted."""
    if name not in columns:
        known = ", ".join(list(columns)[:30])
        raise SpecError(f"{where} has no column {name!r}{nearest(name, columns)}; it has {known}", path=path)
    found = columns[name]
    if found == "other" or (wanted is not None and found != wanted):
        needed = wanted or "number, time or category"
        remedy = _REMEDY.get((needed, found), "leave it out, or convert it in ingest")
        what = "neither a number, a time nor a category" if found == "other" else f"a {found}"
        raise SpecError(f"column {name!r} of {where} is {what}, {needed} needed; {remedy}", path=path)
    return found


def _same(path: str, ours: Kinds, name: str, theirs: Kinds, other: str, table: str) -> None:
    mine = _column(path, ours, name, None)
    found = _column(path, theirs, other, None, f"table {table!r}")
    if mine != found:
        raise SpecError(
            f"column {name!r} is a {mine} in the table and {other!r} a {found} in table {table!r}: they never match; "
            "make both the same kind in ingest", path=path,
        )  # fmt: skip


def _expression(path: str, text: str, columns: Kinds, *, time: bool) -> None:
    try:
        value = evaluate(text, {name: _EMPTY[kind] for name, kind in columns.items() if kind in _EMPTY})
    except ValueError as error:
        raise SpecError(str(error), path=path) from None
    if (value.dtype.kind == "M") != time or value.dtype.kind == "m":
        found = {"M": "a time", "m": "a span of time"}.get(value.dtype.kind, "a number or condition")
        remedy = "an instant such as sched - hours(2)" if time else "a condition such as sched < time('2013-10-01')"
        raise SpecError(f"{text!r} is {found}; write {remedy}", path=path)
