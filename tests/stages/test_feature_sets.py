"""Feature sets: what was known of an entity at a time, and now; equal values, versions, the command line."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import daskml_scale as dms
from daskml_scale.cli import main
from daskml_scale.errors import PlanError, StoreError, UsageError

WORKFLOW = """\
version: 1
name: sensors
store: {store}
cluster: none
stages:
  readings: {{kind: ingest, source: {source}, row: {{dim: row, chunk: 40, sort_by: [when, who]}}}}
  features:
    kind: features
    input: readings
    known_at: {known_at}
    steps:
      - keep: {{of: [x]}}
      - trailing: {{of: x, at: when, match: [who], windows: [3h], stat: mean}}
  health: {{kind: feature_set, input: features, name: health, entity: [who], time: when}}
"""


@pytest.fixture
def frame() -> pd.DataFrame:
    """Readings of three sensors at irregular times, in the past."""
    random = np.random.default_rng(3)
    when = pd.Timestamp("2024-03-01") + pd.to_timedelta(np.sort(random.integers(0, 5000, 200)), unit="m")
    return pd.DataFrame(
        {"when": when, "who": random.choice(["a", "b", "c"], 200), "x": random.normal(size=200).round(3)}
    )


@pytest.fixture
def store(tmp_path: Path, frame: pd.DataFrame) -> str:
    frame.to_csv(tmp_path / "readings.csv", index=False)
    write(tmp_path)
    dms.run(tmp_path / "sensors.yaml")
    return str(tmp_path / "store")


def write(folder: Path, known_at: str = "when") -> None:
    text = WORKFLOW.format(store=folder / "store", source=folder / "readings.csv", known_at=known_at)
    (folder / "sensors.yaml").write_text(text)


def expected(store: str, asked: pd.DataFrame, **options) -> pd.DataFrame:
    """The same by pandas, on the whole matrix."""
    ds = dms.open_dataset(f"{store}/features.zarr").load()
    labels = np.array(ds.who.attrs["categories"])
    whole = pd.DataFrame(ds.features.values, columns=ds.feature.values)
    whole = whole.assign(who=labels[ds.who.values], health__time=ds.when.values).sort_values(
        "health__time", kind="stable"
    )
    asked = asked.assign(time=asked.time.astype("datetime64[ns]"))
    left = asked.assign(order=np.arange(len(asked))).sort_values("time", kind="stable")
    found = pd.merge_asof(left, whole, left_on="time", right_on="health__time", by="who", **options)
    return found.sort_values("order").reset_index(drop=True)


def questions(frame: pd.DataFrame, n: int = 60) -> pd.DataFrame:
    random = np.random.default_rng(5)
    times = frame.when.min() - pd.Timedelta("2h") + pd.to_timedelta(random.integers(0, 5200, n), unit="m")
    asked = pd.DataFrame({"who": random.choice(["a", "b", "c", "nobody"], n), "time": times})
    asked.loc[:9, "time"] = frame.when.to_numpy()[:10]  # exactly then: known
    return asked


def test_history_is_point_in_time_correct(store, frame):
    asked = questions(frame)
    found = dms.feature_sets(store).historical(asked, "health")
    pd.testing.assert_frame_equal(found[["who", "time"]], asked)
    theirs = expected(store, asked)
    for name in ("x", "x_mean_3h"):
        np.testing.assert_array_equal(found[name], theirs[name].astype("float32"))
    np.testing.assert_array_equal(found["health__time"], theirs["health__time"])
    late = found["health__time"] > found["time"]
    assert not late.any()
    assert found.x.isna().sum() > 5  # nobody, and before the first reading


def test_history_does_not_see_later_rows(store, frame, tmp_path):
    """Values recorded after the question are garbage: the answers are the same to the bit."""
    cut = frame.when.iloc[120]
    asked = questions(frame)
    asked = asked[asked.time <= cut].reset_index(drop=True)
    before = dms.feature_sets(store).historical(asked, "health")
    frame.loc[frame.when > cut, "x"] = 1e30
    frame.to_csv(tmp_path / "readings.csv", index=False)
    dms.run(tmp_path / "sensors.yaml")
    pd.testing.assert_frame_equal(dms.feature_sets(store).historical(asked, "health"), before)


def test_latest_gives_what_history_gives_for_now(store):
    sets = dms.feature_sets(store)
    entities = pd.DataFrame({"who": ["c", "a", "nobody", "b"]}, index=[7, 3, 5, 1])
    now = sets.latest(entities, ["health"])
    then = sets.historical(entities.assign(time=pd.Timestamp.now("UTC")), ["health"])
    pd.testing.assert_frame_equal(now, then.drop(columns="time"))
    assert now.index.tolist() == [7, 3, 5, 1]
    assert now.x.notna().tolist() == [True, True, False, True]


def test_single_features_and_versions_can_be_asked_for(store):
    sets, entities = dms.feature_sets(store), pd.DataFrame({"who": ["a"]})
    assert list(sets.latest(entities, ["health@1:x"]).columns) == ["who", "x", "health__time"]
    for names, message in (
        ("helth", "has no feature set 'helth'; it has health"),
        ("health:y", "has no 'y'"),
        ("health@2", "has no version 2; it has 1"),
        ("health@x", "write SET"),
        (["health", "health:x"], "'x' is asked for twice"),
    ):
        with pytest.raises(UsageError, match=message):
            sets.latest(entities, names)
    with pytest.raises(UsageError, match="no column 'who'"):
        sets.latest(pd.DataFrame({"y": [1]}), "health")
    with pytest.raises(UsageError, match="no column 'time'"):
        sets.historical(entities, "health")


def test_another_recipe_is_another_version_and_the_old_one_says_that_it_is_gone(store, tmp_path):
    dms.run(tmp_path / "sensors.yaml")
    sets = dms.feature_sets(store)
    assert [version["number"] for version in sets.show("health")] == [1]
    text = (tmp_path / "sensors.yaml").read_text()
    (tmp_path / "sensors.yaml").write_text(text.replace("windows: [3h]", "windows: [6h]"))
    dms.run(tmp_path / "sensors.yaml")
    assert [version["number"] for version in sets.show("health")] == [2, 1]
    entities = pd.DataFrame({"who": ["a"]})
    assert "x_mean_6h" in sets.latest(entities, "health").columns
    with pytest.raises(StoreError, match="its values were written over"):
        sets.latest(entities, "health@1")


def test_what_is_too_old_does_not_count(store, frame):
    sets = dms.feature_sets(store)
    assert sets.register("recent", f"{store}/features.zarr", entity="who", time="when", within="2h") == 1
    asked = questions(frame)
    found = sets.historical(asked, "recent")
    theirs = expected(store, asked, tolerance=pd.Timedelta("2h"))
    np.testing.assert_array_equal(found.x, theirs.x.astype("float32"))
    assert found.x.isna().sum() > theirs.who.eq("nobody").sum()


@pytest.mark.parametrize(
    ("known_at", "message"),
    [("when + hours(1)", "not surely by 'when'"), ("when + minutes(x)", "not surely by 'when'")],
)
def test_features_that_are_known_later_are_refused(tmp_path, frame, known_at, message):
    frame.assign(x=1.0).to_csv(tmp_path / "readings.csv", index=False)
    write(tmp_path, known_at)
    with pytest.raises(PlanError, match=message):
        dms.run(tmp_path / "sensors.yaml")


def test_the_command_line_lists_and_shows(store, capsys, tmp_path):
    assert main(["features", "list", store, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == [
        {"name": "health", "version": 1, "entity": ["who"], "time": "when", "features": 2}
    ]
    assert main(["features", "show", store, "health"]) == 0
    assert "x_mean_3h" in capsys.readouterr().out
    assert main(["features", "list", str(tmp_path)]) == 2
    assert "no feature sets" in capsys.readouterr().err
    assert main(["features", "show", store, "other"]) == 2
