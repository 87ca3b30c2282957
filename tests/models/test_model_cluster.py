"""Prediction on a real Dask cluster of worker processes."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from model_helpers import Logging, contents, fragile, identities, opened, stage_of

import daskml_scale as dms
from daskml_scale.spec.workflow import MatrixOut
from daskml_scale.stages.run import accounted, run_stage
from daskml_scale.storage.ledger import Ledger


def test_the_model_is_loaded_once_per_worker_process(tmp_path: Path, executions: Path, client: Any) -> None:
    stage = fragile(tmp_path, {}, rows=1600, model=Logging(folder=str(executions)), matrix=MatrixOut(chunk=100))
    run_stage(stage, client=client)
    loads = Counter(path.name.split("-")[0] for path in executions.iterdir())
    assert 1 <= len(loads) <= 2
    assert set(loads.values()) == {1}
    assert {record.worker for record in Ledger(stage.ledger).records().values()} <= {"0", "1"}
    assert (opened(stage).status == 1).sum() == 1600


def test_workers_write_what_this_process_writes(root: Path, tmp_path: Path, client: Any) -> None:
    other = tmp_path / "other"
    shutil.copytree(root, other)
    run_stage(stage_of(root))
    run_stage(stage_of(other), client=client)
    assert contents(root / "p.zarr") == contents(other / "p.zarr")
    assert identities(stage_of(root)) == identities(stage_of(other))


def test_workers_with_a_price_cost_money_idle_or_not(tmp_path: Path) -> None:
    stage = fragile(tmp_path, {}, rows=1600, matrix=MatrixOut(chunk=100))
    spec = {
        "version": 1,
        "name": "priced",
        "backend": "local",
        "classes": {"cpu": {"workers": {"min": 1, "max": 1}, "memory": "auto", "price_per_hour": 36.0}},
        "dashboard": {"listen": "127.0.0.1:0"},
    }
    with dms.cluster(spec) as cluster, cluster.get_client() as client:
        client.wait_for_workers(1)
        _, row = accounted(stage, client=client)
    assert 0 < row.cost < 36
    assert row.cost_per_thousand == pytest.approx(row.cost / 1.6)
    assert 0 <= row.idle_share < 1
    assert row.worker_seconds > 0 == row.saved_seconds
    _, again = accounted(stage)
    assert again.saved_seconds == pytest.approx(row.worker_seconds)
    assert again.cost == again.worker_seconds == 0
