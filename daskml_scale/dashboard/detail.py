"""Chunk maps and trials of the newest stages: what is too large for a `Progress`, which registries keep too.

Bounded: at most ``MAX_KEPT`` stages; those heard of longest ago are forgotten. Lost with the scheduler, and sent
again by the publisher. Mutable, because a map of ten thousand cells is not copied for every commit.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from daskml_scale.dashboard import bounds
from daskml_scale.dashboard.chunks import ChunkMap
from daskml_scale.dashboard.trials import Trials
from daskml_scale.events import Event, StagePlanned, StageStarted, UnitsCommitted

MAX_KEPT = 24
"""Stages with a map, and as many with trials: 30 MB at most."""

Key = tuple[str, str]
"""(run, stage)"""
V = TypeVar("V", ChunkMap, Trials)


class Detail:
    """Maps and trials by (run, stage), the one heard of last at the end."""

    def __init__(self) -> None:
        self.maps: dict[Key, ChunkMap] = {}
        self.trials: dict[Key, Trials] = {}

    def take(self, event: Event | None) -> None:
        """Fold an event; raises nothing for what does not fit."""
        if isinstance(event, StageStarted):
            key = bounds.name(event.run), bounds.name(event.stage)
            self.maps.pop(key, None)
            self.trials.pop(key, None)
        elif isinstance(event, StagePlanned) and event.cells is not None:
            key = bounds.name(event.run), bounds.name(event.stage)
            _keep(self.maps, key, ChunkMap(event.cells, event.todo, event.units))
        elif isinstance(event, UnitsCommitted):
            key = bounds.name(event.run), bounds.name(event.stage)
            if key in self.maps and event.cells:
                self.maps[key].take(event.cells)
            if event.scores:
                found = self.trials.get(key) or Trials()
                found.take(event.scores, event.time)
                _keep(self.trials, key, found)

    def to_dict(self) -> dict[str, Any]:
        """Return everything, as plain data."""
        return {
            "maps": [[*key, found.to_dict()] for key, found in self.maps.items()],
            "trials": [[*key, found.to_dict()] for key, found in self.trials.items()],
        }

    def adopt(self, data: Mapping[str, Any]) -> None:
        """Take what a publisher knows in place of what is here of the same stages."""
        _adopt(self.maps, data.get("maps", ()), ChunkMap.from_dict)
        _adopt(self.trials, data.get("trials", ()), Trials.from_dict)


def brief(event: Event) -> bool:
    """Whether an event says nothing about maps or trials."""
    if isinstance(event, UnitsCommitted):
        return not event.cells and not event.scores
    return not (isinstance(event, StageStarted) or (isinstance(event, StagePlanned) and event.cells is not None))


def _keep(kept: dict[Key, V], key: Key, found: V) -> None:
    kept.pop(key, None)
    kept[key] = found
    if len(kept) > MAX_KEPT:
        del kept[next(iter(kept))]


def _adopt(kept: dict[Key, V], rows: Any, rebuild: Callable[[Mapping[str, Any]], V]) -> None:
    for run, stage, data in list(rows)[-MAX_KEPT:]:
        _keep(kept, (bounds.name(run), bounds.name(stage)), rebuild(data))
