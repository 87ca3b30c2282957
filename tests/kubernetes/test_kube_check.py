"""The manifests give what a driver needs and no more; ``clusters check`` says what is missing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from kube_helpers import CPU, Kubectl

from daskml_scale import deploy
from daskml_scale.deploy.check import check
from daskml_scale.deploy.check_kubernetes import NEEDED, SUBMIT, TUNNEL, missing
from daskml_scale.spec.kubernetes import KubernetesSpec
from daskml_scale.spec.load import load_cluster
from daskml_scale.testing.clusters import PATIENCE

MANIFESTS = Path(__file__).parent.parent.parent / "clusters" / "kubernetes"


@pytest.fixture(scope="module")
def applied(farm: Any, tmp_path_factory: pytest.TempPathFactory) -> str:
    """``kubectl apply -k`` of the manifests, in the namespace of the farm."""
    kubectl = Kubectl(farm)
    folder = tmp_path_factory.mktemp("overlay")
    base = folder / "base"
    base.mkdir()
    for path in MANIFESTS.glob("*.yaml"):
        (base / path.name).write_text(path.read_text())
    patch = {"target": {"kind": "Namespace"}, "patch": yaml.safe_dump(
        [{"op": "replace", "path": "/metadata/name", "value": farm.namespace}])}  # fmt: skip
    overlay = {"namespace": farm.namespace, "resources": ["base"], "patches": [patch]}
    (folder / "kustomization.yaml").write_text(yaml.safe_dump(overlay))
    kubectl("apply", "-k", str(folder))
    return kubectl("apply", "-k", str(folder))


def found(farm: Any, kubeconfig: Path, **options: Any) -> dict[str, Any]:
    given = farm.definition({"cpu": CPU}, kubernetes={"kubeconfig": str(kubeconfig), "connect": "tunnel", **options})
    return {one.what: one for one in check(KubernetesSpec.model_validate(given))}


def test_applying_again_changes_nothing(applied: str):
    lines = applied.splitlines()
    assert len(lines) == 8
    assert all(line.endswith("unchanged") for line in lines), applied


def test_the_manifests_are_enough_for_a_driver_outside_the_cluster(farm: Any, applied: str):
    kubeconfig = farm.kubeconfig_of("daskml-driver")
    seen = found(farm, kubeconfig)
    assert seen["rights"].ok
    assert seen["submit"].ok
    given = farm.definition({"cpu": CPU}, kubernetes={"kubeconfig": str(kubeconfig), "connect": "tunnel"})
    with deploy.cluster(given) as cluster, cluster.get_client() as client:
        assert client.submit(sum, [1, 2]).result(timeout=PATIENCE) == 3


def test_the_manifests_allow_no_verb_that_is_not_needed():
    documents = list(yaml.safe_load_all((MANIFESTS / "rbac.yaml").read_text()))
    given = {
        role["metadata"]["name"]: {
            (group, resource): set(rule["verbs"])
            for rule in role["rules"] for group in rule["apiGroups"] for resource in rule["resources"]
        }
        for role in documents if role["kind"] == "Role"
    }  # fmt: skip
    assert given == {
        "daskml-driver": {key: set(verbs) for key, verbs in {**NEEDED, **TUNNEL}.items()},
        "daskml-submitter": {key: set(verbs) for key, verbs in SUBMIT.items()},
    }
    assert not [one for one in documents if one["kind"].startswith("Cluster")]


def test_kubectl_agrees_about_the_rights(farm: Any, applied: str):
    own = Kubectl(farm, farm.kubeconfig_of("daskml-driver"))
    assert own("auth", "can-i", "create", "pods", "--subresource=portforward").strip() == "yes"
    assert own("auth", "can-i", "delete", "jobs.batch").strip() == "yes"
    for refused in (["get", "secrets"], ["list", "events"], ["create", "services"], ["get", "pods"]):
        assert own.run("auth", "can-i", *refused).stdout.strip() == "no"


def test_a_check_names_each_right_that_is_missing(farm: Any):
    rules = [{"apiGroups": [""], "resources": ["pods", "pods/log"], "verbs": ["*"]},
             {"apiGroups": ["batch"], "resources": ["jobs"], "verbs": ["create"]}]  # fmt: skip
    seen = found(farm, farm.user("half", rules))
    assert not seen["rights"].ok
    assert seen["rights"].said == (
        f"missing in namespace {farm.namespace}: create secrets, delete jobs, get pods/portforward, "
        "create pods/portforward"
    )
    assert "kubectl apply -k" in seen["rights"].remedy
    assert seen["submit"].said == f"missing in namespace {farm.namespace}: create configmaps, get jobs"
    assert not farm.left()


def test_a_check_without_a_server_says_so(farm: Any, tmp_path: Path):
    config = yaml.safe_load(farm.kubeconfig.read_text())
    config["clusters"][0]["cluster"]["server"] = "https://127.0.0.1:1"
    path = tmp_path / "nobody"
    path.write_text(yaml.safe_dump(config))
    seen = found(farm, path)
    assert not seen["server"].ok
    assert "does not answer" in seen["server"].said


def test_rules_may_be_wildcards_but_not_of_single_objects():
    everything = {"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}
    assert not missing([everything], {**NEEDED, **TUNNEL})
    assert missing([{**everything, "resourceNames": ["one"]}], {("", "pods"): ("list",)}) == ["list pods"]
    assert not missing([{**everything, "resources": ["*/log"]}], {("", "pods/log"): ("get",)})
    assert missing([{**everything, "resources": ["*/log"]}], TUNNEL) == [
        "get pods/portforward",
        "create pods/portforward",
    ]


def test_the_packaged_definition_is_right():
    spec = load_cluster(MANIFESTS.parent / "kubernetes.yaml")
    assert isinstance(spec, KubernetesSpec)
    assert set(spec.classes) == {"cpu", "gpu"}
