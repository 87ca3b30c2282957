"""Schedulers and workers on other machines, as seen by the cluster: each belongs to a `link` to its host.

They are the same processes as those of a local cluster (`child`); only who holds their pipes differs. Here too all
state changes happen on the event loop.
"""

from __future__ import annotations

import asyncio
import base64
import pickle
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

from distributed.core import Status

from daskml_scale.errors import ClusterError

from .child import Setup
from .hosts import Hosts, Slot
from .link import HostLink
from .ssh_connection import network_name
from .supervised import Supervised

TAIL = 2000
"""Characters of its output that are kept here, for a message about its end."""


class RemoteProcess(Supervised):
    """A process on another machine.

    Attributes
    ----------
    link : HostLink or None
        To its host, once it has one.
    pid : int or None
        Process id there.
    confirmed : bool
        Whether the host said that it runs.
    """

    link: HostLink | None = None
    pid: int | None = None
    confirmed = False

    def __init__(self, setup: Setup, name: str, environ: Mapping[str, str] | None = None) -> None:
        super().__init__(setup, name, environ)
        self._wishes: list[str] = []
        self._tail = ""

    def order(self, hello: Mapping[str, Any]) -> dict[str, Any]:
        """Return the message that starts it; the certificates in it go through an encrypted connection only."""
        directory = hello["directory"]
        options = dict(self.setup.options)
        if self.setup.role == "worker":
            options["local_directory"] = directory
        setup = replace(
            self.setup,
            driver=hello["pid"],
            directory=directory,
            options=options,
            config={**self.setup.config, "temporary-directory": directory},
        )
        text = base64.b64encode(pickle.dumps(setup)).decode()
        return {"op": "start", "name": self.name, "role": setup.role, "setup": text, "environ": self.environ}

    def wishes(self) -> list[str]:
        """Return what it was told to do and may not have heard."""
        return list(self._wishes)

    def heard(self, message: dict[str, Any]) -> None:
        """Take news of it from its host."""
        match message["op"]:
            case "started":
                self.confirmed, self.pid = True, message["pid"]
            case "output":
                self._tail = (self._tail + message["text"])[-TAIL:]
            case "answer" if not self._answered.is_set():
                self._on_answer(message["line"].encode())
                if self.address and self.link is not None:
                    self.link.judge(ready=True)
            case "ended" if self.code is None:
                self._over(message["code"])

    def last_words(self) -> str:
        """Return the end of what it wrote."""
        said = self._tail.strip().splitlines()
        return f"it wrote: {said[-1]}" if said else "it wrote nothing"

    def gone(self, why: str) -> None:
        """Take that it is no more, for a reason of its host."""
        if self.code is None:
            self.failure = why
            self._over(-1)

    def _over(self, code: int) -> None:
        was_ready = bool(self.address)
        self._on_end(code)
        if not was_ready and self.confirmed and self.link is not None and not self._wishes:
            self.link.judge(ready=False, why=self.failure)

    def _ask(self) -> bool:
        return self._wish("ask")

    def kill(self) -> None:
        """End the process and everything it started, now."""
        if self.begun and self.code is None and not self._wish("kill"):
            self.gone("it was given up before it had a host")

    def _wish(self, what: str) -> bool:
        if self.link is None:
            return False
        self._wishes.append(what)
        self.link.send({"op": what, "name": self.name})
        return True


class RemoteScheduler(RemoteProcess):
    """The scheduler.

    Parameters
    ----------
    setup : Setup
    link : HostLink
    on_lost : callable
        Called when it is gone without having been closed.
    """

    def __init__(self, setup: Setup, link: HostLink, on_lost: Callable[[], None]) -> None:
        super().__init__(setup, "scheduler")
        self.link, self.on_lost = link, on_lost

    async def start(self) -> None:
        """Start the scheduler and wait until it listens."""
        assert self.link is not None
        try:
            await self.link.connect()
        except ClusterError:
            self.status = Status.failed
            self.code = -1
            raise
        self.link.start(self)
        await super().start()
        await self.wait_ready()

    def _on_answer(self, line: bytes) -> None:
        super()._on_answer(line)
        assert self.link is not None
        found = urlsplit(self.address or "")
        if self.address and found.hostname != self.setup.options.get("host"):
            # It listens everywhere, and its own idea of its address may be right only there.
            self.address = f"{found.scheme}://{network_name(self.link.access)}:{found.port}"

    def on_end(self) -> None:
        """Report a scheduler that nobody closed."""
        if self.address:
            self.on_lost()


class RemoteWorker(RemoteProcess):
    """One worker.

    Parameters
    ----------
    scheduler : str
        Address; the cluster passes it.
    name : str
    worker_class : str
    hosts : Hosts
        Have a slot for it, or not.
    fitted : callable (Slot) -> (Setup, environ)
        What a worker in a slot is made of; address and name are filled in.
    on_ended : callable (RemoteWorker)
        Called when the process is gone.
    """

    def __init__(
        self,
        scheduler: str,
        *,
        name: str,
        worker_class: str,
        hosts: Hosts,
        fitted: Callable[[Slot], tuple[Setup, dict[str, str]]],
        on_ended: Callable[[RemoteWorker], None],
    ) -> None:
        super().__init__(Setup("worker", 0, "", {}), name)
        self.scheduler, self.worker_class, self.hosts = scheduler, worker_class, hosts
        self.fitted, self.on_ended = fitted, on_ended
        self.slot: Slot | None = None

    async def start(self) -> None:
        """Look for a slot in the background: a host that does not answer delays no other worker."""
        self._seeking = asyncio.ensure_future(self._seek())
        await super().start()

    async def _seek(self) -> None:
        try:
            slot = await self.hosts.take(self.worker_class, self.name)
        except ClusterError as error:
            self.gone(str(error))
            return
        if self.code is not None:  # given up meanwhile
            self.hosts.give(slot)
            return
        self.slot, self.link = slot, slot.link
        setup, self.environ = self.fitted(slot)
        options = {**setup.options, "scheduler_ip": self.scheduler, "name": self.name}
        self.setup = replace(setup, options=options)
        slot.link.start(self)

    def on_end(self) -> None:
        """Free the slot and tell the cluster."""
        if self.slot is not None:
            self.hosts.give(self.slot)
        self.on_ended(self)
