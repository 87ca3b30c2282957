"""What of a pass is shown to who watches: where its units are, and what became of them.

Nothing here is kept, and nothing depends on it.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from daskml_scale.events import Cell
from daskml_scale.plan.cells import Places, cells, places, short
from daskml_scale.plan.records import Record
from daskml_scale.plan.units import Plan


def mapped(plan: Plan, executed: Collection[str]) -> Places | None:
    """Return the map of a pass; ``None`` when the pass after the last one finds nothing left to run."""
    if not plan.keys or (executed and not plan.units):
        return None
    return places(plan.keys, plan.units[0].key if plan.units else plan.keys[-1])


def todo(found: Places | None, plan: Plan) -> dict[str, Any]:
    """Return the fields of `events.StagePlanned` about the map."""
    if found is None:
        return {}
    partly = 0 < len(plan.units) < len(plan.keys)
    return {"cells": found.grid, "todo": found.count(unit.key for unit in plan.units) if partly else ()}


def happened(found: Places | None, records: Sequence[Record]) -> tuple[Cell, ...]:
    """Return what was committed where."""
    if found is None:
        return ()
    rows = []
    for record in records:
        at = found.of(record.unit)
        if at is not None:
            bad = bool(record.error)
            why = short(record.error) if bad else record.why
            rows.append(
                Cell(at, not bad, bad, has_bad_rows(record), record.seconds, short(record.unit), record.worker, why)
            )
    return cells(rows)


def has_bad_rows(record: Record) -> bool:
    """Return whether a unit is done and has rows without a result."""
    result = record.result
    return isinstance(result, dict) and bool(result.get("bad_input") or result.get("model_error"))
