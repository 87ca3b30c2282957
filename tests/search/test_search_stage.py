"""The search stage on a synthetic feature matrix: plans, reuse, determinism, failures."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from daskml_scale.engine.worker import Cache, WorkerContext
from daskml_scale.errors import DaskMLError, PlanError, SpecError, UnitsFailedError
from daskml_scale.plan.records import digest
from daskml_scale.plan.units import Template, Variable
from daskml_scale.spec.space import seed_from
from daskml_scale.spec.workflow import SearchSpec
from daskml_scale.stages.matrix import load_matrix, matrix_inputs
from daskml_scale.stages.run import run_stage
from daskml_scale.stages.search.passes import steps
from daskml_scale.stages.search.splits import make_splits
from daskml_scale.stages.search.stage import SearchStage
from daskml_scale.stages.search.stage_check import check
from daskml_scale.storage import stores
from daskml_scale.storage.ledger import Ledger

ROWS, CHUNK = 600, 100
HOURS = {"units": "seconds since 1970-01-01", "_FillValue": -(2**63)}
LOGISTIC = {"sklearn.linear_model.LogisticRegression": {"max_iter": 200}}
TIME = {"time": {"of": "sched", "train_until": "1970-01-16", "validate_until": "1970-01-21"}}


def settings(searching: SearchStage) -> list[dict[str, Any]]:
    """Return the settings to try, by trial number, as far as they are known before anything ran."""
    found, _ = steps(searching.space, searching.sampler, searching.early_stopping, searching.seed, lambda *_: False)
    return [dict(step.params) for step in found]


def write_matrix(url: str, seed: int = 0, time: str = "sched") -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Write a matrix of hourly rows with a learnable target, every 7th missing; return features, target, hours."""
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(ROWS, 3)).astype("float32")
    late = (features[:, 0] + rng.normal(size=ROWS) > 0).astype("float64")
    late[::7] = np.nan
    hours = np.arange(ROWS)
    variables = {
        "features": Variable("float32", ("flight", "feature"), (ROWS, 3), (50, 3), (CHUNK, 3)),
        "feature": Variable("string", ("feature",), (3,), (3,)),
        "late": Variable("float64", ("flight",), (ROWS,), (CHUNK,)),
        time: Variable("int64", ("flight",), (ROWS,), (CHUNK,), None, HOURS, -(2**63)),
        "number": Variable("int64", ("flight",), (ROWS,), (CHUNK,)),
    }
    attrs = {"target": "late", "row_key": [time, "number"], "recipe": {}, "recipe_hash": "abc"}
    stores.create(url, Template("flight", ROWS, variables, attrs, {"feature": ["a", "b", "c"]}))
    stores.write_region(url, 0, {"features": features, "late": late, time: hours * 3600, "number": hours})
    return features, late, hours


@pytest.fixture
def matrix(tmp_path: Path) -> str:
    url = str(tmp_path / "features.zarr")
    write_matrix(url)
    return url


def stage(matrix: str, **changes: Any) -> SearchStage:
    spec = SearchSpec.model_validate(
        {
            "kind": "search",
            "input": "features",
            "estimator": LOGISTIC,
            "space": {"C": {"loguniform": [0.01, 10]}},
            "sampler": {"random": {"trials": 4}},
            "scoring": "roc_auc",
            "split": TIME,
            **changes,
        }
    )
    fields = ("estimator", "space", "sampler", "scoring", "split", "early_stopping")
    ledger = matrix.replace("features.zarr", "search.ledger")
    return SearchStage("search", ledger, matrix, **{name: getattr(spec, name) for name in fields}, seed=7)


def plan_of(searching: SearchStage) -> Any:
    records = Ledger(searching.ledger).records()
    return searching.plan({"matrix": stores.snapshot(searching.input)}, records)


def test_a_search_scores_as_scikit_learn_by_hand_and_names_the_best(matrix: str) -> None:
    features, late, hours = write_matrix(matrix)
    searching = stage(matrix)
    result = run_stage(searching).result
    known = ~np.isnan(late)
    train, test = known & (hours < 15 * 24), known & (hours >= 15 * 24) & (hours < 20 * 24)
    expected = [
        roc_auc_score(late[test], LogisticRegression(max_iter=200, **params).fit(features[train], late[train])
                      .predict_proba(features[test])[:, 1])
        for params in settings(searching)
    ]  # fmt: skip
    assert [trial["score"] for trial in result["trials"]] == pytest.approx(expected, abs=1e-12)
    assert result["best_trial"] == int(np.argmax(expected))
    assert result["best_score"] == max(trial["score"] for trial in result["trials"])
    assert result["best_params"] == settings(searching)[result["best_trial"]]
    assert result["estimator"] == LOGISTIC
    assert Ledger(searching.ledger).result() == result


@pytest.mark.parametrize("name", ["Placed (local)", "from", "Prix €"])
def test_a_column_of_times_may_have_any_name(matrix: str, name: str) -> None:
    expected = run_stage(stage(matrix)).result["best_score"]
    other = matrix.replace("features.zarr", "other/features.zarr")
    write_matrix(other, time=name)
    split = {"time": {**TIME["time"], "of": name}}
    assert run_stage(stage(other, split=split)).result["best_score"] == expected


def test_the_plan_says_what_it_runs_and_what_a_unit_needs(matrix: str) -> None:
    plan = plan_of(stage(matrix, split={"kfold": {"folds": 3}}))
    assert plan.grid == "4 trials x 3 splits of 600 rows"
    assert [unit.key for unit in plan.units][:4] == [
        "trial/0000/split/0", "trial/0000/split/1", "trial/0000/split/2", "trial/0001/split/0",
    ]  # fmt: skip
    assert plan.memory > 600 * 3 * 4 * 2
    assert plan.reasons == {"new": 12}


def test_more_trials_reuse_the_earlier_ones_and_a_changed_estimator_reruns_all(matrix: str) -> None:
    run_stage(stage(matrix))
    more = plan_of(stage(matrix, sampler={"random": {"trials": 6}}))
    assert [unit.key for unit in more.units] == ["trial/0004/split/0", "trial/0005/split/0"]
    assert more.reused == 4
    other = plan_of(stage(matrix, estimator={"sklearn.linear_model.LogisticRegression": {}}))
    assert other.reasons == {"parameters changed": 4}
    assert plan_of(replace(stage(matrix), seed=8)).reasons == {"parameters changed": 4}


def test_a_changed_choice_reruns_only_the_settings_that_changed(matrix: str) -> None:
    grid = {"sampler": {"grid": {}}}
    run_stage(stage(matrix, space={"C": [0.1, 1.0, 10.0]}, **grid))
    changed = plan_of(stage(matrix, space={"C": [0.1, 2.0, 10.0]}, **grid))
    assert [unit.key for unit in changed.units] == ["trial/0001/split/0"]


def test_new_data_reruns_and_no_change_runs_nothing(matrix: str) -> None:
    run_stage(stage(matrix))
    assert plan_of(stage(matrix)).units == ()
    write_matrix(matrix, seed=1)
    assert plan_of(stage(matrix)).reasons == {"input changed": 4}


def test_two_runs_and_a_cluster_give_equal_records(matrix: str, tmp_path: Path, client: Any) -> None:
    forest = {"sklearn.ensemble.RandomForestClassifier": {"n_estimators": 5}}
    options = {"estimator": forest, "space": {"max_depth": [2, 4]}, "sampler": {"grid": {}},
               "split": {"kfold": {"folds": 3, "shuffle": True}}}  # fmt: skip
    found = []
    for name, more in (("one", {}), ("two", {}), ("three", {"client": client})):
        searching = replace(stage(matrix, **options), ledger=str(tmp_path / f"{name}.ledger"))
        run_stage(searching, **more)
        found.append(sorted(record.identity() for record in Ledger(searching.ledger).records().values()))
    assert found[0] == found[1] == found[2]


def test_a_random_state_follows_the_unit_unless_it_is_given(matrix: str) -> None:
    from daskml_scale.stages.estimator import build_estimator

    forest = "sklearn.ensemble.RandomForestClassifier"
    seed = seed_from(7, "trial/0000/split/0")
    assert build_estimator({forest: {}}, {}, seed).random_state == seed
    assert build_estimator({forest: {"random_state": 5}}, {}, seed).random_state == 5
    assert build_estimator({forest: {}}, {"random_state": 6}, seed).random_state == 6
    bagging = build_estimator({"sklearn.ensemble.BaggingClassifier": {}}, {"n_estimators": 3}, seed)
    assert (bagging.random_state, bagging.n_estimators) == (seed, 3)


def test_a_failing_trial_is_recorded_and_the_rest_decides(matrix: str) -> None:
    searching = stage(matrix, space={"C": [-1.0, 1.0]}, sampler={"grid": {}})
    result = run_stage(searching)
    assert [trial["score"] is None for trial in result.result["trials"]] == [True, False]
    assert "'C' parameter of LogisticRegression must be" in result.result["trials"][0]["error"]
    assert result.result["best_trial"] == 1
    assert "1 of 2 trials failed" in result.warnings[0]
    assert plan_of(searching).units == ()


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"space": {"C": [-1.0, -2.0]}, "sampler": {"grid": {}}}, "all 2 trials failed.*'C' parameter"),
        ({"split": {"time": {**TIME["time"], "train_until": "1960-01-01"}}}, "no row with a target has sched before"),
    ],
)  # fmt: skip
def test_when_no_trial_has_a_score_the_stage_fails_and_says_why(matrix: str, changes: Any, text: str) -> None:
    with pytest.raises(DaskMLError, match=text):
        run_stage(stage(matrix, **changes))


def test_a_score_that_is_not_finite_is_a_failed_trial(matrix: str) -> None:
    # Without positives among the validated rows the area under the curve is undefined.
    _, late, hours = write_matrix(matrix)
    late[hours >= 15 * 24] = 0.0
    stores.write_region(matrix, 0, {"late": late})
    with (
        pytest.warns(UserWarning, match="Only one class"),
        pytest.raises(UnitsFailedError, match=r"all 4 trials failed[\s\S]*the score is nan"),
    ):
        run_stage(stage(matrix))


@pytest.mark.parametrize(
    ("changes", "path", "text"),
    [
        ({"space": {"c": [1.0]}}, "space.c", "no parameter 'c'; did you mean 'C'?"),
        ({"scoring": "roc_acu"}, "scoring", "did you mean 'roc_auc'?"),
        ({"estimator": {"sklearn.linear_model.Rigde": {}}}, "estimator", "did you mean 'Ridge'?"),
        ({"estimator": {"sklearn.linear_modell.Ridge": {}}}, "estimator", "cannot import"),
        ({"estimator": {"sklearn.linear_model.Ridge": {"alfa": 1}}}, "estimator", "did you mean 'alpha'?"),
        ({"estimator": {"os.system": {}}}, "estimator", "is not a scikit-learn estimator"),
        ({"sampler": {"grid": {}}}, "space", "a grid takes choices only"),
    ],
)  # fmt: skip
def test_what_a_file_alone_can_tell_is_refused_before_anything_runs(
    matrix: str, changes: Any, path: str, text: str
) -> None:
    searching = stage(matrix, **changes)
    for attempt in (lambda: check(searching), lambda: run_stage(searching)):
        with pytest.raises(SpecError) as caught:
            attempt()
        assert caught.value.path == path
        assert text in str(caught.value)
    assert not Ledger(searching.ledger).records()


@pytest.mark.parametrize(
    ("of", "text"), [("shed", "no column 'shed'; did you mean 'sched'?"), ("number", "'number' is not a time")]
)
def test_a_split_by_a_column_that_is_not_there_or_not_a_time_is_refused(matrix: str, of: str, text: str) -> None:
    with pytest.raises(PlanError) as caught:
        plan_of(stage(matrix, split={"time": {**TIME["time"], "of": of}}))
    assert text in str(caught.value)


def test_a_matrix_that_is_not_there_has_no_target_or_is_a_table_is_refused(matrix: str, tmp_path: Path) -> None:
    with pytest.raises(PlanError, match="run the stage that writes it"):
        stage(matrix).plan({"matrix": None}, {})
    snapshot = stores.snapshot(matrix)
    assert snapshot is not None
    with pytest.raises(PlanError, match="name one in the features stage"):
        matrix_inputs(replace(snapshot, attrs={**snapshot.attrs, "target": ""}))
    with pytest.raises(PlanError, match="is not a feature matrix"):
        matrix_inputs(replace(snapshot, variables={"late": snapshot.variables["late"]}))


def test_rows_are_loaded_once_per_process_and_only_those_wanted_with_a_target(matrix: str) -> None:
    features, late, hours = write_matrix(matrix)
    worker = WorkerContext(cache=Cache())
    snapshot = stores.snapshot(matrix)
    assert snapshot is not None
    where = "sched >= time('1970-01-03') and number < 450"
    ids = matrix_inputs(snapshot, where)
    X, y, columns = load_matrix(matrix, ids, where, worker)
    wanted = ~np.isnan(late) & (hours >= 48) & (hours < 450)
    assert np.array_equal(X, features[wanted])
    assert np.array_equal(y, late[wanted])
    assert columns == ("a", "b", "c")
    assert X.dtype == np.float32
    assert load_matrix(matrix, ids, where, worker)[0] is X
    assert worker.cache.loads == 1
    assert ids != matrix_inputs(snapshot)
    with pytest.raises(ValueError, match="read-only"):
        X[0, 0] = 1


def test_folds_are_stratified_for_a_class_and_the_same_for_the_same_seed(matrix: str) -> None:
    from daskml_scale.stages.matrix import read_rows

    rows = read_rows(matrix, None)
    split = stage(matrix, split={"kfold": {"folds": 4, "shuffle": True}}).split
    once, again, other = (make_splits(split, rows, LogisticRegression(), seed) for seed in (1, 1, 2))
    assert digest([test.tolist() for _, test in once]) == digest([test.tolist() for _, test in again])
    assert digest([test.tolist() for _, test in once]) != digest([test.tolist() for _, test in other])
    shares = [rows.y[test].mean() for _, test in once]
    assert max(shares) - min(shares) < 2 / min(len(test) for _, test in once)
    assert sorted(np.concatenate([test for _, test in once])) == list(range(len(rows.y)))


def test_a_time_split_of_sorted_rows_copies_nothing(matrix: str) -> None:
    from daskml_scale.stages.matrix import read_rows

    rows = read_rows(matrix, None, ["sched"])
    ((train, test),) = make_splits(stage(matrix).split, rows, LogisticRegression(), 0)
    assert isinstance(train, slice)
    assert isinstance(test, slice)
    assert np.shares_memory(rows.X[train], rows.X)
    assert train.stop == test.start


def test_trees_are_searched_on_rows_with_missing_features(matrix: str) -> None:
    features, _, _ = write_matrix(matrix)
    features[::5, 1] = np.nan
    stores.write_region(matrix, 0, {"features": features})
    for split in (TIME, {"kfold": {"folds": 2}}):
        searching = stage(
            matrix, estimator={"sklearn.ensemble.RandomForestClassifier": {"n_estimators": 5}},
            space={"max_depth": [2, 3]}, sampler={"grid": {}}, split=split,
        )  # fmt: skip
        assert [trial["score"] is None for trial in run_stage(searching).result["trials"]] == [False, False]


def test_a_trial_that_centres_its_rows_in_place_leaves_the_next_ones_alone(matrix: str) -> None:
    features, _, _ = write_matrix(matrix)
    stores.write_region(matrix, 0, {"features": features + 5})
    common = {"space": {"fit_intercept": [True, True]}, "sampler": {"grid": {}}, "scoring": "r2"}
    found = []
    for copy in (True, False):
        estimator = {"sklearn.linear_model.LinearRegression": {"copy_X": copy}}
        searching = replace(stage(matrix, estimator=estimator, **common), ledger=f"{matrix}-{copy}.ledger")
        found.append([trial["score"] for trial in run_stage(searching).result["trials"]])
    assert found[0] == found[1]
    assert found[1][0] == found[1][1]


def test_halving_takes_the_best_to_the_next_rung_and_reuses_what_is_known(matrix: str) -> None:
    stopping = {"resource": "n_samples", "min": 50, "max": 400, "factor": 2}
    searching = stage(matrix, sampler={"random": {"trials": 8}}, early_stopping=stopping)
    result = run_stage(searching).result
    reached = sorted((trial["resource"] for trial in result["trials"]), reverse=True)
    assert reached == [400, 200, 100, 100, 50, 50, 50, 50]
    assert len(Ledger(searching.ledger).records()) == 8 + 4 + 2 + 1
    best = next(trial for trial in result["trials"] if trial["trial"] == result["best_trial"])
    assert best["resource"] == 400
    assert plan_of(searching).units == ()
    assert len(plan_of(searching).keys) == 15
    fewer = plan_of(replace(searching, early_stopping=searching.early_stopping.model_copy(update={"max": 200})))
    assert fewer.units == ()  # its rungs are among those that were run


def test_halving_by_a_parameter_gives_it_to_the_estimator(matrix: str) -> None:
    stopping = {"resource": "n_estimators", "min": 2, "max": 8, "factor": 2}
    forest = {"sklearn.ensemble.RandomForestClassifier": {}}
    searching = stage(matrix, estimator=forest, space={"max_depth": [1, 2, 3, 4]}, sampler={"grid": {}},
                      early_stopping=stopping, split={"kfold": {"folds": 2}})  # fmt: skip
    result = run_stage(searching).result
    assert result["best_params"]["n_estimators"] == 8
    assert [trial["params"]["n_estimators"] for trial in result["trials"]].count(2) == 2


def test_suggestions_come_in_batches_from_the_scores_so_far_and_are_the_same_again(matrix: str, tmp_path: Path) -> None:
    pytest.importorskip("optuna")
    options = {"sampler": {"optuna": {"trials": 7, "batch": 3}}}
    found = []
    for name in ("one", "two"):
        searching = replace(stage(matrix, **options), ledger=str(tmp_path / f"{name}.ledger"))
        first = plan_of(searching)
        assert len(first.units) == 3
        assert first.later == 4
        found.append([trial["params"] for trial in run_stage(searching).result["trials"]])
    assert found[0] == found[1]
    assert len({params["C"] for params in found[0]}) == 7


def test_groups_stay_together_and_a_column_may_name_the_folds(matrix: str) -> None:
    from daskml_scale.stages.matrix import read_rows

    rows = read_rows(matrix, None, ["number"])
    hundreds = replace(rows, keys={"number": np.asarray(rows.keys["number"]) // 100})
    groups = make_splits(stage(matrix, split={"group": {"of": "number", "folds": 3}}).split, hundreds, None, 0)
    assert len(groups) == 3
    for train, test in groups:
        assert not set(hundreds.keys["number"][train]) & set(hundreds.keys["number"][test])
    named = replace(rows, keys={"number": np.asarray(rows.keys["number"]) % 4 - 1})
    folds = make_splits(stage(matrix, split={"predefined": {"of": "number"}}).split, named, None, 0)
    assert [set(named.keys["number"][test]) for _, test in folds] == [{0}, {1}, {2}]
    assert all(-1 in named.keys["number"][train] for train, _ in folds)
    result = run_stage(stage(matrix, split={"group": {"of": "number", "folds": 3}})).result
    assert len(result["trials"][0]["scores"]) == 3


def test_an_embargo_leaves_out_the_rows_before_the_validated_time(matrix: str) -> None:
    from daskml_scale.stages.matrix import read_rows

    rows = read_rows(matrix, None, ["sched"])
    plain, kept = (
        make_splits(stage(matrix, split={"time": {**TIME["time"], **more}}).split, rows, None, 0)[0]
        for more in ({}, {"embargo": "2d"})
    )
    times = np.asarray(rows.keys["sched"])
    assert times[kept[0]].max() < np.datetime64("1970-01-14")
    assert times[plain[0]].max() >= np.datetime64("1970-01-15")
    assert kept[1] == plain[1]


def test_a_conditional_parameter_is_set_only_where_its_condition_holds(matrix: str) -> None:
    space = {"penalty": ["l2", "elasticnet"], "C": [1.0], "solver": ["saga"], "max_iter": [50],
             "l1_ratio": {"choice": [0.2, 0.8], "when": {"penalty": ["elasticnet"]}}}  # fmt: skip
    found = settings(stage(matrix, space=space, sampler={"grid": {}}))
    assert [params.get("l1_ratio") for params in found if params["penalty"] == "l2"] == [None]
    assert sorted(params["l1_ratio"] for params in found if params["penalty"] == "elasticnet") == [0.2, 0.8]


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"early_stopping": {"min": 9, "max": 3}}, "min 9 is above max 3"),
        ({"early_stopping": {"resource": "C", "min": 1, "max": 3}}, "C is the resource"),
        ({"space": {"C": {"choice": [1.0], "when": {"penalti": ["l2"]}}}}, "penalti"),
        ({"sampler": {"optuna": {"trials": 3}}, "early_stopping": {"min": 1, "max": 3}}, "random and grid"),
    ],
)
def test_parts_that_do_not_go_together_are_refused_when_the_file_is_read(matrix: str, changes: Any, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        stage(matrix, **changes)
