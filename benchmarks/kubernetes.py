"""Kubernetes: requests of a driver, 200 Pods, an idle cluster, and what a killed driver leaves behind.

Against the API server and the process kubelet of ``daskml_scale.testing``; requests are counted by the server's log
and by user, so that the kubelet's do not count. The server shares its process, and both share the machine, with the
driver: times are upper limits. The 200 Pods run ``sleep``: what is measured is Kubernetes' part and ours, not two
cores that start 200 interpreters.

``python -m benchmarks.kubernetes --repeat 3 --json FILE``
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

from .machine import load, machine

PODS = 200
IDLE = 10.0
PATIENCE = 60.0
SLEEP = {"containers": [{"name": "worker", "command": ["sleep", "1000"]}]}
GOALS = {
    "driver requests per Pod, over its life": 2.0,
    "seconds until 200 Pods run": 5.0,
    "seconds until 200 Pods are gone": 10.0,
    "seconds until nothing is left after kill -9": 10.0,
    "driver requests per second, idle": 1.0,
}
USER = "driver"
RULES = [
    {"apiGroups": [""], "resources": ["pods"], "verbs": ["create", "list", "watch", "delete"]},
    {"apiGroups": [""], "resources": ["pods/log"], "verbs": ["get"]},
    {"apiGroups": [""], "resources": ["pods/portforward"], "verbs": ["get", "create"]},
    {"apiGroups": [""], "resources": ["secrets"], "verbs": ["create"]},
    {"apiGroups": ["batch"], "resources": ["jobs"], "verbs": ["create", "delete"]},
]


def until(condition: Callable[[], Any]) -> float:
    """Return the seconds until a condition holds; at most `PATIENCE`."""
    began = time.perf_counter()
    while not condition() and time.perf_counter() - began < PATIENCE:
        time.sleep(0.05)
    return time.perf_counter() - began


class Bench:
    """A Kubernetes and the requests that a driver made of it."""

    def __init__(self, farm: Any) -> None:
        from daskml_scale.testing.kube.store import PODS as KIND

        self.farm, self.kind = farm, KIND
        self.kubeconfig = farm.user(USER, RULES)

    def definition(self, most: int, **item: Any) -> dict[str, Any]:
        classes = {"cpu": {"workers": {"min": 0, "max": most}, "memory": "1GiB", "cpu": 0.1, **item}}
        return dict(self.farm.definition(classes, kubernetes={"kubeconfig": str(self.kubeconfig)}))

    def requests(self) -> int:
        """Return how many the driver has made."""
        return sum(one.user.endswith(f":{USER}") for one in self.farm.server.requests)

    def running(self) -> int:
        pods = self.farm.server.store.all(self.kind, self.farm.namespace)
        labelled = [one for one in pods if one["metadata"]["labels"].get("daskml-scale/role") == "worker"]
        return sum(one["status"].get("phase") == "Running" for one in labelled)

    def many(self) -> dict[str, float]:
        """Start 200 Pods, look at them idle, and close."""
        from daskml_scale import deploy

        cluster = deploy.cluster(self.definition(PODS, pod=SLEEP, startup="600s"))
        before = self.requests()
        cluster.scale(PODS)
        found = {"seconds until 200 Pods run": until(lambda: self.running() == PODS)}
        idle = self.requests()
        time.sleep(IDLE)
        found["driver requests per second, idle"] = (self.requests() - idle) / IDLE
        began = time.perf_counter()
        cluster.close()
        found["seconds until 200 Pods are gone"] = (
            time.perf_counter() - began + until(lambda: not self.farm.listed("pods"))
        )
        found["of these, requests per Pod of 200 that close with their cluster"] = (self.requests() - before) / PODS
        return found

    def life(self) -> dict[str, float]:
        """Start workers one after another, retire each, and count the requests; more than a cluster's own."""
        from daskml_scale import deploy

        with deploy.cluster(self.definition(4)) as cluster:
            cluster._adaptive.stop()
            before = self.requests()
            for number in (4, 0):
                cluster.scale(number)
                until(lambda number=number: len(cluster.observed) == number and self.running() == number)
            until(lambda: len(self.farm.listed("pods")) == 1)
            return {"driver requests per Pod, over its life": (self.requests() - before) / 4}

    def killed(self) -> dict[str, float]:
        """Kill a driver at work and wait until nothing is left."""
        from daskml_scale.testing.driver import DRIVER

        given = self.definition(1)
        given["classes"]["cpu"]["workers"]["min"] = 1
        given["kubernetes"]["connect"] = "tunnel"
        command = [sys.executable, "-c", DRIVER, json.dumps(given)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as driver:
            assert driver.stdout is not None
            driver.stdout.readline()
            driver.kill()
        seconds = until(lambda: not self.farm.left() and not self.farm.processes())
        return {"seconds until nothing is left after kill -9": seconds}


def main() -> None:
    """Measure, print a table, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    from daskml_scale.testing.kube.farm import farm

    rounds: list[dict[str, float]] = []
    before = load()
    with tempfile.TemporaryDirectory(prefix="daskml-bench-") as folder:
        os.environ["DASKML_SCALE_HOME"] = str(Path(folder) / "home")
        with farm(Path(folder)) as made:
            bench = Bench(made)
            for number in range(options.repeat):
                found: dict[str, float] = {}
                for part in (bench.many, bench.life, bench.killed):
                    found.update(part())
                    print(f"{number + 1}: {found}", file=sys.stderr, flush=True)
                rounds.append(found)
    for name in rounds[0]:
        values = [one[name] for one in rounds]
        goal = GOALS.get(name)
        told = f"goal {goal:g}" if goal else ""
        print(f"{name:62} {median(values):7.2f} ({min(values):.2f}-{max(values):.2f}) {told}")
    if options.json:
        found = {name: (median(one[name] for one in rounds), GOALS.get(name)) for name in rounds[0]}
        about = {"size": "full", "repeat": options.repeat, **machine(), "load": before, "area": "Kubernetes"}
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps({**about, "found": found, "rounds": rounds}, indent=1) + "\n")


if __name__ == "__main__":
    main()
