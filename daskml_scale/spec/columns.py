"""Which columns a workflow names, and whether they will be there, from the headers of its files alone. Pure.

What a table holds follows from the first line of its file, ``columns:`` and ``derive:``; what a feature
matrix carries follows from ``sort_by`` and the target. So a misspelt name is found before anything
runs, on its line of the file. A table whose header is not known is not checked here: planning does that.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence

from .cube_stages import GenerateSpec
from .explain import Problem, closest, unknown
from .expressions import names
from .items import MapRows
from .rules import rule_columns
from .steps import AsOf, EventStep, Lookup, Step
from .steps_learned import Aggregate
from .workflow import (
    EvaluateSpec,
    FeaturesSpec,
    IngestSpec,
    MapSpec,
    PredictSpec,
    SearchSpec,
    StageSpec,
    TrainSpec,
    ValidateSpec,
    Workflow,
)

Known = Sequence[str] | None
"""Columns in the order of the table; ``None`` where they cannot be told."""
OUTPUT = {"predict": "prediction", "predict_proba": "probability", "decision_function": "decision"}


def column_problems(workflow: Workflow, headers: Mapping[str, Sequence[str]]) -> list[Problem]:
    """Return every column that is named and will not be there.

    Parameters
    ----------
    workflow : Workflow
        Without problems between its stages.
    headers : mapping of stage to columns
        What the files of the ``ingest`` stages hold; those not named are not checked.
    """
    problems: list[Problem] = []
    for name, stage in workflow.stages.items():
        found = _CHECKS.get(type(stage))
        if found is not None:
            prefix = f"stages.{name}."
            problems += [Problem(prefix + path, text) for path, text in found(workflow, headers, name, stage)]
    return problems


def ingest_problems(spec: IngestSpec, header: Sequence[str]) -> Iterator[Problem]:
    """Yield what an ``ingest`` names that a file with this header does not hold, and what cannot be stored."""
    for position, column in enumerate(spec.columns or ()):
        if column not in header:
            yield Problem(f"columns[{position}]", unknown("column", column, header))
    if spec.row is not None and (name := next(filter(unstorable, spec.columns or header), None)) is not None:
        yield Problem("source", f"{unstorable(name)}; rename it in the files, or leave it out by columns:")
    known = list(spec.columns or header)
    for derived, text in spec.derive.items():
        yield from _expression(f"derive.{derived}", text, known)
        known.append(derived)
    for key in ("partition_by", "sort_by"):
        for position, column in enumerate(getattr(spec.row, key, ())):
            if column not in known:
                yield Problem(f"row.{key}[{position}]", unknown("column", column, known))


def unstorable(name: str) -> str:
    """Return why a column of that name cannot be an array of a store; empty where it can."""
    if "/" in name or name in (".", "..", "zarr.json") or name.startswith("__"):
        return f"column {name!r} cannot name a stored array"
    return ""


def columns_of(workflow: Workflow, headers: Mapping[str, Sequence[str]], name: str) -> Known:
    """Return the columns that the output of a stage will have."""
    stage = workflow.stages.get(name)
    if isinstance(stage, IngestSpec):
        if name not in headers:
            return None
        return list(dict.fromkeys([*(stage.columns or headers[name]), *stage.derive]))
    if isinstance(workflow.stages.get(getattr(stage, "input", "")), GenerateSpec):
        return None  # its function tells
    if isinstance(stage, FeaturesSpec):
        return [*_row_key(workflow, stage.input), *([stage.target] if stage.target else [])]
    if isinstance(stage, PredictSpec):
        return [*_row_key(workflow, stage.input), OUTPUT[stage.method], "status"]
    return None


def _row_key(workflow: Workflow, table: str) -> list[str]:
    stage = workflow.stages.get(table)
    return list(stage.row.order) if isinstance(stage, IngestSpec) and stage.row is not None else []


def _ingest(workflow: Workflow, headers: Mapping[str, Sequence[str]], name: str, spec: IngestSpec) -> Iterator[Problem]:
    if name in headers:
        yield from ingest_problems(spec, headers[name])


def _validate(
    workflow: Workflow, headers: Mapping[str, Sequence[str]], name: str, spec: ValidateSpec
) -> Iterator[Problem]:
    known = columns_of(workflow, headers, spec.input)
    for position, rule in enumerate(spec.rules):
        for path, column in rule_columns(rule):
            yield from _named(f"rules[{position}].{path}", column, known)


def _features(
    workflow: Workflow, headers: Mapping[str, Sequence[str]], name: str, spec: FeaturesSpec
) -> Iterator[Problem]:
    known = columns_of(workflow, headers, spec.input)
    yield from _expression("known_at", spec.known_at, known)
    if spec.fit_where is not None:
        yield from _expression("fit_where", spec.fit_where, known)
    if spec.target is not None:
        yield from _named("target", spec.target, known)
    if spec.folds is not None and spec.folds.by is not None:
        yield from _named("folds.by", spec.folds.by, known)
    tables = {table: columns_of(workflow, headers, stage) for table, stage in spec.tables.items()}
    for path, wanted, there, table in step_columns(spec.steps, known, tables):
        yield from _named(path, wanted, there, table)


def step_columns(
    steps: Sequence[Step], known: Known, tables: Mapping[str, Known]
) -> Iterator[tuple[str, str, Known, str]]:
    """Yield (path, name, names known there, table or "" for the rows' own) for every column that steps read."""
    made: list[str] = []
    for position, step in enumerate(steps):
        at = f"steps[{position}].{step.step}"
        match step:
            case Lookup():
                other = "their_key" if step.their_key else "key"
                theirs = tables.get(step.table)
                yield f"{at}.key", step.key, known, ""
                yield f"{at}.{other}", step.their_key or step.key, theirs, step.table
                yield from ((path, name, theirs, step.table) for path, name in _parts(f"{at}.take", step.take))
            case AsOf():
                theirs = tables.get(step.table)
                for path, name in _parts(f"{at}.match", step.match):
                    yield path, name, known, ""
                    yield path, name, theirs, step.table
                yield f"{at}.their_time", step.their_time, theirs, step.table
                yield from ((path, name, theirs, step.table) for path, name in _parts(f"{at}.take", step.take))
            case EventStep():
                yield f"{at}.of", step.of, known, ""
                yield f"{at}.at", step.at, known, ""
                yield from ((path, name, known, "") for path, name in _parts(f"{at}.match", step.match))
            case Aggregate():
                wanted = (*_parts(f"{at}.of", step.of), *_parts(f"{at}.by", step.by))
                yield from ((path, name, known, "") for path, name in wanted)
                if step.fold_by:
                    yield f"{at}.fold_by", step.fold_by, known, ""
            case _:
                both = None if known is None else [*known, *made]
                field = getattr(step, "of", None)
                of = field if isinstance(field, (str, list)) else list(step.reads())
                yield from ((path, name, both, "") for path, name in _parts(f"{at}.of" if field else at, of))
        made.extend(step.outputs())


def _search(workflow: Workflow, headers: Mapping[str, Sequence[str]], name: str, spec: SearchSpec) -> Iterator[Problem]:
    split = spec.split
    for kind, part in (
        ("time", getattr(split, "time", None)), ("group", getattr(split, "group", None)),
        ("predefined", getattr(split, "predefined", None)),
    ):  # fmt: skip
        if part is not None:
            yield from _carried(f"split.{kind}.of", [part.of], workflow, headers, spec.input)


def _where(
    workflow: Workflow, headers: Mapping[str, Sequence[str]], name: str, spec: TrainSpec | EvaluateSpec
) -> Iterator[Problem]:
    if spec.where is not None:
        yield from _carried("where", names(spec.where), workflow, headers, spec.input)


def _predict(
    workflow: Workflow, headers: Mapping[str, Sequence[str]], name: str, spec: PredictSpec
) -> Iterator[Problem]:
    """Check tables that the model was not trained on: its recipe runs on them."""
    trained = workflow.stages[spec.model]
    features = workflow.stages[trained.input] if isinstance(trained, TrainSpec) else None
    if not isinstance(trained, TrainSpec) or not isinstance(features, FeaturesSpec):
        return
    tables = spec.tables or features.tables
    if (features.input, features.tables) == (spec.input, tables):
        return
    known = columns_of(workflow, headers, spec.input)
    others = {table: columns_of(workflow, headers, stage) for table, stage in tables.items()}
    wanted = [("known_at", column, known, "") for column in names(features.known_at)]
    for path, column, there, table in [*wanted, *step_columns(features.steps, known, others)]:
        if there is not None and column not in there:
            read = f"which the model's recipe reads (stages.{trained.input}.{path})"
            stage = tables[table] if table else spec.input
            message = f"{stage!r} has no column {column!r}, {read}; it has {', '.join(list(there)[:20])}"
            yield Problem(f"tables.{table}" if table else "input", message)


def _map(workflow: Workflow, headers: Mapping[str, Sequence[str]], name: str, spec: MapSpec) -> Iterator[Problem]:
    if isinstance(spec.over, MapRows):
        yield from _listed(
            "over.rows.columns", spec.over.rows.columns, columns_of(workflow, headers, spec.over.rows.of)
        )


def _carried(
    path: str, wanted: Sequence[str], workflow: Workflow, headers: Mapping[str, Sequence[str]], matrix: str
) -> Iterator[Problem]:
    """Yield the columns that a feature matrix does not carry: it has the keys of its table and the target only."""
    known = columns_of(workflow, headers, matrix)
    features = workflow.stages.get(matrix)
    if known is None or not isinstance(features, FeaturesSpec):
        return
    table = columns_of(workflow, headers, features.input) or ()
    for column in wanted:
        if column in known:
            continue
        if column in table and closest(column, known) is None:
            carried = f"only the sort_by columns of {features.input!r} and its target: {', '.join(known) or 'none'}"
            yield Problem(
                path, f"the matrix of {matrix!r} does not carry {column!r}, {carried}; add it to sort_by there"
            )
        else:
            yield Problem(path, unknown("column", column, known))


def _parts(path: str, value: str | Sequence[str]) -> list[tuple[str, str]]:
    """Return (path, name) of one name or of each in a list; a list of one may have been written without brackets."""
    if isinstance(value, str):
        return [(path, value)]
    return [(path if len(value) == 1 else f"{path}[{position}]", name) for position, name in enumerate(value)]


def _listed(path: str, value: Sequence[str], known: Known) -> Iterator[Problem]:
    for place, name in _parts(path, value):
        yield from _named(place, name, known)


def _named(path: str, name: str, known: Known, table: str = "") -> Iterator[Problem]:
    if known is not None and name not in known:
        yield Problem(path, (f"in table {table!r}: " if table else "") + unknown("column", name, known))


def _expression(path: str, text: str, known: Known) -> Iterator[Problem]:
    for column in names(text):
        of_it = (name for name in known or () if column in re.split(r"\W", name) and f"`{name}`" not in text)
        whole = next(of_it, None) if known is not None and column not in known else None
        if whole is not None:
            yield Problem(
                path, f"unknown column {column!r}; {whole!r} is no plain word: in backticks, `{whole}`, it is one"
            )
        else:
            yield from _named(path, column, known)


_CHECKS: dict[type[StageSpec], Callable[..., Iterator[Problem]]] = {
    IngestSpec: _ingest,
    ValidateSpec: _validate,
    FeaturesSpec: _features,
    SearchSpec: _search,
    TrainSpec: _where,
    EvaluateSpec: _where,
    PredictSpec: _predict,
    MapSpec: _map,
}
