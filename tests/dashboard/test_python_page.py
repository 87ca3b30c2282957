"""Work that Python starts on a client, on the page of its cluster: stages, and searches with fits and trials."""

from __future__ import annotations

from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import numpy as np
import pandas as pd
import pytest
from dashboard_helpers import fetch_json
from distributed import Client
from sklearn.linear_model import Ridge, SGDClassifier

import daskml_scale as dms
from daskml_scale.stages import publishing
from daskml_scale.stages.search import told

X = np.random.default_rng(0).normal(size=(60, 3))
Y = X[:, 0] + 0.1 * X[:, 1]


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """This work ends sooner than other is told of."""
    monkeypatch.setattr(publishing, "AFTER", 0.0)


LOOKS = count()


def page(url: str) -> Any:
    """Return what the page shows now, not what it showed less than a second ago."""
    return fetch_json(url + "/workflow.json?" + urlencode({"page": 1, "map": next(LOOKS)}))


def shown(url: str, stage: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the stage of the Python session and its trials."""
    data = page(url)
    assert data["run"]["run"] == ""
    stages = {one["name"]: one for one in data["run"]["stages"]}
    trials = {one["stage"]: one for one in data["trials"]}
    return stages[stage], trials[stage]


def test_stages_started_from_python_are_shown(cluster: tuple[Client, str], tmp_path: Path) -> None:
    client, url = cluster
    pd.DataFrame({"a": range(10), "y": range(10)}).to_parquet(tmp_path / "rows.parquet")
    table = dms.ingest(tmp_path / "rows.parquet", tmp_path / "rows.zarr", chunk=5, client=client)
    model = Ridge().fit(table[["a"]].to_dataframe(), table["y"].values)
    dms.predict(model, table, tmp_path / "told.zarr", client=client)
    stages = {one["name"]: one for one in page(url)["run"]["stages"]}
    assert [(stages[name]["kind"], stages[name]["state"]) for name in ("rows", "told")] == [
        ("ingest", "ok"), ("predict", "ok"),
    ]  # fmt: skip
    assert stages["told"]["rows"] == 10


def test_a_workflow_run_from_python_is_one_run_from_its_beginning_to_its_end(
    cluster: tuple[Client, str], tmp_path: Path
) -> None:
    client, url = cluster
    pd.DataFrame({"a": range(10)}).to_csv(tmp_path / "rows.csv", index=False)
    (tmp_path / "w.yaml").write_text(
        f"version: 1\nname: small\nstore: {tmp_path}/out\nstages:\n"
        f"  rows: {{kind: ingest, source: {tmp_path}/rows.csv, row: {{dim: row, chunk: 5}}}}\n"
        "  check: {kind: validate, input: rows, rules: [{unique: [a]}]}\n"
    )
    told: list[Any] = []
    dms.run(tmp_path / "w.yaml", client=client, sink=told.append)
    run = page(url)["run"]
    assert (run["workflow"], run["state"], run["started"]) == ("small", "succeeded", told[0].time)
    dms.ingest(tmp_path / "rows.csv", tmp_path / "more.zarr", client=client)
    run = page(url)["run"]
    assert (run["workflow"], run["state"], [one["name"] for one in run["stages"]]) == ("", "succeeded", ["more"])


def test_a_grid_search_tells_its_fits_and_trials(cluster: tuple[Client, str]) -> None:
    client, url = cluster
    search = dms.search.GridSearchCV(Ridge(), {"alpha": [1e-3, 1.0, 1e3]}, cv=2, client=client).fit(X, Y)
    stage, trials = shown(url, "GridSearchCV")
    assert (stage["kind"], stage["state"], stage["units"], stage["done"]) == ("search", "ok", 6, 6)
    assert (trials["done"], trials["failed"]) == (3, 0)
    assert trials["best"] == pytest.approx(search.best_score_)
    assert trials["top"][0]["params"] == "alpha=0.001"
    again = dms.search.GridSearchCV(Ridge(), {"alpha": [1.0]}, cv=3, client=client).fit(X, Y)
    stage, trials = shown(url, "GridSearchCV")
    assert (stage["units"], trials["done"], trials["best"]) == (3, 1, pytest.approx(again.best_score_))


def test_rungs_of_halving_and_of_asha_are_told(cluster: tuple[Client, str]) -> None:
    client, url = cluster
    halving = dms.search.HalvingGridSearchCV(
        Ridge(), {"alpha": [1e-3, 1.0, 1e3, 1e6]}, cv=2, client=client, factor=2, min_resources=15
    ).fit(X, Y)
    stage, trials = shown(url, "HalvingGridSearchCV")
    assert stage["done"] == 2 * sum(halving.n_candidates_)
    assert [rung["done"] for rung in trials["rungs"]] == list(halving.n_candidates_)
    asha = dms.search.AshaSearchCV(
        SGDClassifier(random_state=0), {"alpha": [1e-4, 1e-3, 1e-2]}, n_trials=3, min_resources=1, max_resources=3,
        cv=2, client=client, random_state=0,
    ).fit(X, Y > 0)  # fmt: skip
    stage, trials = shown(url, "AshaSearchCV")
    assert (stage["state"], stage["done"]) == ("ok", len(asha.history_))
    assert sum(rung["done"] for rung in trials["rungs"]) == len(asha.history_)
    assert {row["rung"] for row in trials["top"]} <= set(asha.cv_results_["rung"].tolist())


def test_a_search_that_fails_says_why_and_one_without_a_client_tells_nobody(cluster: tuple[Client, str]) -> None:
    client, url = cluster
    with pytest.raises(ValueError, match="alpha"):
        dms.search.RandomizedSearchCV(
            Ridge(), {"alpha": ["no"]}, n_iter=1, cv=2, client=client, error_score="raise"
        ).fit(X, Y)
    stage = next(one for one in page(url)["run"]["stages"] if one["name"] == "RandomizedSearchCV")
    assert stage["state"] == "failed"
    assert "alpha" in stage["message"]
    made: list[Any] = []
    with told.told("Alone", None) as nobody:
        made.append(nobody)
    assert made == [None]


def test_a_search_that_ends_at_once_is_not_told(cluster: tuple[Client, str], monkeypatch: pytest.MonkeyPatch) -> None:
    client, _ = cluster
    monkeypatch.setattr(publishing, "AFTER", 3600.0)
    opened: list[Any] = []
    monkeypatch.setattr(publishing, "publisher", lambda of: opened.append(of))
    with told.told("Quick", client) as found:
        assert found is not None
        found.planned(4, 0)
        found.committed(4)
    assert opened == []
