"""Ingest: CSV and Parquet files become a table: one row dimension, sorted, coded categories, CF times.

Passes, each of independent units: where the rows of large CSV files begin (``index``), what every block of every
file holds (``scan``), texts of columns that are text elsewhere (``text``), the order of the rows (``ingest_sort``,
only where it is asked for), and the chunks of the table (``rows``), each written once from the blocks that it
overlaps. A block is read again only when its file changed. A single small file is scanned and sorted by one unit,
whose content is known row by row: of its table only the chunks whose rows differ are written again. What a worker does
for each of them is said in ``ingest_work``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from daskml_scale.engine.worker import WorkerContext
from daskml_scale.errors import PlanError
from daskml_scale.plan.records import OK, Record, after, digest, select
from daskml_scale.plan.units import Parts, Plan, Template, Unit, row_key, row_ranges
from daskml_scale.plan.why import Why
from daskml_scale.spec.expressions import names
from daskml_scale.storage import files, stores, tables
from daskml_scale.storage.ledger import Ledger
from daskml_scale.storage.urls import is_icechunk

from . import csv_files, ingest_sort, ingest_work
from .base import Input, Ref, StageResult
from .file_patterns import is_pattern, sources
from .ingest_blocks import Pieces, Reading
from .ingest_files import blocks_of
from .ingest_history import History
from .ingest_passes import CODE, Found, Passes
from .ingest_table import alone
from .ingest_work import Rows
from .sort_runs import joined
from .sort_work import Sorting


@dataclass(frozen=True)
class IngestStage(Passes):
    """See the module docstring."""

    @property
    def scratch(self) -> str:
        """URL of the folder of sorted rows."""
        return stores.scratch(self.out, "sorted")

    @property
    def note(self) -> str:
        """URL of what the next run must know of this one."""
        return stores.beside(self.out, "ingested.json")

    def places(self) -> list[str]:
        """Return the URLs of all files."""
        return [one.url for url in self.sources for one in sources(url, quick=True).values()]

    def reads(self) -> Mapping[str, Ref]:
        kind = "sources" if self.sample is None else "quick sources"
        entries = {f"sources[{number}]": Ref(kind, url) for number, url in enumerate(self.sources)}
        return {**entries, "before": Ref("json", self.note)}

    def plan(self, inputs: Mapping[str, Input], records: Mapping[str, Record]) -> Plan:
        hashed = self._hash(inputs, records)
        return hashed if hashed.units else after(hashed, self._planned(self._found(inputs, records), inputs, records))

    def _planned(self, found: Found, inputs: Mapping[str, Input], records: Mapping[str, Record]) -> Plan:
        if self._alone(found):
            return self._small(found, records)
        done, pieces = self._index(found, records)
        if done.units:
            return done
        reading = self._cut(found, pieces)
        scan = after(done, self._scan(reading, records))
        if scan.units:
            return scan
        parts = self._parts(reading, records)
        kinds = self._kinds(found, reading, parts)
        text = self._text(reading, parts, kinds.of, records)
        if text is not None:
            scan = after(scan, text)
            if scan.units:
                return scan
        ready = self._ready(reading, parts, kinds, records)
        return after(scan, self._last(found, ready, inputs, records))

    # ---- what there is

    def _alone(self, found: Found) -> bool:
        """Return whether the source is one small file: it is worked on as a whole."""
        one = len(self.sources) == 1 and not is_pattern(self.sources[0])
        whole = self.sample is None and not self.append and not self.row.partition_by
        return one and whole and alone(found.reading.files[0])

    # ---- a single small file

    def _small(self, found: Found, records: Mapping[str, Record]) -> Plan:
        file = found.reading.files[0]
        reading = replace(found.reading, blocks=tuple(blocks_of(0, file)))
        content, size = (file.source.digest,), file.source.size
        scan = select(
            [(Unit("scan", weight=size), digest(content))],
            Parts(code=CODE, parameters=self.parameters),
            records,
            grid=f"one scan of {size / 2**20:,.1f} MiB",
            shared=reading,
            later=1,
            **self._memory(reading),
        )
        if scan.units:
            return scan
        result = records["scan"].result
        kinds = {name: tables.ColumnType(**kind) for name, kind in result["columns"].items()}
        shared = (reading, result["columns"])
        return after(scan, self._rows(kinds, result["rows"], result["blocks"], shared, records, result["bytes"]))

    # ---- many blocks

    def _last(self, found: Found, reading: Reading, inputs: Mapping[str, Input], records: Mapping[str, Record]) -> Plan:
        """Plan the sort, where rows are sorted, and the chunks."""
        results = [records[f"scan/{reading.key(number)}"].result for number in range(len(reading.blocks))]
        nbytes = sum(one["bytes"] for one in results)
        if not self.row.order:
            pieces = _pieces(results)
            return self._chunks(found, Rows(reading, pieces), pieces, records, nbytes)
        plan, known, _ = self._sort(found, reading, inputs, records)
        if known is None:
            return plan
        whole, new = _whole(found, known), ingest_sort.pieces_of(known)
        listed = tuple(name for name, *_ in known["pieces"])
        base = found.history.rows // self.row.chunk * self.row.chunk if listed else 0
        rows = self._chunks(found, Rows(reading, new, listed, self.scratch, base), whole, records, nbytes)
        if plan.units and rows.units:  # what was sorted is gone, and some of it is needed again
            return replace(plan, reasons={rows.why.usual: len(plan.units)}, why=Why(rows.why.usual))
        return rows

    def _sort(
        self, found: Found, reading: Reading, inputs: Mapping[str, Input], records: Mapping[str, Record]
    ) -> tuple[Plan, Mapping[str, Any] | None, str]:
        """Return what is to be done of the sort of the new blocks, its result where a run has it, and its identity."""
        first = next((n for n, block in enumerate(reading.blocks) if block.file >= found.old), len(reading.blocks))
        if first == len(reading.blocks):
            return Plan(), {"pieces": [], "runs": []}, ""
        results = [records[f"scan/{reading.key(n)}"].result for n in range(first, len(reading.blocks))]
        pieces, old = _pieces(results), found.history.rows
        parts = ingest_sort.count(sum(one["bytes"] for one in results))
        work = Sorting(
            replace(reading, blocks=reading.blocks[first:], raw=reading.raw[first:]),
            tuple(start + old for start in pieces.starts[:-1]),
            self.row.order,
            self.out,
            self.scratch,
            self.row.chunk,
            parts,
            ingest_sort.samples(parts, len(results)),
            (old // self.row.chunk * self.row.chunk, old),
            len(self.row.partition_by),
        )
        if is_icechunk(self.out):  # the rows on their way lie elsewhere, where no ledger looks
            records = ingest_sort.there(records, set(files.names(self.scratch)))
        kinds = digest([(name, kind.kind, kind.labels) for name, kind in reading.kinds.items()])
        same = Parts(code=CODE, parameters=self.parameters, schema=kinds)
        plan, known = ingest_sort.passes(work, results, same, records, -(-sum(pieces.rows) // self.row.chunk))
        reads, before = ingest_sort.reads(work, results, same), inputs.get("before")
        if known is None and isinstance(before, Mapping) and before.get("sort") and before["sort"]["reads"] == reads:
            known = before["sort"]["result"]
        return plan, known, reads

    def _chunks(self, found: Found, shared: Rows, pieces: Pieces, records: Mapping[str, Record], nbytes: int) -> Plan:
        """Plan the chunks of a table of many blocks."""
        kinds = {name: kind.stored() for name, kind in shared.reading.kinds.items()}
        rows, size, starts = sum(pieces.rows), self.row.chunk, pieces.starts
        old = found.history.rows
        reads = [pieces.reads(start, stop, starts) for start, stop in row_ranges(rows, size)]
        plan = self._rows(kinds, rows, reads, shared, records, min(nbytes, size * 16 * len(kinds)), old)
        lost = [unit.key for unit in plan.units if shared.names and unit.payload[0] < shared.base]
        lost += [unit.key for unit in plan.units if found.old and self.row.order and not shared.names]
        if lost:
            raise PlanError(
                f"append: {len(lost)} chunks of rows that were sorted earlier must be written again "
                f"({plan.why.get(lost[0])}), and their rows are not at hand; remove `append` to write the table anew"
            )
        return plan

    def _rows(
        self,
        kinds: Mapping[str, tables.ColumnType],
        rows: int,
        reads: Sequence[str],
        shared: Any,
        records: Mapping[str, Record],
        nbytes: int,
        old: int = 0,
    ) -> Plan:
        """Plan the chunks of the table: ``reads`` tells what each is made of."""
        chunk = self.row.chunk if self.append else min(self.row.chunk, max(1, rows))
        variables = {name: kind.variable(self.row.dim, rows, chunk) for name, kind in kinds.items()}
        if self.append:
            variables = {name: replace(variable, chunks=(chunk,)) for name, variable in variables.items()}
        attrs = {
            "row_key": list(self.row.order),
            "source": self.origin,
            "derived_from": {name: list(names(text)) for name, text in self.derive},
        }
        units = []
        for (start, stop), read in zip(row_ranges(rows, chunk), reads, strict=True):
            key = row_key(start, chunk)
            record = records.get(key)
            here = old if start < old < stop and record is not None and record.status == OK else 0
            units.append((Unit(key, (start, stop, here), stop - start), read))
        # What is appended adds labels; codes that are stored stay as they are.
        meaning = {
            name: (kind.dtype, str(kind.attrs.get("units"))) if self.append else asdict(kind)
            for name, kind in kinds.items()
        }
        return select(
            units,
            Parts(code=CODE, parameters=self.parameters, schema=digest(meaning, self.row.dim, chunk)),
            records,
            grid=f"{len(units)} chunk{'s'[: len(units) != 1]} of {chunk:,} rows x {len(kinds)} columns",
            memory=2 * nbytes,
            shared=shared,
            template=Template(self.row.dim, rows, variables, attrs),
            rows=rows,
        )

    def kernel(self, unit: Unit, worker: WorkerContext) -> Any:
        return ingest_work.run(self, unit, worker)

    # ---- the end

    def finish(self, inputs: Mapping[str, Input], records: Mapping[str, Record]) -> StageResult:
        rows = sum(record.rows for record in records.values())
        found = self._found(inputs, records)
        told = [f"{csv_files.shown(url)} is named twice; it was read once" for url in found.twice]
        if self._alone(found):
            return StageResult(rows=rows, warnings=(*told, *records["scan"].result["doubts"]))
        _, pieces = self._index(found, records)
        reading = self._cut(found, pieces)
        parts = self._parts(reading, records)
        kinds = self._kinds(found, reading, parts)
        if self.sample is not None:
            total = sum(file.source.size for file in found.reading.files)
            told.append(f"sample: {len(reading.blocks)} blocks of sources of {total / 2**20:,.1f} MiB, {rows:,} rows")
        self._keep(found, self._ready(reading, parts, kinds, records), inputs)
        return StageResult(rows=rows, warnings=(*told, *kinds.doubts.values()))

    def _keep(self, found: Found, reading: Reading, inputs: Mapping[str, Input]) -> None:
        """Write down what the next run must know, and where each partition lies; remove the sorted pieces."""
        # The sort is no lasting part of the stage: its record is not among those that ``finish`` is given.
        records = Ledger(self.ledger).records()
        note: dict[str, Any] = {}
        before = inputs.get("before") if self.append else None
        pieces = _pieces([records[f"scan/{reading.key(n)}"].result for n in range(len(reading.blocks))])
        if self.row.order:
            _, known, reads = self._sort(found, reading, inputs, records)
            assert known is not None
            pieces = _whole(found, known)
            runs = list(before.get("runs", [])) if isinstance(before, Mapping) else []
            note["runs"] = joined([(list(values), rows) for values, rows in [*runs, *known["runs"]]])
            earlier = inputs.get("before")
            note["sort"] = {"reads": reads, "result": known}
            if not reads and isinstance(earlier, Mapping):  # nothing new was sorted
                note["sort"] = earlier.get("sort")
        if self.append:
            note |= History.to_json(self.parameters, found.named, sum(pieces.rows), reading.kinds, pieces)
        if note and json.loads(json.dumps(note)) != inputs.get("before"):
            by = self.row.partition_by
            if by:
                listed = ingest_sort.partitions(by, note["runs"], reading.kinds)
                stores.put_json(self.out, "partitions", {"by": [*by, "start", "stop"], "partitions": listed})
            files.write_json(self.note, note)
        if files.names(self.scratch):
            files.remove(self.scratch)


def _pieces(results: Sequence[Mapping[str, Any]]) -> Pieces:
    """Return the blocks as pieces of the table, from the results of their scans."""
    return Pieces(tuple(one["rows"] for one in results), tuple(one["digest"] for one in results))


def _whole(found: Found, known: Mapping[str, Any]) -> Pieces:
    """Return all pieces of a sorted table: those of earlier runs, then those of a sort."""
    old, new = found.history.pieces, ingest_sort.pieces_of(known, kept=False)
    return Pieces(old.rows + new.rows, old.ids + new.ids)
