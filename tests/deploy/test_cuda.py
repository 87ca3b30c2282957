"""Workers of dask-cuda: what they are told, what they say when it is not there, and that they live as others do.

Where no device is, a module of the same name and the same nanny stands for dask-cuda, without its plugins.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from deploy_helpers import SPEC, alive, eventually, pids_of
from distributed import Client

from daskml_scale import deploy
from daskml_scale.deploy import cuda
from daskml_scale.errors import Exit, SpecError
from daskml_scale.spec.cluster import WorkerClass

GPU: dict[str, Any] = {"workers": {"min": 1, "max": 1}, "memory": "1GiB", "resources": {"GPU": 1}}
DEVICE = {"memory": 0.7, "pool": "1GiB"}
STAND_IN = """
import json, os
from distributed import Nanny

class CUDAWorker:
    def __init__(self, scheduler=None, *, resources, dashboard=True, dashboard_address=":0",
                 device_memory_limit="default", rmm_pool_size=None, **options):
        devices = os.environ["CUDA_VISIBLE_DEVICES"].split(",")
        told = json.dumps([device_memory_limit, rmm_pool_size, dashboard, dashboard_address])
        self.nannies = [
            Nanny(
                scheduler,
                resources={name: float(value) for name, value in (pair.split("=") for pair in resources.split(","))},
                env={"CUDA_VISIBLE_DEVICES": device, "TOLD": told},
                dashboard=dashboard,
                dashboard_address=dashboard_address,
                **options,
            )
            for device in devices
        ]

    def __await__(self):
        return self._start().__await__()

    async def _start(self):
        for nanny in self.nannies:
            await nanny

    async def finished(self):
        for nanny in self.nannies:
            await nanny.finished()

    async def close(self, timeout=5):
        for nanny in self.nannies:
            await nanny.close(timeout=timeout)
"""


def test_a_worker_of_dask_cuda_is_told_what_a_plain_one_is() -> None:
    plain = {"scheduler_ip": "tcp://h:1", "name": "gpu-0", "nthreads": 2, "resources": {"GPU": 1, "DISK": 2.5},
             "memory_limit": 2**30, "host": "127.0.0.1"}  # fmt: skip
    told = cuda.arguments(plain, {})
    assert told == {
        "scheduler": "tcp://h:1", "name": "gpu-0", "nthreads": 2, "resources": "GPU=1,DISK=2.5", "memory_limit": 2**30,
        "host": "127.0.0.1", "dashboard": False, "dashboard_address": "127.0.0.1:0", "silence_logs": logging.WARNING,
    }  # fmt: skip
    more = cuda.arguments({**plain, "dashboard_address": "127.0.0.2:0"}, DEVICE)
    assert (more["device_memory_limit"], more["rmm_pool_size"]) == (0.7, "1GiB")
    assert more["dashboard_address"] == "127.0.0.2:0"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"device": DEVICE, "resources": {"GPU": 2}}, "device is for workers with one GPU; write resources:"),
        ({"device": DEVICE, "resources": {}}, "device is for workers with one GPU"),
        ({"device": {"memory": 1.5}}, "1.5 is no part of a device; write a share such as 0.8, or a size"),
        ({"device": {"pool": 0}}, "0 is no part of a device"),
        ({"device": {"pool": "much"}}, "'much' is not a size"),
    ],
)
def test_a_device_that_cannot_be_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        WorkerClass(**{**GPU, "workers": WorkerClass().workers, **change})


def test_without_dask_cuda_one_sentence_says_so_before_anything_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("daskml_scale.deploy.gpus._from_library", lambda: 1)
    monkeypatch.setattr("daskml_scale.deploy.gpus.dask_cuda", lambda: "")
    with pytest.raises(SpecError, match=r"classes\.gpu\.device: dask-cuda is not installed: pip install") as raised:
        deploy.cluster({**SPEC, "classes": {"gpu": {**GPU, "device": DEVICE}}})
    assert raised.value.exit_code == Exit.USAGE


def test_on_a_host_without_it_a_worker_is_a_plain_one_unless_something_was_asked_of_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "dask_cuda", None)
    options = {"scheduler_ip": "tcp://127.0.0.1:9", "resources": {"GPU": 1}}
    assert cuda.worker(options, {}) is None
    with pytest.raises(RuntimeError, match=r"dask-cuda does not work here .*pip install 'daskml-scale\[gpu\]'"):
        cuda.worker(options, DEVICE)


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A machine with one device and dask-cuda, as far as our own code can tell."""
    (tmp_path / "dask_cuda.py").write_text(STAND_IN)
    (tmp_path / "dask_cuda-26.10.0.dist-info").mkdir()
    (tmp_path / "dask_cuda-26.10.0.dist-info" / "METADATA").write_text("Name: dask-cuda\nVersion: 26.10.0\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr("daskml_scale.deploy.gpus._from_library", lambda: 1)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    yield
    sys.modules.pop("dask_cuda", None)


@pytest.mark.usefixtures("stand_in")
def test_its_workers_are_named_replaced_retired_and_closed_as_all_others() -> None:
    spec = {**SPEC, "classes": {"gpu": {**GPU, "device": DEVICE}}}
    with deploy.cluster(spec, adapt=False) as cluster, Client(cluster, set_as_default=False) as client:
        told, device = client.submit(
            lambda: (os.environ["TOLD"], os.environ["CUDA_VISIBLE_DEVICES"]), resources={"GPU": 1}
        ).result(timeout=60)
        assert json.loads(told) == [0.7, "1GiB", False, "127.0.0.1:0"]
        assert device == "0"
        (pid,) = client.run(os.getpid).values()
        assert pid != pids_of(cluster)["gpu-0"]  # dask-cuda's nanny lies between
        os.kill(pid, signal.SIGKILL)
        eventually(lambda: cluster.observed == {"gpu-1"}, timeout=60)
        assert client.submit(sum, [1, 2], pure=False).result(timeout=60) == 3
        processes = [*client.run(os.getpid).values(), *pids_of(cluster).values()]
        cluster.scale(0)
        eventually(lambda: not cluster.workers and not cluster.worker_spec, timeout=60)
        cluster.scale(1)
        eventually(lambda: cluster.observed == {"gpu-2"}, timeout=60)  # the retired one was not replaced
        processes += [*client.run(os.getpid).values(), *pids_of(cluster).values()]
    eventually(lambda: not alive(processes), timeout=60)
