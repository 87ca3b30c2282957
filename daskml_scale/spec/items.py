"""What a ``map`` stage runs over: a range, a list, rows of a table, or files; and the function's path."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import AfterValidator, Discriminator, Field, Tag, model_validator
from pydantic_core import PydanticCustomError

from .base import Column, Spec, Word


class MapRange(Spec):
    """Whole numbers: up to ``range: 100``, or ``range: [start, stop]``, or ``[start, stop, step]``."""

    range: int | Annotated[list[int], Field(min_length=1, max_length=3)]

    @model_validator(mode="after")
    def _steps(self) -> MapRange:
        if isinstance(self.range, list) and len(self.range) == 3 and self.range[2] == 0:
            raise PydanticCustomError("range", "the step of a range is 0; give another whole number")
        return self


class MapList(Spec):
    """The values of a list, as the file has them."""

    list: Annotated[list[Any], Field(min_length=1)]


class MapRowsOf(Spec):
    of: Word
    columns: Annotated[list[Column], Field(min_length=1)]


class MapRows(Spec):
    """Rows of a table: the value of one column, or a dict of several."""

    rows: MapRowsOf


class MapFiles(Spec):
    """Paths of the files that match a pattern: ``data/*.csv``, ``data/**/*.nc``."""

    files: Annotated[str, Field(min_length=1)]


_ITEMS: dict[str, type[Spec]] = {"range": MapRange, "list": MapList, "rows": MapRows, "files": MapFiles}


def _has(value: Any, tag: str) -> bool:
    return isinstance(value, dict) and tag in value


AnyItems = Annotated[
    Annotated[MapRange, Tag("range")]
    | Annotated[MapList, Tag("list")]
    | Annotated[MapRows, Tag("rows")]
    | Annotated[MapFiles, Tag("files")],
    Discriminator(
        lambda value: next((tag for tag in _ITEMS if isinstance(value, _ITEMS[tag]) or _has(value, tag)), None),
        custom_error_type="unknown_items",
        custom_error_message="unknown items; known: " + ", ".join(_ITEMS),
    ),
]

_FUNCTION = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*")


def check_function(value: str) -> str:
    """Check that a text is ``module:name``."""
    if not _FUNCTION.fullmatch(value):
        raise PydanticCustomError(
            "function", "{found} names no function; write module:name, such as {example}",
            {"found": repr(value), "example": "simulate:run"},
        )  # fmt: skip
    return value


FunctionPath = Annotated[str, AfterValidator(check_function)]
"""``module:name``, a function in an importable module."""
