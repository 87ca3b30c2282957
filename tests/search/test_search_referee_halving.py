"""scikit-learn's own tests of its Halving searches, with ours in their place, on a cluster."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from distributed import Client
from search_referee import HALVING, HALVING_ON_A_CLUSTER, own_tests

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]
globals().update(own_tests(HALVING, HALVING_ON_A_CLUSTER))


@pytest.fixture(scope="module", autouse=True)
def default_client(cluster: Any) -> Iterator[None]:
    with Client(cluster):
        yield
