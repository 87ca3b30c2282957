"""What a person should look at now: stuck work, drift, rows without a result, caps that bind. Pure; nothing is kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from daskml_scale.dashboard.progress import Progress
from daskml_scale.events import Scaled

QUIET = 120.0
"""Seconds without an event after which a running run is called quiet."""
RISING = 120.0
"""Seconds after the last unit with rows without a result for which their number is called rising."""
RECENT = 600.0
"""Seconds for which a cap that stopped growth is told."""
CAPS = ("max", "rate", "hourly", "budget", "total", "cost", "infeasible")
"""In the names of rules of the scaling policy that hold it back."""
_KINDS = (
    ("stuck", ("stuck", "no progress", "has not", "duplicat", "restarted", "died", "lost")),
    ("drift", ("drift", "psi", "differ from training")),
    ("quarantine", ("set aside", "quarantine", "could not be predicted", "bad input")),
)


@dataclass(frozen=True, slots=True)
class Alert:
    """One line.

    Attributes
    ----------
    kind : str
        failed | stuck | drift | quarantine | cap | warning
    since : float
        Seconds since the epoch; 0 for what is a state and no event.
    """

    kind: str
    text: str
    stage: str = ""
    since: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        return asdict(self)


def alerts(
    progress: Progress,
    scaled: Sequence[Scaled],
    now: float,
    workers: int,
    backlog: Mapping[str, Any] | None,
    most: int = 20,
) -> list[Alert]:
    """Return what to look at, states first, then events, the newest first.

    Parameters
    ----------
    scaled : sequence of Scaled
        Decisions of the whole cluster.
    workers : int
        Connected now.
    backlog : mapping or None
        With ``units``.
    """
    found = [*_states(progress, now, workers, backlog)]
    for event in reversed(scaled):
        if now - event.time <= RECENT and any(cap in event.rule for cap in CAPS):
            text = f"{event.worker_class} is held at {event.need:,} workers: {event.reason}"
            found.append(Alert("cap", text, since=event.time))
            break
    for warned in reversed(progress.warnings):
        low = warned.message.lower()
        kind = next((name for name, words in _KINDS if any(word in low for word in words)), "warning")
        found.append(Alert(kind, warned.message, warned.stage, warned.time))
    return found[:most]


def _states(progress: Progress, now: float, workers: int, backlog: Mapping[str, Any] | None) -> list[Alert]:
    found = []
    for stage in progress.stages:
        if stage.failed:
            found.append(Alert("failed", f"{_units(stage.failed)} failed", stage.name))
        if stage.quarantined:
            rising = ", rising" if stage.state == "running" and now - stage.worse <= RISING else ""
            text = f"rows without a result in {_units(stage.quarantined)}{rising}"
            found.append(Alert("quarantine", text, stage.name))
    if progress.finished or not progress.updated:
        return found
    if now - progress.updated > QUIET:
        found.append(Alert("stuck", f"no event for {(now - progress.updated) / 60:.0f} min", since=progress.updated))
    if not workers and backlog is not None and backlog.get("units"):
        found.append(Alert("stuck", f"no worker is connected, for {_units(backlog['units'])} in the backlog"))
    return found


def _units(count: int) -> str:
    return f"{count:,} unit{'' if count == 1 else 's'}"
