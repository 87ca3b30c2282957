"""From a file with hosts to a run on them, by the command line."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("asyncssh", reason="asyncssh is not installed: pip install 'daskml-scale[ssh]'")

from daskml_scale.testing.clusters import eventually
from daskml_scale.testing.ssh_hosts import Farm, farm


@pytest.fixture(scope="module")
def hosts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Farm]:
    with farm(tmp_path_factory.mktemp("farm")) as made:
        yield made


@pytest.fixture
def written(hosts: Farm, folder: Path) -> Callable[..., str]:
    """Write a definition with these hosts and return its name."""

    def write(*addresses: str, memory: str = "512MiB") -> str:
        listed = [{"host": address} for address in addresses]
        spec = hosts.definition({"cpu": {"workers": {"min": 1}, "memory": memory, "hosts": listed}})
        (folder / "farm.yaml").write_text(json.dumps(spec))  # JSON is YAML
        return "farm.yaml"

    return write


def findings(command: Any, *words: str) -> tuple[int, dict[str, dict[str, Any]]]:
    code, out, _ = command("clusters", "check", *words, "--json")
    return code, {one["what"]: one for one in json.loads(out)}


def test_check_proves_hosts_and_says_what_is_wrong(command, written, hosts):
    code, found = findings(command, written("127.0.0.2", "127.0.0.3"))
    assert code == 0, found
    assert list(found) == ["127.0.0.2", "127.0.0.3", "versions", "clocks", "port"]
    assert found["port"]["said"] == "all hosts and this machine reach 127.0.0.2 on its ports"
    hosts.add_refusing("127.0.0.4")
    code, found = findings(command, written("127.0.0.2", "127.0.0.4", memory="900TiB"))
    assert code == 1
    assert "is its SSH server running?" in found["127.0.0.4"]["said"]
    assert "its slots ask for 921600.0 GiB" in found["127.0.0.2 memory"]["said"]
    assert found["127.0.0.2"]["ok"]


def logs(command: Any) -> list[str]:
    """What the workers of the newest run wrote; nothing while nothing of it is here yet."""
    return list(command("logs", "--worker", "cpu-*")[1].splitlines())


def test_a_run_on_hosts_that_were_brought_up_and_down(command, written, hosts, folder):
    definition = written("127.0.0.2", "127.0.0.3")
    (folder / "say.py").write_text("def hello(item):\n    print('hello from', item, flush=True)\n    return item\n")
    with (folder / "tiny.yaml").open("a") as file:
        file.write("  say: {kind: map, function: 'say:hello', over: {range: 3}}\n")
    code, out, err = command("clusters", "up", definition, "--name", "team", "--json")
    assert code == 0, err
    try:
        assert json.loads(out)["address"].startswith("tls://127.0.0.2:")
        code, _, err = command("run", "tiny.yaml", "--cluster", "team", "--json")
        assert code == 0, err
        hello = {f"hello from {item}" for item in range(3)}
        eventually(lambda: hello <= {line.rpartition(": ")[2] for line in logs(command)})
        code, _, err = command("logs", "--worker", "gpu-0")
        assert code == 2
        assert "there are cpu-" in err
        code, out, err = command("clusters", "ps", "team", "--json")
        assert code == 0, err
        assert {row["worker"].partition("-")[0] for row in json.loads(out)} == {"cpu"}
        assert "scheduler" in json.loads(command("clusters", "logs", "team", "--json")[1])
    finally:
        assert command("clusters", "down", "team")[0] == 0
    eventually(lambda: not hosts.processes())
