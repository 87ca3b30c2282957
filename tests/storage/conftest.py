"""A real server process that speaks S3, on loopback, with its access log; stores of every kind to run a suite over."""

from __future__ import annotations

import re
import subprocess
import sys
import urllib.request
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

KINDS = ("local", "memory", "s3", "icechunk+file", "icechunk+s3")
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
        return [(method, path, int(status)) for method, path, status in _LINE.findall(self.log.read_text())]

    def make_bucket(self, name: str) -> str:
        """Make a bucket and return its URL."""
        urllib.request.urlopen(urllib.request.Request(f"{self.url}/{name}", method="PUT")).close()
        return f"s3://{name}"


def start(log: Path, **environment: str) -> tuple[subprocess.Popen[str], Server]:
    """Start a server process; the caller ends it."""
    import os

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


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The server of this test session; the usual environment points to it, for worker processes too."""
    process, server = start(tmp_path_factory.mktemp("s3") / "access.log")
    with pytest.MonkeyPatch.context() as patch:
        for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL_S3", "AWS_SKIP_SIGNATURE"):
            patch.delenv(name, raising=False)
        patch.setenv("AWS_ENDPOINT_URL", server.url)
        patch.setenv("AWS_ACCESS_KEY_ID", "test")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "test-secret")
        patch.setenv("AWS_REGION", "us-east-1")
        yield server
    process.kill()
    process.wait()


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


@pytest.fixture(params=KINDS)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """URL of an empty store, of every kind in turn."""
    return new_store(request.param, request, tmp_path)
