"""Whole runs on Pods: through an API server that restarts, the flights, and a dashboard that others may reach."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import yaml
from kube_helpers import CPU, nothing_left
from kube_laptop import CHUNKS, Laptop

from daskml_scale import deploy
from daskml_scale.api import check
from daskml_scale.testing.clusters import eventually


def tunnelled(laptop: Laptop, memory: str = "512MiB") -> None:
    """Let drivers outside the cluster go through the API server, to workers of that size."""
    given = yaml.safe_load((laptop.folder / "farm.yaml").read_text())
    given["kubernetes"]["connect"] = "tunnel"
    given["classes"]["cpu"]["memory"] = memory
    (laptop.folder / "farm.yaml").write_text(json.dumps(given))


@pytest.mark.slow
def test_a_server_that_restarts_in_mid_run_costs_a_run_through_it_no_committed_unit(laptop: Laptop):
    if laptop.farm.server is None:
        pytest.skip("a real server is not ours to restart")
    tunnelled(laptop)
    run = subprocess.Popen([sys.executable, "-m", "daskml_scale", "run", "cubes.yaml", "--quiet"])
    laptop.begun(4)
    eventually(lambda: len(list((laptop.folder / "store").glob("cube.ledger/*"))) > 0)
    laptop.farm.server.call(laptop.farm.server.restart(away=0.5, forbidding=0.5))
    laptop.begun(5)  # what was in flight was lost with the connection and is sent again
    laptop.gate.touch()
    assert run.wait(120) == 0
    names = [path.name.partition("-")[0] for path in laptop.marks.iterdir()]
    assert set(names) == {str(number) for number in range(CHUNKS)}
    eventually(lambda: nothing_left(laptop.farm))


@pytest.mark.faults_long
def test_a_server_that_restarts_costs_a_submitted_run_nothing(laptop: Laptop):
    if laptop.farm.server is None:
        pytest.skip("a real server is not ours to restart")
    run = laptop.submitted()
    laptop.begun(4)
    opener = threading.Timer(3.0, laptop.gate.touch)
    opener.start()
    laptop.farm.server.call(laptop.farm.server.restart(away=0.5, forbidding=0.5))
    code, _, err = laptop("wait", run)
    opener.join()
    assert code == 0, err
    assert len(list(laptop.marks.iterdir())) == CHUNKS  # the runner reaches its workers directly: none ran twice


@pytest.mark.faults_long
def test_the_flights_are_submitted_and_go_to_their_end(laptop: Laptop):
    tunnelled(laptop, "2GiB")
    code, out, err = laptop("submit", "flights", "--cluster", "farm.yaml", "--store", str(laptop.folder / "flights"))
    assert code == 0, err
    run = out.strip()
    code, _, err = laptop("wait", run)
    assert code == 0, laptop("logs", run)[1]
    found = laptop.status(run)
    assert {stage["state"] for stage in found["stages"]} == {"ok"}
    assert [stage["name"] for stage in found["stages"]] == list(check("flights").stages)
    assert (laptop.folder / "flights" / "predictions.zarr").is_dir()


@pytest.mark.faults_long
def test_the_flights_run_from_outside_go_to_their_end_although_a_worker_dies(laptop: Laptop):
    tunnelled(laptop, "2GiB")
    (node,) = laptop.farm.kubelets
    threading.Timer(20.0, lambda: laptop.farm.script(node, {"fault": "oom", "pods": "*-cpu-0"})).start()
    code, _, err = laptop(
        "run", "flights", "--cluster", "farm.yaml", "--store", str(laptop.folder / "flights"), "--quiet"
    )
    laptop.farm.script(node)
    assert code == 0, err
    eventually(lambda: nothing_left(laptop.farm))


def asked(url: str, **headers: str) -> int:
    """Return the code of an answer."""
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=60) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def test_a_dashboard_that_others_may_reach_asks_for_the_token_of_its_link(farm: Any):
    given = farm.definition({"cpu": {**CPU, "workers": {"min": 0, "max": 1}}}, dashboard={"listen": "0.0.0.0:0"})
    with deploy.cluster({**given, "name": "gated"}, preload=("daskml_scale.dashboard.preload",)) as cluster:
        link = urlsplit(cluster.dashboard_link)
        (token,) = parse_qs(link.query)["token"]
        base = f"http://127.0.0.1:{link.port}"
        for path in ("/status", "/workflow", "/workflow.json", "/metrics", "/json/"):
            assert asked(base + path) == 401, path
        assert asked(base + "/workflow.json", Authorization=f"Bearer {token}") == 200
        assert asked(base + "/workflow.json", Authorization=f"Bearer {token}", Host="evil.example") == 421
        assert asked(cluster.dashboard_link) == 200
        assert asked(base + "/health") == 200
