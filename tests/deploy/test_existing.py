"""Clusters that something else makes: at an address, or of any Dask cluster class."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from distributed import Client, LocalCluster, Security

import daskml_scale as dms
from daskml_scale import deploy
from daskml_scale.errors import ClusterError, SpecError, UsageError

HERE = {"host": "127.0.0.1", "dashboard_address": "127.0.0.1:0", "threads_per_worker": 1}
BASE = {"version": 1, "name": "team", "backend": "existing"}
MADE = {**BASE, "cluster": "distributed:LocalCluster", "options": {**HERE, "n_workers": 0}, "workers": {"max": 2}}


@pytest.fixture(scope="module")
def theirs() -> Iterator[LocalCluster]:
    """A cluster that somebody else started."""
    with LocalCluster(n_workers=2, **HERE) as cluster:
        yield cluster


def test_a_scheduler_at_an_address_is_used_and_left_as_it_is(theirs: LocalCluster) -> None:
    with deploy.cluster({**BASE, "address": theirs.scheduler_address}) as cluster:
        assert cluster.dashboard_link == theirs.dashboard_link
        with cluster.get_client(set_as_default=False) as client:
            assert dms.map(lambda item: item + 1, range(1000), client=client) == list(range(1, 1001))
        with pytest.raises(UsageError, match="is scaled by who started it"):
            cluster.scale(4)
    with Client(theirs, set_as_default=False) as client:
        assert client.submit(sum, [1, 2]).result() == 3
        assert len(client.scheduler_info()["workers"]) == 2


def test_a_run_uses_it_by_the_name_of_its_file(theirs: LocalCluster, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "team.yaml").write_text(
        f"{{version: 1, name: team, backend: existing, address: '{theirs.scheduler_address}'}}"
    )
    (tmp_path / "a.csv").write_text("key,x\n1,2\n3,4\n")
    (tmp_path / "w.yaml").write_text(
        "version: 1\nname: w\nstore: ./s\ncluster: ./team.yaml\n"
        "stages:\n  table: {kind: ingest, source: a.csv, row: {dim: row}}\n"
    )
    seen = []
    summary = dms.run("w.yaml", sink=seen.append)
    assert summary.exit_code == 0
    assert [event.cluster for event in seen if event.kind == "cluster_started"] == ["./team.yaml"]
    assert theirs.status.name == "running"


def test_a_scheduler_that_does_not_answer_is_named(monkeypatch: Any) -> None:
    monkeypatch.setattr("daskml_scale.deploy.existing.CONNECT_SECONDS", 0.5)
    with pytest.raises(
        ClusterError, match=r"cluster team: no scheduler answers at tcp://127.0.0.1:9 .*correct address"
    ):
        deploy.cluster({**BASE, "address": "tcp://127.0.0.1:9"})


def test_a_scheduler_behind_tls_is_reached_with_certificates_from_files(tmp_path: Path) -> None:
    own = Security.temporary()
    files = {"ca": own.tls_ca_file, "cert": own.tls_client_cert, "key": own.tls_client_key}
    for name, text in files.items():
        (tmp_path / f"{name}.pem").write_text(text)
    with LocalCluster(n_workers=1, security=own, **HERE) as theirs:
        spec = {**BASE, "address": theirs.scheduler_address}
        names = {name: str(tmp_path / f"{name}.pem") for name in files}
        with (
            deploy.cluster({**spec, "certificates": names}) as cluster,
            cluster.get_client(set_as_default=False) as client,
        ):
            assert client.submit(sum, [1, 2]).result() == 3
        with pytest.raises(SpecError, match="wants certificates; write certificates:"):
            deploy.cluster(spec)


def test_certificates_that_are_not_there_are_named(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    files = {"ca": "ca.pem", "cert": "me.pem", "key": "me.key"}
    spec = {**BASE, "address": "tls://127.0.0.1:9", "certificates": files}
    with pytest.raises(SpecError, match=r"certificates\.ca: there is no file ca\.pem in .*; correct it"):
        deploy.cluster(spec)
    for name in files.values():
        Path(name).write_text("no certificate")
    with pytest.raises(SpecError, match="certificates: these files are no certificates and key"):
        deploy.cluster(spec)


def test_a_class_is_started_with_its_options_and_closed_at_the_end() -> None:
    with deploy.cluster(MADE) as cluster, cluster.get_client() as client:
        client.wait_for_workers(2, timeout=60)
        assert isinstance(cluster, LocalCluster)
        assert dms.map(str, range(10), client=client) == [str(item) for item in range(10)]
    assert cluster.status.name == "closed"


def test_with_scaling_it_follows_our_backlog() -> None:
    scaling = {"horizon": "1 min", "keep_idle": "1s"}  # Dask knows no min
    spec = {**MADE, "workers": {"min": 0, "max": 2}, "startup": "2s", "scaling": scaling}
    with deploy.cluster(spec) as cluster, cluster.get_client() as client:
        assert len(client.scheduler_info()["workers"]) == 0
        dms.map(lambda item: time.sleep(0.2), range(40), client=client)
        assert cluster._adaptive.controller.decisions
        assert any(change["status"] == "up" for _, change in cluster._adaptive.log)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"cluster": "no_such_module:C"}, SpecError, "no_such_module cannot be imported"),
        ({"cluster": "distributed:NoSuchCluster"}, SpecError, "distributed has no NoSuchCluster"),
        ({"cluster": "distributed:Client2"}, SpecError, "has no Client2"),
        ({"cluster": "collections:OrderedDict"}, SpecError, "is no Dask cluster class"),
        ({"options": {**HERE, "protocol": "pigeon"}}, ClusterError, "LocalCluster did not start: .*pigeon"),
        ({"cluster": "LocalCluster"}, SpecError, "write module:Name"),
        ({"address": "tcp://h:1"}, SpecError, "give either address: .* or cluster:"),
        ({"cluster": None}, SpecError, "give either address: .* or cluster:"),
        ({"workers": None}, SpecError, "has no most workers; write workers:"),
        ({"workers": {"max": "auto"}}, SpecError, "has no most workers"),
        ({"scaling": {"budget": {"per_hour": 1}}}, SpecError, "budget needs prices"),
        ({"cluster": None, "address": "tcp://h:1"}, SpecError, "options is for cluster:"),
        ({"cluster": None, "options": {}, "workers": None, "address": "10.0.0.1:8786"}, SpecError, "write tcp://host"),
        ({"cluster": None, "options": {}, "workers": None, "address": "tcp://h:1",
          "certificates": {"ca": "a", "cert": "b", "key": "c"}}, SpecError, "is not encrypted"),
        ({"certificates": {"ca": "a", "cert": "b", "key": "c"}}, SpecError, "certificates is for address:"),
    ],
)  # fmt: skip
def test_a_definition_that_cannot_be_says_why(change: dict[str, Any], error: Any, message: str) -> None:
    spec = {key: value for key, value in {**MADE, **change}.items() if value is not None}
    with pytest.raises(error, match=message):
        deploy.cluster(json.loads(json.dumps(spec)))


def test_a_job_queue_of_this_machine_runs_our_work() -> None:
    pytest.importorskip("dask_jobqueue", reason="dask-jobqueue is not installed")
    spec = {
        **BASE,
        "cluster": "dask_jobqueue.local:LocalCluster",
        "options": {
            "cores": 1,
            "memory": "1GiB",
            "scheduler_options": {"host": "127.0.0.1", "dashboard_address": "127.0.0.1:0"},
        },
        "workers": {"max": 1},
    }
    with deploy.cluster(spec) as cluster, cluster.get_client() as client:
        client.wait_for_workers(1, timeout=60)
        assert dms.map(str, range(10), client=client) == [str(item) for item in range(10)]
