"""Validate: check rules on a table, and write its profile beside it.

One parallel pass takes small statistics of every chunk of all columns; they are kept in the ledger, so only
chunks that changed are read again. Uniqueness needs all rows together: a unit of its own reads the named
columns only, and where they are large several units share the rows by their hash. The rules are judged
from the merged statistics whenever the stage is run: how fresh the data is depends on when that is.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from daskml_scale.engine.worker import WorkerContext
from daskml_scale.errors import PlanError, ValidationFailedError
from daskml_scale.plan.records import Record, digest, select
from daskml_scale.plan.units import Parts, Plan, Snapshot, Unit, Variable, row_key, row_ranges
from daskml_scale.spec.rules import Among, AnyRule, Fresh, Range, Rising, Unique, rule_columns, settings
from daskml_scale.storage import files, stores, tables

from .base import Input, Ref, StageBase, StageResult
from .inputs import require
from .validate_judge import Evidence, judged
from .validate_profile import profile
from .validate_statistics import scan
from .validate_unique import duplicates

CODE = "validate-2"
PROFILE = "profile"
"""``<stage>.profile.json`` holds the profile."""
_BYTES = 256 << 20
"""Bytes of keys that one unit of a uniqueness rule holds."""
CHUNK, UNIQUE = "chunk", "unique"
"""Prefixes of the units."""


@dataclass(frozen=True)
class ValidateStage(StageBase):
    """See the module docstring.

    Attributes
    ----------
    input : str
        URL of the table.
    """

    input: str
    rules: tuple[AnyRule, ...]
    kind: str = "validate"

    def reads(self) -> Mapping[str, Ref]:
        return {"input": Ref("dataset", self.input)}

    def plan(self, inputs: Mapping[str, Input], records: Mapping[str, Record]) -> Plan:
        table = require(inputs["input"], self.input, self.name)
        for position, rule in enumerate(self.rules):
            check(f"{self.name}: rules[{position}]", rule, table)
        columns = columns_of(table)
        chunks, uniques = self._chunks(table, columns), self._uniques(table)
        size = chunks[0][1] if chunks else 0
        count = len(chunks)
        return select(
            [*self._scans(table, tuple(columns), chunks), *uniques],
            Parts(code=CODE),
            records,
            grid=f"{count:,} chunk{'s'[: count != 1]} of {size:,} rows, {len(self.rules)} rules",
            memory=max(size * len(columns) * 32, min(table.rows * 64, 2 * _BYTES) if uniques else 0),
            shared=(tuple(columns), table.rows),
            rows=table.rows,
        )

    @staticmethod
    def _chunks(table: Snapshot, columns: Mapping[str, Variable]) -> list[tuple[int, int]]:
        """Return the rows of every unit: whole stored objects of the columns."""
        return row_ranges(table.rows, max((found.write_unit[0] for found in columns.values()), default=1))

    def _scans(
        self, table: Snapshot, columns: tuple[str, ...], chunks: list[tuple[int, int]]
    ) -> Iterator[tuple[Unit, str]]:
        """Yield the units that take statistics, and what each depends on."""
        seen = [(at, rule.params()) for at, rule in enumerate(self.rules) if isinstance(rule, (Range, Rising))]
        for start, stop in chunks:
            read = digest(seen, columns, (start, stop), table.row_ids(columns, start, stop))
            yield Unit(row_key(start, chunks[0][1], CHUNK), (start, stop), (stop - start) * len(columns)), read

    def _uniques(self, table: Snapshot) -> list[tuple[Unit, str]]:
        """Return the units of the uniqueness rules; of a large table several share the rows by their hash."""
        found = []
        for position, rule in enumerate(self.rules):
            if isinstance(rule, Unique):
                parts = max(1, -(-table.rows * 32 // _BYTES))
                read = digest(rule.params(), parts, table.row_ids(rule.unique, 0, table.rows))
                found += [
                    (Unit(f"{UNIQUE}/{position:04d}.{part:04d}", (position, part, parts), max(1, table.rows)), read)
                    for part in range(parts)
                ]
        return found

    def kernel(self, unit: Unit, worker: WorkerContext) -> dict[str, Any]:
        columns, rows = worker.shared
        if unit.key.startswith(f"{UNIQUE}/"):
            position, part, parts = unit.payload
            rule = self.rules[position]
            assert isinstance(rule, Unique)
            return duplicates(self.input, rule.unique, rows, part, parts)
        start, stop = unit.payload
        return scan(tables.read_columns(self.input, columns, start, stop), self.rules, start, stop - start)

    def finish(self, inputs: Mapping[str, Input], records: Mapping[str, Record]) -> StageResult:
        table = require(inputs["input"], self.input, self.name)
        chunks = [records[key].result for key in sorted(records) if key.startswith(f"{CHUNK}/")]
        uniques = [(key, records[key].result) for key in sorted(records) if key.startswith(f"{UNIQUE}/")]
        columns = columns_of(table)
        found = profile(chunks, columns)
        url = stores.beside(self.out, f"{PROFILE}.json")
        if files.read_json(url) != found:
            stores.put_json(self.out, PROFILE, found)
        evidence = Evidence(found, chunks, columns, time.time())
        broken: list[str] = []
        warnings: list[str] = []
        for position, rule in enumerate(self.rules):
            own = [result for key, result in uniques if key.startswith(f"{UNIQUE}/{position:04d}.")]
            message = judged(rule, str(position), evidence, own)
            if message:
                (broken if settings(rule).otherwise == "fail" else warnings).append(message)
        if broken:
            raise ValidationFailedError(f"{self.name}: " + "; ".join(broken) + "; mend the data, or say `else: warn`")
        result = {"rules": len(self.rules), "warnings": warnings, "profile": url.rpartition("/")[2]}
        return StageResult(result, rows=table.rows, warnings=tuple(warnings))


def columns_of(table: Snapshot) -> dict[str, Variable]:
    """Return the columns of a table: what holds one number, time or category per row."""
    own = {name: found for name, found in table.variables.items() if found.dims == (table.dim,)}
    return {name: found for name, found in own.items() if tables.kind_of(found) != "other"}


def check(place: str, rule: AnyRule, table: Snapshot) -> None:
    """Refuse a rule on what is no column, or not of its kind.

    Raises
    ------
    PlanError
    """
    for key, name in rule_columns(rule):
        found = table.variables.get(name)
        if found is None:
            raise PlanError(f"{place}: {table.url} has no column {name!r}; it has {', '.join(table.variables)}")
        if found.dims != (table.dim,):
            columns = [column for column, variable in table.variables.items() if variable.dims == (table.dim,)]
            raise PlanError(
                f"{place}.{key}: {name!r} holds not one value per row of {table.url}; name one of {columns}"
            )
        kind = tables.kind_of(found)
        if kind == "other":
            raise PlanError(f"{place}.{key}: column {name!r} is neither a number, a time nor a category")
        wanted = _NEEDS.get(type(rule), ()) if key.endswith(".of") else ()
        if wanted and kind not in wanted:
            raise PlanError(
                f"{place}.{key}: column {name!r} is a {kind}, a {' or '.join(wanted)} needed; use missing or unique "
                "for others"
            )


_NEEDS: dict[type, tuple[str, ...]] = {
    Range: ("number",), Among: ("category",), Rising: ("number", "time"), Fresh: ("time",),
}  # fmt: skip
