"""The table of a ``map`` stage: from what a function returned, item by item, to typed columns. Pure.

An item's result is a number, text, a flat dict of them, or nothing; it becomes one row. Columns are int64
where every value is a whole number, float64 where some have a fraction or are missing, else categories.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from daskml_scale.errors import PlanError
from daskml_scale.spec.expressions import Values
from daskml_scale.storage.tables import categorize

VALUE = "value"
"""Name of the column of results that are no dicts."""
_SCALARS = (bool, int, float, str)


def row(result: Any) -> dict[str, Any]:
    """Return the row of one result: names and plain values.

    Raises
    ------
    TypeError
        When it is no row: names its type and what to return.
    """
    if result is None:
        return {}
    found = {str(name): _plain(value) for name, value in result.items()} if isinstance(result, Mapping) else None
    if found is None:
        found = {VALUE: _plain(result)}
    for name in found:
        if not name or "/" in name or name in (".", "..") or name.startswith("__"):
            raise TypeError(f"the result has a key {name!r}, which cannot name a column; use letters, digits and '_'")
    return found


def _plain(value: Any) -> Any:
    if isinstance(value, (np.generic, np.ndarray)) and getattr(value, "ndim", 1) == 0:
        value = value.item()
    if value is None or isinstance(value, _SCALARS):
        return value
    raise TypeError(
        f"the function returned a {type(value).__name__}, which is no cell of a table; return a number, text, a flat "
        "dict of them, or nothing (write larger results to a file and return its path)"
    )


def block(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return rows as JSON columns: ``{"rows": n, "columns": {name: [value or None, ...]}}``."""
    names = dict.fromkeys(name for each in rows for name in each)
    return {"rows": len(rows), "columns": {name: [each.get(name) for each in rows] for name in names}}


def columns(stage: str, blocks: Sequence[Mapping[str, Any]]) -> dict[str, Values]:
    """Return the columns of a table from blocks of rows, in order.

    Parameters
    ----------
    stage : str
        For errors.
    blocks : sequence
        What `block` returned.

    Raises
    ------
    PlanError
        When a column holds both numbers and text.
    """
    names = dict.fromkeys(name for each in blocks for name in each["columns"])
    found: dict[str, Values] = {}
    for name in names:
        values: list[Any] = []
        for each in blocks:
            values.extend(each["columns"].get(name) or [None] * each["rows"])
        found[name] = typed(stage, name, values)
    return found


def typed(stage: str, name: str, values: Sequence[Any]) -> Values:
    """Return the values of one column in the narrowest type that holds them all; ``None`` is missing."""
    kinds = {type(value) for value in values}
    present = kinds - {type(None)}
    if str in present:
        if present != {str}:
            other = next(iter(present - {str})).__name__
            raise PlanError(
                f"{stage}: column {name!r} holds text and {other}; let the function return one type under this name"
            )
        return categorize(np.array(values, dtype=object))
    if kinds == {int}:
        try:
            return np.array(values, dtype="int64")
        except OverflowError:
            raise PlanError(
                f"{stage}: column {name!r} holds {max(values, key=abs)}, beyond 64 bits; return text or a float"
            ) from None
    return np.array([np.nan if value is None else value for value in values], dtype="float64")
