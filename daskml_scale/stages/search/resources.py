"""What a search with rungs is given: its checks, and how much of the resource the first and the last rung have."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

import numpy as np

from daskml_scale.errors import UsageError

from ._compat import Round
from .chunks import by_chunk, numbers_of
from .fidelity import Fidelity, fidelity, most
from .stored import StoredRows


def checked_number(name: str, parameter: str, value: Any, least: float) -> None:
    """Refuse what is no number of at least so much.

    Raises
    ------
    UsageError
    """
    if isinstance(value, bool) or not isinstance(value, (int, float, np.number)) or not value >= least:
        raise UsageError(f"{name}: {parameter} is {value!r}; give a number of at least {least:g}")


def check_trials(search: Any) -> None:
    """Check how many trials a search may start.

    Raises
    ------
    UsageError
    """
    name = type(search).__name__
    if search.n_trials is not None:
        checked_number(name, "n_trials", search.n_trials, 1)
    elif search.time_budget is None:
        raise UsageError(f"{name}: n_trials is None: as many as fit into time_budget, which is not given; give either")


def trials_of(search: Any) -> int:
    """Return how many trials a search may start."""
    return sys.maxsize if search.n_trials is None else int(search.n_trials)


def available(search: Any, kind: Fidelity, work: Round) -> int:
    """Return how many rows, or chunks of rows, each split has to train on."""
    if kind.kind != "chunks":
        return min(len(numbers_of(train)) for train, _ in work.splits)
    if not isinstance(work.X, StoredRows):
        raise UsageError(
            f"{type(search).__name__}: resource='chunks' reads X from a store chunk by chunk; give X as an array of a "
            "dataset there (dms.open_dataset(url)['features']), or take 'n_samples' or 'partial_fit'"
        )
    return min(len(by_chunk(work.X, np.sort(numbers_of(train)))) for train, _ in work.splits)


def check_halving(search: Any) -> None:
    """Check what all searches with rungs take.

    Raises
    ------
    UsageError
    """
    name = type(search).__name__
    checked_number(name, "factor", search.factor, 1)
    if search.factor == 1:
        raise UsageError(f"{name}: factor is 1, which stops nobody; give 2, 3 or 4")
    if search.mode not in ("promotion", "stopping"):
        raise UsageError(f"{name}: mode is {search.mode!r}; give 'promotion' or 'stopping'")
    if not (search.scoring is None or isinstance(search.scoring, str) or callable(search.scoring)):
        raise UsageError(f"{name}: scoring must be a single metric to decide by: a name or a callable")
    if not isinstance(search.resource, str):
        raise UsageError(
            f"{name}: resource is {search.resource!r}; give 'n_samples', 'partial_fit', 'chunks' or a parameter"
        )
    fidelity(search.estimator, search.resource)


def resources_of(search: Any, work: Round) -> tuple[Fidelity, int, int]:
    """Return what grows, the least and the most of it.

    Raises
    ------
    UsageError
        When the numbers cannot be, or the resource is searched over itself.
    """
    kind = fidelity(search.estimator, search.resource)
    largest = most(kind, search.estimator, available(search, kind, work), search.max_resources)
    least = search.min_resources
    if least == "auto":
        least = max(1, round(largest / search.factor**3))
        if kind.kind == "n_samples":
            least = min(largest, max(least, 20))
    if not isinstance(least, (int, np.integer)) or not 1 <= least <= largest:
        raise UsageError(f"{type(search).__name__}: min_resources is {least!r}; give a number from 1 to {largest}")
    spaces = getattr(search, "param_distributions", None)
    for space in spaces if isinstance(spaces, list) else [spaces]:
        if kind.parameter and isinstance(space, Mapping) and kind.parameter in space:
            raise UsageError(
                f"{type(search).__name__}: {kind.parameter} is the resource and cannot be searched as well"
            )
    return kind, int(least), largest
