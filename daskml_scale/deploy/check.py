"""Prove a cluster definition before it is used: what would fail, and how to mend it.

Nothing is started and nothing is changed. A finding is one sentence of fact with a remedy where it is bad;
what cannot be found out because something before it failed is left out.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from daskml_scale.errors import ClusterError, SpecError
from daskml_scale.spec.cluster import ClusterSpec, Definition, ExistingSpec

SAME = ("dask", "distributed", "cloudpickle", "msgpack", "numpy", "zarr", "xarray", "scikit-learn", "daskml-scale")
"""Packages whose versions driver, scheduler and workers share."""
SKEW_SECONDS = 2.0
"""Difference between clocks from which on ages and durations of different machines mislead."""
ROOM = 2**30
"""Bytes that workers spill to, at the least."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at.

    Attributes
    ----------
    what : str
        A word or two.
    ok : bool
    said : str
        What was found.
    remedy : str
        What to do; empty when it is as it should be, or when ``said`` tells it.
    """

    what: str
    ok: bool
    said: str
    remedy: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        return asdict(self)


def check(spec: Definition) -> list[Finding]:
    """Return what was found about a definition, in the order in which a start would meet it."""
    return list(_existing(spec) if isinstance(spec, ExistingSpec) else _local(spec))


# This machine


def _local(spec: ClusterSpec) -> Iterator[Finding]:
    from .child import free_port
    from .local import listen_here
    from .machine import cores, memory, size_classes

    have, room = cores(), memory()
    try:
        sizes = size_classes(spec.classes, have, room)
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
    try:
        host, _, port = listen_here(spec).rpartition(":")
    except SpecError as error:
        yield Finding("dashboard", False, f"{error.path}: {error.message}")
    else:
        found = free_port(host, int(port))
        said = f"{host}:{found or 'any'} is free"
        yield Finding("dashboard", True, said if str(found) == port else f"{host}:{port} is taken; {said}")
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
    with cluster.get_client(set_as_default=False) as client:
        workers = client.scheduler_info(n_workers=-1)["workers"]
        yield Finding("scheduler", True, f"{cluster.scheduler_address} answers")
        slots = sum(worker["nthreads"] for worker in workers.values())
        yield Finding(
            "workers",
            bool(workers),
            f"{len(workers):,} with {slots:,} threads",
            "" if workers else "start workers, or tasks will wait",
        )
        yield from compare_versions(_versions(), client.run_on_scheduler(_versions), client.run(_versions))
        yield from _clocks(client)


def _versions() -> dict[str, str]:
    """Return what runs in this process: Python and the packages that must be the same everywhere."""
    found = {"python": ".".join(map(str, sys.version_info[:3]))}
    for name in SAME:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "none"
    return found


def compare_versions(
    here: Mapping[str, str], scheduler: Mapping[str, str], workers: Mapping[str, Mapping[str, str]]
) -> Iterator[Finding]:
    """Yield one finding per package that differs, or one that all are the same. Pure.

    Parameters
    ----------
    here, scheduler : mapping of package to version
        ``python`` may differ in its last number.
    workers : mapping of address to such a mapping
    """
    same = True
    for name in here:
        places = {"here": here, "the scheduler": scheduler, **workers}
        found = {place: _comparable(name, versions.get(name, "none")) for place, versions in places.items()}
        if len(set(found.values())) > 1:
            same = False
            others = {place: text for place, text in found.items() if text != found["here"]}
            place, text = next(iter(others.items()))
            more = f" and {len(others) - 1:,} more" if len(others) > 1 else ""
            yield Finding(
                name,
                False,
                f"{found['here']} here, {text} at {place}{more}",
                f"install the same {name} everywhere",
            )
    if same:
        yield Finding("versions", True, f"Python {here['python']} and {len(here) - 1} packages are the same everywhere")


def _comparable(name: str, text: str) -> str:
    return text.rpartition(".")[0] if name == "python" and text != "none" else text


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
