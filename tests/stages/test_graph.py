"""A planned stage as a Dask graph: what is drawn, and what executing it gives."""

from __future__ import annotations

import shutil
from pathlib import Path

import dask
import pytest

import daskml_scale as dms
from daskml_scale.errors import PlanError, UsageError
from daskml_scale.storage import files

WORKFLOW = """
version: 1
name: w
store: {folder}/store
stages:
  t: {{kind: ingest, source: {folder}/t.csv, row: {{dim: r, chunk: 2}}}}
  squares: {{kind: map, function: 'graph_functions:square', over: {{range: 50}}}}
  roots: {{kind: map, function: 'graph_functions:root', over: {{rows: {{of: squares, columns: [value]}}}}}}
"""


@pytest.fixture
def workflow(tmp_path):
    (tmp_path / "t.csv").write_text("a,b\n1,2\n3,4\n5,6\n")
    (tmp_path / "graph_functions.py").write_text("def square(x): return x * x\ndef root(x): return x**0.5\n")
    path = tmp_path / "w.yaml"
    path.write_text(WORKFLOW.format(folder=tmp_path))
    return path


@pytest.fixture
def rows(workflow):
    return {row.name: row for row in dms.dry_run(workflow)}


def test_the_graph_has_one_task_per_unit_up_to_the_limit(rows):
    found = rows["squares"].to_dask(limit=7)
    assert [one.key for one in found] == [f"squares-items/{number:08d}" for number in range(7)]
    assert len(rows["squares"].to_dask()) == 20
    assert len(rows["squares"].to_dask(limit=None)) == 50


@pytest.mark.parametrize("place", ["in process", "on a cluster"])
def test_executing_it_gives_what_the_kernel_returns(rows, place, request):
    found = rows["squares"].to_dask(limit=3)
    if place == "on a cluster":
        results = request.getfixturevalue("own_client").compute(found, sync=True)
    else:
        results = dask.compute(*found, scheduler="sync")
    assert [result["columns"]["value"] for result in results] == [[0], [1], [4]]


def test_a_stage_that_writes_creates_its_dataset_first_and_commits_nothing(rows, tmp_path):
    written = dask.compute(*rows["t"].to_dask(), scheduler="sync")
    assert [one.rows for one in written] == [2, 1]
    assert dms.open_dataset(str(tmp_path / "store" / "t.zarr"))["a"].values.tolist() == [1, 3, 5]
    assert not (tmp_path / "store" / "t.ledger").exists()


def test_a_dry_run_writes_nothing(rows, tmp_path):
    assert not (tmp_path / "store").exists()


def test_a_graph_as_text_needs_no_graphviz(rows, tmp_path):
    path = tmp_path / "plan.dot"
    assert rows["t"].visualize(path) == str(path)
    text = path.read_text()
    assert text.startswith('digraph "t" {')
    assert 'dataset [label="create t.zarr"];' in text
    assert '  shared -> "rows/00000001";' in text
    assert '  "rows/00000001" -> ledger;' in text
    assert "more units" not in text
    assert "... and 46 more units" in rows["squares"].graph.dot(limit=4)


def test_without_graphviz_it_says_what_to_install(rows):
    if shutil.which("dot") is not None:
        pytest.skip("graphviz is installed")
    with pytest.raises(UsageError, match=r"drawing needs graphviz: pip install graphviz.*visualize\('plan.dot'\)"):
        rows["t"].visualize("plan.svg")
    assert not Path("plan.svg").exists()


def test_a_stage_that_waits_for_another_has_no_graph_yet(rows):
    with pytest.raises(PlanError, match="roots has no graph yet: planned after squares"):
        rows["roots"].to_dask()


@pytest.mark.parametrize("limit", [0, -3])
def test_a_limit_is_positive(rows, limit):
    with pytest.raises(UsageError, match="give a positive number of units, or None"):
        rows["t"].to_dask(limit=limit)


def test_the_json_form_of_a_plan_has_no_graph(rows):
    found = rows["t"].to_dict()
    assert "graph" not in found
    assert found["name"] == "t"
    assert files.names("memory://nothing") == []
