"""Shared pipeline prefixes: scikit-learn's results to the bit, with each prefix fitted once a fold."""

from __future__ import annotations

import warnings
from collections import Counter
from typing import Any

import numpy as np
import pandas as pd
import pytest
from search_cases import XR, YR, X, Y, assert_same_results
from sklearn import model_selection
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.compose import ColumnTransformer
from sklearn.decomposition import PCA, TruncatedSVD
from sklearn.feature_extraction.text import CountVectorizer, TfidfTransformer
from sklearn.feature_selection import SelectKBest, f_classif, mutual_info_classif
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge
from sklearn.pipeline import FeatureUnion, Pipeline, make_pipeline
from sklearn.preprocessing import MinMaxScaler, OneHotEncoder, PolynomialFeatures, QuantileTransformer, StandardScaler
from sklearn.tree import DecisionTreeClassifier

from daskml_scale.engine.worker import Cache
from daskml_scale.search import GridSearchCV, OptunaSearchCV, RandomizedSearchCV
from daskml_scale.stages.search.prefixes import KEPT, Sharing, chain, deterministic, separated

CALLS: Counter[str] = Counter()


class Counted(TransformerMixin, BaseEstimator):
    """Adds a number; counts its fits and transforms."""

    def __init__(self, add: float = 0.0, name: str = "step") -> None:
        self.add, self.name = add, name

    def fit(self, X: Any, y: Any = None) -> Counted:
        CALLS[f"fit {self.name}"] += 1
        self.n_features_in_ = X.shape[1]
        return self

    def transform(self, X: Any) -> Any:
        CALLS[f"transform {self.name}"] += 1
        return np.asarray(X) + self.add


class ChangesItsInput(LinearRegression):
    """Leaves its rows in ruins."""

    def fit(self, X: Any, y: Any) -> Any:
        super().fit(X, y)
        X *= 0
        return self


@pytest.fixture(autouse=True)
def _from_zero() -> None:
    CALLS.clear()
    KEPT.clear()


def numbers() -> Any:
    pipe = make_pipeline(PolynomialFeatures(), StandardScaler(), PCA(random_state=0), LogisticRegression(max_iter=300))
    grid = {"pca__n_components": [2, 4], "logisticregression__C": [0.1, 1.0, 10.0]}
    return pipe, grid, {"cv": 3, "return_train_score": True}, X, Y


def texts() -> Any:
    words = np.random.default_rng(0).choice(["sun", "rain", "wind", "fog", "ice"], (60, 6))
    pipe = make_pipeline(CountVectorizer(), TfidfTransformer(), TruncatedSVD(2, random_state=0), LogisticRegression())
    grid = {
        "countvectorizer__ngram_range": [(1, 1), (1, 2)],
        "tfidftransformer__use_idf": [True, False],
        "logisticregression__C": [0.5, 1.0],
    }
    return pipe, grid, {"cv": 3}, [" ".join(row) for row in words], [int("sun" in row) for row in words]


def columns() -> Any:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"city": rng.choice(["a", "b"], 120), "size": rng.random(120), "age": rng.random(120)})
    frame.loc[::9, "age"] = np.nan
    steps = ColumnTransformer(
        [
            ("city", OneHotEncoder(), ["city"]),
            ("numbers", make_pipeline(SimpleImputer(), StandardScaler()), ["size", "age"]),
        ]
    )
    pipe = Pipeline([("columns", steps), ("model", LogisticRegression())])
    grid = {"columns__numbers__simpleimputer__strategy": ["mean", "median"], "model__C": [0.1, 1.0]}
    return pipe, grid, {"cv": 3}, frame, np.where(Y > 0, "yes", "no")


def union() -> Any:
    both = FeatureUnion(
        [("pca", PCA(random_state=0)), ("best", SelectKBest(f_classif))], transformer_weights={"pca": 2.0}
    )
    pipe = Pipeline([("scale", StandardScaler()), ("both", both), ("model", DecisionTreeClassifier(random_state=0))])
    grid = {"both__pca__n_components": [1, 2], "both__best__k": [2, 3], "model__max_depth": [2, 4]}
    return pipe, grid, {"cv": 3, "scoring": ["accuracy", "f1_macro"], "refit": "accuracy"}, X, Y


def stochastic() -> Any:
    pipe = make_pipeline(StandardScaler(), QuantileTransformer(n_quantiles=10, random_state=0), MinMaxScaler(), Ridge())
    return pipe, {"ridge__alpha": [0.1, 1.0], "minmaxscaler": ["passthrough", None, MinMaxScaler()]}, {}, XR, YR


def in_place() -> Any:
    pipe = make_pipeline(StandardScaler(copy=False), MinMaxScaler(copy=False), ChangesItsInput())
    return pipe, {"changesitsinput__fit_intercept": [True, False]}, {"refit": False}, XR, YR


def weights() -> Any:
    pipe = make_pipeline(StandardScaler(), Ridge())
    return pipe, {"ridge__alpha": [0.1, 1.0]}, {"fit": {"ridge__sample_weight": np.arange(120) + 1.0}}, XR, YR


@pytest.mark.parametrize("on_cluster", [False, True])
@pytest.mark.parametrize(
    "case", [numbers, texts, columns, union, stochastic, in_place, weights], ids=lambda f: f.__name__
)
def test_sharing_changes_no_bit_of_the_results(case: Any, on_cluster: bool, client: Any) -> None:
    pipe, grid, options, data, target = case()
    options = dict(options)
    params = options.pop("fit", {})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = model_selection.GridSearchCV(pipe, grid, **options).fit(data, target, **params)
        more = {"client": client} if on_cluster else {}
        ours = GridSearchCV(pipe, grid, **options, **more).fit(data, target, **params)
    assert_same_results(ours, theirs)
    if theirs.refit:
        np.testing.assert_array_equal(ours.predict(data), theirs.predict(data))
        assert ours.best_estimator_.memory is None


def test_each_prefix_is_fitted_and_applied_once_a_fold() -> None:
    pipe = Pipeline([("a", Counted(name="a")), ("b", Counted(name="b")), ("model", Ridge())])
    grid = {"b__add": [1.0, 2.0], "model__alpha": [0.1, 1.0, 10.0, 100.0]}
    GridSearchCV(pipe, grid, cv=3, refit=False).fit(XR, YR)
    assert CALLS == {"fit a": 3, "transform a": 6, "fit b": 6, "transform b": 12}


def test_a_part_of_a_union_that_did_not_change_is_not_fitted_again() -> None:
    both = FeatureUnion([("same", Counted(name="same")), ("other", Counted(name="other"))])
    pipe = Pipeline([("both", both), ("model", Ridge())])
    ours = GridSearchCV(pipe, {"both__other__add": [1.0, 2.0, 3.0]}, cv=3).fit(XR, YR)
    assert (CALLS["fit same"], CALLS["fit other"]) == (3 + 1, 9 + 1)  # and the last fit
    theirs = model_selection.GridSearchCV(pipe, {"both__other__add": [1.0, 2.0, 3.0]}, cv=3).fit(XR, YR)
    assert_same_results(ours, theirs)


def test_trials_of_a_sampler_share_too() -> None:
    pipe = Pipeline([("a", Counted(name="a")), ("model", Ridge())])
    OptunaSearchCV(pipe, {"model__alpha": [0.1, 1.0, 10.0]}, n_trials=5, cv=2, refit=False, random_state=0).fit(XR, YR)
    assert CALLS["fit a"] == 2


def test_the_time_of_a_fit_includes_the_shared_part() -> None:
    import time

    class Slow(Counted):
        def fit(self, X: Any, y: Any = None) -> Any:
            time.sleep(0.05)
            return super().fit(X, y)

    pipe = Pipeline([("a", Slow(name="slow")), ("model", Ridge())])
    ours = RandomizedSearchCV(pipe, {"model__alpha": [0.1, 1.0, 10.0]}, n_iter=3, cv=2, refit=False).fit(XR, YR)
    assert CALLS["fit slow"] == 2
    assert (ours.cv_results_["mean_fit_time"] >= 0.05).all()


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        (StandardScaler(), True), (PCA(random_state=0), True), (PCA(svd_solver="full"), True),
        (PCA(svd_solver="randomized"), False), (TruncatedSVD(), False), (SelectKBest(mutual_info_classif), False),
        (QuantileTransformer(), False), (make_pipeline(StandardScaler(), TruncatedSVD()), False),
        (FeatureUnion([("a", PCA(random_state=1))]), True), (object(), False),
    ],
)  # fmt: skip
def test_only_steps_that_are_surely_deterministic_are_shared(step: Any, expected: bool) -> None:
    assert deterministic(step, (10, 5)) is expected


def test_a_chain_ends_before_the_first_step_that_draws_and_knows_parameters_by_value() -> None:
    pipe = make_pipeline(StandardScaler(), TruncatedSVD(), MinMaxScaler(), Ridge())
    assert len(chain(pipe, {}, (10, 5))) == 1
    assert chain(pipe, {"standardscaler__with_mean": True}, (10, 5)) == chain(pipe, {}, (10, 5))
    assert chain(pipe, {"standardscaler__with_mean": False}, (10, 5)) != chain(pipe, {}, (10, 5))
    assert chain(pipe.set_params(memory="somewhere"), {}, (10, 5)) == ()
    assert chain(Ridge(), {}, (10, 5)) == ()


def test_what_is_kept_is_bounded_in_bytes() -> None:
    kept = Cache(limit=3 * X.nbytes)
    pipe = make_pipeline(StandardScaler(), Ridge())
    for split in range(6):
        sharing = Sharing(kept, (split,), ["scaler"])
        rows = X.copy()
        sharing.note(rows)
        made = pipe.set_params(memory=sharing).fit(rows, Y)
        assert separated(made).memory is None
    assert kept.counts()["bytes"] <= 3 * X.nbytes
    assert kept.loads == 6
