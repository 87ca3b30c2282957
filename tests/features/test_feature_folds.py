"""Folds refit by merging: exact, leak-free, without reading; and what the recipe has seen is never scored."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from example_steps import EXAMPLES, KNOWN_AT, TARGET, columns
from features_helpers import write_table
from hypothesis import given, settings
from hypothesis import strategies as st

import daskml_scale as dms
from daskml_scale.errors import PlanError, UnitsFailedError, UsageError
from daskml_scale.spec.folds import FoldsBy
from daskml_scale.spec.recipe_checks import workflow_problems
from daskml_scale.spec.workflow import SearchSpec, Workflow
from daskml_scale.stages.evaluate import EvaluateStage
from daskml_scale.stages.features.program import Program, parse_steps
from daskml_scale.stages.features.seen import Seen, runs
from daskml_scale.stages.features.stage import FeaturesStage
from daskml_scale.stages.features.statistics import Place, fold_numbers, learn, scan
from daskml_scale.stages.run import run_stage
from daskml_scale.stages.search.stage import SearchStage
from daskml_scale.storage import stores
from daskml_scale.storage.tables import read_columns

ROWS = 60
LEARNING = ("standardize", "impute", "one_hot", "bin", "robust", "count", "ordinal", "pca", "aggregate", "min_max")
STEPS = [
    {"standardize": EXAMPLES["standardize"]}, {"one_hot": EXAMPLES["one_hot"]}, {"aggregate": EXAMPLES["aggregate"]},
    {"sklearn": {**EXAMPLES["sklearn"], "of": ["width"]}}, {"ordinal": EXAMPLES["ordinal"]},
]  # fmt: skip
OPENED: list[str] = []
LISTENING: list[str] = []


def _opened(event: str, args: tuple[object, ...]) -> None:
    if (
        LISTENING
        and event == "open"
        and isinstance(args[0], str)
        and f"{LISTENING[0]}/" in args[0]
        and "/c/" in args[0]
    ):
        OPENED.append(args[0])


sys.addaudithook(_opened)


class opened:
    """Notes the chunk files of a dataset that are opened meanwhile, in this process."""

    def __init__(self, url: str) -> None:
        self.url = url

    def __enter__(self) -> list[str]:
        OPENED.clear()
        LISTENING.append(self.url)
        return OPENED

    def __exit__(self, *error: object) -> None:
        LISTENING.clear()

    @staticmethod
    def bytes() -> int:
        """Of all that was opened, as often as it was."""
        return sum(Path(path).stat().st_size for path in OPENED)


@pytest.fixture
def table(tmp_path) -> str:
    url = f"{tmp_path}/rows.zarr"
    write_table(url, columns(ROWS), 10, row_key=["due", "number"], derived_from={})
    return url


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 20), st.integers(2, 5), st.sampled_from([None, "number", "place"]), st.sampled_from(LEARNING))
def test_a_fold_left_out_is_a_fit_on_the_others(chunk, count, by, name):
    own = columns(ROWS, seed=chunk)
    folds = FoldsBy(count=count, by=by)
    program = Program(parse_steps([{name: EXAMPLES[name]}]), KNOWN_AT, TARGET, folds=folds)

    def parts(program, where=None):
        for start in range(0, ROWS, chunk):
            taken = {key: column[start : start + chunk] for key, column in own.items()}
            yield scan(program, taken, len(taken["number"]), where, Place(start, ROWS))

    fitted = learn(program, list(parts(program)))
    number = fold_numbers(folds, own, ROWS, Place(0, ROWS))
    for left_out in range(count):
        own["kept"] = (number != left_out).astype("float64")
        alone = learn(program.alone(), list(parts(program.alone(), "kept == 1")))
        assert _near(fitted.fold(left_out).to_dict()["fitted"], alone.to_dict()["fitted"])


def _near(one, other) -> bool:
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(_near(one[key], other[key]) for key in one if key not in ("of", "id"))
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(_near(*pair) for pair in zip(one, other, strict=True))
    return one == other or bool(np.isclose(one, other, rtol=1e-9, atol=1e-12))


@pytest.mark.parametrize("folds", [3, {"count": 3, "by": "number"}])
def test_refits_of_folds_read_no_row(table, folds):
    recipe = dms.Recipe(STEPS, known_at=KNOWN_AT, target=TARGET)
    with opened(table) as files:
        recipe.fit(table, folds=folds)
        assert files  # the count counts
    with opened(table) as files:
        fits = [recipe.fold(number) for number in range(3)]
        again = dms.Recipe.from_json(recipe.to_json()).fold(1)
        assert not files
    assert again.to_json() == fits[1].to_json()
    assert len({str(fit.to_json()["fitted"]["learnt"]["0"]) for fit in (recipe, *fits)}) == 4
    with pytest.raises(UsageError, match="no fold 3; it has folds 0 to 2"):
        recipe.fold(3)
    with pytest.raises(UsageError, match="fit it with folds="):
        dms.Recipe(STEPS, known_at=KNOWN_AT, target=TARGET).fit(table).fold(0)


def test_the_stage_writes_the_features_of_every_fold_left_out(table, tmp_path):
    out = f"{tmp_path}/features.zarr"
    recipe = dms.Recipe(STEPS, known_at=KNOWN_AT, target=TARGET).fit(table, folds={"count": 3, "by": "number"})
    found = recipe.transform(table, out)
    assert dict(found.attrs)["folds"] == 3
    np.testing.assert_array_equal(np.unique(found.fold.values), [0, 1, 2])
    for number in range(3):
        alone = recipe.fold(number).transform(table)
        np.testing.assert_array_equal(found[f"features_without_{number}"].values, alone.features.values)
    here = recipe.transform(stores.open_dataset(table).load(), f"{tmp_path}/here.zarr")
    assert "folds" not in here.attrs  # it cannot be told that these are the rows learnt from


def test_a_refit_after_1_percent_of_the_chunks_changed_reads_3_percent_of_the_bytes(tmp_path):
    url, rows, chunk = f"{tmp_path}/rows.zarr", 20_000, 100
    write_table(url, columns(rows), chunk, row_key=["number"], derived_from={})
    steps = [{"standardize": {"of": "size"}}, {"impute": {"of": "width"}}, {"one_hot": {"of": "place"}}]
    first = dms.Recipe(steps, known_at="due").fit(url)
    read = [*Path(url).glob("size/c/*"), *Path(url).glob("width/c/*"), *Path(url).glob("place/c/*")]
    full = sum(path.stat().st_size for path in read)  # what a full fit cannot do without
    assert dms.last_run().units == 200
    for start in (700, 15_000):
        raw, _ = stores.read_raw(url, "size", start, start + chunk)
        stores.write_region(url, start, {"size": raw + 1})
    with opened(url):
        second = dms.Recipe(steps, known_at="due").fit(url)
        again = opened.bytes()
    assert (dms.last_run().units, dms.last_run().reused) == (200, 198)
    assert first.to_json() != second.to_json()
    assert 0 < again <= 0.03 * full


@settings(max_examples=60, deadline=None)
@given(st.lists(st.booleans(), min_size=1, max_size=40), st.integers(1, 9))
def test_the_rows_seen_are_told_exactly_on_any_grid(wanted, chunk):
    wanted = np.array(wanted)
    ranges = [(start, min(start + chunk, len(wanted))) for start in range(0, len(wanted), chunk)]
    scans = []
    for start, stop in ranges:
        said = runs(wanted[start:stop])
        scans.append({"learnt": int(wanted[start:stop].sum()), **({} if said is None else {"seen": said})})
    seen = Seen.from_json(Seen.merge("table", ranges, scans).to_json())
    np.testing.assert_array_equal(seen.mask(np.arange(len(wanted))), wanted)
    assert seen.rows == wanted.sum()
    assert (np.diff(seen.edges) > 0).all()


def features_stage(table: str, tmp_path, where=None, folds=None) -> str:
    program = Program(parse_steps(STEPS), KNOWN_AT, TARGET, folds=folds)
    run_stage(FeaturesStage("features", f"{tmp_path}/features.ledger", table, program, fit_where=where))
    return f"{tmp_path}/features.zarr"


def search(matrix: str, split) -> SearchStage:
    spec = SearchSpec.model_validate({
        "kind": "search", "input": "features", "estimator": "sklearn.tree.DecisionTreeRegressor", "space":
        {"max_depth": {"choice": [1, 2]}}, "sampler": {"grid": {}}, "scoring": "r2", "split": split,
    })  # fmt: skip
    fields = ("estimator", "space", "sampler", "scoring", "split")
    return SearchStage("search", matrix.replace("features.zarr", "search.ledger"), matrix,
                       **{name: getattr(spec, name) for name in fields}, seed=7)  # fmt: skip


def test_a_search_refuses_rows_that_the_recipe_has_seen(table, tmp_path):
    with pytest.raises(PlanError, match=r"60 of the 60 rows to score on are rows that the recipe.*fit_where.*refit"):
        run_stage(search(features_stage(table, tmp_path), {"kfold": {"folds": 3}}))


def test_a_search_refuses_some_rows_that_the_recipe_has_seen(table, tmp_path):
    matrix = features_stage(table, tmp_path, where="number < 30")
    with pytest.raises(
        (PlanError, UnitsFailedError), match=r"rows to score on are rows that the recipe of .* learnt from"
    ):
        run_stage(search(matrix, {"kfold": {"folds": 3}}))
    due = read_columns(table, ["due"])["due"]
    assert due[29] < due[30]
    until = str(np.datetime_as_string(due[30], unit="s"))
    split = {"time": {"of": "due", "train_until": until, "validate_until": "2014-01-01"}}
    assert run_stage(search(matrix, split)).result["trials"][0]["score"] is not None


def test_a_search_on_refits_scores_each_fold_on_features_that_never_saw_it(table, tmp_path):
    from sklearn.tree import DecisionTreeRegressor

    from daskml_scale.spec.space import seed_from

    matrix = features_stage(table, tmp_path, folds=FoldsBy(count=3, by="number"))
    searching = search(matrix, {"refit": {}})
    result = run_stage(searching).result
    opened_matrix = stores.open_dataset(matrix)
    y, fold = opened_matrix[TARGET].values, opened_matrix.fold.values
    known = ~np.isnan(y)
    for trial in result["trials"]:
        for split in range(3):
            X = opened_matrix[f"features_without_{split}"].values
            train, test = known & (fold != split), known & (fold == split)
            key = f"trial/{trial['trial']:04d}/split/{split}"
            tree = DecisionTreeRegressor(**trial["params"], random_state=seed_from(7, key)).fit(X[train], y[train])
            assert trial["scores"][split] == pytest.approx(tree.score(X[test], y[test]), abs=1e-9)
    other = tmp_path / "other"
    other.mkdir()
    without = features_stage(table, other)
    with pytest.raises(PlanError, match=r"split: refit needs a recipe that is fitted per fold.*folds: \{count: 5\}"):
        run_stage(search(without, {"refit": {}}))


def test_an_evaluation_refuses_rows_that_the_recipe_has_seen(table, tmp_path):
    from sklearn.tree import DecisionTreeRegressor

    matrix = features_stage(table, tmp_path, where="number < 30")
    found = stores.open_dataset(matrix)
    X, y = found.features.values, np.nan_to_num(found[TARGET].values)
    bundle = f"{tmp_path}/model"
    dms.save_model(DecisionTreeRegressor().fit(X, y), bundle, schema={"features": found.feature.values.tolist()})

    def scored(where):
        return run_stage(EvaluateStage("scores", f"{tmp_path}/scores.ledger", matrix, bundle, ("r2",), where)).result

    assert scored("number >= 30")["rows"] > 0
    with pytest.raises(
        (PlanError, UnitsFailedError), match=r"rows to evaluate on are rows that the recipe of .* fit_where"
    ):
        scored("number >= 20")


def test_a_recipe_that_learns_nothing_has_seen_nothing(table, tmp_path):
    recipe = dms.Recipe([{"keep": {"of": "width"}}], known_at=KNOWN_AT, target=TARGET)
    assert "saw" not in recipe.fit_transform(table, f"{tmp_path}/features.zarr").attrs


@pytest.mark.parametrize("folds", [None, {"count": 3}])
def test_a_search_on_refits_without_folds_is_refused_in_the_file(folds):
    features = {"kind": "features", "input": "rows", "known_at": "due", "steps": [{"standardize": {"of": "size"}}]}
    workflow = Workflow.model_validate({
        "version": 1, "name": "w", "store": "runs", "stages": {
            "rows": {"kind": "ingest", "source": "rows.csv", "row": {"dim": "row"}},
            "features": {**features, **({} if folds is None else {"folds": folds})},
            "search": {"kind": "search", "input": "features", "estimator": "sklearn.linear_model.Ridge",
                       "space": {"alpha": [1.0]}, "sampler": {"grid": {}}, "scoring": "r2", "split": {"refit": {}}},
        },
    })  # fmt: skip
    message = "the recipe of 'features' is not fitted per fold; give that stage folds: {count: 5}"
    expected = [("stages.search.split.refit", message)] if folds is None else []
    assert [(problem.path, problem.message) for problem in workflow_problems(workflow)] == expected
