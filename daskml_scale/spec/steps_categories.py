"""Steps on categories: one-hot, hashing, count and target encoding. Labels count, never codes.

What they learn is in ``stages.features.learning``. No numbers are computed here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from .base import Column
from .step_base import Columns, Step


class OneHot(Step):
    """1 in the feature of the row's category, 0 elsewhere: ``<of>_<level>`` per level.

    ``levels`` names the levels, so that the features are known before ``fit``. Without them ``fit`` finds
    them: the categories with at least ``least`` rows (a share of the rows when below 1), at most the ``most``
    frequent ones, in sorted order. Any other category, rare or never seen, counts in ``<of>_other``
    (``unknown: other``) or nowhere (``unknown: zeros``). A missing category is 0 everywhere.
    """

    step: ClassVar[str] = "one_hot"
    of: Column
    levels: Annotated[list[str], Field(min_length=1)] | None = None
    least: Annotated[float, Field(ge=0)] = 1
    most: Annotated[int, Field(ge=1, le=10_000)] = 100
    unknown: Literal["other", "zeros"] = "other"

    @model_validator(mode="after")
    def _found_or_named(self) -> Self:
        if self.levels is not None and (self.least, self.most) != (1, 100):
            raise PydanticCustomError("levels", "levels: names them all; least: and most: are for those that fit finds")
        return self

    def reads(self) -> tuple[str, ...]:
        return (self.of,)

    def outputs(self) -> tuple[str, ...]:
        return () if self.levels is None else self.names(self.levels)

    def names(self, levels: Sequence[str]) -> tuple[str, ...]:
        """Return the features of these levels."""
        return (*(f"{self.of}_{level}" for level in levels), *([f"{self.of}_other"] * (self.unknown == "other")))

    @property
    def names_learnt(self) -> bool:
        return self.levels is None


class Hashing(Step):
    """One-hot of the hash of a category, in ``buckets`` features ``<of>_hash_<n>``: nothing is learnt.

    The hash is MurmurHash3 of the label, as in scikit-learn's ``FeatureHasher``; a sign that the hash
    gives keeps collisions from adding up (``signed``).
    """

    step: ClassVar[str] = "hashing"
    of: Column
    buckets: Annotated[int, Field(ge=1, le=65536)]
    signed: bool = True

    def reads(self) -> tuple[str, ...]:
        return (self.of,)

    def outputs(self) -> tuple[str, ...]:
        return tuple(f"{self.of}_hash_{bucket}" for bucket in range(self.buckets))


class Count(Step):
    """How many of the rows seen in ``fit`` have the row's category: ``<name>_count``; 0 for one never seen.

    ``share`` divides by the rows that have a category. Missing gives NaN.
    """

    step: ClassVar[str] = "count"
    of: Columns
    share: bool = False

    def reads(self) -> tuple[str, ...]:
        return tuple(self.of)

    def outputs(self) -> tuple[str, ...]:
        return tuple(f"{name}_count" for name in self.of)


class TargetMean(Step):
    """Mean of the recipe's target in the row's category, out of fold and smoothed: ``<name>_target``.

    A row's fold is decided by the value of ``fold_by`` alone, a column that tells rows or entities apart, and
    its encoding comes from the rows of the other folds, in training and prediction alike: no row, and no
    other row with its ``fold_by``, ever sees its own target. ``(sum + smooth * mean) / (rows + smooth)``, mean
    that of all rows of the other folds; it stands for categories never seen there and for missing ones.
    """

    step: ClassVar[str] = "target_mean"
    of: Columns
    fold_by: Column
    folds: Annotated[int, Field(ge=2, le=100)] = 5
    smooth: Annotated[float, Field(ge=0)] = 10.0

    def reads(self) -> tuple[str, ...]:
        return (*self.of, self.fold_by)

    def outputs(self) -> tuple[str, ...]:
        return tuple(f"{name}_target" for name in self.of)


CATEGORY_STEPS: tuple[type[Step], ...] = (OneHot, Hashing, Count, TargetMean)
