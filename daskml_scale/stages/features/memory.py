"""What fitting and applying a recipe take of a worker's memory, projected from schemas. Pure."""

from __future__ import annotations

from operator import attrgetter
from typing import TYPE_CHECKING

from daskml_scale.plan.memory import RowNeed, Share
from daskml_scale.spec.steps_learned import SklearnStep

if TYPE_CHECKING:
    from .planner import RecipePlanner
    from .ready import Ready


def of_scan(planner: RecipePlanner) -> RowNeed:
    """Return the projected memory of the fitting pass: a chunk as it is read, or the other tables."""
    rows = max((stop - start for start, stop in planner.chunks), default=0)
    columns = planner.program.scan_columns(planner.where)
    read = Share("scanning", f"the columns ({len(columns):,})", 16 * rows * len(columns))
    needs = RowNeed(rows, [read], (), "chunk"), RowNeed(rows, (), _joined(planner), "chunk")
    return max(needs, key=attrgetter("total"))


def of_transformers(planner: RecipePlanner) -> RowNeed:
    """Return the projected memory of fitting a transformer: its sample thrice, and a chunk as it is read."""
    steps = [step for step in planner.program.steps if isinstance(step, SklearnStep)]
    rows = max((min(step.sample, planner.rows.rows) for step in steps if step.by == "sample"), default=0)
    width = max((len(step.of) for step in steps), default=0)
    sample = Share("holding", f"the sample of a transformer ({rows:,} rows)", 3 * 8 * rows * width)
    scan = of_scan(planner)
    return RowNeed(scan.rows, scan.shares, [*scan.fixed, sample], "chunk")


def of_rows(ready: Ready, start: int, stop: int, itemsize: int) -> RowNeed:
    """Return the projected memory of the features of rows [start, stop).

    Decoded columns, float64 features, the result; the halo with its search keys; the other tables.
    """
    program, rows = ready.program, stop - start
    features, columns = program.features, program.row_columns
    around = sum(last - first for first, last in ready.halo(start, stop))
    fits = 1 + len(program.by_fold)
    shares = [
        Share("reading", f"the columns ({len(columns):,})", rows * 8 * len(columns)),
        Share("writing", f"the features ({len(features):,})", rows * (8 + itemsize) * len(features) * fits),
    ]
    if around:
        each = 8 * len(program.event_columns) + 48
        shares.append(Share("holding", f"the {around:,} rows before it that windows reach", around * each))
    return RowNeed(rows, shares, _joined(ready.planner), "matrix.shard")


def _joined(planner: RecipePlanner) -> list[Share]:
    """Return what the other tables take in a worker."""
    return [
        Share("holding", f"table {name}", 2 * 8 * planner.tables[name].rows * (len(columns) + 2))
        for name, columns in planner.program.tables.items()
    ]
