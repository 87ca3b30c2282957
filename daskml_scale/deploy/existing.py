"""The ``existing`` backend: a scheduler that runs somewhere, or any Dask cluster class by its import path.

A scheduler at an address belongs to somebody else: it is used and left as it is. A class (dask-jobqueue's,
dask-gateway's, Coiled's, distributed's own) is started with the options of the definition, which are its
business alone, and closed at the end; with ``scaling`` it follows our backlog where it is a ``SpecCluster``.
"""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import Generator
from contextlib import suppress
from pathlib import Path
from typing import Any

from distributed import Security
from distributed.core import Status, rpc
from distributed.deploy.cluster import Cluster
from distributed.objects import SchedulerInfo

from daskml_scale import events
from daskml_scale.errors import ClusterError, SpecError, UsageError
from daskml_scale.spec.base import seconds
from daskml_scale.spec.cluster import Certificates, ExistingSpec

CONNECT_SECONDS = 10.0
LOOK_SECONDS = 0.5
"""Between two looks at the backlog."""
LEAVE_SECONDS = 15.0
"""For the running tasks of a worker that closes, of clusters that we start by their class; Dask's own are 30 s."""
REFRESH_SECONDS = 1.0
"""Between two looks at the workers of a scheduler that is not ours."""


class JoinedCluster(Cluster):  # type: ignore[misc]
    """A cluster of somebody else, known by the address of its scheduler.

    Use it as a context manager, ``with`` or ``async with``; leaving it closes our connections and nothing else.

    Parameters
    ----------
    name : str
        What messages call it.
    address : str
        Of the scheduler.
    certificates : Certificates, optional
        For an address at ``tls://``; Dask's configuration by default.
    asynchronous : bool
        For use inside an event loop.

    Raises
    ------
    ClusterError
        When no scheduler answers there.
    SpecError
        When it wants certificates and there are none.
    """

    _supports_scaling = False
    status: Any
    _looking: asyncio.Task[None] | None = None

    def __init__(
        self, name: str, address: str, certificates: Certificates | None = None, *, asynchronous: bool = False
    ) -> None:
        self.address, self.certificates, self.security = address, certificates, _security(address, certificates)
        super().__init__(asynchronous=asynchronous, quiet=True, name=name)
        if not self.called_from_running_loop:
            self._loop_runner.start()
            try:
                self.sync(self._start)
            except BaseException:
                self.close()
                self._loop_runner.stop()
                raise

    async def _start(self) -> None:
        """Ask the scheduler now and then. Dask's own subscription would end the one of whoever started it."""
        if self.status != Status.created:
            return
        self.scheduler_comm = rpc(self.address, connection_args=self.security.get_connection_args("client"))
        try:
            await asyncio.wait_for(self._look(), CONNECT_SECONDS)
        except (OSError, TimeoutError) as error:
            raise self._no_answer(error) from error
        self._looking = asyncio.ensure_future(self._look_again())
        self.status = Status.running

    async def _look(self) -> None:
        self.scheduler_info = SchedulerInfo(await self.scheduler_comm.identity())

    async def _look_again(self) -> None:
        while True:
            await asyncio.sleep(REFRESH_SECONDS)
            with suppress(OSError, TimeoutError):  # what was seen last stays
                await self._look()

    async def _close(self) -> None:
        if self._looking is not None:
            self._looking.cancel()
        await super()._close()

    def __await__(self) -> Generator[Any, Any, JoinedCluster]:
        yield from self._start().__await__()
        return self

    def __exit__(self, *exception: Any) -> None:
        super().__exit__(*exception)
        self._loop_runner.stop()

    def _no_answer(self, error: BaseException) -> ClusterError:
        return ClusterError(
            f"cluster {self.name}: no scheduler answers at {self.address} ({str(error) or type(error).__name__}); "
            "start it, or correct address"
        )

    def get_client(self, **options: Any) -> Any:
        """Return a new `distributed.Client` of the scheduler.

        Parameters
        ----------
        **options
            Of the client.
        """
        from distributed import Client

        usual = {"timeout": CONNECT_SECONDS, "security": self.security, "asynchronous": self.asynchronous}
        try:
            return Client(self.address, **{**usual, **options})
        except (OSError, TimeoutError) as error:
            raise self._no_answer(error) from error

    def scale(self, *_: Any, **__: Any) -> None:
        """Refuse: who started the cluster scales it."""
        raise UsageError(f"cluster {self.name} at {self.address} is scaled by who started it")

    adapt = scale


def _security(address: str, files: Certificates | None) -> Security:
    if files is not None:
        found = Security(
            tls_ca_file=files.ca, tls_client_cert=files.cert, tls_client_key=files.key, require_encryption=True
        )
        for key, file in (("ca", files.ca), ("cert", files.cert), ("key", files.key)):
            if file and not Path(file).is_file():
                raise SpecError(f"there is no file {file} in {Path.cwd()}; correct it", path=f"certificates.{key}")
        try:
            found.get_connection_args("client")
        except OSError as error:  # those of ssl are
            raise SpecError(f"these files are no certificates and key ({error})", path="certificates") from error
        return found
    usual = Security()
    if address.startswith(("tls://", "wss://")) and not usual.tls_ca_file:
        raise SpecError(
            f"{address} wants certificates; write certificates: {{ca: FILE, cert: FILE, key: FILE}}, or set them in "
            "Dask's configuration (distributed.comm.tls)",
            path="certificates",
        )
    return usual


def join(spec: ExistingSpec) -> JoinedCluster:
    """Return the cluster at the address of a definition."""
    return JoinedCluster(spec.name, str(spec.address), spec.certificates)


def start(spec: ExistingSpec, *, sink: events.Sink = events.ignore, adapt: bool = True) -> Any:
    """Start a cluster of the class that a definition names and return it.

    Parameters
    ----------
    sink : callable
        Receives `events.Scaled`, on the event loop's thread.
    adapt : bool
        Follow the backlog when the definition has ``scaling``; otherwise it has its most workers.

    Raises
    ------
    SpecError
        When the class cannot be imported, is none, or cannot be scaled as asked.
    ClusterError
        When it does not start; what it raised is named.
    """
    found = load_class(spec)
    try:
        cluster = found(**spec.options)
    except TypeError as error:
        raise SpecError(f"{spec.cluster} does not take these options: {error}", path="options") from error
    except Exception as error:
        first: BaseException = error
        while first.__cause__ is not None:  # "failed to start", because ...
            first = first.__cause__
        raise ClusterError(
            f"cluster {spec.name}: {spec.cluster} did not start: {type(first).__name__}: {first}"
        ) from error
    if not hasattr(cluster, "get_client"):
        raise SpecError(f"{spec.cluster} returned a {type(cluster).__name__}, which has no get_client", path="cluster")
    try:
        _leave_in_time(cluster)
        _size(cluster, spec, sink, adapt)
    except BaseException:
        cluster.close()
        raise
    return cluster


def load_class(spec: ExistingSpec) -> Any:
    """Return the class, or the function that makes a cluster, that a definition names.

    Raises
    ------
    SpecError
        When it cannot be imported, or is no Dask cluster.
    """
    module, _, name = str(spec.cluster).partition(":")
    try:
        found = getattr(importlib.import_module(module), name)
    except ImportError as error:
        raise SpecError(
            f"{module} cannot be imported ({error}); install it, or correct the path", path="cluster"
        ) from error
    except AttributeError:
        raise SpecError(f"{module} has no {name}; correct the path", path="cluster") from None
    made_by_function = callable(found) and not isinstance(found, type)  # such as distributed:SSHCluster
    if not made_by_function and not hasattr(found, "get_client"):
        raise SpecError(f"{spec.cluster} is no Dask cluster class: it has no get_client", path="cluster")
    return found


def _leave_in_time(cluster: Any) -> None:
    """Have workers that close end although a task runs: half a minute after ``kill -9`` of the driver none is left."""
    import os
    import threading

    from distributed import SpecCluster, WorkerPlugin
    from distributed.protocol.pickle import dumps

    if not isinstance(cluster, SpecCluster):
        return
    patience = LEAVE_SECONDS

    class LeaveInTime(WorkerPlugin):  # type: ignore[misc]
        """Defined here, it travels as a whole: workers need nothing of ours."""

        def teardown(self, worker: Any) -> None:
            if worker.nanny and worker.status.name == "closing":  # in a process of its own
                timer = threading.Timer(patience, os._exit, (1,))
                timer.daemon = True
                timer.start()

    register = cluster.scheduler_comm.register_worker_plugin
    cluster.sync(register, plugin=dumps(LeaveInTime()), name="daskml-leave", idempotent=True)


def _size(cluster: Any, spec: ExistingSpec, sink: events.Sink, adapt: bool) -> None:
    from distributed.deploy import SpecCluster

    assert spec.workers is not None
    most, scaling = spec.workers.max, spec.scaling if adapt else None
    if scaling is None:
        cluster.scale(most)
        return
    if not isinstance(cluster, SpecCluster):
        raise SpecError(
            f"{spec.cluster} is no SpecCluster, so its workers cannot be told apart; leave scaling out, "
            "or let it scale itself through its own options",
            path="scaling",
        )
    from .adaptive import BacklogAdaptive

    cluster.adapt(
        Adaptive=BacklogAdaptive,
        minimum=spec.workers.min,
        maximum=most,
        target_duration=seconds(scaling.horizon),  # Dask knows no 2min
        wait_count=max(1, round(seconds(scaling.keep_idle) / LOOK_SECONDS)),
        interval=f"{LOOK_SECONDS}s",
        startup=seconds(spec.startup),
        sink=sink,
    )
