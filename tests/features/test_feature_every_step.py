"""Promises that hold for every step kind there is: no leak from later, none from its own row, a round trip, any grid.

The kinds are those that are registered: a new one without an example fails here.
"""

from __future__ import annotations

import json

import numpy as np
import pytest
import xarray as xr
from example_steps import EXAMPLES, KNOWN_AT, TARGET, columns, tables

import daskml_scale as dms
from daskml_scale.spec.expressions import Coded
from daskml_scale.spec.steps import STEPS

ROWS = 40
TABLES = {"past", "sites"}


def dataset(values) -> xr.Dataset:
    made = {}
    for name, column in values.items():
        attrs = {"categories": list(column.labels)} if isinstance(column, Coded) else {}
        made[name] = ("row", column.codes if isinstance(column, Coded) else column, attrs)
    return xr.Dataset(made, attrs={"row_dim": "row"})


def needed(name: str, own) -> dict[str, xr.Dataset]:
    table = EXAMPLES[name].get("table")
    return {table: dataset(tables(own)[table])} if table else {}


def recipe(name: str) -> dms.Recipe:
    return dms.Recipe([{name: EXAMPLES[name]}], known_at=KNOWN_AT, target=TARGET)


def fitted(name: str, own, **options) -> dms.Recipe:
    return recipe(name).fit(dataset(own), tables=needed(name, own), **options)


def features(made: dms.Recipe, name: str, own) -> np.ndarray:
    return made.transform(dataset(own), tables=needed(name, own)).features.values


def copied(own):
    return {name: value if isinstance(value, Coded) else value.copy() for name, value in own.items()}


def test_every_registered_step_has_an_example():
    assert set(EXAMPLES) == set(STEPS)


@pytest.mark.parametrize("garbage", [np.nan, 1e30])
@pytest.mark.parametrize("name", sorted(EXAMPLES))
def test_nothing_recorded_after_known_at_counts(name, garbage):
    """What is learnt stays; every target recorded later, the row's own among them, becomes garbage."""
    own = columns(ROWS)
    made = fitted(name, own)
    clean = features(made, name, own)
    known_at = own["due"] - np.timedelta64(30, "m")
    for row in range(0, ROWS, 3):
        spoilt = copied(own)
        later = own["done"] > known_at[row]
        later[row] = True
        spoilt["late"][later] = garbage
        np.testing.assert_array_equal(features(made, name, spoilt)[row], clean[row])


@pytest.mark.parametrize("name", sorted(EXAMPLES))
def test_nothing_is_learnt_from_rows_outside_the_condition(name):
    own = columns(ROWS)
    where = "number < 25"
    made = fitted(name, own, where=where)
    spoilt = copied(own)
    for column in ("size", "width", "late"):
        spoilt[column][25:] = 1e6
    spoilt["place"] = Coded(np.where(np.arange(ROWS) < 25, own["place"].codes, 3), ("c", "a", "b", "never"))
    again = fitted(name, spoilt, where=where)
    first, second = made.to_json()["fitted"], again.to_json()["fitted"]
    for learnt in (first, second):
        (learnt.get("seen") or {}).pop("table", None)
    assert first == second


@pytest.mark.parametrize("name", sorted(EXAMPLES))
def test_a_recipe_of_any_step_survives_json_and_has_the_names_it_says(name):
    own = columns(ROWS)
    made = fitted(name, own)
    again = dms.Recipe.from_json(json.loads(json.dumps(made.to_json())))
    found = made.transform(dataset(own), tables=needed(name, own))
    assert found.feature.values.tolist() == made.get_feature_names_out().tolist()
    assert found.features.shape == (ROWS, len(made.get_feature_names_out()))
    np.testing.assert_array_equal(features(again, name, own), found.features.values)
    assert again.steps == made.steps
    assert name in made._repr_html_()
    for feature in made.get_feature_names_out():
        explained = made.explain(feature)
        assert name in repr(explained)
        assert set(explained.columns) <= {*own, "sites.area", "sites.place", "past.late", "past.place", "past.done"}


@pytest.mark.parametrize("name", sorted(EXAMPLES))
def test_any_step_takes_no_rows_one_row_and_rows_of_nothing(name):
    own = columns(ROWS)
    made = fitted(name, own)
    for rows in (0, 1):
        few = {column: value[:rows] for column, value in own.items()}
        assert features(made, name, few).shape == (rows, len(made.get_feature_names_out()))
    nothing = copied(own)
    for column in ("size", "width", "late"):
        nothing[column][:] = np.nan
    nothing["place"] = Coded(np.full(ROWS, -1, dtype="int32"), ("a",))
    features(made, name, nothing)
    if name != "sklearn":  # it refuses a column without any value
        features(fitted(name, nothing), name, nothing)
