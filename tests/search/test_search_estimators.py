"""What the searches are as scikit-learn estimators, and how they fail."""

from __future__ import annotations

import copy
import os
import pickle
import subprocess
import sys
import time
import uuid
import warnings
from pathlib import Path
from typing import Any

import pytest
import sklearn
from distributed import Client
from search_cases import XR, YR, Odd, X, Y
from sklearn import model_selection
from sklearn.base import clone, is_classifier, is_regressor
from sklearn.exceptions import FitFailedWarning
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.utils.estimator_checks import check_estimator

import daskml_scale.search
from daskml_scale.errors import UnitsFailedError, UsageError
from daskml_scale.search import AshaSearchCV, GridSearchCV


class TwoArguments(Exception):
    """Pickles, and then does not unpickle."""

    def __init__(self, first: int, second: int) -> None:
        super().__init__(f"{first} and {second}")


def fits_of(folder: Path) -> dict[int, int]:
    """Return bias -> number of fits that were really made."""
    made = [int(path.name.split("-")[0]) for path in folder.iterdir()]
    return {bias: made.count(bias) for bias in sorted(set(made))}


@pytest.mark.parametrize("error", [KeyError("mine"), ZeroDivisionError(), MemoryError("too big")], ids=repr)
def test_a_raising_fit_surfaces_as_the_users_own_exception(error: Exception, client: Any, tmp_path: Path) -> None:
    search = GridSearchCV(Odd(fails=True, folder=str(tmp_path), error=error), {"bias": [0, 1]}, client=client, cv=2)
    search.set_params(error_score="raise")
    with pytest.raises(type(error)) as caught:
        search.fit(X, Y)
    assert caught.value.args == error.args
    assert "in fit" in "".join(caught.value.__notes__)  # the remote traceback
    assert all(count <= 2 for count in fits_of(tmp_path).values())  # each of the two folds once, none again


def test_a_raising_fit_does_not_wait_for_the_others(client: Any, tmp_path: Path) -> None:
    caught = tmp_path / "caught"

    class Slow(Ridge):  # type: ignore[misc]
        def fit(self, X: Any, y: Any) -> Any:
            if self.alpha == 1:
                raise RuntimeError("at once")
            until = time.monotonic() + 60
            while not caught.exists() and time.monotonic() < until:
                time.sleep(0.05)
            assert caught.exists()
            (tmp_path / f"ended-{uuid.uuid4().hex}").touch()
            return super().fit(X, y)

    with pytest.raises(RuntimeError, match="at once"):
        GridSearchCV(Slow(), {"alpha": [1, 2]}, cv=2, error_score="raise", client=client).fit(XR, YR)
    assert not list(tmp_path.glob("ended-*"))  # the exception came while the others were waiting for it
    caught.touch()


def test_an_exception_that_cannot_travel_is_named_with_its_traceback(client: Any) -> None:
    class Raises(Odd):
        def fit(self, X: Any, y: Any) -> Any:
            raise TwoArguments(1, 2)

    with pytest.raises(UnitsFailedError, match=r"cannot be pickled:\n[\s\S]*TwoArguments: 1 and 2"):
        GridSearchCV(Raises(), {"bias": [0]}, error_score="raise", client=client).fit(X, Y)


def test_when_all_fits_fail_scikit_learns_error_says_so_and_each_ran_once(client: Any, tmp_path: Path) -> None:
    search = GridSearchCV(Odd(fails=True, folder=str(tmp_path)), {"bias": [0, 1, 2]}, cv=3, client=client)
    with pytest.raises(ValueError, match=r"All the 9 fits failed[\s\S]*no good"):
        search.fit(X, Y)
    assert fits_of(tmp_path) == {0: 3, 1: 3, 2: 3}


def test_a_failing_candidate_ranks_last_warns_and_ran_once(client: Any, tmp_path: Path) -> None:
    search = GridSearchCV(Odd(folder=str(tmp_path)), {"bias": [0, 1], "fails": [True, False]}, cv=2, client=client)
    with (
        pytest.warns(FitFailedWarning, match="4 fits failed out of a total of 8"),
        pytest.warns(UserWarning, match="non-finite"),
    ):
        search.fit(X, Y)
    assert search.cv_results_["rank_test_score"].tolist() in ([3, 1, 3, 2], [3, 2, 3, 1])
    assert fits_of(tmp_path) == {0: 4 + (search.best_params_["bias"] == 0), 1: 4 + (search.best_params_["bias"] == 1)}


def test_the_default_client_is_used(cluster: Any, tmp_path: Path) -> None:
    def pids(**more: Any) -> set[int]:
        for path in tmp_path.iterdir():
            path.unlink()
        GridSearchCV(Odd(folder=str(tmp_path)), {"bias": [0, 1]}, refit=False, **more).fit(X, Y)
        return {int(path.name.split("-")[1]) for path in tmp_path.iterdir()}

    assert pids() == {os.getpid()}
    with Client(cluster):
        assert os.getpid() not in pids()
    assert pids() == {os.getpid()}


def test_fits_run_only_where_the_resources_are_that_they_need(client: Any, tmp_path: Path) -> None:
    async def have(amount: int, dask_worker: Any) -> int:
        await dask_worker.set_resources(PLACE=amount)
        return os.getpid()

    one = next(iter(client.scheduler_info(n_workers=-1)["workers"]))
    (pid,) = client.run(have, 1, workers=[one]).values()
    for kind in (GridSearchCV, AshaSearchCV):
        trials = {"n_trials": 4} if kind is AshaSearchCV else {}
        common = {"cv": 2, "refit": False, "client": client, "resources": {"PLACE": 1}}
        kind(Odd(folder=str(tmp_path)), {"bias": [0, 1, 2, 3]}, **common, **trials).fit(X, Y)
    assert {int(path.name.split("-")[1]) for path in tmp_path.iterdir()} == {pid}
    client.run(have, 0, workers=[one])


def test_it_is_said_when_no_worker_has_what_fits_need(client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("daskml_scale.engine.flight.LACKING_SECONDS", 0.5)
    search = GridSearchCV(Odd(), {"bias": [0]}, cv=2, refit=False, client=client, resources={"ODD": 1}, time_budget=2)
    with pytest.warns(UserWarning, match="none of the 2 workers") as said:
        search.fit(X, Y)
    lacking = [str(one.message) for one in said if "has ODD 1" in str(one.message)]
    assert lacking == [
        "GridSearchCV: none of the 2 workers has ODD 1: tasks wait until one comes. Start workers with `dask worker "
        "--resources 'ODD=1'`, use a cluster class with `resources:`, or leave resources= out"
    ]


def test_inside_a_dask_task_it_does_not_wait_for_tasks_of_its_own() -> None:
    def task() -> float:
        return float(GridSearchCV(Ridge(), {"alpha": [1.0]}).fit(XR, YR).best_score_)

    with Client(processes=False, n_workers=1, threads_per_worker=1, dashboard_address="127.0.0.1:0") as client:
        score = client.submit(task).result(timeout=60)
    assert score == model_selection.GridSearchCV(Ridge(), {"alpha": [1.0]}).fit(XR, YR).best_score_


def test_a_clone_keeps_the_client_and_copies_leave_it_out(client: Any) -> None:
    search = GridSearchCV(Ridge(), {"alpha": [1.0]}, client=client)
    assert clone(search).client is client
    assert search.get_params()["client"] is client
    search.fit(XR, YR)
    for other in (pickle.loads(pickle.dumps(search)), copy.deepcopy(search)):
        assert other.client is None
        assert search.client is client
        assert other.predict(XR).tolist() == search.predict(XR).tolist()


@pytest.mark.parametrize("name", ["GridSearchCV", "RandomizedSearchCV", "HalvingGridSearchCV", "HalvingRandomSearchCV"])
def test_it_is_scikit_learns_class_with_a_few_parameters_more(name: str) -> None:
    ours, theirs = getattr(daskml_scale.search, name), getattr(model_selection, name)
    assert issubclass(ours, theirs)
    model, found = Ridge(), {}  # type: ignore[var-annotated]
    own: dict[str, Any] = dict.fromkeys(("client", "out", "resources", "time_budget", "trial_timeout"))
    assert ours(model, found).get_params(deep=False) == {**theirs(model, found).get_params(deep=False), **own}


def test_it_is_of_the_kind_of_its_estimator() -> None:
    assert is_classifier(GridSearchCV(LogisticRegression(), {}))
    assert is_regressor(GridSearchCV(Ridge(), {}))


@pytest.mark.skipif(sklearn.__version__ < "1.9", reason="scikit-learn has callbacks from 1.9 on")
@pytest.mark.parametrize("where", ["here", "cluster", "out"])
def test_callbacks_follow_the_fits(where: str, client: Any, tmp_path: Path) -> None:
    from sklearn.callback.tests._utils import RecordingCallback

    def told(kind: Any, **more: Any) -> Any:
        callback = RecordingCallback()
        search = kind(LogisticRegression(max_iter=300), {"C": [1.0, 2.0]}, cv=2, **more)
        search.set_callbacks(callback).fit(X, Y)
        return sorted((each["name"], each["context"].task_name, each["context"].task_id) for each in callback.record)

    more = {"here": {}, "cluster": {"client": client}, "out": {"out": tmp_path / "out"}}[where]
    theirs = told(model_selection.GridSearchCV)
    assert ("on_fit_task_end", "candidate-split-evaluation", 3) in theirs
    assert told(GridSearchCV, **more) == theirs


@pytest.mark.skipif(sklearn.__version__ < "1.9", reason="scikit-learn has callbacks from 1.9 on")
def test_callbacks_are_refused_where_workers_are_on_other_machines(
    client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    import psutil
    from sklearn.callback import ScoringMonitor

    monkeypatch.setattr(psutil, "net_if_addrs", dict)  # as if 127.0.0.1 were somebody else
    search = GridSearchCV(LogisticRegression(), {"C": [1.0]}, cv=2, client=client)
    with pytest.raises(UsageError, match=r"not of other machines; call set_callbacks\(\)"):
        search.set_callbacks(ScoringMonitor(scoring="accuracy")).fit(X, Y)


def test_wrong_parameters_are_refused_as_in_scikit_learn(client: Any) -> None:
    with pytest.raises(ValueError, match="'error_score' parameter of GridSearchCV must be"):
        GridSearchCV(Ridge(), {"alpha": [1]}, error_score="rise", client=client).fit(XR, YR)
    with pytest.raises(ValueError, match="Invalid parameter 'alpa' for estimator Ridge"):
        GridSearchCV(Ridge(), {"alpa": [1]}, error_score="raise", client=client).fit(XR, YR)
    with pytest.raises(ValueError, match="empty"):
        GridSearchCV(Ridge(), {"alpha": []}, client=client).fit(XR, YR)


@pytest.mark.slow
def test_scikit_learns_estimator_checks_pass_on_a_cluster(cluster: Any) -> None:
    with Client(cluster), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        check_estimator(
            GridSearchCV(Ridge(), {"alpha": [0.1, 1.0]}, cv=2),
            expected_failed_checks={"check_supervised_y_2d": "scikit-learn's own searches fail it"},
            on_skip=None,
        )


def test_the_facade_imports_nothing_until_it_is_used() -> None:
    code = (
        "import sys, daskml_scale.search as s; assert 'sklearn' not in sys.modules; print(dir(s)); "
        "s.GridSearchCV; assert 'sklearn' in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(sorted(daskml_scale.search.__all__))
