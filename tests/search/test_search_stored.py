"""X in a store: workers read their splits; the results are those of the array in memory."""

from __future__ import annotations

import os
import uuid
from pathlib import Path
from typing import Any

import dask
import numpy as np
import pytest
from distributed import Client, LocalCluster
from search_cases import XR, YR, assert_same_results
from sklearn.base import clone
from sklearn.linear_model import Ridge, SGDClassifier
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import ShuffleSplit

from daskml_scale.errors import UsageError
from daskml_scale.plan.units import Template, Variable
from daskml_scale.search import AshaSearchCV, GridSearchCV, HalvingGridSearchCV
from daskml_scale.stages.search import beyond, data, stored
from daskml_scale.stages.search.stored import StoredRows
from daskml_scale.storage import stores
from daskml_scale.storage.ledger import Ledger


@pytest.fixture
def url(tmp_path: Path) -> str:
    found = str(tmp_path / "rows.zarr")
    variable = Variable("float64", ("row", "feature"), XR.shape, (8, XR.shape[1]), (24, XR.shape[1]))
    stores.create(found, Template("row", len(XR), {"X": variable}))
    for start in range(0, len(XR), 24):
        stores.write_region(found, start, {"X": XR[start : start + 24]})
    return found


def test_rows_are_read_in_the_order_that_is_asked_for(url: str) -> None:
    rows = StoredRows(url, "X", XR.shape, XR.dtype)
    for wanted in (np.array([100, 3, 3, 50]), np.arange(120) % 7 == 0, slice(10, 40)):
        assert np.array_equal(rows[wanted, ...], XR[wanted])
    assert np.array_equal(np.asarray(rows), XR)


@pytest.mark.parametrize("on_cluster", [False, True])
def test_a_search_over_a_stored_array_equals_one_in_memory(url: str, on_cluster: bool, client: Any) -> None:
    options = {"cv": ShuffleSplit(3, random_state=0), **({"client": client} if on_cluster else {})}
    X = stores.open_dataset(url)["X"]
    ours = GridSearchCV(Ridge(), {"alpha": [0.1, 10.0]}, **options).fit(X, YR)
    theirs = GridSearchCV(Ridge(), {"alpha": [0.1, 10.0]}, **options).fit(XR, YR)
    assert_same_results(ours, theirs)
    np.testing.assert_array_equal(ours.best_estimator_.coef_, theirs.best_estimator_.coef_)
    asha = AshaSearchCV(Ridge(), {"alpha": [0.1, 10.0]}, n_trials=2, factor=2, min_resources=30, refit=False, **options)
    assert asha.fit(X, YR).best_score_ == theirs.best_score_


def test_other_content_is_other_data_for_the_log(url: str, tmp_path: Path) -> None:
    def logged() -> int:
        X = stores.open_dataset(url)["X"]
        GridSearchCV(Ridge(), {"alpha": [0.1]}, cv=2, refit=False, out=tmp_path / "out").fit(X, YR)
        return len(Ledger(str(tmp_path / "out" / "search.ledger")).records())

    assert (logged(), logged()) == (2, 2)
    stores.write_region(url, 0, {"X": XR[:24] + 1})
    assert logged() == 4


def test_a_lazy_array_is_computed_unless_it_is_large(monkeypatch: pytest.MonkeyPatch) -> None:
    import dask.array as da

    lazy = da.from_array(XR, chunks=(40, 5))
    assert GridSearchCV(Ridge(), {"alpha": [0.1]}, cv=2).fit(lazy, YR).best_score_ > 0
    monkeypatch.setattr(stored, "LAZY_BYTES", 100)
    with pytest.raises(UsageError, match="write it to Zarr"):
        GridSearchCV(Ridge(), {"alpha": [0.1]}, cv=2).fit(lazy, YR)


class Looks(Ridge):  # type: ignore[misc]
    """Notes whether rows lie in a store while it fits."""

    def __init__(self, alpha: float = 1.0, folder: str = "") -> None:
        super().__init__(alpha=alpha)
        self.folder = folder

    def fit(self, X: Any, y: Any) -> Any:
        if self.folder:
            stored = list(Path(self.folder, "out").glob("search.rows-*/search.rows.zarr"))
            Path(self.folder, f"{len(stored)}-{uuid.uuid4().hex}").touch()
        return super().fit(X, y)


@pytest.mark.parametrize("kind", [GridSearchCV, HalvingGridSearchCV, AshaSearchCV], ids=lambda kind: kind.__name__)
def test_an_array_that_workers_cannot_hold_is_read_split_by_split(
    kind: Any, client: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fitted(**more: Any) -> Any:
        folder = str(tmp_path) if more else ""
        options = {GridSearchCV: {}, HalvingGridSearchCV: {"random_state": 0}, AshaSearchCV: {"n_trials": 3}}[kind]
        search = kind(Looks(folder=folder), {"alpha": [0.1, 1.0, 10.0]}, cv=3, refit=False, **options, **more)
        return search.fit(XR, YR)

    expected = fitted()
    monkeypatch.setattr(data, "PLACED_BYTES", 0)
    monkeypatch.setattr(beyond, "ROOM", 1e-9)
    monkeypatch.setattr(beyond, "BLOCK_BYTES", 1000)
    found = fitted(client=client, out=tmp_path / "out")
    assert {path.name[0] for path in tmp_path.glob("?-*")} == {"1"}
    assert not list((tmp_path / "out").glob("search.rows*"))
    if kind is AshaSearchCV:
        # Who is promoted depends on who is ready first; equal settings at equal rungs have equal scores.
        first, second = reached(found), reached(expected)
        assert first.keys() & second.keys()
        assert all(first[key] == second[key] for key in first.keys() & second.keys())
    else:
        assert_same_results(found, expected)


def reached(search: Any) -> dict[tuple[str, int], float]:
    found = search.cv_results_
    return dict(
        zip(zip(map(str, found["params"]), found["n_resources"], strict=True), found["mean_test_score"], strict=True)
    )


@pytest.mark.parametrize("on_cluster", [False, True])
def test_chunks_as_the_resource_are_given_to_the_model_one_after_the_other(
    url: str, on_cluster: bool, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    y = (YR > 0).astype(int)
    ((train, test),) = cv = list(ShuffleSplit(1, random_state=0).split(XR))
    taken: list[int] = []
    read = StoredRows.__getitem__

    def noted(rows: StoredRows, key: Any) -> Any:
        found = read(rows, key)
        taken.append(len(found))
        return found

    monkeypatch.setattr(StoredRows, "__getitem__", noted)
    search = AshaSearchCV(
        SGDClassifier(random_state=0), {"alpha": [1e-4, 1e-2]}, n_trials=2, factor=2, resource="chunks", cv=cv,
        min_resources=2, max_resources=8, scoring="roc_auc", client=client if on_cluster else None,
    )  # fmt: skip
    search.fit(stores.open_dataset(url)["X"], y, sample_weight=np.arange(120.0))
    assert max(taken) <= 24  # rows of a chunk
    assert sorted(search.cv_results_["n_resources"])[-1] == 8
    alone = clone(search.estimator).set_params(**search.best_params_)
    chunks = [np.sort(train)[np.sort(train) // 24 == number] for number in range(5)]
    order = np.random.RandomState(0).permutation(5)
    for number in [*order, *order[:3]]:  # the fifth is followed by the first again
        rows = chunks[number]
        alone.partial_fit(XR[rows], y[rows], classes=[0, 1], sample_weight=np.arange(120.0)[rows])
    assert search.best_score_ == pytest.approx(roc_auc_score(y[test], alone.decision_function(XR[test])), abs=1e-12)
    assert search.predict(XR).shape == y.shape
    search.set_params(scoring=None, max_resources="auto").fit(stores.open_dataset(url)["X"], y)
    assert search.cv_results_["n_resources"].max() == 5
    assert max(taken) <= 24


def test_chunks_are_refused_where_there_are_none() -> None:
    with pytest.raises(UsageError, match="reads X from a store"):
        AshaSearchCV(SGDClassifier(), {"alpha": [1.0]}, n_trials=1, resource="chunks", cv=2).fit(XR, YR > 0)
    with pytest.raises(UsageError, match="resource='chunks': Ridge has no partial_fit"):
        AshaSearchCV(Ridge(), {"alpha": [1.0]}, n_trials=1, resource="chunks", cv=2).fit(XR, YR)


def test_packed_values_are_unpacked_not_read_as_they_lie(tmp_path: Path) -> None:
    found = str(tmp_path / "packed.zarr")
    packed = np.rint(XR * 100).astype("int16")
    variable = Variable("int16", ("row", "feature"), XR.shape, (120, XR.shape[1]), attrs={"scale_factor": 0.01})
    stores.create(found, Template("row", len(XR), {"X": variable}))
    stores.write_region(found, 0, {"X": packed})
    X = stores.open_dataset(found)["X"]
    search = GridSearchCV(Ridge(), {"alpha": [0.1]}, cv=2)
    assert search.fit(X, YR).best_score_ == search.fit(X.values, YR).best_score_


@pytest.mark.slow
def test_data_larger_than_the_memory_of_a_worker_is_searched_by_chunks(tmp_path: Path) -> None:
    rows, wide, step = 1_600_000, 60, 50_000  # 768 MB as float64, 12 columns of which say something
    found = str(tmp_path / "large.zarr")
    variable = Variable("float64", ("row", "feature"), (rows, wide), (step, wide))
    stores.create(found, Template("row", rows, {"X": variable}))
    for start in range(0, rows, step):
        block = np.zeros((step, wide))
        block[:, :2] = np.random.default_rng(start).normal(size=(step, 2))
        stores.write_region(found, start, {"X": block})
    X = stores.open_dataset(found)["X"]
    y = (np.asarray(X[:, 0]) > 0).astype(int)
    with (
        dask.config.set({"distributed.scheduler.allowed-failures": 0}),
        LocalCluster(
            n_workers=1, threads_per_worker=1, memory_limit="600MiB", dashboard_address="127.0.0.1:0", host="127.0.0.1"
        ) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        (before,) = client.run(os.getpid).values()
        search = AshaSearchCV(
            SGDClassifier(random_state=0), {"alpha": [1e-5, 1e-2]}, n_trials=2, factor=4, resource="chunks", cv=2,
            client=client, refit=False, error_score="raise",
        ).fit(X, y)  # fmt: skip
        (after,) = client.run(os.getpid).values()
    # Half of the chunks, and one more where a split by class ends inside a chunk.
    assert search.cv_results_["n_resources"].max() - rows // step // 2 in (0, 1)
    assert search.best_score_ > 0.95
    assert before == after  # nothing killed it


def test_a_dask_dataframe_is_computed_where_it_is_small_and_refused_where_it_is_not(monkeypatch) -> None:
    import dask.dataframe as dd
    import pandas as pd

    names = [f"x{number}" for number in range(XR.shape[1])]
    X, y = pd.DataFrame(XR, columns=names), pd.Series(YR, name="y")
    lazy = dd.from_pandas(X, npartitions=3), dd.from_pandas(y, npartitions=3)
    search = GridSearchCV(Ridge(), {"alpha": [0.1, 1.0]}, cv=2)
    assert_same_results(clone(search).fit(*lazy), clone(search).fit(X, y))
    monkeypatch.setattr(stored, "LAZY_BYTES", 100)
    with pytest.raises(UsageError, match="X is a lazy array of"):
        search.fit(*lazy)
