"""What does the record keeping cost? Aligned writes as a stage, with digests and ledger, against plain zarr.

Both write the same regions into the same layout in one process. Ours also plans, reads every object back
for its digest, and makes ledger segments durable (fsync); the peer is a bare loop over ``array[a:b] =``.
Then the stage runs again with every unit committed: ledger read, every object checked, nothing to do;
the peer is the test that one writes by hand, whether each object exists, which cannot tell a whole object
from an altered one. The limits are the same bytes as plain files, and one stat per object.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from daskml_scale.engine.worker import WorkerContext
from daskml_scale.plan.records import Record, Written, select
from daskml_scale.plan.units import Parts, Plan, Template, Unit, Variable, row_key, row_ranges
from daskml_scale.stages.base import Input, StageBase
from daskml_scale.stages.run import LAST, run_stage
from daskml_scale.storage import stores

from .common import Bench, Counts, Row, Work, least

WIDTH = 16
SIZES = {
    "toy": ((8, 1_024),),
    "small": ((1_000, 1_024), (100, 32_768)),
    "full": ((5_000, 1_024), (1_000, 131_072)),
}
"""(number of regions, rows of each), float32 of 16 columns: 1,024 rows are 64 KiB."""


@dataclass(frozen=True)
class Regions(StageBase):
    """A stage that only writes: one region per unit."""

    regions: int = 1
    rows: int = 1
    kind: str = "write"

    def plan(self, inputs: Mapping[str, Input], records: Mapping[str, Record]) -> Plan:
        total = self.regions * self.rows
        units = [
            (Unit(row_key(start, self.rows), (start, stop), self.rows), "")
            for start, stop in row_ranges(total, self.rows)
        ]
        chunks = (self.rows, WIDTH)
        template = Template("row", total, {"x": Variable("float32", ("row", "column"), (total, WIDTH), chunks)})
        return select(units, Parts(code="benchmark"), records, template=template, shared=values(self.rows))

    def kernel(self, unit: Unit, worker: WorkerContext) -> Any:
        start, stop = unit.payload
        return Written(stores.write_region(self.out, start, {"x": worker.shared}), rows=stop - start)


@cache
def values(rows: int) -> np.ndarray:
    """Return values that compress as measurements do, shape (rows, 16)."""
    return np.random.default_rng(0).normal(20, 5, (rows, WIDTH)).round(1).astype("float32")


def measure(bench: Bench) -> list[Row]:
    """Return the rows of this question."""
    works = []
    for regions, rows in SIZES[bench.size]:
        done = Regions("x", str(bench.folder / f"{regions}x{rows}" / "x.ledger"), regions=regions, rows=rows)
        run_stage(done)
        works += _works(done, values(rows), bench.folder)
    return bench.compare(works)


def _works(done: Regions, block: np.ndarray, folder: Path) -> list[Work]:
    regions, rows = done.regions, done.rows
    objects = sorted((Path(done.out) / "x" / "c").rglob("*/0"))
    if len(objects) != regions:
        raise RuntimeError(f"{len(objects)} objects of {regions} regions")
    encoded = objects[0].read_bytes()

    def ours(into: Path) -> Counts:
        run_stage(Regions("x", str(into / "x.ledger"), regions=regions, rows=rows))
        return {"segments": len(list((into / "x.ledger").glob("0*.json")))}

    def plain(into: Path) -> None:
        import zarr

        shape, chunks = (regions * rows, WIDTH), (rows, WIDTH)
        array = zarr.create_array(str(into / "x.zarr" / "x"), shape=shape, chunks=chunks, dtype="float32")
        for start, stop in row_ranges(regions * rows, rows):
            array[start:stop] = block

    def resume(into: Path) -> Counts:
        run_stage(done)
        return {"reused": LAST[-1].reused}

    def exist(into: Path) -> None:
        if not all(path.exists() for path in objects):
            raise RuntimeError("an object is missing")

    def files() -> None:
        for number in range(regions):
            (folder / f"limit-{number}").write_bytes(encoded)

    name = f"{regions:,} regions of {block.nbytes // 1024:,} KiB"
    size = f"{regions * len(encoded) / 1e6:.0f} MB of encoded bytes as plain files"
    return [
        Work(name, ours, {"zarr in a loop": plain}, least(files), size),
        Work(
            f"resume, {regions:,} units done",
            resume,
            {"does each object exist": exist},
            least(lambda: [os.stat(path) for path in objects]),
            "one stat per object",
        ),
    ]
