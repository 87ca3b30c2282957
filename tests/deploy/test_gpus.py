"""GPU classes of a local cluster: one device for each worker; one sentence where there is none."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from deploy_helpers import SPEC

from daskml_scale import deploy
from daskml_scale.deploy.gpus import Devices, check_devices, visible
from daskml_scale.deploy.machine import size_classes
from daskml_scale.errors import Exit, SpecError
from daskml_scale.spec.cluster import WorkerClass

DEVICES = visible()
GPU: dict[str, Any] = {"workers": {"min": 1}, "memory": "2GiB", "resources": {"GPU": 1}}


def classes(**change: Any) -> dict[str, WorkerClass]:
    return {"gpu": WorkerClass.model_validate({**GPU, **change})}


@pytest.mark.skipif(bool(DEVICES), reason="this machine has a GPU")
def test_without_a_gpu_one_sentence_says_so_before_anything_starts():
    with pytest.raises(SpecError, match=r"classes\.gpu\.resources\.GPU: .* this machine shows no GPU; leave") as raised:
        deploy.cluster({**SPEC, "classes": {**SPEC["classes"], "gpu": GPU}})
    assert raised.value.exit_code == Exit.USAGE


def test_a_class_has_no_more_workers_than_devices():
    assert size_classes(classes(), cores=1, memory=2**36, devices=3)["gpu"].maximum == 3
    assert size_classes(classes(resources={"GPU": 2}), cores=64, memory=2**36, devices=5)["gpu"].maximum == 2
    check_devices(classes(workers={"max": 2}), ["0", "1"])
    with pytest.raises(SpecError, match="3 workers with 1 GPU each and this machine shows 2"):
        check_devices(classes(workers={"max": 3}), ["0", "1"])
    with pytest.raises(SpecError, match="each worker wants 2 and this machine shows 1 GPU"):
        check_devices(classes(resources={"GPU": 2}), ["0"])


def test_each_worker_gets_a_device_of_its_own_and_gives_it_back():
    devices = Devices(["0", "1", "2"])
    first, second = devices.take(1), devices.take(1)
    assert first != second
    devices.give(first)
    assert set(devices.take(2)) == {*first, "2"}


def test_devices_are_those_that_the_environment_leaves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("daskml_scale.deploy.gpus._from_library", lambda: None)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert visible(tmp_path / "absent") == []
    for name in ("0000:01:00.0", "0000:02:00.0"):
        (tmp_path / name).mkdir()
    assert visible(tmp_path) == ["0", "1"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "MIG-abc, 1")
    assert visible(tmp_path) == ["MIG-abc", "1"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    assert visible(tmp_path) == []


@pytest.mark.gpu
@pytest.mark.skipif(not DEVICES, reason="no CUDA device on this machine")
def test_gpu_and_cpu_workers_of_one_cluster_see_what_is_theirs():
    spec = {**SPEC, "classes": {**SPEC["classes"], "gpu": {**GPU, "workers": {"min": 1, "max": 1}}}}
    with deploy.cluster(spec, adapt=False) as cluster, cluster.get_client() as client:
        futures = client.map(lambda _: os.environ["CUDA_VISIBLE_DEVICES"], range(3), resources={"GPU": 1}, pure=False)
        assert set(client.gather(futures)) == {DEVICES[0]}


@pytest.mark.gpu
@pytest.mark.skipif(not DEVICES, reason="no CUDA device on this machine")
def test_a_cupy_reduction_runs_on_a_gpu_worker():
    pytest.importorskip("cupy", reason="CuPy is not installed")

    def total() -> float:
        import cupy

        return float(cupy.arange(1_000_000, dtype="float64").sum())

    spec = {**SPEC, "classes": {"gpu": {**GPU, "workers": {"min": 1, "max": 1}}}}
    with deploy.cluster(spec) as cluster, cluster.get_client() as client:
        assert client.submit(total, resources={"GPU": 1}).result(timeout=120) == 499999500000.0
