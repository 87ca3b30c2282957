"""The rows of a search: placed on the workers once, or read by the workers from Zarr; their digest.

Data that several rounds use is scattered to every worker and held there by Dask, which counts it and
may spill it. Its memory manager drops all copies but one after a few seconds, and a worker may come later: such a
worker fetches the rows from another one, once. One that cannot (a child process, or nobody has them) says so, and its
fits go out again with the data. Zarr-backed rows travel as their address only.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np

from .prefixes import KEPT

FETCH_SECONDS = 60
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
        key = self.future.key
        with suppress(KeyError):  # dropped between two looks
            held: tuple[Any, Any] = worker.data[key]
            return held
        try:
            return KEPT.get(("rows", key), lambda: _fetched(worker, key), lambda found: arrays_bytes(*found))
        except DataMissingError:
            raise
        except Exception as error:
            raise DataMissingError(f"{type(error).__name__}: {error}") from error


def _fetched(worker: Any, key: str) -> tuple[Any, Any]:
    """Return what another worker holds; a future cannot, since it was not made by a client of this process."""
    from distributed.utils import sync
    from distributed.utils_comm import gather_from_workers

    async def ask() -> Any:
        holders = await worker.scheduler.who_has(keys=[key])
        return await gather_from_workers(holders, rpc=worker.rpc, who=worker.address)

    found = sync(worker.loop, ask, callback_timeout=FETCH_SECONDS)[0]
    if key not in found:
        raise DataMissingError("no worker holds the rows any more")
    rows: tuple[Any, Any] = found[key]
    return rows


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
