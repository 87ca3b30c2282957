"""A small workflow in a folder of its own, and ways to run the command line on it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from daskml_scale.runs.process import gone

ROWS = 60
PROGRAM = [sys.executable, "-m", "daskml_scale"]

TINY = """\
version: 1
name: tiny                 # {rows} rows, checked
store: ./runs/tiny
cluster: none
stages:
  table: {{kind: ingest, source: a.csv, row: {{dim: row, chunk: {chunk}, sort_by: [key]}}}}
  check: {{kind: validate, input: table, rules: [{{unique: [key]}}]}}
"""


def write_workflow(folder: Path, *, rows: int = ROWS, chunk: int = 20, name: str = "tiny.yaml") -> Path:
    """Write a CSV of ``rows`` rows and a workflow that reads it in chunks."""
    lines = ["key,x", *(f"{row},{row}.5" for row in range(rows))]
    (folder / "a.csv").write_text("\n".join(lines) + "\n")
    path = folder / name
    path.write_text(TINY.format(rows=rows, chunk=chunk))
    return path


def ended(pid: int) -> None:
    """Wait until a process of this machine is gone."""
    deadline = time.monotonic() + 60
    while not gone(os.uname().nodename, pid, None):
        assert time.monotonic() < deadline, f"process {pid} is still there"
        time.sleep(0.05)


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[subprocess.Popen[bytes]]:
    """The processes of the runs that the test submits; it waits for them itself."""
    found: list[subprocess.Popen[bytes]] = []
    monkeypatch.setattr("daskml_scale.runs.lease.let_go", found.append)
    return found


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with ``tiny.yaml``: 4 units of ingest, 4 of validate."""
    monkeypatch.chdir(tmp_path)
    write_workflow(tmp_path)
    return tmp_path


@pytest.fixture
def command(folder: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Run one command line in this process; return exit code, stdout, stderr."""
    from daskml_scale.cli import main

    def call(*words: str) -> tuple[int, str, str]:
        code = main(words)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


@pytest.fixture
def process(folder: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run one command line in a process of its own."""

    def call(*words: str, **options: Any) -> subprocess.CompletedProcess[str]:
        return subprocess.run([*PROGRAM, *words], capture_output=True, text=True, timeout=120, check=False, **options)

    return call


@pytest.fixture
def status() -> Callable[[str], dict[str, Any]]:
    """What ``status ID --json`` prints, without a process for each look."""
    from daskml_scale.runs.records import Registry

    return lambda run: dict(json.loads(json.dumps(Registry().get(run, now=time.time()).to_dict())))
