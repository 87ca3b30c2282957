"""Cluster files of the backend ``ssh``: hosts with slots, how to reach them, where the scheduler runs."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from .base import ByteSize, Duration, Spec, Word
from .cluster import ClusterSpec, ExistingSpec, OwnSpec, WorkerClass
from .kubernetes import KubernetesSpec


def _check_host(text: Any) -> Any:
    if not isinstance(text, str) or not text or text.startswith("-") or any(c.isspace() or c in "@/" for c in text):
        raise ValueError(
            f"{text!r} is not a host; write its name or address, and its user and port as keys of their own"
        )
    return text


HostName = Annotated[str, BeforeValidator(_check_host)]
Port = Annotated[int, Field(gt=0, lt=65536)]
Text = Annotated[str, Field(min_length=1)]


class Host(Spec):
    """One machine of a class; what is not said here is as in ``ssh`` and in the class.

    Attributes
    ----------
    slots : int
        Workers of the class that it holds at most.
    threads : int
        Of each of its workers.
    memory : str
        Limit of each of its workers.
    """

    host: HostName
    slots: Annotated[int, Field(gt=0)] = 1
    threads: Annotated[int, Field(gt=0)] | None = None
    memory: ByteSize | None = None
    user: Text | None = None
    port: Port | None = None
    identity: Text | None = None
    python: Text | None = None


class SshOptions(Spec):
    """How hosts are reached. What is left out is as in ``~/.ssh/config``.

    Attributes
    ----------
    identity : str
        File of a private key; otherwise the agent's and the usual ones.
    known_hosts : str
        File of the keys that hosts must show. It cannot be left out: a host that is not in it is refused.
    python : str
        Interpreter on the hosts, with this package in it.
    lease : str
        How long workers go on without a connection to the driver; then they end.
    """

    user: Text | None = None
    port: Port | None = None
    identity: Text | None = None
    known_hosts: Text = "~/.ssh/known_hosts"
    python: Text = "python3"
    lease: Duration = "15s"


def _check_bind(text: Any) -> Any:
    scheme, _, rest = text.partition("://") if isinstance(text, str) else ("", "", "")
    host, found, port = rest.rpartition(":")
    if scheme != "tls" or host or not found or not (port.isascii() and port.isdigit()) or int(port[:9]) > 65535:
        raise ValueError(f"{text!r}: write tls://:PORT, 0 for any free port; what leaves a machine is encrypted")
    return text


class SshScheduler(Spec):
    """Where the scheduler runs, and its port (0: any free one)."""

    host: HostName
    bind: Annotated[str, BeforeValidator(_check_bind)] = "tls://:0"


class SshClass(WorkerClass):
    """A class whose workers run on hosts: as many as these have slots."""

    hosts: Annotated[list[Host], Field(min_length=1)]

    @model_validator(mode="after")
    def _fits(self) -> SshClass:
        slots = sum(host.slots for host in self.hosts)
        if self.workers.max != "auto" and self.workers.max > slots:
            raise PydanticCustomError(
                "hosts", "workers.max is {most} and its hosts have {slots} slots; lower it, or raise slots",
                {"most": self.workers.max, "slots": slots},
            )  # fmt: skip
        if self.workers.min > slots:
            raise PydanticCustomError(
                "hosts", "workers.min is {least} and its hosts have {slots} slots; lower it, or raise slots",
                {"least": self.workers.min, "slots": slots},
            )  # fmt: skip
        places = [(host.host, host.port) for host in self.hosts]
        twice = next((place for place in places if places.count(place) > 1), None)
        if twice:
            raise PydanticCustomError(
                "hosts", "host {host} is listed twice; add up its slots in one line", {"host": twice[0]}
            )
        return self


class SshSpec(OwnSpec):
    """A whole cluster file of the backend ``ssh``; without ``scheduler`` the first host has it."""

    backend: Literal["ssh"]
    ssh: SshOptions = Field(default_factory=SshOptions)
    scheduler: SshScheduler | None = None
    classes: Annotated[dict[Word, SshClass], Field(min_length=1)]

    def options_of(self, host: Host) -> dict[str, Any]:
        """Return how a host is reached: its own options over those of all."""
        keys = ("user", "port", "identity", "python")
        return {key: getattr(host, key) or getattr(self.ssh, key) for key in keys}

    @property
    def scheduler_place(self) -> tuple[Host, int]:
        """The host of the scheduler, as the classes know it when they do, and its port."""
        listed = [host for item in self.classes.values() for host in item.hosts]
        if self.scheduler is None:
            return listed[0], 0
        known = [host for host in listed if host.host == self.scheduler.host]
        return (known or [Host(host=self.scheduler.host)])[0], int(self.scheduler.bind.rpartition(":")[2])


Definition = ClusterSpec | SshSpec | KubernetesSpec | ExistingSpec
"""What a cluster file holds."""
