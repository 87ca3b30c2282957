"""Run a bound recipe for ``Recipe``: its fitting pass, and its features into a store.

On tables in a store the ``features`` stage runs, on the Dask client if there is one; else this process does the work.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from daskml_scale.plan.records import digest
from daskml_scale.stages.claim import claim
from daskml_scale.storage import stores
from daskml_scale.storage.ledger import Ledger
from daskml_scale.storage.urls import zarr_url

from .bound import Bound
from .bound import write as write_features
from .ready import Ready
from .stage import FeaturesStage

if TYPE_CHECKING:
    import xarray as xr


def scanned(bound: Bound) -> Ready:
    """Run the fitting pass, and remember it within this process."""
    if not bound.stored:
        return bound.scan()
    scope = digest(bound.url, bound.tables, bound.planner.scan_parts())
    ledger = f"memory://daskml-scale-recipes/{scope}.ledger"
    _execute(bound, ledger, "fit", write=False)
    return bound.planner.read(Ledger(ledger).records())


def written(bound: Bound, out: str | os.PathLike[str]) -> xr.Dataset:
    """Write the features of every row and return them, opened.

    Parameters
    ----------
    out : str
        URL ending in ``.zarr``.

    Raises
    ------
    UsageError, ConflictError
        When ``out`` may not be written: see ``claim``.
    """
    from daskml_scale.stages.accounting import noted

    url = zarr_url(out)
    with claim(url, "features", bound.reads):
        if bound.stored:
            _execute(bound, stores.beside(url, "ledger"), Path(url).stem, write=True)
        else:
            ready, rows = scanned(bound), bound.planner.rows.rows
            with noted(Path(url).stem, "features", 1, rows):  # in one go
                write_features(bound, ready, url)
    return stores.open_dataset(url)


def _execute(bound: Bound, ledger: str, name: str, *, write: bool) -> None:
    from daskml_scale.stages.run import run_where_reached

    planner = bound.planner
    stage = FeaturesStage(name, ledger, bound.url, planner.program, bound.tables, planner.where, write=write)
    # What only fits keeps its ledger in memory, which the driver alone touches.
    run_where_reached(stage, (bound.url, *bound.tables.values(), ledger if write else ""))
