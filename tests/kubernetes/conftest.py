"""One Kubernetes per module: our server and kubelet, or with ``--kubeconfig FILE`` a real API server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

for needed in ("kr8s", "aiohttp", "cryptography"):
    pytest.importorskip(needed, reason=f"{needed} is not installed: pip install 'daskml-scale[kubernetes,test]'")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--kubeconfig", type=Path, default=None,
        help="a kubeconfig of the administrator of a kube-apiserver on this machine; the process kubelet joins it",
    )  # fmt: skip


@pytest.fixture(scope="session")
def kubeconfig(request: pytest.FixtureRequest) -> Path | None:
    """A real API server's, if there is one."""
    found: Path | None = request.config.getoption("--kubeconfig", default=None)
    return found.absolute() if found else None


@pytest.fixture(scope="module")
def farm(tmp_path_factory: pytest.TempPathFactory, kubeconfig: Path | None) -> Iterator[Any]:
    """A Kubernetes with one Node."""
    from daskml_scale.testing.kube.farm import farm

    with farm(tmp_path_factory.mktemp("kube"), kubeconfig=kubeconfig) as made:
        yield made
