"""The scheduler of a cluster in Kubernetes: the Job that owns everything else, and how the driver reaches it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from distributed.core import Status

from daskml_scale.errors import ClusterError

from . import pods
from .kube_client import RIGHTS, Object, detail, pause
from .pod_board import Board, refusal
from .pod_processes import PodProcess, Report
from .tunnel import Tunnel

NO_POD_SECONDS = 30.0
"""Time that its Job has for making a Pod."""
NODE_SECONDS = 300.0
"""Time for a Node and an image."""


class PodScheduler(PodProcess):
    """The scheduler: a Job that owns everything else of the cluster.

    Parameters
    ----------
    board : Board
    job : mapping
    secret : callable (owner reference) -> mapping
    tunnel : bool
        Whether it is reached through the API server.
    on_lost : callable
        Called when it is gone without having been closed.
    """

    def __init__(
        self,
        board: Board,
        job: Object,
        secret: Callable[[Object], Object],
        tunnel: bool,
        report: Report,
        on_lost: Callable[[], None],
    ) -> None:
        super().__init__(board, "scheduler", "scheduler", job["metadata"]["name"], report, NODE_SECONDS)
        self.job, self.secret, self.through, self.on_lost = job, secret, tunnel, on_lost
        self.owner: Object = {}
        self._asked = False
        self.contact_address = ""
        self.pod = ""
        self.tunnel: Tunnel | None = None

    async def start(self) -> None:
        """Make the Job and the Secret, and wait until the scheduler listens."""
        self.board.join(self)
        await super().start()
        try:
            await self._start()
        except BaseException as error:
            self._asked = True
            if self.owner:
                self._remove()
            if self.code is None:
                self._over(-1, str(error))
            self.status = Status.failed
            raise

    async def _start(self) -> None:
        made = await self._create("jobs", "batch", self.job)
        self.owner = pods.owner_reference(made)
        await self._create("secrets", "", self.secret(self.owner))
        waiting = asyncio.get_running_loop().call_later(NO_POD_SECONDS, self._no_pod)
        try:
            await self.wait_ready()
        finally:
            waiting.cancel()
        if self.through:
            self.tunnel = await self.board.kube.forward(self.pod, pods.PORT)
            self.address = f"tls://127.0.0.1:{self.tunnel.port}"

    def _no_pod(self) -> None:
        if not self.board.pods:  # a quota, or its security: the Job's events say it, which a driver may not read
            self._give_up(
                f"its Job has no Pod after {NO_POD_SECONDS:g} s; kubectl describe job {self.pod_name} says why"
            )

    async def _create(self, resource: str, group: str, body: Object) -> Object:
        tries, began = 0, self.board.clock()
        while True:
            code, found = await self.board.kube.tried("POST", resource, body, group=group, fieldValidation="Strict")
            if code < 300:
                return dict(found)
            if refusal(code, detail(found)) != "away" or self.board.clock() - began > NODE_SECONDS:
                remedy = f"; {RIGHTS}" if code == 403 else ""
                raise ClusterError(f"{resource} {body['metadata']['name']}: {detail(found)}{remedy}")
            await asyncio.sleep(pause(tries))
            tries += 1

    def _runs(self, pod: Object) -> None:
        if pods.is_ready(pod) and not self.address:
            self.pod = pod["metadata"]["name"]
            host = pod["status"]["podIP"]
            self.contact_address = f"tls://[{host}]:{pods.PORT}" if ":" in host else f"tls://{host}:{pods.PORT}"
            self.address = self.contact_address
            self._answered.set()

    @property
    def _resource(self) -> str:
        return f"jobs/{self.pod_name}"

    def _remove(self) -> None:
        if not self._deleted:
            self._deleted = True
            self.board.delete(self._resource, "batch")

    def _ask(self) -> bool:
        self._asked = True
        return super()._ask()

    def kill(self) -> None:
        """Delete the Job; nobody waits for it."""
        if self.begun and self.code is None:
            self._asked = True
            self._remove()
            self._over(-9, "it was ended")

    def on_end(self) -> None:
        """Report a scheduler that nobody closed."""
        if self.address and not self._asked:
            self.on_lost()
