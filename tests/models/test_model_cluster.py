"""Prediction on a real Dask cluster of worker processes."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path
from typing import Any

from model_helpers import Logging, contents, fragile, identities, opened, stage_of

from daskml_scale.spec.workflow import MatrixOut
from daskml_scale.stages.run import run_stage
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
