"""How predictions are laid out in a store, and the account of bad rows. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from daskml_scale.artifacts.bundle import Bundle
from daskml_scale.errors import PlanError, UnitsFailedError
from daskml_scale.plan.records import digest
from daskml_scale.plan.units import Snapshot, Template, Variable, row_ranges
from daskml_scale.spec.workflow import MatrixOut

from .base import StageResult
from .features.stage import grid
from .matrix import FEATURES
from .model_output import Output

OK, BAD_INPUT, MODEL_ERROR = 1, 2, 3
"""Status of a row; 0 is missing: never written."""


@dataclass(frozen=True, eq=False)
class Layout:
    """How predictions are stored.

    Attributes
    ----------
    table : Snapshot
        The input.
    copied : mapping of name to Variable
        Its key columns, on the grid of the output.
    chunk, shard : int
        Rows per chunk, and per unit of work.
    """

    table: Snapshot
    copied: Mapping[str, Variable]
    chunk: int
    shard: int

    @classmethod
    def of(cls, table: Snapshot, matrix: MatrixOut, output: Output | None = None) -> Layout:
        """Decide the layout: by default the table's own chunks.

        Raises
        ------
        PlanError
            When a key column bears the name of a variable of the predictions.
        """
        names = [name for name in table.attrs.get("row_key") or () if name in table.variables]
        taken = (output.names if output else set()).intersection({table.dim, *names})
        if taken:
            raise PlanError(
                f"{min(taken)!r} is a variable of these predictions; give that column of {table.url} another name"
            )
        own = max(
            (found.write_unit[0] for found in table.variables.values() if found.dims[:1] == (table.dim,)), default=1
        )
        chunk, shard = grid(table.rows, own, matrix.chunk, matrix.shard)
        shards = None if shard == chunk else (shard,)
        copied = {name: replace(table.variables[name], chunks=(chunk,), shards=shards) for name in names}
        return cls(table, copied, chunk, shard)

    @property
    def ranges(self) -> list[tuple[int, int]]:
        """Rows of every unit."""
        return row_ranges(self.table.rows, self.shard)

    @property
    def grid(self) -> str:
        units = len(self.ranges)
        return f"{units:,} shard{'s'[: units != 1]} of {self.shard:,} rows"

    def matrix_width(self, bundle: Bundle) -> int:
        """Return the number of features of a table that is a feature matrix.

        Raises
        ------
        PlanError
            When it is none, or is not as wide as the model, which has no recipe.
        """
        found = self.table.variables.get(FEATURES)
        if found is None or found.shape[1:] != (len(bundle.features),):
            have = "no variable 'features'" if found is None else f"features of shape {found.shape}"
            raise PlanError(
                f"the model {bundle.name} has no recipe and takes a matrix of {len(bundle.features)} features; "
                f"{self.table.url} has {have}: predict from its feature matrix, or save the model with recipe="
            )
        return len(bundle.features)

    def schema(self, output: Output) -> str:
        """Return the digest of all but the number of rows."""
        copied = [(name, found.dtype, dict(found.attrs)) for name, found in sorted(self.copied.items())]
        return digest(self.table.dim, output, copied, self.chunk, self.shard)

    def template(self, output: Output, attrs: Mapping[str, Any]) -> Template:
        """Return the dataset to create."""
        variables = {**output.variables(self.table.dim, self.table.rows, self.chunk, self.shard), **self.copied}
        row_key = {"row_key": list(self.copied), **attrs}
        return Template(self.table.dim, self.table.rows, variables, row_key, output.small)


def bad_counts(status: np.ndarray, reasons: Sequence[Any]) -> dict[str, Any]:
    """Return how many rows of a unit are bad, and the first reasons as (row, status, text)."""
    counts = {"bad_input": int((status == BAD_INPUT).sum()), "model_error": int((status == MODEL_ERROR).sum())}
    return {**counts, "reasons": [list(entry) for entry in reasons]}


def concluded(
    name: str, method: str, rows: int, found: Sequence[Mapping[str, Any] | None], max_bad: int, what: str = "row"
) -> StageResult:
    """Return the result from the bad rows of all units.

    Raises
    ------
    UnitsFailedError
        When there are more than ``max_bad``.
    """
    present = [counts for counts in found if counts]
    bad_input = sum(counts["bad_input"] for counts in present)
    model_error = sum(counts["model_error"] for counts in present)
    bad = bad_input + model_error
    result = {"rows": rows, "bad_input": bad_input, "model_error": model_error, "method": method}
    if not bad:
        return StageResult(result, rows)
    reasons = [entry for counts in present for entry in counts["reasons"]][:3]
    message = (
        f"{name}: {bad:,} of {rows:,} {what}s could not be predicted ({bad_input:,} bad input, {model_error:,} model "
        f"errors): {'; '.join(f'{what} {row}: {text}' for row, _, text in reasons)}"
    )
    if bad > max_bad:
        raise UnitsFailedError(
            f"{message}; that is more than max_bad = {max_bad}: mend the {what}s, or allow max_bad: {bad}. "
            f"All other {what}s are written"
        )
    return StageResult(result, rows, warnings=(message,), bad_rows=bad)
