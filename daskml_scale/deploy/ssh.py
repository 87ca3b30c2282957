"""The ``ssh`` backend: scheduler and workers on hosts that SSH reaches, in classes, with slots.

One connection per host leads to a `keeper`, which holds the processes there: see `link` for what happens when it
breaks. Everything between machines is encrypted: SSH for what the driver tells hosts, ``tls://`` with certificates of
this cluster alone for everything else. Dashboards listen on their own machine only; the scheduler's is led to a port
of this one. Nothing outlives the driver by more than the lease.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from daskml_scale import events
from daskml_scale.errors import SpecError, UsageError
from daskml_scale.scaling.limits import limits_of
from daskml_scale.spec.base import byte_count, seconds
from daskml_scale.spec.cluster import Certificates
from daskml_scale.spec.hosts import SshSpec

from .certificates import new_authority
from .child import Setup
from .gate import rules_for
from .gpus import device_of, needed
from .hosts import Hosts, Slot
from .local import BACKLOG, listen_here, preloads, settings
from .machine import thread_environment
from .places import Place
from .remote import RemoteScheduler, RemoteWorker
from .scaled import ScaledCluster
from .ssh_connection import addresses, library

logger = logging.getLogger(__name__)


class ScaledSSHCluster(ScaledCluster):
    """A cluster on hosts that SSH reaches, which follows its backlog.

    Use it as a context manager, ``with`` or ``async with``; ``get_client()`` connects to it.

    Parameters
    ----------
    spec : SshSpec
    preload : sequence of str
        More modules that the scheduler loads (each with ``dask_setup``), by name.
    adapt : bool
        Follow the backlog; otherwise, or without a ``scaling`` section, every class has its maximum.
    sink : callable, optional
        Receives `events.Scaled`, on the event loop's thread.
    asynchronous : bool
        For use inside an event loop.

    Attributes
    ----------
    certificates : Certificates
        Files by which other programs of this user connect.
    logs : Path
        Folder of what the workers write; it stays.

    Raises
    ------
    ClusterError
        If the scheduler, or no worker at all, starts. Nothing is left behind then.
    SpecError, UsageError
        If a file or library is missing; nothing was started.
    """

    certificates: Certificates | None = None

    def __init__(
        self,
        spec: SshSpec,
        *,
        preload: Sequence[str] = (),
        adapt: bool = True,
        sink: events.Sink = events.ignore,
        asynchronous: bool = False,
        loop: Any = None,
    ) -> None:
        library()
        self.listen = listen_here(spec)
        check_known_hosts(spec)
        self.preload = (BACKLOG, *preload)
        self.hosts: Hosts | None = None
        self._dashboard: str | None = None
        self._sharers: dict[str, int] = {}
        name = f"{spec.name}-{uuid.uuid4().hex[:8]}"
        self.place = Place(name)
        self.authority = new_authority(name)
        slots = {key: sum(host.slots for host in item.hosts) for key, item in spec.classes.items()}
        most = {
            key: slots[key] if item.workers.max == "auto" else item.workers.max for key, item in spec.classes.items()
        }
        super().__init__(
            spec,
            limits_of(spec, most, on_this_machine=False),
            adapt=adapt,
            sink=sink,
            name=name,
            security=self.authority.security(),
            asynchronous=asynchronous,
            loop=loop,
            silence_logs=logging.WARNING,
        )

    @property
    def logs(self) -> Path:
        """Folder of what the workers write."""
        return self.place.logs

    @property
    def dashboard_link(self) -> str:
        """Where this machine reaches the scheduler's dashboard; empty when its host forwards no ports."""
        return self._dashboard or ""

    async def _prepare(self) -> None:
        assert isinstance(self.spec, SshSpec)
        self.place.make()
        self.certificates = self.authority.write(self.place.certificates)
        self.hosts = Hosts(self.spec, self.name, seconds(self.spec.ssh.lease), self.place)
        self._addresses = await addresses(self.hosts.links)
        for item in self.spec.classes.values():
            for host in item.hosts:
                self._sharers[host.host] = self._sharers.get(host.host, 0) + host.slots
        self._common = {"protocol": "tls", "security": self.authority.node_security()}
        self._config = {key: value for key, value in settings("").items() if key != "temporary-directory"}
        host, port = self.spec.scheduler_place
        options = {
            **self._common,
            **self._own_address(host.host),
            "port": port,
            "dashboard": True,
            "dashboard_address": self.listen,
            "preload": preloads(self.preload),
        }
        needs = ("daskml_backlog", "daskml_retire")
        gate = rules_for(self.listen.rpartition(":")[0], self.spec.dashboard.hosts)
        setup = Setup("scheduler", 0, "", options, config=self._config, needs=needs, gate=gate)
        self.scheduler_spec = {
            "cls": RemoteScheduler,
            "options": {"setup": setup, "link": self.hosts.scheduler, "on_lost": self.scheduler_lost},
        }
        self.use_templates({name: self._template(name) for name in self.spec.classes})

    def _template(self, name: str) -> dict[str, Any]:
        memory = self.spec.classes[name].memory

        def fitted(slot: Slot) -> tuple[Setup, dict[str, str]]:
            return self._fitted(name, slot)

        options = {"worker_class": name, "hosts": self.hosts, "fitted": fitted, "on_ended": self.worker_ended}
        return {
            "cls": RemoteWorker, "options": options, "memory": 0 if memory == "auto" else byte_count(memory)
        }  # fmt: skip

    def _fitted(self, name: str, slot: Slot) -> tuple[Setup, dict[str, str]]:
        """Return what the worker of a class is made of that gets a slot."""
        item, host = self.spec.classes[name], slot.host
        threads, text = host.threads or item.threads, host.memory or item.memory
        memory = None if text == "auto" else byte_count(text)
        options = {
            **self._common,
            **self._own_address(host.host),
            "nthreads": threads,
            "memory_limit": memory,
            "resources": dict(item.resources),
            "dashboard_address": "127.0.0.1:0",  # it has no gate and no encryption
            "death_timeout": 30,
        }
        share = self._sharers[host.host] if memory is None else 0
        setup = Setup("worker", 0, "", options, self._config, memory, share, device=device_of(item))
        environ = thread_environment(threads)
        if count := needed(item.resources):
            own = range(slot.number * count, (slot.number + 1) * count)
            environ["CUDA_VISIBLE_DEVICES"] = ",".join(map(str, own))
        return setup, environ

    def _own_address(self, host: str) -> dict[str, str]:
        found = self._addresses.get(host)
        return {"host": found} if found else {}

    async def _start(self) -> None:
        await super()._start()
        if self._dashboard is None:
            self._dashboard = await self._lead_dashboard()

    async def _lead_dashboard(self) -> str:
        assert self.hosts is not None
        remote = self.scheduler_info.get("services", {}).get("dashboard")
        if remote is None:
            return ""
        wanted = int(self.listen.rpartition(":")[2])
        try:
            port = await self.hosts.scheduler.forward(wanted, remote)
        except Exception as error:
            logger.warning(
                "%s forwards no ports (%s): no dashboard here; it listens there on %s:%s",
                self.hosts.scheduler.access, error, "127.0.0.1", remote,
            )  # fmt: skip
            return ""
        return f"http://127.0.0.1:{port}/status"

    def scale(self, n: int = 0, memory: Any = None, cores: int | None = None, worker_class: str | None = None) -> Any:
        """Have ``n`` workers of a class; as in every cluster of ours. ``memory=`` needs a class that says its own."""
        chosen = worker_class or next(iter(self.spec.classes))
        if memory is not None and not self.templates.get(chosen, {}).get("memory"):
            raise UsageError(f"class {chosen} has memory: auto, which differs between hosts; scale by workers or cores")
        return super().scale(n, memory=memory, cores=cores, worker_class=worker_class)

    async def _release(self) -> None:
        if self.hosts is not None:
            await self.hosts.close()
        self.place.close()


def check_known_hosts(spec: SshSpec) -> None:
    """Refuse a definition whose file of host keys is missing.

    Raises
    ------
    SpecError
    """
    path = Path(spec.ssh.known_hosts).expanduser()
    if not path.is_file():
        raise SpecError(
            f"{path} does not exist; hosts are only trusted by their keys: connect to each once with ssh, compare the "
            "fingerprint it shows, and accept it",
            path="ssh.known_hosts",
        )
