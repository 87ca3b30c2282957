"""Predict the cells of a block with a model of patches: cut, call, put together, and look at every cell."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from daskml_scale.engine.worker import WorkerContext

from .cubes import floats
from .isolate import BadRows
from .model_output import Output
from .outputs import MODEL_ERROR, OK
from .patches import Patches
from .scoring import Model


@dataclass(frozen=True)
class PatchOutput(Output):
    """What a model gives per patch: a value per cell. Which of them are missing is looked at cell by cell."""

    patch: tuple[int, ...] = ()

    @property
    def shape(self) -> tuple[int, ...]:
        return self.patch

    @property
    def expected(self) -> np.ndarray:
        return np.zeros(self.patch, dtype=bool)


def predict_patches(
    model: Model, patches: Patches, blocks: list[np.ndarray], shape: tuple[int, ...], worker: WorkerContext, limit: int
) -> tuple[np.ndarray, np.ndarray, BadRows]:
    """Predict the cells of a block patch by patch. A cell of which everything is missing stays missing.

    Parameters
    ----------
    blocks : list of ndarray
        Of each variable, in the dimensions of the cube, with the halo around.
    shape : tuple of int
        Cells of the block.

    Returns
    -------
    values, status : ndarray of shape ``(cells,)``, in C order
    bad : BadRows
    """
    X = patches.cut(blocks, str(model.bundle.schema["dtype"]))
    output = PatchOutput(model.output.name, model.output.dtype, patch=patches.shape)
    found, state, among = replace(model, output=output).values(lambda start, stop: X[start:stop], len(X), worker, limit)
    spread = np.broadcast_to(state.reshape(-1, *(1 for _ in patches.shape)), found.shape)
    values, status = patches.join(found, shape).ravel().copy(), patches.join(spread, shape).ravel().copy()
    inner = tuple(
        slice(around, around + size)
        for size, around in zip(shape, (patches.halo.get(dim, 0) for dim in patches.dims), strict=True)
    )
    absent = np.logical_and.reduce([np.isnan(floats(block[inner])) for block in blocks]).ravel()
    bad = BadRows(limit)
    reasons = dict.fromkeys(among.status.values(), next(iter(among.reasons.values()), ""))
    for cell in np.flatnonzero((status != OK) & ~absent).tolist():
        bad.add(cell, int(status[cell]), f"its patch: {reasons[int(status[cell])]}")
    for cell in np.flatnonzero((status == OK) & ~absent & ~np.isfinite(values)).tolist():
        bad.add(cell, MODEL_ERROR, f"the model gave {values[cell]}")
        status[cell] = MODEL_ERROR
    values[status != OK], values[absent], status[absent] = np.nan, np.nan, 0
    return values, status, bad
