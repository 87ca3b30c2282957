"""Feature steps. ``steps.AsOf(...)`` in Python and ``as_of: {...}`` in YAML are these classes.

A step reads columns of the table, or features of earlier steps, and appends features. ``outputs()``
names them in order; ``reads()`` names the table columns and earlier features it needs. The numbers
are computed by the kernels in ``stages.features``; this module holds none.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self, TypeAlias, Union

from pydantic import AfterValidator, BeforeValidator, Discriminator, Field, Tag, model_validator
from pydantic_core import PydanticCustomError

from .base import Column, Duration, Word, import_path
from .step_base import Columns, EventStep, Matched, Step
from .steps_categories import CATEGORY_STEPS
from .steps_history import HISTORY_STEPS
from .steps_learned import LEARNED_STEPS
from .steps_numeric import NUMERIC_STEPS

__all__ = ["STEPS", "AnyStep", "AsOf", "Columns", "Cyclical", "DateParts", "EventStep", "Keep", "Lookup", "Ordinal",
           "Step", "Trailing", "dump_step"]  # fmt: skip

DATE_PARTS = (
    "year", "month", "day", "dayofweek", "dayofyear", "hour", "minute", "minute_of_day", "week", "quarter",
)  # fmt: skip
DatePart = Literal[
    "year", "month", "day", "dayofweek", "dayofyear", "hour", "minute", "minute_of_day", "week", "quarter"
]


def _check_zone(text: str) -> str:
    from zoneinfo import ZoneInfo

    try:
        ZoneInfo(text)
    except Exception:
        raise PydanticCustomError(
            "unknown_zone", "{zone} is not a time zone; write an IANA name such as America/New_York",
            {"zone": repr(text)},
        ) from None  # fmt: skip
    return text


Zone = Annotated[str, AfterValidator(_check_zone)]
"""The IANA name of a time zone."""


class DateParts(Step):
    """Calendar parts of an instant, in a time zone: one feature per part, named like the part.

    ``dayofweek`` is 0 for Monday; ``dayofyear`` starts at 1; ``minute_of_day`` is 60 * hour + minute.
    A missing instant gives NaN.
    """

    step: ClassVar[str] = "date_parts"
    of: Column
    parts: list[DatePart] = Field(min_length=1)
    zone: Zone = "UTC"
    prefix: str = ""
    """Put before each part's name, for a second use in one recipe."""

    def reads(self) -> tuple[str, ...]:
        return (self.of,)

    def outputs(self) -> tuple[str, ...]:
        return tuple(f"{self.prefix}{part}" for part in self.parts)


class Cyclical(Step):
    """Sine and cosine of ``2 pi value / period``: ``<name>_sin``, ``<name>_cos`` per name."""

    step: ClassVar[str] = "cyclical"
    of: Columns
    periods: list[Annotated[float, Field(gt=0)]]

    @model_validator(mode="after")
    def _one_period_each(self) -> Self:
        if len(self.of) != len(self.periods):
            raise PydanticCustomError(
                "periods", "{of} names and {periods} periods; give one period per name",
                {"of": len(self.of), "periods": len(self.periods)},
            )  # fmt: skip
        return self

    def reads(self) -> tuple[str, ...]:
        return tuple(self.of)

    def outputs(self) -> tuple[str, ...]:
        return tuple(f"{name}_{wave}" for name in self.of for wave in ("sin", "cos"))


class Ordinal(Step):
    """Integer code of a category, in sorted order of the categories seen in ``fit``, from 0.

    A category not seen in ``fit``, and a missing one, is ``unknown``. Keeps the column's name.
    """

    step: ClassVar[str] = "ordinal"
    of: Columns
    unknown: int = -1

    def reads(self) -> tuple[str, ...]:
        return tuple(self.of)

    def outputs(self) -> tuple[str, ...]:
        return tuple(self.of)


class Keep(Step):
    """Numeric columns as they are; a category must go through :class:`Ordinal`."""

    step: ClassVar[str] = "keep"
    of: Columns

    def reads(self) -> tuple[str, ...]:
        return tuple(self.of)

    def outputs(self) -> tuple[str, ...]:
        return tuple(self.of)


class Lookup(Step):
    """Numeric values of another table by key: ``<table>_<name>`` per name, NaN where there is no match.

    The key is a category or integer column of the same name in both tables (or ``their_key`` there),
    unique in the other table.
    """

    step: ClassVar[str] = "lookup"
    table: Word
    key: Column
    their_key: Column | None = None
    take: Columns

    def reads(self) -> tuple[str, ...]:
        return (self.key,)

    def outputs(self) -> tuple[str, ...]:
        return tuple(f"{self.table}_{name}" for name in self.take)


class AsOf(Step):
    """The last row of another table recorded at or before ``known_at``: ``<table>_<name>`` per name.

    Rows match when all ``match`` columns are equal (categories by label) and their time lies in
    ``[known_at - tolerance, known_at]``; of several rows at one time the last in table order counts.
    No match gives NaN. Semantics of ``pandas.merge_asof(direction="backward")``.
    """

    step: ClassVar[str] = "as_of"
    table: Word
    match: Matched = Field(default_factory=list)
    their_time: Column
    take: Columns
    tolerance: Duration | None = None

    def reads(self) -> tuple[str, ...]:
        return tuple(self.match)

    def outputs(self) -> tuple[str, ...]:
        return tuple(f"{self.table}_{name}" for name in self.take)


class Trailing(EventStep):
    """A statistic of earlier rows' values over event-time windows that end at ``known_at``.

    Row j counts for row i when ``known_at[i] - window < at[j] <= known_at[i]``, the ``match`` columns
    are equal, and ``of[j]`` is not missing. ``at`` says when ``of`` was recorded. Features:
    ``<of>_<stat>_<window>``. ``mean`` of no rows is NaN; ``sum`` and ``count`` of none are 0.
    """

    step: ClassVar[str] = "trailing"
    windows: list[Duration] = Field(min_length=1)
    stat: Literal["mean", "sum", "count"] = "mean"

    def spans(self) -> tuple[str, ...]:
        return tuple(self.windows)

    def outputs(self) -> tuple[str, ...]:
        return tuple(f"{self.of}_{self.stat}_{window.replace(' ', '')}" for window in self.windows)


_ALL: tuple[type[Step], ...] = (
    DateParts, Cyclical, Ordinal, Keep, Lookup, AsOf, Trailing, *NUMERIC_STEPS, *CATEGORY_STEPS, *HISTORY_STEPS,
    *LEARNED_STEPS,
)  # fmt: skip
STEPS: dict[str, type[Step]] = {cls.step: cls for cls in _ALL}
"""YAML name -> class."""


def _unwrap(value: Any) -> Any:
    """``{as_of: {...}}`` -> ``AsOf``-tagged content; instances pass through."""
    if isinstance(value, Step):
        return value
    if hasattr(value, "get_params"):
        raise PydanticCustomError(
            "step_shape", "a transformer of scikit-learn is given by the step sklearn: {example}",
            {"example": repr({"sklearn": {"of": ["..."], "transformer": import_path(value)}})},
        )  # fmt: skip
    if not isinstance(value, dict) or len(value) != 1:
        raise PydanticCustomError(
            "step_shape", "a step is one name with its settings, such as {example}; found {found}",
            {"example": "'keep: {of: [distance]}'", "found": repr(value)[:80]},
        )  # fmt: skip
    return value


def _tag(value: Any) -> str | None:
    if isinstance(value, Step):
        return value.step
    name = next(iter(value), None) if isinstance(value, dict) else None
    return name if name in STEPS else None


def _content(cls: type[Step]) -> Any:
    def open_wrapper(value: Any) -> Any:
        return value if isinstance(value, Step) else value[cls.step]

    return Annotated[cls, BeforeValidator(open_wrapper), Tag(cls.step)]


if TYPE_CHECKING:
    AnyStep: TypeAlias = Step
else:
    AnyStep = Annotated[
        Annotated[
            Union[tuple(_content(cls) for cls in STEPS.values())],  # noqa: UP007
            Discriminator(
                _tag,
                custom_error_type="unknown_step",
                custom_error_message="unknown step; known: " + ", ".join(sorted(STEPS)),
            ),
        ],
        BeforeValidator(_unwrap),
    ]
"""A step in a spec: an instance, or ``{name: settings}``. Error paths equal YAML paths."""


def dump_step(step: Step) -> dict[str, Any]:
    """Return ``{name: settings}``, the inverse of reading a step."""
    return {step.step: step.params()}
