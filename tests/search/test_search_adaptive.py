"""ASHA and Hyperband as searches: how a trial goes on, what it is judged by, what comes out."""

from __future__ import annotations

import pickle
import warnings
from typing import Any

import numpy as np
import pytest
from scipy.stats import loguniform, uniform
from search_cases import XR, YR, X, Y
from sklearn.base import clone, is_classifier
from sklearn.datasets import make_classification
from sklearn.ensemble import GradientBoostingClassifier, HistGradientBoostingClassifier, RandomForestRegressor
from sklearn.exceptions import FitFailedWarning
from sklearn.linear_model import LogisticRegression, Ridge, SGDClassifier
from sklearn.model_selection import ShuffleSplit
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from daskml_scale.errors import SpecError, UsageError
from daskml_scale.search import AshaSearchCV, HyperbandSearchCV
from daskml_scale.stages.search import data, states
from daskml_scale.stages.search.fidelity import Fidelity, fidelity, rows_of
from daskml_scale.stages.search.states import States

SPACE = {"alpha": loguniform(1e-5, 1)}


def sgd(**more: Any) -> Any:
    options = {"n_trials": 9, "max_resources": 9, "min_resources": 1, "cv": 2, "random_state": 0, **more}
    return AshaSearchCV(SGDClassifier(random_state=0), SPACE, **options)


@pytest.mark.parametrize("mode", ["promotion", "stopping"])
@pytest.mark.parametrize("on_cluster", [False, True])
def test_the_best_trial_has_all_of_the_resource_and_others_little(mode: Any, on_cluster: bool, client: Any) -> None:
    search = sgd(mode=mode, client=client if on_cluster else None).fit(X, Y)
    reached = search.cv_results_["n_resources"]
    assert reached[search.best_index_] == 9
    assert sorted(reached)[0] == 1
    assert len(reached) == 9
    assert search.best_score_ == search.cv_results_["mean_test_score"][reached == 9].max()
    assert is_classifier(search)
    assert search.predict(X).shape == Y.shape
    assert [each["trial"] for each in search.history_ if each["rung"] == 0] != []
    assert len(search.history_) == sum({1: 1, 3: 2, 9: 3}[count] for count in reached)


@pytest.mark.parametrize(
    ("estimator", "space", "grows"),
    [
        (SGDClassifier(random_state=0), SPACE, {"max_resources": 4}),
        (GradientBoostingClassifier(n_estimators=8, random_state=0), {"max_depth": [1, 2]}, {}),
        (HistGradientBoostingClassifier(max_iter=8, random_state=0), {"max_depth": [1, 2]}, {}),
        (make_pipeline(StandardScaler(), GradientBoostingClassifier(n_estimators=8, random_state=0)),
         {"gradientboostingclassifier__max_depth": [1, 2]}, {}),
    ],
    ids=["partial_fit", "n_estimators", "max_iter", "pipeline"],
)  # fmt: skip
def test_a_model_that_went_on_is_the_one_that_was_trained_at_once(estimator: Any, space: Any, grows: Any) -> None:
    cv = ShuffleSplit(1, random_state=0)
    search = AshaSearchCV(estimator, space, n_trials=2, factor=2, min_resources=1, cv=cv, random_state=0, **grows)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        search.fit(X, Y)
    ((train, test),) = cv.split(X)
    alone = clone(estimator).set_params(**search.best_params_)
    if hasattr(alone, "partial_fit"):
        for _ in range(4):
            alone.partial_fit(X[train], Y[train], classes=np.unique(Y))
    else:
        alone.fit(X[train], Y[train])
    assert search.best_score_ == pytest.approx(alone.score(X[test], Y[test]), abs=1e-12)


def test_xgboost_goes_on_from_its_trees() -> None:
    xgboost = pytest.importorskip("xgboost")
    model = xgboost.XGBClassifier(n_estimators=8, max_depth=2, n_jobs=1)
    cv = ShuffleSplit(1, random_state=0)
    search = AshaSearchCV(model, {"learning_rate": [0.1, 0.5]}, n_trials=2, factor=2, min_resources=1, cv=cv)
    search.fit(X, Y)
    assert search.best_params_["n_estimators"] == 8
    assert search.best_estimator_.get_booster().num_boosted_rounds() == 8
    ((train, test),) = cv.split(X)
    alone = clone(model).set_params(**search.best_params_).fit(X[train], Y[train])
    assert search.best_score_ == pytest.approx(alone.score(X[test], Y[test]), abs=1e-12)


def test_rows_as_the_resource_are_nested_and_the_last_rung_has_them_all() -> None:
    train = np.arange(100, 200)
    taken = [rows_of(train, 1, count) for count in (10, 30, 100)]
    assert set(taken[0]) < set(taken[1]) < set(taken[2])
    assert np.array_equal(taken[2], train)
    search = AshaSearchCV(
        LogisticRegression(max_iter=300), {"C": loguniform(0.01, 10)}, n_trials=9, cv=2, random_state=0
    )
    search.fit(X, Y, sample_weight=np.ones(len(Y)))
    assert search.cv_results_["n_resources"].max() == len(Y) // 2


def test_every_bracket_of_hyperband_runs() -> None:
    search = HyperbandSearchCV(
        SGDClassifier(random_state=0), SPACE, max_resources=9, min_resources=1, cv=2, random_state=0
    )
    search.fit(X, Y)
    assert np.unique(search.cv_results_["bracket"]).tolist() == [0, 1, 2]
    assert np.bincount(search.cv_results_["bracket"]).tolist() == [9, 5, 3]
    assert "n_trials" not in search.get_params()


@pytest.mark.parametrize("size", [0, 1 << 40])
def test_a_cluster_finds_what_one_process_finds_when_the_order_cannot_matter(
    size: int, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(data, "PLACED_BYTES", size)
    options = {"min_resources": 4, "max_resources": 4}
    ours, theirs = sgd(client=client, **options).fit(X, Y), sgd(**options).fit(X, Y)
    for key, values in theirs.cv_results_.items():
        if "_time" not in key:
            assert np.array_equal(ours.cv_results_[key], values), key


def test_a_failing_trial_stays_on_the_ground_and_a_raise_is_the_users_own() -> None:
    search = AshaSearchCV(Ridge(), {"alpha": [-1.0, 1.0, 2.0]}, n_trials=3, cv=2, factor=2, min_resources=20)
    with pytest.warns(FitFailedWarning, match="2 fits failed"), pytest.warns(UserWarning, match="non-finite"):
        search.fit(XR, YR)
    scores = {
        p["alpha"]: s for p, s in zip(search.cv_results_["params"], search.cv_results_["mean_test_score"], strict=True)
    }
    assert np.isnan(scores[-1.0])
    assert search.best_params_["alpha"] > 0
    with pytest.raises(ValueError, match="'alpha' parameter of Ridge"):
        search.set_params(error_score="raise").fit(XR, YR)


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        ({"n_trials": 0}, "n_trials"), ({"factor": 1}, "stops nobody"), ({"mode": "x"}, "mode"),
        ({"resource": "trees"}, "no parameter of SGD"), ({"resource": "alpha", "max_resources": 3}, "searched"),
        ({"scoring": ["accuracy", "f1"]}, "single metric"), ({"max_resources": "auto"}, "give a number"),
        ({"min_resources": 99}, "min_resources"), ({"max_resources": 0}, "max_resources"),
        ({"n_trials": None}, "n_trials is None.*time_budget"),
    ],
)  # fmt: skip
def test_wrong_arguments_are_refused(wrong: Any, text: str) -> None:
    with pytest.raises(UsageError, match=text):
        sgd(**wrong).fit(X, Y)


def test_what_grows_is_found_by_itself() -> None:
    assert fidelity(RandomForestRegressor(), "auto") == Fidelity("warm_start", "n_estimators")
    assert fidelity(HistGradientBoostingClassifier(), "auto") == Fidelity("warm_start", "max_iter")
    assert fidelity(SGDClassifier(), "auto").kind == "partial_fit"
    assert fidelity(SGDClassifier(), "max_iter") == Fidelity("parameter", "max_iter")
    assert fidelity(Ridge(), "auto").kind == "n_samples"
    with pytest.raises(UsageError, match="no partial_fit"):
        fidelity(Ridge(), "partial_fit")


def test_a_yaml_space_is_drawn_and_a_wrong_one_names_the_parameter(tmp_path: Any) -> None:
    path = tmp_path / "space.yaml"
    path.write_text("alpha: {loguniform: [0.001, 1]}\npenalty: [l2, elasticnet]\n"
                    "l1_ratio: {uniform: [0, 1], when: {penalty: [elasticnet]}}\n")  # fmt: skip
    search = AshaSearchCV(SGDClassifier(), str(path), n_trials=6, max_resources=2, cv=2, random_state=0).fit(X, Y)
    for params in search.cv_results_["params"]:
        assert ("l1_ratio" in params) == (params["penalty"] == "elasticnet")
    with pytest.raises(SpecError, match="alpha"):
        AshaSearchCV(SGDClassifier(), {"alpha": {"loguniform": [1, 0]}}, max_resources=2, cv=2).fit(X, Y)


def test_models_of_paused_trials_go_to_files_above_a_size(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    monkeypatch.setattr(states, "MEMORY_BYTES", 10)
    for kept in (States(None), States(str(tmp_path))):
        one, two = kept.put("a", b"12345678"), kept.put("b", b"23456789")
        assert (kept.get("a", one), kept.get("b", two), kept.get("c", one)) == (b"12345678", b"23456789", None)
        kept.drop("a")
        kept.drop("b")
        assert kept.get("a", one) is kept.get("b", two) is None
        kept.close()


def test_a_search_is_cloned_pickled_and_tuned_as_any_estimator(client: Any) -> None:
    search = sgd(client=client)
    assert clone(search).client is client
    assert clone(search).get_params()["n_trials"] == 9
    copied = pickle.loads(pickle.dumps(search.fit(X, Y)))
    assert copied.client is None
    assert np.array_equal(copied.predict(X), search.predict(X))


def test_the_best_of_few_settings_comes_to_the_top_though_more_trials_were_allowed() -> None:
    with pytest.warns(UserWarning, match="smaller than n_iter=64"):
        search = AshaSearchCV(
            SGDClassifier(random_state=0), {"alpha": [1e-4, 1e-2]}, max_resources=9, min_resources=1, cv=2
        ).fit(X, Y)
    assert sorted(search.cv_results_["n_resources"]) == [1, 9]


def test_as_many_trials_start_as_the_time_allows() -> None:
    search = sgd(n_trials=None, time_budget=0.3).fit(X, Y)
    found = search.cv_results_["params"]
    assert found[:5] == sgd(n_trials=5).fit(X, Y).cv_results_["params"][: len(found)]
    few = sgd(n_trials=None, time_budget=600).set_params(param_distributions={"alpha": [1e-4, 1e-3, 1e-2]})
    assert sorted(few.fit(X, Y).cv_results_["n_resources"]) == [1, 1, 9]  # all that there are, and no wait


@pytest.mark.slow
def test_it_finds_as_good_a_model_as_a_full_search_with_a_part_of_the_work() -> None:
    from sklearn.model_selection import RandomizedSearchCV
    from threadpoolctl import threadpool_limits

    rows, target = make_classification(1000, 20, n_informative=8, random_state=1)
    model = HistGradientBoostingClassifier(max_iter=64, early_stopping=False, random_state=0)
    space = {"learning_rate": loguniform(0.01, 0.5), "max_leaf_nodes": [7, 15, 31], "l2_regularization": uniform(0, 5)}
    cv = ShuffleSplit(1, random_state=0)
    common = {"cv": cv, "scoring": "roc_auc", "random_state": 0, "refit": False}
    full = RandomizedSearchCV(model, space, n_iter=27, **common)
    asha = AshaSearchCV(model, space, n_trials=27, resource="max_iter", factor=4, min_resources=4, **common)
    with threadpool_limits(1):  # threads that wait for each other make minutes of seconds on a busy machine
        full.fit(rows, target)
        asha.fit(rows, target)
    spent = sum(each["resource"] for each in asha.history_) / (27 * 64)
    assert spent < 0.5
    assert asha.best_score_ > full.best_score_ - 0.01
