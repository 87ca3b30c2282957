"""The contract with scikit-learn's private parts: what ``_compat`` relies on, in the version installed."""

from __future__ import annotations

import re
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import sklearn
from search_cases import XR, YR, X, Y, assert_same_results
from sklearn import model_selection
from sklearn.dummy import DummyClassifier
from sklearn.linear_model import Ridge

from daskml_scale.stages.search import _compat
from daskml_scale.stages.search._compat import Call, Scored, fit_params, fit_with, gather, metrics


def recorded(search: Any, X: Any, y: Any, **params: Any) -> tuple[list[list[Call]], Any]:
    """Fit through ``fit_with`` with the calls made here, one after the other; return all rounds, and the search."""
    rounds: list[list[Call]] = []

    def run(calls: list[Call]) -> list[Scored]:
        rounds.append(calls)
        work = gather(calls)
        return [work.fit_and_score(*divmod(number, len(work.splits))) for number in range(len(calls))]

    return rounds, fit_with(run)(search, X, y, **params)


def test_scikit_learns_fit_hands_over_all_its_fits_in_one_round_candidate_by_candidate() -> None:
    search = model_selection.GridSearchCV(Ridge(), {"alpha": [1.0, 2.0, 3.0]}, cv=2)
    rounds, _ = recorded(search, XR, YR)
    assert len(rounds) == 1
    keywords = [call[2] for call in rounds[0]]
    assert [k["parameters"]["alpha"] for k in keywords] == [1.0, 1.0, 2.0, 2.0, 3.0, 3.0]
    assert [k["split_progress"] for k in keywords] == [(0, 2), (1, 2)] * 3
    assert [k["candidate_progress"] for k in keywords] == [(c, 3) for c in (0, 0, 1, 1, 2, 2)]
    for _, (estimator, data, target), k in rounds[0]:
        assert isinstance(estimator, Ridge)
        assert data is XR
        assert target is YR
        assert np.array_equal(k["train"], keywords[k["split_progress"][0]]["train"])


def test_the_rounds_options_are_all_that_scikit_learn_passes_beside_what_differs() -> None:
    rounds, _ = recorded(model_selection.GridSearchCV(Ridge(), {"alpha": [1.0]}, cv=2), XR, YR)
    work = gather(rounds[0])
    assert set(work.options) == {
        "scorer", "fit_params", "score_params", "return_train_score", "return_n_test_samples", "return_times",
        "return_parameters", "error_score", "verbose",
    }  # fmt: skip
    assert set(rounds[0][0][2]) - set(work.options) <= {
        "train", "test", "parameters", "split_progress", "candidate_progress", "caller", "callback_ctx",
    }  # fmt: skip
    assert work.config == sklearn.get_config()


def test_a_fit_through_gathered_rounds_gives_scikit_learns_results() -> None:
    def search() -> Any:
        scoring = ["r2", "neg_mean_squared_error"]
        return model_selection.GridSearchCV(Ridge(), {"alpha": [1.0, 9.0]}, scoring=scoring, refit="r2")

    weight = np.arange(len(YR)) + 1.0
    _, ours = recorded(search(), XR, YR, sample_weight=weight)
    assert_same_results(ours, search().fit(XR, YR, sample_weight=weight))


def test_a_lost_fit_has_the_keys_and_kinds_of_one_that_failed() -> None:
    for scoring, refit in (("accuracy", True), (["accuracy", "f1_macro"], "accuracy")):
        search = model_selection.GridSearchCV(
            DummyClassifier(strategy="constant"), {"constant": ["not a class", 0]}, cv=2, scoring=scoring, refit=refit,
            return_train_score=True,
        )  # fmt: skip
        kept: list[Scored] = []
        rounds: list[Any] = []

        def run(calls: list[Call], kept: list[Scored] = kept, rounds: list[Any] = rounds) -> list[Scored]:
            work = gather(calls)
            rounds.append(work)
            kept.extend(work.fit_and_score(*divmod(number, 2)) for number in range(4))
            return kept

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            fit_with(run)(search, X, Y)
        failed, lost = kept[0], rounds[0].lost(0, "WorkerLost: gone")
        assert failed["fit_error"]
        times = ("fit_time", "score_time", "fit_error")
        assert {k: repr(v) for k, v in lost.items() if k not in times} == {
            k: repr(v) for k, v in failed.items() if k not in times
        }
        assert set(lost) == set(failed)


def test_fit_parameters_and_metrics_of_a_search_are_found() -> None:
    search = model_selection.GridSearchCV(Ridge(), {}, scoring=["r2", "neg_mean_absolute_error"], refit=False)
    assert metrics(search) == ["neg_mean_absolute_error", "r2"]
    assert fit_params(search, {"sample_weight": 3}) == {"sample_weight": 3}


def test_no_other_module_touches_private_parts() -> None:
    folder = Path(_compat.__file__).parent
    private = re.compile(
        r"from sklearn[\w.]*\._\w+ import|from sklearn[\w.]* import [^#\n]*\b_|\._(get_\w+|scorers|bin_\w+)\b"
    )
    assert {path.name for path in folder.glob("*.py") if private.search(path.read_text())} == {"_compat.py", "bins.py"}
