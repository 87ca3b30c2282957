"""A feature matrix made a block of rows at a time: what a step makes stays near the processor until the matrix has it.

Only steps whose cost is that of their rows are made so; what a step has to prepare (a table of categories, a join, the
history of entities, a transformer) is prepared once, for all rows. No value depends on the blocks: every step that is
taken block by block treats each row by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from daskml_scale.spec.expressions import Coded, Values
from daskml_scale.spec.step_base import Step
from daskml_scale.spec.steps import Cyclical, Keep
from daskml_scale.spec.steps_categories import OneHot
from daskml_scale.spec.steps_numeric import (
    PCA,
    Bin,
    Cast,
    Clip,
    Compute,
    Impute,
    Interactions,
    Log,
    MinMax,
    Rename,
    Robust,
    Standardize,
)  # fmt: skip

from .kernels import numbers
from .program import Program
from .rowwise import rowwise

_BYTES = 4 << 20
"""Of the features of a block, as they are made: near the processor."""
_LEAST = 1024
_LABELS = 256
"""Most categories of a column that are looked through for every block."""
_CHEAP = (
    Cyclical, Keep, OneHot, PCA, Bin, Cast, Clip, Compute, Impute, Interactions, Log, MinMax, Rename, Robust,
    Standardize,
)  # fmt: skip


def in_blocks(program: Program, columns: Mapping[str, Values]) -> frozenset[int] | None:
    """Return the positions of the steps to make block by block; ``None`` where all must be made for all rows.

    Parameters
    ----------
    columns : mapping of column to Values
        Of the rows.
    """
    cheap = {number for number, step in enumerate(program.steps) if _cheap(step, columns)}
    for number, step in enumerate(program.steps):
        if number not in cheap and not program.made_before(number).isdisjoint(step.reads()):
            return None  # it looks at what an earlier step made, of all rows
    return frozenset(cheap) or None


def _cheap(step: Step, columns: Mapping[str, Values]) -> bool:
    read = [columns[name] for name in step.reads() if name in columns]
    return isinstance(step, _CHEAP) and all(len(each.labels) <= _LABELS for each in read if isinstance(each, Coded))


def matrix(
    program: Program,
    columns: Mapping[str, Values],
    rows: int,
    cheap: frozenset[int],
    whole: Callable[[int], list[np.ndarray]],
    dtype: str,
) -> np.ndarray:
    """Return the features of all rows, of shape (rows, features).

    Parameters
    ----------
    columns : mapping of column to Values of shape (rows,)
    cheap : frozenset of int
        What :func:`in_blocks` says.
    whole : callable (position) -> list of ndarray of shape (rows,)
        Makes the features of any other step.
    """
    outputs = [program.outputs(number) for number in range(len(program.steps))]
    ready = {number: whole(number) for number in range(len(program.steps)) if number not in cheap}
    features, width = program.features, sum(map(len, outputs))
    out = np.empty((rows, len(features)), dtype=dtype)
    size = max(_LEAST, _BYTES // (8 * max(1, width)))
    # Columns become rows of the matrix all at once. An odd length keeps them apart in the processor's cache.
    side_by_side = np.empty((len(features), min(rows, size) | 1), dtype=dtype)
    for first in range(0, rows, size):
        part = slice(first, min(rows, first + size))
        made: dict[str, np.ndarray] = {}
        some = {name: column[part] for name, column in columns.items()}
        for number, names in enumerate(outputs):
            if number in ready:
                arrays = [array[part] for array in ready[number]]
            else:
                step, learnt = program.steps[number], program.learnt.get(str(number))
                earlier = {name: numbers(made[name]) for name in step.reads() if name in made}
                arrays = rowwise(step, {**some, **earlier}, learnt, part.stop - first)
            made.update(zip(names, arrays, strict=True))
        block = side_by_side[:, : part.stop - first]
        with np.errstate(over="ignore", invalid="ignore"):
            for column, name in enumerate(features):
                block[column] = made[name]
        out[part] = block.T
    return out
