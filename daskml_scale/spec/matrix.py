"""Sweeps: ``matrix: {where: [...]}`` makes a copy of a stage, and of those that need it, for every combination.

Copies are stages like any others, called after their values (``model-max_iter_50``), so a value that is added
later runs only what is new. What a sweep does not touch is made once. Works on plain data, before the models.
"""

from __future__ import annotations

import copy
import hashlib
import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from daskml_scale.errors import SpecError

from .key_paths import dotted
from .references import edges
from .settings import key_path, put
from .workflow import Workflow

MOST_STAGES = 500
"""Stages of a workflow after all sweeps."""
_LONGEST = 63

Choice = tuple[tuple[str, tuple[tuple[str, Any], ...]], ...]
"""(stage with a matrix, its values by key path) for each sweep that a copy is part of."""


class Copy(NamedTuple):
    """A stage, of which it is a copy, and where in it the values of the matrix stand: path -> key of the matrix."""

    origin: str
    values: Mapping[str, str]


def spread(data: Mapping[str, Any], workflow: Workflow) -> tuple[dict[str, Any], dict[str, Copy]]:
    """Return a workflow's data with a stage per combination, and new stage -> what it is a copy of.

    Parameters
    ----------
    data : mapping
        As read from a file that is sound; left as it is.
    workflow : Workflow
        Its model.

    Raises
    ------
    SpecError
        For a key path that the stage has not, two copies of one name, or too many stages.
    """
    stages, needs = data["stages"], edges(workflow)
    choices: dict[str, list[Choice]] = {}
    for name in _order(needs):
        before = [choices[other] for other in needs[name] if choices[other] != [()]]
        own = [((name, found),) for found in _combinations(workflow.stages[name].matrix)]
        choices[name] = [_joined(parts) for parts in itertools.product(*before, *([own] if own else []))
                         if _agree(parts)]  # fmt: skip
    if (count := sum(map(len, choices.values()))) > MOST_STAGES:
        raise SpecError(f"the matrices make {count} stages of {len(stages)}; at most {MOST_STAGES}", path="stages")
    made: dict[str, Any] = {}
    origins: dict[str, Copy] = {}
    for name in stages:
        for choice in choices[name]:
            called = _called(name, choice)
            if called in made:
                raise SpecError(f"two stages would be called {called!r}; rename one", path=f"stages.{name}")
            made[called] = stages[name]
            if choice:
                made[called], values = _copy(name, stages[name], choice, workflow, choices)
                origins[called] = Copy(name, values)
    return {**data, "stages": made}, origins


def _order(needs: Mapping[str, Sequence[str]]) -> Iterator[str]:
    """Yield stages after those that they need; there is no cycle."""
    done: set[str] = set()
    while len(done) < len(needs):
        for name, wanted in needs.items():
            if name not in done and done.issuperset(wanted):
                done.add(name)
                yield name


def _combinations(matrix: Mapping[str, Sequence[Any]]) -> list[tuple[tuple[str, Any], ...]]:
    values = [[(key, value) for value in listed] for key, listed in matrix.items()]
    return list(itertools.product(*values)) if matrix else []


def _joined(parts: Sequence[Choice]) -> Choice:
    return tuple({stage: (stage, found) for part in parts for stage, found in part}.values())


def _agree(parts: Sequence[Choice]) -> bool:
    """Return whether the parts say the same of every sweep: a copy never mixes two values of one."""
    said: dict[str, Any] = {}
    return all(said.setdefault(stage, found) == found for part in parts for stage, found in part)


def _called(name: str, choice: Choice) -> str:
    """Return the name of a copy: its stage, and the values of each sweep."""
    if not choice:
        return name
    values = [f"{key_path(key)[0][-1]}_{_slug(value)}" for _, found in choice for key, value in found]
    text = re.sub(r"[^A-Za-z0-9_-]", "_", "-".join([name, *values]))
    if len(text) <= _LONGEST:
        return text
    return f"{text[: _LONGEST - 9]}-{hashlib.sha256(repr(choice).encode()).hexdigest()[:8]}"


def _slug(value: Any) -> str:
    text = str(value).lower() if isinstance(value, bool) else str(value)
    clean = re.sub(r"[^A-Za-z0-9_-]+", "_", text.replace("-", "minus") if text[:1] == "-" else text).strip("_")
    return clean or hashlib.sha256(repr(value).encode()).hexdigest()[:8]


def _copy(
    name: str, stage: Mapping[str, Any], choice: Choice, workflow: Workflow, choices: Mapping[str, Sequence[Choice]]
) -> tuple[dict[str, Any], dict[str, str]]:
    """Return a stage with its values, that refers to the copies of the same values; and where they stand."""
    places: dict[str, str] = {}
    found: dict[str, Any] = {key: copy.deepcopy(value) for key, value in stage.items() if key != "matrix"}
    for sweep, values in choice:
        for key, value in values if sweep == name else ():
            try:
                places[dotted(put(found, key_path(key)[0], value))] = key
            except SpecError as error:
                raise SpecError(error.message, path=dotted(("stages", name, "matrix", key))) from None
    for key, other in workflow.stages[name].references().items():
        mine = [one for one in choices[other] if set(dict(one)) <= set(dict(choice)) and _agree([one, choice])]
        if mine != [()]:
            put(found, key_path(key)[0], _called(other, mine[0]))
    if "save_as" in found:
        found["save_as"] = _called(found["save_as"], choice)
    return found, places
