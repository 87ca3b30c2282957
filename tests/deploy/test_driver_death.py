"""A driver that dies leaves nothing: no process, no file, whatever killed it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from deploy_helpers import SPEC, alive, eventually

SCRIPT = """
import json, os, sys, time
from daskml_scale import deploy

# No __main__ guard: our processes do not import the script again.
cluster = deploy.cluster(json.loads(sys.argv[1]))
client = cluster.get_client()

def start_something():
    print("said by a task", flush=True)
    return os.spawnlp(os.P_NOWAIT, "sleep", "sleep", "1000")

pids = [p.pid for p in (cluster.scheduler, *cluster.workers.values())] + [client.submit(start_something).result()]
endless = client.submit(time.sleep, 1000)
while not any(client.processing().values()):
    time.sleep(0.01)
print(json.dumps({"pids": pids, "directory": cluster.directory}), flush=True)
if sys.argv[2] == "wait":
    time.sleep(1000)
"""


class Driver:
    """A process with a cluster, a running task and something that a task started."""

    def __init__(self, folder: Path, then: str) -> None:
        script = folder / "driver.py"
        script.write_text(SCRIPT)
        self.process = subprocess.Popen(
            [sys.executable, str(script), json.dumps(SPEC), then],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            env={**os.environ, "DASK_TEMPORARY_DIRECTORY": str(folder)},
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, self.process.communicate()[1]
        self.told: dict[str, Any] = json.loads(line)  # and nothing that a task prints
        assert len(self.told["pids"]) == 3

    def left(self) -> list[int]:
        return alive(self.told["pids"])


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Any]:
    drivers: list[Driver] = []

    def begin(then: str = "wait") -> Driver:
        drivers.append(Driver(tmp_path, then))
        return drivers[-1]

    yield begin
    for driver in drivers:
        if driver.process.poll() is None:
            driver.process.kill()
        driver.process.communicate()
        for pid in driver.left():
            os.kill(pid, signal.SIGKILL)


def nothing_is_left(driver: Driver) -> None:
    eventually(lambda: not driver.left() and not os.path.exists(driver.told["directory"]))


def test_kill_9_of_the_driver(start: Any):
    driver = start()
    assert len(driver.left()) == 3
    driver.process.kill()
    driver.process.wait()
    nothing_is_left(driver)


def test_ctrl_c_in_the_terminal_of_the_driver(start: Any):
    driver = start()
    os.killpg(driver.process.pid, signal.SIGINT)
    _, errors = driver.process.communicate(timeout=60)
    assert driver.process.returncode != 0
    assert "KeyboardInterrupt" in errors
    assert errors.count("Traceback") == 1  # the driver's own: no other process was interrupted
    nothing_is_left(driver)


def test_the_end_of_a_script_that_does_not_close(start: Any):
    driver = start("end")
    _, errors = driver.process.communicate(timeout=60)
    assert driver.process.returncode == 0
    assert "said by a task" in errors
    assert "Traceback" not in errors
    nothing_is_left(driver)


def test_ctrl_c_while_the_cluster_starts(tmp_path: Path):
    script = tmp_path / "driver.py"
    script.write_text("from daskml_scale import deploy\nprint('begin', flush=True)\ndeploy.cluster()\n")
    process = subprocess.Popen(
        [sys.executable, str(script)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "DASK_TEMPORARY_DIRECTORY": str(tmp_path)},
    )
    assert process.stdout is not None
    process.stdout.readline()
    started = eventually(lambda: [child.pid for child in psutil.Process(process.pid).children(recursive=True)])
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode != 0
    eventually(lambda: not alive(started))
    assert [path.name for path in tmp_path.iterdir()] == ["driver.py"]
