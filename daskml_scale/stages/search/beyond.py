"""Rows that are too many to be placed on the workers go to a store, from which workers read those of their split.

A worker holds placed data beside the rows of a split, so data may take a part of its memory only. Larger arrays
are written once, to a folder that the workers can surely read: ``out=`` where that is a bucket, a local folder where
all workers are processes of this machine. It is removed when the search ends. Fits are the same to the bit.
"""

from __future__ import annotations

import tempfile
from contextlib import ExitStack
from typing import Any

import numpy as np

from daskml_scale.engine.client import workers
from daskml_scale.errors import PlanError
from daskml_scale.plan.units import Template, Variable
from daskml_scale.storage import files, stores

from . import data
from .stored import StoredRows

ROOM = 0.4
"""Of the memory of a worker that placed data may take."""
ROOM_OF_SPLITS = 0.8
"""Of the memory of a worker that the rows of a split, read from a store, may take."""
BLOCK_BYTES = 16 << 20


class Beyond:
    """Where the rows of one search are, if the workers cannot hold them all.

    Parameters
    ----------
    client : distributed.Client
    out : str or None
        URL of the search's own folder.
    """

    def __init__(self, client: Any, out: str | None) -> None:
        self.client, self.out = client, out
        self._stack = ExitStack()
        self._of: Any = None
        self._stored: StoredRows | None = None

    def rows(self, X: Any, y: Any) -> Any:
        """Return X as the workers can take it: itself, or in a store.

        Raises
        ------
        PlanError
            When no worker can hold it and it cannot be read split by split either: names the sizes and what to do.
        """
        if self._stored is not None and self._of is X:
            return self._stored
        size, limit = data.arrays_bytes(X, y), self._memory()
        if size < data.PLACED_BYTES or not limit or size <= ROOM * limit:
            return X
        folder = self._folder()
        if folder is None or not _plain(X) or size > ROOM_OF_SPLITS * limit:
            raise PlanError(
                f"X and y take {size / 2**30:,.2f} GiB and a worker has {limit / 2**30:,.2f} GiB, which must hold the "
                "rows of a split as well; write X to Zarr and give the array of dms.open_dataset(url), from which "
                "resource='chunks' takes less than a split; or use workers with more memory"
            )
        self._of, self._stored = X, self._written(X, folder)
        return self._stored

    def close(self) -> None:
        """Remove what was written."""
        self._stack.close()
        self._of = self._stored = None

    def _memory(self) -> int:
        return min((each["memory_limit"] for each in workers(self.client).values() if each["memory_limit"]), default=0)

    def _folder(self) -> str | None:
        if self.out is not None and not files.is_local(self.out) and not files.is_memory(self.out):
            return self.out
        if not all_here(self.client):
            return None
        where = None if self.out is None or files.is_memory(self.out) else files.local_path(self.out)
        return self._stack.enter_context(tempfile.TemporaryDirectory(prefix="search.rows-", dir=where))

    def _written(self, X: np.ndarray, folder: str) -> StoredRows:
        url = files.join(files.normal(folder), "search.rows.zarr")
        self._stack.callback(stores.remove, url)
        step = max(1, min(len(X), BLOCK_BYTES // max(1, X[:1].nbytes)))
        dims = ("row", *(f"dim_{axis}" for axis in range(1, X.ndim)))
        variable = Variable(X.dtype.name, dims, X.shape, (step, *X.shape[1:]))
        stores.create(url, Template("row", len(X), {"X": variable}))
        for start in range(0, len(X), step):
            stores.write_region(url, start, {"X": X[start : start + step]})
        return StoredRows(url, "X", X.shape, X.dtype)


def _plain(X: Any) -> bool:
    """Return whether rows come back from a store laid out as they were, so that sums have the same last bits."""
    return type(X) is np.ndarray and X.dtype.kind in "fiub" and X.dtype.isnative and bool(X.flags.c_contiguous)


def all_here(client: Any) -> bool:
    """Return whether all workers are on this machine, by their addresses."""
    import psutil

    own = {address.address for found in psutil.net_if_addrs().values() for address in found} | {"localhost"}
    hosts = {str(worker["host"]) for worker in workers(client).values()}
    return hosts <= own
