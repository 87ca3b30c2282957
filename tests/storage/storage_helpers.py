"""A real server process that speaks S3, on loopback, with its access log; stores of every kind to run a suite over."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import urllib.request
import uuid
from dataclasses import dataclass
from pathlib import Path

import pytest

KINDS = ("local", "memory", "s3", "icechunk+file", "icechunk+s3")
_COLOUR = re.compile(r"\x1b\[\d+m")
_LINE = re.compile(r'"(GET|PUT|HEAD|DELETE|POST) (\S+) HTTP/[\d.]+" (\d{3})')


@dataclass(frozen=True)
class Server:
    """A running server.

    Attributes
    ----------
    url : str
        Its address on loopback.
    log : Path
        One line per request.
    """

    url: str
    log: Path

    def requests(self) -> list[tuple[str, str, int]]:
        """Return (method, path with query, status) of every request so far, in order."""
        return [
            (method, path, int(status)) for method, path, status in _LINE.findall(_COLOUR.sub("", self.log.read_text()))
        ]

    def make_bucket(self, name: str) -> str:
        """Make a bucket and return its URL."""
        urllib.request.urlopen(urllib.request.Request(f"{self.url}/{name}", method="PUT")).close()
        return f"s3://{name}"


def start(log: Path, **environment: str) -> tuple[subprocess.Popen[str], Server]:
    """Start a server process; the caller ends it."""
    pytest.importorskip("moto", reason="the S3 server of the tests: pip install 'daskml-scale[test]'")
    with log.open("w") as file:
        process = subprocess.Popen(
            [sys.executable, "-u", "-m", "moto.server", "-H", "127.0.0.1", "-p", "0"],
            stdout=file, stderr=file, text=True, env={**os.environ, **environment},
        )  # fmt: skip
    while process.poll() is None:
        found = re.search(r"Running on (http://127\.0\.0\.1:\d+)", log.read_text())
        if found:
            return process, Server(found.group(1), log)
    raise RuntimeError(f"the S3 server ended: {log.read_text()}")


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
