"""Cells of N-dimensional variables as rows of a matrix, and predictions as cells again. Pure.

A model without a recipe takes one feature per variable and cell; with a *window* also the cells around
it: of ``{"lat": 1, "lon": 1}`` nine features per variable, beyond the edge missing. Variables with fewer
dimensions (a height without time) are repeated along the others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import prod
from typing import Any

import numpy as np

from daskml_scale.errors import PlanError, UsageError


@dataclass(frozen=True)
class Cells:
    """How cells become rows.

    Attributes
    ----------
    dims : tuple of str
        Of the cube, in the order of its largest variable.
    inputs : tuple of (variable, dims)
        In the order of the model's features.
    window : mapping of dimension to int
        Cells to either side that a row holds too.
    kept : tuple of int
        Positions of ``inputs`` among ``total`` variables, where the others are left out, as 0; empty for all.
    """

    dims: tuple[str, ...]
    inputs: tuple[tuple[str, tuple[str, ...]], ...]
    window: Mapping[str, int] = field(default_factory=dict)
    kept: tuple[int, ...] = ()
    total: int = 0

    @classmethod
    def of(
        cls,
        variables: Mapping[str, tuple[str, ...]],
        features: Sequence[str],
        inputs: Sequence[str] | None,
        window: Mapping[str, int] | None,
    ) -> Cells:
        """Bind the features of a model to variables.

        Parameters
        ----------
        variables : mapping of name to dimensions
        features : sequence of str
            Of the model.
        inputs : sequence of str, optional
            Variables in the order of the features; by default those of the features' names.
        window : mapping of dimension to int, optional

        Raises
        ------
        UsageError
            When a variable is not there, the window names no dimension, or the widths do not agree.
        """
        if isinstance(inputs, str):
            raise UsageError(f"inputs={inputs!r}: give a list of variables, [{inputs!r}]")
        names = list(features if inputs is None else inputs)
        absent = [name for name in names if name not in variables]
        if absent or not names:
            raise UsageError(
                f"the data has no variable {', '.join(absent) or 'to read'}; it has {', '.join(variables)}"
            )
        dims = max((variables[name] for name in names), key=len)
        for name in names:
            if not set(variables[name]) <= set(dims):
                raise UsageError(f"{name} has dimensions {variables[name]}, which are not all among {dims}")
        around = {str(dim): int(size) for dim, size in (window or {}).items()}
        if any(dim not in dims or size < 0 for dim, size in around.items()):
            raise UsageError(
                f"window={dict(around)}: name dimensions of the inputs, {', '.join(dims)}, with cells to either side"
            )
        cells = cls(dims, tuple((name, variables[name]) for name in names), around)
        if cells.width != len(features):
            per = f" x {cells.width // len(names)} cells" if around else ""
            raise UsageError(
                f"the model takes {len(features)} features, the inputs give {len(names)} variables{per} = "
                f"{cells.width}; "
                "name as many in inputs"
            )
        return cells

    def keeping(self, features: Sequence[int]) -> Cells:
        """Return the same cells without the variables that make none of these features."""
        per = prod(2 * size + 1 for size in self.window.values())
        kept = tuple(sorted({position // per for position in features}))
        return replace(self, inputs=tuple(self.inputs[place] for place in kept), kept=kept, total=len(self.inputs))

    @property
    def read_columns(self) -> np.ndarray | slice:
        """Columns of the matrix that are read; the others are 0."""
        if not self.kept:
            return slice(None)
        per = prod(2 * size + 1 for size in self.window.values())
        return np.concatenate([np.arange(place * per, (place + 1) * per) for place in self.kept])

    @property
    def width(self) -> int:
        """Features per row."""
        return (self.total or len(self.inputs)) * prod(2 * size + 1 for size in self.window.values())

    def matrix(self, blocks: Sequence[np.ndarray], shape: tuple[int, ...], dtype: str) -> np.ndarray:
        """Return the rows of a block of cells.

        Parameters
        ----------
        blocks : sequence of ndarray
            Of each input, in its own dimensions, with the window's cells around it: NaN beyond the edge.
        shape : tuple of int
            Cells of the block, per dimension.
        dtype : str

        Returns
        -------
        ndarray, shape (cells, width)
            Cells in C order; of each variable all cells of the window, in C order too.
        """
        wide = tuple(size + 2 * self.window.get(dim, 0) for dim, size in zip(self.dims, shape, strict=True))
        sizes = [2 * self.window.get(dim, 0) + 1 for dim in self.dims]
        columns = []
        for place, block in enumerate(blocks):
            whole = np.broadcast_to(self.spread(place, block), wide)
            views = np.lib.stride_tricks.sliding_window_view(whole, sizes) if self.window else whole[..., None]
            columns.append(views.reshape(prod(shape), prod(sizes)))
        found = np.asarray(np.concatenate(columns, axis=1, dtype=dtype))
        if not self.kept:
            return found
        whole = np.zeros((len(found), self.width), dtype=dtype)
        whole[:, self.read_columns] = found
        return whole

    def spread(self, number: int, block: np.ndarray) -> np.ndarray:
        """Return the block of an input in the dimensions of the cube: of length 1 where it has none."""
        own = self.inputs[number][1]
        order = [own.index(dim) for dim in self.dims if dim in own]
        return block.transpose(order).reshape([block.shape[own.index(dim)] if dim in own else 1 for dim in self.dims])

    def place(self, start: Sequence[int], shape: Sequence[int], row: int) -> str:
        """Return where a row of a block lies: ``(time 3, lat 4)``."""
        at = np.unravel_index(row, tuple(shape))
        return f"({', '.join(f'{dim} {a + int(b)}' for dim, a, b in zip(self.dims, start, at, strict=True))})"


def floats(values: np.ndarray) -> np.ndarray:
    """Return values in a type that can say that one is missing."""
    return values if values.dtype.kind == "f" else values.astype("float64")


def decoded(raw: np.ndarray, how: Mapping[str, Any]) -> np.ndarray:
    """Return stored values as numbers: packed ones unpacked, fills as NaN (CF).

    Parameters
    ----------
    raw : ndarray
    how : mapping
        ``fills`` (values that mean missing), ``scale``, ``offset``; empty for values that mean themselves.
    """
    if not how:
        return raw
    values = raw.astype("float64")
    for fill in how["fills"]:
        values[raw == fill] = np.nan
    return np.asarray(values * how["scale"] + how["offset"])


def decoding(name: str, dtype: np.dtype[Any], encoding: Mapping[str, Any]) -> dict[str, Any]:
    """Return how to decode a variable from what xarray knows of its encoding; empty when there is nothing to do.

    Raises
    ------
    PlanError
        When its values are no numbers.
    """
    if dtype.kind not in "iufb":
        raise PlanError(f"{name} holds {dtype} values; inputs must be numbers")
    fills = [encoding[key] for key in ("_FillValue", "missing_value") if encoding.get(key) is not None]
    numbers = [float(fill) for fill in fills if not np.isnan(fill)]
    scale, offset = float(encoding.get("scale_factor", 1.0)), float(encoding.get("add_offset", 0.0))
    return {} if not numbers and (scale, offset) == (1, 0) else {"fills": numbers, "scale": scale, "offset": offset}
