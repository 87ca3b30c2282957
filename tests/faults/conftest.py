"""Runs to strike: a small table for the engine's cases, and a whole workflow."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from harness import CLUSTER, UNITS, MapRun, Run

WORKFLOW = """
version: 1
name: small
store: ./runs/small
cluster: none
seed: 7
stages:
  events:
    kind: ingest
    source: {source}
    row: {{dim: event, chunk: 100, sort_by: [at, id]}}
    derive: {{late: delay > 5, seen: at + minutes(30)}}
  features:
    kind: features
    input: events
    known_at: at - minutes(10)
    fit_where: at < time('2024-01-20')
    target: late
    out: {{chunk: 50, shard: 100}}
    steps:
      - date_parts: {{of: at, parts: [hour, dayofweek]}}
      - ordinal: {{of: [place]}}
      - trailing: {{of: late, at: seen, match: [place], windows: [2h, 6h]}}
      - keep: {{of: [x]}}
  model:
    kind: train
    input: features
    estimator: {{sklearn.ensemble.HistGradientBoostingClassifier: {{max_iter: 5}}}}
    where: at < time('2024-01-20')
  scores: {{kind: evaluate, model: model, input: features, where: "at >= time('2024-01-20')", metrics: [roc_auc]}}
  predictions: {{kind: predict, model: model, input: events, method: predict_proba, out: {{chunk: 50, shard: 50}}}}
"""
ROWS = 3_000


TABLE = """
version: 1
name: table
store: ./runs
cluster: none
stages:
  table: {{kind: ingest, source: {source}, row: {{dim: row, chunk: 10}}}}
"""


@pytest.fixture(scope="session")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workflow of one stage, ``table``: a scan and 80 units that write a chunk each."""
    folder = tmp_path_factory.mktemp("table")
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"id": np.arange(10 * UNITS), "x": rng.normal(size=10 * UNITS)})
    frame.to_csv(folder / "table.csv", index=False)
    (folder / "table.yaml").write_text(TABLE.format(source=folder / "table.csv"))
    return folder / "table.yaml"


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The definition of a local cluster of two workers with one thread each."""
    path = tmp_path_factory.mktemp("cluster") / "two.yaml"
    path.write_text(CLUSTER)
    return str(path)


@pytest.fixture
def start(tmp_path: Path, cluster: str) -> Iterator[Callable[..., Run]]:
    """Start runs of a stage of a workflow into ``tmp_path / "store"``; what is left of them ends with the test."""
    runs: list[Run] = []
    numbers = itertools.count()

    def begin(
        workflow: Path,
        stage: str,
        *,
        kind: type[Run] = Run,
        cluster: str = cluster,
        store: Path | None = None,
        environ: Mapping[str, str] | None = None,
        **script: Any,
    ) -> Run:
        folder = tmp_path / f"run{next(numbers)}"
        runs.append(kind(workflow, store or tmp_path / "store", folder, stage, cluster, script, environ or {}))
        return runs[-1]

    yield begin
    for run in runs:
        run.close()


@pytest.fixture
def start_map(tmp_path: Path, cluster: str) -> Iterator[Callable[..., Run]]:
    """Start programs that map with results in ``tmp_path / "results"``; what is left of them ends with the test."""
    runs: list[Run] = []
    numbers = itertools.count()

    def begin(*, cluster: str = cluster, **script: Any) -> Run:
        folder = tmp_path / f"run{next(numbers)}"
        runs.append(MapRun(Path(), tmp_path / "results", folder, "map", cluster, script))
        return runs[-1]

    yield begin
    for run in runs:
        run.close()


@pytest.fixture(scope="session")
def whole(table: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The store of a run of the table that nothing happened to."""
    folder = tmp_path_factory.mktemp("whole")
    run = Run(table, folder / "store", folder / "run", "table", "none", {})
    assert run.end().code == 0
    run.close()
    return folder / "store"


@pytest.fixture(scope="module")
def workflow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workflow over 3,000 rows: 30 units of features, 60 of predictions."""
    folder = tmp_path_factory.mktemp("small")
    rng = np.random.default_rng(0)
    minutes = np.sort(rng.integers(0, 30 * 24 * 60, ROWS))
    x, place = rng.normal(size=ROWS), rng.choice(["a", "b", "c"], ROWS)
    frame = pd.DataFrame(
        {
            "id": np.arange(ROWS),
            "at": (np.datetime64("2024-01-01T00:00") + minutes.astype("m8[m]")).astype(str),
            "place": place,
            "x": x,
            "delay": np.where(rng.random(ROWS) < 0.05, np.nan, 5 + 4 * x + rng.normal(size=ROWS)),
        }
    )
    frame["at"] += ":00Z"
    frame.to_csv(folder / "events.csv", index=False)
    (folder / "small.yaml").write_text(WORKFLOW.format(source=folder / "events.csv"))
    return folder / "small.yaml"
