"""The folds of a recipe: parts of a table whose statistics are kept apart, so that any one can be left out. Pure."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from .base import Column, Spec


class FoldsBy(Spec):
    """``count`` folds: contiguous parts of the table; with ``by`` rows of equal values are in one fold.

    A search with ``split: {refit: {}}`` then fits the recipe once per fold, on the other folds, from
    statistics that the one fitting pass has kept.
    """

    count: Annotated[int, Field(ge=2, le=100)] = 5
    by: Column | None = None
