"""Validate: check rules on a table. A unit is one rule; it reads only the columns that the rule names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from daskml_scale.engine.worker import WorkerContext
from daskml_scale.errors import PlanError, ValidationFailedError
from daskml_scale.plan.records import Record, digest, select
from daskml_scale.plan.units import Parts, Plan, Snapshot, Unit, row_ranges
from daskml_scale.spec.expressions import Coded, missing
from daskml_scale.spec.workflow import AnyRule, Missing, Range, Unique
from daskml_scale.storage import tables

from .base import Input, Ref, StageBase, StageResult

CODE = "validate-1"
_BLOCK = 1_000_000
"""Rows read at a time by rules that need no more."""


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
        table = inputs["input"]
        if not isinstance(table, Snapshot):
            raise PlanError(f"{self.name}: {self.input} does not exist; run the stage that writes it")
        units = []
        for position, rule in enumerate(self.rules):
            columns = rule_columns(rule)
            unknown = [name for name in columns if name not in table.variables]
            if unknown:
                raise PlanError(
                    f"{self.name}: rules[{position}]: {table.url} has no column {unknown[0]!r}; "
                    f"it has {', '.join(table.variables)}"
                )
            reads = digest(rule.params(), table.row_ids(columns, 0, table.rows))
            _check_kinds(f"{self.name}: rules[{position}]", rule, table)
            units.append((Unit(f"rule/{position:04d}", position, table.rows * len(columns)), reads))
        widest = max(len(rule_columns(rule)) for rule in self.rules)
        return select(
            units,
            Parts(code=CODE),
            records,
            grid=f"{len(units)} rule{'s'[: len(units) != 1]} over {table.rows:,} rows",
            memory=table.rows * widest * 8 * 3,
            shared=table.rows,
            rows=table.rows,
        )

    def kernel(self, unit: Unit, worker: WorkerContext) -> dict[str, Any]:
        rule, rows = self.rules[unit.payload], worker.shared
        match rule:
            case Unique():
                return _unique(self.input, rule)
            case Missing():
                return _missing(self.input, rule, rows)
            case Range():
                return _range(self.input, rule, rows)
        raise AssertionError(rule)

    def finish(self, inputs: Mapping[str, Input], records: Mapping[str, Record]) -> StageResult:
        table = inputs["input"]
        broken: list[str] = []
        warnings: list[str] = []
        for record in sorted(records.values(), key=lambda record: record.unit):
            rule = self.rules[int(record.unit.rsplit("/")[-1])]
            if not record.result["passed"]:
                options = rule if isinstance(rule, Unique) else getattr(rule, rule.rule)
                (broken if options.otherwise == "fail" else warnings).append(record.result["message"])
        if broken:
            raise ValidationFailedError(f"{self.name}: " + "; ".join(broken) + "; mend the data, or say `else: warn`")
        rows = table.rows if isinstance(table, Snapshot) else 0
        return StageResult({"rules": len(records), "warnings": warnings}, rows=rows, warnings=tuple(warnings))


def _check_kinds(place: str, rule: AnyRule, table: Snapshot) -> None:
    """Refuse a rule on what is no column, or not of its kind.

    Raises
    ------
    PlanError
    """
    place = f"{place}.{rule.rule}" if isinstance(rule, Unique) else f"{place}.{rule.rule}.of"
    for name in rule_columns(rule):
        found = table.variables[name]
        if found.dims != (table.dim,):
            columns = [column for column, variable in table.variables.items() if variable.dims == (table.dim,)]
            raise PlanError(f"{place}: {name!r} holds not one value per row of {table.url}; name one of {columns}")
        kind = tables.kind_of(found)
        if isinstance(rule, Range) and kind != "number":
            raise PlanError(f"{place}: column {name!r} is a {kind}, a number needed; use missing or unique for others")


def rule_columns(rule: AnyRule) -> tuple[str, ...]:
    """Return the columns that a rule reads."""
    return tuple(rule.unique) if isinstance(rule, Unique) else (getattr(rule, rule.rule).of,)


def _unique(url: str, rule: Unique) -> dict[str, Any]:
    import pandas as pd

    columns = tables.read_columns(url, rule.unique)
    frame = pd.DataFrame({name: getattr(values, "codes", values) for name, values in columns.items()})
    twice = frame.duplicated(keep=False).to_numpy()
    count = int(twice.sum())
    if not count:
        return {"passed": True, "message": ""}
    row = int(np.flatnonzero(twice)[0])
    shown = {name: _shown(columns[name], row) for name in rule.unique}
    return {
        "passed": False,
        "message": f"{count:,} of {len(frame):,} rows are not unique in {rule.unique}, first at row {row}: {shown}",
    }


def _shown(values: Any, row: int) -> Any:
    if isinstance(values, Coded):
        return values.labels[values.codes[row]] if values.codes[row] >= 0 else None
    return str(values[row])


def _missing(url: str, rule: Missing, rows: int) -> dict[str, Any]:
    of, at_most = rule.missing.of, rule.missing.at_most
    count = sum(
        int(missing(tables.read_columns(url, [of], start, stop)[of]).sum()) for start, stop in row_ranges(rows, _BLOCK)
    )
    share = count / rows if rows else 0.0
    message = f"{of}: {share:.2%} missing ({count:,} of {rows:,} rows), at most {at_most:.2%} allowed"
    return {"passed": share <= at_most, "share": share, "message": message}


def _range(url: str, rule: Range, rows: int) -> dict[str, Any]:
    options = rule.range
    count, worst = 0, None
    for start, stop in row_ranges(rows, _BLOCK):
        values = tables.read_columns(url, [options.of], start, stop)[options.of]
        assert not isinstance(values, Coded)
        low = values < (-np.inf if options.least is None else options.least)
        high = values > (np.inf if options.most is None else options.most)
        out = low | high
        count += int(out.sum())
        if out.any() and worst is None:
            worst = (start + int(np.flatnonzero(out)[0]), float(values[out][0]))
    message = f"{options.of}: {count:,} of {rows:,} rows outside [{options.least}, {options.most}]"
    if worst is not None:
        message += f", first at row {worst[0]}: {worst[1]:g}"
    return {"passed": count == 0, "message": message}
