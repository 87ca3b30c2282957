"""Cells of N-dimensional variables as rows of a matrix, and predictions as cells again. Pure.

A model without a recipe takes one feature per variable and cell; with a *window* also the cells around
it: of ``{"lat": 1, "lon": 1}`` nine features per variable, beyond the edge missing. Variables with fewer
dimensions (a height without time) are repeated along the others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
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
    """

    dims: tuple[str, ...]
    inputs: tuple[tuple[str, tuple[str, ...]], ...]
    window: Mapping[str, int] = field(default_factory=dict)

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

    @property
    def width(self) -> int:
        """Features per row."""
        return len(self.inputs) * prod(2 * size + 1 for size in self.window.values())

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
        for (_, own), block in zip(self.inputs, blocks, strict=True):
            order = [own.index(dim) for dim in self.dims if dim in own]
            spread = block.transpose(order).reshape(
                [block.shape[own.index(dim)] if dim in own else 1 for dim in self.dims]
            )
            whole = np.broadcast_to(spread, wide)
            views = np.lib.stride_tricks.sliding_window_view(whole, sizes) if self.window else whole[..., None]
            columns.append(views.reshape(prod(shape), prod(sizes)))
        return np.asarray(np.concatenate(columns, axis=1, dtype=dtype))

    def place(self, start: Sequence[int], shape: Sequence[int], row: int) -> str:
        """Return where a row of a block lies: ``(time 3, lat 4)``."""
        at = np.unravel_index(row, tuple(shape))
        return f"({', '.join(f'{dim} {a + int(b)}' for dim, a, b in zip(self.dims, start, at, strict=True))})"


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
