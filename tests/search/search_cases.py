"""Searches that must give the same on a cluster as in scikit-learn, and the estimators that they need.

Each case is a function that returns fresh (estimator, grid, options, X, y, fit parameters).
"""

from __future__ import annotations

import os
import uuid
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy import sparse
from sklearn.base import BaseEstimator, ClassifierMixin, TransformerMixin
from sklearn.cluster import KMeans
from sklearn.compose import make_column_transformer
from sklearn.datasets import make_classification, make_regression
from sklearn.decomposition import PCA
from sklearn.ensemble import RandomForestClassifier
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import accuracy_score, make_scorer
from sklearn.model_selection import GroupKFold, ShuffleSplit, TimeSeriesSplit
from sklearn.naive_bayes import MultinomialNB
from sklearn.neighbors import KernelDensity, KNeighborsClassifier
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from sklearn.svm import SVC
from sklearn.tree import DecisionTreeClassifier

X, Y = make_classification(120, 6, n_informative=4, n_classes=3, random_state=0)
XR, YR = make_regression(120, 5, noise=3, n_targets=1, random_state=0)


class Odd(ClassifierMixin, BaseEstimator):
    """Predicts ``bias``; fails or scores NaN where it is told to, and notes each fit in a folder."""

    def __init__(self, bias: int = 0, fails: bool = False, folder: str = "", error: Any = None) -> None:
        self.bias, self.fails, self.folder, self.error = bias, fails, folder, error

    def fit(self, X: Any, y: Any) -> Odd:
        if self.folder:
            (Path(self.folder) / f"{self.bias}-{os.getpid()}-{uuid.uuid4().hex}").touch()
        if self.fails:
            raise self.error or ValueError("no good")
        self.classes_ = np.unique(y)
        return self

    def predict(self, X: Any) -> Any:
        return np.full(len(X), self.bias)


class NeedsFrame(TransformerMixin, BaseEstimator):
    """Fails on anything but a DataFrame: proof that ``transform_output`` reached the worker."""

    def fit(self, X: Any, y: Any = None) -> NeedsFrame:
        assert isinstance(X, pd.DataFrame), type(X)
        self.n_features_in_ = X.shape[1]
        return self

    def transform(self, X: Any) -> Any:
        return X

    def get_feature_names_out(self, names: Any = None) -> Any:
        return names


def nan_for_two(estimator: Any, X: Any, y: Any) -> float:
    return float("nan") if estimator.bias == 2 else accuracy_score(y, estimator.predict(X))


def always_nan(estimator: Any, X: Any, y: Any) -> float:
    return float("nan")


def two_metrics(estimator: Any, X: Any, y: Any) -> dict[str, float]:
    found = estimator.predict(X)
    return {"exact": accuracy_score(y, found), "share": float(np.mean(found == 1))}


def third(results: Any) -> int:
    return 2


def plain() -> Any:
    return Ridge(), {"alpha": [0.1, 1.0, 10.0]}, {}, XR, YR, {}


def train_scores() -> Any:
    return DecisionTreeClassifier(random_state=0), {"max_depth": [1, 3, None]}, {"return_train_score": True}, X, Y, {}


def multimetric_list() -> Any:
    options = {"scoring": ["accuracy", "f1_macro"], "refit": "f1_macro", "return_train_score": True}
    return LogisticRegression(max_iter=300), {"C": [0.01, 1.0]}, options, X, Y, {}


def multimetric_dict() -> Any:
    scoring = {"a": make_scorer(accuracy_score), "b": "balanced_accuracy"}
    return KNeighborsClassifier(), {"n_neighbors": [1, 5]}, {"scoring": scoring, "refit": "a"}, X, Y, {}


def multimetric_callable() -> Any:
    return Odd(), {"bias": [0, 1, 2]}, {"scoring": two_metrics, "refit": "exact"}, X, Y, {}


def multimetric_without_refit() -> Any:
    return Ridge(), {"alpha": [1, 2]}, {"scoring": ["r2", "neg_mean_squared_error"], "refit": False}, XR, YR, {}


def refit_callable() -> Any:
    return Ridge(), {"alpha": [0.1, 1.0, 10.0]}, {"refit": third}, XR, YR, {}


def no_refit() -> Any:
    return Ridge(), {"alpha": [0.1, 1.0]}, {"refit": False}, XR, YR, {}


def groups() -> Any:
    return Ridge(), {"alpha": [0.1, 1.0]}, {"cv": GroupKFold(4)}, XR, YR, {"groups": np.arange(120) % 7}


def sample_weight() -> Any:
    weight = np.random.default_rng(0).random(120)
    return Ridge(), {"alpha": [0.1, 1.0]}, {"return_train_score": True}, XR, YR, {"sample_weight": weight}


def failing_fits() -> Any:
    return Odd(), {"bias": [0, 1], "fails": [False, True]}, {"return_train_score": True}, X, Y, {}


def failing_fits_with_a_number() -> Any:
    options = {"error_score": -1, "scoring": ["accuracy", "f1_macro"], "refit": "accuracy", "return_train_score": True}
    return Odd(), {"bias": [0, 1], "fails": [True, False]}, options, X, Y, {}


def failing_callable_multimetric() -> Any:
    options = {"scoring": two_metrics, "refit": "share"}
    return Odd(), {"bias": [0, 1], "fails": [False, True]}, options, X, Y, {}


def nan_scores() -> Any:
    return Odd(), {"bias": [2, 0, 1]}, {"scoring": nan_for_two}, X, Y, {}


def only_nan_scores() -> Any:
    return Odd(), {"bias": [2, 0, 1]}, {"scoring": always_nan}, X, Y, {}


def passthrough_and_masked() -> Any:
    pipe = Pipeline([("scale", StandardScaler()), ("reduce", PCA(2, random_state=0)), ("model", SVC())])
    grid = [
        {"scale": ["passthrough", StandardScaler()], "reduce": ["passthrough", PCA(3, random_state=1)]},
        {"model": [LogisticRegression(max_iter=500), DecisionTreeClassifier(random_state=0)]},
        {"model__C": [0.1, 1.0], "model__kernel": ["linear", "rbf"]},
    ]
    return pipe, grid, {"cv": 3}, X, Y, {}


def frames() -> Any:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(
        {"city": rng.choice(["a", "b", "c"], 120), "size": rng.random(120), "age": rng.integers(9, size=120)}
    )
    columns = make_column_transformer((OneHotEncoder(handle_unknown="ignore"), ["city"]), remainder="passthrough")
    pipe = Pipeline([("columns", columns), ("model", LogisticRegression(max_iter=500))])
    return pipe, {"model__C": [0.1, 1.0]}, {}, frame, pd.Series(np.where(Y > 0, "yes", "no"), name="late"), {}


def sparse_matrix() -> Any:
    return Ridge(), {"alpha": [0.1, 1.0]}, {}, sparse.csr_matrix(np.where(XR > 0.5, XR, 0)), YR, {}


def texts_in_lists() -> Any:
    words = np.random.default_rng(0).choice(["sun", "rain", "wind", "fog"], (60, 5))
    pipe = Pipeline([("count", CountVectorizer()), ("model", MultinomialNB())])
    grid = {"count__ngram_range": [(1, 1), (1, 2)], "model__alpha": [0.5, 1.0]}
    return pipe, grid, {"cv": 3}, [" ".join(row) for row in words], [int("sun" in row) for row in words], {}


def splits_from_an_iterator() -> Any:
    rows = np.arange(120)
    splits = ((rows[:first], rows[first : first + 20]) for first in (40, 60, 80))
    return Ridge(), {"alpha": [0.1, 1.0]}, {"cv": splits}, XR, YR, {}


def splitter_with_state() -> Any:
    cv = ShuffleSplit(3, random_state=np.random.RandomState(5))
    return Ridge(), {"alpha": [0.1, 1.0]}, {"cv": cv}, XR, YR, {}


def time_series() -> Any:
    return Ridge(), {"alpha": [0.1, 1.0]}, {"cv": TimeSeriesSplit(4), "scoring": "neg_log_loss"}, XR, YR, {}


def unsupervised() -> Any:
    return KernelDensity(), {"bandwidth": [0.5, 1.0]}, {}, XR, None, {}


def clusters() -> Any:
    options = {"scoring": "adjusted_rand_score", "return_train_score": True}
    return KMeans(n_init=1, random_state=0), {"n_clusters": [2, 3]}, options, X, Y, {}


def precomputed_kernel() -> Any:
    return SVC(kernel="precomputed"), {"C": [0.1, 1.0]}, {}, X @ X.T, Y, {}


def estimator_with_state() -> Any:
    forest = RandomForestClassifier(5, random_state=np.random.RandomState(3))
    return forest, {"max_depth": [2, 4]}, {}, X, Y, {}


def many_outputs() -> Any:
    return Ridge(), {"alpha": [0.1, 1.0]}, {}, XR, np.column_stack([YR, -YR]), {}


def lists_as_values() -> Any:
    return LogisticRegression(max_iter=300), {"class_weight": [None, "balanced", {0: 1, 1: 2, 2: 1}]}, {}, X, Y, {}


CASES = [
    plain, train_scores, multimetric_list, multimetric_dict, multimetric_callable, multimetric_without_refit,
    refit_callable, no_refit, groups, sample_weight, failing_fits, failing_fits_with_a_number,
    failing_callable_multimetric, nan_scores, only_nan_scores, passthrough_and_masked, frames, sparse_matrix,
    texts_in_lists, splits_from_an_iterator, splitter_with_state, time_series, unsupervised, clusters,
    precomputed_kernel, estimator_with_state, many_outputs, lists_as_values,
]  # fmt: skip


def assert_same_results(ours: Any, theirs: Any) -> None:
    """Every key of ``cv_results_`` but the times is equal in value, mask and type; so are the ``best_*``."""
    assert list(ours.cv_results_) == list(theirs.cv_results_)
    for key, expected in theirs.cv_results_.items():
        found = ours.cv_results_[key]
        if key == "params":
            assert repr(found) == repr(expected)
        elif "_time" not in key:
            assert type(found) is type(expected), key
            assert found.dtype == expected.dtype, key
            assert np.array_equal(np.ma.getmaskarray(found), np.ma.getmaskarray(expected)), key
            if found.dtype == object:
                assert repr(found) == repr(expected), key
            else:
                shown = [np.ma.masked_array(values).compressed() for values in (found, expected)]
                assert shown[0].tobytes() == shown[1].tobytes(), (key, found, expected)
    for name in ("best_index_", "best_score_", "n_splits_", "multimetric_", "n_features_in_", "feature_names_in_"):
        assert hasattr(ours, name) == hasattr(theirs, name), name
        np.testing.assert_array_equal(getattr(ours, name, 0), getattr(theirs, name, 0), name)
    assert repr(getattr(ours, "best_params_", 0)) == repr(getattr(theirs, "best_params_", 0))
    assert hasattr(ours, "refit_time_") == hasattr(theirs, "refit_time_")
