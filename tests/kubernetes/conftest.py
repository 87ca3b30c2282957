"""One Kubernetes per module: our server and kubelet, or with ``--kubeconfig FILE`` a real API server."""

from __future__ import annotations

import sys
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


@pytest.fixture(scope="module")
def accounts(farm: Any) -> Any:
    """The farm, with what ``kubectl apply -k clusters/kubernetes`` makes."""
    import yaml
    from kube_laptop import RBAC, made_of

    for item in yaml.safe_load_all(RBAC.read_text()):
        made_of(farm, item)
    return farm


@pytest.fixture
def laptop(
    accounts: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Any]:
    """A machine outside the cluster; nothing may be left of what it submitted."""
    from kube_helpers import nothing_left
    from kube_laptop import Laptop, end_jobs

    from daskml_scale.testing.clusters import eventually

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DASKML_SCALE_HOME", str(tmp_path / "home"))
    found = Laptop(accounts, tmp_path, capsys)
    yield found
    sys.stderr.write(found.told())  # shown where a test fails
    found.gate.touch()
    end_jobs(accounts)
    eventually(lambda: nothing_left(accounts))
