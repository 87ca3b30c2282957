"""The unit that fits a transformer of scikit-learn: on the rows of its chunks, and once more per fold left out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from daskml_scale.engine.worker import Cache
from daskml_scale.spec.expressions import Values
from daskml_scale.spec.steps_learned import SklearnStep

from . import estimators
from .bounds import Ranges
from .kernels import numbers
from .statistics import Place, fold_numbers, selected

if TYPE_CHECKING:
    from .transformer import RowTransformer

Parts = Sequence[tuple[int, int, Ranges]]
"""Row ranges [start, stop) and the rows that event steps reach from there."""


def fit_model(
    transformer: RowTransformer, cache: Cache, position: int, parts: Parts, columns: Sequence[str], total: int
) -> dict[str, Any]:
    """Return the fitted transformers: of all rows under ``all``, without a fold under its number.

    Parameters
    ----------
    columns : sequence of str
        Table columns to read: those of the step, the condition, the target and the folds.
    total : int
        Rows of the table, for contiguous folds.
    """
    program = transformer.program
    step = program.steps[position]
    assert isinstance(step, SklearnStep)

    def drawn(left_out: int | None) -> Iterator[tuple[dict[str, Values], np.ndarray | None]]:
        bound = transformer if left_out is None else replace(transformer, program=program.fold(left_out))
        for start, stop, halo in parts:
            found = bound.columns_before(position, start, stop, halo, columns, cache)
            raw = {**found, **bound.rows.read(columns, start, stop)} if _hidden(bound, position, columns) else found
            wanted = selected(transformer.where, raw, stop - start)
            if left_out is not None and program.folds is not None:
                wanted = wanted & (fold_numbers(program.folds, raw, stop - start, Place(start, total)) != left_out)
            target = numbers(raw[program.target])[wanted] if program.target else None
            yield {name: found[name][wanted] for name in step.of}, target

    fits = {"all": estimators.fit(step, position, drawn(None))}
    for number in range(program.folds.count if program.folds is not None else 0):
        fits[str(number)] = estimators.fit(step, position, drawn(number))
    return fits


def _hidden(transformer: RowTransformer, position: int, columns: Sequence[str]) -> bool:
    """Return whether a feature of an earlier step has the name of a column that the condition or the folds read."""
    return not transformer.program.made_before(position).isdisjoint(columns)
