"""How long units took, remembered between runs: the first estimate of the next run skips the probing.

Kept as ``durations.json`` beside a ledger's segments, by what the duration depends on: kind, code, parameters. Losing
it costs a few small tasks.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from daskml_scale.plan.records import digest
from daskml_scale.plan.units import Outcome, Parts
from daskml_scale.storage import files

NAME = "durations.json"
KEPT = 20
"""Stage fingerprints remembered, newest last."""
CHANGE = 0.1
"""Relative change below which the file is left as it is."""


class Durations:
    """The durations of one run of a stage.

    Parameters
    ----------
    url : str
        Of the stage's ledger.
    kind : str
        Of the stage.
    """

    def __init__(self, url: str, kind: str) -> None:
        self.url, self.kind = url, kind
        self.measured: dict[tuple[str, str], tuple[float, float]] = {}
        """(code, parameters) -> seconds and weight of the units that ran."""

    def estimate(self, parts: Parts) -> float | None:
        """Return the seconds per unit weight of an earlier run of a pass, or ``None``."""
        return remembered(self.url, (self.kind, parts.code, parts.parameters))

    def add(self, parts: Parts, outcomes: Iterable[Outcome]) -> None:
        """Count units that ran; failed ones tell nothing."""
        seconds, weight = self.measured.get((parts.code, parts.parameters), (0.0, 0.0))
        for outcome in outcomes:
            if outcome.ok:
                seconds, weight = seconds + outcome.seconds, weight + outcome.unit.weight
        self.measured[parts.code, parts.parameters] = (seconds, weight)

    def keep(self) -> None:
        """Remember what was measured."""
        for pass_, (seconds, weight) in self.measured.items():
            remember(self.url, (self.kind, *pass_), seconds / weight if weight > 0 else 0.0)


def remembered(url: str, stage: Sequence[Any]) -> float | None:
    """Return the seconds per unit weight of an earlier run, or ``None``.

    Parameters
    ----------
    url : str
        Folder of the ledger.
    stage : sequence
        What the duration depends on.
    """
    found = _read(url).get(digest(list(stage)))
    return float(found) if isinstance(found, (int, float)) and found > 0 else None


def remember(url: str, stage: Sequence[Any], seconds_per_weight: float) -> None:
    """Keep a measured duration, in seconds per unit weight."""
    if seconds_per_weight <= 0:
        return
    known, key = _read(url), digest(list(stage))
    before = known.pop(key, None)
    if isinstance(before, float) and abs(before - seconds_per_weight) < CHANGE * before:
        return
    newest = [*known.items(), (key, float(f"{seconds_per_weight:.6g}"))][-KEPT:]
    files.write_bytes(files.join(url, NAME), _text(dict(newest)))


def _text(values: dict[str, Any]) -> bytes:
    import json

    return (json.dumps(values, indent=1) + "\n").encode()


def _read(url: str) -> dict[str, Any]:
    try:
        found = files.read_json(files.join(url, NAME))
    except OSError:
        return {}
    return found if isinstance(found, dict) else {}
