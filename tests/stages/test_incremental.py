"""New rows, a changed value, another file: which units of a whole workflow run again, stage kind by stage kind."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from daskml_scale import api
from daskml_scale.storage.ledger import Ledger

ROWS, CHUNK, SHARD = 1_000, 100, 50
WORKFLOW = """
version: 1
name: small
store: {store}
cluster: none
seed: 7
stages:
  events:
    kind: ingest
    source: {source}
    row: {{dim: event, chunk: 100, sort_by: [at, id]}}
    derive: {{late: delay > 5, seen: at + minutes(30)}}
  check: {{kind: validate, input: events, rules: [{{unique: [id]}}, {{range: {{of: x, least: -9, most: 9}}}}]}}
  wide: {{kind: rechunk, input: events, chunks: {{event: 250}}}}
  features:
    kind: features
    input: events
    known_at: at - minutes(10)
    fit_where: at < time('2024-01-06')
    target: late
    out: {{chunk: 50, shard: 50}}
    steps:
      - date_parts: {{of: at, parts: [hour]}}
      - ordinal: {{of: [place]}}
      - trailing: {{of: late, at: seen, match: [place], windows: [2h]}}
      - keep: {{of: [x]}}
  best:
    kind: search
    input: features
    estimator: {{sklearn.ensemble.HistGradientBoostingClassifier: {{max_iter: 3}}}}
    space: {{max_leaf_nodes: [4, 8]}}
    sampler: {{grid: {{}}}}
    scoring: neg_log_loss
    split: {{time: {{of: at, train_until: '2024-01-06', validate_until: '2024-01-08'}}}}
  model:
    kind: train
    input: features
    estimator: {{sklearn.ensemble.HistGradientBoostingClassifier: {{max_iter: 3}}}}
    where: at < time('2024-01-08')
  scores: {{kind: evaluate, model: model, input: features, where: "at >= time('2024-01-08')", metrics: [brier]}}
  predictions: {{kind: predict, model: model, input: events, method: predict_proba, out: {{chunk: 50, shard: 50}}}}
"""


def table(rows: int = ROWS) -> pd.DataFrame:
    """The first rows of one table: an event every fifteen minutes, so a window of two hours holds eight."""
    rng, most = np.random.default_rng(0), 2 * ROWS
    at = np.datetime64("2024-01-01T00:00") + np.arange(most) * np.timedelta64(15, "m")
    x = rng.normal(size=most)
    whole = pd.DataFrame(
        {
            "id": np.arange(most),
            "at": [f"{instant}:00Z" for instant in at.astype(str)],
            "place": rng.choice(["a", "b", "c"], most),
            "x": x.round(3),
            "delay": (5 + 4 * x + rng.normal(size=most)).round(2),
        }
    )
    return whole[:rows].copy()


class Store:
    """A workflow over one CSV file, run again and again."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.source = folder, folder / "events.csv"
        (folder / "small.yaml").write_text(WORKFLOW.format(store=folder / "store", source=self.source))
        self.before: dict[str, dict[str, float]] = {}
        self.look()

    def run(self, frame: pd.DataFrame) -> dict[str, dict[str, str]]:
        """Write the file, run the workflow; return stage -> unit -> why, of the units that ran."""
        frame.to_csv(self.source, index=False)
        api.run(self.folder / "small.yaml")
        return self.look()

    def look(self) -> dict[str, dict[str, str]]:
        """Return what ran since the last look."""
        ran: dict[str, dict[str, str]] = {}
        for folder in sorted((self.folder / "store").glob("*.ledger")):
            records = Ledger(str(folder)).records()
            old = self.before.get(folder.stem, {})
            ran[folder.stem] = {u: r.why for u, r in records.items() if old.get(u) != r.seconds}
            self.before[folder.stem] = {unit: record.seconds for unit, record in records.items()}
        return ran


@pytest.fixture(scope="module")
def first(tmp_path_factory) -> Path:
    """Where the whole table has run."""
    folder = tmp_path_factory.mktemp("first")
    Store(folder).run(table())
    return folder


@pytest.fixture
def store(first, tmp_path) -> Store:
    """A copy of the first run, of which nothing is known but what lies there."""
    shutil.copytree(first, tmp_path / "copy")
    return Store(tmp_path / "copy")


def rows(*numbers: int) -> set[str]:
    """Return the keys of units."""
    return {f"rows/{number:08d}" for number in numbers}


def shards(start: int, stop: int) -> set[str]:
    """Return the keys of the units of features and predictions that hold any of these rows."""
    return rows(*range(start // SHARD, -(-stop // SHARD)))


def of(units: dict[str, str], prefix: str) -> set[str]:
    return {unit for unit in units if unit.startswith(prefix)}


def test_every_unit_of_a_first_run_is_new(first):
    found = Store(first).before
    assert len(found["predictions"]) == ROWS // SHARD + ROWS // CHUNK
    for stage in found:
        records = Ledger(str(first / "store" / f"{stage}.ledger")).records()
        assert {record.why for record in records.values()} == {"new"}


def test_nothing_changed_nothing_runs_not_even_in_a_copy_elsewhere(store):
    assert not any(store.run(table()).values())


def test_appended_rows_write_new_chunks_and_run_what_reads_all_rows(store):
    ran = store.run(table(1_120))
    assert ran["events"] == {"scan": "input changed", "rows/00000010": "new", "rows/00000011": "new"}
    for stage in ("features", "predictions"):
        assert set(ran[stage]) == {"fit/00000010", "fit/00000011"} | shards(1000, 1120)
        assert set(ran[stage].values()) == {"new"}
    assert {unit.rpartition("/")[2] for unit in ran["wide"]} == {"00000004"}
    # New rows are looked at; whether an id is unique, only all rows together tell.
    assert ran["check"] == {"chunk/00000010": "new", "chunk/00000011": "new", "unique/0000.0000": "input changed"}
    for stage in ("best", "model", "scores"):
        assert set(ran[stage].values()) == {"input changed"}


def test_rows_appended_to_a_ragged_last_chunk_run_what_reads_that_chunk(store):
    store.run(table(940))
    ran = store.run(table(980))
    assert ran["events"] == {"scan": "input changed", "rows/00000009": "input changed"}
    assert of(ran["predictions"], "rows/") == of(ran["features"], "rows/") == shards(900, 980)
    assert of(ran["features"], "fit/") == {"fit/00000009"}


def test_one_changed_value_runs_what_reads_its_chunk_and_the_windows_that_reach_it(store):
    frame = table()
    frame.loc[895, "delay"] = -20.0 if frame.loc[895, "delay"] > 5 else 20.0
    ran = store.run(frame)
    assert ran["events"] == {"scan": "input changed", "rows/00000008": "input changed"}
    # Rows from 900 on look back over two hours, into the chunk that changed; what a window may reach is known by chunk.
    assert of(ran["features"], "rows/") == of(ran["predictions"], "rows/") == shards(800, 1000)
    assert set(ran["predictions"].values()) == {"input changed"}
    assert set(ran["wide"]) == {"join/delay/00000003", "join/late/00000003"}
    assert ran["check"] == {"chunk/00000008": "input changed"}  # for the profile; the ids did not change


def test_a_value_that_training_reads_makes_another_model_and_all_predictions(store):
    frame = table()
    frame.loc[20, "x"] += 1
    ran = store.run(frame)
    assert of(ran["features"], "rows/") == shards(0, 100)
    assert of(ran["predictions"], "rows/") == shards(0, ROWS)
    assert ran["predictions"]["rows/00000015"] == "model changed"
    assert ran["model"] == {"model": "input changed"}
    assert ran["scores"] == {"metrics": "model changed"}
    assert set(ran["best"].values()) == {"input changed"}


def test_another_fitted_statistic_transforms_all_rows_and_an_equal_one_does_not(store):
    frame = table()
    frame.loc[[30, 40, 990], "place"] = "d"
    store.run(frame)
    frame.loc[40, "place"] = "a"  # the recipe still learns that there is a d
    ran = store.run(frame)
    assert of(ran["features"], "fit/") == {"fit/00000000"}
    assert of(ran["features"], "rows/") == shards(0, 200)
    frame.loc[30, "place"] = "a"  # now only a row that nothing is learnt from has it
    ran = store.run(frame)
    assert of(ran["features"], "fit/") == {"fit/00000000"}
    assert of(ran["features"], "rows/") == shards(0, ROWS)
    assert ran["features"]["rows/00000015"] == "model changed"  # the fitted recipe


def test_a_file_of_the_same_rows_written_anew_runs_the_scan_alone(store):
    frame = table()
    ran = store.run(frame.assign(x=frame.x.map("{:.6f}".format)))
    assert ran.pop("events") == {"scan": "input changed"}
    assert not any(ran.values())


def test_without_its_last_rows_a_table_keeps_the_others(store):
    ran = store.run(table(800))
    assert ran["events"] == {"scan": "input changed"}
    assert not ran["predictions"]
    assert not ran["features"]
    assert set(Ledger(str(store.folder / "store" / "predictions.ledger")).records()) == (
        shards(0, 800) | {f"fit/{number:08d}" for number in range(8)}
    )
