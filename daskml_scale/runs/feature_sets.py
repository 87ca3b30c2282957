"""The feature sets of a store, for people: tables of the catalogue."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from rich.console import RenderableType
from rich.text import Text

from daskml_scale.errors import UsageError
from daskml_scale.stages.feature_store import FeatureSets

from .show import columns


def names(store: str) -> list[dict[str, Any]]:
    """Return the feature sets of a store.

    Raises
    ------
    UsageError
        When there is none.
    """
    found = FeatureSets(store).list()
    if not found:
        raise UsageError(f"{store} has no feature sets; add a stage of kind feature_set to the workflow")
    return found


def versions(store: str, name: str) -> list[dict[str, Any]]:
    """Return all versions of a feature set, newest first.

    Raises
    ------
    UsageError
        When there is none of that name: says what there is.
    """
    return list(FeatureSets(store).show(name))


def table_of_names(found: Sequence[Mapping[str, Any]]) -> RenderableType:
    """Return the table of feature sets."""
    header = ("name", "version", "entity", "time", "features")
    rows = [
        (one["name"], str(one["version"]), ", ".join(one["entity"]), one["time"], f"{one['features']:,}")
        for one in found
    ]
    return columns(header, rows, ("version", "features"))


def table_of_versions(found: Sequence[Mapping[str, Any]]) -> RenderableType:
    """Return the table of versions."""
    header = ("version", "entity", "time", "matrix", "recipe", "registered", "features")
    rows: list[Sequence[str | Text]] = [
        (
            str(one["number"]), ", ".join(one["entity"]), one["time"] + (f", {one['within']}" if one["within"] else ""),
            one["matrix"], one["recipe"][:12], f"{datetime.fromtimestamp(one['registered'], UTC):%Y-%m-%d %H:%M}",
            ", ".join(one["features"]),
        )
        for one in found
    ]  # fmt: skip
    return columns(header, rows, header[:1])
