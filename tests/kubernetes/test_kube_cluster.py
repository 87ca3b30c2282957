"""What goes wrong in a Kubernetes, and what the cluster makes of it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.request
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from kube_helpers import CPU, Recorder, labelled, nothing_left

from daskml_scale import deploy
from daskml_scale.errors import ClusterError, UsageError
from daskml_scale.testing.clusters import PATIENCE, eventually, names, work


@pytest.fixture(scope="module")
def recorder() -> Recorder:
    return Recorder()


@pytest.fixture(scope="module")
def cluster(farm: Any, recorder: Recorder) -> Iterator[Any]:
    """One worker, through the API server's port-forward."""
    with deploy.cluster(farm.definition({"cpu": CPU}, kubernetes={"connect": "tunnel"}), sink=recorder) as found:
        found._adaptive.stop()
        yield found


@pytest.fixture
def node(farm: Any) -> Iterator[str]:
    """The Node, without faults afterwards."""
    (name,) = farm.kubelets
    yield name
    farm.script(name)


def only(cluster: Any) -> str:
    """Return the name of the one worker, when it is there."""
    (found,) = eventually(lambda: len(here := names(cluster, "cpu")) == 1 and here)
    return str(found)


def test_outside_the_cluster_all_goes_through_the_api_server(farm: Any, cluster: Any):
    assert cluster.scheduler_address.startswith("tls://127.0.0.1:")
    assert cluster.scheduler_address != cluster.scheduler.contact_address
    with cluster.get_client() as client:
        assert client.submit(sum, [1, 2]).result(timeout=PATIENCE) == 3
        big = client.submit(bytes, 20_000_000)
        assert len(big.result(timeout=PATIENCE)) == 20_000_000
    with urllib.request.urlopen(cluster.dashboard_link, timeout=60) as page:
        assert page.status == 200


def test_pods_belong_to_the_job_of_the_scheduler(farm: Any, cluster: Any):
    only(cluster)
    (job,) = farm.listed("batch/jobs")
    owners = [*farm.listed("secrets"), *labelled(farm, cluster)]
    assert len(owners) == 2
    assert {one["metadata"]["ownerReferences"][0]["uid"] for one in owners} == {job["metadata"]["uid"]}
    assert [one["metadata"]["name"] for one in labelled(farm, cluster)] == [f"{cluster.name}-{only(cluster)}"]


@pytest.mark.parametrize(("fault", "reason"), [("oom", "OOMKilled"), ("evict", "Evicted: The node was low")])
def test_a_worker_that_kubernetes_ended_is_replaced_and_the_event_says_why(
    farm: Any, cluster: Any, recorder: Recorder, node: str, fault: str, reason: str
):
    name = only(cluster)
    farm.script(node, {"fault": fault, "pods": f"{cluster.name}-{name}"})
    eventually(lambda: names(cluster, "cpu") - {name})
    assert recorder.said(name, reason, "replaced")
    assert only(cluster) != name
    eventually(lambda: len(labelled(farm, cluster)) == 1)


def test_a_task_that_takes_too_much_memory_is_an_oom_kill(farm: Any, cluster: Any, recorder: Recorder):
    def take_memory() -> None:
        import time

        held = b"x" * (3 << 28)
        time.sleep(PATIENCE)
        del held

    name = only(cluster)
    with cluster.get_client() as client:
        future = client.submit(take_memory, pure=False)
        with pytest.raises(Exception, match=r"KilledWorker|died|attempt"):
            future.result(timeout=PATIENCE)
    eventually(lambda: names(cluster, "cpu") - {name})
    assert recorder.said(name, "OOMKilled")


def test_a_pod_without_a_node_is_reported_and_runs_when_there_is_one(
    farm: Any, cluster: Any, recorder: Recorder, node: str
):
    name = only(cluster)
    farm.script(node, {"fault": "pending", "pods": "*", "message": "1 Insufficient patience"})
    cluster.scale(2)
    eventually(lambda: recorder.said("does not run", "Insufficient patience"))
    farm.script(node)
    eventually(lambda: len(names(cluster, "cpu")) == 2)
    cluster.scale(1)
    eventually(lambda: len(names(cluster, "cpu")) == 1)
    assert name


def test_workers_wait_while_a_quota_is_used_up(farm: Any, cluster: Any, recorder: Recorder):
    only(cluster)
    pods = eventually(lambda: len(found := farm.listed("pods")) == 2 and len(found))  # of the scheduler and the worker
    quota = {"metadata": {"name": "full"}, "spec": {"hard": {"pods": str(pods)}}}
    farm.request("POST", farm.path("resourcequotas"), quota)
    try:
        cluster.scale(2)
        eventually(lambda: recorder.said("waits", "exceeded quota: full"))
        assert len(farm.listed("pods")) == pods
    finally:
        farm.request("DELETE", farm.path("resourcequotas", "full"))
    eventually(lambda: len(names(cluster, "cpu")) == 2)
    cluster.scale(1)
    eventually(lambda: len(names(cluster, "cpu")) == 1)


def test_an_image_that_is_not_there_fails_the_start_at_once_with_the_words_of_the_condition(farm: Any, node: str):
    farm.script(node, {"fault": "pull", "pods": "broken-*"})
    before = set(farm.left())
    with pytest.raises(ClusterError, match=r"ImagePullBackOff: Back-off pulling image .daskml-scale:test"):
        deploy.cluster({**farm.definition({"cpu": CPU}), "name": "broken"})
    eventually(lambda: set(farm.left()) <= before)


def test_who_may_not_is_told_what_is_missing_and_leaves_nothing(farm: Any):
    before = set(farm.left())
    rules = [{"apiGroups": [""], "resources": ["pods"], "verbs": ["list", "watch", "create", "delete"]}]
    limited = {"kubeconfig": str(farm.user("nojobs", rules))}
    with pytest.raises(ClusterError, match=r'cannot create resource "jobs".*kubectl apply -k clusters/kubernetes'):
        deploy.cluster(farm.definition({"cpu": CPU}, kubernetes=limited))
    assert set(farm.left()) <= before


def test_credentials_that_are_missing_or_wrong_are_named(farm: Any, tmp_path: Path):
    with pytest.raises(UsageError, match="no-such-file does not exist"):
        deploy.cluster(farm.definition({"cpu": CPU}, kubernetes={"kubeconfig": str(tmp_path / "no-such-file")}))
    with pytest.raises(ClusterError, match="no-such-context"):
        deploy.cluster(farm.definition({"cpu": CPU}, kubernetes={"context": "no-such-context"}))
    if farm.server is not None:
        old = farm.server.write_kubeconfig(tmp_path / "old", "expired")
        with pytest.raises(ClusterError, match="Unauthorized"):
            deploy.cluster(farm.definition({"cpu": CPU}, kubernetes={"kubeconfig": str(old)}))


@pytest.mark.slow
def test_a_server_that_restarts_costs_nothing_when_the_scheduler_is_reached_directly(farm: Any, tmp_path: Path):
    if farm.server is None:
        pytest.skip("a real server is not ours to restart")
    definition = farm.definition({"cpu": CPU}, kubernetes={"connect": "direct"})
    with deploy.cluster({**definition, "name": "apart"}) as cluster, cluster.get_client() as client:
        cluster._adaptive.stop()
        futures = client.map(work, range(20), folder=str(tmp_path), pure=False)
        client.gather(futures)
        farm.server.call(farm.server.restart(away=0.5, forbidding=1.0))
        cluster.scale(2)
        eventually(lambda: len(names(cluster, "cpu")) == 2)
        assert [result[0] for result in client.gather(futures)] == list(range(20))
        assert len(list(tmp_path.iterdir())) == 20
    eventually(lambda: not [one for one in farm.left() if "apart" in one])


@pytest.mark.slow
def test_kill_9_of_the_driver_leaves_nothing(farm: Any, tmp_path: Path):
    from daskml_scale.testing.driver import DRIVER

    before = set(farm.left())
    processes = {one.pid for one in farm.processes()}
    definition = farm.definition({"cpu": CPU}, kubernetes={"connect": "tunnel"})
    driver = subprocess.Popen(
        [sys.executable, "-c", DRIVER, json.dumps({**definition, "name": "orphan"})],
        stdout=subprocess.PIPE, text=True, env={**os.environ, "DASKML_SCALE_HOME": str(tmp_path)},
    )  # fmt: skip
    try:
        assert driver.stdout is not None
        assert driver.stdout.readline() == "working\n"
        assert len(set(farm.left()) - before) == 4  # Job, Secret, two Pods
    finally:
        driver.send_signal(signal.SIGKILL)
        driver.communicate()
    eventually(lambda: set(farm.left()) <= before and {one.pid for one in farm.processes()} <= processes)


def test_a_pod_costs_its_driver_two_requests_at_most_and_closing_costs_one(farm: Any, cluster: Any):
    """The last test of the shared cluster: it closes it."""
    if farm.server is None:
        pytest.skip("only our server counts requests")
    only(cluster)
    cluster.close()
    assert [one for one in farm.left() if cluster.name in one] == []
    made = [one for one in farm.server.requests if one.verb == "create" and one.resource == "pods" and one.code == 201]
    deleted = Counter(one.name for one in farm.server.requests if one.verb == "delete" and one.code == 200)
    # Pods that the cluster made have no name in the path of a creation; who deletes gives one.
    own = {name: number for name, number in deleted.items() if name.startswith(f"{cluster.name}-")}
    assert made
    # The kubelet confirms each deletion by one of its own, at most.
    assert max(own.values()) <= 2
    assert deleted[cluster.name] == 1
    eventually(lambda: nothing_left(farm))
