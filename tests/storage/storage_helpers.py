"""Stores of every kind to run a suite over, and the server process that speaks S3 which the benchmarks have too."""

from __future__ import annotations

import sys
import uuid
from pathlib import Path

import pytest

from benchmarks.servers import CREDENTIALS as CREDENTIALS
from benchmarks.servers import Server as Server
from benchmarks.servers import start as start

KINDS = ("local", "memory", "s3", "icechunk+file", "icechunk+s3")


def icechunk_or_skip() -> None:
    """Skip, with the reason, where Icechunk 2 cannot be."""
    if sys.version_info < (3, 12):
        pytest.skip("Icechunk 2 needs Python 3.12 or newer")
    pytest.importorskip("icechunk", reason="pip install 'daskml-scale[icechunk]'")


def new_store(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Return the URL of an empty store of that kind."""
    name = f"store-{uuid.uuid4().hex[:12]}"
    if kind.startswith("icechunk"):
        icechunk_or_skip()
    if kind.endswith("s3"):
        bucket = request.getfixturevalue("s3").make_bucket(name)
        return f"{'icechunk+' if kind.startswith('icechunk') else ''}{bucket}/store"
    return {
        "local": str(tmp_path / "store"),
        "memory": f"memory://{name}",
        "icechunk+file": f"icechunk+file://{tmp_path}/store",
    }[kind]
