"""A server process on loopback that speaks S3, with its access log, for benchmarks; the tests have the same."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

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
        lines = _LINE.findall(_COLOUR.sub("", self.log.read_text()))
        return [(method, path, int(status)) for method, path, status in lines]

    def make_bucket(self, name: str) -> str:
        """Make a bucket and return its URL."""
        urllib.request.urlopen(urllib.request.Request(f"{self.url}/{name}", method="PUT")).close()
        return f"s3://{name}"


def start(log: Path, **environment: str) -> tuple[subprocess.Popen[str], Server]:
    """Start a server process; the caller ends it."""
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


CREDENTIALS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test-secret", "AWS_REGION": "us-east-1"}


@contextmanager
def s3_server() -> Iterator[Server]:
    """Run a server while the block runs; the usual environment points to it."""
    before = dict(os.environ)
    with tempfile.TemporaryDirectory() as folder:
        process, server = start(Path(folder) / "access.log")
        os.environ.update(CREDENTIALS, AWS_ENDPOINT_URL=server.url)
        try:
            yield server
        finally:
            process.kill()
            process.wait()
            os.environ.clear()
            os.environ.update(before)
