"""Rechunk: the same dataset in other chunks or shards, with bounded memory.

For inputs whose chunks lie across what a stage wants to read: maps that become series, tables in chunks of
the wrong size. ``plan.rechunking`` decides for each variable between one pass and two; the second pass
needs the intermediate, a plain dataset beside the output that is removed when the stage is finished.
A unit is one block of one variable. When the input changes, only the blocks of the output that hold what
changed are written again, and of the intermediate only what these need.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from daskml_scale.engine.worker import WorkerContext
from daskml_scale.errors import UsageError
from daskml_scale.plan.records import Record, Written, digest, select
from daskml_scale.plan.units import Parts, Plan, Snapshot, Template, Unit
from daskml_scale.plan.why import Why
from daskml_scale.storage import files, stores
from daskml_scale.storage.urls import zarr_url

from .base import Input, Ref, StageBase, StageResult
from .inputs import require
from .rechunk_layout import JOIN, SPLIT, Layout, name_of

if TYPE_CHECKING:
    import xarray as xr

CODE = "rechunk-1"
"""Changes whenever the kernel's output changes for the same input."""
MEMORY = 256 << 20
"""Bytes that one unit may take where nobody says."""


@dataclass(frozen=True)
class RechunkStage(StageBase):
    """See the module docstring.

    Attributes
    ----------
    input : str
        URL of the dataset.
    chunks, shards : mapping of dimension to int
        Elements; -1 is the whole dimension. Dimensions that are not named keep their chunks.
    memory : int
        Bytes that one unit may take.
    variables : tuple of str
        What to write; all by default.
    """

    input: str
    chunks: Mapping[str, int] = field(default_factory=dict)
    shards: Mapping[str, int] = field(default_factory=dict)
    memory: int = MEMORY
    variables: tuple[str, ...] = ()
    kind: str = "rechunk"

    @property
    def scratch(self) -> str:
        """URL of the intermediate."""
        return stores.beside(self.out, "rechunk.zarr")

    def reads(self) -> Mapping[str, Ref]:
        return {"input": Ref("dataset", self.input)}

    def plan(self, inputs: Mapping[str, Input], records: Mapping[str, Record]) -> Plan:
        layout = Layout.of(self._source(inputs), self.chunks, self.shards, self.memory)
        last = self._pass(JOIN, layout, layout.units(JOIN), records)
        wanted = layout.needed(last.units)
        if not wanted:
            return last
        first = self._pass(SPLIT, layout, (pair for pair in layout.units(SPLIT) if pair[0].key in wanted), records)
        if not first.units:
            return replace(last, keys=first.keys + last.keys, reused=first.reused + last.reused)
        waiting = {unit.key for unit in last.units}
        done = tuple(key for key in last.keys if key not in waiting)
        return replace(
            first,
            keys=first.keys + done,
            reused=first.reused + len(done),
            later=len(waiting),
            # An intermediate is made again because the output is: that reason is the one to tell.
            reasons={last.why.usual: len(first.units)},
            why=Why(last.why.usual),
            beside={self.scratch: Template(layout.source.dim, layout.source.rows, layout.between)},
        )

    def _source(self, inputs: Mapping[str, Input]) -> Snapshot:
        source = require(inputs["input"], self.input, self.name)
        chosen = {name: source.variables[name] for name in self.variables or source.variables}
        return replace(source, variables=chosen)

    def _pass(self, verb: str, layout: Layout, units: Any, records: Mapping[str, Record]) -> Plan:
        two = f", {len(layout.between)} of them over an intermediate" if layout.between else ""
        count = sum(map(len, layout.join.values()))
        return select(
            units,
            Parts(code=CODE, schema=digest([(n, v.dtype, v.chunks, v.shards) for n, v in layout.targets.items()])),
            records,
            shared=layout.split if verb == SPLIT else (layout.join, frozenset(layout.between)),
            template=layout.template(),
            grid=f"{count:,} block{'s'[: count != 1]} of {len(layout.targets)} variables{two}",
            memory=layout.memory,
            need=layout,
            rows=layout.source.rows,
        )

    def kernel(self, unit: Unit, worker: WorkerContext) -> Written:
        name = name_of(unit.key)
        if unit.key.startswith(f"{SPLIT}/"):
            region = worker.shared[name].region(unit.payload)
            written = self._copy(self.input, self.scratch, name, region)
            # The ledger names objects by their place from the output.
            place = f"../{self.scratch.rpartition('/')[2]}"
            return Written({f"{place}/{key}": stored for key, stored in written.items()}, rows=0)
        join, between = worker.shared
        source = self.scratch if name in between else self.input
        return Written(self._copy(source, self.out, name, join[name].region(unit.payload)), rows=0)

    @staticmethod
    def _copy(source: str, target: str, name: str, region: Any) -> dict[str, tuple[str, int, int]]:
        values = stores.read_region(source, name, region)
        return stores.write_region(target, [start for start, _ in region], {name: values})

    def finish(self, inputs: Mapping[str, Input], records: Mapping[str, Record]) -> StageResult:
        stores.remove(self.scratch)
        source = self._source(inputs)
        return StageResult({"variables": sorted(source.variables)}, rows=source.rows)


def rechunk(
    data: Any,
    out: str | os.PathLike[str],
    *,
    chunks: Mapping[str, int],
    shards: Mapping[str, int] | None = None,
    memory: int | str = MEMORY,
    client: Any | None = None,
) -> xr.Dataset:
    """Write a dataset in other chunks and return it, opened lazily.

    Parameters
    ----------
    data : xarray.Dataset or str
        A URL, or a dataset that was opened from one and not changed since.
    out : str
        URL ending in ``.zarr``. Its ledger lies beside it: a second call goes on, or writes only what changed.
    chunks : mapping of dimension to int
        Elements per chunk; -1 for the whole dimension. Dimensions that are not named keep their chunks.
    shards : mapping of dimension to int, optional
        Elements per stored object; a multiple of the chunk.
    memory : int or str
        Bytes that one task may take, ``"256 MiB"`` for example.
    client : distributed.Client, optional
        The default client if there is one, else this process.

    Returns
    -------
    xarray.Dataset

    Raises
    ------
    PlanError
        When ``memory`` does not hold one chunk of the source and one of the output.
    """
    from daskml_scale.engine.client import current_client
    from daskml_scale.spec.base import byte_count

    from .claim import claim
    from .run import run_stage

    source = files.normal(data) if isinstance(data, (str, os.PathLike)) else stores.source_of(data)
    if source is None:
        raise UsageError("data is no dataset as it lies in a store; write it first, or give its URL")
    url = zarr_url(out)
    stage = RechunkStage(
        Path(url).stem,
        stores.beside(url, "ledger"),
        input=source,
        chunks=dict(chunks),
        shards=dict(shards or {}),
        memory=byte_count(memory) if isinstance(memory, str) else memory,
        variables=() if isinstance(data, (str, os.PathLike)) else tuple(sorted(map(str, data.variables))),
    )
    with claim(url, "rechunk", [("data", source)]):
        run_stage(stage, client=current_client() if client is None else client)
    return stores.open_dataset(url)
