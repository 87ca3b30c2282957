"""Ingest of many files into a sorted table is killed in each of its passes: it ends as if nothing had happened."""

from __future__ import annotations

import signal
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from harness import Run, assert_equal, assert_only_lost_work_repeated, durable

from daskml_scale.testing.faults import calls, executions

STAGE, FILES, GROUPS, CHUNKS = "table", 3, 4, 20
SCANS = FILES * GROUPS
LAST = {*(f"rows/{number:08d}" for number in range(CHUNKS))}
WORKFLOW = """
version: 1
name: table
store: ./runs
cluster: none
stages:
  table: {{kind: ingest, source: '{folder}/*.parquet', row: {{dim: row, chunk: 60, sort_by: [x], partition_by: [who]}}}}
"""


@pytest.fixture(scope="module")
def many(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("many")
    chance = np.random.default_rng(0)
    for number in range(FILES):
        columns = {"id": np.arange(400), "x": chance.normal(size=400), "who": chance.choice(["a", "b"], 400)}
        pd.DataFrame(columns).to_parquet(folder / f"{number}.parquet", row_group_size=100)
    (folder / "table.yaml").write_text(WORKFLOW.format(folder=folder))
    return folder / "table.yaml"


@pytest.fixture(scope="module")
def undisturbed(many, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    run = Run(many, folder / "store", folder / "run", STAGE, "none", {})
    assert run.end().code == 0
    run.close()
    assert set(durable(folder / "store", STAGE)) >= LAST
    return folder / "store"


@pytest.mark.parametrize("call", [SCANS // 2, SCANS + 1, SCANS + 1 + CHUNKS // 2], ids=["scan", "sort", "rows"])
def test_a_killed_driver_goes_on_from_what_was_durable(call, many, undisturbed, start):
    first = start(many, STAGE, cluster="none", moments=(f"call.{call}",))
    first.reach()
    first.strike(signal.SIGKILL, first.process.pid)
    assert first.end().code == -signal.SIGKILL
    kept = durable(first.store, STAGE)

    second = start(many, STAGE, cluster="none")

    ended = second.end()
    assert ended.code == 0, ended.said
    assert_equal(second.store, undisturbed)
    assert not kept.intersection(executions(second.folder, STAGE))
    assert len({noted.unit for noted in calls(second.folder)} | kept) == SCANS + 1 + CHUNKS


@pytest.mark.parametrize("call", [SCANS // 2, SCANS + 1], ids=["scan", "sort"])
def test_a_killed_worker_costs_what_it_had_in_flight(call, many, undisturbed, start):
    run = start(many, STAGE, delay=0.02, moments=(f"call.{call}",))
    reached = run.reach()
    run.strike(signal.SIGKILL, reached.pid)
    run.go(reached)
    ended = run.end()
    assert ended.code == 0, ended.said
    assert_equal(run.store, undisturbed)
    assert_only_lost_work_repeated(run, ended.said)
