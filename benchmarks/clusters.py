"""Clusters: how soon the first worker is there, and what a killed driver leaves behind.

The first worker: our local cluster beside Dask's ``LocalCluster`` (whose scheduler shares the driver's process) and
beside Dask's ``SubprocessCluster`` (whose scheduler is a process, as ours is); our SSH cluster beside the very same two
processes started by hand through the same SSH servers, which run in this process on loopback.

A killed driver: ``kill -9`` of a process with a cluster and a running task; the seconds until none of its processes is
left, at most 30, and how many are left then.

``python -m benchmarks.clusters --repeat 5 --json FILE``; ``--only ssh`` measures works whose names have this in them.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import pickle
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import psutil

from daskml_scale.testing.driver import AT_WORK

from .common import Bench, Counts, Row, Runner, Work, as_json, least
from .machine import machine
from .tables import table

PATIENCE = 30.0
LOOK = 0.05
ONE: dict[str, Any] = {
    "version": 1,
    "name": "first",
    "backend": "local",
    "classes": {"cpu": {"workers": {"min": 1, "max": 1}, "memory": "1GiB"}},
    "dashboard": {"listen": "127.0.0.1:0"},
}
PYTHON = "an interpreter that imports distributed, and ends"


def measure(bench: Bench) -> list[Row]:
    """Measure and return the rows."""
    os.environ["DASKML_SCALE_HOME"] = str(bench.folder / "home")
    floor = least(lambda: subprocess.run([sys.executable, "-c", "import distributed"], check=True))
    local = Work(
        "local: to the first worker",
        lambda _: _first(lambda: _ours(ONE)),
        {"LocalCluster": lambda _: _first(_local), "SubprocessCluster": lambda _: _first(_subprocesses)},
        floor,
        PYTHON,
    )
    return bench.compare([local, *_others(bench, floor)])


def _others(bench: Bench, floor: float) -> list[Work]:
    from daskml_scale.testing.ssh_hosts import farm

    farmed = bench.stack.enter_context(farm(Path(tempfile.mkdtemp(dir=bench.folder))))
    over_ssh = farmed.definition({"cpu": {**ONE["classes"]["cpu"], "hosts": [{"host": "127.0.0.2"}]}})
    dask = {"LocalCluster": _killed("", _children)}
    theirs: dict[str, Any] = {"version": 1, "name": "theirs", "backend": "existing", "workers": {"max": 1}}
    here = {"host": "127.0.0.1", "dashboard_address": "127.0.0.1:0"}
    made = {**theirs, "cluster": "distributed:LocalCluster", "options": {"n_workers": 0, **here}}
    jobs = {"cores": 1, "memory": "1GiB", "scheduler_options": here, "local_directory": str(bench.folder)}
    queue = {**theirs, "cluster": "dask_jobqueue.local:LocalCluster", "options": jobs}
    return [
        Work(
            "ssh: to the first worker",
            lambda _: _first(lambda: _ours(over_ssh)),
            {"the same processes by hand": lambda folder: _by_hand(farmed, folder)},
            floor,
            PYTHON,
        ),
        Work("local: driver killed", _killed(json.dumps(ONE), _children), dask, LOOK, "one look"),
        Work("ssh: driver killed", _killed(json.dumps(over_ssh), lambda _: farmed.processes()), dask, LOOK, "one look"),
        Work("existing LocalCluster: driver killed", _killed(json.dumps(made), _children), dask, LOOK, "one look"),
        Work("existing job queue: driver killed", _killed(json.dumps(queue), _children), dask, LOOK, "one look"),
    ]


def _first(start: Callable[[], Any]) -> Counts:
    """Start a cluster, run one task on it, and close it outside the clock."""
    from distributed import Client

    started = time.perf_counter()
    with start() as cluster, Client(cluster, set_as_default=False) as client:
        client.submit(sum, [1, 2]).result()
        return {"seconds": time.perf_counter() - started}


def _ours(definition: dict[str, Any]) -> Any:
    from daskml_scale import deploy

    return deploy.cluster(definition)


def _local() -> Any:
    from distributed import LocalCluster

    return LocalCluster(n_workers=1, threads_per_worker=1, host="127.0.0.1", dashboard_address="127.0.0.1:0")


def _subprocesses() -> Any:
    from distributed.deploy.subprocess import SubprocessCluster

    return SubprocessCluster(n_workers=1, threads_per_worker=1, host="127.0.0.1", dashboard_address="127.0.0.1:0")


def _by_hand(farmed: Any, folder: Path) -> Counts:
    """Start scheduler and worker as a person would: two commands on the host, with what they need on their input."""
    return asyncio.run(_hand(farmed, folder))


async def _hand(farmed: Any, folder: Path) -> Counts:
    import asyncssh
    from distributed import Client

    from daskml_scale.deploy.certificates import new_authority
    from daskml_scale.deploy.local import settings

    started = time.perf_counter()
    authority = new_authority("hand")
    common = {"protocol": "tls", "host": "127.0.0.2", "security": authority.node_security()}
    config = settings(str(folder))
    async with asyncssh.connect(
        "127.0.0.2", farmed.ports["127.0.0.2"], username="anybody", client_keys=[str(farmed.identity)],
        known_hosts=str(farmed.known_hosts),
    ) as connection:  # fmt: skip
        preload = ["daskml_scale.engine.backlog"]
        dashboard = {"dashboard": True, "dashboard_address": "127.0.0.1:0", "preload": preload}
        scheduler, running = await _role(connection, "scheduler", {**common, **dashboard}, config)
        own = {"nthreads": 1, "memory_limit": 2**30, "local_directory": str(folder), "name": "cpu-0"}
        _, worker = await _role(
            connection,
            "worker",
            {**common, **own, "dashboard_address": "127.0.0.1:0", "scheduler_ip": scheduler},
            config,
        )
        async with Client(scheduler, security=authority.security(), asynchronous=True, set_as_default=False) as client:
            await client.submit(sum, [1, 2])
            seconds = time.perf_counter() - started
        for process in (worker, running):
            process.stdin.write_eof()
        return {"seconds": seconds}


async def _role(connection: Any, role: str, options: dict[str, Any], config: dict[str, Any]) -> tuple[str, Any]:
    """Start one process on the host and return its address."""
    program = (
        "import os, pickle, sys, dataclasses, daskml_scale.deploy.child as child; load = pickle.load; "
        "child.pickle.load = lambda file: dataclasses.replace(load(file), driver=os.getppid()); sys.exit(child.main())"
    )
    from daskml_scale.deploy.child import Setup

    process = await connection.create_process(f"exec {sys.executable} -P -c '{program}'", encoding=None)
    process.stdin.write(pickle.dumps(Setup(role, 0, options.get("local_directory", ""), options, config)))
    return json.loads(await process.stdout.readline())["address"], process


SCRIPT = f"""
import json, sys, time
if sys.argv[1]:
    from daskml_scale import deploy
    cluster = deploy.cluster(json.loads(sys.argv[1]))
else:
    from distributed import LocalCluster
    cluster = LocalCluster(n_workers=1, threads_per_worker=1, host="127.0.0.1", dashboard_address="127.0.0.1:0")
{AT_WORK}"""


def _killed(definition: str, processes: Callable[[psutil.Process], list[psutil.Process]]) -> Runner:
    def run(folder: Path) -> Counts:
        script = folder / "driver.py"
        script.write_text(f"if __name__ == '__main__':\n{_indented(SCRIPT)}")
        with subprocess.Popen([sys.executable, str(script), definition], stdout=subprocess.PIPE) as driver:
            assert driver.stdout is not None
            driver.stdout.readline()
            found = processes(psutil.Process(driver.pid))
            driver.kill()
        started = time.perf_counter()
        while (left := [one for one in found if _runs(one)]) and time.perf_counter() - started < PATIENCE:
            time.sleep(LOOK)
        seconds = time.perf_counter() - started
        for process in left:
            with suppress(psutil.Error):
                process.kill()
        return {"seconds": seconds, "processes": len(found), "orphans": len(left)}

    return run


def _indented(text: str) -> str:
    return "".join(f"    {line}\n" for line in text.splitlines())


def _children(driver: psutil.Process) -> list[psutil.Process]:
    return driver.children(recursive=True)


def _runs(process: psutil.Process) -> bool:
    with suppress(psutil.Error):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


def main() -> None:
    """Parse the command line, measure, and print one table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.clusters", description=__doc__)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--only", default="")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="daskml-bench-", ignore_cleanup_errors=True) as folder,
        ExitStack() as stack,
    ):
        rows = measure(Bench("full", options.repeat, Path(folder), stack, options.only))
        print(table(rows))
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        about = {"size": "full", "repeat": options.repeat, **machine()}
        options.json.write_text(json.dumps({**about, "rows": as_json(rows)}, indent=1) + "\n")


if __name__ == "__main__":
    main()
