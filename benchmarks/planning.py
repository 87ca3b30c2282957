"""How long until a run of a million units knows what to do, and what does it cost to remember them?

Each in a process of its own, whose peak memory is told. Planned: a real store is looked at (schema, identities)
and every unit planned; the peer is Dask's graph of as many blocks. Done: a run whose units are all committed,
from opening the ledger to the end of the stage, every stored object looked at; the peer is the test that one
writes by hand, whether each object exists. Committed: finished units become records in durable segments of a
thousand and one compacted segment; the peer is one JSON line per unit, made durable by the thousand. CPU seconds
are told, too: on a busy machine they say more.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from daskml_scale.engine.worker import WorkerContext
from daskml_scale.plan.grids import Read, common_grid, grid_units
from daskml_scale.plan.records import Record, Written, select, to_record
from daskml_scale.plan.table import Block
from daskml_scale.plan.units import Outcome, Parts, Plan, Snapshot, Template, Unit, Variable
from daskml_scale.stages.accounting import LAST
from daskml_scale.stages.base import Input, Ref, StageBase
from daskml_scale.stages.inputs import gather
from daskml_scale.stages.run import run_stage
from daskml_scale.storage import files, stores
from daskml_scale.storage.ledger import Ledger

from .common import Bench, Counts, Row, Work, least

SIZES = {"toy": 200, "small": 20_000, "full": 1_000_000}
GROUP = 1_000
"""Units per segment."""
CONTENT = bytes(range(64))
"""Of every stored object: what is in it makes no difference to looking at it."""


@dataclass(frozen=True)
class Many(StageBase):
    """A stage of as many units as the input has rows, one stored object each."""

    input: str = ""
    kind: str = "many"

    def reads(self) -> Mapping[str, Ref]:
        return {"input": Ref("dataset", self.input)}

    def plan(self, inputs: Mapping[str, Input], records: Mapping[str, Record]) -> Plan:
        source = inputs["input"]
        assert isinstance(source, Snapshot)
        grid = common_grid({"y": _array(source.rows, 1)})
        units = grid_units(grid, [Read(source, ("x",))])
        return select(units, Parts(code="many"), records, template=_template("y", source.rows, 1), rows=source.rows)

    def kernel(self, unit: Unit, worker: WorkerContext) -> Any:
        raise RuntimeError("nothing is to run here")


def _array(rows: int, chunk: int) -> Variable:
    return Variable("float32", ("time", "place"), (rows, 8), (chunk, 8))


def _template(name: str, rows: int, chunk: int) -> Template:
    return Template("time", rows, {name: _array(rows, chunk)})


def _stage(folder: Path) -> Many:
    return Many("many", str(folder / "many.ledger"), input=str(folder / "in.zarr"))


def measure(bench: Bench) -> list[Row]:
    """Return the rows of this question."""
    count, folder = SIZES[bench.size], bench.folder / "planning"
    child("make", folder, count)
    looked = least(lambda: [os.stat(folder / f"many.zarr/y/c/{number}/0") for number in range(count)], 1)
    named = least(lambda: [f"{number:040x}" for number in range(count)], 1)
    works = [
        Work(
            f"look and plan {count:,} units",
            lambda into: child("plan", folder, count),
            {"dask.array graph": lambda into: child("graph", folder, count)},
            named,
            "formatting an id per unit",
        ),
        Work(
            f"run of {count:,} units, all done",
            lambda into: child("done", folder, count),
            {"does each object exist": lambda into: child("exist", folder, count)},
            looked,
            "one stat per object",
        ),
        Work(
            f"commit {count:,} units",
            lambda into: child("commit", into, count),
            {"JSON lines": lambda into: child("lines", into, count)},
            named,
            "formatting an id per unit",
        ),
    ]
    return bench.compare(works)


def child(what: str, folder: Path, count: int) -> Counts:
    """Do one of the jobs below in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.planning", what, str(folder), str(count)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr)
    found: dict[str, float] = json.loads(done.stdout)
    return found


def make(folder: Path, count: int) -> Counts:
    """Make a store of which every unit is committed; the objects are written as plain files."""
    stage = _stage(folder)
    stores.create(stage.input, _template("x", count, GROUP))
    for number in range(-(-count // GROUP)):
        _put(Path(stage.input, "x", "c", str(number), "0"))
    stores.create(stage.out, _template("y", count, 1))
    digest = files.hash_bytes(CONTENT)
    plan, ledger = stage.plan(gather(stage.reads()), {}), Ledger(stage.ledger)
    for start in range(0, count, 20 * GROUP):
        records = []
        for unit in plan.units[start : start + 20 * GROUP]:
            key = f"y/c/{unit.payload[0]}/0"
            found = _put(Path(stage.out, key))
            chunks = {key: (digest, found.st_size, found.st_mtime_ns)}
            records.append(to_record(Outcome(unit, Written(chunks, rows=1), seconds=0.01, worker="cpu-1"), plan))
        ledger.append_block(Block.of(records))
    ledger.compact()
    return {}


def _put(path: Path) -> os.stat_result:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(CONTENT)
    return path.stat()


def plan(folder: Path, count: int) -> Counts:
    """Look at the input and plan every unit, as a first run does."""
    stage = _stage(folder)
    found = stage.plan(gather(stage.reads()), Ledger(str(folder / "none.ledger")).records())
    return {"units": len(found.units)}


def done(folder: Path, count: int) -> Counts:
    """Run the stage; there is nothing to do."""
    run_stage(_stage(folder))
    return {"reused": LAST[-1].reused}


def exist(folder: Path, count: int) -> Counts:
    """Look whether each object is there."""
    return {"reused": sum(os.path.exists(folder / f"many.zarr/y/c/{number}/0") for number in range(count))}


def graph(folder: Path, count: int) -> Counts:
    """Make the graph of a map over as many blocks."""
    import dask.array as da

    return {"units": len(dict((da.zeros((count, 8), chunks=(1, 8)) + 1).__dask_graph__())) / 2}


def _outcomes(count: int) -> tuple[Plan, list[Outcome]]:
    plan = select(((Unit(f"rows/{number:08d}"), "0" * 40) for number in range(count)), Parts(code="many"), {})
    written = Written({"y/c/0/0": ("0" * 40, 64, 1)}, rows=1)
    return plan, [Outcome(unit, written, seconds=0.01, worker="cpu-1") for unit in plan.units]


def commit(folder: Path, count: int, clock: Callable[[], None]) -> Counts:
    """Commit finished units in groups, then compact."""
    plan, outcomes = _outcomes(count)
    clock()
    ledger = Ledger(str(folder / "x.ledger"))
    for start in range(0, count, GROUP):
        ledger.append([to_record(outcome, plan) for outcome in outcomes[start : start + GROUP]])
    ledger.compact()
    return {"bytes per unit": sum(path.stat().st_size for path in (folder / "x.ledger").iterdir()) / count}


def lines(folder: Path, count: int, clock: Callable[[], None]) -> Counts:
    """Write what is done as JSON lines, durable after every group."""
    _, outcomes = _outcomes(count)
    clock()
    with open(folder / "done.jsonl", "w") as file:
        for start in range(0, count, GROUP):
            for outcome in outcomes[start : start + GROUP]:
                line = {"unit": outcome.unit.key, "status": "ok", "chunks": outcome.value.chunks, "rows": 1}
                file.write(json.dumps(line) + "\n")
            file.flush()
            os.fsync(file.fileno())
    return {"bytes per unit": (folder / "done.jsonl").stat().st_size / count}


def main(what: str, folder: str, count: str) -> None:
    """Do one job and print what it counted, its seconds (imports apart) and its peak memory."""
    began = cpu = 0.0

    def clock() -> None:
        nonlocal began, cpu
        began, cpu = time.perf_counter(), time.process_time()

    jobs: dict[str, Callable[[Path, int], Counts]] = {
        "make": make, "plan": plan, "done": done, "exist": exist, "graph": graph,
        "commit": partial(commit, clock=clock), "lines": partial(lines, clock=clock),
    }  # fmt: skip
    clock()
    found = jobs[what](Path(folder), int(count))
    seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
    peak = re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())
    print(json.dumps({**found, "seconds": seconds, "CPU seconds": cpu, "MiB": int(peak[1]) / 1024 if peak else 0.0}))


if __name__ == "__main__":
    main(*sys.argv[1:])
