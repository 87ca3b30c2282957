"""Fixtures of the storage tests: a server process that speaks S3, and an empty store of every kind in turn."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from storage_helpers import CREDENTIALS, KINDS, Server, new_store, start


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The server of this test session; the usual environment points to it, for worker processes too."""
    pytest.importorskip("moto", reason="the S3 server of the tests: pip install 'daskml-scale[test]'")
    process, server = start(tmp_path_factory.mktemp("s3") / "access.log")
    with pytest.MonkeyPatch.context() as patch:
        for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL_S3", "AWS_SKIP_SIGNATURE"):
            patch.delenv(name, raising=False)
        patch.setenv("AWS_ENDPOINT_URL", server.url)
        for name, value in CREDENTIALS.items():
            patch.setenv(name, value)
        yield server
    process.kill()
    process.wait()


@pytest.fixture(params=KINDS)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """URL of an empty store, of every kind in turn."""
    return new_store(request.param, request, tmp_path)
