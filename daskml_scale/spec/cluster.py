"""Cluster definitions as models: worker classes, limits, scaling, dashboard."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from .base import ByteSize, Duration, Spec, Version, Word, byte_count

BACKENDS = ("existing", "kubernetes", "local", "ssh")
Count = Annotated[int, Field(ge=0)]
Price = Annotated[float, Field(ge=0)]


class Workers(Spec):
    """Fewest and most workers of a class; ``auto`` is every core."""

    min: Count = 0
    max: Annotated[int, Field(gt=0)] | Literal["auto"] = "auto"

    @model_validator(mode="after")
    def _ordered(self) -> Workers:
        if self.max != "auto" and self.min > self.max:
            raise PydanticCustomError(
                "workers", "min {low} is larger than max {high}", {"low": self.min, "high": self.max}
            )
        return self


def _check_part(value: Any) -> Any:
    if isinstance(value, str):
        if byte_count(value) <= 0:
            raise ValueError(f"{value!r}: a size must be larger than zero")
    elif type(value) is not float or not 0 < value <= 1:
        raise ValueError(f"{value!r} is no part of a device; write a share such as 0.8, or a size such as 40GiB")
    return value


Part = Annotated[str | float, BeforeValidator(_check_part)]
"""Of a device's memory."""


class Device(Spec):
    """How workers with one GPU use its memory, through dask-cuda.

    Attributes
    ----------
    memory : str or float
        Above it, data of tasks moves to the host's memory.
    pool : str or float, optional
        Memory that RMM takes at the start, from which arrays then come.
    """

    memory: Part = 0.8
    pool: Part | None = None


class WorkerClass(Spec):
    """One class of equal workers.

    Attributes
    ----------
    threads : int
        Tasks that a worker runs at a time (its slots).
    memory : str
        Limit per worker; ``auto`` shares the machine's (or cgroup's) memory.
    resources : mapping
        Dask resources per worker, such as ``{GPU: 1}``.
    device : Device, optional
        Of workers with one GPU: needs dask-cuda, which is otherwise used with its defaults where it is installed.
    price_per_hour : float
        Per worker, any currency.
    startup : str
        First guess of the time from request to ready; measured afterwards.
    """

    workers: Workers = Field(default_factory=Workers)
    threads: Annotated[int, Field(gt=0)] = 1
    memory: ByteSize | Literal["auto"] = "auto"
    resources: dict[Word, Annotated[float, Field(gt=0)]] = Field(default_factory=dict)
    device: Device | None = None
    price_per_hour: Price = 0.0
    startup: Duration = "2s"

    @model_validator(mode="after")
    def _has_a_device(self) -> WorkerClass:
        if self.device is not None and self.resources.get("GPU") != 1:
            raise PydanticCustomError("device", "device is for workers with one GPU; write resources: {GPU: 1}")
        return self


class Budget(Spec):
    """Spending caps, in the currency of the prices."""

    per_hour: Annotated[float, Field(gt=0)] | None = None
    total: Annotated[float, Field(gt=0)] | None = None


class Scaling(Spec):
    """How the number of workers follows the backlog."""

    policy: Literal["backlog"] = "backlog"
    horizon: Duration = "30s"
    """Aim to finish the backlog within this time."""
    keep_idle: Duration = "20s"
    """Idle time before a worker may be retired; the largest need of 1.5 times this long is kept."""
    per_minute: Annotated[int, Field(gt=0)] | None = None
    """Most workers of a class that are asked for in any minute."""
    budget: Budget = Field(default_factory=Budget)


def _check_listen(text: Any) -> Any:
    host, _, port = text.rpartition(":") if isinstance(text, str) else ("", "", "")
    if not host or any(char.isspace() or char == ":" for char in host) or not (port.isascii() and port.isdigit()):
        raise ValueError(f"{text!r} is not an address; write host:port, such as 127.0.0.1:8787")
    if int(port[:9]) > 65535:
        raise ValueError(f"{text!r}: a port is a number from 0 (any free one) to 65535")
    return text


def _check_host(text: Any) -> Any:
    bad = not isinstance(text, str) or not text or any(char.isspace() or char in "/@?#*" for char in text)
    if bad or (":" in text and not text.startswith("[")):
        raise ValueError(f"{text!r} is no name of a host; write it without scheme and port, such as hub.example.org")
    return text.lower()


class Dashboard(Spec):
    """Where the Dask dashboard listens; a taken port means the next free one.

    Beyond this machine it asks for a token, which the printed link carries.

    Attributes
    ----------
    listen : str
        ``host:port``; ``0.0.0.0:8787`` is every address of this machine.
    hosts : list of str
        More names under which people reach it: of a JupyterHub, or of a proxy in front of it.
    """

    listen: Annotated[str, BeforeValidator(_check_listen)] = "127.0.0.1:8787"
    hosts: list[Annotated[str, BeforeValidator(_check_host)]] = Field(default_factory=list)


Runs = Annotated[int, Field(gt=0)]
"""How many submitted runs may use a cluster at a time; the others wait their turn."""


def _check_backend(text: Any) -> Any:
    if text not in BACKENDS:
        raise ValueError(f"unknown backend {text!r}; known: {', '.join(BACKENDS)}")
    return text


class OwnSpec(Spec):
    """What the files of all backends have whose workers are ours to start.

    Attributes
    ----------
    runs : int
        Submitted runs at a time, each with workers of its own; 1 by default. The others wait their turn.
    """

    version: Version
    name: Word
    backend: str
    classes: Mapping[str, WorkerClass]
    scaling: Scaling | None = None
    runs: Runs | None = None
    dashboard: Dashboard = Field(default_factory=Dashboard)


class ClusterSpec(OwnSpec):
    """A whole cluster file of the backend ``local``."""

    backend: Annotated[Literal["local"], BeforeValidator(_check_backend)]
    classes: Annotated[dict[Word, WorkerClass], Field(min_length=1)]


class Certificates(Spec):
    """Files in PEM format for a scheduler at ``tls://``; never the key itself."""

    ca: Annotated[str, Field(min_length=1)]
    cert: Annotated[str, Field(min_length=1)]
    key: Annotated[str, Field(min_length=1)]


def _check_address(text: Any) -> Any:
    scheme, found, rest = text.partition("://") if isinstance(text, str) else ("", "", "")
    if not found or scheme not in ("tcp", "tls", "ws", "wss") or not rest.strip("/") or any(map(str.isspace, text)):
        raise ValueError(f"{text!r} is not the address of a scheduler; write tcp://host:8786 or tls://host:8786")
    return text


def _check_class(text: Any) -> Any:
    module, found, name = text.partition(":") if isinstance(text, str) else ("", "", "")
    if not (found and name.isidentifier() and all(part.isidentifier() for part in module.split("."))):
        raise ValueError(f"{text!r} is not a class; write module:Name, such as dask_jobqueue:SLURMCluster")
    return text


class ExistingSpec(Spec):
    """A cluster file of a cluster that something else makes.

    Attributes
    ----------
    address : str, optional
        Of a scheduler that runs. It is used and never closed.
    cluster : str, optional
        A Dask cluster class, ``module:Name``. It is started with ``options`` and closed at the end.
    workers : Workers
        Of a ``cluster``: how many; with ``scaling`` between which limits.
    startup : str
        First guess of the time from request to ready; measured afterwards.
    runs : int
        Submitted runs that use it at a time; 1 by default. The others wait their turn.
    """

    version: Version
    name: Word
    backend: Literal["existing"]
    address: Annotated[str, BeforeValidator(_check_address)] | None = None
    certificates: Certificates | None = None
    cluster: Annotated[str, BeforeValidator(_check_class)] | None = None
    options: dict[str, Any] = Field(default_factory=dict)
    workers: Workers | None = None
    startup: Duration = "10s"
    scaling: Scaling | None = None
    runs: Runs | None = None

    @model_validator(mode="after")
    def _one_of_both(self) -> ExistingSpec:
        if (self.address is None) == (self.cluster is None):
            raise PydanticCustomError(
                "existing", "give either address: (of a scheduler that runs) or cluster: (a class to start)"
            )
        own = {"options": self.options, "workers": self.workers, "scaling": self.scaling}
        foreign = [name for name, value in own.items() if value and self.address]
        if foreign:
            raise PydanticCustomError(
                "existing",
                "{keys} is for cluster: (a class to start); who started the scheduler at {address} decides there",
                {"keys": foreign[0], "address": self.address},
            )
        budget = self.scaling.budget if self.scaling else Budget()
        if budget.per_hour is not None or budget.total is not None:
            raise PydanticCustomError("existing", "scaling.budget needs prices, which only our own backends know")
        if self.certificates and self.address and not self.address.startswith(("tls://", "wss://")):
            raise PydanticCustomError(
                "existing", "certificates are for tls://, and {address} is not encrypted", {"address": self.address}
            )
        if self.certificates and self.cluster:
            raise PydanticCustomError("existing", "certificates is for address:; give cluster its own in options")
        if self.cluster and (self.workers is None or self.workers.max == "auto"):
            raise PydanticCustomError(
                "existing",
                "{cluster} has no most workers; write workers: {min: 0, max: 8}",
                {"cluster": self.cluster},
            )
        return self
