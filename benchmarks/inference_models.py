"""What `inference` predicts: made-up matrices in stores, and models that count how often they are loaded."""

from __future__ import annotations

import copy
import os
import pickle
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LinearRegression

import daskml_scale as dms
from daskml_scale.artifacts.bundle import Bundle
from daskml_scale.plan.units import Template, Variable
from daskml_scale.storage import stores

from .common import Counts

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


def matrix(url: str, X: np.ndarray, chunk: int) -> None:
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


def prepared(folder: Path, name: str, model: Any, rows: int, chunks: int, spoil: float = 0.0) -> Prepared:
    """Fit a model and write it and a matrix; ``spoil`` is the share of rows that it refuses."""
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
    matrix(str(own / "m.zarr"), X, chunk)
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
