"""What does the record keeping cost? Stages with digests and ledger, against the same reads and writes by hand.

Written: the same regions into the same layout in one process; the peer is a bare loop over ``array[a:b] =``. Copied:
every chunk read and written by two workers; the peers are two bare processes, told to start when they have imported
everything, ``open_zarr().to_zarr()`` on the same cluster, and Cubed with two processes where ``BENCH_CUBED`` names an
interpreter that has it. Changed: one chunk of the copied table is altered; the
peer copies all again, as there is no telling which. Resumed: every unit is committed; the peer tests whether each
object exists, which cannot tell a whole object from an altered one. In a bucket (a server process on loopback), with
the requests that its log shows. Planned: units alone, without and with all their records; the peer is Dask's graph
of as many blocks. ``share`` is the part of the run that gathering, planning, digests and ledger take, in percent of its
seconds, and of its CPU seconds.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from daskml_scale.plan.units import row_ranges
from daskml_scale.stages.accounting import LAST
from daskml_scale.stages.inputs import checked_records, gather
from daskml_scale.stages.run import run_stage
from daskml_scale.storage import files, stores
from daskml_scale.storage.ledger import Ledger

from .common import SLOTS, Bench, Counts, Row, Runner, Work, elsewhere, least
from .machine import cpu
from .servers import Server, s3_server
from .storage_stages import Identity, Regions, bare, go, template, values

SIZES: dict[str, dict[str, Any]] = {
    "toy": {"write": ((8, 1_024),), "copy": (8, 1_024), "bucket": (8, 1_024), "plan": 2_000},
    "small": {"write": ((1_000, 1_024),), "copy": (100, 32_768), "bucket": (60, 4_096), "plan": 50_000},
    "full": {
        "write": ((5_000, 1_024), (1_000, 131_072)), "copy": (1_000, 32_768), "bucket": (300, 4_096), "plan": 1_000_000,
    },
}  # fmt: skip
"""(number of regions, rows of each), float32 of 16 columns: 1,024 rows are 64 KiB, 32,768 are 2 MiB.

The copied table has 1,000 chunks and 2.1 GB; ``small`` copies a tenth of it.
"""
CUBED = "BENCH_CUBED"
"""Environment variable: an interpreter that has cubed."""


def measure(bench: Bench) -> list[Row]:
    """Return the rows of this question."""
    size = SIZES[bench.size]
    works = [work for regions, rows in size["write"] for work in _written(bench, regions, rows)]
    works += _copied(bench, *size["copy"])
    works += _planned(bench, size["plan"])
    works += _in_a_bucket(bench, *size["bucket"])
    return bench.compare(works)


def _written(bench: Bench, regions: int, rows: int) -> list[Work]:
    block, folder = values(rows), bench.folder
    name, again = f"{regions:,} regions of {block.nbytes // 1024:,} KiB", f"resume, {regions:,} units done"
    if not bench.wants(name, again):
        return []
    done = Regions("x", str(folder / f"{regions}x{rows}" / "x.ledger"), regions=regions, rows=rows)
    run_stage(done)
    objects = sorted((Path(done.out) / "x" / "c").rglob("*/0"))
    if len(objects) != regions:
        raise RuntimeError(f"{len(objects)} objects of {regions} regions")
    encoded = objects[0].read_bytes()

    def ours(into: Path) -> Counts:
        run_stage(Regions("x", str(into / "x.ledger"), regions=regions, rows=rows))
        return {"segments": len(list((into / "x.ledger").glob("0*.seg")))}

    def plain(into: Path) -> None:
        array = _empty(str(into / "x.zarr"), regions, rows)
        for start, stop in row_ranges(regions * rows, rows):
            array[start:stop] = block

    def resume(into: Path) -> Counts:
        run_stage(done)
        return {"reused": LAST[-1].reused}

    def exist(into: Path) -> None:
        if not all(path.exists() for path in objects):
            raise RuntimeError("an object is missing")

    def plain_files() -> None:
        for number in range(regions):
            (folder / f"limit-{number}").write_bytes(encoded)

    stats = least(lambda: [os.stat(path) for path in objects])
    size = f"{regions * len(encoded) / 1e6:.0f} MB of encoded bytes as plain files"
    return [
        Work(name, ours, {"zarr in a loop": plain}, least(plain_files), size),
        Work(again, resume, {"does each object exist": exist}, stats, "one stat per object"),
    ]


def _empty(url: str, regions: int, rows: int) -> Any:
    """Return an array of our layout and codecs, ready for a plain loop."""
    import zarr

    stores.create(url, template(regions * rows, rows))
    return zarr.open_array(f"{url}/x", mode="r+")


def _copied(bench: Bench, regions: int, rows: int) -> list[Work]:
    what = f"{values(rows).nbytes * regions / 1e6:,.0f} MB, {regions:,} chunks"
    name, altered = f"copy {what}, {SLOTS} workers", f"one chunk of {what} changed"
    if not bench.wants(name, altered):
        return []
    source = Regions("s", str(bench.folder / "copy" / "s.ledger"), regions=regions, rows=rows)
    run_stage(source)

    def ours(into: Path) -> Counts:
        stage = Identity("x", str(into / "x.ledger"), input=source.out)
        started, before = time.perf_counter(), cpu()
        run_stage(stage, client=bench.own)
        taken, used = time.perf_counter() - started, cpu() - before
        wall, busy = _bookkeeping(stage, into)
        return {"seconds": taken, "CPU s": used, "share": 100 * wall / taken, "CPU share": 100 * busy / used}

    def by_hand(into: Path) -> Counts:
        _empty(str(into / "x.zarr"), regions, rows)
        with bare(f"{source.out}/x", str(into / "x.zarr" / "x"), regions, rows, SLOTS) as children:
            before = cpu()
            return {"seconds": go(children), "CPU s": cpu() - before}

    def to_zarr(into: Path) -> Counts:
        import xarray as xr

        before = cpu()
        with bench.own.as_current():
            xr.open_zarr(source.out, consolidated=False, chunks={}).to_zarr(into / "x.zarr", consolidated=False)
        return {"CPU s": cpu() - before}

    kept = Identity("k", str(bench.folder / "copy" / "k.ledger"), input=source.out)
    run_stage(kept, client=bench.own)  # starts the cluster and imports everything, outside of what is measured
    turn = iter(range(1, 1_000_000))

    def changed(into: Path) -> Counts:
        stores.write_region(source.out, 0, {"x": values(rows) + np.float32(next(turn))})
        run_stage(kept, client=bench.own)
        return {"units": LAST[-1].units - LAST[-1].reused}

    read_all = least(lambda: [path.read_bytes() for path in (Path(source.out) / "x" / "c").rglob("*/0")], 1)

    def cubed(into: Path) -> Counts:
        return elsewhere(
            os.environ[CUBED], "storage_cubed.py", f"{source.out}/x", into / "x.zarr", into / "work", SLOTS
        )  # fmt: skip

    peers: dict[str, Runner] = {"two bare processes": by_hand, "open_zarr().to_zarr()": to_zarr}
    if os.environ.get(CUBED):
        peers["Cubed, 2 processes"] = cubed
    return [
        Work(name, ours, peers, read_all, "reading all encoded bytes"),
        Work(altered, changed, {"open_zarr().to_zarr()": to_zarr}, read_all / regions, "one chunk"),
    ]


def _bookkeeping(stage: Identity, into: Path) -> tuple[float, float]:
    """Return the seconds that gathering, planning, digests and ledger of a run take, done again, and the CPU seconds.

    An object is digested where it was just encoded: here, where it was just read.
    """
    ledger = Ledger(stage.ledger)
    records = list(ledger.records().values())
    started, before = time.perf_counter(), time.process_time()
    stage.plan(gather(stage.reads(), stage.ledger), Ledger(str(into / "none.ledger")).records())
    stage.plan(gather(stage.reads(), stage.ledger), checked_records(ledger))
    again = Ledger(str(into / "again.ledger"))
    for start in range(0, len(records), 50):
        again.append(records[start : start + 50])
    again.compact()
    wall, busy = time.perf_counter() - started, time.process_time() - before
    for key in (key for record in records for key in record.chunks):
        content = files.read_bytes(f"{stage.out}/{key}") or b""
        started, before = time.perf_counter(), time.thread_time()
        files.hash_bytes(content)
        wall += (time.perf_counter() - started) / SLOTS
        busy += time.thread_time() - before
    return wall, busy


def _in_a_bucket(bench: Bench, regions: int, rows: int) -> list[Work]:
    name = f"copy {regions:,} chunks of {values(rows).nbytes // 1024:,} KiB in a bucket, in process"
    if not bench.wants(name):
        return []
    server: Server = bench.stack.enter_context(s3_server())
    bucket = server.make_bucket("bench")
    source = Regions("s", f"{bucket}/s.ledger", regions=regions, rows=rows)
    run_stage(source)
    turn = iter(range(1_000_000))

    def counted(function: Callable[[str], None]) -> Counts:
        before = len(server.requests())
        function(f"{bucket}/{next(turn)}")
        return {"requests per unit": (len(server.requests()) - before) / regions}

    def ours(store: str) -> None:
        run_stage(Identity("x", f"{store}/x.ledger", input=source.out))

    def plain(store: str) -> None:
        from daskml_scale.storage.arrays import zarr_store
        from daskml_scale.storage.open_arrays import opened

        stores.create(f"{store}/x.zarr", template(regions * rows, rows))
        import zarr

        target = zarr.open_array(zarr_store(f"{store}/x.zarr")[0], path="x", mode="r+")
        array = opened(source.out, "x").array
        for start, stop in row_ranges(regions * rows, rows):
            target[start:stop] = array[start:stop]

    content = os.urandom(1000)
    limit = least(lambda: files.write_bytes(f"{bucket}/limit", content), 5) * 2 * regions
    peers = {"zarr in a loop": lambda into: counted(plain)}
    return [Work(name, lambda into: counted(ours), peers, limit, "two requests per chunk")]


_PLAN = """
import json, re, sys, time
from daskml_scale.plan.grids import Read, common_grid, grid_units
from daskml_scale.plan.records import Record, fingerprint, select
from daskml_scale.plan.table import Block
from daskml_scale.plan.units import Parts, Snapshot, Variable
from daskml_scale.storage.ledger import Ledger
count, url, committed = int(sys.argv[1]), sys.argv[2], sys.argv[3] == "committed"
source = Variable("float32", ("time", "place"), (count, 100), (1, 100))
table = Snapshot("x", "time", count, {"x": source}, {}, {"x": tuple(f"{n:040x}" for n in range(count))})
grid, parts = common_grid({"y": source}), Parts("code")
def plan(records):
    return select(grid_units(grid, [Read(table, ("x",))]), parts, records)
if committed:
    first = plan({})
    ledger = Ledger(url)
    for start in range(0, count, 20_000):
        units = first.units[start : start + 20_000]
        ledger.append_block(Block.of([
            Record(u.key, fingerprint(parts, u.key, first.inputs[u.key]), "0" * 40, "ok", 1, inputs=first.inputs[u.key],
                   parts=parts, chunks={f"y/c/{u.payload[0]}/0": ("0" * 40, 100, 1)}) for u in units]))
    ledger.compact()
    sys.exit()
started, before = time.perf_counter(), time.process_time()
made = plan(Ledger(url).records())
seconds, busy = time.perf_counter() - started, time.process_time() - before
peak = int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read()).group(1)) / 1024
print(json.dumps({"seconds": seconds, "CPU s": busy, "units": len(made.units), "reused": made.reused, "MiB": peak}))
"""


def _planned(bench: Bench, count: int) -> list[Work]:
    """Plan in processes of their own, whose memory can be read."""
    name = f"plan {count:,} units"
    if not bench.wants(name, f"{name}, all committed"):
        return []

    def plan(url: str) -> Counts:
        child = [sys.executable, "-c", _PLAN, str(count), url, "plan"]
        found: dict[str, float] = json.loads(subprocess.run(child, capture_output=True, text=True, check=True).stdout)
        return found

    def fresh(into: Path) -> Counts:
        return plan(str(into / "none.ledger"))

    kept = bench.folder / "planned.ledger"

    def all_done(into: Path) -> Counts:
        if not kept.exists():
            subprocess.run([sys.executable, "-c", _PLAN, str(count), str(kept), "committed"], check=True)
        return plan(str(kept))

    def graph(into: Path) -> Counts:
        program = (
            "import json, re, time, dask.array as da\n"
            "started = time.perf_counter()\n"
            f"tasks = len(dict((da.zeros(({count}, 100), chunks=(1, 100)) + 1).__dask_graph__()))\n"
            "print(json.dumps({'seconds': time.perf_counter() - started, 'units': tasks,\n"
            "    'MiB': int(re.search(r'VmHWM:\\s+(\\d+)', open('/proc/self/status').read()).group(1)) / 1024}))\n"
        )
        child = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
        found: dict[str, float] = json.loads(child.stdout)
        return found

    limit = least(lambda: [f"{number:040x}" for number in range(count)], 1)
    return [
        Work(each, ours, {"dask.array graph": graph}, limit, "formatting an id per unit")
        for each, ours in ((name, fresh), (f"{name}, all committed", all_done))
    ]
