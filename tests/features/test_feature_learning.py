"""Steps that learn, and those on single rows, against scikit-learn on whole data, over any chunking."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import sklearn.decomposition
import sklearn.feature_extraction
import sklearn.impute
import sklearn.preprocessing
from features_helpers import made_in_chunks, write_table
from hypothesis import given, settings
from hypothesis import strategies as st

import daskml_scale as dms
from daskml_scale.errors import DaskMLError, SpecError
from daskml_scale.spec.expressions import Coded
from daskml_scale.stages.features import learning, summary
from daskml_scale.stages.features.program import Program, parse_steps
from daskml_scale.stages.features.summary import BUCKET_ERROR, Histogram, Moments, Summary, bucket_of, edge_of

numbers = st.one_of(st.none(), st.floats(-1e6, 1e6), st.integers(-5, 5).map(float), st.sampled_from([0.0, 1e-12, 3.5]))
lists = st.lists(numbers, min_size=1, max_size=40)
chunks = st.integers(1, 12)


def made(steps, columns, chunk: int = 100, **options) -> np.ndarray:
    if isinstance(columns, list):
        columns = {"x": np.array([np.nan if value is None else value for value in columns], dtype="float64")}
    return made_in_chunks(Program(parse_steps(steps), "when"), {**columns, "when": WHEN(columns)}, chunk, **options)[1]


def WHEN(columns) -> np.ndarray:
    return np.full(len(next(iter(columns.values()))), np.datetime64("2013-01-01", "ns"))


def column(values) -> np.ndarray:
    return np.array([np.nan if value is None else value for value in values], dtype="float64")[:, None]


def theirs(transformer, values: np.ndarray) -> np.ndarray:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return transformer.fit_transform(values)


def near(found: np.ndarray, wanted: np.ndarray, scale: float = 1.0) -> None:
    np.testing.assert_allclose(found, wanted, rtol=1e-6, atol=1e-6 * max(1.0, scale))


@settings(max_examples=50, deadline=None)
@given(lists, chunks)
def test_scaling_equals_scikit_learn(values, chunk):
    data = column(values)
    known = np.isfinite(data).any()
    if known:
        near(made([{"min_max": {"of": "x"}}], values, chunk), theirs(sklearn.preprocessing.MinMaxScaler(), data))
    if known and np.nanstd(data) > 1e-3:
        near(made([{"standardize": {"of": "x"}}], values, chunk), theirs(sklearn.preprocessing.StandardScaler(), data))
    narrow = made([{"min_max": {"of": "x", "low": -2.0, "high": 3.0}}], values, chunk)
    assert not ((narrow < -2 - 1e-9) | (narrow > 3 + 1e-9)).any()


@settings(max_examples=50, deadline=None)
@given(lists, chunks, st.sampled_from(["mean", "most_frequent", "median"]))
def test_imputing_equals_scikit_learn(values, chunk, by):
    data = column(values)
    found = made([{"impute": {"of": "x", "by": by, "indicator": True}}], values, chunk)
    np.testing.assert_array_equal(found[:, 1], np.isnan(data[:, 0]))
    if np.isnan(data).all():
        assert np.isnan(found[:, 0]).all()
        return
    wanted = theirs(sklearn.impute.SimpleImputer(strategy=by), data)[:, 0]
    tolerance = BUCKET_ERROR * np.nanmax(np.abs(data)) if by == "median" else 1e-6 * max(1.0, np.nanmax(np.abs(data)))
    np.testing.assert_allclose(found[:, 0], wanted, rtol=1e-6, atol=tolerance)
    present = ~np.isnan(data[:, 0])
    np.testing.assert_array_equal(found[present, 0], data[present, 0])


@settings(max_examples=50, deadline=None)
@given(lists.filter(lambda values: len({v for v in values if v is not None}) > 1), chunks)
def test_imputed_columns_are_standardized_in_the_same_pass(values, chunk):
    data = column(values)
    wanted = theirs(sklearn.preprocessing.StandardScaler(), theirs(sklearn.impute.SimpleImputer(), data))
    if np.nanstd(data) > 1e-3:
        near(made([{"impute": {"of": "x"}}, {"standardize": {"of": "x"}}], values, chunk), wanted)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(-900, 900), min_size=4, max_size=40), chunks, st.integers(2, 6))
def test_robust_and_bins_of_small_whole_numbers_equal_scikit_learn(values, chunk, bins):
    """Whole numbers below 2048 are their own buckets: no error is left."""
    data = column(values)
    near(made([{"robust": {"of": "x"}}], values, chunk), theirs(sklearn.preprocessing.RobustScaler(), data))
    if len(set(values)) > 1:
        width = sklearn.preprocessing.KBinsDiscretizer(bins, encode="ordinal", strategy="uniform")
        np.testing.assert_array_equal(made([{"bin": {"of": "x", "bins": bins}}], values, chunk), theirs(width, data))
        edges = np.unique(np.quantile(data[:, 0], np.linspace(0, 1, bins + 1)))
        if np.diff(edges).min() > 1e-6:
            found = made([{"bin": {"of": "x", "bins": bins, "by": "quantile"}}], values, chunk)[:, 0]
            # An edge between two values may be rounded to either side of a value that it equals.
            clear = ~np.isclose(data, edges, rtol=1e-12, atol=1e-9).any(axis=1)
            np.testing.assert_array_equal(found[clear], np.searchsorted(edges[1:-1], data[clear, 0], "right"))


@settings(max_examples=80, deadline=None)
@given(st.lists(st.floats(-1e300, 1e300), min_size=1, max_size=60), st.data())
def test_quantiles_stay_within_the_bucket_error_in_any_order(values, data):
    array = np.array(values)
    cut = data.draw(st.integers(0, len(values)))
    parts = [Summary.of(array[:cut], ["buckets"]), Summary.of(array[cut:], ["buckets"])]
    merged, turned = Summary.merged(parts), Summary.merged(parts[::-1])
    np.testing.assert_array_equal(merged.buckets.keys, turned.buckets.keys)
    np.testing.assert_array_equal(merged.buckets.counts, turned.buckets.counts)
    sure = np.sort(array)
    ranks = np.arange(len(array)) / max(1, len(array) - 1)
    found = np.array(merged.buckets.quantiles(ranks.tolist(), merged.moments))
    # rank * (n - 1) may round to a neighbouring place by an ulp: then a value lies between two neighbours
    for rank, value in enumerate(found):
        near_by = sure[max(0, rank - 1) : rank + 2]
        slack = BUCKET_ERROR * np.abs(near_by).max() + 1e-300
        assert near_by.min() - slack <= value <= near_by.max() + slack


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=2, max_size=40))
def test_buckets_keep_the_order_and_the_error(values):
    array = np.sort(np.array(values))
    buckets = bucket_of(array)
    assert (np.diff(buckets) >= 0).all()
    normal = np.abs(array) > 1e-300
    assert (np.abs(edge_of(buckets) - array)[normal] < BUCKET_ERROR * np.abs(array)[normal]).all()
    whole = np.arange(-2047.0, 2048.0)
    np.testing.assert_array_equal(edge_of(bucket_of(whole)), whole)
    packed = Histogram.of(buckets)
    np.testing.assert_array_equal(Histogram.unpack(packed.pack()).keys, packed.keys)


@settings(max_examples=50, deadline=None)
@given(lists, st.lists(st.integers(0, 40), max_size=5))
def test_moments_merge_to_those_of_the_whole(values, cuts):
    data = column(values)[:, 0]
    total = Moments()
    for part in np.split(data, sorted(cut for cut in cuts if cut <= len(data))):
        total = total.merged(Moments.of(part))
    present = data[~np.isnan(data)]
    assert (total.count, total.missing) == (len(present), np.isnan(data).sum())
    if len(present):
        scale = np.abs(present).max()
        near(np.array([total.mean, total.low, total.high]), np.array([present.mean(), present.min(), present.max()]))
        np.testing.assert_allclose(total.deviation, present.std(), rtol=1e-6, atol=1e-9 * max(1, scale))


@settings(max_examples=30, deadline=None)
@given(st.integers(3, 40), chunks, st.integers(0, 2**31))
def test_components_equal_those_of_scikit_learn(rows, chunk, seed):
    rng = np.random.default_rng(seed)
    data = rng.normal(size=(rows, 3)) * [5, 2, 0.5] + [100, 0, -7]
    columns = {name: data[:, number] for number, name in enumerate("abc")}
    found = made([{"pca": {"of": ["a", "b", "c"], "components": 2}}], columns, chunk)
    wanted = sklearn.decomposition.PCA(2, svd_solver="full").fit_transform(data)
    near(np.abs(found), np.abs(wanted), 100)
    gone = made([{"pca": {"of": ["a", "b"], "components": 1}}], {**columns, "b": np.full(rows, np.nan)}, chunk)
    assert np.isnan(gone).all()


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(-1, 3), min_size=1, max_size=30), chunks)
def test_categories_are_encoded_by_label(codes, chunk):
    labels = ("w", "z", "y", "x")
    columns = {"kind": Coded(np.array(codes, dtype="int32"), labels)}
    texts = np.array([labels[code] if code >= 0 else "" for code in codes])
    steps = [{"one_hot": {"of": "kind", "levels": ["z", "x", "never"]}}, {"count": {"of": "kind"}}]
    found = made(steps, columns, chunk)
    for place, level in enumerate(["z", "x", "never"]):
        np.testing.assert_array_equal(found[:, place], texts == level)
    np.testing.assert_array_equal(found[:, 3], np.isin(texts, ["w", "y"]))
    wanted = [np.nan if not text else float((texts == text).sum()) for text in texts]
    np.testing.assert_array_equal(found[:, 4], wanted)
    for signed in (True, False):
        hasher = sklearn.feature_extraction.FeatureHasher(4, input_type="string", alternate_sign=signed)
        hashed = hasher.transform([[text] if text else [] for text in texts]).toarray()
        own = made([{"hashing": {"of": "kind", "buckets": 4, "signed": signed}}], columns, chunk)
        np.testing.assert_array_equal(own, hashed)


def test_categories_never_seen_count_zero_and_are_other_or_nothing():
    columns = {"kind": Coded(np.array([0, 1, 1, 2, -1]), ("a", "b", "c")), "seen": np.array([1, 1, 1, 0, 1])}
    steps = [
        {"count": {"of": "kind", "share": True}},
        {"one_hot": {"of": "kind", "levels": ["a"], "unknown": "zeros"}},
    ]
    found = made(steps, columns, 2, where="seen == 1")
    np.testing.assert_allclose(found[:, 0], [1 / 3, 2 / 3, 2 / 3, 0, np.nan])
    assert found[:, 1].tolist() == [1, 0, 0, 0, 0]


def test_constant_missing_infinite_single_and_no_rows():
    steps = [{name: {"of": "x"}} for name in ("standardize", "min_max", "robust", "bin")]
    for step in steps:
        assert made([step], [7.0] * 5, 2)[:, 0].tolist() == [0] * 5, step
        assert made([step], [7.0], 1)[:, 0].tolist() == [0], step
        assert np.isnan(made([step], [None] * 3, 2)).all(), step
        assert made([step], np.empty(0).tolist(), 2).shape == (0, 1), step
    values = [1.0, np.inf, 3.0, -np.inf, None]
    found = made([{"impute": {"of": "x"}}, {"clip": {"of": "x", "high": 100.0}}], values, 2)[:, 0]
    assert found.tolist() == [1.0, 100.0, 3.0, -np.inf, 2.0]


def test_steps_that_learn_nothing_and_what_is_learnt_of_them():
    columns = {"x": np.array([0.0, np.e - 1, -1.0, -5.0]), "y": np.array([2.0, 3.0, 4.0, np.nan])}
    steps = [
        {"log": {"of": "x"}},
        {"interactions": {"of": ["x", "y"]}},
        {"compute": {"features": {"more": "x + 2 * y", "large": "y > 2"}}},
        {"min_max": {"of": ["more"]}},
    ]
    found = made(steps, columns, 2)
    np.testing.assert_allclose(found[:, 0], [0, 1, np.nan, np.nan])
    np.testing.assert_allclose(found[:, 1], [0, 3, np.nan, np.nan])
    np.testing.assert_allclose(found[:, 2], [0, 1, np.nan, np.nan])  # 4 and 7 are the ends
    np.testing.assert_array_equal(found[:, 3], [0, 1, 1, np.nan])


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        ([{"standardize": {"of": "x"}}, {"min_max": {"of": "x"}}], r"steps\[1\]\.min_max.*one pass"),
        ([{"impute": {"of": "x"}}, {"log": {"of": "x"}}, {"standardize": {"of": "x"}}], r"steps\[2\].*one pass"),
        ([{"impute": {"of": "x", "by": "constant"}}], "by: constant and value: go together"),
        ([{"clip": {"of": "x"}}], "give low:, high: or both"),
        ([{"standardize": {"of": "kind"}}], "is a category, number needed"),
        ([{"count": {"of": "x"}}], "is a number, category needed"),
        ([{"compute": {"features": {"when2": "when"}}}], "is a time"),
    ],
)
def test_recipes_that_cannot_be_learnt_in_one_pass_or_do_not_fit_are_refused(tmp_path, steps, message):
    columns = {"x": np.arange(3.0), "kind": Coded(np.zeros(3, dtype="int32"), ("a",)), "when": WHEN({"x": range(3)})}
    write_table(f"{tmp_path}/t.zarr", columns, 2)
    with pytest.raises(SpecError, match=message):
        dms.Recipe(steps, known_at="when").fit(f"{tmp_path}/t.zarr")


def test_too_many_distinct_values_have_no_most_frequent_one(monkeypatch):
    monkeypatch.setattr(summary, "DISTINCT", 3)
    monkeypatch.setattr(learning, "DISTINCT", 3)
    step = [{"impute": {"of": "x", "by": "most_frequent"}}]
    with pytest.raises(DaskMLError, match=r"more than 3 distinct values.*median"):
        made(step, [1.0, 2.0, 3.0, 4.0, None], 2)
    assert made(step, [1.0, 2.0, 2.0, 3.0, None], 2)[-1, 0] == 2.0


def test_a_stored_recipe_equals_scikit_learn_and_comes_back_from_json(tmp_path):
    rng = np.random.default_rng(1)
    values = np.where(rng.random(200) < 0.2, np.nan, rng.normal(50, 9, 200))
    columns = {"x": values, "y": rng.integers(0, 9, 200), "when": WHEN({"x": values})}
    write_table(f"{tmp_path}/t.zarr", columns, 30)
    steps = [dms.steps.Impute(of=["x"]), dms.steps.Standardize(of=["x", "y"])]
    recipe = dms.Recipe(steps, known_at="when")
    found = recipe.fit_transform(f"{tmp_path}/t.zarr", f"{tmp_path}/f.zarr", where="y < 5")
    seen = np.stack([values, columns["y"]], axis=1)
    imputer = sklearn.impute.SimpleImputer().fit(seen[columns["y"] < 5])
    scaler = sklearn.preprocessing.StandardScaler().fit(imputer.transform(seen[columns["y"] < 5]))
    np.testing.assert_allclose(found.features.values, scaler.transform(imputer.transform(seen)), rtol=1e-5, atol=1e-6)
    again = dms.Recipe.from_json(recipe.to_json()).transform(f"{tmp_path}/t.zarr")
    np.testing.assert_array_equal(again.features.values, found.features.values)
    assert found.feature.values.tolist() == ["x", "y"]
