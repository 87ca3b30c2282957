"""A recipe in a scikit-learn Pipeline takes DataFrames; and it explains itself."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.linear_model import Ridge
from sklearn.model_selection import GridSearchCV, KFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import daskml_scale as dms
from daskml_scale.errors import UsageError

ROWS = 60


@pytest.fixture
def frame() -> pd.DataFrame:
    rng = np.random.default_rng(5)
    return pd.DataFrame(
        {
            "due": pd.date_range("2013-10-26", periods=ROWS, freq="30min", tz="Europe/Paris"),  # an hour comes twice
            "x": rng.normal(3, 2, ROWS),
            "whole": pd.array(rng.integers(0, 9, ROWS), dtype="Int64"),
            "flag": rng.random(ROWS) < 0.5,
            "place": pd.Categorical(rng.choice(["b", "a"], ROWS)),
            "text": rng.choice(["u", "v", None], ROWS),
        },
        index=rng.permutation(ROWS),
    )


def recipe(**changes) -> dms.Recipe:
    steps = [{"standardize": {"of": "x"}}, {"keep": {"of": ["whole", "flag"]}}, {"one_hot": {"of": "place"}}]
    return dms.Recipe(**{"steps": steps, "known_at": "due", "target": "y", **changes})


def test_a_frame_gives_a_frame_with_its_index(frame):
    frame.loc[frame.index[3], "whole"] = pd.NA
    steps = [{"date_parts": {"of": "due", "parts": ["hour"], "zone": "Europe/Paris"}}, {"ordinal": {"of": "text"}},
             {"keep": {"of": ["whole", "flag"]}}]  # fmt: skip
    found = recipe(steps=steps).fit_transform(frame, np.arange(ROWS))
    assert found.index.equals(frame.index)
    assert list(found.columns) == ["hour", "text", "whole", "flag"]
    np.testing.assert_array_equal(found["hour"], frame["due"].dt.hour)
    np.testing.assert_array_equal(found["text"], frame["text"].map({"u": 0, "v": 1}).fillna(-1))
    np.testing.assert_array_equal(found["whole"], frame["whole"].astype("Float64").to_numpy("float64", na_value=np.nan))


def test_in_a_pipeline_every_fold_fits_its_own_recipe(frame):
    y = frame["x"].to_numpy() + np.arange(ROWS) / 50
    folds = KFold(3, shuffle=True, random_state=0)
    found = cross_val_score(make_pipeline(recipe(), Ridge()), frame, y, cv=folds, error_score="raise")
    plain = pd.DataFrame({"x": frame["x"], "whole": frame["whole"].astype(float), "flag": frame["flag"].astype(float),
                          "a": frame["place"] == "a", "b": frame["place"] == "b"}).astype(float)  # fmt: skip
    wanted = []
    for train, test in folds.split(plain):
        scaler = StandardScaler().fit(plain[["x"]].iloc[train])
        parts = [plain.iloc[rows].assign(x=scaler.transform(plain[["x"]].iloc[rows])[:, 0]) for rows in (train, test)]
        wanted.append(Ridge().fit(parts[0], y[train]).score(parts[1], y[test]))
    np.testing.assert_allclose(found, wanted, rtol=1e-6)


def test_scikit_learn_clones_a_recipe_and_sets_its_parameters(frame):
    made = recipe()
    other = clone(made.fit(frame, np.zeros(ROWS)))
    assert not other.fitted
    assert other.steps == made.steps
    other.set_params(known_at="due - hours(1)")
    assert other.known_at == "due - hours(1)"
    with pytest.raises(UsageError, match="no parameter 'knownat'; it has steps, known_at, target"):
        other.set_params(knownat="due")
    pipeline = make_pipeline(recipe(), Ridge())
    smaller = [{"keep": {"of": "x"}}]
    grid = GridSearchCV(pipeline, {"recipe__steps": [recipe().steps, smaller]}, cv=2, error_score="raise")
    assert grid.fit(frame, frame["x"].to_numpy()).best_score_ > 0.9
    assert "Recipe" in pipeline._repr_html_()


def test_a_pipeline_is_asked_for_frames(frame):
    pipeline = make_pipeline(recipe(), StandardScaler(), Ridge()).set_output(transform="pandas")
    pipeline.fit(frame, frame["x"].to_numpy())
    assert list(pipeline[:-1].transform(frame).columns) == list(pipeline[0].get_feature_names_out())
    with pytest.raises(UsageError, match="transform='polars': a recipe makes DataFrames of pandas"):
        recipe().set_output(transform="polars")


def test_mistakes_with_frames_are_refused(frame):
    with pytest.raises(UsageError, match=r"y has shape \(3,\), the table 60 rows"):
        recipe().fit(frame, np.zeros(3))
    with pytest.raises(UsageError, match="y is for a DataFrame"):
        recipe().fit("rows.zarr", np.zeros(ROWS))


def test_one_row_and_none(frame):
    made = recipe().fit(frame, np.zeros(ROWS))
    assert made.transform(frame.iloc[:1]).shape == (1, 6)
    assert made.transform(frame.iloc[:0]).shape == (0, 6)


def test_a_feature_is_explained_down_to_raw_columns():
    steps = [
        {"impute": {"of": ["speed", "load"], "by": "constant", "value": 0.0, "indicator": True}},
        {"compute": {"features": {"strain": "speed * load"}}},
        {"standardize": {"of": ["strain"]}},
        {"lookup": {"table": "planes", "key": "tail", "take": ["seats", "year"]}},
        {"trailing": {"of": "late", "at": "arrived", "match": ["origin"], "windows": ["1h"]}},
    ]
    with pytest.raises(UsageError, match="no feature 'strian'; did you mean 'strain'"):
        dms.Recipe(steps, known_at="sched").explain("strian")
    made = dms.Recipe(steps, known_at="sched - hours(1)", target="late")
    found = made.explain("strain")
    assert found.columns == ("load", "speed")
    assert repr(found).splitlines() == [
        "strain: steps[2].standardize",
        "  strain: steps[1].compute(features={'strain': 'speed * load'})",
        "    load: steps[0].impute(by=constant, value=0.0, indicator=True)",
        "      load: column",
        "    speed: steps[0].impute(by=constant, value=0.0, indicator=True)",
        "      speed: column",
    ]
    assert made.explain("speed_missing").columns == ("speed",)
    assert made.explain("planes_seats").columns == ("planes.seats", "planes.tail", "tail")
    assert made.explain("late_mean_1h").columns == ("arrived", "late", "origin", "sched")
    page = dms.Recipe([{"keep": {"of": ["<b>"]}}], known_at="due").explain("<b>")._repr_html_()
    assert "&lt;b&gt;" in page
    assert "<b>" not in page


def test_derived_columns_are_explained_by_what_they_were_computed_from(tmp_path):
    from features_helpers import write_table

    url = f"{tmp_path}/rows.zarr"
    start = np.datetime64("2013-01-01", "ns") + np.arange(4) * np.timedelta64(1, "h")
    derived = {"sched": ["hour", "minute"], "double": ["size"]}
    write_table(url, {"sched": start, "double": np.arange(4.0), "size": np.arange(4.0)}, 2, derived_from=derived)
    made = dms.Recipe([{"keep": {"of": "double"}}], known_at="sched").fit(url)
    assert made.explain("double").columns == ("size",)
