"""The ``existing`` backend: a scheduler that runs somewhere, or any Dask cluster class by its import path.

A scheduler at an address belongs to somebody else: it is used and left as it is. A class (dask-jobqueue's,
dask-gateway's, Coiled's, distributed's own) is started with the options of the definition, which are its
business alone, and closed at the end; with ``scaling`` it follows our backlog where it is a ``SpecCluster``.
"""

from __future__ import annotations

import importlib
from typing import Any

from daskml_scale import events
from daskml_scale.errors import ClusterError, SpecError, UsageError
from daskml_scale.spec.base import seconds
from daskml_scale.spec.cluster import Certificates, ExistingSpec

CONNECT_SECONDS = 10.0
LOOK_SECONDS = 0.5
"""Between two looks at the backlog."""


class JoinedCluster:
    """A cluster of somebody else, known by the address of its scheduler.

    Use it as a context manager; leaving it closes our connections and nothing else.

    Parameters
    ----------
    name : str
        What messages call it.
    address : str
        Of the scheduler.
    certificates : Certificates, optional
        For an address at ``tls://``; Dask's configuration by default.

    Raises
    ------
    ClusterError
        When no scheduler answers there.
    SpecError
        When it wants certificates and there are none.
    """

    asynchronous = False

    def __init__(self, name: str, address: str, certificates: Certificates | None = None) -> None:
        self.name, self.scheduler_address, self.certificates = name, address, certificates
        with self.get_client(set_as_default=False) as client:
            self.dashboard_link = str(client.dashboard_link or "")

    def get_client(self, **options: Any) -> Any:
        """Return a new `distributed.Client` of the scheduler.

        Parameters
        ----------
        **options
            Of the client.
        """
        from distributed import Client

        try:
            return Client(
                self.scheduler_address, **{"timeout": CONNECT_SECONDS, "security": self._security(), **options}
            )
        except (OSError, TimeoutError) as error:
            raise ClusterError(
                f"cluster {self.name}: no scheduler answers at {self.scheduler_address} ({error}); "
                "start it, or correct address"
            ) from error

    def _security(self) -> Any:
        if not self.scheduler_address.startswith(("tls://", "wss://")):
            return None
        from distributed import Security

        files = self.certificates
        if files is None:
            usual = Security()
            if not usual.tls_ca_file:
                raise SpecError(
                    f"{self.scheduler_address} wants certificates; write certificates: {{ca: FILE, cert: FILE, "
                    "key: FILE}, or set them in Dask's configuration (distributed.comm.tls)",
                    path="certificates",
                )
            return usual
        return Security(
            tls_ca_file=files.ca, tls_client_cert=files.cert, tls_client_key=files.key, require_encryption=True
        )

    def scale(self, *_: Any, **__: Any) -> None:
        """Refuse: who started the cluster scales it."""
        raise UsageError(f"cluster {self.name} at {self.scheduler_address} is scaled by who started it")

    adapt = scale

    def close(self) -> None:
        """Leave the cluster as it is."""

    def __enter__(self) -> JoinedCluster:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"JoinedCluster({self.name!r}, {self.scheduler_address!r})"


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
        target_duration=scaling.horizon,
        wait_count=max(1, round(seconds(scaling.keep_idle) / LOOK_SECONDS)),
        interval=f"{LOOK_SECONDS}s",
        startup=seconds(spec.startup),
        sink=sink,
    )
