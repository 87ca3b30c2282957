"""The stage on real stores: what is written, what runs again, and what a plan says."""

from __future__ import annotations

import pickle
from dataclasses import replace

import numpy as np
import pytest
from features_helpers import write_table

from daskml_scale.errors import PlanError, SpecError, UnitsFailedError
from daskml_scale.plan.units import Plan, Snapshot
from daskml_scale.spec.expressions import Coded
from daskml_scale.spec.folds import FoldsBy
from daskml_scale.spec.workflow import FeaturesSpec, MatrixOut
from daskml_scale.stages.base import StageResult
from daskml_scale.stages.features.planner import RecipePlanner
from daskml_scale.stages.features.program import Program, parse_steps
from daskml_scale.stages.features.stage import FeaturesStage, grid
from daskml_scale.stages.inputs import checked_records, gather
from daskml_scale.stages.run import run_stage
from daskml_scale.storage import stores
from daskml_scale.storage.ledger import Ledger
from daskml_scale.storage.tables import read_columns

ROWS, CHUNK = 100, 10
STEPS = (
    {"date_parts": {"of": "due", "parts": ["hour"]}},
    {"ordinal": {"of": ["place"]}},
    {"lookup": {"table": "sites", "key": "site", "take": ["size"]}},
    {"as_of": {"table": "sky", "their_time": "at", "take": ["heat"], "tolerance": "1h"}},
    {"trailing": {"of": "value", "at": "done", "match": ["place"], "windows": ["30m"]}},
    {"keep": {"of": ["weight"]}},
)


def rows(seed: int = 0) -> dict[str, object]:
    """One row per minute; ``done`` 5 minutes after ``due``."""
    rng = np.random.default_rng(seed)
    due = np.datetime64("2013-01-01", "ns") + np.arange(ROWS) * np.timedelta64(1, "m")
    return {
        "due": due,
        "done": due + np.timedelta64(5, "m"),
        "place": Coded(rng.integers(0, 3, ROWS).astype("int32"), ("b", "a", "c")),
        "site": rng.integers(0, 6, ROWS),
        "value": rng.normal(size=ROWS),
        "weight": rng.normal(size=ROWS),
        "unused": rng.normal(size=ROWS),
    }


@pytest.fixture
def store(tmp_path) -> str:
    start = np.datetime64("2013-01-01", "ns")
    write_table(f"{tmp_path}/rows.zarr", rows(), CHUNK, row_key=["due", "place"], derived_from={})
    write_table(f"{tmp_path}/sites.zarr", {"site": np.arange(5), "size": np.arange(5) * 10.0}, 100)
    sky = {"at": start + np.arange(10) * np.timedelta64(10, "m"), "heat": np.arange(10.0)}
    write_table(f"{tmp_path}/sky.zarr", sky, 4)
    return str(tmp_path)


def stage_in(store: str, *, steps=STEPS, **changes) -> FeaturesStage:
    program = Program(parse_steps(steps), "due - minutes(1)", "value")
    options = {"fit_where": "due < time('2013-01-01T01:00')", "matrix": MatrixOut(), **changes}
    tables = {name: f"{store}/{name}.zarr" for name in ("sites", "sky")}
    return FeaturesStage("features", f"{store}/features.ledger", f"{store}/rows.zarr", program, tables, **options)


def elsewhere(stage: FeaturesStage, folder) -> FeaturesStage:
    """Return the same stage that writes ``f.zarr`` in another folder."""
    return replace(stage, ledger=f"{folder}/f.ledger")


def planned(stage: FeaturesStage) -> Plan:
    return stage.plan(gather(stage.reads()), checked_records(Ledger(stage.ledger)))


def executed(stage: FeaturesStage, client=None) -> tuple[set[str], StageResult]:
    """Run the stage and return the units that really ran: their records' fingerprints are new."""
    seen: set[str] = set()

    class Noted(FeaturesStage):
        def commit(self, outcomes, plan, ledger):
            seen.update(outcome.unit.key for outcome in outcomes)
            return super().commit(outcomes, plan, ledger)

    noted = Noted(**{name: getattr(stage, name) for name in stage.__dataclass_fields__})
    return seen, run_stage(noted, client=client)


def keys(kind: str, *numbers: int) -> set[str]:
    return {f"{kind}/{number:08d}" for number in numbers}


ALL = keys("fit", *range(10)) | keys("keys", 2) | keys("rows", *range(10))


def change(store: str, column: str, chunk: int, by: float = 1.0) -> None:
    url, first = f"{store}/rows.zarr", chunk * CHUNK
    raw, _ = stores.read_raw(url, column, first, first + CHUNK)
    stores.write_region(url, first, {column: raw + np.asarray(by, raw.dtype)})


def test_a_run_writes_the_matrix_its_names_keys_target_and_recipe(store):
    done, result = executed(stage_in(store))
    assert done == ALL
    assert result.result["features"] == 6
    assert (result.rows, result.result["rows"]) == (ROWS, ROWS)
    ds = stores.open_dataset(f"{store}/features.zarr")
    names = ["hour", "place", "sites_size", "sky_heat", "value_mean_30m", "weight"]
    assert ds.feature.values.tolist() == names
    assert ds.features.dtype == "float32"
    assert ds.features.shape == (ROWS, 6)
    raw = rows()
    assert ds.value.dtype == "float64"
    np.testing.assert_array_equal(ds.value, raw["value"])
    np.testing.assert_array_equal(ds.due, raw["due"])
    np.testing.assert_array_equal(read_columns(f"{store}/features.zarr", ["place"])["place"].codes, raw["place"].codes)
    assert read_columns(f"{store}/features.zarr", ["place"])["place"].labels == ("b", "a", "c")
    np.testing.assert_array_equal(ds.features[:, 5], raw["weight"].astype("float32"))
    np.testing.assert_array_equal(ds.features[:, 2], np.where(raw["site"] < 5, raw["site"] * 10.0, np.nan))
    assert {name: ds.attrs[name] for name in ("target", "row_key", "row_dim")} == {
        "target": "value", "row_key": ["due", "place"], "row_dim": "row",
    }  # fmt: skip
    program = Program.from_dict(ds.attrs["recipe"])
    assert program.categories == {"place": ("a", "b", "c")}
    assert ds.attrs["recipe_hash"] == program.hash == result.result["recipe_hash"]
    kept = stores.get_json(f"{store}/features.zarr", "recipe")
    assert kept["fitted"].pop("seen")["rows"] == ds.attrs["saw"]["rows"]
    assert kept == ds.attrs["recipe"]


def test_a_second_run_reuses_every_unit(store):
    executed(stage_in(store))
    done, result = executed(stage_in(store))
    assert done == set()
    assert result.rows == ROWS
    plan = planned(stage_in(store))
    assert (len(plan.keys), plan.reused, plan.units) == (21, 21, ())


@pytest.mark.parametrize(
    ("column", "again"),
    [
        ("weight", keys("rows", 4)),  # read at the row itself
        ("value", keys("rows", 4, 5, 6, 7, 8)),  # the target of chunk 4, and in windows of later chunks
        ("unused", set()),
        ("site", keys("rows", 4)),
        ("done", keys("fit", 4) | keys("rows", 4, 5, 6, 7, 8)),
    ],
)
def test_one_changed_chunk_runs_only_what_depends_on_it(store, tmp_path_factory, column, again):
    executed(stage_in(store))
    change(store, column, 4)
    assert planned(stage_in(store)).reasons == ({"input changed": len(planned(stage_in(store)).units)} if again else {})
    done, _ = executed(stage_in(store))
    assert done == again
    found = stores.open_dataset(f"{store}/features.zarr").features.values
    afresh = stage_in(store)
    other = tmp_path_factory.mktemp("afresh")
    afresh = FeaturesStage(
        "features", f"{other}/f.ledger", afresh.input, afresh.program, afresh.tables, afresh.fit_where
    )
    run_stage(afresh)
    assert found.tobytes() == stores.open_dataset(f"{other}/f.zarr").features.values.tobytes()


def test_a_changed_joined_table_runs_all_shards_and_the_check_of_its_keys(store):
    executed(stage_in(store))
    write_table(f"{store}/sites.zarr", {"site": np.arange(5), "size": np.arange(5) * 11.0}, 100)
    assert executed(stage_in(store))[0] == keys("keys", 2) | keys("rows", *range(10))


def test_rows_run_again_only_when_the_recipe_learnt_something_else(store):
    executed(stage_in(store))
    scans = keys("fit", *range(10)) | keys("keys", 2)
    done, _ = executed(stage_in(store, fit_where="due < time('2013-01-01T00:50')"))
    assert done == scans
    done, _ = executed(stage_in(store, fit_where="place != 'a'"))
    assert done == scans | keys("rows", *range(10))
    recipe = stores.open_dataset(f"{store}/features.zarr").attrs["recipe"]
    assert recipe["fitted"]["categories"] == {"place": ["b", "c"]}


@pytest.mark.parametrize("folds", [None, FoldsBy(count=2)])
def test_a_step_put_in_before_others_moves_what_was_learnt_with_them(store, tmp_path_factory, folds):
    learnt = [
        {"standardize": {"of": ["weight"]}},
        {"since": {"of": "value", "at": "due", "match": ["place"]}},
        {"one_hot": {"of": "place"}} if folds is None else {"count": {"of": "place"}},
        {"exponential_mean": {"of": "unused", "at": "due", "match": ["place"], "half_life": "1h"}},
    ]
    before = stage_in(store, steps=learnt)
    before = replace(before, program=replace(before.program, folds=folds))
    executed(before)
    put_in = [{"date_parts": {"of": "due", "parts": ["hour"]}}, learnt[0], {"log": {"of": ["weight"]}}, *learnt[1:]]
    for steps in (put_in, learnt, put_in):
        again = replace(before, program=replace(stage_in(store, steps=steps).program, folds=folds))
        done, _ = executed(again)
        assert not any(key.startswith("fit/") for key in done)
        fresh = elsewhere(again, tmp_path_factory.mktemp("fresh"))
        executed(fresh)
        one, other = (stores.open_dataset(url) for url in (f"{store}/features.zarr", fresh.out))
        assert one.feature.values.tolist() == other.feature.values.tolist()
        np.testing.assert_array_equal(one.features, other.features)


def test_a_level_that_is_in_one_fold_only_is_refused(store):
    stage = stage_in(
        store, steps=[{"one_hot": {"of": "place"}}], fit_where="place != 'a' or due < time('2013-01-01T00:20')"
    )
    with pytest.raises(
        SpecError, match=r"steps\[0\].one_hot: 'place' has the level 'a' in all .* without fold 0.*levels:"
    ):
        executed(replace(stage, program=replace(stage.program, folds=FoldsBy(count=2))))


def test_a_longer_window_does_not_scan_again(store):
    executed(stage_in(store))
    steps = [*STEPS[:4], {"trailing": {**STEPS[4]["trailing"], "windows": ["40m"]}}, STEPS[5]]
    plan = planned(stage_in(store, steps=steps))
    assert {unit.key for unit in plan.units} == keys("rows", *range(10))
    assert plan.reasons == {"parameters changed": 10}


def test_a_lost_or_altered_shard_is_written_again(store):
    executed(stage_in(store))
    ledger = Ledger(f"{store}/features.ledger").records()
    key = next(key for key in ledger["rows/00000003"].chunks if key.startswith("features/"))
    with open(f"{store}/features.zarr/{key}", "ab") as file:
        file.write(b"x")
    assert executed(stage_in(store))[0] == keys("rows", 3)


@pytest.mark.parametrize(
    ("chunk", "shard", "units"), [(None, None, 10), (5, 20, 5), (7, 28, 4), (None, 25, 4), (8, None, 13)]
)
def test_the_matrix_is_the_same_on_every_grid(store, chunk, shard, units):
    executed(stage_in(store))
    before = stores.open_dataset(f"{store}/features.zarr").load()
    done, _ = executed(stage_in(store, matrix=MatrixOut(chunk=chunk, shard=shard)))
    assert {key for key in done if key.startswith("rows/")} == (keys("rows", *range(units)) if units != 10 else set())
    ds = stores.open_dataset(f"{store}/features.zarr")
    assert ds.features.values.tobytes() == before.features.values.tobytes()
    assert ds.value.values.tobytes() == before.value.values.tobytes()
    assert ds.due.equals(before.due)


@pytest.mark.parametrize(
    ("rows", "own", "chunk", "shard", "expected"),
    [
        (336_776, 20_000, 5_000, 20_000, (5_000, 20_000)),
        (336_776, 20_000, None, None, (20_000, 20_000)),
        (336_776, 20_000, 3_000, None, (3_000, 18_000)),
        (336_776, 20_000, 50_000, None, (50_000, 50_000)),
        (336_776, 20_000, None, 30_000, (30_000, 30_000)),
        (300, 20_000, 5_000, 20_000, (300, 300)),
        (12_000, 20_000, 5_000, 20_000, (5_000, 15_000)),
        (0, 20_000, None, None, (1, 1)),
    ],
)
def test_the_grid_is_whole_chunks_and_never_beyond_the_table(rows, own, chunk, shard, expected):
    assert grid(rows, own, chunk, shard) == expected


def test_a_plan_says_grid_memory_and_payload_before_anything_is_written(store):
    plan = planned(stage_in(store))
    assert plan.grid == "10 chunks to scan, then 10 shards of 10 rows x 6 features"
    assert (len(plan.units), plan.later, plan.reasons) == (11, 10, {"new": 11})
    assert plan.template is None
    assert not stores.exists(f"{store}/features.zarr")
    run_stage(stage_in(store))
    plan = planned(stage_in(store, matrix=MatrixOut(dtype="float64")))
    assert plan.memory > 0
    unit = plan.units[5]
    assert unit.payload == (50, 60, ((10, 60),))  # whole chunks: done in (due - 31 min, due - 1 min]
    assert all(len(pickle.dumps(unit.payload)) < 300 for unit in plan.units)
    assert len(pickle.dumps(plan.shared)) < 5000


def test_a_dry_run_on_tables_not_written_yet_gives_units_grid_and_schema(store):
    stage = stage_in(store)
    inputs = {
        name: Snapshot(found.url, found.dim, found.rows, found.variables, found.attrs)
        for name, found in gather(stage.reads()).items()
    }
    plan = stage.plan(inputs, {})
    assert (len(plan.units), plan.later) == (11, 10)
    expected = plan.template.snapshot("x")
    assert expected.variables["features"].shape == (ROWS, 6)
    assert expected.attrs["target"] == "value"


def test_a_missing_input_and_a_recipe_that_does_not_fit_start_nothing(store):
    stage = stage_in(store)
    with pytest.raises(PlanError, match=r"rows\.zarr does not exist; run the stage that writes it"):
        stage.plan({**gather(stage.reads()), "input": None}, {})
    with pytest.raises(SpecError, match=r"steps\[0\].keep.of: column 'place'"):
        run_stage(stage_in(store, steps=[{"keep": {"of": ["place"]}}]))
    assert not stores.exists(f"{store}/features.zarr")


def test_duplicate_keys_of_a_lookup_table_stop_the_stage_before_the_rows(store):
    write_table(f"{store}/sites.zarr", {"site": np.array([1, 2, 1]), "size": np.arange(3.0)}, 100)
    with pytest.raises(UnitsFailedError, match=r"steps\[2\].lookup: table 'sites' has 2 rows with site = 1"):
        run_stage(stage_in(store))
    assert not stores.exists(f"{store}/features.zarr")


def test_a_column_named_like_a_variable_of_the_matrix_is_refused(store):
    write_table(f"{store}/rows.zarr", {**rows(), "feature": np.arange(ROWS)}, CHUNK, row_key=["feature"])
    with pytest.raises(PlanError, match="'feature' is a variable of every feature matrix"):
        planned(stage_in(store))


def test_a_fitted_recipe_is_applied_to_new_rows_as_it_is(store):
    executed(stage_in(store))
    fitted = Program.from_dict(stores.get_json(f"{store}/features.zarr", "recipe"))
    new = {**rows(1), "place": Coded(np.arange(ROWS).astype("int32") % 2, ("z", "c"))}
    write_table(f"{store}/new.zarr", new, 25, row_key=["due"])
    stage = stage_in(store)
    stage = FeaturesStage("new", f"{store}/out.ledger", f"{store}/new.zarr", fitted, stage.tables)
    assert executed(stage)[0] == keys("fit", *range(4)) | keys("keys", 2) | keys("rows", *range(4))
    ds = stores.open_dataset(f"{store}/out.zarr")
    assert ds.features[:4, 1].values.tolist() == [-1, 2, -1, 2]
    assert ds.attrs["recipe"] == fitted.alone().to_dict()
    assert "saw" not in ds.attrs  # it learnt from other rows


def test_an_empty_table_gives_an_empty_matrix(store):
    empty = {name: values[:0] for name, values in rows().items()}
    write_table(f"{store}/rows.zarr", empty, CHUNK, row_key=["due"])
    _, result = executed(stage_in(store))
    assert result.rows == 0


def test_the_spec_of_a_workflow_becomes_a_stage(store):
    spec = FeaturesSpec.model_validate(
        {"input": "rows", "tables": {"sites": "s", "sky": "w"}, "known_at": "due - minutes(1)", "target": "value",
         "fit_where": "due < time('2013-01-01T01:00')", "out": {"dtype": "float64"}, "steps": list(STEPS)}
    )  # fmt: skip
    whole = stage_in(store)
    stage = FeaturesStage.of(spec, name="features", ledger=whole.ledger, input=whole.input, tables=whole.tables)
    assert stage == stage_in(store, matrix=MatrixOut(dtype="float64"))
    assert stage.kind == "features"
    executed(stage)
    assert stores.open_dataset(stage.out).features.dtype == "float64"


def test_units_run_on_worker_processes_with_the_same_bytes(store, tmp_path_factory):
    from distributed import Client

    run_stage(stage_in(store))
    here = stores.open_dataset(f"{store}/features.zarr").features.values
    other = tmp_path_factory.mktemp("there")
    stage = elsewhere(stage_in(store), other)
    with Client(n_workers=2, threads_per_worker=1, dashboard_address="127.0.0.1:0", host="127.0.0.1") as client:
        assert executed(stage, client)[0] == ALL
    there = stores.open_dataset(f"{other}/f.zarr").features.values
    assert there.tobytes() == here.tobytes()


def test_a_joined_table_is_prepared_once_per_process(store):
    from daskml_scale.engine.worker import Cache

    planner = RecipePlanner(stage_in(store).program, *_snapshots(store))
    ready = planner.fold([planner.transformer.scan(*rows) for rows in planner.chunks])
    cache = Cache()
    for start, stop in planner.chunks:
        ready.transformer.matrix(start, stop, ready.halo(start, stop), cache)
    assert cache.loads == 2


def _snapshots(store: str):
    found = gather(stage_in(store).reads())
    return found["input"], {name: found[f"tables.{name}"] for name in ("sites", "sky")}
