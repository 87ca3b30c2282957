"""What does prediction over everything cost? Two workers against bare processes, dask-ml and Ray Data.

Bare processes read, predict and write the same chunks without a ledger, fingerprints or quarantine: the
least that two processes can do. dask-ml puts the model into the graph. Ray Data runs an actor pool in an
environment of its own, whose interpreter ``BENCH_RAY`` names; more logical CPUs than actors, else it hangs.
Peers that are not installed are left out. The last works have no peer: they compare with ourselves, or with
the least work that an answer needs.
"""

from __future__ import annotations

import copy
import importlib.util
import multiprocessing
import os
import pickle
import shutil
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from sklearn.base import BaseEstimator
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LinearRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import daskml_scale as dms
from daskml_scale.artifacts.bundle import Bundle
from daskml_scale.engine.worker import CACHE
from daskml_scale.plan.units import Template, Variable
from daskml_scale.storage import stores

from . import inference_bare as bare
from .common import SLOTS, Bench, Counts, Row, Runner, Work, least

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
WIDTH = 32


class _Counted(BaseEstimator):  # type: ignore[misc]
    """Leaves a file ``<process>-<any>`` in ``loads_`` each time that it is loaded, from a bundle or a pickle."""

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        if folder := getattr(self, "loads_", ""):
            Path(folder, f"{os.getpid()}-{uuid.uuid4().hex}").touch()


class CountedBoosting(_Counted, HistGradientBoostingClassifier):  # type: ignore[misc]
    """See `_Counted`."""


class CountedForest(_Counted, RandomForestClassifier):  # type: ignore[misc]
    """See `_Counted`."""


@dataclass(frozen=True)
class Prepared:
    """A matrix in a store, a model as a bundle and as a pickle, and where loads are counted."""

    url: str
    chunk: int
    rows: int
    model: Any
    bundle: Bundle
    pickle: str
    loads: Path

    def loaded(self) -> Counts:
        """Return how often each of the other processes loaded the model since the last call, at most."""
        names = [path.name for path in self.loads.iterdir()]
        for name in names:
            (self.loads / name).unlink()
        each: dict[str, int] = {}
        for process in (name.partition("-")[0] for name in names):
            each[process] = each.get(process, 0) + (process != str(os.getpid()))
        return {"model loads": sum(each.values()), "loads a process": max(each.values(), default=0)}


def measure(bench: Bench) -> list[Row]:
    """Return the rows of this question."""
    wanted = SIZES[bench.size]
    pool = bench.stack.enter_context(multiprocessing.get_context("forkserver").Pool(SLOTS))
    works = []
    for name, made in _works(bench, pool, wanted).items():
        if bench.wants(name):
            works.append(work := _with_cpu(made(name)))
            for runner in (work.ours, *work.peers.values()):  # imports and caches of every runner
                runner(_empty(bench.folder))
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
    return _models(bench, _prepared(bench.folder, "boosted", model, rows, chunks), pool, name)


def _forest(bench: Bench, pool: Any, name: str, rows: int, chunks: int, trees: int) -> Work:
    model = CountedForest(trees, max_depth=6, n_jobs=1, random_state=0)
    return _models(bench, _prepared(bench.folder, "forest", model, rows, chunks), pool, name)


def _scaled(trees: int) -> Any:
    """Return boosting behind a scaler, which refuses infinite numbers; boosting alone takes them."""
    return make_pipeline(StandardScaler(), HistGradientBoostingClassifier(max_iter=trees, early_stopping=False))


def _with_cpu(work: Work) -> Work:
    """Return the work with CPU seconds of all processes as a count: on a busy machine they say more than the clock."""

    def counted(runner: Runner) -> Runner:
        def run(into: Path) -> Counts:
            before = _cpu()
            found = dict(runner(into) or {})
            return {"CPU s": _cpu() - before, **found}

        return run

    peers = {name: counted(runner) for name, runner in work.peers.items()}
    return replace(work, ours=counted(work.ours), peers=peers)


def _cpu() -> float:
    """Return the CPU seconds so far of this process and all below it."""
    total, process = 0.0, psutil.Process()
    for one in (process, *process.children(recursive=True)):
        with suppress(psutil.Error):
            total += sum(one.cpu_times()[:2])
    return total


def _empty(folder: Path) -> Path:
    path = folder / f"check-{uuid.uuid4().hex}"
    path.mkdir()
    return path


def _matrix(url: str, X: np.ndarray, chunk: int) -> None:
    """Write a feature matrix; the engine's own layout, which every runner reads."""
    rows, width = X.shape
    variables = {
        "features": Variable("float32", ("row", "feature"), (rows, width), (chunk, width)),
        "feature": Variable("string", ("feature",), (width,), (width,)),
    }
    names = [f"x{number}" for number in range(width)]
    stores.create(url, Template("row", rows, variables, {"row_key": []}, {"feature": names}))
    some = chunk * max(1, 4096 // chunk)
    for start in range(0, rows, some):
        stores.write_region(url, start, {"features": X[start : start + some]})


def _prepared(folder: Path, name: str, model: Any, rows: int, chunks: int, spoil: float = 0.0) -> Prepared:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(rows, WIDTH)).astype("float32")
    some = X[: min(rows, 20_000)]
    y = some[:, 0] + some[:, 1] * some[:, 2]
    model.fit(some, y if isinstance(model, LinearRegression) else y > 0)
    if spoil:
        X[:: round(1 / spoil), 0] = np.inf
    own, chunk = folder / name, rows // chunks
    loads = own / "loads"
    loads.mkdir(parents=True)
    _matrix(str(own / "m.zarr"), X, chunk)
    if isinstance(model, _Counted):
        model.loads_ = str(loads)
    schema = {"features": [f"x{number}" for number in range(WIDTH)], "dtype": "float32"}
    bundle = dms.save_model(model, own / "bundle", schema=schema)
    (own / "model.pkl").write_bytes(pickle.dumps(model))
    (own / "plain.pkl").write_bytes(pickle.dumps(_plain(model)))
    return Prepared(str(own / "m.zarr"), chunk, rows, model, bundle, str(own / "model.pkl"), loads)


def _plain(model: Any) -> Any:
    """Return the same model as an estimator of scikit-learn itself, for environments without this package."""
    other = copy.copy(model)
    if isinstance(model, _Counted):
        other.__class__ = type(model).__mro__[2]
        del other.loads_
    return other


def _models(bench: Bench, ready: Prepared, pool: Any, name: str) -> Work:
    """Return the work of a classifier on a stored matrix."""
    peers: dict[str, Runner] = {"two bare processes": lambda into: _bare(pool, ready, into, "predict_proba")}
    if importlib.util.find_spec("dask_ml") is not None:
        peers["dask-ml ParallelPostFit"] = lambda into: _dask_ml(bench.client, ready, into)
    if os.environ.get(RAY):
        peers["Ray Data, actor pool"] = lambda into: _ray(ready, into)
    one = np.zeros((ready.chunk, WIDTH), dtype="float32")
    limit = least(lambda: ready.model.predict_proba(one)) * (ready.rows / ready.chunk) / SLOTS
    return Work(
        name, lambda into: _ours(bench.own, ready, into, "predict_proba"), peers, limit, "the model alone, two cores"
    )


def _linear(bench: Bench, pool: Any, name: str, rows: int, chunks: int) -> Work:
    ready = _prepared(bench.folder, "linear", LinearRegression(), rows, chunks)
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
    clean = _prepared(bench.folder, f"clean {kind}", model, rows, chunks)
    spoilt = _prepared(bench.folder, f"spoilt {kind}", model, rows, chunks, spoil=0.001)
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
    _matrix(url, X, 1)
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
    import json
    import subprocess

    out = str(into / "p.zarr")
    bare.create(out, ready.rows, ready.chunk, "predict_proba")
    words = [
        ready.url,
        out,
        str(Path(ready.pickle).with_name("plain.pkl")),
        str(ready.rows),
        str(ready.chunk),
        str(SLOTS),
    ]
    script = Path(__file__).with_name("inference_ray.py")
    done = subprocess.run([os.environ[RAY], str(script), *words], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"Ray failed: {done.stderr[-2000:]}")
    found: Counts = json.loads(done.stdout.splitlines()[-1])
    return {**found, **ready.loaded()}
