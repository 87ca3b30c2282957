"""X in a store: workers read their splits; the results are those of the array in memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from search_cases import XR, YR, assert_same_results
from sklearn.linear_model import Ridge
from sklearn.model_selection import ShuffleSplit

from daskml_scale.errors import UsageError
from daskml_scale.plan.units import Template, Variable
from daskml_scale.search import AshaSearchCV, GridSearchCV
from daskml_scale.stages.search import stored
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
