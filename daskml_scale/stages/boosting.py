"""Gradient boosting on more rows than a worker holds: XGBoost's own Dask interface, with checkpoints.

The unit that trains asks the cluster that it runs on; every worker reads shards and keeps its rows, and the
unit itself holds none. Without a cluster the shards are read one by one into XGBoost's quantised form, a byte
per value. After every few rounds the trees so far are written beside the ledger, so a killed run goes on
from there. Rounds are trained in the same portions with or without an interruption, each from a seed of its
own: an interrupted run ends with the model of an uninterrupted one, on the same number of workers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np

from daskml_scale.artifacts.kinds import library
from daskml_scale.errors import PlanError, SpecError, UsageError
from daskml_scale.storage import files

from .incremental import ranges
from .matrix import columns_of, read_part

PREFIX = "checkpoint"


def check(path: str) -> None:
    """Refuse an estimator that is not XGBoost's.

    Raises
    ------
    SpecError
    """
    if not path.startswith("xgboost.") or path.rpartition(".")[2] not in ("XGBClassifier", "XGBRegressor"):
        raise SpecError(
            f"{path} cannot be trained by several workers; leave distributed away, or use xgboost.XGBClassifier or "
            "xgboost.XGBRegressor"
        )


def fit(
    estimator: Any, url: str, where: str | None, *, every: int, seed: int, folder: str, fingerprint: str, threads: int
) -> tuple[int, tuple[str, ...]]:
    """Fit a wrapper of XGBoost in portions of rounds.

    Parameters
    ----------
    estimator : XGBClassifier or XGBRegressor
        Unfitted; gets the trees.
    every : int
        Rounds between two checkpoints.
    seed : int
    folder : str
        URL where checkpoints are kept; those of other fingerprints are removed.
    fingerprint : str
        Of data and parameters.
    threads : int
        Of this process, where there is no cluster.

    Returns
    -------
    rows : int
    columns : tuple of str
    """
    counts, classes = _look(url, where)
    params, rounds = _params(estimator, classes), int(estimator.n_estimators or 100)
    done, booster = _found(folder, fingerprint)
    with _trainer(url, where, counts, params, threads) as train:
        while done < rounds:
            portion = min(every, rounds - done)
            booster = train({**params, "seed": seed + done}, portion, booster)
            done += portion
            _keep(folder, fingerprint, done, booster)
    booster.feature_names = None
    estimator._Booster = booster
    if hasattr(estimator, "predict_proba"):
        estimator.n_classes_ = len(classes)
    return sum(counts), columns_of(url)


def forget(folder: str) -> None:
    """Remove the checkpoints of a training that is done."""
    for name in files.names(folder):
        if name.startswith(f"{PREFIX}-"):
            files.remove(files.join(folder, name))


def _look(url: str, where: str | None) -> tuple[list[int], np.ndarray]:
    """Return the wanted rows of every shard, and the values of the target (of a classifier few)."""
    counts, found = [], np.empty(0)
    for start, stop in ranges(url):
        y = read_part(url, where, start, stop, features=False)[1]
        counts.append(len(y))
        if len(found) <= 10_000:
            found = np.union1d(found, y)
    if not sum(counts):
        raise PlanError(f"{url}: no row{f' where: {where}' if where else ''} has a value of the target")
    return counts, found


def _params(estimator: Any, classes: np.ndarray) -> dict[str, Any]:
    """Return the parameters of a booster."""
    params = {name: value for name, value in estimator.get_xgb_params().items() if value is not None}
    for given_apart in ("n_jobs", "random_state"):
        params.pop(given_apart, None)
    if not hasattr(estimator, "predict_proba"):
        return params
    if not np.array_equal(classes, np.arange(len(classes))):
        raise UsageError(f"XGBClassifier takes classes 0, 1, ..., the target has {classes[:5].tolist()}")
    if len(classes) > 2:
        return {**params, "objective": "multi:softprob", "num_class": len(classes)}
    return {**params, "objective": params.get("objective", "binary:logistic")}


@contextmanager
def _trainer(
    url: str, where: str | None, counts: list[int], params: Mapping[str, Any], threads: int
) -> Iterator[Callable[[Mapping[str, Any], int, Any], Any]]:
    """Give a function (params, rounds, booster) -> booster that trains on the cluster of this task, else here."""
    xgboost = library("xgboost")
    if not _on_worker():
        quantised = xgboost.QuantileDMatrix(_shards(xgboost, url, where), max_bin=int(params.get("max_bin", 256)))
        yield lambda now, rounds, booster: xgboost.train(
            {**now, "nthread": threads}, quantised, rounds, xgb_model=booster
        )
        return
    from distributed import worker_client
    from xgboost import dask as on_dask

    with worker_client() as client:
        X, y = _arrays(url, where, counts)
        data = on_dask.DaskQuantileDMatrix(client, X, y, max_bin=int(params.get("max_bin", 256)))
        yield lambda now, rounds, booster: on_dask.train(client, now, data, rounds, xgb_model=booster)["booster"]


def _on_worker() -> bool:
    from distributed import get_worker

    try:
        get_worker()
    except ValueError:
        return False
    return True


def _arrays(url: str, where: str | None, counts: list[int]) -> tuple[Any, Any]:
    """Return the wanted rows as Dask arrays, a block per shard."""
    import dask
    import dask.array as da

    width = len(columns_of(url))
    kind = read_part(url, where, 0, 1)[0].dtype
    parts = [
        (dask.delayed(read_part)(url, where, start, stop), count)
        for (start, stop), count in zip(ranges(url), counts, strict=True)
        if count
    ]
    X = [da.from_delayed(part[0], (count, width), dtype=kind) for part, count in parts]
    y = [da.from_delayed(part[1], (count,), dtype="float64") for part, count in parts]
    return da.concatenate(X), da.concatenate(y)


def _shards(xgboost: Any, url: str, where: str | None) -> Any:
    """Return what feeds XGBoost shard by shard."""

    class Shards(xgboost.DataIter):  # type: ignore[misc]
        def __init__(self) -> None:
            self.left = iter(ranges(url))
            super().__init__()

        def next(self, input_data: Callable[..., Any]) -> bool:
            for start, stop in self.left:
                X, y = read_part(url, where, start, stop)
                if len(y):
                    input_data(data=X, label=y)
                    return True
            return False

        def reset(self) -> None:
            self.left = iter(ranges(url))

    return Shards()


def _found(folder: str, fingerprint: str) -> tuple[int, Any]:
    """Return the rounds of the last checkpoint of this training, and its booster; 0 and None without one."""
    best: tuple[int, str] | None = None
    for name in files.names(folder):
        head, _, rest = name.removesuffix(".ubj").partition("-")
        if head == PREFIX and rest.startswith(f"{fingerprint[:16]}-"):
            best = max(best or (0, ""), (int(rest.rpartition("-")[2]), name))
    if best is None:
        return 0, None
    booster = library("xgboost").Booster()
    booster.load_model(bytearray(files.read_bytes(files.join(folder, best[1])) or b""))
    return best[0], booster


def _keep(folder: str, fingerprint: str, done: int, booster: Any) -> None:
    """Write a checkpoint, then remove the others."""
    name = f"{PREFIX}-{fingerprint[:16]}-{done}.ubj"
    files.write_bytes(files.join(folder, name), bytes(booster.save_raw("ubj")))
    for other in files.names(folder):
        if other.startswith(f"{PREFIX}-") and other != name:
            files.remove(files.join(folder, other))
