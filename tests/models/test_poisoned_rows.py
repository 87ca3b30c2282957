"""One poisoned row among many, of every kind: it is found, named with its reason, and costs no other row."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from model_helpers import NAMES, matrix, write_matrix
from sklearn.compose import ColumnTransformer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

import daskml_scale as dms
from daskml_scale.artifacts.bundle import Bundle, save_model
from daskml_scale.errors import UnitsFailedError
from daskml_scale.runs import quarantine
from daskml_scale.stages.isolate import BadRows
from daskml_scale.stages.predicting import asked_of

X, Y = np.nan_to_num(matrix()[0]), matrix()[1]
X[:, 3] = np.arange(len(X)) % 3
SCHEMA = {"features": list(NAMES), "dtype": "float32"}
ROW = 157


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A linear model of three numbers and a category; its encoder refuses what it has not seen."""
    encoder = ColumnTransformer([("category", OneHotEncoder(), [3])], remainder="passthrough")
    model = make_pipeline(encoder, LogisticRegression()).fit(X, Y)
    return save_model(model, tmp_path_factory.mktemp("model") / "m", schema=SCHEMA)


def complete_only(estimator: Any, X: np.ndarray) -> np.ndarray:
    """Predict as code does that drops what is missing: it gives fewer values than rows."""
    complete = X[~np.isnan(X).any(axis=1)]
    return np.asarray(estimator.predict(complete)) if len(complete) else np.empty(0)


def joined(estimator: Any, X: np.ndarray) -> np.ndarray:
    """Give one value for all rows."""
    return np.ones(1)


POISON: list[tuple[int, float, Any, str]] = [
    (0, np.nan, "predict", "ValueError: Input X contains NaN"),
    (0, np.inf, "predict", "ValueError: Input X contains infinity"),
    (3, 9.0, "predict", "ValueError: Found unknown categories ["),
    (0, np.nan, complete_only, "OtherLength: 1 rows went in and 0 came out"),
]


@pytest.mark.parametrize(("column", "value", "method", "reason"), POISON, ids=["nan", "inf", "category", "shape"])
def test_a_poisoned_row_is_found_and_named(
    column: int, value: float, method: str | Callable[..., Any], reason: str, bundle: Bundle, tmp_path: Path
) -> None:
    spoilt = X.copy()
    spoilt[ROW, column] = value
    write_matrix(f"{tmp_path}/f.zarr", spoilt, Y)
    with pytest.raises(UnitsFailedError, match=f"row {ROW}: "):
        dms.predict(bundle, f"{tmp_path}/f.zarr", tmp_path / "p.zarr", method=method)
    found = dms.predict(bundle, f"{tmp_path}/f.zarr", tmp_path / "p.zarr", method=method, max_bad=1)
    assert np.flatnonzero(found.status.values != 1).tolist() == [ROW]
    others = np.arange(len(X)) != ROW
    assert np.array_equal(found.prediction.values[others], bundle.predict(X)[others])
    assert np.isnan(found.prediction.values[ROW])
    (one,) = quarantine.held(f"{tmp_path}/p.zarr")
    assert [(row, status) for row, status, _ in one.reasons] == [(ROW, 3)]
    assert one.reasons[0][2].startswith(reason)


def test_a_function_that_joins_rows_is_refused_though_each_row_alone_is_right(bundle: Bundle, tmp_path: Path) -> None:
    write_matrix(f"{tmp_path}/f.zarr", X, Y)
    with pytest.raises(Exception, match="100 rows went in and 1 came out; it must give one value"):
        dms.predict(bundle, f"{tmp_path}/f.zarr", tmp_path / "p.zarr", method=joined)


def test_rows_that_are_odd_in_the_same_features_cost_one_call_and_the_others_are_looked_at() -> None:
    calls: list[int] = []

    class Filled(LogisticRegression):
        """Fills what is missing in the first feature, and takes no other odd value."""

        def predict(self, X: np.ndarray) -> np.ndarray:
            calls.append(len(X))
            whole = X.copy()
            whole[np.isnan(X[:, 0]), 0] = 0
            found: np.ndarray = super().predict(whole)
            return found

    spoilt = X.astype("float64")
    spoilt[10:60, 0] = np.nan
    spoilt[100:200, 1] = np.nan
    spoilt[200:210, 2] = np.inf
    spoilt[209, 0] = np.nan
    model = asked_of(Bundle("m", {"schema": SCHEMA, "sha256": ""}), "predict", None, "float32")
    bad = BadRows(limit=200)
    done = model._scored(Filled().fit(X, Y), spoilt, np.arange(len(X)), bad)
    assert sorted(bad.status) == list(range(100, 210))
    assert sorted(np.concatenate([rows for rows, _ in done]).tolist()) == [*range(100), *range(210, 300)]
    # All, one of each of four kinds, what is finite, and the kind that was taken.
    assert calls == [300, 1, 1, 1, 1, 140, 50]
