"""The registered models of a store, for people: what is there, and moving the champion."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from rich.console import RenderableType
from rich.text import Text

from daskml_scale.artifacts.registry import CHAMPION, Registry, Shelf
from daskml_scale.errors import UsageError
from daskml_scale.storage import files

from .show import columns


def _registry(store: str) -> Registry:
    return Registry(files.normal(store))


def names(store: str) -> list[dict[str, Any]]:
    """Return the registered names of a store: number of versions, champion, its metrics.

    Raises
    ------
    UsageError
        When there is none.
    """
    registry = _registry(store)
    shelves = [registry.shelf(name) for name in registry.names()]
    if not shelves:
        raise UsageError(f"{store} has no registered models; add a stage of kind register to the workflow")
    found = []
    for shelf in shelves:
        best = shelf.get(CHAMPION) if CHAMPION in shelf.aliases else None
        found.append(
            {
                "name": shelf.name,
                "versions": len(shelf.versions),
                CHAMPION: best.number if best else None,
                "metrics": dict(best.metrics) if best else {},
            }
        )
    return found


def versions(store: str, name: str) -> list[dict[str, Any]]:
    """Return all versions of a model, newest first.

    Raises
    ------
    UsageError
        When it is not registered: says what is.
    """
    registry = _registry(store)
    shelf = registry.shelf(name)
    if not shelf.versions:
        raise UsageError(f"{store} has no registered model {name!r}; it has {', '.join(registry.names()) or 'none'}")
    return _listed(shelf)


def promote(store: str, name: str, which: str, alias: str) -> list[dict[str, Any]]:
    """Point an alias at a version, and return all versions."""
    return _listed(_registry(store).promote(name, which, alias))


def rollback(store: str, name: str, alias: str) -> list[dict[str, Any]]:
    """Point an alias where it pointed before, and return all versions."""
    return _listed(_registry(store).rollback(name, alias))


def _listed(shelf: Shelf) -> list[dict[str, Any]]:
    return [
        {**asdict(version), "aliases": sorted(a for a, number in shelf.aliases.items() if number == version.number)}
        for version in reversed(shelf.versions)
    ]


def table_of_names(found: Sequence[Mapping[str, Any]]) -> RenderableType:
    """Return the table of registered names."""
    header = ("name", "versions", "champion", "metrics")
    rows = [
        (one["name"], f"{one['versions']:,}", str(one[CHAMPION] or "none"), _numbers(one["metrics"])) for one in found
    ]
    return columns(header, rows, header[1:3])


def table_of_versions(found: Sequence[Mapping[str, Any]]) -> RenderableType:
    """Return the table of versions."""
    header = ("version", "aliases", "registered", "estimator", "sha256", "metrics", "why")
    rows: list[Sequence[str | Text]] = [
        (
            str(one["number"]), ", ".join(one["aliases"]), _day(one["registered"]),
            one["estimator"].rpartition(".")[2], one["sha256"][:12], _numbers(one["metrics"]), one["note"],
        )
        for one in found
    ]  # fmt: skip
    return columns(header, rows, header[:1])


def table_of_drift(found: Mapping[str, Any]) -> RenderableType:
    """Return the table of a comparison with training: predictions, then features, most different first."""
    header = ("", "name", "PSI", "KS", "missing", "in training")
    rows = [
        (
            kind, line["name"], f"{line['psi']:.3f}", f"{line['ks']:.3f}", f"{line['missing']:.1%}",
            f"{line['missing_in_training']:.1%}",
        )
        for kind, lines in (("prediction", found["predictions"]), ("feature", found["features"]))
        for line in lines
    ]  # fmt: skip
    return columns(header, rows, header[2:])


def _day(seconds: float) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M}"


def _numbers(metrics: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:.4g}" for name, value in metrics.items())
