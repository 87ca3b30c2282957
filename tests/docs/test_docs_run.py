"""The snippets that pages mark as runnable run, in the order of the page, in a folder and a home of their own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from docs_pages import DOCS, ROOT, goes_on_from, pages, snippets

MARKS = {"quick": (), "long": (pytest.mark.faults_long,)}


def slowest(page: Path) -> str:
    """Return the pace of a page: that of its slowest snippet, empty where nothing runs."""
    return max((one.pace for one in snippets(page)), key=("", "quick", "long").index, default="")


RUNNABLE = [page for page in pages() if slowest(page)]


@pytest.fixture(scope="module")
def shim(tmp_path_factory) -> Path:
    """A folder with ``daskml-scale`` and ``python``: this tree, this interpreter."""
    folder = tmp_path_factory.mktemp("bin")
    for name, arguments in (("daskml-scale", " -m daskml_scale"), ("python", "")):
        (folder / name).write_text(f'#!/bin/sh\nexec "{sys.executable}"{arguments} "$@"\n')
        (folder / name).chmod(0o755)
    return folder


@pytest.fixture(scope="module")
def done(tmp_path_factory, shim):
    """Return a folder in which the snippets of a page ran; each page runs once."""
    folders: dict[Path, Path] = {}

    def ready(page: Path) -> Path:
        if page not in folders:
            folder = tmp_path_factory.mktemp(page.stem) / "here"
            before = goes_on_from(page)
            if before is None:
                folder.mkdir()
            else:
                shutil.copytree(ready(before), folder, symlinks=True)
            follow(page, folder, shim)
            folders[page] = folder
        return folders[page]

    return ready


def follow(page: Path, folder: Path, shim: Path) -> None:
    """Do what a reader does."""
    environment = os.environ | {
        "PATH": f"{shim}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "DASKML_SCALE_HOME": str(folder.parent / "home"),
    }
    said = ""
    for one in snippets(page):
        if one.file:
            (folder / one.file).write_text(one.text)
        if not one.pace:
            continue
        if one.language == "python":
            said += one.text  # a later snippet knows the names of an earlier one
            command = [sys.executable, "-c", said]
        else:
            command = ["bash", "-euo", "pipefail", "-c", one.text]
        ran = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=600)
        assert ran.returncode == one.ends, f"{one}: exit {ran.returncode}\n{ran.stdout[-3000:]}\n{ran.stderr[-3000:]}"


@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    "page", [pytest.param(one, marks=MARKS[slowest(one)], id=str(one.relative_to(ROOT))) for one in RUNNABLE]
)
def test_a_reader_can_follow_the_page(page, done):
    done(page)


def test_the_pages_that_go_on_from_others_have_something_to_go_on_from():
    for page in pages():
        before = goes_on_from(page)
        assert before is None or before in RUNNABLE
    assert DOCS / "how-to" / "beyond-memory.md" in RUNNABLE
