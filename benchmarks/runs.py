"""Runs: what submitting, asking and going on cost, against the goals: ``python -m benchmarks.runs [--small]``.

* ``submit`` from the start of its process to its end, and ``status`` and ``list`` with 10,000 runs in the registry.
* Runs submitted at once: all end, none is started twice, whatever the queue lets through.
* What the registry takes of a run that commits 1,000 units a second: seconds inside its writes, and CPU seconds of
  the heartbeat's thread, as a part of the run.
* Going on with a run of many committed units: from the start of the process until a new unit works.

Wall times of processes are medians; the CPU time of the process stands beside them, which a busy machine changes less.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from daskml_scale.events import RunStarted, StagePlanned, StageStarted, UnitsCommitted
from daskml_scale.runs.lease import Lease
from daskml_scale.runs.records import Registry
from daskml_scale.runs.state import StageRecord

from .machine import machine

PROGRAM = [sys.executable, "-m", "daskml_scale"]
TINY = """
version: 1
name: tiny
store: ./runs/tiny
cluster: none
stages:
  table: {kind: ingest, source: a.csv, row: {dim: row, chunk: 20}}
"""
MANY = """
version: 1
name: many
store: ./runs/many
cluster: none
stages:
  work: {{kind: map, function: 'many:work', over: {{range: {items}}}, chunk: {chunk}}}
"""
WORK = """
import os
import time

def work(item):
    if item >= int(os.environ.get("FRESH", "1000000000")):
        with open("first", "a") as file:
            file.write(f"{time.time()}\\n")
    return item
"""


def timed(words: list[str], **more: Any) -> tuple[float, float, str]:
    """Run a process; return its wall seconds, its CPU seconds, and what it printed."""
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(words, capture_output=True, text=True, check=False, **more)
    wall, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise SystemExit(f"{words[3:]} ended with {done.returncode}: {done.stderr}")
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, done.stdout.strip()


def repeated(words: list[str], rounds: int) -> tuple[float, float]:
    """Return medians of wall and CPU seconds."""
    found = [timed(words)[:2] for _ in range(rounds)]
    return statistics.median(wall for wall, _ in found), statistics.median(cpu for _, cpu in found)


def filled(registry: Registry, runs: int) -> None:
    """Enter runs that have ended, each with five stages: copies of one, in one transaction."""
    start = time.time() - 2.0 * runs
    run = registry.create(
        workflow="old", source="w.yaml", store="/s", cluster="none", command=["run", "w"], cwd="/", now=start
    )
    run = registry.start(run, host="elsewhere", pid=1, now=start)
    stages = [StageRecord(name, "map", "ok", 10, 10) for name in "abcde"]
    registry.finish(run.id, run.epoch, now=start + 1, state="succeeded", exit_code=0, stages=stages)
    registry.close()
    with sqlite3.connect(registry.path) as connection:
        for table, key, time_of in (("runs", "id", "created"), ("stages", "run", "")):
            names = [row[1] for row in connection.execute(f"pragma table_info({table})")]
            shown = [
                "'old-' || n.value" if name == key else f"{name} + 2 * n.value" if name == time_of else name
                for name in names
            ]
            connection.execute(
                f"insert into {table} ({', '.join(names)}) select {', '.join(shown)} from {table}, "
                f"(with recursive n(value) as (select 1 union all select value + 1 from n where value < {runs - 1}) "
                f"select value from n) n where {key} = '{run.id}'"
            )
    connection.close()


def asking(rounds: int, runs: int) -> dict[str, Any]:
    """Measure submit, status and list."""
    Path("a.csv").write_text("key,x\n" + "".join(f"{n},{n}.5\n" for n in range(60)))
    Path("tiny.yaml").write_text(TINY)
    filled(Registry(), runs)
    submits = []
    for _ in range(rounds):
        wall, cpu, run = timed([*PROGRAM, "submit", "tiny.yaml"])
        submits.append((wall, cpu))
        timed([*PROGRAM, "wait", run])
    status, listed = repeated([*PROGRAM, "status"], rounds), repeated([*PROGRAM, "list"], rounds)
    return {
        "submit, s": (statistics.median(wall for wall, _ in submits), 2.0),
        "submit, CPU s": (statistics.median(cpu for _, cpu in submits), None),
        f"status of {runs:,} runs, s": (status[0], 0.6),
        f"status of {runs:,} runs, CPU s": (status[1], None),
        f"list of {runs:,} runs, s": (listed[0], None),
    }


def at_once(runs: int) -> dict[str, Any]:
    """Submit runs at once; all must end, none twice."""
    started = time.perf_counter()
    sent = [
        subprocess.Popen([*PROGRAM, "submit", "tiny.yaml", "--store", f"runs/{n}"], stdout=-1, stderr=-1, text=True)
        for n in range(runs)
    ]
    ids = {process.communicate()[0].strip() for process in sent} - {""}
    submitted = time.perf_counter() - started
    registry = Registry()
    found = [registry.get(run, now=time.time()) for run in ids]
    while any(run.live for run in found):
        time.sleep(0.5)
        found = [registry.get(run.id, now=time.time()) for run in found]
    starts = [[event["state"] for event in registry.events(run)].count("running") for run in ids]
    return {
        f"of {runs} runs at once, not taken": (runs - len(ids), 0),
        f"of {runs} runs at once, not ended well": (runs - sum(run.state == "succeeded" for run in found), 0),
        f"of {runs} runs at once, started twice": (sum(count > 1 for count in starts), 0),
        f"{runs} submits, s": (submitted, None),
        f"{runs} runs, s": (time.perf_counter() - started, None),
    }


def writes(seconds: float) -> dict[str, Any]:
    """Measure the registry's part of a run that commits 1,000 units a second."""
    spent = [0.0, 0.0]

    def counted(method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*values: Any, **more: Any) -> Any:
            wall, cpu = time.perf_counter(), time.thread_time()
            try:
                return method(*values, **more)
            finally:
                spent[0] += time.perf_counter() - wall
                spent[1] += time.thread_time() - cpu

        return call

    registry = Registry()
    run = registry.create(workflow="w", source="", store="/w", cluster="none", command=[], cwd="/", now=time.time())
    run = registry.start(run, host="elsewhere", pid=1, now=time.time())
    registry.beat, registry.finish = counted(registry.beat), counted(registry.finish)  # type: ignore[method-assign]
    folding = 0.0
    started, cpu = time.perf_counter(), time.process_time()
    with Lease(registry, run) as lease:
        now = time.time()
        lease.sink(RunStarted(time=now, run=run.id, workflow="w", store="/w", stages=(("work", "map"),)))
        lease.sink(StageStarted(time=now, run=run.id, stage="work", stage_kind="map"))
        lease.sink(StagePlanned(time=now, run=run.id, stage="work", units=10**6, reused=0))
        while time.perf_counter() - started < seconds:
            before = time.perf_counter()
            lease.sink(UnitsCommitted(time=time.time(), run=run.id, stage="work", units=100, seconds=0.1))
            folding += time.perf_counter() - before
            time.sleep(0.1)
        lease.ended("succeeded", 0, {})
    whole, cpu = time.perf_counter() - started, time.process_time() - cpu
    return {
        "registry writes at 1,000 units/s, % of the run": (100 * spent[0] / whole, 2.0),
        "registry writes, CPU %": (100 * spent[1] / whole, None),
        "folding events, % of the run": (100 * folding / whole, None),
        "all of it, CPU %": (100 * cpu / whole, None),
    }


def going_on(units: int) -> dict[str, Any]:
    """Measure how soon a run of many committed units works on."""
    Path("many.py").write_text(WORK)
    Path("many.yaml").write_text(MANY.format(items=units, chunk=1))
    first = timed([*PROGRAM, "run", "many.yaml", "-q"])
    run = Registry().get(now=time.time()).id
    Path("many.yaml").write_text(MANY.format(items=units + 50, chunk=1))
    began = time.time()
    wall, cpu, _ = timed([*PROGRAM, "resume", run, "-q"], env={**os.environ, "FRESH": str(units)})
    works = float(Path("first").read_text().splitlines()[0]) - began
    return {
        f"{units:,} units, first run, s": (first[0], None),
        f"resume of {units:,} units until it works, s": (works, 15.0),
        f"resume of {units:,} units, whole, s": (wall, None),
        f"resume of {units:,} units, CPU s": (cpu, None),
    }


def main() -> None:
    """Measure all and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", action="store_true", help="a tenth of everything")
    parser.add_argument("--only", choices=("asking", "at_once", "writes", "going_on"))
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    target = options.json.absolute() if options.json else None  # the folder changes below
    share = 10 if options.small else 1
    parts: dict[str, Callable[[], dict[str, Any]]] = {
        "asking": lambda: asking(2 if options.small else 5, 10_000 // share), "at_once": lambda: at_once(100 // share),
        "writes": lambda: writes(20.0 / share), "going_on": lambda: going_on(100_000 // share),
    }  # fmt: skip
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="daskml-bench-") as folder:
        os.chdir(folder)
        os.environ["DASKML_SCALE_HOME"] = str(Path(folder) / "home")
        os.environ["PYTHONPATH"] = os.pathsep.join(
            [str(Path(__file__).parent.parent), os.environ.get("PYTHONPATH", "")]
        )
        for name, part in parts.items():
            if options.only in (None, name):
                if name == "at_once" and not Path("tiny.yaml").exists():
                    Path("a.csv").write_text("key,x\n1,2\n")
                    Path("tiny.yaml").write_text(TINY)
                found |= part()
        os.chdir("/")
    for what, (value, goal) in found.items():
        print(f"{what:55} {value:10.3f}   {'' if goal is None else f'goal {goal:g}'}", flush=True)
    if target:
        about = {"size": "small" if options.small else "full", **machine(), "load": os.getloadavg()[0]}
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(json.dumps({**about, "found": found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
