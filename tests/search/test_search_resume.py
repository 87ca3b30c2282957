"""What a search keeps under ``out=``: a killed search goes on, and no logged fit is made twice."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import loguniform
from search_cases import XR, YR, Odd, X, Y, assert_same_results, multimetric_list, train_scores
from sklearn import model_selection
from sklearn.linear_model import LogisticRegression, Ridge, SGDClassifier

from daskml_scale.errors import UntrustedError, UsageError
from daskml_scale.search import AshaSearchCV, GridSearchCV, HalvingGridSearchCV, OptunaSearchCV, RandomizedSearchCV
from daskml_scale.stages.search.log import identity
from daskml_scale.storage.ledger import Ledger

HERE = Path(__file__).parent
SCRIPT = """
import os, signal, sys
sys.path.insert(0, sys.argv[3])
import search_resume_work as work
work.search(sys.argv[1], sys.argv[2])
"""


def fits_of(folder: Path) -> int:
    return sum(1 for _ in folder.iterdir())


@pytest.mark.parametrize("on_cluster", [False, True])
def test_a_second_search_makes_no_fit_again_and_gives_the_same(on_cluster: bool, client: Any, tmp_path: Path) -> None:
    noted, out = tmp_path / "noted", str(tmp_path / "out")
    noted.mkdir()
    more = {"client": client} if on_cluster else {}

    def fitted() -> Any:
        search = GridSearchCV(Odd(folder=str(noted)), {"bias": [0, 1, 2]}, cv=3, refit=False, out=out, **more)
        return search.fit(X, Y)

    first, count = fitted(), fits_of(noted)
    assert count == 9
    again = fitted()
    assert fits_of(noted) == count
    assert_same_results(again, first)
    assert list(again.cv_results_["mean_fit_time"]) == list(first.cv_results_["mean_fit_time"])
    wider = GridSearchCV(Odd(folder=str(noted)), {"bias": [3, 2, 1, 0]}, cv=3, refit=False, out=out, **more).fit(X, Y)
    assert fits_of(noted) == count + 3
    assert_same_results(wider, model_selection.GridSearchCV(Odd(), {"bias": [3, 2, 1, 0]}, cv=3, refit=False).fit(X, Y))


@pytest.mark.parametrize("case", [train_scores, multimetric_list], ids=lambda case: case.__name__)
def test_results_from_the_log_equal_scikit_learns(case: Any, tmp_path: Path) -> None:
    estimator, grid, options, data, target, params = case()
    theirs = model_selection.GridSearchCV(estimator, grid, **options).fit(data, target, **params)
    for _ in range(2):
        ours = GridSearchCV(estimator, grid, out=tmp_path / "out", **options).fit(data, target, **params)
        assert_same_results(ours, theirs)


@pytest.mark.parametrize(
    "change",
    [
        lambda: {"X": X + 1},
        lambda: {"y": 1 - (Y > 0)},
        lambda: {"scoring": "f1_macro"},
        lambda: {"estimator": LogisticRegression(max_iter=301)},
        lambda: {"cv": 4},
        lambda: {"weight": np.ones(len(Y))},
    ],
)
def test_what_a_fit_depends_on_is_part_of_what_it_is_known_by(change: Any, tmp_path: Path) -> None:
    def fitted(X: Any = X, y: Any = Y, estimator: Any = None, weight: Any = None, **more: Any) -> int:
        out = tmp_path / "out"
        model = estimator or LogisticRegression(max_iter=300)
        more = {"cv": 3, "scoring": "accuracy", **more}
        params = {} if weight is None else {"sample_weight": weight}
        GridSearchCV(model, {"C": [1.0]}, out=out, refit=False, **more).fit(X, y, **params)
        return len(Ledger(str(out / "search.ledger")).records())

    first = fitted()
    assert fitted() == first
    assert fitted(**change()) > first


def test_a_halving_search_goes_on_from_its_log(client: Any, tmp_path: Path) -> None:
    def fitted(**more: Any) -> Any:
        from sklearn.experimental import enable_halving_search_cv  # noqa: F401

        return HalvingGridSearchCV(Ridge(), {"alpha": [0.1, 1.0, 10.0, 100.0]}, cv=2, random_state=0, **more).fit(
            XR, YR
        )

    first = fitted(out=tmp_path / "out", client=client)
    before = len(Ledger(str(tmp_path / "out" / "search.ledger")).records())
    assert_same_results(fitted(out=tmp_path / "out"), first)
    assert len(Ledger(str(tmp_path / "out" / "search.ledger")).records()) == before
    assert_same_results(first, fitted())


@pytest.mark.parametrize("kind", ["grid", "asha", "optuna"])
def test_a_search_killed_by_kill_9_goes_on_and_ends_as_if_nothing_had_happened(kind: str, tmp_path: Path) -> None:
    import search_resume_work as work

    def start(name: str) -> subprocess.Popen[bytes]:
        (tmp_path / name).mkdir(exist_ok=True)
        script = [sys.executable, "-c", SCRIPT, kind, str(tmp_path / name), str(HERE)]
        return subprocess.Popen(script, env={**os.environ, "PYTHONWARNINGS": "ignore"})

    whole = start("whole")
    killed = start("killed")
    noted = tmp_path / "killed" / "noted"
    until = time.monotonic() + 60
    while time.monotonic() < until and (not noted.exists() or len(work.noted(noted)) < 6):
        time.sleep(0.02)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    assert not (tmp_path / "killed" / "result.json").exists()
    records = Ledger(str(tmp_path / "killed" / "out" / "search.ledger")).records()
    logged = len([key for key in records if key.startswith(("fit/", "rung/"))])
    before = len(work.noted(noted))
    assert start("killed").wait(timeout=120) == 0
    assert whole.wait(timeout=120) == 0
    assert work.result(tmp_path / "killed") == work.result(tmp_path / "whole")
    total = len(work.noted(tmp_path / "whole" / "noted"))
    assert len(work.noted(noted)) - before == total - logged  # only what was not logged ran again


def test_a_sampler_goes_on_and_suggests_nothing_twice(tmp_path: Path) -> None:
    import optuna

    def params(trials: int) -> list[float]:
        search = OptunaSearchCV(
            Ridge(), {"alpha": loguniform(0.01, 10)}, n_trials=trials, cv=2, out=tmp_path / "out", random_state=3,
            sampler=optuna.samplers.RandomSampler(seed=3),
        )  # fmt: skip
        return [each["alpha"] for each in search.fit(XR, YR).cv_results_["params"]]

    first, more = params(4), params(8)
    assert more[:4] == first
    assert len(set(more)) == 8


class Stops(Ridge):  # type: ignore[misc]
    """Fails for now where its module says so."""

    fits = 0

    def fit(self, X: Any, y: Any) -> Any:
        Stops.fits += 1
        if Stops.fits == 6:
            raise InterruptedError
        return super().fit(X, y)


def test_a_kept_study_has_each_trial_once_after_a_crash(tmp_path: Path) -> None:
    import optuna

    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.RandomSampler(seed=3))
    search = OptunaSearchCV(
        Stops(), {"alpha": loguniform(0.01, 10)}, n_trials=4, cv=2, out=tmp_path / "out", study=study, refit=False,
        error_score="raise", constraints=lambda told: {"small": told["params"]["alpha"] - 1},
    )  # fmt: skip
    with pytest.raises(InterruptedError):
        search.fit(XR, YR)
    assert [trial.state.name for trial in study.trials] == ["COMPLETE", "COMPLETE", "RUNNING"]
    search.fit(XR, YR)
    assert [trial.state.name for trial in study.trials] == ["COMPLETE", "COMPLETE", "FAIL", "COMPLETE", "COMPLETE"]
    told = [trial.value for trial in study.trials if trial.value is not None]
    assert told == list(search.cv_results_["mean_test_score"])
    assert list(search.cv_results_["feasible"]) == [params["alpha"] <= 1 for params in search.cv_results_["params"]]
    assert Stops.fits <= 6 + 4


def test_trials_drawn_without_a_seed_are_the_same_after_a_crash(tmp_path: Path) -> None:
    def drawn() -> list[float]:
        search = AshaSearchCV(
            SGDClassifier(random_state=0), {"alpha": loguniform(1e-4, 1)}, n_trials=4, max_resources=3, cv=2,
            out=tmp_path / "out",
        )  # fmt: skip
        return [each["alpha"] for each in search.fit(X, Y > 0).cv_results_["params"]]

    assert drawn() == drawn()


def test_folders_that_are_no_place_for_results_are_refused(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.tex").touch()
    for out, text in (
        (tmp_path / "other", "holds other files"),
        (tmp_path / "x.zarr", "name of a dataset"),
        (3, "int"),
    ):
        with pytest.raises(UsageError, match=text):
            RandomizedSearchCV(Ridge(), {"alpha": [1.0]}, n_iter=1, out=out).fit(XR, YR)


def test_an_estimator_is_known_by_its_code_and_parameters_not_by_its_address() -> None:
    def make(factor: int) -> Any:
        class Scaled(Ridge):  # type: ignore[misc]
            def fit(self, X: Any, y: Any) -> Any:
                return super().fit(X * factor, y)

        return Scaled()

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert identity(make(2)) == identity(make(2))
        assert identity(make(2)) != identity(make(3))
    assert identity(Ridge(alpha=1.0)) == identity(Ridge(alpha=1.0))
    assert identity(Ridge(alpha=1.0)) != identity(Ridge(alpha=2.0))
    assert identity(["a", "b"]) != identity(["ab"])


class Touches:
    """Touches a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("kind", ["model", "sampler"])
def test_a_pickle_that_the_search_did_not_write_is_never_loaded(kind: str, tmp_path: Path) -> None:
    out = tmp_path / "out"

    def fitted(trials: int) -> Any:
        more = {"n_trials": trials, "random_state": 0, "cv": 2, "out": out}
        if kind == "sampler":
            return OptunaSearchCV(Ridge(), {"alpha": loguniform(0.01, 10)}, **more).fit(XR, YR)
        model = SGDClassifier(random_state=0)
        return AshaSearchCV(model, {"alpha": loguniform(1e-4, 1)}, max_resources=9, min_resources=1, **more).fit(X, Y)

    fitted(6)
    pickles = list(out.rglob("search.sampler-*.pkl" if kind == "sampler" else "search.states/*.pkl"))
    assert pickles
    for path in pickles:
        path.write_bytes(pickle.dumps(Touches(tmp_path / "ran")))
    with pytest.warns(UserWarning, match="is not the file that the search wrote"):
        fitted(18)
    assert not (tmp_path / "ran").exists()


def test_a_folder_that_another_user_wrote_is_refused_where_pickles_would_be_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    more = {"cv": 2, "out": tmp_path / "out"}
    GridSearchCV(Ridge(), {"alpha": [1.0]}, **more).fit(XR, YR)
    mine = os.getuid()
    monkeypatch.setattr(os, "getuid", lambda: mine + 1)
    with pytest.raises(UntrustedError, match=rf"belongs to user {mine} and you are user {mine + 1}.*copy the folder"):
        AshaSearchCV(Ridge(), {"alpha": [1.0]}, n_trials=1, **more).fit(XR, YR)
    GridSearchCV(Ridge(), {"alpha": [1.0]}, **more).fit(XR, YR)  # its records are no pickles
