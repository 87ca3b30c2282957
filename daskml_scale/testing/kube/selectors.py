"""Which objects a label selector and a field selector choose, as pure functions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .store import Object, Refused

Test = Callable[[Object], bool]


def selected(labels: str, fields: str, namespace: str = "") -> Test:
    """Return a test of objects by a label and a field selector; 400 for what is neither."""
    tests = [_label_test(part) for part in _parts(labels)]
    tests += [_field_test(part) for part in _parts(fields)]

    def test(item: Object) -> bool:
        if namespace and item["metadata"].get("namespace") != namespace:
            return False
        return all(one(item) for one in tests)

    return test


def _parts(text: str) -> list[str]:
    parts, depth, start = [], 0, 0
    for position, char in enumerate(text):
        depth += (char == "(") - (char == ")")
        if char == "," and not depth:
            parts.append(text[start:position])
            start = position + 1
    return [part.strip() for part in [*parts, text[start:]] if part.strip()]


def _label_test(part: str) -> Test:
    def value(item: Object, key: str) -> str | None:
        found = (item["metadata"].get("labels") or {}).get(key)
        return None if found is None else str(found)

    words = part.split(None, 1)
    if len(words) == 2 and words[1].split("(")[0].strip() in ("in", "notin"):
        operator, _, listed = words[1].partition("(")
        wanted = {word.strip() for word in listed.rstrip(") ").split(",")}
        if operator.strip() == "in":
            return lambda item: value(item, words[0]) in wanted
        return lambda item: value(item, words[0]) not in wanted
    if "!=" in part:
        key, _, text = part.partition("!=")
        return lambda item: value(item, key.strip()) != text.strip()
    if "=" in part:
        key, _, text = part.replace("==", "=").partition("=")
        return lambda item: value(item, key.strip()) == text.strip()
    if part.startswith("!"):
        return lambda item: value(item, part[1:].strip()) is None
    return lambda item: value(item, part) is not None


def _field_test(part: str) -> Test:
    negative = "!=" in part
    path, _, wanted = part.replace("==", "=").partition("!=" if negative else "=")
    keys = path.strip().split(".")
    if keys[0] not in ("metadata", "spec", "status", "involvedObject", "type", "reason"):
        raise Refused(400, f'field label not supported: "{path}"')

    def test(item: Object) -> bool:
        found: Any = item
        for key in keys:
            found = found.get(key, "") if isinstance(found, dict) else ""
        return (str(found or "") == wanted.strip()) != negative

    return test
