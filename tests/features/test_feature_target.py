"""Target encoding: equal to scikit-learn on the other folds, and no row ever finds its own target."""

from __future__ import annotations

import numpy as np
import pytest
import sklearn.preprocessing
from features_helpers import made_in_chunks, write_table
from hypothesis import given, settings
from hypothesis import strategies as st

import daskml_scale as dms
from daskml_scale.errors import SpecError
from daskml_scale.spec.expressions import Coded
from daskml_scale.stages.features.program import Program, parse_steps
from daskml_scale.stages.features.target_mean import folds_of

LABELS = ("w", "z", "y", "x")
STEP = {"target_mean": {"of": "kind", "fold_by": "number", "folds": 3, "smooth": 4.0}}


def table(rows) -> dict[str, object]:
    codes, values = zip(*rows, strict=True)
    return {
        "kind": Coded(np.array(codes, dtype="int32"), LABELS),
        "late": np.array([np.nan if value is None else value for value in values], dtype="float64"),
        "number": np.arange(len(rows)) * 7,
        "when": np.full(len(rows), np.datetime64("2013-01-01", "ns")),
    }


def encoded(columns, chunk: int = 100, shard: int = 0) -> np.ndarray:
    return made_in_chunks(Program(parse_steps([STEP]), "when", "late"), columns, chunk, shard)[1][:, 0]


cells = st.tuples(st.integers(0, 3), st.one_of(st.none(), st.floats(-1e3, 1e3)))


@settings(max_examples=50, deadline=None)
@given(st.lists(cells, min_size=1, max_size=40), st.integers(1, 9))
def test_encodings_are_those_of_scikit_learn_on_the_other_folds(rows, chunk):
    columns = table(rows)
    found, fold = encoded(columns, chunk), folds_of(columns["number"], 3)
    texts = np.array([LABELS[code] for code in columns["kind"].codes])[:, None]
    for number in range(3):
        others, own = (fold != number) & ~np.isnan(columns["late"]), fold == number
        if others.sum() > 1 and own.any() and len(set(columns["late"][others])) > 1:
            theirs = sklearn.preprocessing.TargetEncoder(smooth=4.0, target_type="continuous")
            wanted = theirs.fit(texts[others], columns["late"][others]).transform(texts[own])[:, 0]
            np.testing.assert_allclose(found[own], wanted, rtol=1e-6, atol=1e-6)


@settings(max_examples=30, deadline=None)
@given(st.lists(cells, min_size=2, max_size=30), st.data(), st.sampled_from([np.nan, 1e300, -5.0]))
def test_a_row_never_finds_its_own_target(rows, data, garbage):
    columns, row = table(rows), data.draw(st.integers(0, len(rows) - 1))
    spoilt = {**columns, "late": columns["late"].copy()}
    spoilt["late"][row] = garbage
    assert encoded(spoilt, 5)[row].tobytes() == encoded(columns, 5)[row].tobytes()


def test_a_fold_follows_the_value_and_never_the_place():
    numbers = np.arange(3000.0)
    turned = numbers[::-1]
    np.testing.assert_array_equal(folds_of(turned, 5), folds_of(numbers, 5)[::-1])
    np.testing.assert_array_equal(folds_of(numbers.astype("int64"), 5), folds_of(numbers, 5))
    assert (np.bincount(folds_of(numbers, 5), minlength=5) > 500).all()
    one, other = Coded(np.array([0, 1, -1]), ("a", "b")), Coded(np.array([1, 0, -1]), ("b", "a"))
    np.testing.assert_array_equal(folds_of(one, 7), folds_of(other, 7))
    assert folds_of(np.array(["NaT"], dtype="datetime64[ns]"), 5).tolist() == [0]


def test_categories_never_seen_and_missing_ones_get_the_mean_and_prediction_needs_no_target(tmp_path):
    rng = np.random.default_rng(2)
    columns = table(list(zip(rng.integers(0, 2, 50).tolist(), rng.normal(size=50).tolist(), strict=True)))
    write_table(f"{tmp_path}/t.zarr", columns, 8)
    recipe = dms.Recipe([STEP], known_at="when", target="late").fit(f"{tmp_path}/t.zarr")
    new = {**columns, "kind": Coded(np.full(50, 2, dtype="int32"), LABELS)}
    new["kind"].codes[1::2] = -1
    write_table(f"{tmp_path}/new.zarr", new, 50)
    found = recipe.transform(f"{tmp_path}/new.zarr").features.values[:, 0]
    fold = folds_of(columns["number"], 3)
    wanted = [columns["late"][fold != own].mean() for own in fold]
    np.testing.assert_allclose(found, wanted, rtol=1e-5)
    with pytest.raises(SpecError, match=r"steps\[0\]: there is no target"):
        dms.Recipe([STEP], known_at="when").fit(f"{tmp_path}/t.zarr")
