"""The Kubernetes API as a driver calls it: requests, one watch of its Pods, and connections to their ports.

kr8s finds credentials, makes requests and opens websockets; nothing else of it is used: its watch asks 330 times a
second for ever when it is told 410, and its port-forward tries for ever what is refused (measured). Here every
repetition waits. Needs ``kr8s``, which comes with the extra ``kubernetes``.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import tempfile
import warnings
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

from daskml_scale.errors import ClusterError, UsageError
from daskml_scale.spec.kubernetes import KubernetesOptions

from .tunnel import Tunnel

Object = dict[str, Any]
TIMEOUT = 20.0
"""Seconds for an answer."""
WATCH_SECONDS = 3000
"""A watch is begun anew after this; servers end them after about an hour."""
PAUSES = (0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
"""Seconds before the n-th repetition in a row."""
RESTART_SECONDS = 10.0
"""So long a server that starts may refuse everybody: its roles are not loaded yet."""
RIGHTS = "kubectl apply -k clusters/kubernetes gives a user what it needs, see docs/how-to/kubernetes.md"
"""The remedy in messages about what a user may not do."""


class Unreachable(ClusterError):
    """The API server does not answer."""


def pause(tries: int) -> float:
    """Return the seconds to wait before a repetition."""
    return PAUSES[min(tries, len(PAUSES) - 1)]


def library() -> Any:
    """Return kr8s.

    Raises
    ------
    UsageError
        If it is not installed.
    """
    try:
        import kr8s.asyncio
    except ImportError:
        raise UsageError("kr8s is not installed: pip install 'daskml-scale[kubernetes]'") from None
    return kr8s


def inside() -> bool:
    """Return whether this process runs in a Pod."""
    return "KUBERNETES_SERVICE_HOST" in os.environ


class Kube:
    """The API server, one namespace of it.

    Parameters
    ----------
    options : KubernetesOptions
    """

    def __init__(self, options: KubernetesOptions) -> None:
        self.options, self.namespace = options, options.namespace
        self._api: Any = None

    async def open(self) -> None:
        """Find credentials and ask the server for its version.

        Raises
        ------
        ClusterError
            If there are none, or it does not answer.
        """
        kr8s = library()
        import httpx

        options = self.options
        path = os.path.expanduser(options.kubeconfig) if options.kubeconfig else None
        if path and not Path(path).is_file():
            raise UsageError(f"kubernetes.kubeconfig: {path} does not exist")
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)  # of versions that it has not been tested with
                # Not kr8s.asyncio.api(): it hands one object, with one session, to all who ask alike.
                self._api = kr8s.asyncio.Api(
                    bypass_factory=True,
                    kubeconfig=path,
                    context=options.context,
                    namespace=self.namespace,
                    serviceaccount=os.environ.get("DASKML_SERVICE_ACCOUNT"),
                )
                await asyncio.wait_for(_opened(self._api), TIMEOUT)
        except (httpx.HTTPError, kr8s.APITimeoutError, TimeoutError) as error:
            raise Unreachable(f"the Kubernetes API does not answer: {error or type(error).__name__}") from error
        except kr8s.ServerError as error:
            raise ClusterError(f"the Kubernetes API refuses: {error}; are the credentials still good?") from error
        except (ValueError, KeyError, OSError) as error:
            raise ClusterError(
                f"no credentials for Kubernetes ({error}); kubectl get pods must work, or name a file in "
                "kubernetes.kubeconfig"
            ) from error
        self._tidy()

    @property
    def context(self) -> str | None:
        """The context of the kubeconfig in use; ``None`` with the service account of a Pod."""
        return self._api.auth.active_context or None

    def _tidy(self) -> None:
        """Remove the copies of certificates and keys that kr8s leaves in the temporary folder; its session has them."""
        auth = self._api.auth
        for place in (auth.server_ca_file, auth.client_cert_file, auth.client_key_file):
            if place and Path(place).parent == Path(tempfile.gettempdir()) and Path(place).name.startswith("tmp"):
                Path(place).unlink(missing_ok=True)

    async def close(self) -> None:
        """Close all connections."""
        session = getattr(self._api, "_session", None)
        if session is not None:
            with contextlib.suppress(Exception):
                await session.aclose()

    async def call(
        self, method: str, resource: str, body: Object | None = None, group: str = "", namespaced: bool = True,
        text: bool = False, **params: Any,
    ) -> tuple[int, Any]:  # fmt: skip
        """Make a request once and return its code and object, or text.

        Parameters
        ----------
        resource : str
            Such as ``pods`` or ``pods/NAME/log``.
        text : bool
            A good answer is text, also when it looks like an object.

        Raises
        ------
        Unreachable
        """
        import httpx

        kr8s = library()
        given = {"params": {key: str(value) for key, value in params.items()}, "timeout": TIMEOUT}
        if body is not None:
            given["content"] = json.dumps(body)
        place = self._place(group, resource, namespaced)
        try:
            async with self._api.call_api(method, raise_for_status=False, **place, **given) as response:
                if response.status_code != 401:
                    return response.status_code, _content(response, text)
            async with self._api.call_api(method, **place, **given) as response:  # it asks for a new token
                self._tidy()
                return response.status_code, _content(response, text)
        except kr8s.ServerError as error:
            code = error.response.status_code if error.response is not None else 500
            return code, {"message": str(error)}
        except (httpx.HTTPError, kr8s.APITimeoutError, OSError) as error:
            raise Unreachable(f"the Kubernetes API does not answer: {error or type(error).__name__}") from error

    async def tried(self, method: str, resource: str, body: Object | None = None, **more: Any) -> tuple[int, Any]:
        """As `call`, for who tries again: a server that does not answer is code 503."""
        try:
            return await self.call(method, resource, body, **more)
        except Unreachable as error:
            return 503, {"message": str(error)}

    def _place(self, group: str, resource: str, namespaced: bool) -> dict[str, Any]:
        version, base = (f"{group}/v1", "/apis") if group else ("v1", "/api")
        return {"version": version, "base": base, "url": resource, "namespace": self.namespace if namespaced else None}

    # The watch

    async def watch(self, selector: str) -> AsyncIterator[tuple[str, Any]]:
        """Yield what happens to the Pods of a selector, for ever: ``SYNC`` with all of them, then each change.

        It begins anew, with ``SYNC``, when changes were missed (410), and waits while the server is away or refuses.

        Raises
        ------
        ClusterError
            When they may not be listed, after a while in which a server may start.
        """
        tries, refused_since = 0, None
        clock = asyncio.get_running_loop().time
        while True:
            code, found = await self.tried("GET", "pods", labelSelector=selector)
            if code == 200:
                began, refused_since = clock(), None
                yield "SYNC", found["items"]
                async for sort, item in self._follow(selector, found["metadata"]["resourceVersion"]):
                    yield sort, item
                tries = 0 if clock() - began > PAUSES[-1] else tries
            elif code in (401, 403):
                refused_since = clock() if refused_since is None else refused_since
                if clock() - refused_since > RESTART_SECONDS:
                    raise ClusterError(f"the Pods cannot be watched: {found['message']}; {RIGHTS}")
            await asyncio.sleep(pause(tries))
            tries += 1

    async def _follow(self, selector: str, version: str) -> AsyncIterator[tuple[str, Any]]:
        """Yield changes after a version, until some were missed or the server is away."""
        import httpx

        kr8s = library()
        timeout = httpx.Timeout(TIMEOUT, read=WATCH_SECONDS + TIMEOUT)
        while True:
            params = {"watch": "1", "labelSelector": selector, "resourceVersion": version,
                      "allowWatchBookmarks": "true", "timeoutSeconds": str(WATCH_SECONDS)}  # fmt: skip
            began = asyncio.get_running_loop().time()
            try:
                async with self._api.call_api(
                    "GET", raise_for_status=False, stream=True, params=params, timeout=timeout,
                    **self._place("", "pods", True),
                ) as response:  # fmt: skip
                    if response.status_code != 200:
                        return
                    async for line in response.aiter_lines():
                        event = json.loads(line)
                        if event["type"] == "ERROR":
                            return
                        version = event["object"]["metadata"]["resourceVersion"]
                        if event["type"] != "BOOKMARK":
                            yield event["type"], event["object"]
            except (httpx.HTTPError, kr8s.APITimeoutError, kr8s.ServerError, OSError, ValueError):
                return
            if asyncio.get_running_loop().time() - began < 1:
                return  # a server that ends watches at once must not be asked again at once

    # Connections to Pods

    async def forward(self, pod: str, port: int, local: int = 0, host: str = "127.0.0.1") -> Tunnel:
        """Lead a port of this machine to a port of a Pod."""
        made = Tunnel(lambda: self.socket(pod, port), f"{pod}:{port}")
        await made.open(local, host)
        return made

    def socket(self, pod: str, port: int) -> Any:
        """Return the context of a websocket to a port of a Pod."""
        place = self._place("", f"pods/{pod}/portforward", True)
        return self._api.open_websocket(**place, params={"ports": str(port)}, max_message_size_bytes=1 << 24)


async def _opened(api: Any) -> None:
    await api


def _content(response: Any, text: bool) -> Any:
    if text and response.status_code == 200:
        return response.text
    try:
        return response.json()
    except ValueError:
        return response.text


def detail(found: Any) -> str:
    """Return what an answer says."""
    return str(found.get("message", found) if isinstance(found, Mapping) else found)
