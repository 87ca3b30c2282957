"""The ``local`` backend: scheduler and workers as processes of this machine, on 127.0.0.1 only.

Only the dashboard may listen beyond it, behind the `gate`.

The scheduler has a process of its own: the driver's Python cannot slow it down, and a lost driver or
scheduler is a case that this project survives. Workers are plain processes rather than nannies in the
driver: see `child` for why. Everything that the cluster writes is in one temporary directory, removed
with it; when the driver is killed, the processes end themselves and remove it.

The settings of our clusters (``SETTINGS``) apply to these processes only, never to the driver's Dask.
"""

from __future__ import annotations

import logging
import os
import pickle
import shutil
import tempfile
import uuid
from collections.abc import Sequence
from typing import Any

import dask.config
from distributed.utils import format_dashboard_link

from daskml_scale import events
from daskml_scale.errors import ClusterError, SpecError
from daskml_scale.scaling.limits import limits_of
from daskml_scale.spec.cluster import ClusterSpec, OwnSpec

from .child import Setup
from .gate import is_loopback, own_names, rules_for, with_token
from .gpus import Devices, check_dask_cuda, check_devices, device_of, needed, visible
from .machine import Size, cores, memory, size_classes, thread_environment
from .processes import SchedulerProcess, WorkerProcess
from .scaled import ScaledCluster

HOST = "127.0.0.1"
BACKLOG = "daskml_scale.engine.backlog"
"""Preload of the scheduler, by module name."""
SETTINGS = {
    "distributed": {
        # A task whose worker died may be the reason: the dispatcher decides, not a retry.
        # A second task waits at each slot (the default of worker-saturation): no round trip between two tasks.
        "scheduler": {"allowed-failures": 0},
        # A gather from a worker that just died blocks for this long.
        "comm": {"timeouts": {"connect": "5s"}},
    }
}
SPARING = {
    "distributed": {
        # Dask's 10 and 20 ms wake an idle worker 150 times a second: 2 % of its core.
        "worker": {"profile": {"interval": "50ms"}},
        "admin": {"tick": {"interval": "100ms"}},
    }
}
"""Settings of our clusters where the user has set nothing else."""


class ScaledLocalCluster(ScaledCluster):
    """A cluster of processes on this machine that follows its backlog.

    Use it as a context manager, ``with`` or ``async with``; ``get_client()`` connects to it.

    Parameters
    ----------
    spec : ClusterSpec
        With ``backend: local``.
    preload : sequence of str
        More modules that the scheduler loads (each with ``dask_setup``), by name.
    adapt : bool
        Follow the backlog; otherwise, or without a ``scaling`` section, every class has its maximum.
    sink : callable, optional
        Receives `events.Scaled`, on the event loop's thread.
    asynchronous : bool
        For use inside an event loop.

    Raises
    ------
    ClusterError
        If a process does not start. Nothing is left behind then.
    SpecError
        If the machine does not hold what the classes ask for.
    """

    def __init__(
        self,
        spec: ClusterSpec,
        *,
        preload: Sequence[str] = (),
        adapt: bool = True,
        sink: events.Sink = events.ignore,
        asynchronous: bool = False,
        loop: Any = None,
    ) -> None:
        wanted = any(needed(item.resources) for item in spec.classes.values())
        self.devices = Devices(visible() if wanted else ())
        check_devices(spec.classes, list(self.devices.users))
        check_dask_cuda(spec.classes)
        self.sizes = size_classes(spec.classes, cores(), memory(), len(self.devices.users))
        self.preload = (BACKLOG, *preload)
        self.directory = ""
        self.gate = rules_for(listen(spec).rpartition(":")[0], spec.dashboard.hosts)
        limits = limits_of(spec, {name: size.maximum for name, size in self.sizes.items()}, on_this_machine=True)
        super().__init__(
            spec,
            limits,
            adapt=adapt,
            sink=sink,
            # Unique: distributed takes clusters of one name for the same cluster.
            name=f"{spec.name}-{uuid.uuid4().hex[:8]}",
            asynchronous=asynchronous,
            loop=loop,
            silence_logs=logging.WARNING,
        )

    @property
    def dashboard_link(self) -> str:
        """Link for people, with the token that a dashboard beyond this machine asks for."""
        port = self.scheduler_info.get("services", {}).get("dashboard")
        if port is None:
            return ""
        host = listen(self.spec).rpartition(":")[0]
        return with_token(format_dashboard_link(own_names(host)[0], port), self.gate.token)

    async def _prepare(self) -> None:
        self.directory = _make_directory()
        self._plan_processes()

    async def _release(self) -> None:
        if self.directory:
            shutil.rmtree(self.directory, ignore_errors=True)

    def _plan_processes(self) -> None:
        config = settings(self.directory)
        preload = preloads(self.preload)
        common = {"host": HOST, "protocol": "tcp"}
        setup = Setup(
            role="scheduler",
            driver=os.getpid(),
            directory=self.directory,
            options={
                **common,
                "port": 0,
                "dashboard": True,
                "dashboard_address": listen(self.spec),
                "preload": preload,
            },
            config=config,
            needs=("daskml_backlog", "daskml_retire"),
            gate=self.gate,
        )
        self.scheduler_spec = {
            "cls": SchedulerProcess,
            "options": {"setup": setup, "on_lost": self.scheduler_lost},
        }
        self.use_templates({name: self._template(name, size, common, config) for name, size in self.sizes.items()})

    def _template(self, name: str, size: Size, common: dict[str, str], config: dict[str, Any]) -> dict[str, Any]:
        item = self.spec.classes[name]
        setup = Setup(
            role="worker",
            driver=os.getpid(),
            directory=self.directory,
            options={
                **common,
                "nthreads": item.threads,
                "memory_limit": size.memory,
                "resources": dict(item.resources),
                "local_directory": self.directory,
                "death_timeout": 30,
            },
            config=config,
            memory=size.memory,
            device=device_of(item),
        )
        options = {
            "setup": setup,
            "worker_class": name,
            "environ": thread_environment(item.threads),
            "devices": self.devices,
            "on_ended": self.worker_ended,
        }
        return {"cls": WorkerProcess, "options": options, "memory": size.memory}


def listen(spec: OwnSpec) -> str:
    """Return the address of the dashboard, with the host as a number where it is this machine alone."""
    host, _, port = spec.dashboard.listen.rpartition(":")
    return f"{HOST if host == 'localhost' else host}:{port}"


def listen_here(spec: OwnSpec) -> str:
    """Return the address of the dashboard where only this machine may reach it.

    Raises
    ------
    SpecError
        If it is not the loopback address.
    """
    found = listen(spec)
    if not is_loopback(found.rpartition(":")[0]):
        raise SpecError(
            f"{spec.dashboard.listen}: the dashboard of this cluster is reached through a tunnel to it; "
            f"write '{HOST}:{found.rpartition(':')[2]}'",
            path="dashboard.listen",
        )
    return found


def _make_directory() -> str:
    parent = dask.config.get("temporary-directory", default=None) or tempfile.gettempdir()
    try:
        return tempfile.mkdtemp(prefix="daskml-cluster-", dir=parent)
    except OSError as error:
        raise ClusterError(
            f"the workers need a directory for their files and {parent} takes none ({error.strerror}); "
            "set Dask's 'temporary-directory' to one that can be written"
        ) from error


def settings(directory: str) -> dict[str, Any]:
    """Return the Dask configuration of the processes of a cluster: the driver's, and ours over it."""
    config = {**_portable(dask.config.config), "temporary-directory": directory}
    found = dask.config.merge(config, SETTINGS)
    return dict(dask.config.update(found, SPARING, "new-defaults", dask.config.merge(*dask.config.defaults)))


def preloads(ours: Sequence[str]) -> list[str]:
    """Return what the scheduler loads: our modules, then those of the driver's configuration."""
    listed = dask.config.get("distributed.scheduler.preload", default=[])
    return [*ours, *([listed] if isinstance(listed, str) else listed)]


def _portable(config: dict[str, Any]) -> dict[str, Any]:
    """Return the part of the driver's Dask configuration that other processes can have."""
    kept = {}
    for key, value in config.items():
        if key in ("scheduler", "shuffle", "pool"):
            continue  # about this process: set by a client, or a pool of threads
        try:
            pickle.dumps(value)
        except Exception:
            logging.getLogger(__name__).debug("configuration %s stays in this process", key)
        else:
            kept[key] = value
    return kept
