"""The stage kind ``feature_set``: a name and a version for what a features stage makes. Model only."""

from __future__ import annotations

from typing import Literal

from .base import Column, Duration, Word
from .stage_base import StageSpec
from .step_base import Columns


class FeatureSetSpec(StageSpec):
    """Register a feature matrix in the store's catalogue: which entity, and at which time it is known.

    Attributes
    ----------
    name : str
        In the catalogue.
    entity : list of str
        Columns of the table's ``sort_by`` that name an entity.
    time : str
        Column of the table's ``sort_by`` that says when a row's features are known.
    within : str, optional
        How old a row may be and still count.
    """

    kind: Literal["feature_set"] = "feature_set"
    input: Word
    name: Word
    entity: Columns
    time: Column
    within: Duration | None = None

    def references(self) -> dict[str, str]:
        return {"input": self.input, **super().references()}

    def resolves_to(self) -> dict[str, tuple[str, ...]]:
        return {"input": ("features",)}
