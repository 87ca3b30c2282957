"""What a machine outside asks of the Job of a submitted run: make it, look at it, read its log, delete it.

For programs without an event loop of their own: one runs here, in a thread. Nothing is kept and nothing is decided;
`runner` says what the answers mean.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Mapping
from types import TracebackType
from typing import Any, TypeVar

from daskml_scale.errors import ClusterError
from daskml_scale.spec.kubernetes import KubernetesOptions

from . import runner
from .kube_client import RIGHTS, Kube, Object, Unreachable, detail, pause
from .pods import owner_reference

JOBS = "batch"
"""API group of Jobs."""
TRIES = 6
"""Requests for one thing while the server is away, about twenty seconds."""
REFUSED = 4
"""Times that a refusal to look is taken for a server that starts, about four seconds."""
T = TypeVar("T")


class Runners:
    """The Jobs of submitted runs in one namespace. A context manager.

    Parameters
    ----------
    options : KubernetesOptions

    Raises
    ------
    ClusterError
        From all methods: `Unreachable` when the server does not answer, else what it says.
    """

    def __init__(self, options: KubernetesOptions) -> None:
        self.kube = Kube(options)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="kubernetes", daemon=True)

    def __enter__(self) -> Runners:
        self._thread.start()
        try:
            self._do(self.kube.open())
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def _end(self) -> None:
        self._do(self.kube.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _do(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def make(self, job: Object, files: Mapping[str, str]) -> None:
        """Make a Job and its ConfigMap; neither stays when one is refused."""
        self._do(self._make(job, files))

    async def _make(self, job: Object, files: Mapping[str, str]) -> None:
        name = job["metadata"]["name"]
        made = await self._wanted("POST", "jobs", job, JOBS)
        if made is None:  # an earlier request was heard, its answer was not
            _, made = await self.kube.call("GET", f"jobs/{name}", group=JOBS)
        try:
            await self._wanted("POST", "configmaps", runner.config_map(name, owner_reference(made), files))
        except ClusterError:
            await self._delete(name)
            raise

    async def _wanted(self, method: str, resource: str, body: Object, group: str = "") -> Any:
        """Make a request until it is answered; ``None`` when the thing is there already."""
        code, found = await self._answer(method, resource, body, group, fieldValidation="Strict")
        if code < 300:
            return found
        if code == 409:
            return None
        said = f"{resource} {body['metadata']['name']} cannot be made: {detail(found)}"
        raise ClusterError(f"{said}; {RIGHTS}" if code in (401, 403) else said)

    async def _answer(self, method: str, resource: str, body: Object, group: str, **params: Any) -> tuple[int, Any]:
        """Make a request until the server has an answer of its own; return the last one where it never has."""
        for tries in range(TRIES):
            try:
                code, found = await self.kube.call(method, resource, body, group=group, **params)
            except Unreachable:
                if tries == TRIES - 1:
                    raise
            else:
                if not _away(code):
                    break
            await asyncio.sleep(pause(tries))
        return code, found

    def look(self, name: str) -> runner.Seen:
        """Return how a Job stands."""
        return self._do(self._look(name))

    async def _look(self, name: str) -> runner.Seen:
        job = await self._found(f"jobs/{name}", JOBS)
        pods = await self._found("pods", labelSelector=f"job-name={name}")
        return runner.seen(job, pods["items"] if pods else ())

    async def _found(self, resource: str, group: str = "", **params: Any) -> Any:
        """Return an object or a list; ``None`` when there is none."""
        for tries in range(REFUSED):  # a server that starts refuses everybody for a moment
            code, found = await self.kube.call("GET", resource, group=group, **params)
            if code not in (401, 403):
                break
            await asyncio.sleep(pause(tries))
        if code == 404:
            return None
        if _away(code):
            raise Unreachable(f"the Kubernetes API does not answer: {detail(found)}")
        if code >= 300:
            raise ClusterError(f"{resource} cannot be looked at: {detail(found)}; {RIGHTS}")
        return found

    def log(self, pod: str, lines: int | None) -> str | None:
        """Return the last lines of what a Pod wrote, or with ``None`` all; ``None`` when they cannot be read."""
        params: dict[str, Any] = {} if lines is None else {"tailLines": lines}
        code, text = self._do(self.kube.call("GET", f"pods/{pod}/log", text=True, container="runner", **params))
        return str(text) if code == 200 else None

    def delete(self, name: str) -> None:
        """Delete a Job with all that belongs to it; one that is gone is well."""
        self._do(self._delete(name))

    async def _delete(self, name: str) -> None:
        code, found = await self._answer("DELETE", f"jobs/{name}", {"propagationPolicy": "Background"}, JOBS)
        if code >= 300 and code != 404:
            said = f"the Job {name} cannot be deleted: {detail(found)}"
            raise ClusterError(said if _away(code) else f"{said}; {RIGHTS}")


def _away(code: int) -> bool:
    """Whether a server that answers so may do what it is asked a little later."""
    return code == 429 or code >= 500
