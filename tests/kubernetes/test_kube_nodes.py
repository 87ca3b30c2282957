"""A Node that falls silent, and as many Pods as a large cluster has."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from kube_helpers import CPU, Recorder, labelled

from daskml_scale import deploy
from daskml_scale.testing.clusters import eventually, names

pytestmark = pytest.mark.faults_long
QUICK = {"pod": {"tolerations": [
    {"key": f"node.kubernetes.io/{key}", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 1}
    for key in ("not-ready", "unreachable")
]}}  # fmt: skip


def test_workers_of_a_lost_node_are_replaced_and_their_pods_deleted_by_force(tmp_path: Path, kubeconfig: Path | None):
    """On a real server this takes as long as its controller waits for a Node."""
    if kubeconfig is not None:
        pytest.skip("a real server takes minutes to give up a Node")
    from daskml_scale.testing.kube.farm import farm

    recorder = Recorder()
    with farm(tmp_path, patience=5.0) as made:
        (first,) = made.kubelets
        made.add_node("doomed", "--heartbeat", "0.5", "--label", "role=doomed")
        doomed = {**CPU, **QUICK, "pod": {**QUICK["pod"], "nodeSelector": {"role": "doomed"}}}
        safe = {"nodeSelector": {"kubernetes.io/hostname": first}}
        definition = made.definition({"cpu": {**CPU, "pod": safe}, "far": doomed})
        definition["scheduler"]["pod"] = safe
        with deploy.cluster(definition, sink=recorder) as cluster:
            cluster._adaptive.stop()
            (lost,) = eventually(lambda: names(cluster, "far"))
            made.script("doomed", {"fault": "lost"})
            made.kubelets["doomed"].wait(60)
            eventually(lambda: recorder.said(lost, "is lost", "replaced"))
            eventually(lambda: f"{cluster.name}-{lost}" not in {
                pod["metadata"]["name"] for pod in labelled(made, cluster)})  # fmt: skip
            made.add_node("new", "--heartbeat", "0.5", "--label", "role=doomed")
            eventually(lambda: names(cluster, "far") - {lost})
            assert len(names(cluster, "cpu")) == 1
        assert made.kubelets[first].poll() is None


def test_two_hundred_pods_come_and_go_with_one_request_each(farm: Any):
    """They run ``sleep``: two cores do not start 200 interpreters in the time of a test."""
    sleep = {"containers": [{"name": "worker", "command": ["sleep", "1000"]}]}
    many = {**CPU, "workers": {"min": 0, "max": 200}, "startup": "600s", "pod": sleep}
    rules = [
        {"apiGroups": [""], "resources": ["pods"], "verbs": ["create", "list", "watch", "delete"]},
        {"apiGroups": [""], "resources": ["secrets"], "verbs": ["create"]},
        {"apiGroups": ["batch"], "resources": ["jobs"], "verbs": ["create", "delete"]},
    ]
    kubeconfig = str(farm.user("many", rules))
    with deploy.cluster(farm.definition({"cpu": many}, kubernetes={"kubeconfig": kubeconfig})) as cluster:
        cluster.scale(200)

        def running() -> int:
            return sum(pod["status"]["phase"] == "Running" for pod in labelled(farm, cluster))

        eventually(lambda: running() == 200)
    assert not farm.left()
    if farm.server is not None:
        made = Counter(
            one.verb for one in farm.server.requests if one.user.endswith(":many") and one.resource == "pods"
        )
        assert made["create"] == 200
        assert made["delete"] == 0  # they went with their Job
