"""How many workers this machine holds, and how much memory each may use.

``size_classes`` is pure; ``cores`` and ``memory`` look at the machine and at the limits of the control
groups (containers) that this process runs in.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from daskml_scale.errors import SpecError
from daskml_scale.spec.base import byte_count
from daskml_scale.spec.cluster import WorkerClass

from .gpus import needed

LEAST = 256 * 2**20
"""Bytes below which a worker is of no use: the process alone takes about 150 MiB."""
RESERVE = 2**30
"""Bytes for driver and scheduler, on a machine that has four times as much."""


@dataclass(frozen=True, slots=True)
class Size:
    """What a class gets on this machine: its most workers, and the bytes of each."""

    maximum: int
    memory: int


def size_classes(classes: Mapping[str, WorkerClass], cores: int, memory: int, devices: int = 0) -> dict[str, Size]:
    """Resolve every ``auto`` of the worker classes.

    A quarter of the memory, at most 1 GiB, is left to driver and scheduler. Classes share the rest by
    threads; a class of ``auto`` size has no more workers than cores, nor than fit at `LEAST` bytes each.

    Parameters
    ----------
    cores : int
    memory : int
        Bytes of the machine, or of its container.
    devices : int
        GPUs; a class that needs some has no more workers than these serve.

    Raises
    ------
    SpecError
        If a class asks for more memory than there is, or for so little that no worker runs in it.
    """
    usable = memory - min(memory // 4, RESERVE)
    fixed = {name: byte_count(spec.memory) for name, spec in classes.items() if spec.memory != "auto"}
    for name, wanted in fixed.items():
        if not LEAST <= wanted <= memory:
            raise SpecError(
                f"{classes[name].memory}: a worker needs at least {LEAST // 2**20}MiB and this machine has "
                f"{memory / 2**30:.1f}GiB; write a size between them or 'auto'",
                path=f"classes.{name}.memory",
            )
    sizes = {}
    wanted_threads = {name: _most(spec, cores, devices) * spec.threads for name, spec in classes.items()}
    sharing = sum(wanted_threads[name] for name in classes if name not in fixed)
    free = max(0, usable - sum(fixed[name] * classes[name].workers.min for name in fixed))
    for name, spec in classes.items():
        most = _most(spec, cores, devices)
        if name in fixed:
            each = fixed[name]
        else:
            share = free * wanted_threads[name] // sharing
            if spec.workers.max == "auto":
                most = max(1, spec.workers.min, min(most, share // LEAST))
            each = share // most
            if each < LEAST:
                raise SpecError(
                    f"{most} workers leave {each // 2**20}MiB of memory for each and one needs at least "
                    f"{LEAST // 2**20}MiB; lower workers.max or workers.min",
                    path=f"classes.{name}.workers",
                )
        sizes[name] = Size(most, each)
    return sizes


def _most(spec: WorkerClass, cores: int, devices: int) -> int:
    if spec.workers.max == "auto" and (each := needed(spec.resources)):
        return max(1, devices // each)
    if spec.workers.max == "auto":
        return max(1, cores // spec.threads, spec.workers.min)
    return spec.workers.max


def cores() -> int:
    """Return the cores that this process may use (affinity and container quota)."""
    from dask.system import CPU_COUNT

    return int(CPU_COUNT)


def memory() -> int:
    """Return the bytes of memory that this process and its children may use."""
    from distributed.system import memory_limit

    return min([int(memory_limit()), *cgroup_limits()])


def cgroup_limits(root: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")) -> Iterator[int]:
    """Yield the memory limits, in bytes, of the control groups above this process (versions 1 and 2)."""
    try:
        lines = own.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        number, controllers, path = line.split(":", 2)
        if number == "0" and not controllers:
            base, name = root, "memory.max"
        elif "memory" in controllers.split(","):
            base, name = root / "memory", "memory.limit_in_bytes"
        else:
            continue
        group = base / path.lstrip("/")
        for folder in (group, *group.parents):
            if not folder.is_relative_to(base):
                break
            try:
                text = (folder / name).read_text().strip()
            except OSError:
                continue
            if text.isdigit() and int(text) > 0:
                yield int(text)


def thread_environment(threads: int) -> dict[str, str]:
    """Return the variables that keep the inner thread pools of a worker at its own number of threads."""
    pools = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS")
    return {
        **dict.fromkeys(pools, str(threads)),
        # Idle OpenMP threads must not spin while other workers want the core.
        "OMP_WAIT_POLICY": os.environ.get("OMP_WAIT_POLICY", "passive"),
        # What glibc itself comes to where arrays come and go. The nanny's 65536 gives every chunk's memory back to the
        # system and faults it in again: a copy of chunks of 2 MiB then takes 1.7 times the CPU
        # (docs/reference/storage.md).
        "MALLOC_TRIM_THRESHOLD_": os.environ.get("MALLOC_TRIM_THRESHOLD_", str(64 * 2**20)),
        "MALLOC_MMAP_THRESHOLD_": os.environ.get("MALLOC_MMAP_THRESHOLD_", str(32 * 2**20)),
        # glibc gives each thread arenas of 64 MiB, and each that becomes empty back to the system: columns of a few MiB
        # on a worker's thread are faulted in again and again. In one arena for all that takes a fifth less CPU.
        "MALLOC_ARENA_MAX": os.environ.get("MALLOC_ARENA_MAX", "1"),
        # Equal hashes of strings on all workers, as distributed's nanny arranges it.
        "PYTHONHASHSEED": os.environ.get("PYTHONHASHSEED", "6640"),
    }
