"""Workers, and processes in Pods at all, as seen by the cluster: what news of a Pod means for the process in it.

They are the same processes as everywhere (`child`); only who starts and ends them differs: Kubernetes, asked by the
`pod_board`. `pod_scheduler` has what is special about the scheduler. All state changes happen on the event loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from distributed.core import Status

from . import pods
from .child import CLOSED, Setup
from .kube_client import Object
from .pod_board import Board
from .supervised import START_SECONDS, Supervised

Report = Callable[[str], None]
"""Takes a sentence for the user."""


class PodProcess(Supervised):
    """A process in a Pod.

    Parameters
    ----------
    board : Board
    name : str
        Of the process.
    pod_name : str
        Of the Pod, or of the Job that chooses it.
    report : callable
    patience : float
        Seconds that its Pod may go without a Node.
    """

    def __init__(self, board: Board, role: str, name: str, pod_name: str, report: Report, patience: float) -> None:
        super().__init__(Setup(role, 0, "", {}), name)
        self.board, self.pod_name, self.report, self.patience = board, pod_name, report, patience
        self.start_seconds = patience + START_SECONDS
        self._told = ""
        self._deleted = False
        self._ending = False
        self._deadline: asyncio.TimerHandle | None = None

    def heard(self, pod: Object) -> None:
        """Take the state of its Pod."""
        if self.code is not None or self._ending:
            return
        if (found := pods.ending(pod)) is not None:
            self._ending = True
            self.board.background(self._ended_by_itself(pod["metadata"]["name"], found))
        elif not self._deleted and (why := pods.lost_node(pod)):
            # Its kubelet will never confirm, and the Pod would be terminating for ever.
            self.board.delete(f"pods/{pod['metadata']['name']}", grace=0)
            self._deleted = True
            self._over(-1, why)
        elif (trouble := pods.trouble(pod)) is not None:
            self._trouble(trouble)
        else:
            self._told = ""
            self._wait_no_longer()
            self._runs(pod)

    def _runs(self, pod: Object) -> None:
        """Take that nothing keeps its Pod from running."""

    def _trouble(self, trouble: pods.Trouble) -> None:
        if trouble.text != self._told:
            self._told = trouble.text
            self.report(f"{self.pod_name} does not run: {trouble.text}")
        if trouble.final:
            self._give_up(trouble.text)
        elif self._deadline is None:
            loop = asyncio.get_running_loop()
            self._deadline = loop.call_later(self.patience, lambda: self._give_up(self._told))

    def _wait_no_longer(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _give_up(self, why: str) -> None:
        if self.code is None:
            self._remove()
            self._over(-1, why)

    async def _ended_by_itself(self, pod: str, found: pods.Ending) -> None:
        why = found.reason
        if found.code != CLOSED and not self._deleted and not self.board.closing:
            said = "" if why else await self.board.last_words(pod)
            why = why or f"exit code {found.code}" + (f"; it wrote: {said}" if said else "")
        self._remove()
        self._over(found.code, why)

    def vanished(self) -> None:
        """Take that its Pod is no more."""
        if self.code is None and not self._ending:
            self._over(CLOSED if self._deleted else -1, "" if self._deleted else "its Pod was deleted by somebody else")

    def refused(self, why: str) -> None:
        """Take that its Pod cannot be made."""
        if self.code is None:
            self._over(-1, why)

    def delayed(self, why: str) -> None:
        """Take that its Pod cannot be made now."""
        if why != self._told:
            self._told = why
            self.report(f"{self.pod_name} waits: {why}")

    def _over(self, code: int, why: str = "") -> None:
        self._wait_no_longer()
        self.board.leave(self)
        if code != CLOSED and why:
            self.failure = why
        self._on_end(code)

    def _remove(self) -> None:
        """Have its Pod deleted, once."""
        if not self._deleted:
            self._deleted = True
            self.board.delete(self._resource, grace=None)

    @property
    def _resource(self) -> str:
        return f"pods/{self.pod_name}"

    def _ask(self) -> bool:
        if not self._deleted:
            self._remove()
        return True

    def kill(self) -> None:
        """Have its Pod ended at once; nobody waits for it."""
        if self.begun and self.code is None:
            self._deleted = True
            self.board.delete(self._resource, grace=0)
            self._over(-9, "it was ended")

    def dismiss(self) -> None:
        """Take that the cluster ends, and the Pod with it."""
        self._wait_no_longer()
        self.board.leave(self)
        if self.code is None:
            self.code = CLOSED
            self.status = Status.closed
            self._answered.set()
            self._ended.set()


class PodWorker(PodProcess):
    """One worker.

    Parameters
    ----------
    scheduler : str
        Address that workers reach; the cluster passes it.
    name : str
    worker_class : str
    board : Board
    body : callable (scheduler, name, worker class) -> mapping
        Returns its Pod.
    on_ended : callable (PodWorker)
        Called when the process is gone.
    """

    def __init__(
        self,
        scheduler: str,
        *,
        name: str,
        worker_class: str,
        board: Board,
        body: Callable[[str, str, str], Object],
        report: Report,
        patience: float,
        on_ended: Callable[[Any], None],
    ) -> None:
        super().__init__(board, "worker", name, f"{board.cluster}-{name}", report, patience)
        self.scheduler, self.worker_class, self.body, self.on_ended = scheduler, worker_class, body, on_ended

    async def start(self) -> None:
        """Have its Pod made in the background: a quota that is used up delays nobody."""
        self.board.join(self)
        self.board.background(self.board.make(self, lambda: self.body(self.scheduler, self.name, self.worker_class)))
        await super().start()

    def delayed(self, why: str) -> None:
        """Take that its Pod cannot be made now; the start of a cluster does not wait for it."""
        super().delayed(why)
        self._answered.set()

    def arrived(self, address: str) -> None:
        """Take that the scheduler has it."""
        if self.code is None:
            self.address = address
            self._answered.set()

    async def close(self) -> None:
        """Ask for the end of its Pod; one that never ran has nothing to close."""
        if self.begun and self.code is None and not self.address:
            self.kill()
        await super().close()

    def on_end(self) -> None:
        """Tell the cluster."""
        self.on_ended(self)
