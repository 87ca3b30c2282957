"""What every kind of cluster must do: a suite that a backend's tests inherit.

A subclass says how a cluster starts and what its machine still holds; pytest runs the rest::

    class TestMine(ClusterContract):
        @pytest.fixture(scope="class")
        @classmethod
        def backend(cls):
            return MyBackend()

It waits for conditions and counts; no check depends on how quick the machine is. Not imported by the package.
"""

from __future__ import annotations

import os
import signal
import time
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

import pytest

PATIENCE = 90.0
"""Seconds after which something that has not come about is a failure."""


class Backend(Protocol):
    """How the clusters of a backend are made; both classes of workers are called as the definition says.

    Attributes
    ----------
    first, second : str
        Names of two classes; ``second`` has the resource ``OTHER``. Empty when a cluster has one class only.
    """

    first: str
    second: str

    def start(self, *, both: bool, adapt: bool = False) -> Any:
        """Return a new cluster with one worker, and room for two, of the first class; ``both``: and one of the second.

        With ``adapt`` it follows its backlog within seconds.
        """

    def start_in_loop(self) -> Any:
        """Return one with the first class, for ``async with``."""

    def broken(self) -> tuple[Any, str]:
        """Return a definition that does not start, and a pattern of the cause that its error names."""

    def leftovers(self) -> list[str]:
        """Return what is there of all clusters of this backend: processes, listening sockets and files, as text."""


def eventually(condition: Callable[[], Any], patience: float = PATIENCE) -> Any:
    """Return the first truth of ``condition``; fail when there is none in time."""
    deadline = time.monotonic() + patience
    while not (found := condition()):
        assert time.monotonic() < deadline, f"it did not happen within {patience:g} s"
        time.sleep(0.05)
    return found


class ClusterContract:
    """The checks; a cluster without adapting is shared by those that leave it as it was.

    Attributes
    ----------
    snippet : int
        Rows and columns of the array that the plain snippet of Dask makes, in ten by ten chunks.
    """

    snippet = 10_000

    @pytest.fixture(scope="class")
    @classmethod
    def cluster(cls, backend: Backend) -> Iterator[Any]:
        """One worker of each class."""
        with backend.start(both=True) as found:
            yield found

    @pytest.fixture
    def client(self, cluster: Any, backend: Backend) -> Iterator[Any]:
        """A client of the shared cluster, whose first class is back to one worker."""
        if len(names(cluster, backend.first)) != 1:
            self.scale(cluster, 1, backend.first)
        eventually(lambda: len(names(cluster, backend.first)) == 1)
        with cluster.get_client() as found:
            yield found

    def scale(self, cluster: Any, workers: int, worker_class: str) -> None:
        """Ask for so many workers of a class."""
        if worker_class:
            cluster.scale(workers, worker_class=worker_class)
        else:
            cluster.scale(workers)

    def test_it_starts_and_computes(self, cluster: Any, client: Any) -> None:
        assert client.submit(sum, [1, 2], pure=False).result(timeout=PATIENCE) == 3
        assert cluster.scheduler_address == client.scheduler.address
        assert cluster.status.name == "running"

    def test_workers_are_named_after_their_class(self, cluster: Any, client: Any, backend: Backend) -> None:
        for worker_class in filter(None, (backend.first, backend.second)):
            assert len(names(cluster, worker_class)) == 1
        assert set(observed(client)) == planned(cluster)

    def test_the_plain_dask_snippet_runs(self, client: Any) -> None:
        import dask.array as da

        size, chunk = self.snippet, self.snippet // 10
        assert 0.49 < da.random.random((size, size), chunks=(chunk, chunk)).mean().compute() < 0.51

    def test_tasks_go_to_the_class_that_has_what_they_need(self, client: Any, backend: Backend) -> None:
        if not backend.second:
            pytest.skip("this backend has one class")
        from distributed import get_worker

        futures = client.map(lambda _: str(get_worker().name), range(4), resources={"OTHER": 1}, pure=False)
        assert {name.rpartition("-")[0] for name in client.gather(futures)} == {backend.second}

    def test_scaling_up_and_down_loses_no_result_and_computes_none_again(
        self, cluster: Any, client: Any, backend: Backend, tmp_path: Path
    ) -> None:
        before = set(names(cluster, backend.first))
        self.scale(cluster, 2, backend.first)
        both = eventually(lambda: len(found := names(cluster, backend.first)) == 2 and found)
        assert before < both
        wanted = [address for name, address in addresses(client).items() if name in both]
        futures = [client.submit(work, n, str(tmp_path), workers=wanted[n % 2], pure=False) for n in range(20)]
        scattered = client.scatter(list(range(10)), hash=False, workers=wanted)
        client.gather(futures)
        self.scale(cluster, 1, backend.first)
        eventually(lambda: len(names(cluster, backend.first)) == 1)
        assert [result[0] for result in client.gather(futures)] == list(range(20))
        assert client.gather(scattered) == list(range(10))
        assert len(list(tmp_path.iterdir())) == 20
        if backend.second:
            assert len(names(cluster, backend.second)) == 1

    def test_what_nobody_can_take_stays_where_it_is(
        self, cluster: Any, client: Any, backend: Backend, tmp_path: Path
    ) -> None:
        self.scale(cluster, 2, backend.first)
        eventually(lambda: len(names(cluster, backend.first)) == 2)
        leaver = sorted(names(cluster, backend.first))[0]
        home = addresses(client)[leaver]
        others = [address for address in addresses(client).values() if address != home]
        futures = [client.submit(work, n, str(tmp_path), workers=[home], pure=False) for n in range(10)]
        client.gather(futures)
        client.run(pause, True, workers=others)
        try:
            eventually(lambda: client.run_on_scheduler(paused) == len(others))
            assert cluster.sync(cluster.retire, [leaver], busy=True) == []
            assert [result[0] for result in client.gather(futures)] == list(range(10))
            assert {tuple(held) for held in client.who_has(futures).values()} == {(home,)}
            assert len(list(tmp_path.iterdir())) == 10
        finally:
            client.run(pause, False, workers=others)
            eventually(lambda: client.run_on_scheduler(paused) == 0)

    def test_a_killed_worker_is_replaced_under_a_name_of_its_own(
        self, cluster: Any, client: Any, backend: Backend
    ) -> None:
        (name,) = names(cluster, backend.first)
        (pid,) = client.run(os.getpid, workers=[addresses(client)[name]]).values()
        os.kill(pid, signal.SIGKILL)
        eventually(lambda: len(names(cluster, backend.first)) == 1 and name not in names(cluster, backend.first))
        assert client.submit(sum, [1, 2], pure=False).result(timeout=PATIENCE) == 3

    def test_it_tells_logs_a_link_and_html(self, cluster: Any, client: Any) -> None:
        assert any("cheduler" in name for name in cluster.get_logs())
        with urllib.request.urlopen(cluster.dashboard_link, timeout=PATIENCE) as page:
            assert b"Bokeh" in page.read()
        html = cluster._repr_html_()
        assert "Workers" in html
        assert cluster.dashboard_link in html

    def test_it_follows_its_backlog(self, backend: Backend) -> None:
        from distributed import Event

        with backend.start(both=False, adapt=True) as cluster, cluster.get_client() as client:
            gate = Event("contract", client=client)
            futures = client.map(hold, range(20), pure=False)
            eventually(lambda: len(names(cluster, backend.first)) == 2)
            gate.set()
            assert sum(client.gather(futures)) == sum(range(20))
            del futures
            eventually(lambda: len(names(cluster, backend.first)) == 1)

    def test_closing_leaves_nothing_and_waits_for_no_task(self, backend: Backend) -> None:
        before = set(backend.leftovers())
        cluster = backend.start(both=False)
        client = cluster.get_client()
        endless = client.submit(time.sleep, 1000)
        eventually(lambda: any(client.processing().values()))
        assert set(backend.leftovers()) - before
        assert endless.status == "pending"
        client.close()
        cluster.close()
        eventually(lambda: not set(backend.leftovers()) - before)
        cluster.close()  # once more is fine

    def test_it_works_inside_an_event_loop(self, backend: Backend) -> None:
        import asyncio

        async def main() -> int:
            async with backend.start_in_loop() as cluster, cluster.get_client() as client:
                return int(await client.submit(sum, [1, 2]))

        before = set(backend.leftovers())
        assert asyncio.run(main()) == 3
        eventually(lambda: not set(backend.leftovers()) - before)

    def test_a_start_that_fails_names_its_cause_and_leaves_nothing(self, backend: Backend) -> None:
        from daskml_scale import deploy
        from daskml_scale.errors import DaskMLError

        before = set(backend.leftovers())
        definition, cause = backend.broken()
        with pytest.raises(DaskMLError, match=cause):
            deploy.cluster(definition)
        eventually(lambda: not set(backend.leftovers()) - before)


def names(cluster: Any, worker_class: str) -> set[str]:
    """Return the names of the workers of a class that are planned and here; of all when it has no name."""
    here = {str(name) for name in cluster.observed} & planned(cluster)
    return {name for name in here if not worker_class or name.rpartition("-")[0] == worker_class}


def planned(cluster: Any) -> set[str]:
    """Return the names of the workers that should be there; of a cluster that plans none of those that are."""
    return {str(name) for name in getattr(cluster, "worker_spec", cluster.observed)}


def observed(client: Any) -> list[str]:
    """Return the names of the workers that the scheduler has."""
    return sorted(addresses(client))


def addresses(client: Any) -> dict[str, str]:
    """Return name -> address of the workers that the scheduler has."""
    found = client.scheduler_info(n_workers=-1)["workers"]
    return {str(worker["name"]): address for address, worker in found.items()}


def work(number: int, folder: str) -> bytes:
    """Leave a file for each execution and return something to hold."""
    (Path(folder) / f"{number}-{uuid.uuid4().hex}").touch()
    return bytes([number]) * 100_000


def pause(yes: bool, dask_worker: Any) -> None:
    """Let a worker take no more data and tasks, as one does that is short of memory; or again."""
    dask_worker.memory_manager.memory_pause_fraction = 1e-9 if yes else 0.8


def paused(dask_scheduler: Any) -> int:
    """Return how many workers are short of memory."""
    return sum(worker.status.name == "paused" for worker in dask_scheduler.workers.values())


def hold(number: int) -> int:
    """Wait until the test has seen enough."""
    from distributed import Event

    Event("contract").wait(timeout=PATIENCE)
    return number
