"""Local, SSH and foreign clusters keep the same contract."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dask
import psutil
import pytest

from daskml_scale import deploy
from daskml_scale.deploy.existing import JoinedCluster
from daskml_scale.deploy.gpus import visible
from daskml_scale.errors import UsageError
from daskml_scale.testing.clusters import PATIENCE, ClusterContract, eventually, observed

CLASS: dict[str, Any] = {"workers": {"min": 1, "max": 2}, "memory": "512MiB"}
OTHER: dict[str, Any] = {"workers": {"min": 1, "max": 1}, "memory": "512MiB", "resources": {"OTHER": 1}}
QUICK = {"horizon": "1s", "keep_idle": "1s"}


def processes(before: set[int]) -> list[str]:
    """Return the processes that were started since, and what they and this one listen on."""
    found = []
    for process in [psutil.Process(), *psutil.Process().children(recursive=True)]:
        with contextlib.suppress(psutil.Error):
            if process.status() != psutil.STATUS_ZOMBIE and process.pid not in before:
                found.append(f"process {process.pid} {process.name()}")
            listening = [one for one in process.net_connections() if one.status == psutil.CONN_LISTEN]
            found += [f"socket {process.pid} {one.laddr}" for one in listening]
    return found


class Local:
    first, second = "cpu", "other"

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.before = {os.getpid(), *(child.pid for child in psutil.Process().children(recursive=True))}

    def definition(self, both: bool = False) -> dict[str, Any]:
        return {
            "version": 1, "name": "contract", "backend": "local", "scaling": QUICK,
            "classes": {"cpu": CLASS, "other": OTHER} if both else {"cpu": CLASS},
            "dashboard": {"listen": "127.0.0.1:0"},
        }  # fmt: skip

    def start(self, *, both: bool, adapt: bool = False) -> Any:
        found = deploy.cluster(self.definition(both))
        if not adapt:
            found._adaptive.stop()
        return found

    def start_in_loop(self) -> Any:
        from daskml_scale.deploy.local import ScaledLocalCluster
        from daskml_scale.spec.cluster import ClusterSpec

        return ScaledLocalCluster(ClusterSpec.model_validate(self.definition()), asynchronous=True)

    def broken(self) -> tuple[Any, str]:
        return {**self.definition(), "classes": {"cpu": {**CLASS, "memory": "900TiB"}}}, "900TiB"

    def leftovers(self) -> list[str]:
        return [*processes(self.before), *map(str, self.folder.iterdir())]


class TestLocal(ClusterContract):
    @pytest.fixture(scope="class")
    @classmethod
    def backend(cls, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Local]:
        folder = tmp_path_factory.mktemp("local")
        with dask.config.set({"temporary-directory": str(folder)}):
            yield Local(folder)


class Ssh(Local):
    def __init__(self, folder: Path, farm: Any) -> None:
        super().__init__(folder)
        self.farm = farm

    def definition(self, both: bool = False) -> dict[str, Any]:
        first = {**CLASS, "hosts": [{"host": "127.0.0.2", "slots": 1}, {"host": "127.0.0.3", "slots": 2}]}
        second = {**OTHER, "hosts": [{"host": "127.0.0.3"}]}
        made = self.farm.definition({"cpu": first, "other": second} if both else {"cpu": first})
        return dict(made)

    def start_in_loop(self) -> Any:
        from daskml_scale.deploy.ssh import ScaledSSHCluster
        from daskml_scale.spec.hosts import SshSpec

        return ScaledSSHCluster(SshSpec.model_validate(self.definition()), asynchronous=True)

    def broken(self) -> tuple[Any, str]:
        made = self.definition()
        broken = {**made, "ssh": {**made["ssh"], "python": "/no/such/python"}}
        return broken, "no/such/python does not run this package .*no/such/python.*(not found|No such file)"

    def leftovers(self) -> list[str]:
        logs = Path(os.environ["DASKML_SCALE_HOME"]) / "clusters"
        files = [str(path) for path in logs.rglob("*.pem")]
        own = [f"process {process.pid}" for process in self.farm.processes()]
        return [*own, *files, *os.listdir(self.farm.temporary), *map(str, self.folder.iterdir())]


class TestSsh(ClusterContract):
    @pytest.fixture(scope="class")
    @classmethod
    def backend(cls, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ssh]:
        pytest.importorskip("asyncssh", reason="asyncssh is not installed")
        from daskml_scale.testing.ssh_hosts import farm

        with farm(tmp_path_factory.mktemp("farm")) as made:
            yield Ssh(tmp_path_factory.mktemp("ssh"), made)


class Foreign(Local):
    """Dask's own LocalCluster, started by its import path and scaled by us."""

    first, second = "", ""

    def definition(self, both: bool = False, adapt: bool = False) -> dict[str, Any]:
        options = {
            "processes": True, "threads_per_worker": 1, "n_workers": 0, "host": "127.0.0.1",
            "memory_limit": "512MiB", "dashboard_address": "127.0.0.1:0", "local_directory": str(self.folder),
        }  # fmt: skip
        made = {
            "version": 1, "name": "contract", "backend": "existing", "cluster": "distributed:LocalCluster",
            "options": options, "workers": {"min": 1, "max": 2 if adapt else 1}, "startup": "2s",
        }  # fmt: skip
        return {**made, "scaling": QUICK} if adapt else made

    def start(self, *, both: bool, adapt: bool = False) -> Any:
        return deploy.cluster(self.definition(adapt=adapt))

    def start_in_loop(self) -> Any:
        from distributed import LocalCluster

        return LocalCluster(**{**self.definition()["options"], "n_workers": 1}, asynchronous=True)

    def broken(self) -> tuple[Any, str]:
        made = self.definition()
        return {**made, "options": {**made["options"], "protocol": "pigeon"}}, "LocalCluster did not start: .*pigeon"

    def leftovers(self) -> list[str]:
        found = super().leftovers()
        return [one for one in found if "resource_tracker" not in one and "forkserver" not in one]


class TestForeign(ClusterContract):
    snippet = 1000  # the workers are those of Dask, or of the suite above

    @pytest.fixture(scope="class")
    @classmethod
    def backend(cls, tmp_path_factory: pytest.TempPathFactory) -> Foreign:
        return Foreign(tmp_path_factory.mktemp("foreign"))

    def test_scaling_up_and_down_loses_no_result_and_computes_none_again(self) -> None:
        pytest.skip("Dask's own scale() computes again what a worker held (distributed#4069); ours is tested above")

    def test_a_killed_worker_is_replaced_under_a_name_of_its_own(self, cluster: Any, client: Any) -> None:
        """Its nanny starts it again, under the same name."""
        (pid,) = client.run(os.getpid).values()
        os.kill(pid, signal.SIGKILL)
        eventually(lambda: [found for found in client.run(os.getpid, on_error="ignore").values() if found != pid])
        assert client.submit(sum, [1, 2], pure=False).result(timeout=PATIENCE) == 3

    def test_what_nobody_can_take_stays_where_it_is(self) -> None:
        pytest.skip("Dask's own scale() closes it all the same (distributed#1951); ours is tested above")


class Joined(Local):
    """Somebody else's cluster, by its address: what is left of ours are connections."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.owner = super().start(both=True)

    def start(self, *, both: bool, adapt: bool = False) -> Any:
        return deploy.cluster(self.address(self.owner.scheduler_address))

    def start_in_loop(self) -> Any:
        return JoinedCluster("joined", self.owner.scheduler_address, asynchronous=True)

    @staticmethod
    def address(address: str) -> dict[str, Any]:
        return {"version": 1, "name": "joined", "backend": "existing", "address": address}

    def broken(self) -> tuple[Any, str]:
        return self.address("tcp://127.0.0.1:9"), "no scheduler answers at tcp://127.0.0.1:9 .*start it, or correct"

    def leftovers(self) -> list[str]:
        port = int(self.owner.scheduler_address.rpartition(":")[2])
        found = psutil.Process().net_connections()
        return [str(one.laddr) for one in found if one.status == psutil.CONN_ESTABLISHED and one.raddr.port == port]


class TestJoined(ClusterContract):
    snippet = 1000  # the workers are those of Dask, or of the suite above

    @pytest.fixture(scope="class")
    @classmethod
    def backend(cls, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Joined]:
        folder = tmp_path_factory.mktemp("joined")
        with pytest.MonkeyPatch.context() as patch, dask.config.set({"temporary-directory": str(folder)}):
            patch.setattr("daskml_scale.deploy.existing.CONNECT_SECONDS", 1.0)
            made = Joined(folder)
            with made.owner:
                yield made

    def test_scaling_up_and_down_loses_no_result_and_computes_none_again(self, cluster: Any, client: Any) -> None:
        """Who started it scales it; through this end nothing changes."""
        before = set(observed(client))
        for ask in (cluster.scale, cluster.adapt):
            with pytest.raises(UsageError, match="is scaled by who started it"):
                ask(2)
        assert set(observed(client)) == before

    def test_it_follows_its_backlog(self) -> None:
        pytest.skip("who started it decides that")

    def test_what_nobody_can_take_stays_where_it_is(self) -> None:
        pytest.skip("nothing is retired through this end")

    def test_closing_leaves_nothing_and_waits_for_no_task(self, backend: Joined) -> None:
        """Nothing of ours, that is: the cluster stays as it was."""
        before = set(backend.leftovers())
        cluster = backend.start(both=True)
        client = cluster.get_client()
        workers = observed(client)
        assert set(backend.leftovers()) - before
        client.close()
        cluster.close()
        eventually(lambda: not set(backend.leftovers()) - before)
        cluster.close()  # once more is fine
        with backend.owner.get_client() as client:
            assert observed(client) == workers
            assert client.submit(sum, [1, 2], pure=False).result(timeout=PATIENCE) == 3


class Gpu(Local):
    """CPU workers, and one with a device of its own; with dask-cuda where it is installed."""

    def definition(self, both: bool = False) -> dict[str, Any]:
        made = super().definition(both)
        if both:
            made["classes"] = {"cpu": CLASS, "other": {**OTHER, "memory": "4GiB", "resources": {"OTHER": 1, "GPU": 1}}}
        return made


@pytest.mark.gpu
@pytest.mark.skipif(not visible(), reason="no CUDA device on this machine")
class TestGpu(ClusterContract):
    @pytest.fixture(scope="class")
    @classmethod
    def backend(cls, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gpu]:
        folder = tmp_path_factory.mktemp("gpu")
        with dask.config.set({"temporary-directory": str(folder)}):
            yield Gpu(folder)
