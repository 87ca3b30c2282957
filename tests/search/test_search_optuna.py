"""``OptunaSearchCV``: spaces, samplers, objectives, constraints, pruning, a study from before."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import loguniform, norm, randint, uniform
from search_cases import XR, YR, X, Y
from sklearn.ensemble import RandomForestClassifier
from sklearn.exceptions import FitFailedWarning
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.svm import SVC

from daskml_scale.errors import UsageError
from daskml_scale.search import AshaSearchCV, OptunaSearchCV
from daskml_scale.stages.search.optuna_search import pareto
from daskml_scale.stages.search.spaces import Suggested, drawn

optuna = pytest.importorskip("optuna")


def searched(estimator: Any, space: Any, **more: Any) -> Any:
    options = {"n_trials": 8, "cv": 2, "random_state": 0, **more}
    return OptunaSearchCV(estimator, space, **options).fit(X, Y)


@pytest.mark.parametrize("on_cluster", [False, True])
def test_a_sampler_suggests_and_every_trial_is_told(on_cluster: bool, client: Any) -> None:
    space = {"C": loguniform(0.01, 10), "fit_intercept": [True, False]}
    search = searched(LogisticRegression(max_iter=300), space, client=client if on_cluster else None)
    assert [trial.state.name for trial in search.study_.trials] == ["COMPLETE"] * 8
    assert search.study_.best_value == search.best_score_ == search.cv_results_["mean_test_score"].max()
    assert search.best_params_["C"] == search.best_estimator_.C
    assert {params["fit_intercept"] for params in search.cv_results_["params"]} <= {True, False}


def test_distributions_of_all_three_kinds_mean_the_same() -> None:
    given_space = {
        "a": loguniform(0.1, 10), "b": uniform(1, 2), "c": randint(3, 7), "d": [1, 2],
        "e": optuna.distributions.FloatDistribution(0, 1, step=0.5), "f": np.array([5, 6]),
    }  # fmt: skip
    known = Suggested(given_space).known[0]
    assert (known["a"].low, known["a"].high, known["a"].log) == (0.1, 10, True)
    assert (known["b"].low, known["b"].high, known["b"].log) == (1, 3, False)
    assert (known["c"].low, known["c"].high) == (3, 6)
    params = Suggested(given_space).suggest(optuna.create_study().ask())
    assert params["d"] in (1, 2)
    assert params["f"] in (5, 6)
    assert params["e"] in (0, 0.5, 1)
    with pytest.raises(UsageError, match=r"a: .*cannot be suggested"):
        Suggested({"a": norm(0, 1)})
    with pytest.raises(UsageError, match="empty list"):
        Suggested({"a": []})
    with pytest.raises(UsageError, match="param_distributions is a int"):
        Suggested(3)


def test_a_search_that_draws_takes_optunas_distributions_too() -> None:
    of = optuna.distributions
    space = {"alpha": of.FloatDistribution(0.01, 10, log=True), "max_iter": of.IntDistribution(100, 300, step=100),
             "solver": of.CategoricalDistribution(["lsqr", "svd"])}  # fmt: skip
    found = AshaSearchCV(Ridge(), space, n_trials=12, cv=2, random_state=0).fit(XR, YR).cv_results_["params"]
    assert found == list(drawn(space, 12, 0))
    assert len({params["alpha"] for params in found}) == 12
    assert all(0.01 <= params["alpha"] <= 10 for params in found)
    assert {params["max_iter"] for params in found} == {100, 200, 300}
    assert {params["solver"] for params in found} == {"lsqr", "svd"}


CONDITIONAL = [
    [{"kernel": ["linear"]}, {"kernel": ["rbf"], "gamma": loguniform(0.01, 1)}],
    {"kernel": {"choice": ["linear", "rbf"]}, "gamma": {"loguniform": [0.01, 1], "when": {"kernel": ["rbf"]}}},
    lambda trial: (
        {"kernel": "linear"}
        if trial.suggest_categorical("kernel", ["linear", "rbf"]) == "linear"
        else {"kernel": "rbf", "gamma": trial.suggest_float("gamma", 0.01, 1)}
    ),
]


@pytest.mark.parametrize("space", CONDITIONAL, ids=["list", "when", "function"])
def test_a_conditional_space_gives_a_parameter_only_where_it_has_a_meaning(space: Any) -> None:
    search = searched(SVC(), space, n_trials=10)
    kernels = {params["kernel"] for params in search.cv_results_["params"]}
    assert kernels == {"linear", "rbf"}
    for params in search.cv_results_["params"]:
        assert ("gamma" in params) == (params["kernel"] == "rbf")
    assert np.ma.getmaskarray(search.cv_results_["param_gamma"]).any()


def test_several_objectives_have_a_pareto_front_and_one_that_chooses() -> None:
    search = searched(
        RandomForestClassifier(5, random_state=0), {"max_depth": [1, 2, 4], "max_features": [1, 3]},
        scoring=["accuracy", "f1_macro"], refit="f1_macro",
    )  # fmt: skip
    assert len(search.study_.directions) == 2
    assert search.best_index_ == search.cv_results_["mean_test_f1_macro"].argmax()
    assert search.best_index_ in search.pareto_
    assert search.best_estimator_.predict(X).shape == Y.shape
    with pytest.raises(UsageError, match="refit must name"):
        searched(Ridge(), {"alpha": [1.0]}, scoring=["r2", "neg_max_error"])
    assert not hasattr(searched(SVC(), {"C": [1.0]}, scoring=["accuracy"], refit=False, n_trials=1), "best_index_")


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=1, max_size=20))
def test_nothing_outside_the_front_is_unsurpassed(points: Any) -> None:
    scores = np.array(points, float)
    front = pareto(scores)
    assert front.any()
    for row, inside in enumerate(front):
        beaten = ((scores >= scores[row]).all(axis=1) & (scores > scores[row]).any(axis=1)).any()
        assert inside == (not beaten)


def test_the_best_trial_is_feasible() -> None:
    search = searched(
        LogisticRegression(max_iter=300), {"C": loguniform(0.001, 10)}, n_trials=10,
        constraints=lambda told: {"small": told["params"]["C"] - 0.1},
    )  # fmt: skip
    feasible = search.cv_results_["feasible"]
    assert feasible.any()
    assert not feasible.all()
    assert search.best_params_["C"] <= 0.1
    assert search.best_score_ == search.cv_results_["mean_test_score"][feasible].max()
    assert search.study_.trials[0].constraints.keys() == {"small"}
    with pytest.raises(UsageError, match="constraints returned a list; return a dict of name to value"):
        searched(Ridge(), {"alpha": [1]}, n_trials=1, constraints=lambda told: [-1.0])


def test_pruned_trials_stop_at_their_rung() -> None:
    search = searched(
        RandomForestClassifier(27, random_state=0), {"max_depth": [1, 2, 3, 4], "min_samples_leaf": [1, 2]},
        pruning=True, n_trials=9, min_resources=1,
    )  # fmt: skip
    states = [trial.state.name for trial in search.study_.trials]
    assert set(states) == {"COMPLETE", "PRUNED"}
    reached = search.cv_results_["n_resources"]
    assert [state == "COMPLETE" for state in states] == [count == 27 for count in reached]
    assert reached.min() == 1


def test_a_study_from_before_is_known_to_the_sampler_and_receives_the_new_trials() -> None:
    space = {"alpha": optuna.distributions.FloatDistribution(0.01, 10)}
    study = optuna.create_study(direction="minimize", sampler=optuna.samplers.RandomSampler(seed=1))
    study.add_trial(optuna.trial.create_trial(params={"alpha": 1.0}, distributions=space, value=0.5))
    search = OptunaSearchCV(Ridge(), space, n_trials=3, study=study, cv=2).fit(XR, YR)
    assert len(study.trials) == 4
    assert study.trials[1].value == -search.cv_results_["mean_test_score"][0]
    with pytest.raises(UsageError, match="not both"):
        OptunaSearchCV(Ridge(), space, study=study, sampler=study.sampler).fit(XR, YR)
    with pytest.raises(UsageError, match="1 objectives and scoring has 2"):
        OptunaSearchCV(Ridge(), space, study=study, scoring=["r2", "neg_max_error"], refit=False).fit(XR, YR)


def test_a_failed_trial_is_told_as_one() -> None:
    space = {"alpha": [-1.0, 1.0]}
    with pytest.warns(FitFailedWarning, match="fits failed"), pytest.warns(UserWarning, match="non-finite"):
        search = OptunaSearchCV(Ridge(), space, n_trials=6, cv=2, random_state=0).fit(XR, YR)
    assert {trial.state.name for trial in search.study_.trials} == {"COMPLETE", "FAIL"}
    assert search.best_params_ == {"alpha": 1.0}


def test_few_trials_are_asked_for_ahead_however_quick_they_are(client: Any) -> None:
    running: list[int] = []

    class Watching(optuna.samplers.RandomSampler):
        def before_trial(self, study: Any, trial: Any) -> None:
            states = [each.state for each in study.get_trials(deepcopy=False)]
            running.append(states.count(optuna.trial.TrialState.RUNNING))

    searched(LogisticRegression(), {"C": loguniform(0.1, 10)}, n_trials=40, sampler=Watching(seed=0), client=client)
    assert len(running) == 40
    assert max(running) <= 4  # two segments per slot, two slots, and the trial itself
