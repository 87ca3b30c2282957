"""A notebook with our tables and progress, run in a real kernel and converted by nbconvert, trusted and not."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nbformat
import pytest
from jupyter_client.manager import start_new_kernel
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
FOREVER = """
import itertools
import time
import daskml_scale as dms

def slow(x):
    time.sleep(0.05)
    return x

dms.map(slow, itertools.count(), name="<b>x</b>")
"""
VIEW = "application/vnd.jupyter.widget-view+json"
PATIENCE = 120.0


@pytest.fixture(scope="module")
def book(tmp_path_factory: pytest.TempPathFactory) -> nbformat.NotebookNode:
    """The notebook after it ran."""
    folder: Path = tmp_path_factory.mktemp("book")
    (folder / "t.csv").write_text("a,b\n1,2\n3,4\n5,6\n")
    (folder / "w.yaml").write_text(WORKFLOW)
    found = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell.strip()) for cell in CELLS])
    client = NotebookClient(found, timeout=PATIENCE, startup_timeout=PATIENCE, kernel_name="python3")
    client.resources = {"metadata": {"path": str(folder)}}
    client.execute()
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


@pytest.fixture(scope="module")
def kernel() -> Iterator[tuple[Any, Any]]:
    """A kernel, and the client of a front end that shows widgets."""
    manager, client = start_new_kernel(startup_timeout=PATIENCE)
    yield manager, client
    client.stop_channels()
    manager.shutdown_kernel(now=True)


def heard(kernel: tuple[Any, Any], code: str, interrupt: Callable[[Any], bool]) -> tuple[list[Any], Any]:
    """Run a cell, and interrupt it upon a message; return all messages and the reply."""
    manager, client = kernel
    asked = client.execute(code)
    messages, interrupted = [], False
    while True:
        message = client.get_iopub_msg(timeout=PATIENCE)
        if message["parent_header"].get("msg_id") != asked:
            continue
        messages.append(message)
        if not interrupted and interrupt(message):
            interrupted = True
            manager.interrupt_kernel()
        if message["msg_type"] == "status" and message["content"]["execution_state"] == "idle":
            break
    while True:  # a kernel that was slow to start was asked more than once for what it is, and answers that first
        reply = client.get_shell_msg(timeout=PATIENCE)
        if reply["parent_header"].get("msg_id") == asked:
            return messages, reply["content"]


def of_kind(messages: list[Any], kind: str) -> list[Any]:
    return [message["content"] for message in messages if message["msg_type"] == kind]


def check_left_behind(messages: list[Any], reply: Any) -> None:
    """The cell was interrupted, and its one output is HTML and text that say so."""
    assert reply["ename"] == "KeyboardInterrupt"
    last = of_kind(messages, "update_display_data")[-1]["data"]
    assert set(last) == {"text/html", "text/plain"}
    for text in last.values():
        assert "interrupted" in text
    assert "<b>" not in last["text/html"]
    assert len(of_kind(messages, "display_data")) == 1


def test_work_of_a_second_shows_a_widget_until_it_is_interrupted(kernel: tuple[Any, Any]) -> None:
    pytest.importorskip("ipywidgets", reason="ipywidgets is not installed")
    changed = lambda message: message["msg_type"] == "comm_msg" and "&lt;b&gt;" in str(message["content"])  # noqa: E731
    messages, reply = heard(kernel, FOREVER, changed)
    check_left_behind(messages, reply)
    opened = {content["comm_id"]: content["data"]["state"] for content in of_kind(messages, "comm_open")}
    (shown,) = of_kind(messages, "display_data")
    assert set(shown["data"]) == {VIEW, "text/html", "text/plain"}
    assert opened[shown["data"][VIEW]["model_id"]]["_model_name"] == "VBoxModel"
    assert "FloatProgressModel" in {state["_model_name"] for state in opened.values()}
    assert "<b>" not in str(of_kind(messages, "comm_open") + of_kind(messages, "comm_msg")), (
        "a widget's text is escaped"
    )
    assert {content["comm_id"] for content in of_kind(messages, "comm_close")} == set(opened), "no model stays"
    assert of_kind(messages, "update_display_data")[:-1] == [], "a live widget is not replaced"
    page = converted({"output_type": "display_data", "metadata": {}, "data": shown["data"]})
    assert "&lt;b&gt;x" in page, "what was saved in the middle, without the widget's state, shows the table"
    assert "running" in page


def test_without_ipywidgets_the_same_shows_html(kernel: tuple[Any, Any]) -> None:
    updated = lambda message: message["msg_type"] == "update_display_data"  # noqa: E731
    messages, reply = heard(kernel, "import sys; sys.modules['ipywidgets'] = None\n" + FOREVER, updated)
    check_left_behind(messages, reply)
    assert of_kind(messages, "comm_open") == []
    assert set(of_kind(messages, "display_data")[0]["data"]) == {"text/html", "text/plain"}


def converted(output: dict[str, Any]) -> str:
    cell = nbformat.v4.new_code_cell("x", outputs=[nbformat.from_dict(output)])
    page, _ = nbconvert.HTMLExporter(template_name="basic").from_notebook_node(nbformat.v4.new_notebook(cells=[cell]))
    return str(page)
