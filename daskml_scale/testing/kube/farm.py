"""A Kubernetes for tests in one ``with``: a server of ours, or a real one, and kubelets that run Pods as processes."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import subprocess
import sys
import tempfile
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil

from .client import ApiError, Client, encoded, read_config, write_config
from .kubelet import FAULTS
from .server import ApiServer, api_server

Object = dict[str, Any]
RESTRICTED = {"pod-security.kubernetes.io/enforce": "restricted"}


class Farm:
    """A Kubernetes whose Pods are processes of this machine.

    Parameters
    ----------
    folder : Path
    kubeconfig : Path
        Of its administrator.
    server : ApiServer, optional
        When it is ours.

    Attributes
    ----------
    namespace : str
        With the pod security level ``restricted``.
    """

    def __init__(self, folder: Path, kubeconfig: Path, server: ApiServer | None = None) -> None:
        self.folder, self.kubeconfig, self.server = folder, kubeconfig, server
        self.namespace = f"t-{uuid.uuid4().hex[:8]}"
        self.files = Path(tempfile.mkdtemp(prefix="kubelet-"))  # short: sockets are made in it
        self.kubelets: dict[str, subprocess.Popen[bytes]] = {}
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="kube-farm", daemon=True)
        self._thread.start()
        self._client = self._do(self._connect())
        self.make_namespace(self.namespace)

    async def _connect(self) -> Client:
        return Client(self.kubeconfig)

    def _do(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(120)

    def request(self, method: str, path: str, body: Any = None, **query: Any) -> Any:
        """Make a request as administrator."""
        sort = "application/merge-patch+json" if method == "PATCH" else "application/json"
        return self._do(self._client.request(method, path, body, sort, **query))

    def make_namespace(self, name: str) -> None:
        """Make a namespace in which Pods must be restricted."""
        self.request("POST", "/api/v1/namespaces", {"metadata": {"name": name, "labels": RESTRICTED}})

    def listed(self, resource: str, **query: Any) -> list[Object]:
        """Return the objects of a kind, such as ``pods`` or ``batch/jobs``, in the namespace."""
        return list(self.request("GET", self.path(resource), **query)["items"])

    def path(self, resource: str, name: str = "") -> str:
        """Return the path of objects of a kind, or of one, in the namespace."""
        group, _, plain = resource.rpartition("/")
        base = f"/apis/{group}/v1" if group else "/api/v1"
        return f"{base}/namespaces/{self.namespace}/{plain}" + (f"/{name}" if name else "")

    def left(self) -> list[str]:
        """Return what is in the namespace besides what every namespace has."""
        return [
            f"{resource} {item['metadata']['name']}"
            for resource in ("pods", "batch/jobs", "secrets", "configmaps")
            for item in self.listed(resource)
            if item["metadata"]["name"] != "kube-root-ca.crt"
        ]

    # Nodes

    def add_node(self, name: str, *arguments: str) -> None:
        """Start a kubelet and wait until its Node is ready."""
        command = [
            sys.executable, "-m", "daskml_scale.testing.kube.kubelet", "--kubeconfig", str(self.kubeconfig),
            "--node", name, "--folder", str(self.files / name), "--with-parent", *arguments,
        ]  # fmt: skip
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.kubelets[name] = process
        assert process.stdout is not None
        assert process.stdout.readline().strip() == b"ready", f"kubelet {name} did not start"

    def script(self, node: str, *faults: Object) -> None:
        """Set the faults of a Node; none ends them."""
        listed = [{"id": uuid.uuid4().hex, **fault} for fault in faults]
        body = {"metadata": {"annotations": {FAULTS: json.dumps(listed)}}}
        self.request("PATCH", f"/api/v1/nodes/{node}", body)

    def processes(self) -> list[psutil.Process]:
        """Return the processes that Pods run."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                alive = process.status() != psutil.STATUS_ZOMBIE
                if alive and process.cwd().startswith(str(self.files / "")):
                    found.append(process)
        return found

    # Users

    def user(self, name: str, rules: list[Object]) -> Path:
        """Make a service account with these rights and return its kubeconfig."""
        group = "rbac.authorization.k8s.io"
        self.request("POST", self.path("serviceaccounts"), {"metadata": {"name": name}})
        self.request("POST", self.path(f"{group}/roles"), {"metadata": {"name": name}, "rules": rules})
        binding = {
            "metadata": {"name": name},
            "subjects": [{"kind": "ServiceAccount", "name": name, "namespace": self.namespace}],
            "roleRef": {"apiGroup": group, "kind": "Role", "name": name},
        }
        self.request("POST", self.path(f"{group}/rolebindings"), binding)
        return self.kubeconfig_of(name)

    def kubeconfig_of(self, account: str) -> Path:
        """Return a kubeconfig of a service account."""
        asked = {"spec": {"expirationSeconds": 3600}}
        token = self.request("POST", self.path("serviceaccounts", f"{account}/token"), asked)["status"]["token"]
        cluster = read_config(self.kubeconfig)["clusters"][0]["cluster"]
        if cluster.pop("certificate-authority", None):  # a path, from the folder of the kubeconfig
            cluster["certificate-authority-data"] = encoded(self._client.authority)
        return write_config(self.folder / f"{account}.kubeconfig", account, cluster, token, self.namespace)

    def definition(self, classes: dict[str, Any], **more: Any) -> dict[str, Any]:
        """Return a cluster definition for this Kubernetes."""
        return {
            "version": 1,
            "name": "farm",
            "backend": "kubernetes",
            "kubernetes": {
                "namespace": self.namespace,
                "image": "daskml-scale:test",
                "kubeconfig": str(self.kubeconfig),
                "connect": "direct",
                **more.pop("kubernetes", {}),
            },
            "scheduler": {"memory": "1GiB", "cpu": 0.1},
            "classes": classes,
            "scaling": {"horizon": "1s", "keep_idle": "1s"},
            "dashboard": {"listen": "127.0.0.1:0"},
            **more,
        }

    def close(self) -> None:
        """Remove the namespace, end the kubelets and what they run."""
        with contextlib.suppress(ApiError, OSError, TimeoutError):
            self.request("DELETE", f"/api/v1/namespaces/{self.namespace}")
        for process in self.kubelets.values():
            process.terminate()
        for name, process in self.kubelets.items():
            process.wait(30)
            for stream in (process.stdin, process.stdout):
                if stream is not None:
                    stream.close()
            with contextlib.suppress(ApiError, OSError, TimeoutError):
                self.request("DELETE", f"/api/v1/nodes/{name}")
        for process_left in self.processes():
            with contextlib.suppress(psutil.Error):
                process_left.kill()
        self._do(self._client.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        shutil.rmtree(self.files, ignore_errors=True)


@contextlib.contextmanager
def farm(folder: Path, *, kubeconfig: Path | None = None, nodes: int = 1, patience: float = 40.0) -> Iterator[Farm]:
    """Yield a Kubernetes with Nodes; of our own, or with ``kubeconfig`` a real API server on this machine.

    Parameters
    ----------
    patience : float
        Seconds of silence after which our server takes a Node for lost.
    """
    with contextlib.ExitStack() as stack:
        server = None
        if kubeconfig is None:
            server = stack.enter_context(api_server(folder, node_patience=patience))
            kubeconfig = folder / "kubeconfig"
        made = Farm(folder, kubeconfig, server)
        stack.callback(made.close)
        for number in range(nodes):
            heartbeat = min(10.0, patience / 4)
            made.add_node(f"node-{made.namespace}-{number}", "--heartbeat", str(heartbeat))
        yield made
