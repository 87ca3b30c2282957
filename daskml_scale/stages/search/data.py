"""The rows of a search: placed on the workers once, or read by the workers from Zarr; their digest.

Data that several rounds use is scattered to every worker and held there by Dask, which counts it and
may spill it. A worker that has none (it came later, or is a child process) says so, and its fits go out
again with the data. Zarr-backed rows travel as their address only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

PLACED_BYTES = 1 << 20
"""Smaller data goes out with each round."""
_MISSING = "DataMissingError"


class DataMissingError(RuntimeError):
    """The rows of a search are not to be had in this process."""


@dataclass(frozen=True, slots=True)
class Placed:
    """X and y on the workers.

    Attributes
    ----------
    future : distributed.Future
        Of the pair.
    """

    future: Any

    def values(self) -> tuple[Any, Any]:
        """Return X and y, on a worker.

        Raises
        ------
        DataMissingError
            When they are not to be had here.
        """
        from distributed import get_worker

        try:
            worker = get_worker()
        except ValueError:
            raise DataMissingError("this process has no Dask worker") from None
        if self.future.key in worker.data:
            found: tuple[Any, Any] = worker.data[self.future.key]
            return found
        try:
            found = self.future.result(timeout=60)
        except Exception as error:
            raise DataMissingError(f"{type(error).__name__}: {error}") from error
        return found


def placed(client: Any, X: Any, y: Any, before: Placed | None) -> Placed | None:
    """Return the data on all workers; None when it is so small that it goes along with the work."""
    if arrays_bytes(X, y) < PLACED_BYTES:
        return None
    if before is not None and before.future.status == "finished" and before.future.client is client:
        return before
    return Placed(client.scatter([(X, y)], broadcast=True, hash=False)[0])


def is_missing(error: str) -> bool:
    """Return whether a unit failed only because its worker had no data."""
    return _MISSING in error


def arrays_bytes(*values: Any) -> int:
    """Return the bytes of arrays, frames, sparse matrices and lists (about)."""
    from dask.sizeof import sizeof

    return sum(int(value.nbytes) if type(value) is np.ndarray else int(sizeof(value)) for value in values)
