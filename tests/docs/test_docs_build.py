"""The pages build as ``make docs`` builds them, and the builder finds nothing to warn of: links, anchors, names."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from docs_pages import DOCS, ROOT


@pytest.mark.slow
def test_the_builder_takes_every_page_and_warns_of_nothing(tmp_path):
    pytest.importorskip("mkdocs", reason="pip install 'daskml-scale[docs]'")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "NO_MKDOCS_2_WARNING": "1"}
    built = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=280)
    assert built.returncode == 0, built.stderr[-3000:]
    for page in DOCS.rglob("*.md"):
        assert (tmp_path / "site" / page.relative_to(DOCS).with_suffix(".html")).exists(), page
