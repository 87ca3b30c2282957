"""Fits that take too long, end their worker, or run out of the time of the search; rounds that lose their data."""

from __future__ import annotations

import hashlib
import time
import warnings
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from distributed import Client, LocalCluster
from scipy.stats import loguniform
from search_cases import XR, YR, assert_same_results
from sklearn.exceptions import FitFailedWarning
from sklearn.experimental import enable_halving_search_cv  # noqa: F401
from sklearn.linear_model import Ridge
from sklearn.model_selection import HalvingGridSearchCV as TheirHalving

from daskml_scale.errors import PlanError, UnitsFailedError, UsageError
from daskml_scale.search import AshaSearchCV, GridSearchCV, HalvingGridSearchCV, OptunaSearchCV
from daskml_scale.stages.search import beyond, data
from daskml_scale.stages.search.limits import TrialTimeoutError, limited
from daskml_scale.testing.clusters import eventually


class Sleepy(Ridge):  # type: ignore[misc]
    """Takes ten seconds when alpha is 2."""

    def fit(self, X: Any, y: Any) -> Any:
        for _ in range(1000 if self.alpha == 2 else 0):
            time.sleep(0.01)
        return super().fit(X, y)


@pytest.mark.parametrize("on_cluster", [False, True])
def test_a_fit_that_takes_too_long_is_a_failed_fit(on_cluster: bool, client: Any) -> None:
    more = {"client": client} if on_cluster else {}
    search = GridSearchCV(Sleepy(), {"alpha": [1, 2]}, cv=2, trial_timeout=1.5, error_score=-5.0, **more)
    with pytest.warns(FitFailedWarning, match="TrialTimeoutError: the fit took longer"):
        search.fit(XR, YR)
    assert search.best_params_ == {"alpha": 1}
    assert search.cv_results_["mean_test_score"][1] == -5
    with pytest.raises(TrialTimeoutError, match="trial_timeout"):
        search.set_params(error_score="raise").fit(XR, YR)


def spin(seconds: float) -> None:
    with limited(seconds):
        while True:
            time.sleep(0.001)


def test_a_limit_that_is_not_reached_leaves_no_trace() -> None:
    for _ in range(20):
        with suppress(TrialTimeoutError), limited(0.001):  # a busy machine may take that long for nothing
            pass
        with pytest.raises(TrialTimeoutError):
            spin(0.005)
    time.sleep(0.01)


def test_a_spent_time_budget_gives_what_is_there() -> None:
    class Slow(Ridge):  # type: ignore[misc]
        def fit(self, X: Any, y: Any) -> Any:
            time.sleep(0.05)
            return super().fit(X, y)

    search = GridSearchCV(Slow(), {"alpha": np.arange(1, 101)}, cv=2, time_budget=2.0)
    spent = pytest.warns(UserWarning, match=r"time_budget=2 s is spent; \d+ of 100 candidates")
    with spent, pytest.warns(UserWarning, match="test scores are non-finite"):
        search.fit(XR, YR)
    scores = search.cv_results_["mean_test_score"]
    assert 1 <= np.isfinite(scores).sum() < 100
    assert np.isfinite(scores[search.best_index_])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        halving = HalvingGridSearchCV(
            Slow(), {"alpha": np.arange(1, 31)}, cv=2, time_budget=2.0, random_state=0, min_resources=20
        ).fit(XR, YR)
        asha = AshaSearchCV(Slow(), {"alpha": np.arange(1, 101)}, cv=2, n_trials=100, time_budget=2.0, random_state=0)
        assert np.isfinite(asha.fit(XR, YR).best_score_)
    assert halving.n_iterations_ >= 1
    assert len(asha.cv_results_["params"]) < 100


@pytest.mark.parametrize("kind", [GridSearchCV, AshaSearchCV], ids=lambda kind: kind.__name__)
def test_a_spent_time_budget_does_not_wait_for_a_fit_that_goes_on(kind: Any, client: Any, tmp_path: Path) -> None:
    class Waits(Ridge):  # type: ignore[misc]
        def fit(self, X: Any, y: Any) -> Any:
            until = time.monotonic() + 60
            while not (tmp_path / "go").exists() and time.monotonic() < until:
                time.sleep(0.02)
            if not (tmp_path / "go").exists():
                (tmp_path / "waited").touch()
            return super().fit(X, y)

    search = kind(Waits(), {"alpha": [1.0, 2.0]}, cv=2, refit=False, client=client, time_budget=0.1)
    try:
        with warnings.catch_warnings(), suppress(UnitsFailedError):  # ASHA has no trial at all
            warnings.simplefilter("ignore")
            assert np.isnan(search.fit(XR, YR).cv_results_["mean_test_score"]).all()
        assert not (tmp_path / "waited").exists()
    finally:
        (tmp_path / "go").touch()


@pytest.mark.parametrize("kind", [GridSearchCV, AshaSearchCV, OptunaSearchCV], ids=lambda kind: kind.__name__)
@pytest.mark.parametrize(
    ("wrong", "text"),
    [({"time_budget": 0}, "time_budget"), ({"trial_timeout": "1"}, "trial_timeout"), ({"client": 3}, "Client"),
     ({"resources": {"GPU": -1}}, "resources"), ({"resources": 3}, "resources")],
)  # fmt: skip
def test_wrong_arguments_are_refused_before_anything_runs(kind: Any, wrong: Any, text: str) -> None:
    with pytest.raises(UsageError, match=text):
        kind(Ridge(), {"alpha": [1.0]}, **wrong).fit(XR, YR)


def test_rounds_share_the_placed_data_and_survive_its_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data, "PLACED_BYTES", 0)
    search = {"cv": 2, "random_state": 0, "min_resources": 20}
    theirs = TheirHalving(Ridge(), {"alpha": [0.1, 1.0, 10.0]}, **search).fit(XR, YR)
    with (
        LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address="127.0.0.1:0", host="127.0.0.1") as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        assert_same_results(
            HalvingGridSearchCV(Ridge(), {"alpha": [0.1, 1.0, 10.0]}, client=client, **search).fit(XR, YR), theirs
        )

        class Forgetful:
            """Places the data, and loses it at once."""

            def __init__(self, client: Any) -> None:
                self.client = client

            def __getattr__(self, name: str) -> Any:
                return getattr(self.client, name)

            def scatter(self, *args: Any, **more: Any) -> Any:
                future = self.client.scatter(*args, **more)
                if isinstance(future, list):
                    (future,) = future
                    self.client.run(lambda dask_worker: dask_worker.data.clear())
                    future.cancel(force=True)
                    return [future]
                return future

        lost = HalvingGridSearchCV(Ridge(), {"alpha": [0.1, 1.0, 10.0]}, client=Forgetful(client), **search).fit(XR, YR)
    assert_same_results(lost, theirs)


def test_a_worker_without_a_copy_of_the_rows_fetches_them_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data, "PLACED_BYTES", 0)
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address="127.0.0.1:0", host="127.0.0.1") as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        rows = data.placed(client, XR, YR, None)
        assert rows is not None
        client.amm.run_once()  # what Dask does every other second: copies that no task waits for are dropped
        eventually(lambda: len(client.who_has()[rows.future.key]) == 1)
        looks = [
            client.submit(_looked, rows, turn, workers=[address], allow_other_workers=False, pure=False).result()
            for turn in range(2)
            for address in client.scheduler_info()["workers"]
        ]
    assert [found for found, _ in looks] == [_digests(XR, YR)] * 4
    assert sum(loads for _, loads in looks[2:]) == 1


def _looked(rows: data.Placed, turn: int) -> tuple[list[str], int]:
    return _digests(*rows.values()), data.KEPT.loads


def _digests(*parts: Any) -> list[str]:
    return [hashlib.sha256(np.ascontiguousarray(part).tobytes()).hexdigest() for part in parts]


def test_loguniform_is_drawn_by_trial_number() -> None:
    def drawn(trials: int) -> list[float]:
        made = AshaSearchCV(Ridge(), {"alpha": loguniform(0.1, 1)}, n_trials=trials, cv=2, random_state=1).fit(XR, YR)
        return [params["alpha"] for params in made.cv_results_["params"]]

    assert drawn(6)[:3] == drawn(3)


@pytest.mark.parametrize("kind", [GridSearchCV, AshaSearchCV])
def test_data_that_no_worker_can_hold_is_refused_with_both_sizes(
    kind: Any, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(data, "PLACED_BYTES", 0)
    monkeypatch.setattr(beyond, "ROOM", 1e-9)
    monkeypatch.setattr(beyond, "ROOM_OF_SPLITS", 2e-9)
    with pytest.raises(PlanError, match=r"X and y take .* GiB and a worker has .*write X to Zarr"):
        kind(Ridge(), {"alpha": [1.0]}, cv=2, client=client).fit(XR, YR)
