"""Data and estimators that the tests of this folder share. No pytest here: workers import it too."""

from __future__ import annotations

import os
import uuid
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin

import daskml_scale as dms
from daskml_scale.artifacts.bundle import save_model
from daskml_scale.plan.units import Plan, Template, Variable
from daskml_scale.spec.expressions import Coded
from daskml_scale.stages.features.program import Program, parse_steps
from daskml_scale.stages.features.stage import FeaturesStage
from daskml_scale.stages.inputs import checked_records, gather
from daskml_scale.stages.predict import PredictStage
from daskml_scale.stages.train import TrainStage
from daskml_scale.storage import stores, tables
from daskml_scale.storage.ledger import Ledger

NAMES = ("a", "b", "c", "d")


def matrix(rows: int = 300, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return X of shape (rows, 4) with missing values in column 1, and y of 0.0 and 1.0."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(rows, len(NAMES))).astype("float32")
    y = (X[:, 0] + 0.5 * rng.normal(size=rows) > 0).astype("float64")
    X[::7, 1] = np.nan
    return X, y


class Fragile(ClassifierMixin, BaseEstimator):
    """Gives column 0 as the probability of class 1; refuses a batch in which it exceeds ``limit``."""

    def __init__(self, limit: float = 2.0) -> None:
        self.limit = limit

    def fit(self, X: Any, y: Any) -> Fragile:
        self.classes_ = np.unique(y)
        self.n_features_in_ = np.shape(X)[1]
        return self

    def predict_proba(self, X: np.ndarray) -> np.ndarray:
        first = np.asarray(X)[:, 0].astype("float64")
        if np.any(first > self.limit):
            raise ValueError(f"value {first.max():.3f} above the limit {self.limit}")
        return np.stack([1 - first, first], axis=1)

    def predict(self, X: np.ndarray) -> np.ndarray:
        return self.classes_[(self.predict_proba(X)[:, 1] > 0.5).astype(int)]


def write_matrix(url: str, X: np.ndarray, y: np.ndarray, names: tuple[str, ...] = NAMES, chunk: int = 100) -> None:
    """Write a feature matrix as the ``features`` stage does; row key ``when``: one row per hour from 2013-01-01."""
    rows, width = X.shape
    times = np.datetime64("2013-01-01", "ns") + np.arange(rows) * np.timedelta64(1, "h")
    kind = tables.column_type(times)
    variables = {
        "features": Variable("float32", ("row", "feature"), (rows, width), (chunk, width)),
        "feature": Variable("string", ("feature",), (width,), (width,)),
        "late": Variable("float64", ("row",), (rows,), (chunk,)),
        "when": kind.variable("row", rows, chunk),
    }
    attrs = {"target": "late", "row_key": ["when"], "recipe": {"steps": []}, "recipe_hash": "r1"}
    stores.create(url, Template("row", rows, variables, attrs, small={"feature": list(names)}))
    values = {"features": X, "late": y, "when": tables.encode(times, kind)}
    for start in range(0, rows, chunk):
        stores.write_region(url, start, {name: array[start : start + chunk] for name, array in values.items()})


def write_table(url: str, columns: dict[str, Any], row_key: list[str], chunk: int = 100) -> None:
    """Write a raw table as ``ingest`` does."""
    rows = len(next(iter(columns.values())))
    kinds = {name: tables.column_type(values) for name, values in columns.items()}
    variables = {name: kind.variable("row", rows, chunk) for name, kind in kinds.items()}
    stores.create(url, Template("row", rows, variables, {"row_key": row_key, "derived_from": {}}))
    size = variables[row_key[0]].chunks[0]
    for start in range(0, rows, size):
        part = {name: tables.encode(values[start : start + size], kinds[name]) for name, values in columns.items()}
        stores.write_region(url, start, part)


def trips(rows: int = 400) -> dict[str, Any]:
    """Return a table of departures, sorted by ``sched``; ``late`` is missing for some, ``departed`` too."""
    rng = np.random.default_rng(3)
    sched = np.datetime64("2013-01-01", "ns") + np.arange(rows) * np.timedelta64(30, "m")
    delay = np.round(rng.normal(5, 20, rows), 1)
    distance = rng.uniform(100, 3000, rows).round()
    late = (delay + distance / 300 + rng.normal(0, 5, rows) > 15).astype("float64")
    cancelled = np.arange(rows) % 37 == 5
    delay[cancelled], late[cancelled] = np.nan, np.nan
    minutes = np.where(cancelled, 0, delay * 60e9).astype("int64").astype("timedelta64[ns]")
    departed = np.where(cancelled, np.datetime64("NaT", "ns"), sched + minutes)
    origin = Coded(rng.integers(0, 3, rows).astype("int32"), ("EWR", "JFK", "LGA"))
    return {"sched": sched, "origin": origin, "delay": delay, "departed": departed, "distance": distance, "late": late}


def weather(hours: int = 200) -> dict[str, Any]:
    """Return a table of hourly readings at each origin."""
    rng = np.random.default_rng(4)
    time = np.repeat(np.datetime64("2013-01-01", "ns") + np.arange(hours) * np.timedelta64(1, "h"), 3)
    origin = Coded(np.tile(np.arange(3, dtype="int32"), hours), ("EWR", "JFK", "LGA"))
    return {"time": time, "origin": origin, "temp": rng.normal(10, 5, 3 * hours)}


STEPS: list[dict[str, Any]] = [
    {"date_parts": {"of": "sched", "parts": ["hour", "dayofweek"]}},
    {"ordinal": {"of": ["origin"]}},
    {"as_of": {"table": "weather", "match": ["origin"], "their_time": "time", "take": ["temp"], "tolerance": "3h"}},
    {"trailing": {"of": "delay", "at": "departed", "match": ["origin"], "windows": ["3h", "12h"]}},
    {"keep": {"of": ["distance"]}},
]
KNOWN_AT = "sched - hours(2)"


def write_inputs(root: Path, rows: int = 400, chunk: int = 100) -> None:
    """Write ``trips.zarr`` and ``weather.zarr``."""
    write_table(f"{root}/trips.zarr", trips(rows), ["sched", "origin"], chunk)
    write_table(f"{root}/weather.zarr", weather(rows // 2), ["time"], 10_000)


def features_stage(root: Path) -> FeaturesStage:
    """Return the stage that writes ``features.zarr``, fitted on all rows."""
    return FeaturesStage(
        "features", f"{root}/features.ledger", f"{root}/trips.zarr",
        Program(parse_steps(STEPS), KNOWN_AT, "late"), {"weather": f"{root}/weather.zarr"},
    )  # fmt: skip


class Logging(Fragile):
    """Leaves a file ``<pid>-<n>`` in ``folder`` each time that it is loaded from a bundle."""

    def __init__(self, limit: float = 2.0, folder: str = "") -> None:
        super().__init__(limit)
        self.folder = folder

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        Path(self.folder, f"{os.getpid()}-{uuid.uuid4().hex}").touch()


class InPlace(ClassifierMixin, BaseEstimator):
    """Destroys what it is given, once it has taken what it needs of it."""

    def __init__(self, tag: int = 0) -> None:
        self.tag = tag

    def fit(self, X: np.ndarray, y: np.ndarray) -> InPlace:
        self.classes_, self.n_features_in_ = np.unique(y), X.shape[1]
        self.cut_ = float(np.median(X[y == 1, 0]))
        X[:], y[:] = -9, -9
        return self

    def predict(self, X: np.ndarray) -> np.ndarray:
        found = (X[:, 0] > self.cut_).astype("float64")
        X[:] = -9
        return found


HIST = {"sklearn.ensemble.HistGradientBoostingClassifier": {"max_iter": 8, "early_stopping": False}}
KEEP = Program(dms.Recipe([{"keep": {"of": ["score"]}}], known_at="when").steps, "when").fitted({}).to_dict()
"""A recipe of one feature, so that a table can hold what the model refuses."""


def train(root: Path, **fields: Any) -> TrainStage:
    return TrainStage(
        "model", f"{root}/model.ledger", f"{root}/features.zarr", f"{root}/models/m", **{"estimator": HIST, **fields}
    )


def stage_of(root: Path, **fields: Any) -> PredictStage:
    defaults = {
        "name": "p",
        "ledger": f"{root}/p.ledger",
        "input": f"{root}/trips.zarr",
        "bundle": f"{root}/models/m",
        "tables": {"weather": f"{root}/weather.zarr"},
        "method": "predict_proba",
    }
    return PredictStage(**{**defaults, **fields})


def plan_of(stage: PredictStage) -> Plan:
    return stage.plan(gather(stage.reads(), stage.ledger), checked_records(Ledger(stage.ledger)))


def opened(stage: PredictStage) -> Any:
    return stores.open_dataset(stage.out).load()


def identities(stage: PredictStage) -> list[tuple[str, str, str, str]]:
    return sorted(record.identity() for record in Ledger(stage.ledger).records().values())


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def fragile(
    tmp_path: Path, bad: dict[int, float], *, rows: int = 300, model: Any = None, **fields: Any
) -> PredictStage:
    """A stage on a table of scores, with a model that refuses scores above 2."""
    score = np.linspace(0, 1, rows)
    for row, value in bad.items():
        score[row] = value
    when = np.datetime64("2013-01-01", "ns") + np.arange(rows) * np.timedelta64(1, "h")
    write_table(f"{tmp_path}/trips.zarr", {"when": when, "score": score}, ["when"])
    estimator = (model or Fragile()).fit(np.zeros((2, 1)), [0.0, 1.0])
    name = f"model_helpers.{type(estimator).__name__}"
    folder = getattr(estimator, "folder", "")
    save_model(estimator, tmp_path / "models" / "m", recipe=KEEP, schema={"features": ["score"], "dtype": "float64"})
    for noted in Path(folder).iterdir() if folder else ():
        noted.unlink()  # saving loads once, to prove that it can be loaded
    return stage_of(tmp_path, tables={}, trusted=(name,), **fields)


class BatchMean:
    """A user's model: weights in a folder, one number per row; remembers the sizes of its batches."""

    n_features_in_ = 4

    def __init__(self, weights: np.ndarray) -> None:
        self.weights, self.batches = weights, list[int]()

    @classmethod
    def load(cls, folder: str) -> BatchMean:
        path = Path(folder)
        return cls(np.load(path / "w.npy" if path.is_dir() else path))

    def predict_batch(self, X: np.ndarray) -> np.ndarray:
        self.batches.append(len(X))
        return X.astype("float64") @ self.weights


class Tiny(BatchMean):
    """The same, for a test that moves it elsewhere."""


class Blur:
    """A model of patches with a halo of one cell: the mean over 3 x 3 cells of the sum of its variables."""

    @classmethod
    def load(cls, path: str) -> Blur:
        return cls()

    def predict_batch(self, X: np.ndarray) -> np.ndarray:
        total = X.sum(axis=1)
        height, width = total.shape[1] - 2, total.shape[2] - 2
        return np.mean([total[:, a : a + height, b : b + width] for a in range(3) for b in range(3)], axis=0)


class Mended(Fragile):
    """Refuses what exceeds the number in a file, which may be mended without anybody's knowing."""

    def __init__(self, file: str = "") -> None:
        self.file = file

    @property
    def limit(self) -> float:
        return float(Path(self.file).read_text())
