"""``kill -9`` of a worker in mid-search changes nothing in ``cv_results_``; a trial that eats all memory has failed."""

from __future__ import annotations

import os
import signal
import threading
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dask
import numpy as np
import pytest
from distributed import Client, LocalCluster
from search_cases import XR, YR, X, Y, assert_same_results
from sklearn import model_selection
from sklearn.experimental import enable_halving_search_cv  # noqa: F401
from sklearn.linear_model import Ridge, SGDClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from daskml_scale.search import AshaSearchCV, GridSearchCV, HalvingGridSearchCV
from daskml_scale.stages.search import data

PATIENCE = 60.0


class Held(Ridge):  # type: ignore[misc]
    """Says on which process it fits ``alpha=3``, and waits there until it may go on."""

    def __init__(self, alpha: float = 1.0, folder: str = "") -> None:
        super().__init__(alpha=alpha)
        self.folder = folder

    def fit(self, X: Any, y: Any) -> Any:
        at = Path(self.folder)
        if self.folder and self.alpha == 3 and not (at / "go").exists():
            (at / f"pid-{os.getpid()}").touch()
            until = time.monotonic() + PATIENCE
            while not (at / "go").exists() and time.monotonic() < until:
                time.sleep(0.01)
        if self.alpha < 0:
            raise ValueError("no good")
        return super().fit(X, y)


class Hungry(Ridge):  # type: ignore[misc]
    """Takes ever more memory when ``alpha`` is 2."""

    def fit(self, X: Any, y: Any) -> Any:
        taken = []
        until = time.monotonic() + (PATIENCE if self.alpha == 2 else 0)
        while time.monotonic() < until and len(taken) < 40:
            taken.append(np.ones(4 << 20))
            time.sleep(0.02)
        while time.monotonic() < until:
            time.sleep(0.02)
        return super().fit(X, y)


@pytest.fixture(scope="module")
def own_client(copied_workers: None) -> Iterator[Any]:
    with (
        dask.config.set({"distributed.scheduler.allowed-failures": 0}),
        LocalCluster(
            n_workers=2, threads_per_worker=1, memory_limit="700MiB", dashboard_address="127.0.0.1:0", host="127.0.0.1"
        ) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        yield client


class Killer(threading.Thread):
    """Ends the first process that a held fit names, and lets all fits go on."""

    def __init__(self, folder: Path) -> None:
        super().__init__(daemon=True)
        self.folder, self.killed = folder, 0

    def run(self) -> None:
        until = time.monotonic() + PATIENCE
        while not (found := list(self.folder.glob("pid-*"))) and time.monotonic() < until:
            time.sleep(0.01)
        if found:
            self.killed = int(found[0].name[4:])
            os.kill(self.killed, signal.SIGKILL)
        (self.folder / "go").touch()


def grid(folder: str) -> Any:
    options = {"scoring": ["r2", "neg_max_error"], "refit": "r2", "return_train_score": True}
    return model_selection.GridSearchCV, GridSearchCV, Held(folder=folder), {"alpha": [-1, 1, 2, 3, 4, 5]}, options


def shared(folder: str) -> Any:
    model = make_pipeline(StandardScaler(), Held(folder=folder))
    space = {"standardscaler__with_mean": [True, False], "held__alpha": [1, 2, 3, 4]}
    return model_selection.GridSearchCV, GridSearchCV, model, space, {}


def halving(folder: str) -> Any:
    options = {"random_state": 0, "min_resources": 20}
    return model_selection.HalvingGridSearchCV, HalvingGridSearchCV, Held(folder=folder), {"alpha": [1, 3, 5]}, options


@pytest.mark.parametrize(("case", "logged"), [(grid, False), (grid, True), (shared, False), (halving, False)])
def test_a_worker_killed_in_mid_search_changes_no_result(
    case: Any, logged: bool, own_client: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(data, "PLACED_BYTES", 0)
    folder = tmp_path / "held"
    folder.mkdir()
    theirs, ours, _, space, options = case("")
    more = {"out": tmp_path / "out"} if logged else {}
    killer = Killer(folder)
    killer.start()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        search = ours(case(str(folder))[2], space, cv=3, client=own_client, **options, **more).fit(XR, YR)
        killer.join()
        assert killer.killed not in (0, os.getpid())
        assert_same_results(search, theirs(case("")[2], space, cv=3, **options).fit(XR, YR))


@pytest.mark.slow
def test_a_trial_that_takes_all_memory_is_a_failed_trial_and_the_others_are_not(own_client: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        cv = [(np.arange(60), np.arange(60, 120))]
        search = GridSearchCV(
            Hungry(), {"alpha": [1, 2, 3]}, cv=cv, error_score=-7.0, return_train_score=True, client=own_client
        ).fit(XR, YR)
    for name in ("mean_test_score", "mean_train_score"):
        scores = search.cv_results_[name]
        assert scores[1] == -7
        assert (scores[[0, 2]] > 0).all()


class Deadly(SGDClassifier):  # type: ignore[misc]
    """Ends its process when ``alpha`` is 2."""

    def partial_fit(self, X: Any, y: Any, **more: Any) -> Any:
        if self.alpha == 2:
            os._exit(1)
        return super().partial_fit(X, y, **more)


@pytest.mark.slow
def test_a_trial_that_ends_its_workers_is_a_failed_trial_and_the_others_go_on(own_client: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        cv = [(np.arange(60), np.arange(60, 120))]  # one split: each death takes seconds
        search = AshaSearchCV(
            Deadly(random_state=0), {"alpha": [1e-4, 1e-3, 2]}, n_trials=3, max_resources=3, cv=cv, client=own_client
        ).fit(X, Y)
    scores = {params["alpha"]: score for params, score in zip(
        search.cv_results_["params"], search.cv_results_["mean_test_score"], strict=True)}  # fmt: skip
    assert np.isnan(scores[2])
    assert np.isfinite([scores[1e-4], scores[1e-3]]).all()
