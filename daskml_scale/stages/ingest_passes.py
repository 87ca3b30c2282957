"""The passes of ingest that only look: what there is, where the rows of CSV files begin, what every block holds.

They decide the kinds of all columns before anything is written: types of files against each other, labels of
categories over all files, what derived columns will hold. ``ingest`` plans what is written from there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from daskml_scale.errors import PlanError, SpecError
from daskml_scale.plan.memory import BlockNeed
from daskml_scale.plan.records import Record, digest, select
from daskml_scale.plan.units import Parts, Plan, Unit
from daskml_scale.spec.columns import unstorable
from daskml_scale.spec.explain import unknown
from daskml_scale.spec.expressions import names
from daskml_scale.spec.workflow import RowSpec

from . import csv_files, merged_types, read_types
from .base import Input, StageBase
from .file_patterns import Source, is_pattern, sources
from .ingest_blocks import Reading
from .ingest_files import BLOCK, LEAST, Block, File, blocks_of, check_columns, opened, to_cut
from .ingest_history import History, named
from .ingest_table import derived_kinds
from .merged_types import Part
from .read_types import Kind, Seen

CODE = "ingest-5"
"""Changes whenever the kernels' output changes for the same input."""


@dataclass(frozen=True)
class Found:
    """What is known of the files before any is read.

    Attributes
    ----------
    reading : Reading
        Its blocks are empty while large CSV files are not cut.
    old : int
        Files that an earlier run read, and that are not read again.
    twice : sequence of str
        Files that were named twice.
    """

    named: Mapping[str, Source]
    history: History
    reading: Reading
    old: int
    twice: Sequence[str]


@dataclass(frozen=True)
class Kinds:
    """What the columns read hold, and by column what should be told of it."""

    of: Mapping[str, Kind]
    doubts: Mapping[str, str]


@dataclass(frozen=True)
class Passes(StageBase):
    """The passes that look, of a stage that reads tables.

    Attributes
    ----------
    sources : tuple of str
        Paths, patterns and URLs.
    origin : str
        The sources as the user named them, kept as an attribute of the table.
    seed : int
        Of the sample.
    """

    sources: tuple[str, ...]
    origin: str
    row: RowSpec
    columns: tuple[str, ...] | None = None
    derive: tuple[tuple[str, str], ...] = ()
    append: bool = False
    sample: float | None = None
    seed: int = 0
    format: str = ""
    kind: str = "ingest"

    @property
    def parameters(self) -> str:
        """Digest of all that says what the table holds."""
        return digest(self.columns, self.derive, self.row.sort_by, self.row.partition_by, self.row.chunk)

    def _named(self, inputs: Mapping[str, Input]) -> tuple[dict[str, Source], list[str]]:
        """Return the files by name, and the URLs of those that were named twice."""
        entries: list[Mapping[str, Source]] = []
        for number, url in enumerate(self.sources):
            entry = inputs[f"sources[{number}]"]
            if not isinstance(entry, Mapping) or not entry:
                what = "no file matches" if is_pattern(url) else "there is no"
                raise PlanError(f"{self.name}: {what} {csv_files.shown(url)}; check `source`")
            entries.append(entry)
        return named(entries)

    def _hash(self, inputs: Mapping[str, Input], records: Mapping[str, Record]) -> Plan:
        """Plan the hashing of large files whose size or time is not known yet."""
        units = [
            (Unit(f"hash/{name}", source, source.size), digest(source.size, source.stamp))
            for name, source in self._named(inputs)[0].items()
            if not source.digest
        ]
        return select(units, Parts(code="hash-1"), records, later=1, grid=f"identities of {len(units)} large files")

    def _found(self, inputs: Mapping[str, Input], records: Mapping[str, Record]) -> Found:
        every, twice = self._named(inputs)
        every = {
            name: source if source.digest else replace(source, digest=records[f"hash/{name}"].result)
            for name, source in every.items()
        }
        history = History.of(inputs.get("before") if self.append else None, self.parameters)
        every = history.ordered(every)
        held = opened(every, self.format)
        self.check(held)
        keep = self.columns if self.columns is not None else held[0].columns
        return Found(every, history, Reading(held, (), tuple(keep), self.derive), len(history.files), twice)

    def check(self, found: Sequence[File] | None = None) -> None:
        """Check the names of all columns, and their types where the files declare them, before anything is read.

        Raises
        ------
        SpecError
            When a column is named that they do not have.
        PlanError
            When a file is none, has other columns or types than the first, or a column cannot be stored.
        """
        if found is None:
            entries = [sources(url, quick=True) for url in self.sources]
            found = opened(named(entries)[0], self.format)
            if not found:
                raise PlanError(f"{self.name}: no file matches {self.origin}; check `source`")
        have = found[0].columns
        known = list(self.columns or have)
        wanted = [(f"columns[{number}]", name, have) for number, name in enumerate(self.columns or ())]
        for derived, text in self.derive:
            wanted += [(f"derive.{derived}", name, tuple(known)) for name in names(text)]
            known.append(derived)
        for key in ("partition_by", "sort_by"):
            by = enumerate(getattr(self.row, key))
            wanted += [(f"row.{key}[{number}]", name, tuple(known)) for number, name in by]
        for path, name, there in wanted:
            if name not in there:
                raise SpecError(unknown("column", name, there), file=self.origin, path=path)
        for name in self.columns or have:
            if why := unstorable(name):
                raise PlanError(f"{self.origin}: {why}; rename it there, or leave it out by `columns`")
        check_columns(found, self.columns)

    def _index(self, found: Found, records: Mapping[str, Record]) -> tuple[Plan, dict[int, list[csv_files.Seen]]]:
        """Plan where large CSV files are cut; and return what was seen, by file."""
        size = self._piece(found)
        cut = {place: to_cut(file, size) for place, file in enumerate(found.reading.files)}
        units = []
        for place, pieces in cut.items():
            file = found.reading.files[place]
            for number, (start, stop) in enumerate(pieces):
                unit = Unit(f"index/{file.name}/{number:06d}", (place, start, stop), stop - start)
                units.append((unit, digest(file.source.digest, start, stop)))
        plan = select(
            units, Parts(code=CODE), records, shared=found.reading, later=1, memory=4 * size,
            grid=f"{len(units)} pieces of CSV files",
        )  # fmt: skip
        if plan.units:
            return plan, {}
        seen: dict[int, list[csv_files.Seen]] = {place: [] for place in cut}
        for unit, _ in units:
            odd, ends, regular = records[unit.key].result
            seen[unit.payload[0]].append(csv_files.Seen(odd, tuple(ends), tuple(regular)))
        return plan, seen

    def _piece(self, found: Found) -> int:
        """Return the bytes of a piece of a CSV file; small ones where only a sample of them is read."""
        if self.sample is None:
            return BLOCK
        total = sum(file.source.size for file in found.reading.files)
        return int(min(BLOCK, max(LEAST, total * self.sample / 8)))

    def _cut(self, found: Found, pieces: Mapping[int, Sequence[csv_files.Seen]]) -> Reading:
        blocks: list[Block] = []
        for place, file in enumerate(found.reading.files):
            blocks += blocks_of(place, file, pieces.get(place, ()))
        reading = replace(found.reading, blocks=tuple(blocks))
        if self.sample is None:
            return reading
        wanted = max(1, round(self.sample * len(blocks)))
        ranked = sorted(range(len(blocks)), key=lambda number: digest(self.seed, reading.key(number)))
        return replace(reading, blocks=tuple(blocks[number] for number in sorted(ranked[:wanted])))

    def _memory(self, reading: Reading) -> dict[str, Any]:
        """Return the projected memory of reading the largest block, and what it is made of."""
        if not reading.blocks:
            return {}
        worst = max(range(len(reading.blocks)), key=reading.memory)
        file = reading.files[reading.blocks[worst].file]
        remedy = "unpack it, so that it is read in pieces" if file.packed else "split it, or mend its quotes"
        if file.format == "parquet":
            remedy = "write it with smaller row groups (pyarrow: row_group_size=)"
        return {"memory": reading.memory(worst), "need": BlockNeed(reading.where(worst), reading.memory(worst), remedy)}

    def _scan(self, reading: Reading, records: Mapping[str, Record]) -> Plan:
        units = [
            (Unit(f"scan/{reading.key(number)}", number, max(1, reading.blocks[number].nbytes)), reading.id(number))
            for number in range(len(reading.blocks))
        ]
        size = sum(block.nbytes for block in reading.blocks)
        return select(
            units, Parts(code=CODE, parameters=digest(reading.keep)), records, shared=reading, later=1,
            grid=f"{len(units):,} blocks of {len(reading.files):,} files, {size / 2**20:,.1f} MiB",
            **self._memory(reading),
        )  # fmt: skip

    def _parts(self, reading: Reading, records: Mapping[str, Record]) -> list[Part]:
        """Return what the blocks hold, as their scans found it."""
        parts, before = [], 0
        for number, block in enumerate(reading.blocks):
            result = records[f"scan/{reading.key(number)}"].result
            before = 0 if block.number == 0 else before
            columns = {name: Seen.of(result["columns"][name]) for name in reading.keep}
            parts.append(Part(reading.files[block.file].shown, before, columns))
            before += result["rows"]
        return parts

    def _kinds(self, found: Found, reading: Reading, parts: Sequence[Part]) -> Kinds:
        """Return what the columns hold, and what should be told of them."""
        new = [part for part, block in zip(parts, reading.blocks, strict=True) if block.file >= found.old]
        kinds, doubts = {}, {}
        for name in reading.keep:
            kinds[name], doubt = merged_types.merge(new, name)
            if doubt:
                doubts[name] = doubt
        whole = {name: not any(part.columns[name].missing for part in new) for name in reading.keep}
        where = ", ".join(dict.fromkeys(part.file for part in new))
        kinds = found.history.joined(kinds, whole, where) if new else {**kinds, **found.history.kinds}
        for key in ("partition_by", "sort_by"):
            for name in getattr(self.row, key):
                if name in doubts:
                    raise PlanError(f"row.{key}: {doubts[name]}, or do not sort by it")
        return Kinds({name: kinds[name] for name in reading.keep}, doubts)

    def _text(
        self, reading: Reading, parts: Sequence[Part], kinds: Mapping[str, Kind], records: Mapping[str, Record]
    ) -> Plan | None:
        """Plan the reading of texts where a block holds something else; ``None`` where none does."""
        units = []
        for number, part in enumerate(parts):
            columns = _other(part, kinds)
            if columns:
                unit = Unit(f"text/{reading.key(number)}", (number, columns), reading.blocks[number].nbytes)
                units.append((unit, digest(reading.id(number), columns)))
        if not units:
            return None
        return select(
            units, Parts(code=CODE), records, shared=reading, later=1, grid=f"texts of {len(units)} blocks",
            **self._memory(reading),
        )  # fmt: skip

    def _ready(self, reading: Reading, parts: Sequence[Part], kinds: Kinds, records: Mapping[str, Record]) -> Reading:
        """Return the reading with the kinds of all columns, texts of other blocks and derived columns included."""
        found = dict(kinds.of)
        for number, part in enumerate(parts):
            columns = _other(part, kinds.of)
            result = records[f"text/{reading.key(number)}"].result if columns else {}
            for name in columns:
                known = set(found[name].labels)
                more = sorted(set(result[name]) - known)
                labels = (*found[name].labels, *more) if self.append else tuple(sorted({*known, *more}))
                if len(labels) > read_types.MAX_LABELS:
                    raise PlanError(merged_types.too_many(name, len(labels)))
                found[name] = Kind("text", labels)
        raw = tuple(frozenset(name for name, seen in part.columns.items() if seen.raw) for part in parts)
        ready = replace(reading, kinds=found, raw=raw)
        rows = sum(records[f"scan/{reading.key(number)}"].result["rows"] for number in range(len(reading.blocks)))
        return replace(ready, kinds={**found, **derived_kinds(ready, kinds.doubts, rows, self.origin)})


def _other(part: Part, kinds: Mapping[str, Kind]) -> tuple[str, ...]:
    """Return the columns that are text in the table and hold something else in a block."""
    return tuple(
        name for name, seen in part.columns.items() if kinds[name].kind == "text" and seen.kind not in ("text", "none")
    )
