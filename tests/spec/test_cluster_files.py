"""Cluster files of all backends: the packaged ones load, and a mistake is one error at its line."""

from __future__ import annotations

from pathlib import Path

import pytest

from daskml_scale.errors import SpecError
from daskml_scale.spec.cluster import ExistingSpec
from daskml_scale.spec.hosts import Host, SshSpec
from daskml_scale.spec.kubernetes import KubernetesSpec
from daskml_scale.spec.load import load_cluster

FOLDER = Path(__file__).parent.parent.parent / "clusters"
TEXTS = {kind: (FOLDER / f"{kind}.yaml").read_text() for kind in ("existing", "gpu", "kubernetes", "ssh")}


def ssh(old: str = "", new: str = "") -> SshSpec:
    assert old in TEXTS["ssh"]
    spec = load_cluster(TEXTS["ssh"].replace(old, new))
    assert isinstance(spec, SshSpec)
    return spec


def test_the_packaged_files_load() -> None:
    assert load_cluster(TEXTS["gpu"]).classes["gpu"].resources == {"GPU": 1}
    pods, joined = load_cluster(TEXTS["kubernetes"]), load_cluster(TEXTS["existing"])
    assert isinstance(pods, KubernetesSpec)
    assert pods.kubernetes.service_account == "daskml-runner"
    assert isinstance(joined, ExistingSpec)
    assert (joined.address, joined.cluster) == ("tcp://127.0.0.1:8786", None)


def test_what_a_host_does_not_say_is_as_for_all_hosts() -> None:
    spec = ssh("slots: 4, threads: 8", "slots: 4, user: ada, port: 2222")
    plain, own = spec.classes["cpu"].hosts
    everywhere = {"identity": "~/.ssh/id_ed25519", "python": "/opt/daskml/bin/python"}
    assert spec.options_of(plain) == {"user": "dask", "port": None, **everywhere}
    assert spec.options_of(own) == {"user": "ada", "port": 2222, **everywhere}


@pytest.mark.parametrize(
    ("scheduler", "place"),
    [
        ("scheduler: {host: node-b.example.org}", ("node-b.example.org", 4, 0)),
        ("scheduler: {host: head.example.org, bind: 'tls://:9000'}", ("head.example.org", 1, 9000)),
        ("", ("node-a.example.org", 2, 0)),
    ],
)
def test_the_scheduler_is_on_its_host_else_on_the_first(scheduler: str, place: tuple[str, int, int]) -> None:
    host, port = ssh("scheduler: {host: node-a.example.org, bind: 'tls://:8786'}", scheduler).scheduler_place
    assert isinstance(host, Host)
    assert (host.host, host.slots, port) == place


MISTAKES = [
    ("ssh", "{host: node-a.example.org, slots: 2}", "{host: me@node-a, slots: 2}", "classes.cpu.hosts[0].host",
     "'me@node-a' is not a host; write its name or address, and its user and port as keys of their own"),
    ("ssh", "tls://:8786", "tcp://:8786", "scheduler.bind", "what leaves a machine is encrypted"),
    ("ssh", "tls://:8786", "tls://:99999", "scheduler.bind", "write tls://:PORT, 0 for any free port"),
    ("ssh", "min: 0, max: auto", "min: 0, max: 7", "classes.cpu", "workers.max is 7 and its hosts have 6 slots"),
    ("ssh", "min: 0, max: auto", "min: 7, max: auto", "classes.cpu", "workers.min is 7 and its hosts have 6 slots"),
    ("ssh", "host: node-b.example.org", "host: node-a.example.org", "classes.cpu",
     "host node-a.example.org is listed twice; add up its slots in one line"),
    ("kubernetes", "namespace: daskml", "namespace: Das_kML", "kubernetes.namespace", "is not a name of Kubernetes"),
    ("kubernetes", "max: 200", "max: auto", "classes.cpu", "a Kubernetes cluster may grow without end: write a number"),
    ("kubernetes", "{GPU: 1}", "{GPU: 0.5}", "classes.gpu", "GPU: Kubernetes gives whole devices only"),
    ("kubernetes", "name: kubernetes", "name: Big_one", "", "Big_one becomes part of the names of Pods"),
    ("kubernetes", "name: kubernetes", f"name: {'k' * 38}", "", "are too long for the names of Pods: at most 40"),
    ("existing", "address: tcp://127.0.0.1:8786", "address: '127.0.0.1:8786'", "address", "write tcp://host:8786"),
    ("existing", "address: tcp://127.0.0.1:8786", "cluster: SLURMCluster", "cluster", "write module:Name"),
    ("existing", "address: tcp://127.0.0.1:8786", "cluster: dask_jobqueue:SLURMCluster", "",
     "dask_jobqueue:SLURMCluster has no most workers; write workers: {min: 0, max: 8}"),
    ("existing", "address:", "options: {a: 1}\naddress:", "", "options is for cluster: (a class to start)"),
    ("existing", "address:", "scaling: {budget: {total: 1}}\naddress:", "", "scaling is for cluster:"),
    ("existing", "address: tcp://127.0.0.1:8786",
     "cluster: a.b:C\nworkers: {max: 1}\nscaling: {budget: {total: 1}}", "", "scaling.budget needs prices"),
    ("existing", "address: tcp://127.0.0.1:8786", "cluster: a.b:C\naddress: tcp://h:1", "", "give either address:"),
    ("existing", "address:", "certificates: {ca: a, cert: b, key: c}\naddress:", "", "is not encrypted"),
    ("existing", "address: tcp://127.0.0.1:8786",
     "cluster: a.b:C\nworkers: {max: 1}\ncertificates: {ca: a, cert: b, key: c}", "", "certificates is for address:"),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "old", "new", "path", "words"), MISTAKES, ids=lambda value: str(value)[:30])
def test_a_mistake_is_one_error_at_its_key(kind: str, old: str, new: str, path: str, words: str) -> None:
    assert old in TEXTS[kind]
    with pytest.raises(SpecError) as caught:
        load_cluster(TEXTS[kind].replace(old, new, 1), name="f.yaml")
    assert (caught.value.file, caught.value.path or "") == ("f.yaml", path)
    assert words in str(caught.value)
