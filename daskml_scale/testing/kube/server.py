"""An API server of Kubernetes for tests: objects, watches, rights, logs and port-forward, over HTTPS on 127.0.0.1.

It does what a real one was measured to do: see `objects`, `verbs` and `rules` for objects, `watches` for what goes on,
`controllers` for what happens by itself. Use ``with api_server(folder) as server`` (a thread with an event loop), or
``python -m daskml_scale.testing.kube.server FOLDER`` (a program, until it is ended); both write ``FOLDER/kubeconfig``.
Every request is in ``server.requests``: who asked for what, with which answer.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import ssl
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aiohttp import web

from . import controllers, discovery, objects, rules, streams, verbs, watches
from .certificate import certificate
from .client import encoded, write_config
from .store import KINDS, PODS, RBAC, Object, Refused, Store
from .targets import Target, body_of, target_of, verb_of

NODE_PATIENCE = 40.0
"""Seconds without a renewed lease after which a Node is lost."""


@dataclass(frozen=True, slots=True)
class Request:
    """One request, as an audit log has it.

    Attributes
    ----------
    at : float
        Seconds since the epoch, when it came.
    user, verb, resource, namespace, name : str
        ``resource`` with its subresource, such as ``pods/log``.
    code : int
        Of the answer; a watch that goes on has 200.
    """

    at: float
    user: str
    verb: str
    resource: str
    namespace: str
    name: str
    code: int


class ApiServer:
    """The server; every method but `call` belongs to its event loop.

    Parameters
    ----------
    folder : Path
        For the kubeconfig.
    node_patience : float
        Seconds without a renewed lease after which a Node is lost.
    """

    loop: asyncio.AbstractEventLoop

    def __init__(self, folder: Path, *, node_patience: float = NODE_PATIENCE) -> None:
        self.folder, self.node_patience = folder, node_patience
        self.store = Store()
        self.requests: list[Request] = []
        self.tokens: dict[str, str] = {secrets.token_hex(16): rules.ADMIN}
        self.forbidding = False
        self.port = 0
        self._stirred: set[asyncio.Event] = set()
        self._connections: set[asyncio.Transport] = set()
        self.store.listeners.append(self._stir)
        for name in ("default", "kube-system", controllers.NODE_LEASES):
            verbs.create(self.store, KINDS["", "namespaces"], "", {"metadata": {"name": name}})

    # Life

    async def start(self) -> None:
        """Listen, at the same port as before if it did."""
        if not self.port:
            self.ca, self._tls = certificate()
        app = web.Application(client_max_size=8 << 20)
        app.router.add_route("*", "/{path:.*}", self._answer)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.2)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self.port, ssl_context=self._tls, reuse_address=True)
        await site.start()
        assert site._server is not None
        self.port = site._server.sockets[0].getsockname()[1]  # type: ignore[attr-defined]
        self.client = streams.node_session()
        self._controlling = asyncio.ensure_future(self._control())
        self.write_kubeconfig(self.folder / "kubeconfig", next(iter(self.tokens)))

    async def stop(self) -> None:
        """Take no more requests and break all connections."""
        self._controlling.cancel()
        for transport in list(self._connections):
            transport.abort()
        await self._runner.cleanup()
        await self.client.close()
        await asyncio.gather(self._controlling, return_exceptions=True)
        for _ in range(3):  # watches notice that their connections are gone
            self._stir()
            await asyncio.sleep(0.01)

    async def restart(self, away: float, forbidding: float) -> None:
        """Be away; then refuse everybody for a moment, as a server does whose roles are not loaded; forget changes."""
        await self.stop()
        await asyncio.sleep(away)
        self.store.forget()
        self.forbidding = True
        await self.start()
        await asyncio.sleep(forbidding)
        self.forbidding = False

    def write_kubeconfig(self, path: Path, token: str, namespace: str = "default") -> Path:
        """Write a kubeconfig for a token and return its path."""
        cluster = {"server": f"https://127.0.0.1:{self.port}", "certificate-authority-data": encoded(self.ca)}
        return write_config(path, "test", cluster, token, namespace)

    def _stir(self) -> None:
        for event in self._stirred:
            event.set()

    @contextlib.contextmanager
    def _following(self) -> Iterator[asyncio.Event]:
        """Give an event that every change sets."""
        changed = asyncio.Event()
        self._stirred.add(changed)
        try:
            yield changed
        finally:
            self._stirred.discard(changed)

    async def _control(self) -> None:
        with self._following() as changed:
            while True:
                changed.clear()
                controllers.collect_garbage(self.store)
                again = controllers.run_jobs(self.store, time.time())
                controllers.watch_nodes(self.store, time.time(), self.node_patience)
                wait = min(1.0, max(0.0, (again or 1e12) - time.time()))
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(changed.wait(), wait)
                await asyncio.sleep(0.02)  # one look at what changes together

    # Requests

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        if request.transport is not None:
            self._connections.add(request.transport)
            self._connections = {one for one in self._connections if not one.is_closing()}
        at, user, verb, target = time.time(), "", request.method.lower(), None
        try:
            user = self._user(request)
            path = "/" + request.match_info["path"]
            if (found := discovery.answer(path)) is not None:
                self._note(at, user, "discover", None, 200)
                return found
            target = target_of(path)
            verb = verb_of(request, target)
            self._authorize(user, verb, target)
            if verb == "watch" or target.part in ("log", "portforward"):
                self._note(at, user, verb, target, 200)  # before it ends, so that others see it
                return await self._stream(request, verb, target)
            code, body = await self._do(request, user, verb, target)
            response = web.json_response(body, status=code)
        except Refused as error:
            code, response = error.code, web.json_response(error.status(), status=error.code)
        self._note(at, user, verb, target, code)
        return response

    def _note(self, at: float, user: str, verb: str, target: Target | None, code: int) -> None:
        if target is None:
            self.requests.append(Request(at, user, verb, "", "", "", code))
            return
        self.requests.append(Request(at, user, verb, target.resource, target.namespace, target.name, code))

    def _user(self, request: web.Request) -> str:
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        user = self.tokens.get(token.strip()) if scheme == "Bearer" else None
        if user is None:
            raise Refused(401, "Unauthorized")
        return user

    def rules_of(self, user: str, namespace: str) -> list[Object]:
        """Return what a user may do in a namespace."""
        roles = {one["metadata"]["name"]: one for one in self.store.all(KINDS[RBAC, "roles"], namespace)}
        return rules.rules_of(user, namespace, self.store.all(KINDS[RBAC, "rolebindings"], namespace), roles)

    def may(self, user: str, verb: str, group: str, resource: str, namespace: str) -> bool:
        """Return whether a user may do something."""
        if user == rules.ADMIN:
            return True
        return bool(namespace) and rules.allowed(self.rules_of(user, namespace), verb, group, resource)

    def _authorize(self, user: str, verb: str, target: Target) -> None:
        kind, resource = target.kind, target.resource
        if kind.group in (rules.OPEN_GROUP, "authentication.k8s.io"):
            return
        # A websocket counts as get; forwarding also needs create, since a gate of 1.35.
        wanted = ["get", "create"] if target.part == "portforward" else [verb]
        for one in wanted:
            if self.forbidding or not self.may(user, one, kind.group, resource, target.namespace):
                raise rules.forbidden(user, one, kind.group, resource, target.namespace, target.name)

    async def _do(self, request: web.Request, user: str, verb: str, target: Target) -> tuple[int, Any]:
        body = await body_of(request)
        if target.kind.group in (rules.OPEN_GROUP, "authentication.k8s.io"):
            return 201, self._review(user, target, body)
        if target.part == "token":
            token = secrets.token_hex(16)
            self.tokens[token] = f"system:serviceaccount:{target.namespace}:{target.name}"
            return 201, {**body, "kind": "TokenRequest", "apiVersion": "authentication.k8s.io/v1",
                         "status": {"token": token, "expirationTimestamp": "2099-01-01T00:00:00Z"}}  # fmt: skip
        return objects.answer(self.store, request, verb, target, body)

    def _review(self, user: str, target: Target, body: Object) -> Object:
        spec = body.get("spec") or {}
        if target.kind.resource == "selfsubjectrulesreviews":
            everything = [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}]
            found = everything if user == rules.ADMIN else self.rules_of(user, spec.get("namespace", ""))
            own = {"verbs": ["create"], "apiGroups": [rules.OPEN_GROUP],
                   "resources": ["selfsubjectaccessreviews", "selfsubjectrulesreviews"]}  # fmt: skip
            status: Object = {"resourceRules": [own, *found], "nonResourceRules": [], "incomplete": False}
        elif target.kind.resource == "selfsubjectaccessreviews":
            asked = spec.get("resourceAttributes") or {}
            part = f"/{asked['subresource']}" if asked.get("subresource") else ""
            resource = asked.get("resource", "") + part
            status = {"allowed": self.may(user, asked.get("verb", ""), asked.get("group", ""), resource,
                                          asked.get("namespace", ""))}  # fmt: skip
        else:
            status = {"userInfo": {"username": user}}
        return {**body, "kind": target.kind.kind, "apiVersion": target.kind.api_version, "status": status}

    # What goes on

    async def _stream(self, request: web.Request, verb: str, target: Target) -> web.StreamResponse:
        if verb == "watch":
            with self._following() as changed:
                return await watches.watch(request, self.store, changed, target)
        pod = self.store.get(PODS, target.namespace, target.name)
        node = self.store.find(KINDS["", "nodes"], "", pod["spec"].get("nodeName", ""))
        if target.part == "log":
            return await streams.proxy_log(request, self.client, pod, node)
        return await streams.proxy_forward(request, self.client, pod, node)

    # From other threads

    def call(self, work: Any) -> Any:
        """Run a coroutine on the server's loop and return its result; from another thread."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(120)


@contextlib.contextmanager
def api_server(folder: Path, *, node_patience: float = NODE_PATIENCE) -> Iterator[ApiServer]:
    """Run a server in a thread; ``folder/kubeconfig`` is its administrator's."""
    server = ApiServer(folder, node_patience=node_patience)
    server.loop = asyncio.new_event_loop()
    thread = threading.Thread(target=server.loop.run_forever, name="kube-api", daemon=True)
    thread.start()
    try:
        server.call(server.start())
        yield server
        server.call(server.stop())
    finally:
        server.call(_finish())
        server.loop.call_soon_threadsafe(server.loop.stop)
        thread.join(10)


async def _finish() -> None:
    """End what still waits, so that the loop can stop."""
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def _serve(folder: Path) -> None:
    server = ApiServer(folder)
    await server.start()
    sys.stdout.write(f"{folder / 'kubeconfig'}\n")
    sys.stdout.flush()
    await asyncio.Event().wait()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt, ssl.SSLError):
        asyncio.run(_serve(Path(sys.argv[1])))
