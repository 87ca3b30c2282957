"""What a prediction pass saw: counts of features and predictions in the bins of the training profile, unit by unit.

Counts add up, so every unit keeps its own in the ledger and a changed chunk changes its own only. Nothing
here compares or judges: that is ``drift``'s.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from daskml_scale.artifacts.bundle import Bundle
from daskml_scale.artifacts.profile import counted
from daskml_scale.errors import PlanError, UsageError
from daskml_scale.spec.expressions import Values
from daskml_scale.storage.tables import read_columns

from .score_tables import MOST_SLICES, groups

SEEN = "seen"
"""Name of the sums of a dataset of predictions, and of a unit's counts in its result."""
ABSENT = "(missing)"
"""Name of the slice of rows whose value is missing."""


@dataclass
class Watch:
    """Collects the rows of one unit.

    Attributes
    ----------
    profile : mapping
        Of the bundle.
    method : str
        Whose output is compared, where the profile knows it.
    slices : mapping of column to Values, each of shape (rows,)
    """

    profile: Mapping[str, Any]
    method: str
    slices: Mapping[str, Values] = field(default_factory=dict)
    parts: list[tuple[np.ndarray, np.ndarray]] = field(default_factory=list)

    @classmethod
    def of(
        cls, profile: Mapping[str, Any], method: str, url: str, columns: Sequence[str], start: int, stop: int
    ) -> Watch:
        """Return what counts rows [start, stop) of the table at ``url``, whose ``columns`` are sliced by."""
        return cls(profile, method, read_columns(url, columns, start, stop))

    def see(self, rows: np.ndarray, X: np.ndarray) -> None:
        """Take in some rows: their positions in the unit, and their features of shape (rows, features)."""
        self.parts.append((rows, X))

    def result(self, values: np.ndarray) -> dict[str, Any]:
        """Return the counts of the unit: ``rows``, ``features``, ``outputs``, and ``slices`` by column and value.

        Parameters
        ----------
        values : ndarray, shape (rows, ...)
            As stored; codes of a category, -1 where it is missing.
        """
        rows = np.concatenate([rows for rows, _ in self.parts]) if self.parts else np.empty(0, dtype=int)
        X = np.concatenate([X for _, X in self.parts]) if self.parts else np.empty((0, len(self.profile["features"])))
        found = self._counts(X, values)
        found["slices"] = {}
        for column, keys in self.slices.items():
            for value, chosen in groups(column, keys):
                inside = np.isin(rows, chosen, assume_unique=True)
                part = self._counts(X[inside], values[chosen])
                found["slices"].setdefault(column, {})[ABSENT if value is None else str(value)] = part
        return found

    def _counts(self, X: np.ndarray, values: np.ndarray) -> dict[str, Any]:
        known = self.profile["outputs"].get(self.method, ())
        flat = values.reshape(len(values), -1)
        flat = np.where(flat < 0, np.nan, flat) if flat.dtype.kind in "iu" else flat
        flat = flat.astype("float32")
        outputs = counted(flat, known) if flat.shape[1] == len(known) else []
        return {"rows": len(values), "features": counted(X, self.profile["features"]), "outputs": outputs}


def check_watched(stage: str, bundle: Bundle, url: str, columns: Collection[str], slices: Sequence[str]) -> None:
    """Refuse to watch what cannot be compared with training, or sliced as asked.

    Parameters
    ----------
    url, columns :
        Of the table that is predicted.

    Raises
    ------
    PlanError
    """
    if bundle.profile is None:
        raise PlanError(
            f"{stage}: {bundle.path} does not say what it was trained on, so nothing can be compared with it; "
            "train it by a train stage, or save it with reference="
        )
    for name in slices:
        if name not in columns:
            raise PlanError(f"{stage}: {url} has no column {name!r} to slice by")


def added(parts: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the sum of the counts of several units.

    Raises
    ------
    UsageError
        When a column has more than ``MOST_SLICES`` values.
    """
    total: dict[str, Any] = {}
    slices: dict[str, dict[str, Any]] = {}
    for part in parts:
        total = _sum(total, part)
        for column, values in part.get("slices", {}).items():
            known = slices.setdefault(column, {})
            for value, counts in values.items():
                known[value] = _sum(known.get(value, {}), counts)
            if len(known) > MOST_SLICES:
                raise UsageError(
                    f"{column!r} has more than {MOST_SLICES} values to slice by; derive a column with fewer values"
                )
    ordered = {column: dict(sorted(values.items())) for column, values in slices.items()}
    return {**(total or {"rows": 0, "features": [], "outputs": []}), "slices": ordered}


def _sum(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    if not one:
        return {key: other[key] for key in ("rows", "features", "outputs")}
    return {
        "rows": one["rows"] + other["rows"],
        **{
            key: [[a + b for a, b in zip(x, y, strict=True)] for x, y in zip(one[key], other[key], strict=True)]
            for key in ("features", "outputs")
        },
    }
