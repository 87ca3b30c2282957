"""Steps that call the user's function: found where the recipe is planned, sent to workers, checked at every call.

What it returns is declared, so a wrong shape or type is an error with the step's position and never a feature.
"""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from daskml_scale.errors import DaskMLError, SpecError
from daskml_scale.spec.expressions import Values
from daskml_scale.spec.step_base import Step
from daskml_scale.spec.steps_learned import Function
from daskml_scale.stages.functions import Sent, code_digest, find

from .estimators import plain


def functions_of(steps: Sequence[Step], folders: Sequence[Path]) -> dict[str, Sent]:
    """Return the functions of all steps: path -> function, ready to be sent to workers.

    Raises
    ------
    PlanError
        When there is no such function.
    """
    return {step.call: Sent(find(step.call, folders), folders) for step in steps if isinstance(step, Function)}


def identity(function: Sent) -> dict[str, str]:
    """Return what code a function is; compiled code is told apart within one version of Python only."""
    return {"code": code_digest(function.function).hex(), "python": platform.python_version().rpartition(".")[0]}


def check_code(step: Function, position: int, function: Sent, learnt: Mapping[str, str]) -> None:
    """Refuse a function whose code is not that of the fitted recipe.

    Raises
    ------
    SpecError
    """
    now = identity(function)
    if now["python"] == learnt["python"] and now["code"] != learnt["code"]:
        raise SpecError(
            f"the code of {step.call} is not what the recipe was fitted with; restore it, or fit the recipe again",
            path=f"steps[{position}].function.call",
        )


def call(step: Function, function: Any, columns: Mapping[str, Values], rows: int) -> list[np.ndarray]:
    """Return the features, float64, each of shape (rows,).

    Raises
    ------
    DaskMLError
        When the function returns something else than it declares.
    """
    found = function({name: plain(columns[name]) for name in step.of})
    if isinstance(found, Mapping):
        if set(found) != set(step.makes):
            raise DaskMLError(f"{step.call} returned {sorted(map(str, found))}, it makes {sorted(step.makes)}")
        arrays = [np.asarray(found[name]) for name in step.makes]
    else:
        matrix = np.asarray(found)
        matrix = matrix[:, None] if matrix.ndim == 1 else matrix
        if matrix.ndim != 2 or matrix.shape[1] != len(step.makes):
            raise DaskMLError(f"{step.call} returned shape {matrix.shape}, it makes {len(step.makes)} features")
        arrays = list(matrix.T)
    for name, array in zip(step.makes, arrays, strict=True):
        if array.shape != (rows,):
            raise DaskMLError(
                f"{step.call} returned {array.shape} for {name!r}, one value for each of {rows} rows needed"
            )
        if not np.can_cast(array.dtype, step.dtype, "same_kind"):
            raise DaskMLError(
                f"{step.call} returned {array.dtype} for {name!r}, it declares {step.dtype}; convert it, or change "
                "dtype:"
            )
    return [array.astype(step.dtype).astype("float64") for array in arrays]
