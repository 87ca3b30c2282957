"""The models of workflow and cluster files as JSON Schema: for editors, and for the reference pages.

pydantic tells types and limits. Added here is what it does not know: the words of the docstrings, that a step is
``{name: settings}``, and that a stage names its kind. Rules between keys are not in a schema: a file that fits it
may still be refused by ``daskml-scale validate``, never the other way round. Nothing is read but our own source.
"""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Any

from pydantic import TypeAdapter

from .base import Spec
from .hosts import Definition
from .key_words import WORDS
from .steps import STEPS
from .steps_grid import GRID_STEPS
from .workflow import KINDS, Workflow

DIALECT = "https://json-schema.org/draft/2020-12/schema"
STEP_OF = {
    **{cls.__name__: name for name, cls in STEPS.items()},
    **{cls.__name__: name for name, cls in GRID_STEPS.items()},
}
"""Class of a step -> its name in YAML."""
_SECTION = re.compile(r"^(\w[\w ]*)\n-{3,}$", re.MULTILINE)


def workflow_schema() -> dict[str, Any]:
    """Return the schema of a workflow file."""
    return _told("A workflow file of daskml-scale", Workflow.model_json_schema())


def cluster_schema() -> dict[str, Any]:
    """Return the schema of a cluster file: one of those of the backends."""
    return _told("A cluster file of daskml-scale", TypeAdapter(Definition).json_schema())


def _told(title: str, schema: dict[str, Any]) -> dict[str, Any]:
    models = {cls.__name__: cls for cls in _below(Spec)}
    kinds = {cls.__name__ for cls in KINDS.values()}
    for name, definition in [*schema.get("$defs", {}).items(), (Workflow.__name__, schema)]:
        if name in models and "properties" in definition:
            _describe(definition, models[name])
        if name in kinds:
            definition["required"] = ["kind", *definition.get("required", [])]
    return {"$schema": DIALECT, **_wrapped(schema), "title": title}


def _below(cls: type[Spec]) -> Iterator[type[Spec]]:
    for child in cls.__subclasses__():
        yield child
        yield from _below(child)


def _describe(definition: dict[str, Any], model: type[Spec]) -> None:
    """Put the words of a model's docstrings where a schema has them."""
    summary, fields = told(model)
    definition["description"] = summary
    for name, found in definition["properties"].items():
        found.pop("title", None)
        _limit_the_long_form(found)
        if words := fields.get(name) or WORDS.get(f"{model.__name__}.{name}") or WORDS.get(name):
            found["description"] = words


def _limit_the_long_form(field: dict[str, Any]) -> None:
    """Drop limits of a list that pydantic puts beside "a text, or a list": a text has none of them."""
    if {"type": "string"} in field.get("anyOf", ()):
        for limit in ("minItems", "minLength", "maxLength"):
            field.pop(limit, None)


def told(model: type[Spec]) -> tuple[str, dict[str, str]]:
    """Return what the docstrings of a model say: of it, and of each field, those of its bases included."""
    fields: dict[str, str] = {}
    for cls in reversed(model.__mro__):
        if issubclass(cls, Spec) and cls is not Spec:
            fields |= _attributes(inspect.getdoc(cls) or "") | _beside(cls)
    return _SECTION.split(inspect.cleandoc(model.__doc__ or ""))[0].strip(), fields


def _attributes(doc: str) -> dict[str, str]:
    """Return name -> words of the section ``Attributes`` of a NumPy docstring."""
    parts = _SECTION.split(doc)
    text = next((parts[at + 1] for at in range(1, len(parts), 2) if parts[at] == "Attributes"), "")
    found: dict[str, str] = {}
    for entry in re.split(r"\n(?=\w)", text.strip("\n")):
        names, _, words = entry.partition("\n")
        for name in names.partition(" : ")[0].split(", "):
            if words.strip():
                found[name] = " ".join(textwrap.dedent(words).split())
    return found


def _beside(cls: type[Spec]) -> dict[str, str]:
    """Return name -> the text that stands below a field in the source."""
    (tree,) = ast.parse(textwrap.dedent(inspect.getsource(cls))).body
    lines = tree.body if isinstance(tree, ast.ClassDef) else []
    return {
        field.target.id: " ".join(text.value.value.split())
        for field, text in pairwise(lines)
        if isinstance(field, ast.AnnAssign)
        and isinstance(field.target, ast.Name)
        and isinstance(text, ast.Expr)
        and isinstance(text.value, ast.Constant)
        and isinstance(text.value.value, str)
    }


def _wrapped(schema: Any) -> Any:
    """Return the schema with every reference to a step's settings below the step's name."""
    if isinstance(schema, list):
        return [_wrapped(one) for one in schema]
    if not isinstance(schema, Mapping):
        return schema
    step = STEP_OF.get(str(schema.get("$ref", "")).rpartition("/")[2])
    if step is not None:
        return {
            "type": "object",
            "properties": {step: dict(schema)},
            "required": [step],
            "additionalProperties": False,
        }
    return {key: _wrapped(value) for key, value in schema.items()}
