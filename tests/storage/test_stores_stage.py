"""The same stage over every kind of store: it finishes, resumes, repeats exactly what is gone, and counts."""

from __future__ import annotations

import dask
import numpy as np
import pytest
from storage_helpers import CHUNK, ROWS, Double, Server, table, values

from daskml_scale.errors import UnitsFailedError
from daskml_scale.plan.units import Template, Variable
from daskml_scale.stages.accounting import LAST
from daskml_scale.stages.run import run_stage
from daskml_scale.storage import files, stores
from daskml_scale.storage.ledger import Ledger
from daskml_scale.storage.transactions import transaction


@pytest.fixture(scope="module", autouse=True)
def _server_first(s3: Server) -> None:
    """The workers of the module's cluster inherit the environment that points to the server."""


@pytest.fixture
def stage(store: str) -> Double:
    return Double("d", f"{store}/d.ledger", input=table(f"{store}/x.zarr"))


def test_a_stage_finishes_and_a_second_run_does_nothing(stage):
    run_stage(stage)
    assert values(stage) == [2.0 * n for n in range(1, ROWS + 1)]
    run_stage(stage)
    assert (LAST[-1].units, LAST[-1].reused) == (20, 20)


def test_one_changed_chunk_of_the_input_is_one_unit(stage):
    run_stage(stage)
    stores.write_region(stage.input, 6, {"x": np.array([0.5, 0.5])})
    run_stage(stage)
    assert LAST[-1].reused == 19
    assert values(stage)[6:8] == [1.0, 1.0]


def test_rows_appended_to_the_input_are_the_only_units(stage):
    run_stage(stage)
    stores.create(stage.input, Template("row", 44, {"x": Variable("float64", ("row",), (44,), (CHUNK,))}))
    stores.write_region(stage.input, 40, {"x": np.arange(41.0, 45.0)})
    run_stage(stage)
    assert (LAST[-1].units, LAST[-1].reused) == (22, 20)
    assert values(stage) == [2.0 * n for n in range(1, 45)]


def test_an_output_that_somebody_altered_or_removed_is_made_again(stage):
    run_stage(stage)
    before = {unit: record.digest for unit, record in Ledger(stage.ledger).records().items()}
    backend = files.backend(stage.out)
    with transaction(stage.out, "vandal"):
        stores.write_region(stage.out, 0, {"y": np.array([9.0, 9.0])})
        backend.remove_object(stage.out, "y/c/3")
    run_stage(stage)
    assert LAST[-1].reused == 18
    assert values(stage) == [2.0 * n for n in range(1, ROWS + 1)]
    assert {unit: record.digest for unit, record in Ledger(stage.ledger).records().items()} == before


def test_a_removed_array_is_made_again_with_its_units(stage):
    run_stage(stage)
    with transaction(stage.out, "vandal"):
        files.remove(f"{stage.out}/y")
    run_stage(stage)
    assert LAST[-1].reused == 0
    assert values(stage) == [2.0 * n for n in range(1, ROWS + 1)]
    run_stage(stage)
    assert LAST[-1].reused == 20


def test_a_removed_dataset_is_made_again(stage):
    run_stage(stage)
    stores.remove(stage.out)
    run_stage(stage)
    assert LAST[-1].reused == 0
    assert values(stage) == [2.0 * n for n in range(1, ROWS + 1)]


def test_all_fill_chunks_are_done_work(store):
    url = f"{store}/x.zarr"
    stores.create(url, Template("row", ROWS, {"x": Variable("float64", ("row",), (ROWS,), (CHUNK,))}))
    stage = Double("d", f"{store}/d.ledger", input=url)
    run_stage(stage)
    assert np.isnan(values(stage)).all()
    run_stage(stage)
    assert LAST[-1].reused == 20


def test_a_failed_unit_leaves_the_others_committed(stage):
    failing = Double("d", stage.ledger, input=stage.input, fail=(4,))
    with pytest.raises(UnitsFailedError, match="1 of 20 units failed"):
        run_stage(failing)
    run_stage(stage)
    assert LAST[-1].reused == 19
    assert values(stage) == [2.0 * n for n in range(1, ROWS + 1)]


def test_workers_of_a_cluster_write_into_every_store_that_they_reach(stage, client):
    if files.is_memory(stage.out):
        pytest.skip("memory:// lives in one process")
    run_stage(stage, client=client)
    assert values(stage) == [2.0 * n for n in range(1, ROWS + 1)]
    run_stage(stage, client=client)
    assert LAST[-1].reused == 20


def test_a_worker_that_dies_after_writing_changes_nothing(stage, client, tmp_path):
    if files.is_memory(stage.out):
        pytest.skip("memory:// lives in one process")
    # Dask's cluster gives a worker up for good that dies again within 15 s of a death; here one dies per store.
    with dask.config.set({"distributed.deploy.lost-worker-timeout": "10 minutes"}):
        run_stage(Double("d", stage.ledger, input=stage.input, dies=str(tmp_path / "died")), client=client)
    assert (tmp_path / "died").exists()
    assert values(stage) == [2.0 * n for n in range(1, ROWS + 1)]
    run_stage(stage)
    assert LAST[-1].reused == 20


def test_two_equal_runs_have_equal_ledgers_and_equal_objects(store):
    found = []
    for name in ("one", "two"):
        stage = Double("d", f"{store}/{name}/d.ledger", input=table(f"{store}/{name}/x.zarr"))
        run_stage(stage)
        objects = {key: files.backend(stage.out).read_object(stage.out, key) for key in (f"y/c/{n}" for n in range(20))}
        found.append(({record.digest for record in Ledger(stage.ledger).records().values()}, objects))
    assert found[0] == found[1]


def test_a_whole_run_makes_at_most_one_request_more_than_objects_per_unit(s3: Server):
    """From the server's own log: planning, ledger and metadata included."""
    bucket = s3.make_bucket("requests-per-unit")
    stage = Double("d", f"{bucket}/d.ledger", input=table(f"{bucket}/x.zarr", 200))
    before = len(s3.requests())
    run_stage(stage)
    made = s3.requests()[before:]
    assert len(made) <= 100 * (2 + 1), made
    chunks = [(method, path) for method, path, _ in made if "/c/" in path]
    assert len(chunks) == 200
    before = len(s3.requests())
    run_stage(stage)
    again = s3.requests()[before:]
    assert LAST[-1].reused == 100
    assert [path for _, path, _ in again if "/c/" in path] == []
    assert len(again) < 60, again


def test_nothing_is_written_outside_of_dataset_and_ledger(stage, store):
    run_stage(stage)
    assert set(files.names(store)) == {"x.zarr", "d.zarr", "d.ledger"}
