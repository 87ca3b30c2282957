"""Which GPUs this machine shows, and what a worker that has one of them is made of.

NVIDIA's own library is asked when it is there, else the driver's files. ``CUDA_VISIBLE_DEVICES`` counts: a process, or
a job of a batch system, that was given two devices has two. Nothing here starts CUDA in this process.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from daskml_scale.errors import SpecError
from daskml_scale.spec.cluster import WorkerClass

RESOURCE = "GPU"
_DRIVER = Path("/proc/driver/nvidia/gpus")


def visible(driver: Path = _DRIVER) -> list[str]:
    """Return the devices for ``CUDA_VISIBLE_DEVICES``: numbers, or what that variable lists."""
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    count = _from_library()
    if count is None:
        count = len(list(driver.iterdir())) if driver.is_dir() else 0
    if chosen is None or count == 0:
        return [str(number) for number in range(count)]
    return [one.strip() for one in chosen.split(",") if one.strip() and one.strip() != "-1"]


def _from_library() -> int | None:
    try:
        import pynvml
    except ImportError:
        return None
    try:
        pynvml.nvmlInit()
        count = int(pynvml.nvmlDeviceGetCount())
        pynvml.nvmlShutdown()
    except pynvml.NVMLError:
        return None
    return count


def needed(resources: Mapping[str, float]) -> int:
    """Return the devices that a worker with these resources has: whole ones."""
    return math.ceil(resources.get(RESOURCE, 0))


def device_of(item: WorkerClass) -> dict[str, Any] | None:
    """Return what a worker of a class asks of dask-cuda (see `child.Setup`); ``None`` when it has not one device."""
    if needed(item.resources) != 1:
        return None
    return item.device.model_dump(exclude_none=True) if item.device else {}


def dask_cuda() -> str:
    """Return the version of dask-cuda that is installed, or nothing. It is not imported."""
    try:
        return version("dask-cuda")
    except PackageNotFoundError:
        return ""


def check_dask_cuda(classes: Mapping[str, WorkerClass]) -> None:
    """Refuse classes that ask something of dask-cuda where it is not installed.

    Raises
    ------
    SpecError
    """
    for name, item in classes.items():
        if item.device is not None and not dask_cuda():
            raise SpecError(
                "dask-cuda is not installed: pip install 'daskml-scale[gpu]' (its release sets the version of Dask), "
                "or leave it out and do without memory limit and pool of the device",
                path=f"classes.{name}.device",
            )


def check_devices(classes: Mapping[str, WorkerClass], devices: Sequence[str]) -> None:
    """Refuse classes that ask for more devices than there are.

    Raises
    ------
    SpecError
    """
    for name, item in classes.items():
        each, path = needed(item.resources), f"classes.{name}"
        if each > len(devices):
            have = f"{len(devices)} GPU" if devices else "no GPU"
            raise SpecError(
                f"each worker wants {each} and this machine shows {have}; leave the class out, or run where nvidia-smi "
                "lists devices",
                path=f"{path}.resources.{RESOURCE}",
            )
        most = item.workers.min if item.workers.max == "auto" else item.workers.max
        if most * each > len(devices):
            raise SpecError(
                f"{most} workers with {each} GPU each and this machine shows {len(devices)}; lower it",
                path=f"{path}.workers",
            )


class Devices:
    """Which worker has which device; one that is asked for too early shares the least used for a moment."""

    def __init__(self, devices: Sequence[str]) -> None:
        self.users = dict.fromkeys(devices, 0)

    def take(self, count: int) -> list[str]:
        """Return the devices of a new worker."""
        chosen = sorted(self.users, key=lambda device: self.users[device])[:count]
        for device in chosen:
            self.users[device] += 1
        return chosen

    def give(self, devices: Sequence[str]) -> None:
        """Take the devices of a worker that is gone."""
        for device in devices:
            self.users[device] -= 1
