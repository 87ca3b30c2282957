"""What do features cost? Zarr to Zarr, chunk by chunk, against pandas, scikit-learn, dask-ml and the disk.

First the feature matrix of all flights, in one process, against pandas in memory.

The peer is helped: its DataFrames are parsed, sorted and in memory before the clock starts, and it saves
its matrix as one plain file. Ours reads the stored table, fits, writes and records every shard, in one
process. The second run finds everything done; pandas has to compute again. The limit is the matrix
written as one plain file. Then, on two workers, what `feature_works` has: a row for every goal.

``DASKML_BENCH_WORKS=encode,roll`` does a part of it; of ``flights``, ``encode``, ``refit``, ``roll``, ``join``.
``DASKML_BENCH_GB=8`` is the size of the tables with ``--size full``, ``DASKML_BENCH_MEMORY=1.5GiB`` the limit of a
worker. Tables and results lie in a folder below TMPDIR, three times the size of a table, and are removed at the end.
"""

from __future__ import annotations

import os
from itertools import chain
from pathlib import Path

import numpy as np

import daskml_scale as dms

from . import feature_works
from .by_hand import matrix
from .common import Bench, Counts, Row, Work, least
from .flights import ROWS, Flights, prepare

SIZES = {"toy": 2_000, "small": 100_000, "full": ROWS}


def measure(bench: Bench) -> list[Row]:
    """Return the rows of this question."""
    flights = of_flights(bench) if "flights" in feature_works.ASKED else []
    return bench.compare(chain(flights, feature_works.works(bench)))


def of_flights(bench: Bench) -> list[Work]:
    """Return the works on flights."""
    folder = bench.folder / "features"
    flights = prepare(bench.folder, SIZES[bench.size])
    expected = matrix(*flights.frames)

    def ours(into: Path) -> Counts:
        return transform(flights, into / "features.zarr")

    def second(into: Path) -> Counts:
        return transform(flights, folder / "features.zarr")

    def pandas(into: Path) -> None:
        np.save(into / "features.npy", matrix(*flights.frames))

    transform(flights, folder / "features.zarr")
    same(np.asarray(dms.open_dataset(str(folder / "features.zarr")).features), expected)
    limit = least(lambda: np.save(folder / "limit.npy", expected))
    limit_is = f"{expected.nbytes / 1e6:.0f} MB written as one file"
    rows = f"{len(expected):,} x {expected.shape[1]}"
    return [
        Work(f"features {rows}", ours, {"pandas in memory": pandas}, limit, limit_is),
        Work(
            f"features {rows}, second run", second, {"pandas in memory": pandas}, _stat(folder), "one stat per object"
        ),
    ]


def transform(flights: Flights, out: Path) -> Counts:
    """Fit and transform in this process; return how many units there are and how many were reused."""
    recipe = dms.Recipe(**flights.recipe)
    recipe.fit_transform(flights.url, out=str(out), where=flights.where, tables=flights.tables)
    row = dms.last_run()
    return {} if row is None else {"units": row.units, "reused": row.reused}


def same(found: np.ndarray, expected: np.ndarray) -> None:
    """Refuse to compare the seconds of different results."""
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-4)


def _stat(folder: Path) -> float:
    paths = [path for path in folder.rglob("*") if path.is_file()]
    return least(lambda: [os.stat(path) for path in paths])
