"""How long units took, remembered between runs: the first estimate of the next run skips the probing.

Kept as ``durations.json`` beside a ledger's segments, by what the duration depends on: kind, code, parameters. Losing
it costs a few small tasks.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from daskml_scale.plan.records import digest
from daskml_scale.storage import files

NAME = "durations.json"
KEPT = 20
"""Stage fingerprints remembered, newest last."""
CHANGE = 0.1
"""Relative change below which the file is left as it is."""


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
