"""Stores of every kind to run a suite over, and the server process that speaks S3 which the benchmarks have too."""

from __future__ import annotations

import os
import sys
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.servers import CREDENTIALS as CREDENTIALS
from benchmarks.servers import Server as Server
from benchmarks.servers import start as start
from daskml_scale.engine.worker import WorkerContext
from daskml_scale.plan.records import Record, Written, select
from daskml_scale.plan.units import Parts, Plan, Snapshot, Template, Unit, Variable, row_key, row_ranges
from daskml_scale.stages.base import Input, Ref, StageBase
from daskml_scale.storage import stores

KINDS = ("local", "memory", "s3", "icechunk+file", "icechunk+s3")


def icechunk_or_skip() -> None:
    """Skip, with the reason, where Icechunk 2 cannot be."""
    if sys.version_info < (3, 12):
        pytest.skip("Icechunk 2 needs Python 3.12 or newer")
    pytest.importorskip("icechunk", reason="pip install 'daskml-scale[icechunk]'")


def new_store(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Return the URL of an empty store of that kind."""
    name = f"store-{uuid.uuid4().hex[:12]}"
    if kind.startswith("icechunk"):
        icechunk_or_skip()
    if kind.endswith("s3"):
        bucket = request.getfixturevalue("s3").make_bucket(name)
        return f"{'icechunk+' if kind.startswith('icechunk') else ''}{bucket}/store"
    return {
        "local": str(tmp_path / "store"),
        "memory": f"memory://{name}",
        "icechunk+file": f"icechunk+file://{tmp_path}/store",
    }[kind]


ROWS, CHUNK = 40, 2


@dataclass(frozen=True)
class Double(StageBase):
    """Writes twice what it reads: one object read, one written per unit."""

    input: str = ""
    fail: tuple[int, ...] = ()
    dies: str = ""
    """A file that the unit of row 10 makes, after which its worker dies, once and after it has written."""
    kind: str = "double"

    def reads(self) -> Mapping[str, Ref]:
        return {"input": Ref("dataset", self.input)}

    def plan(self, inputs: Mapping[str, Input], records: Mapping[str, Record]) -> Plan:
        table = inputs["input"]
        assert isinstance(table, Snapshot)
        units = [
            (Unit(row_key(start, CHUNK), (start, stop), CHUNK), "".join(table.row_ids(("x",), start, stop)))
            for start, stop in row_ranges(table.rows, CHUNK)
        ]
        template = Template("row", table.rows, {"y": Variable("float64", ("row",), (table.rows,), (CHUNK,))})
        return select(units, Parts(code="double"), records, template=template)

    def kernel(self, unit: Unit, worker: WorkerContext) -> Any:
        start, stop = unit.payload
        if start in self.fail:
            stores.write_region(self.out, start, {"y": np.full(stop - start, -1.0)})
            raise ValueError("asked to fail after writing")
        x, _ = stores.read_raw(self.input, "x", start, stop)
        if self.dies and start == 10 and not Path(self.dies).exists():
            stores.write_region(self.out, start, {"y": np.full(stop - start, -1.0)})
            Path(self.dies).touch()
            os._exit(1)
        return Written(stores.write_region(self.out, start, {"y": 2 * x}), rows=stop - start)


def table(url: str, rows: int = ROWS) -> str:
    """Write the numbers from 1 on as a dataset that no ledger knows."""
    stores.create(url, Template("row", rows, {"x": Variable("float64", ("row",), (rows,), (CHUNK,))}))
    stores.write_region(url, 0, {"x": np.arange(1.0, rows + 1)})
    return url


def values(stage: Double) -> list[float]:
    return list(stores.open_dataset(stage.out).y.values)
