"""All Pods of one cluster, as its driver knows them: one watch, a queue of Pods to make, and what is given up.

The board makes every request about Pods; `pod_processes` decide what a Pod's news means. Making one is tried again
while a quota is used up or the server is away, and given up when the server says that it will never be.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Coroutine
from typing import Any, Protocol

from daskml_scale.errors import ClusterError

from .kube_client import RESTART_SECONDS, RIGHTS, Kube, Object, Unreachable, detail, pause
from .pods import CLUSTER_LABEL

logger = logging.getLogger(__name__)

AT_A_TIME = 20
"""Requests that make or delete Pods."""
TAIL_LINES = 20
LAST_WORDS = 10.0
"""Seconds to ask for the log of a Pod that failed."""


class Member(Protocol):
    """Whoever stands for a Pod; all on the event loop."""

    pod_name: str

    def heard(self, pod: Object) -> None:
        """Take the state of its Pod."""

    def vanished(self) -> None:
        """Take that its Pod is no more."""

    def refused(self, why: str) -> None:
        """Take that its Pod cannot be made."""

    def delayed(self, why: str) -> None:
        """Take that its Pod cannot be made now."""


def refusal(code: int, message: str) -> str:
    """Return what a refused request is: ``full``, ``forbidden``, ``away``, ``taken`` or ``wrong``. Pure."""
    if code == 409:
        return "taken"
    if code == 403 and "exceeded quota" in message:
        return "full"
    if code == 403 and "violates PodSecurity" not in message:
        return "forbidden"
    return "away" if code == 429 or code >= 500 else "wrong"


class Board:
    """The Pods of a cluster.

    Parameters
    ----------
    kube : Kube
    cluster : str
        Name of the cluster, the label of its Pods.
    on_failure : callable
        Called with an error when the Pods cannot be watched any more.

    Attributes
    ----------
    closing : bool
        Whether the cluster ends: its Job is deleted, and its Pods with it.
    """

    def __init__(self, kube: Kube, cluster: str, on_failure: Callable[[ClusterError], None]) -> None:
        self.kube, self.cluster, self.on_failure = kube, cluster, on_failure
        self.closing = False
        self.pods: dict[str, Object] = {}
        self._members: dict[str, Member] = {}
        self._gate = asyncio.Semaphore(AT_A_TIME)
        self._deletions: set[asyncio.Task[Any]] = set()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._empty = asyncio.Event()
        self._synced = asyncio.Event()
        self._stopped: ClusterError | None = None
        self.clock = asyncio.get_running_loop().time

    async def start(self) -> None:
        """Watch, from before the first Pod is made.

        Raises
        ------
        ClusterError
            If that is not allowed.
        """
        self.background(self._watch())
        await self._synced.wait()
        if self._stopped is not None:
            raise self._stopped

    async def stop(self) -> None:
        """End everything that goes on."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def background(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Do something until it is done or the board stops."""
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._over)
        return task

    def _over(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.warning("cluster %s: %s", self.cluster, error, exc_info=error)

    # News

    async def _watch(self) -> None:
        try:
            async for sort, found in self.kube.watch(f"{CLUSTER_LABEL}={self.cluster}"):
                if sort == "SYNC":
                    here = {pod["metadata"]["name"] for pod in found}
                    for name in [name for name in self.pods if name not in here]:
                        self._gone(name)
                    for pod in found:
                        self._seen(pod)
                    self._synced.set()
                elif sort == "DELETED":
                    self._gone(found["metadata"]["name"])
                else:
                    self._seen(found)
        except ClusterError as error:
            self._stopped = error
            self._synced.set()
            self.on_failure(error)

    def _seen(self, pod: Object) -> None:
        name = pod["metadata"]["name"]
        self.pods[name] = pod
        self._empty.clear()
        if (member := self._find(pod)) is not None:
            member.heard(pod)

    def _find(self, pod: Object) -> Member | None:
        """Return who stands for a Pod; a scheduler's has a name that its Job chose."""
        metadata = pod["metadata"]
        return self._members.get(metadata["name"]) or self._members.get(metadata["labels"].get("job-name", ""))

    def _gone(self, name: str) -> None:
        pod = self.pods.pop(name, None)
        if pod is not None and (member := self._find(pod)) is not None:
            member.vanished()
        if not self.pods:
            self._empty.set()

    def join(self, member: Member) -> None:
        """Have a member told of its Pod."""
        self._members[member.pod_name] = member

    def leave(self, member: Member) -> None:
        """Have a member told no more."""
        self._members.pop(member.pod_name, None)

    async def empty(self, patience: float) -> bool:
        """Wait until deletions are heard and no Pod is left; return whether that is so."""
        if self._deletions:
            await asyncio.wait(self._deletions, timeout=patience)
        if self.pods and self._stopped is None:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._empty.wait(), patience)
        return not self.pods

    # Making and deleting

    async def make(self, member: Member, body: Callable[[], Object]) -> None:
        """Make a Pod for a member; try again until it is there, refused for good, or not wanted any more."""
        tries, forbidden_since = 0, None
        while self._members.get(member.pod_name) is member and not self.closing:
            async with self._gate:
                code, found = await self.kube.tried("POST", "pods", body(), fieldValidation="Strict")
            if code < 300:
                return
            message = detail(found)
            sort = refusal(code, message)
            if sort == "taken":
                return  # an earlier request was heard, its answer was not
            if sort == "forbidden":
                forbidden_since = self.clock() if forbidden_since is None else forbidden_since
            late = forbidden_since is not None and self.clock() - forbidden_since > RESTART_SECONDS
            if sort == "wrong" or (sort == "forbidden" and late):
                member.refused(f"{message}; {RIGHTS}" if sort == "forbidden" else message)
                return
            member.delayed(message)
            await asyncio.sleep(pause(tries))
            tries += 1

    def delete(self, resource: str, group: str = "", grace: int | None = None) -> None:
        """Delete something in the background, again and again while the server is away."""
        if group or not self.closing:
            task = self.background(self._end(resource, group, grace))
            self._deletions.add(task)
            task.add_done_callback(self._deletions.discard)

    def force(self) -> None:
        """Have all Pods that are left deleted without waiting for who runs them."""
        self.closing = False
        for name in list(self.pods):
            self.delete(f"pods/{name}", grace=0)
        self.closing = True

    async def _end(self, resource: str, group: str = "", grace: int | None = None) -> None:
        body: Object = {"propagationPolicy": "Background"}
        if grace is not None:
            body["gracePeriodSeconds"] = grace
        began, tries = self.clock(), 0
        while True:
            async with self._gate:
                code, found = await self.kube.tried("DELETE", resource, body, group=group)
            if code < 300 or code == 404:
                return
            if code in (401, 403) and self.clock() - began > RESTART_SECONDS:
                logger.warning("%s cannot be deleted: %s", resource, detail(found))
                return
            await asyncio.sleep(pause(tries))
            tries += 1

    async def last_words(self, pod: str) -> str:
        """Return the last line that a Pod wrote; empty when nobody can tell."""
        with contextlib.suppress(Unreachable, TimeoutError):
            asked = self.kube.call("GET", f"pods/{pod}/log", tailLines=TAIL_LINES)
            code, text = await asyncio.wait_for(asked, LAST_WORDS)
            if code == 200 and (lines := str(text).strip().splitlines()):
                return lines[-1]
        return ""
