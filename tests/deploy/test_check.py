"""What a definition would fail at is found before it is used."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from distributed import LocalCluster

from daskml_scale.deploy.check import check
from daskml_scale.deploy.findings import Finding, compare_versions
from daskml_scale.spec.cluster import ClusterSpec, ExistingSpec

LOCAL = {"version": 1, "name": "here", "backend": "local", "classes": {"cpu": {"workers": {"max": 1}}}}
THERE = {"version": 1, "name": "there", "backend": "existing"}


def local(**change: Any) -> dict[str, Finding]:
    return {one.what: one for one in check(ClusterSpec.model_validate({**LOCAL, **change}))}


def existing(**keys: Any) -> dict[str, Finding]:
    return {one.what: one for one in check(ExistingSpec.model_validate({**THERE, **keys}))}


def test_a_cluster_of_this_machine_is_sound() -> None:
    found = local()
    assert list(found) == ["cpu", "dashboard", "files"]
    assert all(one.ok and not one.remedy for one in found.values())


def test_what_this_machine_does_not_hold_is_named() -> None:
    found = local(classes={"cpu": {"workers": {"max": 1}, "memory": "900TiB"}})["workers"]
    assert not found.ok
    assert "classes.cpu.memory: 900TiB: a worker needs" in found.said
    crowded = local(classes={"cpu": {"workers": {"max": 2}, "threads": 4096}})["cpu"]
    assert not crowded.ok
    assert "lower classes.cpu.workers.max or .threads" in crowded.remedy


def test_a_dashboard_for_others_asks_for_a_token_and_a_taken_port_is_no_failure() -> None:
    found = local(dashboard={"listen": "0.0.0.0:0"})["dashboard"]
    assert found.ok
    assert "it asks for the token of its link" in found.said
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        taken = local(dashboard={"listen": f"127.0.0.1:{port}"})["dashboard"]
    assert taken.ok
    assert f":{port} is taken" in taken.said


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    import dask

    with dask.config.set({"temporary-directory": str(tmp_path / "absent")}):
        found = local()["files"]
    assert not found.ok
    assert "absent cannot be written" in found.said
    assert "temporary-directory" in found.remedy


def test_a_scheduler_with_workers_of_the_same_versions_is_sound_and_left_alone() -> None:
    with LocalCluster(
        n_workers=1, threads_per_worker=2, processes=False, host="127.0.0.1", dashboard_address="127.0.0.1:0",
        protocol="tcp",
    ) as theirs:  # fmt: skip
        found = existing(address=theirs.scheduler_address)
        assert list(found) == ["scheduler", "workers", "versions", "clocks"]
        assert all(one.ok for one in found.values())
        assert found["workers"].said == "1 with 2 threads"
        assert theirs.status.name == "running"


WITHOUT = """
import asyncio, sys
sys.modules["daskml_scale"] = None  # as where it is not installed
from distributed import Scheduler, Worker

async def main():
    async with Scheduler(host="127.0.0.1", port=0, dashboard_address="127.0.0.1:0") as scheduler:
        async with Worker(scheduler.address, nthreads=1):
            print(scheduler.address, flush=True)
            await scheduler.finished()

asyncio.run(main())
"""


def test_a_scheduler_without_this_package_is_found() -> None:
    with subprocess.Popen([sys.executable, "-c", WITHOUT], stdout=subprocess.PIPE, text=True) as theirs:
        try:
            assert theirs.stdout is not None
            found = existing(address=theirs.stdout.readline().strip())
        finally:
            theirs.kill()
    assert not found["versions"].ok
    assert "does not run this package (ModuleNotFoundError" in found["versions"].said
    assert found["clocks"].ok


def test_a_scheduler_without_workers_says_that_tasks_will_wait() -> None:
    with LocalCluster(
        n_workers=0, processes=False, host="127.0.0.1", dashboard_address="127.0.0.1:0", protocol="tcp"
    ) as theirs:
        found = existing(address=theirs.scheduler_address)["workers"]
    assert not found.ok
    assert found.remedy == "start workers, or tasks will wait"


def test_a_class_is_imported_and_not_started() -> None:
    sound = existing(cluster="distributed:LocalCluster", workers={"max": 1})["class"]
    assert sound.ok
    assert "it is not started" in sound.said
    absent = existing(cluster="no_such_module:C", workers={"max": 1})["class"]
    assert not absent.ok
    assert "no_such_module cannot be imported" in absent.said


HERE = {"python": "3.11.7", "dask": "2026.8.0", "numpy": "2.4.6"}


@pytest.mark.parametrize(
    ("scheduler", "worker", "said"),
    [
        ({}, {}, {"versions": "Python 3.11.7 and 2 packages are the same everywhere"}),
        ({"python": "3.11.9"}, {}, {"versions": "Python 3.11.7 and 2 packages are the same everywhere"}),
        ({"python": "3.13.1"}, {}, {"python": "3.11 here, 3.13 at the scheduler"}),
        ({"dask": "2026.7.1"}, {"dask": "2026.7.1"}, {"dask": "2026.8.0 here, 2026.7.1 at the scheduler and 1 more"}),
        ({}, {"numpy": "none"}, {"numpy": "2.4.6 here, none at tcp://a:1"}),
    ],
)  # fmt: skip
def test_versions_that_differ_are_told_with_their_place(
    scheduler: dict[str, str], worker: dict[str, str], said: dict[str, str]
) -> None:
    found = list(compare_versions(HERE, {**HERE, **scheduler}, {"tcp://a:1": {**HERE, **worker}}))
    assert {one.what: one.said for one in found} == said
    assert all(one.ok is (one.what == "versions") for one in found)
