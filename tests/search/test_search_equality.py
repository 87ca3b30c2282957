"""The searches against scikit-learn's, value for value and type for type."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import sklearn
from scipy.stats import loguniform
from search_cases import CASES, XR, YR, NeedsFrame, X, Y, assert_same_results, failing_fits, groups, multimetric_dict
from sklearn import model_selection
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import get_scorer
from sklearn.model_selection import GroupKFold, ShuffleSplit
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from daskml_scale.search import GridSearchCV, RandomizedSearchCV


def fitted(search: Callable[..., Any], case: Callable[[], Any], **more: Any) -> Any:
    estimator, grid, options, X, y, params = case()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return search(estimator, grid, **options, **more).fit(X, y, **params)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
def test_a_grid_search_on_a_cluster_equals_scikit_learns(case: Any, client: Any) -> None:
    theirs = fitted(model_selection.GridSearchCV, case)
    ours = fitted(GridSearchCV, case, client=client)
    assert_same_results(ours, theirs)
    if hasattr(theirs, "best_estimator_") and hasattr(theirs, "predict"):
        X = case()[3]
        np.testing.assert_array_equal(ours.predict(X), theirs.predict(X))


@pytest.mark.parametrize("case", [failing_fits, groups, multimetric_dict], ids=lambda case: case.__name__)
def test_a_grid_search_without_a_client_equals_scikit_learns(case: Any) -> None:
    assert_same_results(fitted(GridSearchCV, case), fitted(model_selection.GridSearchCV, case))


@pytest.mark.parametrize("on_cluster", [False, True])
def test_a_randomized_search_draws_and_scores_as_scikit_learns(on_cluster: bool, client: Any) -> None:
    more = {"client": client} if on_cluster else {}
    state = {"n_iter": 8, "random_state": 3, "cv": ShuffleSplit(3, random_state=1), "return_train_score": True}
    theirs = model_selection.RandomizedSearchCV(Ridge(), {"alpha": loguniform(0.01, 10)}, **state).fit(XR, YR)
    assert_same_results(
        RandomizedSearchCV(Ridge(), {"alpha": loguniform(0.01, 10)}, **state, **more).fit(XR, YR), theirs
    )


def test_one_random_state_for_sampler_and_splitter_is_consumed_in_scikit_learns_order(client: Any) -> None:
    def search(kind: Any, **more: Any) -> Any:
        state = np.random.RandomState(7)
        cv = ShuffleSplit(2, random_state=state)
        return kind(Ridge(), {"alpha": loguniform(0.01, 10)}, n_iter=4, random_state=state, cv=cv, **more).fit(XR, YR)

    assert_same_results(search(RandomizedSearchCV, client=client), search(model_selection.RandomizedSearchCV))


def test_routed_metadata_reach_estimator_scorer_and_splitter(client: Any) -> None:
    def search(kind: Any, **more: Any) -> Any:
        model = LogisticRegression(max_iter=300).set_fit_request(sample_weight=True)
        scorer = get_scorer("accuracy").set_score_request(sample_weight=True)
        weight = np.random.default_rng(0).random(len(Y))
        return kind(model, {"C": [0.01, 1.0]}, scoring=scorer, cv=GroupKFold(3), **more).fit(
            X, Y, sample_weight=weight, groups=np.arange(len(Y)) % 5
        )

    with sklearn.config_context(enable_metadata_routing=True):
        assert_same_results(search(GridSearchCV, client=client), search(model_selection.GridSearchCV))


def test_the_configuration_of_the_caller_reaches_the_workers(client: Any) -> None:
    model = make_pipeline(StandardScaler(), NeedsFrame(), Ridge())
    with sklearn.config_context(transform_output="pandas"):
        found = GridSearchCV(model, {"ridge__alpha": [1.0]}, error_score="raise", client=client).fit(XR, YR)
    assert np.isfinite(found.best_score_)


def test_nested_in_a_cross_validation_it_scores_as_scikit_learns(client: Any) -> None:
    ours, theirs = (
        model_selection.cross_val_score(kind(Ridge(), {"alpha": [0.1, 10.0]}, cv=3, **more), XR, YR, cv=3)
        for kind, more in ((GridSearchCV, {"client": client}), (model_selection.GridSearchCV, {}))
    )
    assert ours.tolist() == theirs.tolist()


def test_a_search_within_a_search_runs_inside_its_worker(client: Any) -> None:
    def search(kind: Any, **more: Any) -> Any:
        inner = kind(Ridge(), {"alpha": [0.1, 10.0]}, cv=2)
        return kind(inner, {"estimator__fit_intercept": [True, False]}, cv=2, **more).fit(XR, YR)

    assert_same_results(search(GridSearchCV, client=client), search(model_selection.GridSearchCV))


def test_fitting_twice_gives_the_same(client: Any) -> None:
    search = GridSearchCV(Ridge(), {"alpha": [0.1, 10.0]}, client=client)
    assert_same_results(clone(search).fit(XR, YR), search.fit(XR, YR))
