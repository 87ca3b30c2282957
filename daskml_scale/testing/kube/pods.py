"""One Pod as a process of this machine: its files, its environment, its life, and how it is reported.

What a container would isolate is not isolated: paths of volumes are rewritten in the command and the environment, the
Pod's address is one of 127.0.0.0/8. Images are not read: ``python`` is this interpreter.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
import re
import shutil
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .store import now_text

Object = dict[str, Any]
KEPT = ("PATH", "PYTHONPATH", "HOME", "LANG", "TZ", "LD_LIBRARY_PATH", "VIRTUAL_ENV")
"""Variables that processes get from the kubelet: what an image would have."""
PROBE_SECONDS = 0.1


def arguments(container: Mapping[str, Any], values: Mapping[str, str], places: Mapping[str, str]) -> list[str]:
    """Return the command line of a container, with variables and places of volumes filled in."""
    found = [*(container.get("command") or ()), *(container.get("args") or ())]
    made = [rewritten(expanded(text, values), places) for text in found]
    if made and made[0] in ("python", "python3"):
        made[0] = sys.executable
    return made


def expanded(text: str, values: Mapping[str, str]) -> str:
    """Fill in ``$(NAME)``; unknown names stay, ``$$(NAME)`` is written out."""
    return re.sub(r"\$(\$?)\(([^)]+)\)", lambda m: m[0][1:] if m[1] else values.get(m[2], m[0]), text)


def rewritten(text: str, places: Mapping[str, str]) -> str:
    """Replace the path of a mounted volume by where its files are."""
    for mount, place in places.items():
        if text == mount or text.startswith(mount + "/"):
            return place + text[len(mount) :]
    return text


def state_of(code: int, reason: str = "") -> Object:
    """Return how a container ended, as its status has it."""
    code = 128 - code if code < 0 else code
    return {"terminated": {"exitCode": code, "reason": reason or ("Completed" if code == 0 else "Error"),
                           "finishedAt": now_text()}}  # fmt: skip


class Running:
    """A Pod that this Node has; the kubelet makes requests for it.

    Parameters
    ----------
    pod : mapping
    kubelet : Kubelet
    address : str
    """

    def __init__(self, pod: Object, kubelet: Any, address: str) -> None:
        self.pod, self.kubelet, self.address = pod, kubelet, address
        metadata = pod["metadata"]
        self.uid, self.namespace, self.name = metadata["uid"], metadata["namespace"], metadata["name"]
        self.path = f"/api/v1/namespaces/{self.namespace}/pods/{self.name}"
        self.folder: Path = kubelet.folder / "pods" / self.uid
        self.process: asyncio.subprocess.Process | None = None
        self.ended = asyncio.Event()
        self.reason = ""
        self.message = ""
        self.stopping = False
        self.task = asyncio.ensure_future(self._live())

    @property
    def container(self) -> Object:
        """Its first container; others are not run."""
        found: Object = self.pod["spec"]["containers"][0]
        return found

    @property
    def log(self) -> Path:
        """What it writes."""
        return self.folder / "log"

    async def _live(self) -> None:
        try:
            self.folder.mkdir(parents=True)
            self.log.touch()
            fault = self.kubelet.fault(self.name, "pull")
            if fault is not None:
                await self._pull(fault)
            code = 1
            places = await self._volumes()
            values = await self._environment(places)
            if await self._begin(places, values):
                assert self.process is not None
                probing = asyncio.ensure_future(self._report_running())
                code = await self.process.wait()
                probing.cancel()
                await asyncio.gather(probing, return_exceptions=True)
                self._kill(signal.SIGKILL)  # what it left behind
            await self._report_end(code)
        finally:
            self.ended.set()

    async def _pull(self, fault: Mapping[str, Any]) -> None:
        image = self.container.get("image", "")
        if fault.get("seconds") is not None:
            await asyncio.sleep(float(fault["seconds"]))
            return
        text = f'failed to pull and unpack image "{image}": not found'
        await self._report("Pending", {"waiting": {"reason": "ErrImagePull", "message": text}})
        await asyncio.sleep(0.2)
        text = f'Back-off pulling image "{image}"'
        await self._report("Pending", {"waiting": {"reason": "ImagePullBackOff", "message": text}})
        await asyncio.Event().wait()  # until it is deleted

    # Files and environment

    async def _volumes(self) -> dict[str, str]:
        """Write the volumes; return mount path -> where it is."""
        folders = {}
        for volume in self.pod["spec"].get("volumes") or ():
            folder = self.folder / "volumes" / volume["name"]
            folder.mkdir(parents=True)
            folders[volume["name"]] = folder
            sources = volume["projected"]["sources"] if "projected" in volume else [volume]
            for source in sources:
                for name, data in (await self._files(source)).items():
                    place = folder / name
                    place.parent.mkdir(parents=True, exist_ok=True)
                    place.touch(mode=0o600)
                    place.write_bytes(data)
        mounts = self.container.get("volumeMounts") or ()
        return {
            one["mountPath"]: str(folders[one["name"]] / one["subPath"] if "subPath" in one else folders[one["name"]])
            for one in mounts
        }

    async def _files(self, source: Mapping[str, Any]) -> dict[str, bytes]:
        if "secret" in source:
            item = source["secret"]
            found = await self._object("secrets", item.get("secretName") or item["name"])
            files = {key: base64.b64decode(text) for key, text in (found.get("data") or {}).items()}
        elif "configMap" in source:
            item = source["configMap"]
            if item["name"] == "kube-root-ca.crt":  # every namespace has it
                return {"ca.crt": self.kubelet.client.authority.encode()}
            found = await self._object("configmaps", item["name"])
            files = {key: text.encode() for key, text in (found.get("data") or {}).items()}
            files.update({key: base64.b64decode(text) for key, text in (found.get("binaryData") or {}).items()})
        elif "serviceAccountToken" in source:
            account = self.pod["spec"].get("serviceAccountName", "default")
            place = f"/api/v1/namespaces/{self.namespace}/serviceaccounts/{account}/token"
            found = await self.kubelet.client.patiently("POST", place, {"spec": {"expirationSeconds": 3600}})
            return {source["serviceAccountToken"]["path"]: found["status"]["token"].encode()}
        elif "downwardAPI" in source:
            listed = source["downwardAPI"].get("items") or ()
            return {one["path"]: self._field(one["fieldRef"]["fieldPath"]).encode() for one in listed}
        else:
            return {}
        listed = item.get("items")
        return {one["path"]: files[one["key"]] for one in listed} if listed else files

    async def _object(self, resource: str, name: str) -> Object:
        """Return a Secret or ConfigMap, also one that is made a moment later."""
        while True:
            found = await self.kubelet.client.patiently("GET", f"/api/v1/namespaces/{self.namespace}/{resource}/{name}")
            if found is not None:
                return dict(found)
            await asyncio.sleep(0.1)

    def _field(self, path: str) -> str:
        given = {**self.pod, "status": {"podIP": self.address, "hostIP": "127.0.0.1"}}
        if match := re.fullmatch(r"metadata\.(labels|annotations)\['(.+)'\]", path):
            return str((given["metadata"].get(match[1]) or {}).get(match[2], ""))
        found: Any = given
        for key in path.split("."):
            found = found.get(key, "")
        return str(found)

    async def _environment(self, places: Mapping[str, str]) -> dict[str, str]:
        values = {key: os.environ[key] for key in KEPT if key in os.environ}
        values.update(self.kubelet.service)
        for source in self.container.get("envFrom") or ():
            sort = "secret" if "secretRef" in source else "configMap"
            found = await self._files({sort: source[f"{sort}Ref"]})
            values.update({source.get("prefix", "") + key: data.decode() for key, data in found.items()})
        for item in self.container.get("env") or ():
            source = item.get("valueFrom") or {}
            if "fieldRef" in source:
                values[item["name"]] = self._field(source["fieldRef"]["fieldPath"])
            elif "secretKeyRef" in source:
                found = await self._object("secrets", source["secretKeyRef"]["name"])
                values[item["name"]] = base64.b64decode(found["data"][source["secretKeyRef"]["key"]]).decode()
            else:
                values[item["name"]] = rewritten(expanded(item.get("value", ""), values), places)
        return values

    # Its process

    async def _begin(self, places: Mapping[str, str], values: Mapping[str, str]) -> bool:
        command = arguments(self.container, values, places)
        try:
            with self.log.open("ab") as sink:
                self.process = await asyncio.create_subprocess_exec(
                    *command, stdin=asyncio.subprocess.DEVNULL, stdout=sink, stderr=sink, env=dict(values),
                    cwd=self.folder, start_new_session=True,
                )  # fmt: skip
        except (OSError, TypeError) as error:
            self.reason, self.message = "StartError", f"failed to create container: {error}"
            return False
        return True

    async def _report_running(self) -> None:
        since = now_text()
        running = {"running": {"startedAt": since}}
        probe = (self.container.get("readinessProbe") or {}).get("tcpSocket")
        if probe is None:
            await self._report("Running", running, ready=True)
            return
        await self._report("Running", running)
        while True:
            with contextlib.suppress(OSError):
                _, writer = await asyncio.open_connection(self.address, int(probe["port"]))
                writer.close()
                break
            await asyncio.sleep(PROBE_SECONDS)
        await self._report("Running", running, ready=True)

    def _kill(self, number: int) -> None:
        if self.process is not None:
            with contextlib.suppress(OSError):
                os.killpg(self.process.pid, number)

    def end(self, reason: str, message: str = "") -> None:
        """End it at once, for a reason that its status gives: ``OOMKilled`` or ``Evicted``."""
        self.reason, self.message = reason, message
        self._kill(signal.SIGKILL)

    async def stop(self, grace: float) -> None:
        """Ask it to end, end it when it does not, and return when it is gone."""
        self.stopping = True
        if self.process is None:
            self.task.cancel()
            self.ended.set()  # a task that has not begun does not say so
        elif grace > 0:
            self._kill(signal.SIGTERM)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.ended.wait(), grace)
        self._kill(signal.SIGKILL)
        await self.ended.wait()

    def discard(self) -> None:
        """End it without a word, and remove its files."""
        self._kill(signal.SIGKILL)
        self.task.cancel()
        shutil.rmtree(self.folder, ignore_errors=True)

    # What is said of it

    async def _report_end(self, code: int) -> None:
        if self.stopping:
            return  # the Pod is deleted in a moment
        phase = "Succeeded" if code == 0 and not self.reason else "Failed"
        await self._report(phase, state_of(code, "" if self.reason == "Evicted" else self.reason))

    async def _report(self, phase: str, state: Object, ready: bool = False) -> None:
        at, text = now_text(), "True" if ready else "False"
        known = [one for one in self.pod["status"].get("conditions") or () if one["type"] == "PodScheduled"]
        conditions = [*known, *({"type": sort, "status": text, "lastTransitionTime": at}
                                for sort in ("Ready", "ContainersReady"))]  # fmt: skip
        status: Object = {
            "phase": phase, "podIP": self.address, "podIPs": [{"ip": self.address}], "hostIP": "127.0.0.1",
            "startTime": at, "conditions": conditions,
            "containerStatuses": [{
                "name": self.container["name"], "image": self.container.get("image", ""), "imageID": "",
                "ready": ready, "restartCount": 0, "started": "running" in state, "state": state,
            }],
        }  # fmt: skip
        if self.reason == "Evicted":
            status["reason"], status["message"] = "Evicted", self.message
            conditions.append({"type": "DisruptionTarget", "status": "True", "reason": "TerminationByKubelet",
                               "message": self.message, "lastTransitionTime": at})  # fmt: skip
        elif self.reason == "StartError":
            state["terminated"]["message"] = self.message
        body = {"metadata": {"uid": self.uid}, "status": status}
        await self.kubelet.client.patiently("PATCH", f"{self.path}/status", body, "application/merge-patch+json")
