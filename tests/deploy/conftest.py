"""One cluster with short windows per test module."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from deploy_helpers import SPEC, Recorder, eventually

from daskml_scale import deploy
from daskml_scale.deploy.local import ScaledLocalCluster


@pytest.fixture(scope="module")
def recorder() -> Recorder:
    return Recorder()


@pytest.fixture(scope="module")
def cluster(recorder: Recorder) -> Iterator[ScaledLocalCluster]:
    """One worker at first, two at most, shared by the tests of a module."""
    with deploy.cluster(SPEC, sink=recorder) as found:
        yield found


@pytest.fixture
def client(cluster: ScaledLocalCluster) -> Iterator[Any]:
    from distributed import Client

    eventually(lambda: len(cluster.observed) == 1 and len(cluster.worker_spec) == 1)
    with Client(cluster) as found:
        yield found
