"""A submitted run and the cluster it started: one does not outlive the other."""

from __future__ import annotations

import time

import psutil
import pytest

from daskml_scale.runs.records import Registry

from .test_control import NEVER, began, endless
from .test_run_faults import committed, record, until
from .test_submit import submitted

__all__ = ["endless"]
CLUSTER = """
version: 1
name: pair
backend: local
classes:
  cpu: {workers: {min: 2, max: 2}, threads: 1, memory: 500MB}
"""


@pytest.fixture
def on_cluster(endless):
    (endless / "pair.yaml").write_text(CLUSTER)
    (endless / "tiny.yaml").write_text(NEVER.replace("cluster: none", "cluster: pair.yaml"))
    return endless


def of_cluster(run: str, role: str = "daskml-") -> list[psutil.Process]:
    """Return the processes of a run's cluster that play a role."""
    found = []
    for process in psutil.Process(record(run).pid).children(recursive=True):
        try:
            if any(role in word for word in process.cmdline()):
                found.append(process)
        except psutil.NoSuchProcess:
            continue
    return found


def test_a_cancelled_run_closes_its_cluster(command, on_cluster):
    run = submitted(command)
    began(on_cluster)
    processes = psutil.Process(record(run).pid).children(recursive=True)
    assert len(of_cluster(run)) >= 3  # a scheduler and two workers at least
    assert command("cancel", run)[0] == 0
    until(lambda: not any(process.is_running() for process in processes))
    assert record(run).state == "cancelled"


def test_a_submitted_run_whose_scheduler_is_killed_goes_on_with_another(command, on_cluster):
    (on_cluster / "tiny.yaml").write_text((on_cluster / "tiny.yaml").read_text().replace("1000", "100"))
    run = submitted(command)
    began(on_cluster)
    until(lambda: committed(on_cluster) >= 2)
    (scheduler,) = of_cluster(run, "daskml-scheduler")
    scheduler.kill()
    assert command("wait", run)[0] == 0
    found = Registry().get(run, now=time.time())
    long = found.stages[0]
    assert (long.done, long.units, long.failed) == (101, 101, 0)  # the items, and the table of them
    assert "the scheduler is gone" in command("logs", run)[1]
