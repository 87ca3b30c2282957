"""What every stage of a workflow file has: the base model, and the small types that several kinds share.

``workflow`` holds the kinds; those of grids are in ``cube_stages``. Nothing here knows a kind.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field
from pydantic_core import PydanticCustomError

from .base import Spec, Word


class StageSpec(Spec):
    """Base of all stage models.

    Attributes
    ----------
    after : list of str
        Stages that must be done before this one, beyond those that it reads.
    """

    after: list[Word] = Field(default_factory=list)

    def references(self) -> dict[str, str]:
        """Return key path within the stage -> name of the stage referred to."""
        return {f"after[{position}]": name for position, name in enumerate(self.after)}

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
