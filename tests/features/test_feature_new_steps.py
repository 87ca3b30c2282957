"""Rename, cast, group aggregates, levels found in fit, scikit-learn transformers and functions: exact on any grid."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest
import sklearn.preprocessing
from features_helpers import made_in_chunks, write_table
from hypothesis import given, settings
from hypothesis import strategies as st

import daskml_scale as dms
from daskml_scale.errors import DaskMLError, PlanError, SpecError, UntrustedError
from daskml_scale.spec.expressions import Coded
from daskml_scale.stages.features import aggregate
from daskml_scale.stages.features.program import Program, parse_steps

START = np.datetime64("2013-01-01", "ns")
values = st.one_of(st.none(), st.floats(-1e6, 1e6), st.integers(-3, 3).map(float), st.sampled_from([np.inf, 1e-12]))
rows = st.lists(st.tuples(values, st.integers(-1, 3), st.integers(0, 2)), min_size=1, max_size=40)
chunks = st.integers(1, 12)


def table(drawn) -> dict[str, object]:
    x, place, site = zip(*drawn, strict=True)
    return {
        "x": np.array([np.nan if value is None else value for value in x], dtype="float64"),
        "place": Coded(np.array(place, dtype="int32"), ("d", "b", "a", "c")),
        "site": np.array(site, dtype="int64"),
        "number": np.arange(len(drawn)),
        "when": START + np.arange(len(drawn)) * np.timedelta64(1, "h"),
    }


def made(steps, columns, chunk=100, target=None, **options):
    return made_in_chunks(Program(parse_steps(steps), "when", target), columns, chunk, **options)[1]


def drawn_table(count: int, seed: int = 0) -> dict[str, object]:
    rng = np.random.default_rng(seed)
    return table([(rng.normal(), int(rng.integers(-1, 4)), int(rng.integers(0, 3))) for _ in range(count)])


@settings(max_examples=60, deadline=None)
@given(rows, chunks)
def test_group_statistics_equal_pandas(drawn, chunk):
    columns = table(drawn)
    stats = ["mean", "sum", "count", "min", "max", "std"]
    found = made([{"aggregate": {"of": "x", "by": ["place", "site"], "stats": stats}}], columns, chunk)
    x = pd.Series(columns["x"]).replace([np.inf, -np.inf], np.nan)
    codes = pd.Series(columns["place"].codes)
    groups = x.groupby([codes, columns["site"]])
    wanted = np.stack([groups.transform("sum" if stat == "sum" else stat) for stat in stats], axis=1).astype("float64")
    wanted[:, 1] = np.where(wanted[:, 2] > 0, wanted[:, 1], np.nan)  # pandas: the sum of nothing is 0
    wanted[codes < 0] = [np.nan, np.nan, 0, np.nan, np.nan, np.nan]
    scale = max(1.0, float(np.nanmax(np.abs(x))) if x.notna().any() else 1.0)
    np.testing.assert_allclose(found, wanted, rtol=1e-6, atol=1e-6 * scale)


@settings(max_examples=40, deadline=None)
@given(rows, chunks, st.integers(2, 5))
def test_out_of_fold_statistics_equal_a_plain_loop(drawn, chunk, folds):
    from daskml_scale.stages.features.target_mean import folds_of

    columns = table(drawn)
    step = {"aggregate": {"of": "x", "by": "place", "stats": ["mean", "count"], "fold_by": "number", "folds": folds}}
    found = made([step], columns, chunk, target="x")
    fold, codes = folds_of(columns["number"], folds), columns["place"].codes
    for row in range(len(drawn)):
        others = columns["x"][(fold != fold[row]) & (codes == codes[row]) & (codes >= 0)]
        others = others[np.isfinite(others)]
        mean = others.mean() if len(others) else np.nan
        np.testing.assert_allclose(found[row], [mean, len(others)], rtol=1e-6, atol=1e-6 * max(1.0, abs(mean)))


def test_an_aggregate_of_the_target_needs_folds():
    steps = [{"aggregate": {"of": "x", "by": "place", "stats": ["mean"]}}]
    recipe = dms.Recipe(steps, known_at="when", target="x")
    with pytest.raises(SpecError, match=r"steps\[0\].aggregate.of: a row's own 'x' would count.*fold_by"):
        recipe.fit(dataset(drawn_table(5)))


def test_groups_are_known_by_label_and_number_and_new_ones_have_no_statistics():
    fitted, _ = made_in_chunks(
        Program(parse_steps([{"aggregate": {"of": "x", "by": ["place", "site"], "stats": ["sum", "count"]}}]), "when"),
        table([(1.0, 0, 0), (2.0, 0, 0), (4.0, 1, 1)]), 1,
    )  # fmt: skip
    step, learnt = fitted.steps[0], fitted.learnt["0"]
    other = {"place": Coded(np.array([2, 0, 1, -1]), ("b", "new", "d")), "site": np.array([0.0, 1.0, 0.0, 0.0])}
    sums, counts = aggregate.encode(step, aggregate.Groups.of_learnt(step, learnt), other)
    np.testing.assert_array_equal(sums, [3.0, 4.0, np.nan, np.nan])
    np.testing.assert_array_equal(counts, [2.0, 1.0, 0.0, 0.0])


def test_too_many_groups_are_refused(monkeypatch):
    monkeypatch.setattr(aggregate, "GROUPS", 3)
    steps = [{"aggregate": {"of": "x", "by": "number", "stats": ["mean"]}}]
    for chunk in (2, 100):
        with pytest.raises(DaskMLError, match=r"steps\[0\].aggregate: more than 3 groups by number.*trailing"):
            made(steps, drawn_table(10), chunk)


@pytest.mark.parametrize(
    ("to", "wanted"),
    [
        ("int8", [np.nan, 2, -2, np.nan, 127, -128, np.nan, 0]),
        ("uint8", [np.nan, 2, np.nan, np.nan, 127, np.nan, np.nan, 0]),
        ("int64", [np.nan, 2, -2, np.nan, 127, -128, np.nan, 0]),
        ("bool", [np.nan, 1, 1, 1, 1, 1, 1, 0]),
        ("float32", [np.nan, 2.9, -2.9, np.inf, 127.5, -128.5, 1e300, 0]),
    ],
)
def test_a_cast_holds_what_the_type_holds_and_never_wraps(to, wanted):
    columns = drawn_table(8)
    columns["x"] = np.array([np.nan, 2.9, -2.9, np.inf, 127.5, -128.5, 1e300, 0.0])
    found = made([{"cast": {"of": "x", "to": to}}], columns)[:, 0]
    with np.errstate(over="ignore"):
        wanted = np.array(wanted, dtype="float32" if to == "float32" else "float64")
    np.testing.assert_array_equal(found, wanted)


def test_a_cast_of_the_ends_of_int64_does_not_wrap():
    columns = drawn_table(3)
    columns["x"] = np.array([2.0**63, -(2.0**63), 2.0**63 - 1024])
    np.testing.assert_array_equal(
        made([{"cast": {"of": "x", "to": "int64"}}], columns)[:, 0], [np.nan, -(2.0**63), 2.0**63 - 1024]
    )


def test_a_cast_reads_numbers_from_text():
    columns = drawn_table(4)
    columns["place"] = Coded(np.array([0, 1, 2, -1]), ("12.5", "many", "-3"))
    found = made([{"cast": {"of": "place", "to": "float64"}}, {"compute": {"features": {"y": "place + 1"}}}], columns)
    np.testing.assert_array_equal(found[:, 0], [12.5, np.nan, -3.0, np.nan])
    np.testing.assert_array_equal(found[:, 1], [13.5, np.nan, -2.0, np.nan])


def test_a_renamed_feature_has_its_new_name_only():
    columns = drawn_table(6)
    steps = [{"log": {"of": "x"}}, {"rename": {"of": {"log_x": "x", "place_number": "site"}}},
             {"standardize": {"of": "log_x"}}]  # fmt: skip
    fitted, found = made_in_chunks(Program(parse_steps(steps), "when"), columns, 2)
    assert fitted.features == ("log_x", "place_number")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logs = np.log1p(columns["x"])
    np.testing.assert_allclose(found[:, 0], (logs - np.nanmean(logs)) / np.nanstd(logs), rtol=1e-6)
    np.testing.assert_array_equal(found[:, 1], columns["site"])


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 6), min_size=1, max_size=40), chunks, st.sampled_from([1, 3, 0.2]), st.integers(2, 5))
def test_levels_found_in_fit_equal_scikit_learn(codes, chunk, least, most):
    labels = np.array(["g", "c", "a", "f", "b", "d", "e"])
    columns = {
        "place": Coded(np.array(codes, dtype="int32"), tuple(labels)),
        "when": START + np.arange(len(codes)) * np.timedelta64(1, "h"),
    }
    fitted, found = made_in_chunks(
        Program(parse_steps([{"one_hot": {"of": "place", "least": least, "most": most}}]), "when"), columns, chunk
    )
    counts = pd.Series(labels[codes]).value_counts()
    frequent = counts[counts >= (least * len(codes) if least < 1 else least)]
    wanted = sorted(sorted(frequent.index, key=lambda label: (-counts[label], label))[:most])
    assert fitted.features == (*(f"place_{label}" for label in wanted), "place_other")
    if len(frequent) <= most:
        encoder = sklearn.preprocessing.OneHotEncoder(min_frequency=least, sparse_output=False)
        theirs = encoder.fit_transform(labels[codes][:, None])
        if theirs.shape[1] == len(wanted):
            theirs = np.column_stack([theirs, np.zeros(len(codes))])  # no infrequent one
        np.testing.assert_array_equal(found, theirs)


def test_a_level_never_seen_counts_as_other_and_a_missing_one_nowhere():
    steps = [{"one_hot": {"of": "place"}}]
    fitted, _ = made_in_chunks(Program(parse_steps(steps), "when"), table([(0.0, 0, 0), (0.0, 1, 0)]), 1)
    from daskml_scale.stages.features.rowwise import rowwise

    new = Coded(np.array([0, 1, -1]), ("d", "new"))
    found = np.stack(rowwise(fitted.steps[0], {"place": new}, fitted.learnt["0"], 3), axis=1)
    assert fitted.features == ("place_b", "place_d", "place_other")
    np.testing.assert_array_equal(found, [[0, 1, 0], [0, 0, 1], [0, 0, 0]])


def dataset(columns):
    import xarray as xr

    parts = {
        name: ("row", column.codes, {"categories": list(column.labels)})
        if isinstance(column, Coded)
        else ("row", column)
        for name, column in columns.items()
    }
    return xr.Dataset(parts, attrs={"row_dim": "row"})


POWER = {"sklearn": {"of": ["x", "site"], "transformer": "sklearn.preprocessing.PowerTransformer", "prefix": "p_"}}


def test_a_transformer_of_scikit_learn_is_what_it_is_on_the_whole_table(tmp_path):
    columns = drawn_table(50)
    write_table(f"{tmp_path}/rows.zarr", columns, 7)
    steps = [{"impute": {"of": "x"}}, POWER, {"keep": {"of": "site"}}]
    recipe = dms.Recipe(steps, known_at="when").fit(f"{tmp_path}/rows.zarr")
    found = recipe.transform(f"{tmp_path}/rows.zarr").features.values
    wanted = sklearn.preprocessing.PowerTransformer().fit_transform(np.column_stack([columns["x"], columns["site"]]))
    np.testing.assert_allclose(found[:, 1:3], wanted, rtol=1e-5, atol=1e-6)
    assert recipe.get_feature_names_out().tolist() == ["x", "p_x", "p_site", "site"]
    recipe.save(tmp_path / "recipe.json")
    again = dms.Recipe.load(tmp_path / "recipe.json").transform(f"{tmp_path}/rows.zarr").features.values
    np.testing.assert_array_equal(again, found)
    here = dms.Recipe(steps, known_at="when").fit(dataset(columns)).transform(dataset(columns)).features.values
    np.testing.assert_allclose(here, found, rtol=1e-6, atol=1e-7)


def test_a_sample_is_whole_chunks_by_seed_and_only_their_change_fits_again(tmp_path):
    url = f"{tmp_path}/rows.zarr"
    write_table(url, drawn_table(100), 10)
    step = {"sklearn": {"of": "x", "transformer": "sklearn.preprocessing.StandardScaler", "sample": 25}}

    def fitted(**changes):
        return dms.Recipe([{"sklearn": {**step["sklearn"], **changes}}], known_at="when").fit(url)

    first = fitted().to_json()["fitted"]["learnt"]["0"]
    assert first["rows"] == 30
    assert fitted(seed=1).to_json()["fitted"]["learnt"]["0"]["sha256"] != first["sha256"]
    assert fitted().to_json()["fitted"]["learnt"]["0"] == first
    everything = fitted(sample=1000).to_json()["fitted"]["learnt"]["0"]
    assert everything["rows"] == 100


def test_partial_fit_takes_the_chunks_in_order(tmp_path):
    columns = drawn_table(60)
    write_table(f"{tmp_path}/rows.zarr", columns, 9)
    transformer = {"sklearn.decomposition.IncrementalPCA": {"n_components": 2, "batch_size": 9}}
    step = {"sklearn": {"of": ["x", "site", "number"], "transformer": transformer, "by": "partial_fit"}}
    recipe = dms.Recipe([step], known_at="when").fit(f"{tmp_path}/rows.zarr", where="number < 54")
    from sklearn.decomposition import IncrementalPCA

    data = np.column_stack([columns["x"], columns["site"], columns["number"]]).astype("float64")
    theirs = IncrementalPCA(2)
    for start in range(0, 54, 9):
        theirs.partial_fit(data[start : start + 9])
    found = recipe.transform(f"{tmp_path}/rows.zarr").features.values
    np.testing.assert_allclose(found, theirs.transform(data), rtol=1e-5, atol=1e-5)
    assert recipe.get_feature_names_out().tolist() == ["incrementalpca0", "incrementalpca1"]


def test_text_goes_to_scikit_learn_as_text_and_a_selector_gets_the_target():
    columns = drawn_table(30)
    columns["place"] = Coded(np.abs(columns["place"].codes), columns["place"].labels)
    encoder = {"sklearn.preprocessing.OneHotEncoder": {"sparse_output": True}}
    best = {"sklearn.feature_selection.SelectKBest": {"k": 1, "score_func": "f"}}
    recipe = dms.Recipe([{"sklearn": {"of": "place", "transformer": encoder}}], known_at="when").fit(dataset(columns))
    assert recipe.get_feature_names_out().tolist() == [f"place_{label}" for label in "abcd"]
    assert recipe.transform(dataset(columns)).features.values.sum() == 30
    wrong = dms.Recipe([{"sklearn": {"of": "number", "transformer": best}}], known_at="when", target="site")
    with pytest.raises(DaskMLError, match=r"steps\[0\].sklearn: cannot be fitted"):
        wrong.fit(dataset(columns))
    half = {"sklearn.feature_selection.SelectPercentile": {"percentile": 50}}
    chosen = dms.Recipe([{"sklearn": {"of": ["number", "x"], "transformer": half}}], known_at="when", target="site")
    assert len(chosen.fit(dataset(columns)).get_feature_names_out()) == 1


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"transformer": "sklearn.preprocessing.StandardScalar"}, SpecError, "transformer: .*'StandardScaler'"),
        ({"transformer": "sklearn.linear_model.Ridge"}, SpecError, "has no transform"),
        ({"transformer": "sklearn.preprocessing.Normalizer", "by": "partial_fit"}, SpecError, "has no partial_fit"),
        ({"transformer": "sklearn.preprocessing.TargetEncoder"}, SpecError, "use target_mean"),
        ({"transformer": "sklearn.cluster.KMeans", "of": ["x"]}, DaskMLError, "cannot be fitted: ValueError"),
    ],
)  # fmt: skip
def test_transformers_that_do_not_fit_are_refused(settings, error, message):
    columns = drawn_table(3)
    with pytest.raises(error, match=message):
        dms.Recipe([{"sklearn": {"of": ["x"], **settings}}], known_at="when", target="site").fit(dataset(columns))


def test_an_altered_transformer_is_not_loaded():
    columns = drawn_table(20)
    saved = dms.Recipe([POWER], known_at="when").fit(dataset(columns)).to_json()
    saved["fitted"]["learnt"]["0"]["sha256"] = "0" * 64
    with pytest.raises(UntrustedError, match=r"steps\[0\].sklearn: the saved transformer was altered"):
        dms.Recipe.from_json(saved).transform(dataset(columns)).features.compute()


def function(name: str, **changes):
    return {"function": {"call": f"example_functions:{name}", "of": ["size", "place"], "makes": ["more"], **changes}}


def sized(count: int):
    columns = drawn_table(count)
    return {**columns, "size": columns["x"]}


def test_a_function_makes_features_that_later_steps_learn_from():
    steps = [function("two", makes=["first", "second"]), {"standardize": {"of": "first"}}]
    columns = sized(20)
    recipe = dms.Recipe(steps, known_at="when").fit(dataset(columns))
    found = recipe.transform(dataset(columns)).features.values
    first = columns["size"] + 1
    np.testing.assert_allclose(found[:, 0], (first - first.mean()) / first.std(), rtol=1e-5)
    np.testing.assert_array_equal(found[:, 1], columns["place"].codes >= 0)


@pytest.mark.parametrize(
    ("step", "message"),
    [
        (function("of_text"), "returned .* it declares float64"),
        (function("too_short"), r"returned \(1,\) for 'more', one value for each of 20 rows"),
        (function("two"), "returned .*first.*second.* it makes"),
        (function("doubled", makes=["a", "b"]), r"returned shape \(20, 1\), it makes 2 features"),
        (function("doubled", dtype="int64"), "returned float64 for 'more', it declares int64"),
    ],
)
def test_a_function_that_returns_something_else_is_refused(step, message):
    data = dataset(sized(20))
    with pytest.raises(DaskMLError, match=message):
        dms.Recipe([step], known_at="when").fit_transform(data).features.compute()


def test_a_function_that_is_not_there_or_has_changed_is_refused():
    data = dataset(sized(20))
    with pytest.raises(PlanError, match=r"example_functions has no 'double'.*did you mean 'doubled'"):
        dms.Recipe([function("double")], known_at="when").fit(data)
    saved = dms.Recipe([function("doubled")], known_at="when").fit(data).to_json()
    saved["fitted"]["learnt"]["0"]["code"] = "other"
    with pytest.raises(SpecError, match=r"steps\[0\].function.call: the code of example_functions:doubled"):
        dms.Recipe.from_json(saved).transform(data)


def test_features_named_in_fit_do_not_take_another_name():
    data = dataset(drawn_table(20))
    steps = [{"keep": {"of": "x"}}, {"sklearn": {"of": "x", "transformer": "sklearn.preprocessing.StandardScaler"}}]
    with pytest.raises(SpecError, match=r"steps\[1\].sklearn: duplicate name: feature 'x'.*prefix"):
        dms.Recipe(steps, known_at="when").fit(data)
