"""What does prediction of all flights cost? Two workers, from a stored matrix and from raw rows.

From the matrix, the peers are the loop that one writes with Dask (``map_blocks``, the estimator in the
graph, ``to_zarr``) and plain scikit-learn in one process, which uses all cores through OpenMP. From raw
rows, ours makes the features again from the bundle's recipe; the peer is pandas with all tables already
in memory, then scikit-learn. The limit is the model alone on a matrix in memory, on all cores. Counted:
how often a worker process loads the model.
"""

from __future__ import annotations

import os
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import daskml_scale as dms
from daskml_scale.artifacts.bundle import Bundle
from daskml_scale.engine.worker import CACHE

from .by_hand import matrix
from .common import Bench, Counts, Row, Work, least
from .features import transform
from .flights import ROWS, Flights, prepare
from .inference_models import CountedBoosting


@dataclass(frozen=True)
class Size:
    """Flights, trees of the model, and rows that it is trained on."""

    rows: int
    trees: int
    trained: int


SIZES = {"toy": Size(2_000, 5, 1_000), "small": Size(100_000, 60, 20_000), "full": Size(ROWS, 300, 200_000)}


@dataclass(frozen=True)
class Prepared:
    """What all runners start from: the flights, their stored matrix, and one model in three forms."""

    flights: Flights
    matrix: str
    model: CountedBoosting
    bare: Bundle
    whole: Bundle
    loads: Path

    def counted(self) -> Counts:
        """Return how often worker processes loaded the model since the last call."""
        found = list(self.loads.iterdir())
        for path in found:
            path.unlink()
        elsewhere = [path for path in found if not path.name.startswith(f"{os.getpid()}-")]
        return {"model loads": len(elsewhere)}


def measure(bench: Bench) -> list[Row]:
    """Return the rows of this question."""
    wanted, client = SIZES[bench.size], bench.client
    ready = _prepared(bench.folder, wanted)
    X = np.asarray(dms.open_dataset(ready.matrix).features)
    limit, limit_is = least(lambda: ready.model.predict_proba(X)), "the model on a matrix in memory, all cores"
    rows = f"{wanted.rows:,} rows"
    works = [
        Work(
            f"{rows} of a matrix",
            lambda into: _ours(ready, ready.bare, ready.matrix, into, client),
            {
                "dask map_blocks": lambda into: _blocks(ready, into, client),
                "sklearn, one process": lambda into: _plain(ready, into),
            },
            limit,
            limit_is,
        ),
        Work(
            f"{rows}, raw",
            lambda into: _ours(ready, ready.whole, ready.flights.url, into, client),
            {"pandas, sklearn": lambda into: _raw(ready, into)},
            limit,
            limit_is,
        ),
    ]
    _check(works, bench.folder)
    ready.counted()
    return bench.compare(works)


def _prepared(folder: Path, wanted: Size) -> Prepared:
    flights = prepare(folder, wanted.rows)
    stored = folder / "features" / "features.zarr"
    transform(flights, stored)  # reused when the benchmark of features wrote it
    ds = dms.open_dataset(str(stored))
    recipe = dms.Recipe.load(stored.with_name("features.recipe.json"))
    X, y = np.asarray(ds.features[: wanted.trained]), np.asarray(ds.late[: wanted.trained])
    known = ~np.isnan(y)
    model = CountedBoosting(max_iter=wanted.trees, early_stopping=False, random_state=0).fit(X[known], y[known])
    loads = folder / "loads"
    loads.mkdir()
    model.loads_ = str(loads)
    schema = {"features": list(recipe.get_feature_names_out()), "dtype": "float32", "target": "late"}
    bare = dms.save_model(model, folder / "bare", schema=schema)
    whole = dms.save_model(model, folder / "whole", schema=schema, recipe=recipe)
    return Prepared(flights, str(stored), model, bare, whole, loads)


def _ours(ready: Prepared, bundle: Bundle, data: str, into: Path, client: Any) -> Counts:
    client.run(_forget)  # every round loads its model, as a new job does
    out = str(into / "p.zarr")
    dms.predict(bundle, data, out, method="predict_proba", tables=ready.flights.tables, client=client)
    return ready.counted()


def _forget() -> None:
    CACHE.clear()


def _blocks(ready: Prepared, into: Path, client: Any) -> Counts:
    import dask.array as da

    X = da.from_zarr(f"{ready.matrix}/features")
    found = X.map_blocks(_block, ready.model, dtype="float32", chunks=(X.chunks[0], (2,)))
    with client.as_current():
        found.to_zarr(str(into / "p.zarr" / "probability"))
    return ready.counted()


def _block(X: np.ndarray, model: Any) -> np.ndarray:
    return np.asarray(model.predict_proba(X), dtype="float32")


def _plain(ready: Prepared, into: Path) -> None:
    import zarr

    _save(ready.model.predict_proba(zarr.open_array(f"{ready.matrix}/features", mode="r")[...]), into)


def _raw(ready: Prepared, into: Path) -> None:
    _save(ready.model.predict_proba(matrix(*ready.flights.frames)), into)


def _save(found: np.ndarray, into: Path) -> None:
    import zarr

    zarr.save_array(str(into / "p.zarr" / "probability"), found.astype("float32"))


def _check(works: list[Work], folder: Path) -> None:
    """Refuse to compare the seconds of different results; starts the workers' imports, too."""
    import zarr

    for work in works:
        found = {}
        for name, runner in {"ours": work.ours, **work.peers}.items():
            into = folder / f"check-{uuid.uuid4().hex}"
            into.mkdir()
            runner(into)
            found[name] = zarr.open_array(str(into / "p.zarr" / "probability"), mode="r")[...]
        for name in work.peers:
            differ = np.abs(found["ours"] - found[name]).max(axis=1) > 1e-4
            if differ.mean() > 1e-3:  # float32 features may fall on the other side of a split
                raise RuntimeError(f"{work.name}: {differ.sum()} of {len(differ)} rows differ from {name}")
