"""A notebook with our tables and progress, run in a real kernel and converted by nbconvert, trusted and not."""

from __future__ import annotations

import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

nbconvert = pytest.importorskip("nbconvert", reason="nbconvert is not installed")

CELLS = (
    """
import time
import daskml_scale as dms
from daskml_scale import steps

def slow(x):
    time.sleep(0.3)
    return x

found = dms.map(slow, range(6))
""",
    "dms.Recipe([steps.Keep(of=['<script>x</script>'])], known_at='at')",
    "dms.dry_run('w.yaml')",
    "dms.run('w.yaml')",
)
WORKFLOW = """
version: 1
name: converted
store: ./store
cluster: none
stages:
  table: {kind: ingest, source: t.csv, row: {dim: r, chunk: 2}}
"""


@pytest.fixture(scope="module")
def book(tmp_path_factory: pytest.TempPathFactory) -> nbformat.NotebookNode:
    """The notebook after it ran."""
    folder: Path = tmp_path_factory.mktemp("book")
    (folder / "t.csv").write_text("a,b\n1,2\n3,4\n5,6\n")
    (folder / "w.yaml").write_text(WORKFLOW)
    found = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell.strip()) for cell in CELLS])
    NotebookClient(found, timeout=120, kernel_name="python3", resources={"metadata": {"path": str(folder)}}).execute()
    return found


def test_every_output_has_html_and_text_and_no_widget(book: nbformat.NotebookNode) -> None:
    for number, cell in enumerate(book.cells):
        data = [output.data for output in cell.outputs if "data" in output]
        assert data, number
        for bundle in data:
            assert {"text/html", "text/plain"} <= set(bundle), number
            assert not any("javascript" in kind or "widget" in kind for kind in bundle), number
    (progress,) = [output for output in book.cells[0].outputs if "data" in output]
    assert "6 / 6" in progress.data["text/html"]
    assert "6 / 6" in progress.data["text/plain"], "what shows where HTML does not"


@pytest.mark.parametrize("sanitize", [False, True])
def test_nbconvert_keeps_the_tables_and_nothing_runs(book: nbformat.NotebookNode, sanitize: bool) -> None:
    exporter = nbconvert.HTMLExporter(template_name="basic", sanitize_html=sanitize)
    page, _ = exporter.from_notebook_node(book)
    text = re.sub(r"<[^>]*>", " ", page)
    for wanted in ("6 / 6", "keep", "table", "converted"):
        assert wanted in text, wanted
    assert "<script>x" not in page
    assert not re.search(r"\son\w+\s*=", page)
