"""Rows in the order of columns, for tables beyond memory: the passes of the sort. Pure.

``samples`` looks at a few rows of every block, ``split`` brings the rows of some blocks to their parts, ``sort`` puts
one part in order; a table of one part needs only the last. All are units like any other: what is finished is not done
again, a killed worker costs what it had in flight. The parts follow from the sizes of the blocks, never
from the cluster, so the ledger of the chunks does not depend on where they were made. ``sort_work`` does it.

Why not Dask's P2P shuffle: see docs/reference/ingest.md.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np

from daskml_scale.errors import PlanError
from daskml_scale.plan.records import Record, after, digest, select
from daskml_scale.plan.units import Parts, Plan, Unit
from daskml_scale.storage import tables

from . import sort_work
from .ingest_blocks import Pieces
from .read_types import Kind
from .sort_runs import joined
from .sort_work import KEPT, Sorting

PARTITION = 24 << 20
"""Bytes of a part, decoded: what is sorted at a time."""
MOST_PARTS = 2_000
"""Parts of larger tables grow instead: every part reads a range of every split."""
SAMPLES = 200
"""Most rows of a block that are looked at to find the borders."""
PER_PART = 100
"""Samples of a part, where the blocks have as many rows."""
MAX_PARTITIONS = 100_000
"""Most distinct values of ``partition_by``: the rows of each are listed beside the table."""


def count(nbytes: int) -> int:
    """Return the parts of a table of so many bytes."""
    return max(1, min(MOST_PARTS, -(-nbytes // PARTITION)))


def samples(parts: int, blocks: int) -> int:
    """Return how many rows of each block are looked at."""
    return min(SAMPLES, max(8, -(-PER_PART * parts // max(1, blocks))))


def passes(
    work: Sorting,
    blocks: Sequence[Mapping[str, Any]],
    parts: Parts,
    records: Mapping[str, Record],
    later: int,
) -> tuple[Plan, dict[str, Any] | None]:
    """Return the plan of the first pass that is not finished, or of the last; and what the sort made, where it is done.

    Parameters
    ----------
    blocks : sequence of mapping
        Results of the scans of the blocks.
    later : int
        Units that follow the sort.

    Raises
    ------
    PlanError
        When ``partition_by`` has too many values.
    """
    ids, sizes = [one["digest"] for one in blocks], [one["bytes"] for one in blocks]
    each = max(map(work.reading.memory, range(len(sizes))), default=0)
    size = -(-sum(sizes) // work.partitions)
    common: dict[str, Any] = {"parts": parts, "records": records, "later": later}
    plan = Plan()
    if work.partitions > 1:
        keys = [(Unit(f"samples/{work.reading.key(n)}", n, sizes[n]), digest(ids[n], work.first[n], work.samples))
                for n in range(len(sizes))]  # fmt: skip
        plan = select(keys, shared=work, memory=each, grid=f"samples of {len(keys):,} blocks", **common)
        if plan.units:
            return plan, None
        work = replace(work, borders=sort_work.borders([records[key].result for key in plan.keys], work))
        plan = after(plan, _splits(work, ids, sizes, each, common))
        if plan.units:
            return plan, None
        done = [records[key] for key in plan.keys if key.startswith("split/")]
        names = tuple(record.unit.replace("/", ".") for record in done)
        work = replace(work, splits=names, counts=np.array([record.result for record in done], dtype="int64"))
    units = [(Unit(f"sort/{n:06d}", n, size), digest(ids, work.first, work.partitions, n))
             for n in range(work.partitions)]  # fmt: skip
    if work.kept[0] < work.kept[1]:
        units.insert(0, (Unit("sort/kept", KEPT, 1), digest(work.kept)))
    memory = 3 * size + (each if work.partitions == 1 else 0)
    grid = f"sort of {sum(one['rows'] for one in blocks):,} rows in {_parts(work)}"
    last = select(units, shared=work, memory=memory, grid=grid, **common)
    plan = after(plan, last)
    return plan, None if plan.units else _result([records[key].result for key in last.keys])


def there(records: Mapping[str, Record], names: Collection[str]) -> dict[str, Record]:
    """Return the records without those of splits and parts of which something is not among ``names``."""
    found = {}
    for unit, record in records.items():
        made = [unit.replace("/", ".")] if unit.startswith("split/") else []
        if unit.startswith("sort/") and isinstance(record.result, Mapping):
            made = [name for name, *_ in record.result["pieces"]]
        if all(name in names for name in made):
            found[unit] = record
    return found


def _parts(work: Sorting) -> str:
    return f"{work.partitions:,} part{'s'[: work.partitions != 1]}"


def _splits(work: Sorting, ids: Sequence[str], sizes: Sequence[int], each: int, common: Mapping[str, Any]) -> Plan:
    """Plan the splits, each of blocks of about one part's size."""
    most, held = -(-sum(sizes) // work.partitions), 0
    starts: list[int] = []
    for number, nbytes in enumerate(sizes):
        if not starts or held + nbytes > most:
            starts.append(number)
            held = 0
        held += nbytes
    borders = digest([border.tolist() for border in work.borders])
    units, largest = [], 0
    for start, stop in zip(starts, [*starts[1:], len(sizes)], strict=True):
        held = sum(sizes[start:stop])
        largest = max(largest, held)
        reads = digest(ids[start:stop], work.first[start:stop], borders)
        units.append((Unit(f"split/{start:06d}", (start, stop), held), reads))
    grid = f"{len(units):,} runs of blocks into {_parts(work)}"
    return select(units, shared=work, memory=each + 3 * largest, grid=grid, **common)


def _result(results: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the pieces and the stretches of equal values of all parts."""
    runs = joined([(list(values), rows) for one in results for values, rows in one["runs"]])
    if len(runs) > MAX_PARTITIONS:
        raise PlanError(
            f"row.partition_by: {len(runs):,} distinct values, more than {MAX_PARTITIONS:,}; name the column in "
            "`sort_by` instead"
        )
    pieces = [piece for one in results for piece in one["pieces"]]
    return {"pieces": pieces, "runs": [[values, rows] for values, rows in runs]}


def reads(work: Sorting, blocks: Sequence[Mapping[str, Any]], parts: Parts) -> str:
    """Return what identifies a sort: what a later run compares before it takes the order from an earlier one."""
    return digest(asdict(parts), [one["digest"] for one in blocks], work.kept)


def pieces_of(result: Mapping[str, Any], *, kept: bool = True) -> Pieces:
    """Return the pieces of a finished sort, those of rows that were in the table before only where ``kept``."""
    chosen = [(rows, known) for name, rows, known in result["pieces"] if kept or not name.startswith(f"{KEPT}.")]
    return Pieces(tuple(rows for rows, _ in chosen), tuple(known for _, known in chosen))


def partitions(
    by: Sequence[str], runs: Sequence[tuple[Sequence[Any], int]], kinds: Mapping[str, Kind]
) -> list[list[Any]]:
    """Return [value of each column, first row, row after the last] of every partition, as people read them."""
    found, start = [], 0
    for values, rows in runs:
        found.append(
            [*(_shown(value, kinds[name]) for name, value in zip(by, values, strict=True)), start, start + rows]
        )
        start += rows
    return found


def _shown(value: Any, kind: Kind) -> Any:
    if kind.kind == "text":
        return kind.labels[value] if value >= 0 else None
    if kind.kind == "time":
        return None if value == tables.NO_TIME else str(np.datetime64(value, "s" if kind.seconds else "ns"))
    return None if value != value else value
