from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

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
