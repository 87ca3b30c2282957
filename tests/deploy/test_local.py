"""A local cluster from start to close, with real processes; what every cluster does is in test_contract."""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

import dask
import psutil
import pytest
from deploy_helpers import SPEC, alive, eventually, pids_of
from distributed import Client, KilledWorker

from daskml_scale import deploy
from daskml_scale.deploy.local import ScaledLocalCluster
from daskml_scale.errors import ClusterError, SpecError


def children() -> list[int]:
    return [process.pid for process in psutil.Process().children(recursive=True)]


def test_it_starts_with_the_minimum_and_listens_on_this_machine_only(cluster: ScaledLocalCluster, client: Client):
    assert set(pids_of(cluster)) == {"scheduler", *cluster.workers}
    assert len(cluster.workers) == 1
    addresses = [
        connection.laddr.ip
        for pid in [os.getpid(), *pids_of(cluster).values()]
        for connection in psutil.Process(pid).net_connections()
        if connection.status == psutil.CONN_LISTEN
    ]
    assert len(addresses) >= 4  # scheduler and worker, each with an HTTP server
    assert set(addresses) == {"127.0.0.1"}


def test_the_dashboard_answers(cluster: ScaledLocalCluster):
    assert cluster.dashboard_link.startswith("http://127.0.0.1:")
    with urllib.request.urlopen(cluster.dashboard_link, timeout=60) as page:
        assert b"Bokeh" in page.read()


def test_settings_reach_the_processes_and_not_this_one(cluster: ScaledLocalCluster, client: Client):
    def settings() -> tuple[Any, ...]:
        names = ("scheduler.allowed-failures", "comm.timeouts.connect")
        return *(dask.config.get(f"distributed.{name}") for name in names), os.environ.get("OMP_NUM_THREADS")

    before = settings()
    assert client.run_on_scheduler(settings)[:2] == (0, "5s")
    assert set(client.run(settings).values()) == {(0, "5s", "1")}
    assert settings() == before != (0, "5s", "1")


def json_fields() -> str:
    """Return how this process calls itself in its log of JSON."""
    import logging

    (handler,) = logging.getLogger("distributed").handlers[:1]
    return str(handler.formatter.fields["process"])


def test_dask_settings_of_the_driver_reach_the_workers():
    given = {"array.chunk-size": "7MiB", "distributed.scheduler.allowed-failures": 9, "pool": lambda: 1}
    with dask.config.set({**given, "daskml-scale.log": "json"}):  # noqa: SIM117
        with deploy.cluster(SPEC, adapt=False) as cluster, Client(cluster) as client:
            assert set(client.run(json_fields).values()) == {"cpu-0", "cpu-1"}
            assert client.run_on_scheduler(json_fields) == "scheduler"
            assert client.submit(dask.config.get, "array.chunk-size").result() == "7MiB"
            assert client.run_on_scheduler(lambda dask_scheduler: dask_scheduler.allowed_failures) == 0
            assert len(cluster.workers) == 2  # not adapting: the maximum


def test_workers_import_what_the_driver_imports(client: Client):
    path = client.submit(lambda: sys.path).result()
    assert [entry for entry in path if entry in sys.path] == sys.path  # and the worker's own folder


def test_tasks_may_start_processes_of_their_own(client: Client):
    def square_in_a_process() -> list[int]:
        import multiprocessing

        with multiprocessing.get_context("fork").Pool(1) as pool:
            return pool.map(abs, [-3])

    assert client.submit(square_in_a_process).result() == [3]


def test_replacements_that_cannot_start_are_tried_again(
    cluster: ScaledLocalCluster, client: Client, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    (name,) = cluster.workers
    with monkeypatch.context() as patch:
        patch.setattr(sys, "executable", str(tmp_path / "python"))
        os.kill(pids_of(cluster)[name], signal.SIGKILL)
        eventually(lambda: cluster._early_deaths >= 2)
    assert client.submit(sum, [1, 2], pure=False).result(timeout=60) == 3
    assert len(cluster.worker_spec) == 1


def test_restart_gives_new_processes(cluster: ScaledLocalCluster, client: Client):
    before = client.run(os.getpid)
    client.restart()
    assert not set(client.run(os.getpid).values()) & set(before.values())


def test_a_worker_above_its_memory_is_ended_and_replaced(cluster: ScaledLocalCluster, client: Client):
    def greedy() -> int:
        import time

        hoard = bytearray(os.urandom(2**20)) * 600
        time.sleep(60)
        return len(hoard)

    (name,) = cluster.workers
    with pytest.raises(KilledWorker):
        client.submit(greedy, pure=False).result(timeout=60)
    eventually(lambda: cluster.observed and name not in cluster.observed)


def test_it_is_possible_to_scale_by_cores_and_memory(cluster: ScaledLocalCluster, client: Client):
    cluster.scale(cores=2)
    client.wait_for_workers(2, timeout=60)
    cluster.scale(memory="512 MiB")
    eventually(lambda: len(cluster.observed) == 1)


def test_closing_leaves_no_process_no_socket_no_file_and_waits_for_no_task(tmp_path: Path):
    before = set(children())
    with dask.config.set({"temporary-directory": str(tmp_path)}):
        cluster = deploy.cluster(SPEC)
        client = Client(cluster)
        client.submit(lambda: os.spawnlp(os.P_NOWAIT, "sleep", "sleep", "1000")).result()
        started = set(children()) - before
        endless = client.submit(time.sleep, 1000)
        eventually(lambda: any(client.processing().values()))
        ports = [
            connection.laddr.port
            for pid in started
            for connection in psutil.Process(pid).net_connections()
            if connection.status == psutil.CONN_LISTEN
        ]
        assert len(started) == 3  # scheduler, worker, and what the task started
        assert list(tmp_path.iterdir()) == [Path(cluster.directory)]
        assert endless.status == "pending"
        client.close()
        cluster.close()
    assert alive(list(started)) == []
    assert list(tmp_path.iterdir()) == []
    for port in ports:
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port), timeout=5)
    cluster.close()  # once more is fine


def test_a_lost_scheduler_closes_the_cluster():
    cluster = deploy.cluster(SPEC)
    started = list(pids_of(cluster).values())
    os.kill(cluster.scheduler.pid, signal.SIGKILL)
    eventually(lambda: cluster.status.name == "closed")
    assert alive(started) == []
    eventually(lambda: not os.path.exists(cluster.directory))  # the last thing it does
    cluster.close()


def broken_interpreter(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, Any]:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    return {}


def interpreter_that_fails(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, Any]:
    (tmp_path / "python").write_text("#!/bin/sh\nexit 7\n")
    (tmp_path / "python").chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    return {}


def missing_preload(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, Any]:
    return {"preload": ["no_such_module"]}


def failing_worker(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, Any]:
    dask.config.set({"distributed.worker.preload": ["no_such_worker_module"]})
    return {}


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (broken_interpreter, r"scheduler: cannot start '.*python': No such file or directory"),
        (interpreter_that_fails, r"scheduler: the process ended with code 7 before it was ready"),
        (missing_preload, r"scheduler: ModuleNotFoundError: No module named 'no_such_module'"),
        (failing_worker, r"cpu-0: ModuleNotFoundError: No module named 'no_such_worker_module'"),
    ],
)
def test_a_failed_start_names_the_cause_and_leaves_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, fault: Any, message: str
):
    before = set(children())
    files = tmp_path / "files"
    files.mkdir()
    with dask.config.set({"temporary-directory": str(files), "distributed.worker.preload": []}):
        arguments = fault(monkeypatch, tmp_path)
        with pytest.raises(ClusterError, match=message):
            deploy.cluster(SPEC, **arguments)
    assert set(children()) <= before
    assert list(files.iterdir()) == []


def test_a_place_that_takes_no_files_is_named(tmp_path: Path):
    (tmp_path / "file").touch()
    with (
        dask.config.set({"temporary-directory": str(tmp_path / "file")}),
        pytest.raises(ClusterError, match="temporary-directory"),
    ):
        deploy.cluster(SPEC)


@pytest.mark.parametrize(
    ("change", "path"),
    [
        ({"dashboard": {"hosts": ["http://hub"]}}, "dashboard.hosts[0]"),
        ({"classes": {"cpu": {"memory": "900TiB"}}}, "classes.cpu.memory"),
        ({"clases": {}}, "clases"),
    ],
)
def test_a_definition_that_cannot_be_is_refused_before_anything_starts(change: dict[str, Any], path: str):
    before = set(children())
    with pytest.raises(SpecError) as raised:
        deploy.cluster({**SPEC, **change})
    assert raised.value.path == path
    assert set(children()) <= before


def test_a_file_is_a_definition_too_and_a_taken_dashboard_port_means_the_next_free_one(tmp_path: Path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        file = tmp_path / "mine.yaml"
        file.write_text(
            "version: 1\nname: mine\nbackend: local\nclasses:\n  cpu: {workers: {min: 1, max: auto}}\n"
            f"scaling: {{policy: backlog}}\ndashboard: {{listen: 'localhost:{port}'}}\n"
        )
        with deploy.cluster(file) as cluster:
            assert cluster.name.startswith("mine-")
            assert cluster.limits["cpu"].maximum == dask.system.CPU_COUNT
            assert cluster.limits["cpu"].window == 30.0
            assert port < int(cluster.dashboard_link.split(":")[2].split("/")[0]) <= port + 200
