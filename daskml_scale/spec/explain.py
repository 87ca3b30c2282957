"""pydantic's complaints in the words of someone who writes the YAML.

One :class:`Problem` per key path: what was expected, what was found, the nearest valid name or the
remedy. Paths are the file's own: the tags that pydantic puts into its error locations are dropped.
Pure; positions are added by ``spec.load``.
"""

from __future__ import annotations

import difflib
import re
import types
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Annotated, Any, NamedTuple, Union, get_args, get_origin

from pydantic import BaseModel, Tag, ValidationError

from .key_paths import KeyPath, dotted
from .yaml_text import show

EXPECTED = {
    "int_type": "a whole number", "int_parsing": "a whole number", "int_from_float": "a whole number",
    "float_type": "a number", "float_parsing": "a number", "finite_number": "a finite number",
    "bool_type": "true or false", "string_type": "text", "none_required": "nothing",
    "list_type": "a list, such as [a, b]", "dict_type": "a mapping, such as {{name: value}}",
    "model_type": "a mapping, such as {{name: value}}", "model_attributes_type": "a mapping, such as {{name: value}}",
    "greater_than": "more than {gt}", "greater_than_equal": "at least {ge}",
    "less_than": "less than {lt}", "less_than_equal": "at most {le}",
    "literal_error": "{expected}",
}  # fmt: skip
"""Error type -> what was expected. Everything else brings a message of its own."""
_MISFITS = {name for name in EXPECTED if name.endswith(("_type", "_error", "_required"))}
"""Errors of a union's branch that say no more than 'not mine'."""


_AT_MOST = 500
"""Names compared and problems explained: absurd files must not take minutes."""


class Problem(NamedTuple):
    """One thing that is wrong.

    Attributes
    ----------
    path : str
        Dotted, from the top of the file; ``""`` is the top.
    message : str
        With the value found and the remedy.
    """

    path: str
    message: str


Found = tuple[KeyPath, str]
"""A problem whose path is still in parts."""


def closest(name: object, known: Iterable[str]) -> str | None:
    """Return the most similar known name, whatever its case, or None."""
    by_case = {candidate.lower(): candidate for candidate in islice(known, _AT_MOST)}
    close = difflib.get_close_matches(str(name)[:80].lower(), by_case, n=1, cutoff=0.6)
    return by_case[close[0]] if close else None


def nearest(name: object, known: Iterable[str]) -> str:
    """Return ``"; did you mean 'x'?"``, or an empty string."""
    guess = closest(name, known)
    return f"; did you mean {guess!r}?" if guess else ""


def unknown(what: str, name: object, known: Sequence[str]) -> str:
    """Return ``unknown key 'sorce'; did you mean 'source'? known: ...``, at most 20 names listed."""
    listed = ", ".join(known[:20]) + (", ..." if len(known) > 20 else "")
    guess = nearest(name, known)
    return f"unknown {what} {show(name)}{guess}{'' if guess else ';'} known: {listed or 'none'}"


def explain(error: ValidationError, model: type[BaseModel], data: Any) -> list[Problem]:
    """Return the problems of a failed validation, one per key path, in pydantic's order.

    Parameters
    ----------
    error : ValidationError
        Raised by ``model.model_validate(data)``.
    model : type
    data : object
        What was validated, as read from YAML.
    """
    grouped: dict[KeyPath, list[Any]] = {}
    for detail in error.errors(include_url=False)[:_AT_MOST]:
        grouped.setdefault(_yaml_path(detail["loc"], data, detail["type"]), []).append(detail)
    misspelt: set[tuple[Any, ...]] = {
        (*path[:-1], closest(str(path[-1]), _fields(model, details[0]["loc"][:-1])))
        for path, details in grouped.items()
        if path and details[0]["type"] == "extra_forbidden"
    }
    found = [
        _problem(path, details, model)
        for path, details in grouped.items()
        if not (details[0]["type"] == "missing" and path in misspelt)  # the misspelt key says it better
    ]
    return [
        Problem(dotted(path), message if len(message) <= 600 else f"{message[:300]}...{message[-300:]}")
        for path, message in found
    ]


def _yaml_path(loc: Sequence[str | int], data: Any, kind: str) -> KeyPath:
    """Return ``loc`` without what is not in the data: union tags, ``[key]``."""
    path: list[str | int] = []
    here: Any = data
    tagged = False
    for part in loc:
        if isinstance(here, dict) and not tagged and isinstance(part, str) and here.get("kind") == part:
            tagged = True  # the tag of a stage
        elif part in _keys(here):
            path.append(part)
            here, tagged = here[part], False
    if kind == "missing":
        path.append(loc[-1])
    return tuple(path)


def _keys(here: Any) -> Iterable[str | int]:
    if isinstance(here, list):
        return range(len(here))
    return here if isinstance(here, dict) else ()


def _problem(path: KeyPath, details: list[Any], model: type[BaseModel]) -> Found:
    telling = [detail for detail in details if detail["type"] not in _MISFITS]
    detail = (telling or details)[0]
    kind, found, message = detail["type"], detail["input"], detail["msg"]
    if kind == "missing":
        return path, "this key is missing; add it"
    if kind == "extra_forbidden":
        return path, unknown("key", path[-1] if path else "", _fields(model, detail["loc"][:-1]))
    if kind == "unknown_zone":
        return path, message + _nearest_zone(found)
    if kind.startswith("unknown_"):
        return _unknown_choice(path, found, message, list(_options(model, detail["loc"])))
    if kind in ("model_type", "model_attributes_type") and len(details) == 1:
        for one in _models(model, detail["loc"]):
            return path, f"expected a mapping, found {show(found)}; write {_example(one, found)}"
    if kind in EXPECTED:
        others = [item for item in details if item["type"] == "literal_error" and item is not detail]
        return path, _expected([detail, *others] if telling else details, found)
    if kind in ("too_short", "too_long"):
        context = detail["ctx"]
        wanted = f"at least {context['min_length']}" if kind == "too_short" else f"at most {context['max_length']}"
        return path, f"expected {wanted} item(s), found {context['actual_length']}: {show(found)}"
    if kind == "string_too_short":
        return path, "empty text; write a name or value"
    choices = [detail["ctx"]["expected"] for detail in details if detail["type"] == "literal_error"]
    return path, message.removeprefix("Value error, ") + "".join(f", or {choice}" for choice in choices)


def _expected(details: list[Any], found: Any) -> str:
    """``expected a whole number or 'auto', found 'all'``, with the nearest choice or the remedy."""
    wanted = list(dict.fromkeys(EXPECTED[item["type"]].format(**item.get("ctx", {})) for item in details))
    text = f"expected {', '.join(wanted[:-1])}{' or ' if wanted[:-1] else ''}{wanted[-1]}, found {show(found)}"
    choices = [name for item in details if item["type"] == "literal_error"
               for name in re.findall(r"'([^']*)'", item["ctx"]["expected"])]  # fmt: skip
    if choices and isinstance(found, str):
        return text + nearest(found, choices)
    if wanted == ["text"] and isinstance(found, list):
        return f"{text}; one only: write it again for each"
    if "text" in wanted and isinstance(found, (bool, int, float)):
        return f"{text}; quote it: '{str(found).lower()}'"
    if isinstance(found, str) and EXPECTED["list_type"] in wanted:
        return f"{text}; write [{found}]"
    if isinstance(found, str) and {"a number", "a whole number"} & set(wanted) and found.isdigit():
        return f"{text}; remove the quotes"
    return text


def _unknown_choice(path: KeyPath, found: Any, message: str, options: list[tuple[str | None, Any]]) -> Found:
    """Explain a tag that no branch of a union takes: a stage kind, a step, a rule, ..."""
    what, _, listed = message.partition("; known: ")
    known = listed.split(", ")
    if "kind" in what:
        kind = found.get("kind") if isinstance(found, dict) else None
        if not isinstance(found, dict):
            return path, f"expected a mapping with a kind:, found {show(found)}"
        misspelt = closest("kind", found) if kind is None else None
        if misspelt:
            return (*path, misspelt), unknown("key", misspelt, ["kind"])
        if kind is None:
            return (*path, "kind"), f"the kind is missing; add kind: with one of {listed}"
        return (*path, "kind"), unknown("kind", kind, known)
    if isinstance(found, dict) and found and what.startswith("unknown "):
        return (*path, next(iter(found))), unknown(what.removeprefix("unknown "), next(iter(found)), known)
    if isinstance(found, dict) and len(found) == 1:
        return (*path, next(iter(found))), f"{unknown('name', next(iter(found)), known)}; {what}"
    chosen = next(
        (option for tag, option in options if isinstance(found, str) and tag in (found, f"{found}_rule")), None
    )
    if isinstance(chosen, type) and issubclass(chosen, BaseModel):
        return path, f"expected a mapping, found {show(found)}; write {_example(chosen)}"
    return path, f"{what}: {listed}; found {show(found)}"


def _example(model: type[BaseModel], found: Any = None) -> str:
    """Return how a mapping of a model may look: what must be given, ``found`` for the first of it."""
    required = [(name, field) for name, field in model.model_fields.items() if field.is_required()]
    parts = []
    for name, field in required or list(model.model_fields.items())[:1]:
        (_, kind), *_ = _branches(field.annotation)
        if found is not None and not isinstance(found, (dict, bool)):
            value = found if isinstance(found, str) and found.isidentifier() else show(found)
        elif isinstance(kind, type) and issubclass(kind, BaseModel):
            value = _example(kind)
        elif field.is_required():
            value = "[...]" if get_origin(kind) is list else "..."
        else:
            value = show(field.get_default(call_default_factory=True))
        parts.append(f"{field.alias or name}: {value}")
        found = None
    return f"{{{', '.join(parts)}}}"


def _nearest_zone(found: Any) -> str:
    from zoneinfo import available_timezones

    return nearest(found, sorted(available_timezones()))


def _options(model: type[BaseModel], loc: Sequence[str | int]) -> Iterable[tuple[str | None, Any]]:
    """Return (union tag, type) for everything that may stand at ``loc``."""
    options: list[tuple[str | None, Any]] = [(None, model)]
    for part in loc:
        options = list(_inner(options, part))
    return options


def _models(model: type[BaseModel], loc: Sequence[str | int]) -> list[type[BaseModel]]:
    return [found for _, found in _options(model, loc) if isinstance(found, type) and issubclass(found, BaseModel)]


def _fields(model: type[BaseModel], loc: Sequence[str | int]) -> list[str]:
    """Return the keys that the mapping at ``loc`` takes, in the order of the model."""
    return [field.alias or name for option in _models(model, loc) for name, field in option.model_fields.items()]


def _inner(options: list[tuple[str | None, Any]], part: str | int) -> Iterator[tuple[str | None, Any]]:
    tagged = [(None, option) for tag, option in options if tag is not None and tag == part]
    if tagged:
        yield from tagged
        return
    for _, option in options:
        origin, arguments = get_origin(option), get_args(option)
        if origin is list and isinstance(part, int):
            yield from _branches(arguments[0])
        elif origin is dict:
            yield from _branches(arguments[1])
        elif isinstance(option, type) and issubclass(option, BaseModel):
            for name, field in option.model_fields.items():
                if part in (name, field.alias):
                    yield from _branches(field.annotation)


def _branches(annotation: Any, tag: str | None = None) -> Iterator[tuple[str | None, Any]]:
    """Yield (union tag, type) for every branch of an annotation."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        tag = next((item.tag for item in arguments[1:] if isinstance(item, Tag)), tag)
        yield from _branches(arguments[0], tag)
    elif origin in (Union, types.UnionType):
        for branch in arguments:
            yield from _branches(branch)
    else:
        yield tag, annotation
