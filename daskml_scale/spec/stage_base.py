"""What every stage of a workflow file has: the base model, and the small types that several kinds share.

``workflow`` holds the kinds; those of grids are in ``cube_stages``. Nothing here knows a kind.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from .base import Duration, Spec, Word


class When(Spec):
    """A stage runs only if a metric of an earlier ``evaluate`` stage is at least, or at most, so much.

    Attributes
    ----------
    of : str
        The evaluate stage.
    metric : str
        As it names it.
    """

    of: Word
    metric: Annotated[str, Field(min_length=1)]
    least: float | None = None
    most: float | None = None

    @model_validator(mode="after")
    def _some_limit(self) -> When:
        if self.least is None and self.most is None:
            raise PydanticCustomError("when", "give least: or most:, or both")
        return self

    def holds(self, value: float) -> bool:
        """Return whether the stage runs."""
        return (self.least is None or value >= self.least) and (self.most is None or value <= self.most)

    def told(self, value: float) -> str:
        """Return why it does not run, in words."""
        low = f"at least {self.least:g}" if self.least is not None else ""
        high = f"at most {self.most:g}" if self.most is not None else ""
        return f"{self.metric} of {self.of} is {value:.6g}, not {' and '.join(filter(None, (low, high)))}"


class StageSpec(Spec):
    """Base of all stage models.

    Attributes
    ----------
    after : list of str
        Stages that must be done before this one, beyond those that it reads.
    when : mapping, optional
        Run it, and what needs it, only if an earlier metric is good enough; else they are skipped.
    matrix : mapping of key path to list
        A copy of the stage, and of those that need it, for every combination of these values; see ``spec.matrix``.
    retries : int
        How often the stage is tried again when it fails, a little later each time; what it committed stays.
    timeout : str, optional
        Longest time for one try, looked at between units where the work is done in the run's own process.
    """

    after: list[Word] = Field(default_factory=list)
    when: When | None = None
    matrix: dict[str, Annotated[list[Any], Field(min_length=1)]] = Field(default_factory=dict)
    retries: Annotated[int, Field(ge=0, le=20)] = 0
    timeout: Duration | None = None

    def references(self) -> dict[str, str]:
        """Return key path within the stage -> name of the stage referred to."""
        when = {"when.of": self.when.of} if self.when else {}
        return {**when, **{f"after[{position}]": name for position, name in enumerate(self.after)}}

    def resolves_to(self) -> dict[str, tuple[str, ...]]:
        """Return key path -> the kinds that a reference may point at; absent means any."""
        return {}


def _chunk_length(value: int) -> int:
    if value == 0 or value < -1:
        raise PydanticCustomError(
            "chunk", "{found} is no length of a chunk; use 1 or more, or -1 for the whole dimension", {"found": value}
        )
    return value


ChunkLength = Annotated[int, AfterValidator(_chunk_length)]
"""Elements along a dimension; -1 is all of them."""
