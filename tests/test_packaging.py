"""The wheel holds what the commands need: workflows and clusters among it."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.mark.slow
def test_the_wheel_contains_workflows_and_clusters(tmp_path):
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(tmp_path), str(ROOT)]
    subprocess.run(command, check=True, capture_output=True, text=True, timeout=200)
    (wheel,) = tmp_path.glob("daskml_scale-*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    for folder in ("workflows", "clusters"):
        for path in (ROOT / folder).glob("*.yaml"):
            assert f"daskml_scale/_packaged/{folder}/{path.name}" in names
    assert "daskml_scale/cli.py" in names
    assert not [name for name in names if name.startswith(("tests/", "benchmarks/"))]
