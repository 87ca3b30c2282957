"""Blocks of cells cut into patches for models that look at a neighbourhood at once, and put together again. Pure.

A model of patches takes an array of shape (patches, variables, *patch with its halo) and gives (patches,
*patch): a network of convolutions, for instance. The halo is read from the neighbouring blocks; beyond the edge of
the cube the outermost cells are repeated, as where a block is no whole number of patches.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from math import prod
from typing import Any

import numpy as np

from daskml_scale.errors import UsageError


@dataclass(frozen=True)
class Patches:
    """How a block of cells is cut.

    Attributes
    ----------
    dims : tuple of str
        Of the cube.
    sizes : mapping of dimension to int
        Cells of a patch, without its halo; along other dimensions a patch is one cell wide, and has no axis.
    halo : mapping of dimension to int
        Cells to either side that the model sees and does not predict.
    """

    dims: tuple[str, ...]
    sizes: Mapping[str, int]
    halo: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, dims: tuple[str, ...], sizes: Mapping[str, int], halo: Mapping[str, int] | None) -> Patches:
        """Check what was asked for.

        Raises
        ------
        UsageError
            When a dimension is not there, or a size is no size.
        """
        around = {str(dim): int(size) for dim, size in (halo or {}).items()}
        wanted = {str(dim): int(size) for dim, size in sizes.items()}
        if not wanted or any(dim not in dims or size < 1 for dim, size in wanted.items()):
            raise UsageError(f"patch={dict(sizes)}: name dimensions of the inputs, {', '.join(dims)}, with cells each")
        if any(dim not in wanted or size < 0 for dim, size in around.items()):
            raise UsageError(f"halo={dict(halo or {})}: name dimensions of the patch, {', '.join(wanted)}")
        return cls(dims, wanted, around)

    @property
    def axes(self) -> tuple[int, ...]:
        """Axes of the cube that a patch has."""
        return tuple(axis for axis, dim in enumerate(self.dims) if dim in self.sizes)

    @property
    def shape(self) -> tuple[int, ...]:
        """Cells of a patch, in the order of the cube's dimensions."""
        return tuple(self.sizes[self.dims[axis]] for axis in self.axes)

    def _order(self) -> tuple[int, ...]:
        """Axes of the cube, those of the patch last."""
        return (*(axis for axis in range(len(self.dims)) if axis not in self.axes), *self.axes)

    def cut(self, blocks: Sequence[np.ndarray], dtype: str) -> np.ndarray:
        """Return the patches of a block.

        Parameters
        ----------
        blocks : sequence of ndarray
            Of each variable, in the cube's dimensions, with the halo around.

        Returns
        -------
        ndarray, shape (patches, variables, *patch with halo)
            In C order of the other dimensions, then of the patches.
        """
        order, around = self._order(), [self.halo.get(self.dims[axis], 0) for axis in self.axes]
        whole = np.stack([block.transpose(order) for block in blocks], axis=len(self.dims) - len(self.axes))
        count = len(self.axes)
        more = [
            -(size - 2 * halo) % patch
            for size, halo, patch in zip(whole.shape[-count:], around, self.shape, strict=True)
        ]
        whole = np.pad(whole, [(0, 0)] * (whole.ndim - count) + [(0, extra) for extra in more], mode="edge")
        starts = [
            range(0, size - 2 * halo, patch)
            for size, halo, patch in zip(whole.shape[-count:], around, self.shape, strict=True)
        ]
        parts = []
        for place in product(*starts):
            spans = zip(place, self.shape, around, strict=True)
            chosen: tuple[Any, ...] = (..., *(slice(at, at + size + 2 * halo) for at, size, halo in spans))
            parts.append(whole[chosen])
        lead = whole.ndim - count - 1
        stacked = np.stack(parts, axis=lead)
        return np.ascontiguousarray(stacked.reshape(-1, *stacked.shape[lead + 1 :]), dtype=dtype)

    def join(self, values: np.ndarray, shape: Sequence[int]) -> np.ndarray:
        """Return the cells of a block from its predicted patches.

        Parameters
        ----------
        values : ndarray, shape (patches, *patch)
            As `cut` ordered them.
        shape : sequence of int
            Cells of the block, per dimension of the cube.

        Returns
        -------
        ndarray, shape ``shape``
        """
        order, count = self._order(), len(self.axes)
        ordered = [shape[axis] for axis in order]
        lead, sizes = ordered[:-count], ordered[-count:]
        counts = [-(-size // patch) for size, patch in zip(sizes, self.shape, strict=True)]
        # (lead, patches along each axis, cells of each axis) -> axis by axis: patches, cells
        apart = values.reshape(prod(lead), *counts, *self.shape)
        mixed = apart.transpose(0, *(place for axis in range(count) for place in (1 + axis, 1 + count + axis)))
        whole = mixed.reshape(*lead, *(number * patch for number, patch in zip(counts, self.shape, strict=True)))
        inside: tuple[Any, ...] = (..., *(slice(0, size) for size in sizes))
        return np.asarray(whole[inside].transpose(np.argsort(order)))
