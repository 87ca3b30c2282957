"""A kubelet that runs Pods as processes of this machine: a program that talks only the Kubernetes API.

``python -m daskml_scale.testing.kube.kubelet --kubeconfig FILE --node NAME --folder FOLDER``. It registers a Node,
renews its lease, gives Pods to itself when they fit (``--no-binding``: a real scheduler does), runs them, and serves
their logs and ports over HTTPS. It works with a real API server on this machine, too.

Faults are scripted by an annotation of its Node, a JSON list such as ``[{"id": "1", "pods": "x-cpu-*", "fault":
"oom"}]``: ``pending`` (with ``message``), ``pull`` (with ``seconds``; without, the image is not found), ``oom`` and
``evict`` (of what runs at that moment, once per ``id``), ``lost`` (the whole Node falls silent).
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import datetime
import fnmatch
import json
import os
import signal
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil

from .client import ApiError, Client
from .node_server import NodeServer
from .pods import Object, Running
from .rules import quantity, usage
from .store import now_text

FAULTS = "testing.daskml-scale/faults"
LEASES = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases"
CAPACITY = {"cpu": "4000", "memory": "16Ti", "pods": "2000", "ephemeral-storage": "1Ti"}
"""Processes share the machine; what a Pod asks for is not set aside."""
MEMORY_SECONDS = 0.5
ENDED = ("Succeeded", "Failed")


def misfit(pod: Object, node: Object, others: Iterable[Object]) -> str:
    """Return why a Node does not take a Pod; empty when it does. Pure."""
    labels = node["metadata"].get("labels") or {}
    selector = pod["spec"].get("nodeSelector") or {}
    if any(labels.get(key) != value for key, value in selector.items()):
        return "1 node(s) didn't match Pod's node affinity/selector"
    wanted, taken = usage(pod), [usage(other) for other in others]
    room = node["status"]["allocatable"]
    for key, amount in wanted.items():
        name = key.removeprefix("requests.") if key.startswith("requests.") else ""
        if name and amount + sum(one.get(key, 0) for one in taken) > quantity(room.get(name, 0)):
            return f"1 Insufficient {name}"
    return ""


class Kubelet:
    """The program.

    Parameters
    ----------
    options : argparse.Namespace
    """

    def __init__(self, options: argparse.Namespace) -> None:
        self.name: str = options.node
        self.folder: Path = options.folder
        self.binding: bool = options.binding
        self.heartbeat: float = options.heartbeat
        self.capacity = {**CAPACITY, **dict(one.split("=") for one in options.capacity)}
        self.labels = dict(one.split("=") for one in options.label)
        self.client = Client(options.kubeconfig)
        found = urlsplit(self.client.server)
        self.service = {"KUBERNETES_SERVICE_HOST": found.hostname or "", "KUBERNETES_SERVICE_PORT": str(found.port)}
        self.running: dict[str, Running] = {}
        self.pods: dict[str, Object] = {}
        self.faults: list[dict[str, Any]] = []
        self.node: Object = {}
        self._done: set[str] = set()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._binding: set[str] = set()
        self._count = 0
        self._first = 16 + os.getpid() % 200

    async def run(self) -> None:
        """Work until the task is cancelled."""
        server = NodeServer(self.running)
        port = await server.start()
        try:
            await self._register(port)
            sys.stdout.write("ready\n")
            sys.stdout.flush()
            works = (self._watch_pods(), self._watch_node(), self._renew(), self._watch_memory())
            await asyncio.gather(*works)
        finally:
            for running in self.running.values():
                running.discard()
            await server.stop()
            await self.client.close()

    def _background(self, work: Any) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._over)

    def _over(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            sys.stderr.write(f"kubelet: {error!r}\n")

    # The Node

    async def _register(self, port: int) -> None:
        status = {
            "capacity": self.capacity, "allocatable": self.capacity,
            "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": port}},
            "conditions": [{"type": "Ready", "status": "True", "reason": "KubeletReady",
                            "lastHeartbeatTime": now_text(), "lastTransitionTime": now_text()}],
        }  # fmt: skip
        labels = {"kubernetes.io/hostname": self.name, "kubernetes.io/os": "linux", **self.labels}
        node = {"metadata": {"name": self.name, "labels": labels}, "kind": "Node", "apiVersion": "v1"}
        await self.client.patiently("POST", "/api/v1/nodes", node)
        body = {"metadata": {"labels": labels}, "status": status}
        await self._lease()
        sort = "application/merge-patch+json"
        self.node = await self.client.patiently("PATCH", f"/api/v1/nodes/{self.name}/status", body, sort)

    async def _lease(self) -> None:
        at = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        spec = {"holderIdentity": self.name, "leaseDurationSeconds": 40, "renewTime": at}
        try:
            await self.client.patch(f"{LEASES}/{self.name}", {"spec": spec})
        except ApiError as error:
            if error.code == 404:
                body = {"metadata": {"name": self.name}, "spec": spec}
                await self.client.patiently("POST", LEASES, body)

    async def _renew(self) -> None:
        while True:
            await asyncio.sleep(self.heartbeat)
            with contextlib.suppress(Exception):
                await self._lease()

    async def _watch_node(self) -> None:
        async for sort, found in self.client.watch("/api/v1/nodes", fieldSelector=f"metadata.name={self.name}"):
            for node in found if sort == "SYNC" else [found]:
                self.node = node
                self.faults = json.loads((node["metadata"].get("annotations") or {}).get(FAULTS, "[]"))
                await self._apply_faults()

    def fault(self, pod: str, sort: str) -> dict[str, Any] | None:
        """Return the fault of a sort that is scripted for a Pod."""
        return next(
            (one for one in self.faults if one["fault"] == sort and fnmatch.fnmatch(pod, one.get("pods", "*"))), None
        )

    async def _apply_faults(self) -> None:
        for fault in self.faults:
            if fault["fault"] == "lost":
                for running in self.running.values():
                    running.discard()
                os.kill(os.getpid(), signal.SIGKILL)
            if fault["fault"] not in ("oom", "evict") or fault["id"] in self._done:
                continue
            self._done.add(fault["id"])
            for running in self.running.values():
                if fnmatch.fnmatch(running.name, fault["pods"]) and not running.ended.is_set():
                    if fault["fault"] == "oom":
                        running.end("OOMKilled")
                    else:
                        running.end("Evicted", fault.get("message", "The node was low on resource: memory."))
        for pod in list(self.pods.values()):  # what was pending may go on
            await self._look(pod)

    # Pods

    async def _watch_pods(self) -> None:
        async for sort, found in self.client.watch("/api/v1/pods"):
            if sort == "SYNC":
                here = {pod["metadata"]["uid"] for pod in found}
                for uid in [uid for uid in self.pods if uid not in here]:
                    self._forget(self.pods[uid])
                for pod in found:
                    await self._look(pod)
            elif sort == "DELETED":
                self._forget(found)
            else:
                await self._look(found)

    def _forget(self, pod: Object) -> None:
        uid = pod["metadata"]["uid"]
        self.pods.pop(uid, None)
        if (running := self.running.pop(uid, None)) is not None:
            running.discard()

    async def _look(self, pod: Object) -> None:
        uid, place = pod["metadata"]["uid"], pod["spec"].get("nodeName")
        self.pods[uid] = pod
        if place is None and self.binding and "deletionTimestamp" not in pod["metadata"]:
            if uid not in self._binding:
                self._binding.add(uid)
                self._background(self._bind(pod))
        elif place == self.name:
            self._binding.discard(uid)
            if uid in self.running:
                if "deletionTimestamp" in pod["metadata"]:
                    self._end(self.running[uid], float(pod["metadata"].get("deletionGracePeriodSeconds", 30)))
            elif "deletionTimestamp" in pod["metadata"]:
                await self._finalise(pod)
            elif pod["status"].get("phase") not in ENDED:
                self.running[uid] = Running(pod, self, self._address())

    def _address(self) -> str:
        self._count += 1
        return f"127.{self._first}.{self._count // 250 % 250 + 1}.{self._count % 250 + 2}"

    async def _bind(self, pod: Object) -> None:
        metadata = pod["metadata"]
        path = f"/api/v1/namespaces/{metadata['namespace']}/pods/{metadata['name']}"
        here = [one for one in self.pods.values() if one["spec"].get("nodeName") == self.name]
        fault = self.fault(metadata["name"], "pending")
        why = fault.get("message", "1 node(s) had untolerated taint(s)") if fault else misfit(pod, self.node, here)
        try:
            if why:
                await self._unschedulable(pod, path, f"0/1 nodes are available: {why}.")
                return
            target = {"apiVersion": "v1", "kind": "Node", "name": self.name}
            body = {"apiVersion": "v1", "kind": "Binding", "metadata": {"name": metadata["name"]}, "target": target}
            await self.client.patiently("POST", f"{path}/binding", body)
        finally:
            self._binding.discard(metadata["uid"])

    async def _unschedulable(self, pod: Object, path: str, message: str) -> None:
        listed = pod["status"].get("conditions") or []
        if any(one["type"] == "PodScheduled" and one.get("message") == message for one in listed):
            return
        condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message,
                     "lastTransitionTime": now_text()}  # fmt: skip
        version = {"resourceVersion": pod["metadata"]["resourceVersion"]}  # another Node may have taken it
        body = {"metadata": version, "status": {"conditions": [condition]}}
        await self.client.patiently("PATCH", f"{path}/status", body, "application/merge-patch+json")

    def _end(self, running: Running, grace: float) -> None:
        if not running.stopping or grace == 0:
            self._background(self._stop(running, grace))

    async def _stop(self, running: Running, grace: float) -> None:
        await running.stop(grace)
        await self._finalise(running.pod)

    async def _finalise(self, pod: Object) -> None:
        metadata = pod["metadata"]
        path = f"/api/v1/namespaces/{metadata['namespace']}/pods/{metadata['name']}"
        body = {"gracePeriodSeconds": 0, "preconditions": {"uid": metadata["uid"]}}
        await self.client.patiently("DELETE", path, body)

    async def _watch_memory(self) -> None:
        while True:
            await asyncio.sleep(MEMORY_SECONDS)
            for running in list(self.running.values()):
                limit = ((running.container.get("resources") or {}).get("limits") or {}).get("memory")
                if limit and running.process is not None and running.process.returncode is None:
                    with contextlib.suppress(psutil.Error):
                        if psutil.Process(running.process.pid).memory_info().rss > quantity(limit):
                            running.end("OOMKilled")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Run Pods as processes of this machine")
    parser.add_argument("--kubeconfig", type=Path, required=True)
    parser.add_argument("--node", required=True)
    parser.add_argument("--folder", type=Path, required=True, help="files of Pods")
    parser.add_argument("--heartbeat", type=float, default=10.0, help="seconds between renewals of the lease")
    parser.add_argument("--capacity", action="append", default=[], metavar="NAME=NUMBER")
    parser.add_argument("--label", action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument("--no-binding", dest="binding", action="store_false", help="a real scheduler gives out Pods")
    parser.add_argument("--with-parent", action="store_true", help="end when standard input ends")
    return parser.parse_args()


async def _main() -> None:
    options = _options()
    loop = asyncio.get_running_loop()
    work = asyncio.ensure_future(Kubelet(options).run())
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, work.cancel)
    if options.with_parent:
        loop.add_reader(0, lambda: None if os.read(0, 1) else work.cancel())
    with contextlib.suppress(asyncio.CancelledError):
        await work


if __name__ == "__main__":
    asyncio.run(_main())
