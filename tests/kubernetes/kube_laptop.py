"""A machine outside the cluster that submits runs, and the workflow that it submits."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from kube_helpers import CPU

from daskml_scale.cli import main
from daskml_scale.testing.clusters import eventually
from daskml_scale.testing.kube.client import ApiError

RBAC = Path(__file__).parent.parent.parent / "clusters" / "kubernetes" / "rbac.yaml"
CHUNKS = 6
UNITS = CHUNKS + 1
"""One is for the coordinates."""
CUBES = """\
version: 1
name: cubes
store: {store}
cluster: farm.yaml
stages:
  cube:
    kind: generate
    function: made:cube
    dims: {{x: 6}}
    chunks: {{x: 1}}
    options: {{marks: {marks}, gate: {gate}, held: 3}}
"""
MADE = '''\
import os, time, uuid
import numpy as np, xarray as xr
from own.values import value

def cube(region, *, marks, gate, held):
    """Each chunk leaves a mark; from one on they wait until the gate is open."""
    x = region["x"].start
    if region["x"].stop > x:
        open(f"{marks}/{x}-{uuid.uuid4().hex}", "w").close()
        while x >= held and not os.path.exists(gate):
            time.sleep(0.05)
    return xr.Dataset({"v": ("x", np.array([value(one) for one in range(x, region["x"].stop)], dtype="int64"))})
'''


def made_of(farm: Any, item: dict[str, Any]) -> None:
    """Make an object of a manifest in the namespace of a farm, unless it is there."""
    group, _, _ = item["apiVersion"].rpartition("/")
    plural = f"{item['kind'].lower()}s"
    for subject in item.get("subjects", ()):
        subject["namespace"] = farm.namespace
    with contextlib.suppress(ApiError):
        farm.request("POST", farm.path(f"{group}/{plural}" if group else plural), item)


class Laptop:
    """A machine outside the cluster: its folder, its registry, and its user, who has the rights of the manifests."""

    def __init__(self, farm: Any, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.farm, self.folder, self.capsys = farm, folder, capsys
        self.marks, self.gate = folder / "marks", folder / "gate"
        self.marks.mkdir()
        config = farm.kubeconfig_of("daskml-driver")
        classes = {"cpu": {**CPU, "workers": {"min": 1, "max": 1}}}
        given = farm.definition(classes, kubernetes={"kubeconfig": str(config)}, runner={"memory": "1GiB", "cpu": 0.1})
        (folder / "farm.yaml").write_text(json.dumps(given))
        (folder / "own").mkdir()
        (folder / "own" / "__init__.py").write_text("")
        (folder / "own" / "values.py").write_text("def value(x):\n    return x * 10\n")
        (folder / "made.py").write_text(MADE)
        self.write()

    def write(self, old: str = "", new: str = "") -> None:
        """Write the workflow, with one thing in it changed."""
        text = CUBES.format(store=self.folder / "store", marks=self.marks, gate=self.gate)
        assert old in text
        (self.folder / "cubes.yaml").write_text(text.replace(old, new) if old else text)

    def __call__(self, *words: str) -> tuple[int, str, str]:
        code = main(words)
        said = self.capsys.readouterr()
        return code, said.out, said.err

    @contextlib.contextmanager
    def offline(self) -> Iterator[None]:
        """Be away: the API server cannot be reached from here."""
        path = Path(json.loads((self.folder / "farm.yaml").read_text())["kubernetes"]["kubeconfig"])
        right = path.read_text()
        config = json.loads(right)
        config["clusters"][0]["cluster"]["server"] = "https://127.0.0.1:1"
        path.write_text(json.dumps(config))
        try:
            yield
        finally:
            path.write_text(right)

    def submitted(self, *words: str) -> str:
        """Submit the workflow and return the id of the run."""
        code, out, err = self("submit", "cubes.yaml", *words)
        assert code == 0, err
        return out.strip()

    def status(self, run: str) -> dict[str, Any]:
        code, out, err = self("status", run, "--json")
        assert code == 0, err
        return dict(json.loads(out))

    def pods(self) -> list[dict[str, Any]]:
        """Return the Pods of runners."""
        return list(self.farm.listed("pods", labelSelector="daskml-scale/role=runner"))

    def told(self) -> str:
        """Return what the Pods wrote, and in which state they are."""
        parts = []
        for pod in self.farm.listed("pods"):
            name = pod["metadata"]["name"]
            with contextlib.suppress(ApiError):
                log = self.farm.request("GET", self.farm.path("pods", f"{name}/log"))
                parts.append(f"== {name} {pod['status'].get('phase')}\n{log}")
        return "\n".join(parts)

    def begun(self, count: int) -> int:
        """Wait until chunks have left marks, and return how many."""
        return int(eventually(lambda: len(found := list(self.marks.iterdir())) >= count and len(found)))


def finished(laptop: Laptop) -> dict[str, Any] | None:
    """Return the Job of the runner once it has ended."""
    for job in laptop.farm.listed("batch/jobs", labelSelector="daskml-scale/role=runner"):
        if any(one["type"] in ("Complete", "Failed") for one in (job.get("status") or {}).get("conditions") or ()):
            return dict(job)
    return None


def command_of(process: psutil.Process) -> list[str]:
    """Return the words of a process; none when it is gone."""
    with contextlib.suppress(psutil.Error):
        return list(process.cmdline())
    return []


def end_jobs(farm: Any) -> None:
    """Delete all Jobs, and with them what belongs to them."""
    for job in farm.listed("batch/jobs"):
        with contextlib.suppress(ApiError):
            farm.request(
                "DELETE", farm.path("batch/jobs", job["metadata"]["name"]), {"propagationPolicy": "Background"}
            )
