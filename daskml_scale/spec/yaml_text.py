"""Text -> plain data and a line per key path. Strict YAML: what people misread is refused.

Refused: duplicate keys, anchors and aliases, tags, several documents, keys that are not text, and the
YAML 1.1 values that are not what they look like (``on``, ``22:00``, ``010``, bare dates). Every refusal
is one :class:`~daskml_scale.errors.SpecError` with file and line. Input is bounded in bytes, values
and depth, so a hostile file costs little. This module knows no model.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from daskml_scale.errors import SpecError

from .key_paths import KeyPath, Lines, dotted

MAX_BYTES = 1 << 20
MAX_VALUES = 20_000
MAX_DEPTH = 40
_WHOLE = re.compile(r"[-+]?(0|[1-9][0-9]*)")
_NUMBER = re.compile(r"[-+]?(\.[0-9]+|(0|[1-9][0-9]*)(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_UNPRINTABLE = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]")
_SPECIAL = {"": None, "~": None, "null": None, "true": True, "false": False,
            ".inf": math.inf, "+.inf": math.inf, "-.inf": -math.inf, ".nan": math.nan}  # fmt: skip
_TRAPS = (
    (re.compile(r"(?i:yes|no|on|off|y|n)"), "YAML 1.1 reads it as true or false; write one of them, or quote it: {q}"),
    (re.compile(r"(?i:true|false|null|[-+]?\.(inf|nan))"), "write it in lower case, or quote it: {q}"),
    (re.compile(r"[-+]?\d[\d_]*(:[0-5]?\d)+(\.\d*)?"), "YAML 1.1 reads it as a number to base 60; quote it: {q}"),
    (re.compile(r"\d{4}-\d\d?-\d\d?([Tt ].*)?"), "YAML reads it as a date; quote it: {q}"),
    (re.compile(r"[-+]?0[\d_]+(\.\d*)?|[-+]?0[xob][\da-fA-F_]+"), "not a plain decimal number; quote it: {q}"),
    (re.compile(r"[-+]?\d[\d_]*_[\d_]*(\.\d*)?"), "write the number without '_', or quote it: {q}"),
)  # fmt: skip


class Document(NamedTuple):
    """What a text says, and where.

    Attributes
    ----------
    data : object
        Dicts, lists, str, int, float, bool, None.
    lines : Lines
    """

    data: Any
    lines: Lines


def show(value: Any) -> str:
    """Return a value as YAML shows it, at most 60 characters long."""
    if isinstance(value, bool):
        return str(value).lower()
    text = "nothing" if value is None else repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def read_text(path: Path, name: str | None = None) -> str:
    """Return the text of a specification file, called ``name`` in errors (by default its path).

    Raises
    ------
    SpecError
        If it cannot be read, is larger than 1 MiB, or is not UTF-8.
    """
    file = name or (str(path) if str(path).isprintable() else repr(str(path)))
    try:
        with open(path, "rb") as stream:
            raw = stream.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise SpecError("no such file", file=file) from None
    except IsADirectoryError:
        raise SpecError("this is a directory; name a YAML file in it", file=file) from None
    except PermissionError:
        raise SpecError("no permission to read this file", file=file) from None
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise SpecError(f"cannot be read: {getattr(error, 'strerror', None) or error}", file=file) from None
    if len(raw) > MAX_BYTES:
        raise SpecError("larger than 1 MiB; this is not a specification file", file=file)
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        byte = f"0x{raw[error.start]:02x}"
        raise SpecError(f"byte {byte} is not UTF-8 text; save the file as UTF-8", file=file, line=line) from None


def read_yaml(text: str, file: str | None = None) -> Document:
    """Read one YAML document strictly.

    Raises
    ------
    SpecError
        With ``file`` and the line, if the text is not valid or holds something that is refused.
    """
    if len(text) > MAX_BYTES:
        raise SpecError("larger than 1 MiB; this is not a specification", file=file)
    try:
        loader = _Loader(text.removeprefix("\ufeff"))
        try:
            node = loader.get_single_node()
        finally:
            loader.dispose()
    except _RefusedError as refused:
        message, mark, path = refused.args
        raise SpecError(message, file=file, line=mark.line + 1, path=dotted(path)[:200] or None) from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise SpecError(f"control character {chr(error.character)!a} in the text", file=file, line=line) from None
    except yaml.MarkedYAMLError as error:
        message, at = _syntax(error)
        raise SpecError(message, file=file, line=at) from None
    if node is None:
        raise SpecError("the file is empty", file=file)
    lines = Lines({"": node.start_mark.line + 1})
    return Document(_build(node, (), lines, file), lines)


class _RefusedError(Exception):
    """(message, mark, path): valid YAML that we do not take."""


class _Loader(yaml.SafeLoader):
    """PyYAML's composer, bounded, without anchors and tags. Nothing is constructed by it."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.values = 0
        self.path: list[Any] = []

    def compose_node(self, parent: Any, index: Any) -> Any:
        part = getattr(index, "value", index)
        self.path.append(part if isinstance(part, (str, int)) else "")
        event: Any = self.peek_event()  # type: ignore[no-untyped-call]
        self.values += 1
        problem = self._problem(event)
        if problem:
            raise _RefusedError(problem, event.start_mark, tuple(part for part in self.path if part != ""))
        node = super().compose_node(parent, index)
        self.path.pop()
        return node

    def _problem(self, event: Any) -> str:
        if isinstance(event, yaml.AliasEvent) or event.anchor:
            name = f"{'*' if isinstance(event, yaml.AliasEvent) else '&'}{event.anchor}"[:60]
            return f"'{name}': anchors and aliases are not taken; write the value out, or quote it"
        if event.tag:
            name = event.tag.replace("tag:yaml.org,2002:", "!!")[:60]
            return f"'{name}': tags are not taken; write a plain value, or quote it"
        if self.values > MAX_VALUES:
            return f"more than {MAX_VALUES} values; this is not a specification"
        return f"nested deeper than {MAX_DEPTH} levels" if len(self.path) > MAX_DEPTH else ""


def _syntax(error: yaml.MarkedYAMLError) -> tuple[str, int | None]:
    """Return a plain message and the line for PyYAML's own complaint."""
    problem, context = error.problem or "", error.context or ""
    mark, start = error.problem_mark, error.context_mark
    line = mark.line + 1 if mark else None
    opened = start.line + 1 if start else line
    if "'\\t'" in problem or (mark and mark.buffer and mark.buffer[mark.pointer : mark.pointer + 1] == "\t"):
        return "a tab; indent with spaces", line
    if "quoted scalar" in context and "found unexpected" in problem:
        return "a quote that is opened here is never closed", opened
    if "quoted scalar" in context:
        return "an unknown escape in a double-quoted text; use single quotes", line
    if "flow" in context:
        sign = "[" if "sequence" in context else "{"
        return f"the '{sign}' opened on line {opened} is not closed, or a value in it needs quotes or a comma", line
    for found, message in (
        ("single document", "more than one document ('---'); write one file for each"),
        ("mapping values are not allowed", "unexpected ': '; check the indentation, or quote a text that holds it"),
        ("cannot start any token", "a value cannot start with this character; quote it"),
        ("sequence entries are not allowed", "a '-' that starts no list here; begin the list on a line of its own"),
        ("<document", "text after the end of the document, or none before it"),
        ("alias", "a value that starts with '*' or '&' needs quotes"),
        ("alphabetic or numeric", "a value that starts with '*', '&' or '!' needs quotes"),
        ("expected ':'", "expected 'key: value'"),
        ("<block end>", "unexpected text here; check the indentation and quotes"),
    ):
        if found in problem or found in context:
            return message, line
    return f"not valid YAML: {problem or context}", line


def _build(node: yaml.Node, path: KeyPath, lines: dict[str, int], file: str | None) -> Any:
    """Return the data below ``node`` and note the lines of everything in it."""

    def refuse(message: str, at: yaml.Node, where: KeyPath) -> SpecError:
        return SpecError(message, file=file, line=at.start_mark.line + 1, path=dotted(where) or None)

    if isinstance(node, yaml.ScalarNode):
        return _scalar(node, partial(refuse, at=node, where=path))
    if isinstance(node, yaml.SequenceNode):
        items = []
        for position, item in enumerate(node.value):
            lines[dotted((*path, position))] = item.start_mark.line + 1
            items.append(_build(item, (*path, position), lines, file))
        return items
    data: dict[str, Any] = {}
    for key_node, value_node in node.value:
        key = _key(key_node, partial(refuse, at=key_node, where=path))
        here = (*path, key)
        if key in data:
            kind = "name" if path == ("stages",) else "key"
            first = lines[dotted(here)]
            raise refuse(f"duplicate {kind} {show(key)}, first on line {first}; rename or remove one", key_node, here)
        lines[dotted(here)] = key_node.start_mark.line + 1
        data[key] = _build(value_node, here, lines, file)
    return data


def _key(node: yaml.Node, refuse: Callable[[str], SpecError]) -> str:
    if not isinstance(node, yaml.ScalarNode):
        raise refuse("a key is a list or a mapping; keys are text")
    if node.style is None and node.value == "<<":
        raise refuse("'<<': merge keys are not taken; write the keys out")
    key = _scalar(node, refuse)
    if not isinstance(key, str):
        raise refuse(f"key {node.value[:60] or 'nothing'} is not text; quote it: {node.value[:60]!r}")
    return key


def _scalar(node: yaml.ScalarNode, refuse: Callable[[str], SpecError]) -> Any:
    """Return a scalar: quoted ones are text, plain ones as YAML 1.2 reads them, traps refused."""
    text: str = node.value
    if _UNPRINTABLE.search(text):
        raise refuse(f"control character in {show(text)}")
    if node.style is not None:
        return text
    if text in _SPECIAL:
        return _SPECIAL[text]
    if _WHOLE.fullmatch(text):
        if len(text) > 20 or not -(2**63) <= int(text) < 2**63:
            raise refuse(f"{show(text)} does not fit into 64 bits; quote it if it is text")
        return int(text)
    if _NUMBER.fullmatch(text):
        number = float(text)
        if math.isinf(number):
            raise refuse(f"{show(text)} is too large for a number; quote it if it is text")
        return number
    for trap, message in _TRAPS:
        if len(text) <= 64 and trap.fullmatch(text):
            raise refuse(f"{text[:60]}: {message.format(q=repr(text[:60]))}")
    return text


def written(data: object) -> str:
    """Return plain data as YAML that reads back as the same."""
    return yaml.safe_dump(data, sort_keys=False, allow_unicode=True).rstrip()
