"""A cluster of SSH hosts: real servers on 127.0.0.x in this process, real workers, and everything that goes wrong."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from deploy_helpers import eventually

pytest.importorskip("asyncssh", reason="asyncssh is not installed: pip install 'daskml-scale[ssh]'")

from distributed import Client

from daskml_scale import deploy
from daskml_scale.deploy.certificates import new_authority
from daskml_scale.deploy.check import check
from daskml_scale.errors import ClusterError, SpecError
from daskml_scale.spec.hosts import SshSpec
from daskml_scale.testing.driver import DRIVER
from daskml_scale.testing.ssh_hosts import ROOT, Farm, farm

HOSTS = [{"host": "127.0.0.2", "slots": 2}, {"host": "127.0.0.3", "threads": 2}]
LEASE = {"lease": "4s"}


def cpu(hosts: list[dict[str, Any]], least: int = 1, **more: Any) -> dict[str, Any]:
    return {"cpu": {"workers": {"min": least}, "memory": "512MiB", "hosts": [dict(one) for one in hosts], **more}}


@pytest.fixture(scope="module")
def hosts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Farm]:
    with farm(tmp_path_factory.mktemp("farm")) as made:
        yield made


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def cluster(hosts: Farm, home: Path) -> Iterator[Any]:
    """Three workers on two hosts; it does not adapt."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DASKML_SCALE_HOME", str(home))
        found = deploy.cluster(hosts.definition(cpu(HOSTS), ssh=LEASE), adapt=False)
    with found:
        yield found


@pytest.fixture
def client(cluster: Any) -> Iterator[Client]:
    eventually(lambda: len(cluster.observed) == 3, timeout=90)
    with Client(cluster, set_as_default=False) as found:
        yield found


def where(client: Client) -> dict[str, str]:
    return {worker["name"]: address for address, worker in client.scheduler_info(n_workers=-1)["workers"].items()}


def test_workers_fill_the_slots_of_all_hosts_and_talk_in_private(cluster: Any, client: Client):
    places = sorted(address.split("//")[1].split(":")[0] for address in where(client).values())
    assert places == ["127.0.0.2", "127.0.0.2", "127.0.0.3"]
    assert all(address.startswith("tls://") for address in (cluster.scheduler_address, *where(client).values()))
    threads = {worker["host"]: worker["nthreads"] for worker in client.scheduler_info()["workers"].values()}
    assert threads == {"127.0.0.2": 1, "127.0.0.3": 2}
    foreign = new_authority("another cluster").security()
    with pytest.raises(OSError, match=r"(?s)."):  # no certificate of this cluster, no connection
        Client(cluster.scheduler_address, security=foreign, timeout=5, set_as_default=False)


def test_nothing_secret_is_on_a_command_line_in_the_environment_or_in_a_log(
    cluster: Any, client: Client, hosts: Farm, home: Path
):
    keys = [cluster.authority.node.key, cluster.authority.client.key]
    # The third line of such a key is the end of its public part, which every certificate shows.
    secrets = [line for key in keys for line in key.splitlines()[1:3]] + ["PRIVATE KEY"]
    client.run(lambda: sys.stderr.write("a worker says this\n"))
    eventually(lambda: any("a worker says this" in path.read_text() for path in cluster.logs.iterdir()))
    shown = [*hosts.commands, repr(cluster), repr(cluster.spec), repr(cluster.authority), repr(cluster.security)]
    shown += [path.read_text() for path in cluster.logs.iterdir()]
    for process in hosts.processes():
        shown += [" ".join(process.cmdline()), str(process.environ())]
    assert len(shown) > 10
    assert not [secret for secret in secrets for text in shown if secret in text]
    modes = {path.name: path.stat().st_mode & 0o777 for path in (*home.rglob("*.pem"), cluster.place.folder)}
    assert modes == {"ca.pem": 0o600, "cert.pem": 0o600, "key.pem": 0o600, cluster.place.folder.name: 0o700}


def test_a_worker_that_writes_50_mb_to_stderr_goes_on_and_its_log_stays_small(cluster: Any, client: Client):
    def talk() -> int:
        line = "x" * 99 + "\n"
        for _ in range(500_000):
            sys.stderr.write(line)
        sys.stderr.write("the last word\n")
        sys.stderr.flush()
        return 1

    assert client.submit(talk, pure=False).result(timeout=120) == 1
    eventually(lambda: any("the last word" in path.read_text() for path in cluster.logs.glob("*.log")), timeout=60)
    assert sum(path.stat().st_size for path in cluster.logs.iterdir()) < 3 * 9 * 2**20


def test_a_connection_that_breaks_is_opened_again_and_the_workers_do_not_notice(
    cluster: Any, client: Client, hosts: Farm
):
    before, names = client.run(os.getpid), where(client)
    slow = client.submit(lambda: time.sleep(2) or os.getpid(), pure=False, workers=[names[sorted(names)[0]]])
    links = list(cluster.hosts.links.values())
    seen = [link.reconnections for link in links]
    for address in ("127.0.0.2", "127.0.0.3"):
        hosts.cut(address)
    eventually(lambda: all(link.up and link.reconnections > old for link, old in zip(links, seen, strict=True)))
    assert slow.result(timeout=60) in before.values()
    assert client.run(os.getpid) == before
    from urllib.request import urlopen

    assert urlopen(cluster.dashboard_link, timeout=60).status == 200  # the tunnel is back, too


def test_a_host_that_is_cut_off_for_good_loses_its_workers_and_gets_new_ones_when_it_is_back(
    cluster: Any, client: Client, hosts: Farm, caplog: pytest.LogCaptureFixture
):
    (lost,) = (name for name, address in where(client).items() if "127.0.0.3" in address)
    pid = client.run(os.getpid, workers=[where(client)[lost]])
    with caplog.at_level(logging.WARNING, logger="daskml_scale"):
        hosts.stop("127.0.0.3")
        eventually(lambda: lost not in cluster.observed and lost not in cluster.worker_spec, timeout=60)
        eventually(lambda: not {process.pid for process in hosts.processes()} & set(pid.values()), timeout=60)
        (link,) = (link for access, link in cluster.hosts.links.items() if access.host == "127.0.0.3")
        eventually(lambda: "no work for this host" in caplog.text)
        assert "no connection to 127.0.0.3" in caplog.text
    hosts.start_again("127.0.0.3")
    eventually(lambda: len(cluster.observed) == 3, timeout=120)
    assert link.up


def test_results_survive_one_worker_less(cluster: Any, client: Client):
    names = where(client)
    data = [client.submit(bytes, 1000 + n, workers=[address], pure=False) for n, address in enumerate(names.values())]
    client.gather(data)
    cluster.scale(1)
    eventually(lambda: len(cluster.observed) == 1, timeout=60)
    assert [len(one) for one in client.gather(data)] == [1000, 1001, 1002]
    cluster.scale(3)


def test_hosts_that_refuse_or_hang_are_left_alone_and_the_others_do_the_work(
    hosts: Farm, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setattr("daskml_scale.deploy.ssh_connection.CONNECT_SECONDS", 3.0)
    hosts.add_refusing("127.0.0.4")
    hosts.add_silent("127.0.0.5")
    hosts.add("127.0.0.6", known=False)
    listed = [{"host": f"127.0.0.{n}"} for n in (2, 4, 5, 6)]
    with caplog.at_level(logging.WARNING, logger="daskml_scale"):  # noqa: SIM117
        with deploy.cluster(hosts.definition(cpu(listed)), adapt=False) as cluster, cluster.get_client() as client:
            assert client.submit(sum, [1, 2]).result(timeout=60) == 3
            assert {address.split(":")[1] for address in where(client).values()} == {"//127.0.0.2"}
    assert "is its SSH server running?" in caplog.text
    assert "did not answer within" in caplog.text
    assert "its host key is not the one in" in caplog.text


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"python": "/no/such/python"}, "does not run this package .*no/such/python: (not found|No such file)"),
        ({"python": "/bin/false"}, "does not run this package .it wrote nothing."),
        (
            {"python": "#!/bin/sh\necho This account is currently not available."},
            "This account is currently not available.",
        ),
        ({"python": "#!/bin/sh\nprintf 'unknown option -P\nTry -h\n' >&2"}, "does not run .*older than Python 3.11"),
        ({"identity": "/no/such/key"}, "the key file /no/such/key does not exist; correct ssh.identity"),
        ({"user": "somebody", "identity": "other"}, "it does not let user somebody in"),
    ],
)
def test_a_start_that_fails_says_what_to_do_and_leaves_nothing(
    hosts: Farm, change: dict[str, str], message: str, tmp_path: Path
):
    import asyncssh

    if change.get("identity") == "other":
        asyncssh.generate_private_key("ssh-ed25519").write_private_key(str(tmp_path / "other"))
        change = {**change, "identity": str(tmp_path / "other")}
    if change.get("python", "").startswith("#!"):
        (tmp_path / "python").write_text(change["python"])
        (tmp_path / "python").chmod(0o700)
        change = {"python": str(tmp_path / "python")}
    before = {process.pid for process in hosts.processes()}
    with pytest.raises(ClusterError, match=message):
        deploy.cluster(hosts.definition(cpu(HOSTS), ssh=change))
    eventually(lambda: {process.pid for process in hosts.processes()} <= before)
    assert not list(Path(os.environ["DASKML_SCALE_HOME"]).rglob("*.pem"))


def test_a_host_is_known_by_its_name_in_the_configuration_of_ssh(
    hosts: Farm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The network knows it by another one: workers and clients use that."""
    (tmp_path / ".ssh").mkdir()
    (tmp_path / ".ssh" / "config").write_text(
        f"Host big\n  HostName 127.0.0.2\n  Port {hosts.ports['127.0.0.2']}\n  User anybody\n"
    )
    monkeypatch.setenv("HOME", str(tmp_path))
    hosts.ports["big"] = hosts.ports["127.0.0.2"]
    definition = hosts.definition(cpu([{"host": "big"}]))
    found = {one.what: one for one in check(SshSpec.model_validate(definition))}
    assert found["port"].ok, found["port"].said
    with deploy.cluster(definition, adapt=False) as cluster, cluster.get_client() as client:
        assert cluster.scheduler_address.startswith("tls://127.0.0.2:")
        assert client.submit(sum, [1, 2]).result(timeout=60) == 3


def test_a_host_that_forwards_no_ports_has_no_dashboard_here(
    hosts: Farm, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setattr(hosts, "forwards", False)
    with caplog.at_level(logging.WARNING, logger="daskml_scale"):  # noqa: SIM117
        with deploy.cluster(hosts.definition(cpu(HOSTS[:1])), adapt=False) as cluster:
            assert cluster.dashboard_link == ""
    assert "127.0.0.2:" in caplog.text
    assert "forwards no ports" in caplog.text


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ssh": {"known_hosts": "/no/such/file"}}, "/no/such/file does not exist; hosts are only trusted by"),
        ({"scheduler": {"host": "a", "bind": "tcp://:8786"}}, "write tls://:PORT"),
        ({"dashboard": {"listen": "0.0.0.0:8787"}}, "dashboard"),
        ({"classes": {"cpu": {"workers": {"max": 9}, "hosts": [{"host": "a"}]}}}, "its hosts have 1 slots"),
        ({"classes": {"cpu": {"hosts": [{"host": "a"}, {"host": "a"}]}}}, "host a is listed twice"),
        ({"classes": {"cpu": {"hosts": []}}}, "hosts"),
        ({"classes": {"cpu": {"hosts": [{"host": "me@a"}]}}}, "is not a host"),
    ],
)
def test_a_definition_that_cannot_be_is_refused(hosts: Farm, change: dict[str, Any], message: str):
    with pytest.raises(SpecError, match=message):
        deploy.cluster({**hosts.definition(cpu(HOSTS)), **change})


def test_what_is_left_out_is_the_first_host_and_the_options_of_all():
    spec = SshSpec.model_validate(
        {"version": 1, "name": "x", "backend": "ssh", "ssh": {"user": "u", "port": 22},
         "classes": cpu([{"host": "a", "port": 23}, {"host": "b"}])}
    )  # fmt: skip
    assert spec.scheduler_place[0].host == "a"
    first, second = spec.classes["cpu"].hosts
    assert spec.options_of(first) == {"user": "u", "port": 23, "identity": None, "python": "python3"}
    assert spec.options_of(second)["port"] == 22


def test_dasks_own_ssh_cluster_is_an_existing_one(hosts: Farm):
    options = {
        "hosts": ["127.0.0.2", "127.0.0.3"],
        "connect_options": [
            {"port": hosts.ports[host], "username": "anybody", "client_keys": [str(hosts.identity)],
             "known_hosts": str(hosts.known_hosts)}
            for host in ("127.0.0.2", "127.0.0.3")
        ],
        "scheduler_options": {"dashboard_address": "127.0.0.1:0"},
        "worker_options": {"nthreads": 1},
        "remote_python": sys.executable,
    }  # fmt: skip
    spec = {
        "version": 1, "name": "theirs", "backend": "existing", "cluster": "distributed:SSHCluster", "options": options,
        "workers": {"max": 1},
    }  # fmt: skip
    with deploy.cluster(spec) as cluster, cluster.get_client() as client:
        assert client.submit(sum, [1, 2]).result(timeout=60) == 3


def test_kill_9_of_the_driver_leaves_no_process_and_no_file_on_the_hosts(hosts: Farm, tmp_path: Path):
    import json

    before = {process.pid for process in hosts.processes()}
    files = set(os.listdir(hosts.temporary))
    script = tmp_path / "driver.py"
    script.write_text(DRIVER)
    definition = hosts.definition(cpu(HOSTS), ssh=LEASE)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        [sys.executable, str(script), json.dumps(definition)], stdout=subprocess.PIPE, env=environment
    ) as driver:
        assert driver.stdout is not None
        assert driver.stdout.readline() == b"working\n"
        assert {process.pid for process in hosts.processes()} - before
        driver.kill()
        driver.wait(30)
    eventually(lambda: {process.pid for process in hosts.processes()} <= before)
    eventually(lambda: set(os.listdir(hosts.temporary)) <= files)
