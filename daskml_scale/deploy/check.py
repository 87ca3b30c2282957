"""Prove a cluster definition before it is used: what would fail, and how to mend it.

Nothing is started and nothing is changed. A finding is one sentence of fact with a remedy where it is bad;
what cannot be found out because something before it failed is left out.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from typing import Any

from daskml_scale.errors import ClusterError, SpecError
from daskml_scale.spec.cluster import ClusterSpec, ExistingSpec
from daskml_scale.spec.hosts import Definition, SshSpec
from daskml_scale.spec.kubernetes import KubernetesSpec

from .findings import SKEW_SECONDS, Finding, compare_versions, versions

ROOM = 2**30
"""Bytes that workers spill to, at the least."""


def check(spec: Definition) -> list[Finding]:
    """Return what was found about a definition, in the order in which a start would meet it."""
    if isinstance(spec, SshSpec):
        from .check_hosts import check_hosts

        return list(check_hosts(spec))
    if isinstance(spec, KubernetesSpec):
        from .check_kubernetes import check_kubernetes

        return list(check_kubernetes(spec))
    return list(_existing(spec) if isinstance(spec, ExistingSpec) else _local(spec))


# This machine


def _local(spec: ClusterSpec) -> Iterator[Finding]:
    from .child import free_port
    from .gate import is_loopback
    from .gpus import check_dask_cuda, check_devices, dask_cuda, needed, visible
    from .local import listen
    from .machine import cores, memory, size_classes

    have, room, devices = cores(), memory(), visible()
    try:
        check_devices(spec.classes, devices)
        check_dask_cuda(spec.classes)
        sizes = size_classes(spec.classes, have, room, len(devices))
    except SpecError as error:
        yield Finding("workers", False, f"{error.path}: {error.message}")
    else:
        for name, size in sizes.items():
            threads = spec.classes[name].threads
            fits = size.maximum * threads <= have
            yield Finding(
                name,
                fits,
                f"up to {size.maximum:,} workers of {size.memory / 2**30:.1f} GiB, threads of each: {threads}; "
                f"this machine has {room / 2**30:.1f} GiB, cores: {have}",
                "" if fits else f"they would share cores; lower classes.{name}.workers.max or .threads",
            )
            if each := needed(spec.classes[name].resources):
                how = f"dask-cuda {dask_cuda()}" if dask_cuda() else "without dask-cuda"
                yield Finding(f"{name} GPU", True, f"{each} for each worker; devices here: {', '.join(devices)}; {how}")
    host, _, port = listen(spec).rpartition(":")
    found = free_port(host, int(port))
    said = f"{host}:{found or 'any'} is free"
    said = said if str(found) == port else f"{host}:{port} is taken; {said}"
    yield Finding("dashboard", True, said if is_loopback(host) else f"{said}; it asks for the token of its link")
    yield _directory()


def _directory() -> Finding:
    import dask.config

    folder = dask.config.get("temporary-directory", default=None) or tempfile.gettempdir()
    remedy = "set Dask's temporary-directory to a folder with room"
    if not os.access(folder, os.W_OK):
        return Finding("files", False, f"{folder} cannot be written", remedy)
    free = shutil.disk_usage(folder).free
    said = f"workers spill to {folder}, which has {free / 2**30:,.1f} GiB free"
    return Finding("files", free >= ROOM, said, "" if free >= ROOM else remedy)


# Something else's


def _existing(spec: ExistingSpec) -> Iterator[Finding]:
    from .existing import join, load_class

    if spec.address is None:
        try:
            found = load_class(spec)
        except SpecError as error:
            yield Finding("class", False, f"{error.path}: {error.message}")
        else:
            yield Finding("class", True, f"{found.__module__}:{found.__qualname__} can be imported; it is not started")
        return
    try:
        cluster = join(spec)
    except (ClusterError, SpecError) as error:
        yield Finding("scheduler", False, str(error))
        return
    with cluster, cluster.get_client(set_as_default=False) as client:
        workers = client.scheduler_info(n_workers=-1)["workers"]
        yield Finding("scheduler", True, f"{cluster.scheduler_address} answers")
        slots = sum(worker["nthreads"] for worker in workers.values())
        yield Finding(
            "workers",
            bool(workers),
            f"{len(workers):,} with {slots:,} threads",
            "" if workers else "start workers, or tasks will wait",
        )
        yield from _versions(client)
        yield from _clocks(client)


def _versions(client: Any) -> Iterator[Finding]:
    try:
        there = client.run_on_scheduler(versions), client.run(versions)
    except Exception as error:
        why = f"the scheduler or a worker does not run this package ({type(error).__name__}: {error})"
        yield Finding("versions", False, why, "install the same version of daskml-scale everywhere")
    else:
        yield from compare_versions(versions(), *there)


def _clocks(client: Any) -> Iterator[Finding]:
    before = time.time()
    there = {"the scheduler": client.run_on_scheduler(time.time), **client.run(time.time)}
    after = time.time()
    skews = {place: max(before - at, at - after, 0.0) for place, at in there.items()}
    place = max(skews, key=lambda name: skews[name])
    if skews[place] > SKEW_SECONDS:
        yield Finding(
            "clocks",
            False,
            f"the clock of {place} is {skews[place]:.1f} s off",
            "set the clocks by NTP: ages and durations would mislead",
        )
    else:
        yield Finding("clocks", True, f"within {SKEW_SECONDS:g} s of each other")
