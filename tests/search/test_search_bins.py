"""Bins of histogram gradient boosting are found once for equal rows, and nobody can tell by the results."""

from __future__ import annotations

import pickle
from inspect import signature
from typing import Any

import numpy as np
import pytest
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.ensemble._hist_gradient_boosting.binning import _BinMapper
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from daskml_scale.engine.worker import Cache
from daskml_scale.search import AshaSearchCV
from daskml_scale.stages.search import segments
from daskml_scale.stages.search.bins import shared_bins

RNG = np.random.default_rng(0)
X = np.where(RNG.random((300, 4)) < 0.1, np.nan, RNG.normal(size=(300, 4)))
X[:, 3] = RNG.integers(0, 5, 300)
Y = (np.nan_to_num(X[:, 0]) + X[:, 3] > 2).astype(int)
WEIGHTS = RNG.random(300) + 0.5


def booster(**more: Any) -> HistGradientBoostingClassifier:
    return HistGradientBoostingClassifier(**{"max_iter": 5, "early_stopping": False, "random_state": 0, **more})


def fitted(model: Any, kept: Cache, X: Any = X, **more: Any) -> Any:
    with shared_bins(model, kept):
        return model.fit(X, Y, **more)


@pytest.mark.parametrize("how", [{}, {"categorical_features": [3]}, {"early_stopping": True}, {"max_bins": 7}], ids=str)
def test_a_model_with_kept_bins_is_the_one_that_scikit_learn_trains(how: dict[str, Any]) -> None:
    kept = Cache()
    for rate in (0.05, 0.1, 0.2):
        alone = booster(learning_rate=rate, **how).fit(X, Y)
        ours = fitted(booster(learning_rate=rate, **how), kept)
        np.testing.assert_array_equal(ours.predict_proba(X), alone.predict_proba(X))
        assert "_bin_data" not in vars(ours)
        pickle.loads(pickle.dumps(ours))
    assert (kept.loads, kept.hits) == (1, 2)


def test_a_model_that_goes_on_takes_the_bins_that_it_began_with() -> None:
    kept = Cache()
    ours, alone = booster(warm_start=True), booster(warm_start=True)
    for trees in (2, 4, 6):
        ours = pickle.loads(pickle.dumps(fitted(ours.set_params(max_iter=trees), kept)))
        alone.set_params(max_iter=trees).fit(X, Y)
    np.testing.assert_array_equal(ours.predict_proba(X), alone.predict_proba(X))
    assert (kept.loads, kept.hits) == (1, 2)


def test_other_rows_weights_seeds_or_numbers_of_bins_are_other_bins() -> None:
    kept = Cache()
    fitted(booster(), kept)
    fitted(booster(), kept, sample_weight=WEIGHTS)
    fitted(booster(random_state=1), kept)
    fitted(booster(max_bins=31), kept)
    changed = X.copy()
    changed[7, 1] += 1e-9
    fitted(booster(), kept, changed)
    weighted = "sample_weight" in signature(_BinMapper.fit).parameters  # from scikit-learn 1.9 on
    assert (kept.loads, kept.hits) == ((5, 0) if weighted else (4, 1))
    before = kept.hits
    again = fitted(booster(), kept, sample_weight=WEIGHTS)
    assert kept.hits == before + 1
    np.testing.assert_array_equal(again.predict_proba(X), booster().fit(X, Y, sample_weight=WEIGHTS).predict_proba(X))


def test_the_last_step_of_a_pipeline_shares_and_other_estimators_are_left_alone() -> None:
    kept = Cache()
    for _ in range(2):
        fitted(make_pipeline(StandardScaler(), HistGradientBoostingRegressor(max_iter=3, random_state=0)), kept)
    assert (kept.loads, kept.hits) == (1, 1)
    scaler = StandardScaler()
    with shared_bins(scaler, kept):
        assert set(vars(scaler)) == set(vars(StandardScaler()))


@pytest.mark.parametrize("on_cluster", [False, True])
def test_trials_and_rungs_of_a_search_find_the_bins_of_a_fold_once(on_cluster: bool, client: Any) -> None:
    space = {"learning_rate": [0.02, 0.05, 0.1, 0.2]}
    search = AshaSearchCV(
        booster(), space, n_trials=4, resource="max_iter", min_resources=2, max_resources=8, factor=2, cv=2,
        random_state=0, client=client if on_cluster else None,
    )  # fmt: skip
    before = segments.KEPT.loads
    search.fit(X, Y)
    assert search.best_estimator_.n_iter_ == 8
    if not on_cluster:
        assert len(search.history_) > 4
        assert segments.KEPT.loads - before == 2
    for entry in search.history_:
        rate = search.cv_results_["params"][entry["trial"]]["learning_rate"]
        scores = []
        for train, test in search_splits():
            model = booster(learning_rate=rate, max_iter=entry["resource"]).fit(X[train], Y[train])
            scores.append(model.score(X[test], Y[test]))
        assert entry["score"] == np.mean(scores)


def search_splits() -> Any:
    from sklearn.model_selection import StratifiedKFold

    return StratifiedKFold(2).split(X, Y)
