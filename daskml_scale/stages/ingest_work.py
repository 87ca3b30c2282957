"""What a worker does to read files into a table: identify, cut, look at blocks, write chunks.

What runs when is for ``ingest`` to say; how rows are put in order, for ``sort_work``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from daskml_scale.engine.worker import WorkerContext
from daskml_scale.plan.records import Written
from daskml_scale.plan.units import Unit
from daskml_scale.storage import files, stores, tables

from . import sort_work
from .ingest_blocks import Pieces, Reading
from .ingest_files import look, unchanged
from .ingest_passes import Passes
from .ingest_table import Table, table_of
from .sort_files import read_pieces
from .sort_work import Sorting


@dataclass(frozen=True)
class Rows:
    """What the last pass writes the chunks from.

    Attributes
    ----------
    pieces : Pieces
        Blocks of the reading, or sorted pieces.
    names : tuple of str
        Of the sorted pieces; empty when there are none.
    base : int
        Row of the table that the first piece begins at.
    """

    reading: Reading
    pieces: Pieces
    names: tuple[str, ...] = ()
    scratch: str = ""
    base: int = 0


def run(stage: Passes, unit: Unit, worker: WorkerContext) -> Any:
    """Return the result of a unit of any pass."""
    verb, shared = unit.key.partition("/")[0], worker.shared
    if verb == "hash":
        with unchanged(unit.payload):
            return files.file_id(unit.payload.url).digest
    if verb == "index":
        place, start, stop = unit.payload
        file = shared.files[place]
        return list(look(file.source.url, start, stop, file.about.start, file.source.size))
    if verb == "text":
        number, columns = unit.payload
        return shared.labels(number, columns)
    if isinstance(shared, Sorting):
        return sort_work.run(unit, shared)
    if verb == "rows":
        return _write(stage, unit, worker)
    if unit.payload is not None:
        return shared.scan(unit.payload)
    return _table(stage, worker, shared).result(max(1, stage.row.chunk))


def _table(stage: Passes, worker: WorkerContext, reading: Reading) -> Table:
    """Return the table of a single small file, read once per process."""
    key = ("ingest", reading.id(0), stage.parameters) if reading.blocks else ("ingest", stage.name)
    by = stage.row.order
    return worker.cache.get(key, lambda: table_of(reading, stage.origin, by), size=lambda table: table.nbytes)


def _write(stage: Passes, unit: Unit, worker: WorkerContext) -> Written:
    start, stop, old = unit.payload
    if isinstance(worker.shared, Rows):
        encoded = _encoded(stage.out, worker.shared, start, stop, old)
    else:
        reading, columns = worker.shared
        found = _table(stage, worker, reading).columns
        encoded = {
            name: tables.encode(found[name][start:stop], tables.ColumnType(**kind)) for name, kind in columns.items()
        }
    return Written(stores.write_region(stage.out, start, encoded), rows=stop - start)


def _encoded(out: str, shared: Rows, start: int, stop: int, old: int) -> dict[str, np.ndarray]:
    """Return rows [start, stop) as they are stored; those before ``old`` are in the table already."""
    base, found = shared.base, []
    at = max(start, old) if not shared.names else start
    if at > start:
        found.append({name: stores.read_region(out, name, [(start, at)]) for name in shared.reading.kinds})
    parts = list(shared.pieces.parts(at - base, stop - base, shared.pieces.starts))
    if shared.names:
        named_parts = [(shared.names[piece], first, last) for piece, first, last in parts]
        return read_pieces(shared.scratch, list(shared.reading.kinds), named_parts)
    for piece, first, last in parts:
        block = shared.reading.encoded(piece)
        found.append({name: values[first:last] for name, values in block.items()})
    return {name: np.concatenate([one[name] for one in found]) for name in shared.reading.kinds}
