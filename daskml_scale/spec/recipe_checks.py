"""What a recipe's text alone gives away: unknown tables, doubled features, leaks. Pure.

A step may read only what is recorded by ``known_at``. Without the data three things are certain to be
later: the target, what a trailing step says is recorded later (``of`` and ``at``), and what is
computed from those. They may be read through ``trailing``, which looks at earlier rows, but not at the
row itself. Of several columns that the target is computed from, each is taken for later unless
``known_at`` names it. What the columns hold is not known here: the leakage test of the data finds the rest.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from types import MappingProxyType

import numpy as np

from daskml_scale.errors import SpecError

from .explain import Problem, nearest
from .expressions import evaluate, names
from .searching import Refit
from .steps import AsOf, EventStep, Lookup, Step
from .steps_learned import Aggregate
from .workflow import FeaturesSpec, IngestSpec, SearchSpec, Workflow

NOTHING: Mapping[str, Sequence[str]] = MappingProxyType({})


def check_steps(
    steps: Sequence[Step],
    *,
    known_at: str,
    target: str | None,
    tables: Collection[str],
    derived_from: Mapping[str, Sequence[str]] = NOTHING,
) -> None:
    """Refuse a recipe that cannot work or that leaks.

    Parameters
    ----------
    steps : sequence of Step
    known_at : str
        Expression for the instant at which a row must be predicted.
    target : str or None
    tables : collection of str
        Names that ``lookup`` and ``as_of`` may use.
    derived_from : mapping of column to columns
        What derived columns are computed from.

    Raises
    ------
    SpecError
        The first problem, with its path such as ``steps[2].keep.of``, and how many more there are.
    """
    problems = step_problems(steps, known_at=known_at, target=target, tables=tables, derived_from=derived_from)
    if problems:
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise SpecError(problems[0].message + more, path=problems[0].path)


def step_problems(
    steps: Sequence[Step],
    *,
    known_at: str,
    target: str | None,
    tables: Collection[str],
    derived_from: Mapping[str, Sequence[str]] = NOTHING,
) -> list[Problem]:
    """Return every problem that :func:`check_steps` looks for, in the order of the steps."""
    problems: list[Problem] = []
    if target is not None and target in names(known_at):
        problems.append(Problem("known_at", f"known_at reads the target {target!r}, which is recorded after it"))
    later = recorded_later(steps, known_at=known_at, target=target, derived_from=derived_from)
    made: dict[str, int] = {}
    for position, step in enumerate(steps):
        where = f"steps[{position}].{step.step}"
        if isinstance(step, (Lookup, AsOf)) and step.table not in tables:
            listed = ", ".join(sorted(tables)) or "none"
            guess = nearest(step.table, tables) or "; add it to tables:;"
            problems.append(Problem(f"{where}.table", f"there is no table {step.table!r}{guess} known: {listed}"))
        if isinstance(step, EventStep) and step.of == target and _known_in_time(step.at, known_at):
            message = (
                f"a row's own target {target!r} would count in its window: {step.at!r} is not after known_at "
                f"({known_at}); name in at: the column that says when the target was recorded"
            )
            problems.append(Problem(f"{where}.at", message))
        problems.extend(
            Problem(f"{where}.{_field(step, column)}", _leak(column, later[column], known_at))
            for column in dict.fromkeys(step.reads())
            if column in later and column not in made
        )
        if isinstance(step, Aggregate) and step.fold_by is None:
            problems.extend(
                Problem(f"{where}.of", _own_value(column, later[column])) for column in step.of if column in later
            )
        problems.extend(_doubled(step, position, where, made))
    return problems


def recorded_later(
    steps: Iterable[Step],
    *,
    known_at: str,
    target: str | None,
    derived_from: Mapping[str, Sequence[str]] = NOTHING,
) -> dict[str, str]:
    """Return column -> why it is recorded after ``known_at``, for what the text alone gives away.

    Columns that ``known_at`` names, and what they are computed from, are exempt.
    """
    exempt = sources_of(names(known_at), derived_from)
    later = {target: "it is the target"} if target else {}
    for step in steps:
        if isinstance(step, EventStep) and not _known_in_time(step.at, known_at):
            later.setdefault(step.of, f"a trailing step says it is recorded at {step.at!r}")
            later.setdefault(step.at, "a trailing step takes it for the time of a later record")
    only: list[str] = [target] if target else []
    while len(only) == 1:  # computed from one column alone: that one is later too
        if only[0] != target:
            later.setdefault(only[0], f"the target {target!r} is computed from it")
        only = [source for source in derived_from.get(only[0], ()) if source not in exempt and source not in later]
    certain = {column: why for column, why in later.items() if column not in exempt}
    users: dict[str, list[str]] = {}
    for column, sources in derived_from.items():
        for source in sources:
            users.setdefault(source, []).append(column)
    waiting = list(certain)
    while waiting:
        late = waiting.pop()
        for column in users.get(late, ()):
            if column not in certain and column not in exempt:
                certain[column] = f"it is computed from {late!r}"
                waiting.append(column)
    if target:
        for source in sorted(sources_of([target], derived_from) - exempt):
            known = "if it is known in time, derive a copy of it and read that"
            certain.setdefault(source, f"the target {target!r} is computed from it, among others ({known})")
    return certain


def workflow_problems(workflow: Workflow) -> list[Problem]:
    """Return the problems of the recipes of all ``features`` stages, with paths from the top of the file."""
    problems: list[Problem] = []
    for name, stage in workflow.stages.items():
        if isinstance(stage, SearchSpec) and isinstance(stage.split, Refit):
            made = workflow.stages.get(stage.input)
            if isinstance(made, FeaturesSpec) and made.folds is None:
                message = f"the recipe of {stage.input!r} is not fitted per fold; give that stage folds: {{count: 5}}"
                problems.append(Problem(f"stages.{name}.split.refit", message))
        if not isinstance(stage, FeaturesSpec):
            continue
        table = workflow.stages.get(stage.input)
        derive = table.derive if isinstance(table, IngestSpec) else {}
        found = step_problems(
            stage.steps,
            known_at=stage.known_at,
            target=stage.target,
            tables=stage.tables,
            derived_from={column: names(expression) for column, expression in derive.items()},
        )
        problems.extend(Problem(f"stages.{name}.{path}", message) for path, message in found)
    return problems


def sources_of(columns: Iterable[str], derived_from: Mapping[str, Sequence[str]]) -> set[str]:
    """Return the columns and everything that they are computed from."""
    found: set[str] = set()
    waiting = list(columns)
    while waiting:
        column = waiting.pop()
        if column not in found:
            found.add(column)
            waiting.extend(derived_from.get(column, ()))
    return found


def _known_in_time(at: str, known_at: str) -> bool:
    """Return whether ``known_at`` is surely not before ``at`` of the same row."""
    if names(known_at) != (at,):
        return False
    instants = np.array(["1970-01-01", "2013-10-01", "2100-06-30T12:00"], dtype="datetime64[ns]")
    try:
        return bool(np.all(evaluate(known_at, {at: instants}) >= instants))
    except (ValueError, TypeError):
        return False


def _leak(column: str, why: str, known_at: str) -> str:
    return (
        f"{column!r} is recorded after known_at ({known_at}): {why}. Remove it from this step; "
        "a trailing step may read it from earlier rows"
    )


def _own_value(column: str, why: str) -> str:
    return (
        f"a row's own {column!r} would count in its group's statistics, and {why}; name in fold_by: the column that "
        "tells rows or entities apart, then the statistics come from the rows of other folds"
    )


def _field(step: Step, column: str) -> str:
    """Return the key of the step that names a column."""
    for name, value in step:
        if name in ("of", "by", "fold_by", "key", "match") and (
            value == column or (isinstance(value, list) and column in value)
        ):
            return name
    return "of"


def _doubled(step: Step, position: int, where: str, made: dict[str, int]) -> Iterable[Problem]:
    for output in step.outputs():
        if output in made and not (step.replaces and output in step.reads() and made[output] != position):
            other = "twice by this step" if made[output] == position else f"by steps[{made[output]}] too"
            message = f"duplicate name: feature {output!r} is made {other}; remove one"
            hint = ", or give one date_parts a prefix:" if step.step == "date_parts" else ""
            yield Problem(where, message + hint)
        made.setdefault(output, position)
