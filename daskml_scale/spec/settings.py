"""Values given beside a file: ``--set stages.model.where="x > 3"``, as if they stood in the YAML.

A value is read as strictly as the file (the same traps are refused), put at its dotted path, and then validated
with the rest: an error names the setting instead of a line. Nothing is substituted inside texts.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from daskml_scale.errors import SpecError

from .key_paths import KeyPath, Lines, dotted
from .yaml_text import read_yaml, show

_PART = re.compile(r"""\.?([^.\[\]=]+)|\[(\d+)\]|\[(?:'([^']*)'|"([^"]*)")\]""")


def applied(data: Any, lines: Lines, settings: Sequence[str]) -> None:
    """Put settings into what was read from a file, in their order.

    Parameters
    ----------
    data : object
        As ``yaml_text`` read it; changed in place.
    lines : Lines
        Of the file; what a setting replaces is named by it from then on.
    settings : sequence of str
        ``PATH=VALUE``; VALUE is YAML: ``3``, ``[a, b]``, ``{depth: 4}``; what begins with a
        backtick is text as it stands.

    Raises
    ------
    SpecError
        Naming the setting.
    """
    for text in settings:
        name = f"--set {text}"
        path, value = parsed(text)
        try:
            whole = put(data, path, value)
        except SpecError as error:
            raise error.at(file=name) from None
        above = (dotted(whole[:length]) for length in range(1, len(whole)))
        at = next((key for key in above if key not in lines and key not in lines.given), dotted(whole))
        for known in [known for known in lines if known == at or known.startswith((f"{at}.", f"{at}["))]:
            del lines[known]
        lines.given[at] = name


def parsed(text: str) -> tuple[KeyPath, Any]:
    """Return key path and value of ``PATH=VALUE``.

    Raises
    ------
    SpecError
    """
    name = f"--set {text}"
    path, rest = key_path(text)
    if not path or rest[:1] != "=":
        raise SpecError("write KEY=VALUE, with a dotted path as errors name it: stages.model.where=...", file=name)
    if rest[1:].lstrip().startswith("`"):  # a column in backticks, which no YAML value begins with
        return path, rest[1:].strip()
    try:
        value = read_yaml(f"value: {rest[1:]}").data
    except SpecError as error:
        raise SpecError(error.message, file=name) from None
    if list(value) != ["value"]:
        raise SpecError("the value is more than one; write a list as [a, b] and a mapping as {a: 1}", file=name)
    return path, value["value"]


def key_path(text: str) -> tuple[KeyPath, str]:
    """Return the dotted path that a text begins with, in parts, and the rest of the text."""
    path, position = list[str | int](), 0
    while match := _PART.match(text, position):
        plain, number, single, double = match.groups()
        found = next((part for part in (plain, single, double) if part is not None), "")
        path.append(int(number) if number is not None else found)
        position = match.end()
    return tuple(path), text[position:]


def put(data: Any, path: KeyPath, value: Any) -> KeyPath:
    """Set the value at a path and return the path: mappings on the way are made, lists must be there.

    Keys with dots in them (import paths) need no quotes where they are there already.

    Raises
    ------
    SpecError
    """
    here, done, rest = data, list[str | int](), path
    while rest:
        part, rest = _next(here, rest)
        where = dotted(done) or None
        if isinstance(part, int) and (not isinstance(here, list) or part >= len(here)):
            found = f"a list of {len(here)}" if isinstance(here, list) else show(here)
            raise SpecError(f"there is no item {part} in {found}", path=where)
        if isinstance(part, str) and not isinstance(here, dict):
            raise SpecError(f"{show(here)} has no keys, so none is {part!r}", path=where)
        done.append(part)
        if not rest:
            here[part] = value
        elif isinstance(here, dict) and here.get(part) is None:
            here[part] = {}
        here = here[part]
    return tuple(done)


def _next(here: Any, rest: KeyPath) -> tuple[str | int, KeyPath]:
    """Return the first key of a path and what follows: the longest key that is there, else up to the first dot."""
    words = next((n for n, part in enumerate(rest) if isinstance(part, int)), len(rest))
    for number in range(words, 1, -1):
        joined = ".".join(str(part) for part in rest[:number])
        if isinstance(here, dict) and joined in here:
            return joined, rest[number:]
    return rest[0], rest[1:]
