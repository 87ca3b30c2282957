"""X that workers read themselves: rows of a stored array, fold by fold; other lazy arrays become plain ones.

Nothing of a stored X travels but its address, and no process holds more than the rows of a split. The last
fit, on all rows, reads them all where ``fit`` was called: give ``refit=False`` where they do not fit there.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from daskml_scale.errors import UsageError
from daskml_scale.plan.records import digest

_PACKED = {"scale_factor", "add_offset"}
LAZY_BYTES = 2 << 30
"""Of a Dask array that is computed for a search."""


class StoredRows:
    """Rows of one array of a dataset in a store: enough of an array for scikit-learn to take rows from.

    Parameters
    ----------
    url, name : str
        Of the dataset, and of its variable.
    shape : tuple of int
    dtype : numpy dtype
    """

    def __init__(self, url: str, name: str, shape: tuple[int, ...], dtype: Any) -> None:
        self.url, self.name, self.shape, self.dtype = url, name, tuple(shape), np.dtype(dtype)
        self.ndim, self.nbytes, self._step = len(self.shape), 0, 0

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, key: Any) -> np.ndarray:
        rows = key[0] if isinstance(key, tuple) else key
        array = self._open()
        if isinstance(rows, slice):
            return np.asarray(array[rows])
        rows = np.asarray(rows)
        rows = np.flatnonzero(rows) if rows.dtype == bool else rows
        found = np.empty((len(rows), *self.shape[1:]), self.dtype)
        order = np.argsort(rows, kind="stable")
        for wanted in np.split(order, _changes(rows[order] // self.step)):  # each stored object once
            if len(wanted):
                start = int(rows[wanted[0]]) // self.step * self.step
                block = np.asarray(array[start : start + self.step])
                found[wanted] = block[rows[wanted] - start]
        return found

    @property
    def step(self) -> int:
        """Rows of one stored object (shard, else chunk)."""
        if not self._step:
            array = self._open()
            self._step = int((getattr(array, "shards", None) or array.chunks)[0])
        return self._step

    def _open(self) -> Any:
        from daskml_scale.storage import stores

        return stores.open_group(self.url, "r")[self.name]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self[:], dtype)

    def __sizeof__(self) -> int:
        return 200

    def identity(self) -> str:
        """Return a digest of the stored content."""
        from daskml_scale.storage import stores

        snapshot = stores.snapshot(self.url)
        if snapshot is None or not snapshot.ids.get(self.name):
            raise UsageError(f"{self.url} has no stored array {self.name!r} any more")
        return digest(self.name, self.shape, snapshot.ids[self.name])


def taken(X: Any, y: Any) -> tuple[Any, Any]:
    """Return X and y as a search takes them: stored arrays by address, other lazy ones computed.

    Raises
    ------
    UsageError
        When a lazy array is too large to compute here.
    """
    return _taken(X, "X", stored=True), _taken(y, "y", stored=False)


def _taken(values: Any, what: str, stored: bool) -> Any:
    module = type(values).__module__.partition(".")[0]
    if module not in ("xarray", "dask"):
        return values
    if module == "xarray" and stored and hasattr(values, "to_dataset") and values.name is not None:
        from daskml_scale.storage import stores

        url = stores.source_of(values.reset_coords(drop=True).to_dataset())
        if url is not None and _stored_as_shown(values):
            return StoredRows(url, str(values.name), values.shape, values.dtype)
    size = _bytes(values)
    if size is not None and size == size and size > LAZY_BYTES and not isinstance(values, np.ndarray):
        raise UsageError(
            f"{what} is a lazy array of {size / 2**30:,.1f} GiB, which a search would have to compute here; write it "
            "to Zarr and give the array of dms.open_dataset(url), which workers read themselves"
        )
    if module == "xarray":
        return values.values
    return values.compute()


def _bytes(values: Any) -> Any:
    """Return the size of lazy values, if they know it; a Dask DataFrame has to look at its partitions."""
    if hasattr(values, "memory_usage"):
        used = values.memory_usage()
        return int((used.sum() if values.ndim == 2 else used).compute())
    return getattr(values, "nbytes", None)


def _stored_as_shown(values: Any) -> bool:
    """Return whether what is stored are the values themselves: not packed, and missing where it is NaN."""
    of = values.encoding
    fill = of.get("_FillValue", of.get("missing_value"))
    missing = fill is None or (values.dtype.kind == "f" and bool(np.isnan(fill)))
    return missing and np.dtype(of.get("dtype", values.dtype)) == values.dtype and not of.keys() & _PACKED


def _changes(numbers: np.ndarray) -> np.ndarray:
    """Return the places where sorted numbers change."""
    found: np.ndarray = np.flatnonzero(np.diff(numbers)) + 1
    return found
