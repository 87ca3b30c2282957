"""The stages of the storage benchmark, importable by workers, and the same work by hand in bare processes."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from daskml_scale.engine.worker import WorkerContext
from daskml_scale.plan.records import Record, Written, select
from daskml_scale.plan.units import Parts, Plan, Snapshot, Template, Unit, Variable, row_key, row_ranges
from daskml_scale.stages.base import Input, Ref, StageBase
from daskml_scale.storage import stores

WIDTH = 16


@cache
def values(rows: int) -> np.ndarray:
    """Return values that compress as measurements do, shape (rows, 16)."""
    return np.random.default_rng(0).normal(20, 5, (rows, WIDTH)).round(1).astype("float32")


def template(rows: int, chunk: int) -> Template:
    """Return a dataset of one float32 variable of 16 columns."""
    return Template("row", rows, {"x": Variable("float32", ("row", "column"), (rows, WIDTH), (chunk, WIDTH))})


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
        shared = values(self.rows)
        return select(units, Parts(code="benchmark"), records, template=template(total, self.rows), shared=shared)

    def kernel(self, unit: Unit, worker: WorkerContext) -> Any:
        start, stop = unit.payload
        return Written(stores.write_region(self.out, start, {"x": worker.shared}), rows=stop - start)


@dataclass(frozen=True)
class Identity(StageBase):
    """A stage that writes what it reads: one object read, one written per unit."""

    input: str = ""
    kind: str = "identity"

    def reads(self) -> Mapping[str, Ref]:
        return {"input": Ref("dataset", self.input)}

    def plan(self, inputs: Mapping[str, Input], records: Mapping[str, Record]) -> Plan:
        table = inputs["input"]
        assert isinstance(table, Snapshot)
        size = table.variables["x"].write_unit[0]
        units = [
            (Unit(row_key(start, size), (start, stop), size), "".join(table.row_ids(("x",), start, stop)))
            for start, stop in row_ranges(table.rows, size)
        ]
        return select(units, Parts(code="benchmark"), records, template=template(table.rows, size))

    def kernel(self, unit: Unit, worker: WorkerContext) -> Any:
        start, stop = unit.payload
        x, _ = stores.read_raw(self.input, "x", start, stop)
        return Written(stores.write_region(self.out, start, {"x": x}), rows=stop - start)


_BARE = """
import sys, zarr
source, target = zarr.open_array(sys.argv[1], mode="r"), zarr.open_array(sys.argv[2], mode="r+")
first, last, size = map(int, sys.argv[3:])
print("ready", flush=True)
sys.stdin.readline()
for start in range(first, last, size):
    target[start : start + size] = source[start : start + size]
"""


@contextmanager
def bare(
    source: str, target: str, regions: int, rows: int, processes: int
) -> Iterator[Sequence[subprocess.Popen[str]]]:
    """Start processes that copy an array by hand, each its part, and wait until they are ready."""
    parts = [(regions * n // processes * rows, regions * (n + 1) // processes * rows) for n in range(processes)]
    children = [
        subprocess.Popen(
            [sys.executable, "-c", _BARE, source, target, *map(str, (*part, rows))],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )
        for part in parts
    ]  # fmt: skip
    try:
        for child in children:
            assert child.stdout is not None
            child.stdout.readline()
        yield children
    finally:
        for child in children:
            child.kill()
            child.wait()


def go(children: Sequence[subprocess.Popen[str]]) -> float:
    """Let bare processes run, and return the seconds until the last one ended."""
    started = time.perf_counter()
    for child in children:
        assert child.stdin is not None
        child.stdin.write("\n")
        child.stdin.flush()
    if any(child.wait() for child in children):
        raise RuntimeError("a bare process failed")
    return time.perf_counter() - started
