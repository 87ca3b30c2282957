"""Key paths of a specification: how they are written, and where each stands: its line, or what was set beside the file.

Where a path is not known, its nearest parent is asked. Pure text.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

KeyPath = tuple[str | int, ...]
"""Keys and list positions from the top, in YAML's own terms."""
_PLAIN_KEY = re.compile(r"[A-Za-z_][\w-]*", re.ASCII)
_PARENT = re.compile(r"(\.[^.\[\]]+|\[[^\[\]]*\])\Z")


class Lines(dict[str, int]):
    """Dotted key path -> 1-based line of the key, or of the list item. The top is ``""``.

    Attributes
    ----------
    given : dict of dotted key path to text
        What was set beside the file, as the user wrote it.
    """

    def __init__(self, lines: Mapping[str, int]) -> None:
        super().__init__(lines)
        self.given: dict[str, str] = {}


def dotted(path: Sequence[str | int]) -> str:
    """Return ``stages.features.steps[2]`` for ``("stages", "features", "steps", 2)``; odd keys are quoted."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        elif _PLAIN_KEY.fullmatch(part):
            text += f".{part}" if text else part
        else:
            text += f"[{part[:60]!r}]"
    return text


def line_of(lines: Mapping[str, int], path: str) -> int | None:
    """Return the line of a dotted path, or of its nearest parent that the text holds."""
    return lines.get(_nearest(lines, path))


def given_at(lines: Mapping[str, int], path: str) -> str | None:
    """Return what was set beside the file at a dotted path or above it, as the user wrote it."""
    given = lines.given if isinstance(lines, Lines) else {}
    return given.get(_nearest(given, path))


def _nearest(known: Mapping[str, object], path: str) -> str:
    """Return a dotted path, or its nearest parent that is known; the top where none is."""
    while path not in known and path:
        path = _PARENT.sub("", path) if _PARENT.search(path) else ""
    return path
