"""What does prediction over everything cost? Two workers against bare processes, dask-ml and Ray Data.

Bare processes read, predict and write the same chunks without a ledger, fingerprints or quarantine: the
least that two processes can do. dask-ml puts the model into the graph. Ray Data runs an actor pool in an
environment of its own, whose interpreter ``BENCH_RAY`` names; more logical CPUs than actors, else it hangs.
Peers that are not installed are left out. The last works have no peer: they compare with ourselves, or with
the least work that an answer needs.
"""

from __future__ import annotations

import multiprocessing
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LinearRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import daskml_scale as dms
from daskml_scale.engine.worker import CACHE

from . import inference_bare as bare
from .common import SLOTS, Bench, Counts, Row, Runner, Work, costed, elsewhere, installed, least
from .inference_models import WIDTH, CountedBoosting, CountedForest, Prepared, matrix, prepared

RAY = "BENCH_RAY"
"""Environment variable: an interpreter that has ray[data], zarr and scikit-learn."""


@dataclass(frozen=True)
class Size:
    """Rows and chunks of each work; ``wide``: rows and variables, of which the model uses 8."""

    boosted: tuple[int, int, int]
    forest: tuple[int, int, int]
    linear: tuple[int, int]
    wide: tuple[int, int]
    units: int


SIZES = {
    "toy": Size((2_000, 4, 5), (640, 16, 3), (4_000, 4), (2_000, 40), 40),
    "small": Size((200_000, 20, 40), (51_200, 512, 100), (400_000, 20), (50_000, 200), 5_000),
    "full": Size((2_000_000, 100, 100), (51_200, 512, 300), (4_000_000, 80), (1_000_000, 200), 100_000),
}


def measure(bench: Bench) -> list[Row]:
    """Return the rows of this question."""
    wanted = SIZES[bench.size]
    pool = bench.stack.enter_context(multiprocessing.get_context("forkserver").Pool(SLOTS))
    works = []
    for name, made in _works(bench, pool, wanted).items():
        if bench.wants(name):
            works.append(costed(made(name)))
            bench.warm(works[-1])
    return bench.compare(works)


def _works(bench: Bench, pool: Any, wanted: Size) -> dict[str, Callable[[str], Work]]:
    """Return what makes each work, by its name; only what is wanted is written to the disk."""
    rows, chunks, linear = *wanted.boosted[:2], wanted.linear[0]
    return {
        f"boosting, {rows:,} x {WIDTH}": lambda name: _boosted(bench, pool, name, *wanted.boosted),
        f"forest, {wanted.forest[1]} small chunks": lambda name: _forest(bench, pool, name, *wanted.forest),
        f"linear, {linear:,} x {WIDTH}": lambda name: _linear(bench, pool, name, *wanted.linear),
        f"0.1 % bad rows of {rows // 4:,}, boosting": lambda name: _spoilt(
            bench, name, _scaled(wanted.boosted[2]), rows // 4, chunks // 4
        ),
        f"0.1 % bad rows of {linear:,}, linear": lambda name: _spoilt(bench, name, LinearRegression(), *wanted.linear),
        f"8 of {wanted.wide[1]} variables": lambda name: _wide(bench.folder, name, *wanted.wide),
        f"{wanted.units:,} units, nothing changed": lambda name: _idle(bench, name, wanted.units),
    }


def _boosted(bench: Bench, pool: Any, name: str, rows: int, chunks: int, trees: int) -> Work:
    model = CountedBoosting(max_iter=trees, early_stopping=False)
    return _models(bench, prepared(bench.folder, "boosted", model, rows, chunks), pool, name)


def _forest(bench: Bench, pool: Any, name: str, rows: int, chunks: int, trees: int) -> Work:
    model = CountedForest(trees, max_depth=6, n_jobs=1, random_state=0)
    return _models(bench, prepared(bench.folder, "forest", model, rows, chunks), pool, name)


def _scaled(trees: int) -> Any:
    """Return boosting behind a scaler, which refuses infinite numbers; boosting alone takes them."""
    return make_pipeline(StandardScaler(), HistGradientBoostingClassifier(max_iter=trees, early_stopping=False))


def _models(bench: Bench, ready: Prepared, pool: Any, name: str) -> Work:
    """Return the work of a classifier on a stored matrix."""
    peers: dict[str, Runner] = {"two bare processes": lambda into: _bare(pool, ready, into, "predict_proba")}
    if installed("dask_ml"):
        peers["dask-ml ParallelPostFit"] = lambda into: _dask_ml(bench.client, ready, into)
    if os.environ.get(RAY):
        peers["Ray Data, actor pool"] = lambda into: _ray(ready, into)
    one = np.zeros((ready.chunk, WIDTH), dtype="float32")
    limit = least(lambda: ready.model.predict_proba(one)) * (ready.rows / ready.chunk) / SLOTS
    return Work(
        name, lambda into: _ours(bench.own, ready, into, "predict_proba"), peers, limit, "the model alone, two cores"
    )


def _linear(bench: Bench, pool: Any, name: str, rows: int, chunks: int) -> Work:
    ready = prepared(bench.folder, "linear", LinearRegression(), rows, chunks)
    return Work(
        name,
        lambda into: _ours(bench.own, ready, into, "predict"),
        {
            "identity copy": lambda into: _bare(pool, ready, into, "copy"),
            "two bare processes": lambda into: _bare(pool, ready, into, "predict"),
            "the same, without a model": lambda into: _bare(pool, ready, into, "first"),
        },
        rows * WIDTH * 4 / 10e9,
        "reading the matrix at 10 GB/s",
    )


def _spoilt(bench: Bench, name: str, model: Any, rows: int, chunks: int) -> Work:
    kind, method = type(model).__name__, "predict" if isinstance(model, LinearRegression) else "predict_proba"
    clean = prepared(bench.folder, f"clean {kind}", model, rows, chunks)
    spoilt = prepared(bench.folder, f"spoilt {kind}", model, rows, chunks, spoil=0.001)
    bad = -(-rows // 1_000)

    def ours(into: Path) -> Counts:
        counts = _ours(bench.own, spoilt, into, method, max_bad=bad)
        row = dms.last_run()
        assert row is not None
        assert row.bad_rows == bad, row.bad_rows
        return {**counts, "bad rows": row.bad_rows}

    return Work(
        name,
        ours,
        {"ours without bad rows": lambda into: _ours(bench.own, clean, into, method)},
        rows * WIDTH * 4 / 10e9,
        "reading the matrix at 10 GB/s",
    )


def _wide(folder: Path, name: str, rows: int, variables: int) -> Work:
    """A model of 8 variables on a dataset of many."""
    import xarray as xr

    rng = np.random.default_rng(0)
    names = [f"v{number:03d}" for number in range(variables)]
    url = str(folder / "wide.zarr")
    ds = xr.Dataset({name: (("row",), rng.normal(size=rows).astype("float32")) for name in names})
    ds.to_zarr(url, encoding={name: {"chunks": [rows // 5]} for name in names}, consolidated=False)
    X = np.stack([ds[name].values for name in names[:8]], axis=1)
    model = LinearRegression().fit(X, X[:, 0])
    bundle = dms.save_model(model, folder / "narrow", schema={"features": names[:8], "dtype": "float32"})
    stored = sum(path.stat().st_size for name in names[:8] for path in Path(url, name).rglob("*") if path.is_file())

    def read(into: Path) -> float:
        process = psutil.Process()
        before = process.io_counters().read_chars
        dms.predict(bundle, url, into / "p.zarr")
        return float(process.io_counters().read_chars - before) / stored

    def ours(into: Path) -> Counts:
        began = time.perf_counter()
        first = read(into)  # data that no ledger knows is hashed once, to see later what changed
        seconds = time.perf_counter() - began
        shutil.rmtree(into / "p.zarr")
        return {"seconds": seconds, "bytes read / bytes of the 8, at first": first, "when known": read(into)}

    def by_hand(into: Path) -> None:
        some = xr.open_zarr(url, consolidated=False)[names[:8]]
        X = np.stack([some[name].values for name in names[:8]], axis=1)
        found = xr.Dataset({"prediction": (("row",), model.predict(X).astype("float32"))})
        found.to_zarr(into / "p.zarr", consolidated=False)

    return Work(name, ours, {"xarray, all in memory": by_hand}, stored / 10e9, "the 8 at 10 GB/s")


def _idle(bench: Bench, name: str, units: int) -> Work:
    """Many units of which none must run."""
    folder = bench.folder
    X = np.random.default_rng(0).normal(size=(units, 2)).astype("float32")
    url, out = str(folder / "many.zarr"), folder / "many" / "p.zarr"
    matrix(url, X, 1)
    schema = {"features": ["x0", "x1"], "dtype": "float32"}
    bundle = dms.save_model(LinearRegression().fit(X[:100], X[:100, 0]), folder / "two", schema=schema)
    dms.predict(bundle, url, out, client=bench.own)

    def ours(into: Path) -> Counts:
        dms.predict(bundle, url, out)
        row = dms.last_run()
        assert row is not None
        return {"units": row.units, "ran": row.units - row.reused}

    def exist(into: Path) -> None:
        for number in range(units):
            os.stat(out / "prediction" / "c" / str(number))

    limit = least(lambda: exist(folder), 1)
    return Work(name, ours, {"does each object exist": exist}, limit, "one stat per unit")


def _ours(client: Any, ready: Prepared, into: Path, method: str, max_bad: int = 0) -> Counts:
    client.run(_forget)  # every round loads its model, as a new job does
    dms.predict(ready.bundle, ready.url, into / "p.zarr", method=method, max_bad=max_bad, client=client)
    return ready.loaded()


def _forget() -> None:
    CACHE.clear()


def _bare(pool: Any, ready: Prepared, into: Path, method: str) -> Counts:
    out = str(into / "p.zarr")
    bare.create(out, ready.rows, ready.chunk, method)
    starts = range(0, ready.rows, ready.chunk)
    parts = [(ready.url, out, ready.pickle, method, ready.chunk, list(starts[half::SLOTS])) for half in range(SLOTS)]
    pool.map(bare.work, parts, chunksize=1)
    return ready.loaded()


def _dask_ml(client: Any, ready: Prepared, into: Path) -> Counts:
    import dask.array as da
    from dask_ml.wrappers import ParallelPostFit

    X = da.from_zarr(f"{ready.url}/features")
    with client.as_current():
        found = ParallelPostFit(ready.model).predict_proba(X).astype("float32")
        found.to_zarr(str(into / "p.zarr" / "probability"))
    return ready.loaded()


def _ray(ready: Prepared, into: Path) -> Counts:
    out = into / "p.zarr"
    bare.create(str(out), ready.rows, ready.chunk, "predict_proba")
    model = Path(ready.pickle).with_name("plain.pkl")
    found = elsewhere(os.environ[RAY], "inference_ray.py", ready.url, out, model, ready.rows, ready.chunk, SLOTS)
    return {**found, **ready.loaded()}
