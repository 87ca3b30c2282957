"""The ledger's verbs and a stage of two passes over every kind of store."""

from __future__ import annotations

import numpy as np
import pytest

from daskml_scale.plan.units import Template, Variable
from daskml_scale.runs import ledgers
from daskml_scale.stages.accounting import LAST
from daskml_scale.stages.rechunk import RechunkStage
from daskml_scale.stages.run import run_stage
from daskml_scale.storage import files, stores
from daskml_scale.storage.ledger import Ledger
from daskml_scale.storage.transactions import transaction
from daskml_scale.storage.urls import is_icechunk, join

SHAPE = (12, 6, 8)
VALUES = np.arange(np.prod(SHAPE), dtype="float32").reshape(SHAPE)


def work(store: str) -> RechunkStage:
    """Return a stage that makes series of maps over an intermediate."""
    url = join(store, "maps.zarr")
    if not stores.exists(url):
        cube = Variable("float32", ("time", "lat", "lon"), SHAPE, (1, 6, 8))
        stores.create(url, Template("time", SHAPE[0], {"temp": cube}))
        with transaction(url, "maps"):
            for hour in range(SHAPE[0]):
                stores.write_region(url, hour, {"temp": VALUES[hour : hour + 1]})
    chunks = {"time": -1, "lat": 2, "lon": 2}
    return RechunkStage("series", join(store, "series.ledger"), input=url, chunks=chunks, memory=1200)


def test_maps_become_series_and_everything_verifies(store):
    stage = work(store)
    run_stage(stage)
    assert LAST[-1].units - LAST[-1].reused == len(Ledger(stage.ledger).records())
    np.testing.assert_array_equal(stores.read_region(stage.out, "temp", [(0, SHAPE[0])]), VALUES)
    assert not stores.exists(stage.scratch)
    assert not files.names(stage.scratch)
    run_stage(stage)
    assert LAST[-1].reused == LAST[-1].units
    (verdict,) = ledgers.checked(store)
    assert (verdict.problems, verdict.objects) == ((), 12)
    assert sum(one.objects for one in ledgers.summaries(store)) == 12


@pytest.mark.parametrize("harm", ["altered", "missing"])
def test_a_harmed_object_is_found_marked_and_written_again(store, harm):
    if is_icechunk(store):
        pytest.skip("nothing but a commit changes an Icechunk repository")
    stage = work(store)
    run_stage(stage)
    key = "temp/c/0/1/2"
    whole = files.read_bytes(join(stage.out, key))
    if harm == "altered":
        files.write_bytes(join(stage.out, key), bytes(reversed(whole or b"")))
    else:
        files.remove(join(stage.out, key))
    (verdict,) = ledgers.checked(store, repair=True)
    assert [(problem.object, problem.status) for problem in verdict.problems] == [(key, harm)]
    assert verdict.repaired == 1
    run_stage(stage)
    assert files.read_bytes(join(stage.out, key)) == whole
    assert {record.why for record in Ledger(stage.ledger).records().values()} == {"new", f"output {harm}"}
    assert not ledgers.checked(store)[0].problems
