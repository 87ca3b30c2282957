"""The searches against scikit-learn's, value for value and type for type."""

from __future__ import annotations

import re
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sklearn
from scipy.stats import loguniform
from search_cases import (
    CASES,
    XR,
    YR,
    NeedsFrame,
    X,
    Y,
    assert_same_results,
    failing_fits,
    groups,
    multimetric_dict,
    two_metrics,
)  # fmt: skip
from sklearn import model_selection
from sklearn.base import clone
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression, Ridge, SGDClassifier
from sklearn.metrics import get_scorer
from sklearn.model_selection import GroupKFold, ShuffleSplit, TimeSeriesSplit
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeClassifier

from daskml_scale.engine.client import workers
from daskml_scale.plan import batching, prefixes
from daskml_scale.search import GridSearchCV, RandomizedSearchCV
from daskml_scale.stages.search import fits


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


MODELS = (
    (Ridge(), "alpha", [0.1, 1.0], -1.0),
    (LogisticRegression(max_iter=200), "C", [0.1, 1.0], -1.0),
    (DecisionTreeClassifier(random_state=0), "max_depth", [1, None], -1),
    (make_pipeline(StandardScaler(), KNeighborsClassifier()), "kneighborsclassifier__n_neighbors", [1, 5], 10_000),
    (make_pipeline(PCA(2, random_state=0), SGDClassifier(random_state=0)), "sgdclassifier__alpha", [1e-4, 0.1], -1.0),
)
"""Estimator, what is searched, values, and one with which it fails: to fit, or to be scored."""
SCORINGS: tuple[dict[str, Any], ...] = (
    {}, {"scoring": "r2"}, {"scoring": "neg_log_loss"}, {"scoring": two_metrics, "refit": "exact"},
    {"scoring": ["accuracy", "neg_mean_squared_error"], "refit": "neg_mean_squared_error"},
)  # fmt: skip
SPLITTERS: tuple[Callable[[], Any], ...] = (
    lambda: 3, lambda: ShuffleSplit(2, random_state=1), lambda: GroupKFold(3), lambda: TimeSeriesSplit(3),
    lambda: iter([(np.arange(60), np.arange(60, 120)), (np.arange(30, 120), np.arange(20))]),
)  # fmt: skip
FAILURES: tuple[dict[str, Any], ...] = (
    {}, {"return_train_score": True}, {"error_score": -1.0, "return_train_score": True}, {"error_score": "raise"}, {},
)  # fmt: skip
"""The first has no failing value, the last nothing else."""
PLACES = ("alone, kept", "alone", "one fit a task", "all in one task", "cluster, kept")


def found(search: Any, *data: Any, **params: Any) -> Any:
    """Return the fitted search, or what it raised."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return search.fit(*data, **params)
        except Exception as error:
            return error


def placed(where: str, client: Any, folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    seconds = {"one fit a task": 1e-9, "all in one task": 1e9}.get(where, fits.AIM_SECONDS)
    monkeypatch.setattr(fits, "AIM_SECONDS", seconds)
    monkeypatch.setattr(batching, "MAX_SECONDS", max(seconds, batching.MAX_SECONDS))
    monkeypatch.setattr(prefixes, "GROUPS_PER_SLOT", {"one fit a task": 100, "all in one task": 0}.get(where, 3))
    return {**({} if "alone" in where else {"client": client}), **({"out": folder} if "kept" in where else {})}


@pytest.mark.parametrize("row", range(25))
def test_any_two_of_model_scorer_splitter_failure_and_place_give_scikit_learns_results(
    row: int, client: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Of five kinds of five each, these 25 rows have every pair.
    i, j = divmod(row, 5)
    (model, name, values, wrong), scoring, splitter = MODELS[i], SCORINGS[j], SPLITTERS[(i + j) % 5]
    failure, where = (i + 2 * j) % 5, PLACES[(i + 3 * j) % 5]
    grid = {name: [values, [values[0], wrong, values[1]], [wrong, *values], [*values, wrong], [wrong]][failure]}
    options, y = {**scoring, **FAILURES[failure]}, (Y > 0).astype(int)
    theirs = found(model_selection.GridSearchCV(model, grid, cv=splitter(), **options), X, y, groups=np.arange(120) % 7)
    more = placed(where, client, tmp_path / "out", monkeypatch)
    ours = found(GridSearchCV(model, grid, cv=splitter(), **options, **more), X, y, groups=np.arange(120) % 7)
    if isinstance(theirs, Exception):
        assert type(ours) is type(theirs), ours
        # Of several fits that raise, another may be the first one; of another split, with other numbers.
        assert re.sub(r"\d+", "", str(ours)).splitlines()[:3] == re.sub(r"\d+", "", str(theirs)).splitlines()[:3]
    else:
        assert_same_results(ours, theirs)


def test_with_one_worker_only_the_results_are_the_same(cluster: Any, client: Any) -> None:
    cluster.scale(1)
    until = time.monotonic() + 60
    while len(workers(client)) > 1 and time.monotonic() < until:
        time.sleep(0.05)
    assert len(workers(client)) == 1
    for case in (multimetric_dict, failing_fits):
        assert_same_results(fitted(GridSearchCV, case, client=client), fitted(model_selection.GridSearchCV, case))
