"""The ``kubernetes`` backend: scheduler and workers as Pods, which the scheduler's Job owns.

Pods are plain ones, made and deleted by this driver; there is no operator. Everything belongs to one Job whose
scheduler ends when its driver is gone (`lease`): then Kubernetes deletes the Job, and what it owns. All connections
are ``tls://`` with certificates of this cluster alone, which Pods get from a Secret. Inside the cluster the scheduler
is reached by its Pod's address, outside through the API server, see `kube_client`.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import pickle
import time
import uuid
from collections.abc import Sequence
from typing import Any

from daskml_scale import events
from daskml_scale.errors import ClusterError
from daskml_scale.scaling.limits import limits_of
from daskml_scale.spec.base import byte_count, seconds
from daskml_scale.spec.cluster import Certificates
from daskml_scale.spec.kubernetes import KubernetesSpec

from . import pods
from .certificates import new_authority
from .child import Setup, free_port
from .gate import own_names, rules_for, with_token
from .gpus import device_of
from .kube_client import Kube, inside, library
from .lease import HANDLER, KEY, hold
from .local import BACKLOG, HOST, listen, preloads, settings
from .machine import thread_environment
from .places import Place
from .pod_board import Board
from .pod_processes import PodWorker
from .pod_scheduler import PodScheduler
from .scaled import ScaledCluster
from .tunnel import Tunnel

logger = logging.getLogger(__name__)

LEASE = "daskml_scale.deploy.lease"
"""Preload of the scheduler, by module name."""
GONE_SECONDS = 30.0
"""Time for all Pods of a cluster that closes to be gone."""
FORCE_SECONDS = 10.0


class ScaledKubernetesCluster(ScaledCluster):
    """A cluster of Pods that follows its backlog.

    Use it as a context manager, ``with`` or ``async with``; ``get_client()`` connects to it.

    Parameters
    ----------
    spec : KubernetesSpec
    preload : sequence of str
        More modules that the scheduler loads (each with ``dask_setup``), by name.
    adapt : bool
        Follow the backlog; otherwise, or without a ``scaling`` section, every class has its maximum.
    sink : callable, optional
        Receives `events.Scaled` and `events.Warned`, on the event loop's thread.
    asynchronous : bool
        For use inside an event loop.

    Attributes
    ----------
    certificates : Certificates
        Files by which other programs of this user connect.

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
        spec: KubernetesSpec,
        *,
        preload: Sequence[str] = (),
        adapt: bool = True,
        sink: events.Sink = events.ignore,
        asynchronous: bool = False,
        loop: Any = None,
    ) -> None:
        library()
        self.listen = listen(spec)
        host = self.listen.rpartition(":")[0]
        # Who forwards a port of the Pod by himself needs no token; a runner inside the cluster leads it nowhere.
        self.gate = rules_for(HOST if pods.OWNER in os.environ else host, spec.dashboard.hosts)
        self.preload = (BACKLOG, LEASE, *preload)
        self.kube: Kube | None = None
        self.board: Board | None = None
        self._dashboard: Tunnel | None = None
        self._holding: asyncio.Task[None] | None = None
        name = f"{spec.name}-{uuid.uuid4().hex[:8]}"
        self.place = Place(name)
        self.authority = new_authority(name)
        most = {key: int(item.workers.max) for key, item in spec.classes.items()}
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
    def dashboard_link(self) -> str:
        """Where this machine reaches the scheduler's dashboard."""
        if self._dashboard is None:
            return ""
        name = own_names(self.listen.rpartition(":")[0])[0]
        return with_token(f"http://{name}:{self._dashboard.port}/status", self.gate.token)

    def report(self, message: str) -> None:
        """Tell the user what keeps Pods from running, or replaces them."""
        logger.warning("%s", message)
        self._tell(message)

    def _tell(self, message: str) -> None:
        self.sink(events.Warned(time=time.time(), stage="", message=message))

    # What the cluster is made of

    async def _prepare(self) -> None:
        assert isinstance(self.spec, KubernetesSpec)
        self.place.make()
        self.certificates = self.authority.write(self.place.certificates)
        self.kube = Kube(self.spec.kubernetes)
        await self.kube.open()
        self.board = Board(self.kube, self.name, self._unwatched)
        await self.board.start()
        owner = json.loads(os.environ[pods.OWNER]) if pods.OWNER in os.environ else None
        self._setups = {
            "scheduler": pickle.dumps(self._scheduler_setup()),
            **{f"worker-{name}": pickle.dumps(self._worker_setup(name)) for name in self.spec.classes},
        }
        connect = self.spec.kubernetes.connect
        self.scheduler_spec = {
            "cls": PodScheduler,
            "options": {
                "board": self.board,
                "job": pods.scheduler_job(self.name, self.spec, [owner] if owner else ()),
                "secret": lambda owner: pods.secret(self.name, owner, self._setups),
                "tunnel": connect == "tunnel" or (connect == "auto" and not inside()),
                "report": self.report,
                "on_lost": self.scheduler_lost,
            },
        }
        self.use_templates({name: self._template(name) for name in self.spec.classes})

    def _common(self) -> tuple[dict[str, Any], dict[str, Any]]:
        config = {key: value for key, value in settings("").items() if key != "temporary-directory"}
        return {"protocol": "tls", "security": self.authority.node_security()}, config

    def _scheduler_setup(self) -> Setup:
        assert isinstance(self.spec, KubernetesSpec)
        common, config = self._common()
        options = {**common, "dashboard": True, "preload": preloads(self.preload)}
        config[KEY.partition(".")[0]] = {KEY.partition(".")[2]: seconds(self.spec.kubernetes.lease)}
        needs = ("daskml_backlog", "daskml_retire", HANDLER)
        return Setup("scheduler", 0, "", options, config=config, needs=needs, gate=self.gate)

    def _worker_setup(self, name: str) -> Setup:
        item = self.spec.classes[name]
        common, config = self._common()
        options = {
            **common,
            "nthreads": item.threads,
            "memory_limit": byte_count(item.memory),
            "resources": dict(item.resources),
            "death_timeout": 60,
        }
        return Setup("worker", 0, "", options, config=config, device=device_of(item))

    def _template(self, name: str) -> dict[str, Any]:
        item = self.spec.classes[name]
        options = {
            "worker_class": name,
            "board": self.board,
            "body": self._body,
            "report": self.report,
            "patience": seconds(item.startup),
            "on_ended": self.worker_ended,
        }
        return {"cls": PodWorker, "options": options, "memory": byte_count(item.memory)}

    def _body(self, scheduler: str, name: str, worker_class: str) -> dict[str, Any]:
        assert isinstance(self.spec, KubernetesSpec)
        environ = thread_environment(self.spec.classes[worker_class].threads)
        return pods.worker_pod(self.name, name, worker_class, self.spec, scheduler, self.scheduler.owner, environ)

    # Life and death

    async def _start(self) -> None:
        await super()._start()
        if self._holding is None:
            args = self.security.get_connection_args("client")
            self._holding = asyncio.ensure_future(hold(self.scheduler.address, args))
            host, _, wanted = self.listen.rpartition(":")
            assert self.kube is not None
            if pods.OWNER not in os.environ:
                local = free_port(host, int(wanted))
                self._dashboard = await self.kube.forward(self.scheduler.pod, pods.DASHBOARD_PORT, local, host)

    def _unwatched(self, error: ClusterError) -> None:
        if self._settled:
            self.report(f"cluster {self.name} closes: {error}")
            self.scheduler_lost()

    def _update_worker_status(self, op: str, msg: Any) -> None:
        if op == "add":
            for address, info in msg["workers"].items():
                self._arrived(info["name"], address)
        super()._update_worker_status(op, msg)

    def _arrived(self, name: str, address: str) -> None:
        for process in self._created:  # Dask notes a worker among the others only when all of its time are started
            if process.name == name:
                process.arrived(address)

    def worker_ended(self, process: Any) -> None:
        """Replace a worker that is gone unless that was intended, and say why. On the event loop only."""
        wanted = self._settled and self.status.name == "running" and process.name in self.worker_spec
        if wanted and not process.dismissed:
            self._tell(f"worker {process.name} is gone and is replaced: {process.failure or process.code}")
        super().worker_ended(process)

    async def _close(self) -> None:
        # One request ends all: the Job's. Retiring worker after worker would take one for each.
        self.shutdown_scheduler = False
        if self.board is not None:
            self.board.closing = True
        self.worker_spec.clear()
        self.workers.clear()
        for process in self._created:
            process.dismiss()
        if self._holding is not None:
            self._holding.cancel()
        await super()._close()

    async def _release(self) -> None:
        if self.board is not None:
            if not await self.board.empty(GONE_SECONDS):
                self.board.force()  # a Node that is lost confirms nothing
            if not await self.board.empty(FORCE_SECONDS):
                logger.warning("Pods of cluster %s are still there: %s", self.name, ", ".join(sorted(self.board.pods)))
            await self.board.stop()
        tunnel = getattr(self.scheduler, "tunnel", None)
        for one in (self._dashboard, tunnel):
            if one is not None:
                await one.close()
        self._dashboard = None
        if self.kube is not None:
            await self.kube.close()
        self.place.close()
