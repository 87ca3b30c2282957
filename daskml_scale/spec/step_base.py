"""What all feature steps are made of: the base classes, and what a step says about itself.

``steps`` holds the registry; ``steps_numeric``, ``steps_categories`` and ``steps_history`` the families.
No step computes anything here.
"""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import BeforeValidator, Field

from .base import Column, Spec, as_list

Matched = Annotated[list[Column], BeforeValidator(as_list, json_schema_input_type=str | list[Column])]
"""Columns by which rows belong together; may be empty."""
Columns = Annotated[
    list[Column], BeforeValidator(as_list, json_schema_input_type=str | list[Column]), Field(min_length=1)
]
"""One name or a list of names."""


class Step(Spec):
    """Base of all steps."""

    step: ClassVar[str]
    """Name in YAML."""

    def reads(self) -> tuple[str, ...]:
        """Return the columns or earlier features that the step reads at the row itself."""
        raise TypeError(f"{type(self).__name__} does not name what it reads")

    def outputs(self) -> tuple[str, ...]:
        """Return the names of the features that the step appends, in order."""
        raise TypeError(f"{type(self).__name__} does not name what it makes")

    def removes(self) -> tuple[str, ...]:
        """Return the earlier features that are none any more after this step."""
        return ()

    @property
    def replaces(self) -> bool:
        """Whether the step may remake a feature that it reads, in its place."""
        return False

    @property
    def names_learnt(self) -> bool:
        """Whether the features have names that only ``fit`` finds; ``outputs()`` is empty then."""
        return False


class InPlace(Step):
    """Base of steps that turn columns into columns of the same names; a later one works on an earlier one's."""

    of: Columns

    def reads(self) -> tuple[str, ...]:
        return tuple(self.of)

    def outputs(self) -> tuple[str, ...]:
        return tuple(self.of)

    @property
    def replaces(self) -> bool:
        return True


class EventStep(Step):
    """Base of steps that look at earlier rows of the same table, by the time they were recorded.

    ``of`` is the column looked at, ``at`` says when it was recorded, ``match`` which rows belong together.
    Nothing recorded after ``known_at`` counts.
    """

    of: Column
    at: Column
    match: Matched = Field(default_factory=list)

    def reads(self) -> tuple[str, ...]:
        return tuple(self.match)

    def spans(self) -> tuple[str, ...]:
        """Return the durations before ``known_at`` that the step looks back over."""
        raise TypeError(f"{type(self).__name__} does not say how far it looks back")
