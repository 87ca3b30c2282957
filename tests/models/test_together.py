"""Small units of a forest are predicted in one call, and nobody can tell from what is written."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from model_helpers import NAMES, contents, identities, matrix, opened, write_matrix
from sklearn.ensemble import ExtraTreesRegressor, RandomForestClassifier
from sklearn.linear_model import LogisticRegression

from daskml_scale.artifacts.bundle import save_model
from daskml_scale.engine.overlap import Overlap
from daskml_scale.engine.worker import Cache, WorkerContext
from daskml_scale.plan.units import Unit
from daskml_scale.stages.predict import PredictStage
from daskml_scale.stages.predicting import asked_of
from daskml_scale.stages.run import run_stage
from daskml_scale.stages.scoring import Model
from daskml_scale.stages.together import ROWS, SECONDS, UNITS, made

X, Y = np.nan_to_num(matrix()[0]), matrix()[1]
SCHEMA = {"features": list(NAMES), "dtype": "float32"}


def asked(tmp_path: Path, estimator: Any, method: str = "predict_proba") -> Model:
    return asked_of(save_model(estimator.fit(X, Y), tmp_path / "m", schema=SCHEMA), method, None, "float32")


def units_of(rows: int, size: int) -> list[Unit]:
    return [Unit(f"rows/{start:08d}", (start, start + size), size) for start in range(0, rows, size)]


def values_of(
    model: Model, units: list[Unit], features: np.ndarray = X, clock: Callable[[], float] = float
) -> tuple[list[Any], list[int]]:
    """Return what is made for each unit of a task, and how many units wait for their kernel after each."""
    worker = WorkerContext(cache=Cache(), overlap=Overlap(lambda: units))
    found, waiting = [], []
    for unit in units:
        (X, key), value = made(unit, model, worker, lambda unit: (features[slice(*unit.payload)], unit.key), clock)
        assert key == unit.key
        assert np.array_equal(X, features[slice(*unit.payload)])
        found.append(value)
        waiting.append(len(worker.overlap.kept))  # type: ignore[union-attr]
    worker.overlap.close()  # type: ignore[union-attr]
    return found, waiting


@pytest.mark.parametrize("estimator", [RandomForestClassifier(7, random_state=0), ExtraTreesRegressor(7)])
def test_a_row_has_the_same_value_to_the_bit_whoever_is_beside_it(estimator: Any, tmp_path: Path) -> None:
    method = "predict_proba" if hasattr(estimator, "predict_proba") else "predict"
    model = asked(tmp_path, estimator, method)
    units = units_of(300, 20)
    found, waiting = values_of(model, units)
    assert waiting == list(range(14, -1, -1))
    for unit, value in zip(units, found, strict=True):
        assert np.array_equal(value, getattr(estimator, method)(X[slice(*unit.payload)]))


def test_no_call_has_more_rows_than_a_thousand_or_two(tmp_path: Path) -> None:
    model = asked(tmp_path, RandomForestClassifier(2))
    size, large = ROWS // 4, ROWS + 1
    features = np.zeros((2 * large + 5 * size, 4), "float32")
    _, waiting = values_of(model, units_of(5 * size, size), features)
    assert waiting == [3, 2, 1, 0, 0]
    found, waiting = values_of(model, units_of(2 * large, large), features)
    assert found == [None, None]
    assert waiting == [0, 0]


def test_no_call_has_more_units_than_can_be_read_soon(tmp_path: Path) -> None:
    model = asked(tmp_path, RandomForestClassifier(2))
    _, waiting = values_of(model, units_of(100, 1))
    assert max(waiting) == waiting[0] == UNITS - 1
    seconds = itertools.count(step=SECONDS)
    _, waiting = values_of(model, units_of(60, 20), clock=lambda: next(seconds))
    assert waiting == [1, 0, 0]


def test_only_where_a_row_stands_alone_are_units_joined(tmp_path: Path) -> None:
    for estimator in (LogisticRegression(), RandomForestClassifier(2, n_jobs=2)):
        found, waiting = values_of(asked(tmp_path, estimator), units_of(60, 20))
        assert found == [None, None, None]
        assert waiting == [0, 0, 0]


def test_where_the_joint_call_fails_each_unit_is_left_to_itself(tmp_path: Path) -> None:
    spoilt = X.copy()
    spoilt[30, 0] = np.inf
    found, _ = values_of(asked(tmp_path, RandomForestClassifier(2)), units_of(60, 20), spoilt)
    assert found == [None, None, None]


def test_workers_write_what_this_process_writes_and_find_the_bad_row(tmp_path: Path, client: Any) -> None:
    spoilt = X.copy()
    spoilt[130, 0] = np.inf
    bundle = save_model(RandomForestClassifier(5, random_state=0).fit(X, Y), tmp_path / "m", schema=SCHEMA)
    write_matrix(f"{tmp_path}/f.zarr", spoilt, Y, chunk=5)
    written = []
    for place, used in (("here", None), ("there", client)):
        stage = PredictStage(
            "p", f"{tmp_path}/{place}/p.ledger", f"{tmp_path}/f.zarr", bundle.path, method="predict_proba", max_bad=1
        )
        run_stage(stage, client=used)
        written.append((contents(tmp_path / place / "p.zarr"), identities(stage)))
    assert written[0] == written[1]
    assert np.flatnonzero(opened(stage).status.values != 1).tolist() == [130]
