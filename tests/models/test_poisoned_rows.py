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
from daskml_scale.stages.refusals import not_finite

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


class Filled(LogisticRegression):
    """Fills what is missing in the first feature, and takes no other odd value; notes the rows of each call."""

    def predict(self, X: np.ndarray) -> np.ndarray:
        self.calls = [*getattr(self, "calls", []), len(X)]
        assert not X.flags.writeable or len(X) == 1
        whole = X.copy()
        whole[np.isnan(X[:, 0]), 0] = 0
        found: np.ndarray = super().predict(whole)
        return found


def test_rows_that_are_odd_in_the_same_features_cost_one_call_in_all_and_the_others_are_predicted_in_one() -> None:
    spoilt = X.astype("float64")
    spoilt[10:60, 0] = np.nan
    spoilt[100:200, 1] = np.nan
    spoilt[200:210, 2] = np.inf
    spoilt[209, 0] = np.nan
    before, estimator, said = spoilt.copy(), Filled().fit(X, Y), {}
    model = asked_of(Bundle("m", {"schema": SCHEMA, "sha256": ""}), "predict", None, "float32")
    expected = LogisticRegression().fit(X, Y).predict(np.where(np.isfinite(spoilt), spoilt, 0))
    # All, one of each of four kinds, and what is not refused; then what is refused is known.
    for calls in ([300, 1, 1, 1, 1, 300], [300]):
        bad = BadRows(limit=200)
        estimator.calls = []
        ((rows, values),) = model._scored(estimator, spoilt, np.arange(len(X)), bad, said)
        assert estimator.calls == calls
        assert sorted(bad.status) == list(range(100, 210))
        left = [*range(100), *range(210, 300)]
        assert rows.tolist() == list(range(300))
        assert np.array_equal(values[left], expected[left])
        assert np.array_equal(spoilt, before, equal_nan=True)
    for part in (spoilt[:60], spoilt[:10]):  # a kind that was taken is predicted with the others
        ((rows, _),) = model._scored(estimator, part, np.arange(len(part)), bad, said)
        assert len(rows) == len(part)


def test_a_batch_of_refused_rows_alone_gives_none() -> None:
    model = asked_of(Bundle("m", {"schema": SCHEMA, "sha256": ""}), "predict", None, "float32")
    bad, nothing = BadRows(limit=5), np.full((5, 4), np.nan)
    assert model._scored(LogisticRegression().fit(X, Y), nothing, np.arange(5), bad, {}) == []
    assert sorted(bad.status) == list(range(5))


def test_what_a_user_lends_is_not_written_to(bundle: Bundle) -> None:
    spoilt = X.astype("float32")
    spoilt[ROW, 0] = np.inf
    spoilt.flags.writeable = False
    model = asked_of(bundle, "predict", None, "float32")
    bad = BadRows(limit=5)
    ((rows, _),) = model._scored(bundle.load(), spoilt, np.arange(len(X)), bad, {})
    assert sorted(bad.status) == [ROW]
    assert np.isposinf(spoilt[ROW, 0])
    assert rows.tolist() == list(range(len(X)))


def test_rows_that_are_not_finite_are_found_and_large_ones_are_not() -> None:
    most = np.finfo("float32").max
    rows = np.ones((6, 3), "float32")
    rows[1, 2], rows[2], rows[3, :2], rows[4] = np.nan, most, (np.inf, -np.inf), -most
    assert not_finite(rows).tolist() == [1, 3]
    assert not_finite(np.ones((0, 3))).tolist() == not_finite(np.ones((3, 2), int)).tolist() == []
