"""Secrets out of texts that are kept or shown: tokens of links, passwords in URLs, keys of object stores. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

HIDDEN = "***"
_NAMES = r"(?:token|password|passwd|secret|secret[_-]?key|api[_-]?key|access[_-]?key(?:[_-]?id)?|credential|signature)"
_RULES = (
    (re.compile(rf"(?i)([?&;](?:x-amz-)?{_NAMES}=)[^&#\s\"']+"), rf"\1{HIDDEN}"),
    (re.compile(rf"(?i)(\b[\w-]*{_NAMES}[\"']?\s*[:=]\s*[\"']?)[^\s\"',;&}}]+"), rf"\1{HIDDEN}"),
    (re.compile(r"(?i)(\bbearer\s+)[\w.~+/=-]+"), rf"\1{HIDDEN}"),
    (re.compile(r"(\b[\w+.-]+://[^\s/:@]*:)[^\s/@]+(?=@)"), rf"\1{HIDDEN}"),
    (re.compile(r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b"), HIDDEN),
)
_SECRET = re.compile(rf"(?i)(?:^|[_-]){_NAMES}$")


def text(found: str) -> str:
    """Return a text in which what looks like a secret is replaced by three stars."""
    for pattern, instead in _RULES:
        found = pattern.sub(instead, found)
    return found


def value(found: Any) -> Any:
    """Return JSON values with all texts redacted, and all values under names of secrets hidden."""
    if isinstance(found, str):
        return text(found)
    if isinstance(found, Mapping):
        return {
            key: HIDDEN if isinstance(key, str) and _SECRET.search(key) and isinstance(each, str) else value(each)
            for key, each in found.items()
        }
    return [value(each) for each in found] if isinstance(found, (list, tuple)) else found
