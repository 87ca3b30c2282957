"""The rules of a ``validate`` stage: what a table must be like. Models only; ``stages.validate`` judges them.

Every rule fails the run where it is broken, or only warns where it says ``else: warn``.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import AfterValidator, Discriminator, Field, Tag, model_validator
from pydantic_core import PydanticCustomError

from .base import Column, Duration, Spec
from .step_base import Columns, Matched


class Unique(Spec):
    """No two rows are equal in all the named columns."""

    rule: ClassVar[str] = "unique"
    unique: Columns
    otherwise: Literal["fail", "warn"] = Field(default="fail", alias="else")


class MissingOf(Spec):
    of: Column
    at_most: Annotated[float, Field(ge=0, le=1)] = 0.0
    otherwise: Literal["fail", "warn"] = Field(default="fail", alias="else")


class Missing(Spec):
    """The share of missing values of a column is at most ``at_most`` (0 to 1)."""

    rule: ClassVar[str] = "missing"
    missing: MissingOf


class RangeOf(Spec):
    of: Column
    least: float | None = None
    most: float | None = None
    otherwise: Literal["fail", "warn"] = Field(default="fail", alias="else")


class Range(Spec):
    """All present values of a numeric column lie between ``least`` and ``most``."""

    rule: ClassVar[str] = "range"
    range: RangeOf


KIND_NAMES = ("number", "time", "category")


def _check_type(text: str) -> str:
    if text in KIND_NAMES:
        return text
    try:
        return np.dtype(text).name
    except TypeError:
        raise PydanticCustomError(
            "dtype", "{found} is no type; write {kinds}, or a NumPy type such as int64",
            {"found": repr(text), "kinds": ", ".join(KIND_NAMES)},
        ) from None  # fmt: skip


class TypeOf(Spec):
    of: Column
    be: Annotated[str, AfterValidator(_check_type), Field(alias="is")]
    otherwise: Literal["fail", "warn"] = Field(default="fail", alias="else")


class Type(Spec):
    """A column is a ``number``, ``time`` or ``category``, or is stored as that NumPy type."""

    rule: ClassVar[str] = "dtype"
    dtype: TypeOf


class AmongOf(Spec):
    of: Column
    among: Annotated[list[str], Field(min_length=1)]
    otherwise: Literal["fail", "warn"] = Field(default="fail", alias="else")


class Among(Spec):
    """The values of a category are among those listed; a missing one is not looked at."""

    rule: ClassVar[str] = "categories"
    categories: AmongOf


class RisingOf(Spec):
    of: Column
    match: Matched = Field(default_factory=list)
    strictly: bool = False
    otherwise: Literal["fail", "warn"] = Field(default="fail", alias="else")


class Rising(Spec):
    """From one row to the next a time or number does not fall, where the ``match`` columns of both are equal.

    Rows in which it is missing are passed over.
    """

    rule: ClassVar[str] = "rising"
    rising: RisingOf


class RowsOf(Spec):
    least: Annotated[int, Field(ge=0)] | None = None
    most: Annotated[int, Field(ge=0)] | None = None
    otherwise: Literal["fail", "warn"] = Field(default="fail", alias="else")

    @model_validator(mode="after")
    def _some(self) -> RowsOf:
        if self.least is None and self.most is None:
            raise PydanticCustomError("rows", "give least: or most:, or both")
        return self


class Rows(Spec):
    """The number of rows lies between ``least`` and ``most``."""

    rule: ClassVar[str] = "rows"
    rows: RowsOf


class FreshOf(Spec):
    of: Column
    within: Duration
    otherwise: Literal["fail", "warn"] = Field(default="fail", alias="else")


class Fresh(Spec):
    """The newest time of a column is at most ``within`` before the moment of the check."""

    rule: ClassVar[str] = "fresh"
    fresh: FreshOf


_ALL: dict[str, type[Spec]] = {
    cls.rule: cls for cls in (Unique, Missing, Range, Type, Among, Rising, Rows, Fresh)
}  # fmt: skip
RULES = tuple(_ALL)


def _rule_tag(value: Any) -> str | None:
    for name, cls in _ALL.items():
        if isinstance(value, cls) or (isinstance(value, dict) and name in value):
            return f"{name}_rule"
    return None


AnyRule = Annotated[
    Annotated[Unique, Tag("unique_rule")]
    | Annotated[Missing, Tag("missing_rule")]
    | Annotated[Range, Tag("range_rule")]
    | Annotated[Type, Tag("dtype_rule")]
    | Annotated[Among, Tag("categories_rule")]
    | Annotated[Rising, Tag("rising_rule")]
    | Annotated[Rows, Tag("rows_rule")]
    | Annotated[Fresh, Tag("fresh_rule")],
    Discriminator(
        _rule_tag,
        custom_error_type="unknown_rule",
        custom_error_message="unknown rule; known: " + ", ".join(RULES),
    ),
]


def settings(rule: Any) -> Any:
    """Return the part of a rule that holds its settings."""
    return rule if isinstance(rule, Unique) else getattr(rule, rule.rule)


def rule_columns(rule: Any) -> list[tuple[str, str]]:
    """Return (key, column) of every column that a rule names, the key as in ``missing.of``."""
    match rule:
        case Unique():
            return [
                (f"unique[{at}]" if len(rule.unique) > 1 else "unique", name) for at, name in enumerate(rule.unique)
            ]
        case Rows():
            return []
        case Rising():
            matched = [(f"rising.match[{at}]", name) for at, name in enumerate(rule.rising.match)]
            return [("rising.of", rule.rising.of), *matched]
    return [(f"{rule.rule}.of", settings(rule).of)]
