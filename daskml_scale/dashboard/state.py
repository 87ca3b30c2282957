"""What the page and the JSON route read from a scheduler: the plugin's runs, and the backlog.

By name and shape, not by class: the plugins may be of another version, or absent.
"""

from __future__ import annotations

from typing import Any

from daskml_scale.dashboard import private
from daskml_scale.dashboard.board import Runs

NAME = "daskml-workflow"
"""Of the workflow plugin on a scheduler."""
BACKLOG = "daskml-backlog"


def runs(scheduler: Any) -> tuple[int, Runs]:
    """Return the runs that a scheduler has seen, and a number that grows whenever they change."""
    plugin: Any = private.plugin(scheduler, NAME)
    found = getattr(plugin, "runs", None)
    return (int(plugin.version), found) if isinstance(found, Runs) else (0, Runs())


def backlog(scheduler: Any) -> dict[str, Any] | None:
    """Return what the backlog plugin knows to be left, if this scheduler has one.

    Returns
    -------
    dict or None
        ``units`` left in all stages, and ``seconds`` of one worker slot that they need; ``None`` while
        nothing was measured.
    """
    stages = getattr(private.plugin(scheduler, BACKLOG), "stages", None)
    try:
        rows = [(int(row["units_left"]), row.get("seconds_per_unit")) for row in dict(stages or {}).values()]
        known = [units * float(seconds) for units, seconds in rows if seconds is not None]
    except (TypeError, ValueError, KeyError, AttributeError):
        return None  # another version of the backlog plugin
    if stages is None:
        return None
    return {"units": sum(units for units, _ in rows), "seconds": sum(known) if known else None}


def backlog_by_class(scheduler: Any) -> dict[str, float]:
    """Return class -> seconds of work left per worker slot; empty without the backlog plugin."""
    known = getattr(private.plugin(scheduler, BACKLOG), "seconds_by_class", None)
    return {} if known is None else dict(known())


def in_flight(scheduler: Any) -> dict[str, int]:
    """Return stage -> units that workers have now, as its dispatcher reported them last."""
    found: dict[str, int] = {}
    for row in dict(getattr(private.plugin(scheduler, BACKLOG), "stages", None) or {}).values():
        name = str(row.get("stage", ""))
        found[name] = found.get(name, 0) + int(row.get("in_flight", 0))
    return found


def prices(scheduler: Any) -> dict[str, float]:
    """Return worker class -> price of one worker per hour, as who scales has told it."""
    rows = getattr(private.plugin(scheduler, BACKLOG), "classes", None) or ()
    return {str(row["name"]): float(row.get("price") or 0.0) for row in rows}
