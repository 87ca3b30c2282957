"""Is a rule kept? Pure: from the merged statistics, the schemas, and the time of the check."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from daskml_scale.plan.units import Variable
from daskml_scale.spec.base import seconds
from daskml_scale.spec.rules import KIND_NAMES, Among, Fresh, Missing, Range, Rising, Rows, Type, Unique
from daskml_scale.storage.tables import kind_of

from .validate_profile import labels
from .validate_statistics import falls


@dataclass(frozen=True)
class Evidence:
    """What is known of a table.

    Attributes
    ----------
    profile : mapping
        As ``validate_profile.profile`` gives it.
    scans : sequence of mapping
        Statistics of all chunks, in order.
    variables : mapping of column to Variable
    now : float
        Time of the check, seconds since 1970.
    """

    profile: Mapping[str, Any]
    scans: Sequence[Mapping[str, Any]]
    variables: Mapping[str, Variable]
    now: float

    @property
    def rows(self) -> int:
        return int(self.profile["rows"])


def judged(rule: Any, position: str, evidence: Evidence, uniques: Sequence[Mapping[str, Any]]) -> str:
    """Return what is wrong, for people; empty when the rule is kept.

    Parameters
    ----------
    rule : Spec
        Of ``spec.rules``.
    position : str
        Of the rule in its stage.
    uniques : sequence of mapping
        What the units of a uniqueness rule found.
    """
    rows = evidence.rows
    match rule:
        case Unique():
            return _unique(rule, rows, uniques)
        case Missing(missing=of):
            count, share = (evidence.profile["columns"][of.of][key] for key in ("missing", "missing_share"))
            found = f"{of.of}: {share:.2%} missing ({count:,} of {rows:,} rows), at most {of.at_most:.2%} allowed"
            return found if share > of.at_most else ""
        case Range():
            return _range(rule, position, evidence)
        case Rising():
            return _rising(rule, position, evidence)
        case Among():
            return _among(rule, evidence)
        case Type(dtype=of):
            variable = evidence.variables[of.of]
            is_now = kind_of(variable) if of.be in KIND_NAMES else variable.dtype
            return "" if is_now == of.be else f"{of.of}: is {is_now}, expected {of.be}"
        case Rows(rows=bounds):
            too_few, too_many = rows < (bounds.least or 0), bounds.most is not None and rows > bounds.most
            return f"{rows:,} rows, expected {_between(bounds.least, bounds.most)}" if too_few or too_many else ""
        case Fresh():
            return _fresh(rule, evidence)
    raise TypeError(f"{type(rule).__name__} is no rule")


def _unique(rule: Unique, rows: int, parts: Sequence[Mapping[str, Any]]) -> str:
    count = sum(part["count"] for part in parts)
    if not count:
        return ""
    first = min((part for part in parts if part["count"]), key=lambda part: int(part["row"]))
    return f"{count:,} of {rows:,} rows are not unique in {rule.unique}, first at row {first['row']}: {first['shown']}"


def _range(rule: Range, position: str, evidence: Evidence) -> str:
    bounds, parts = rule.range, [scan["rules"][position] for scan in evidence.scans]
    count = sum(part["count"] for part in parts)
    if not count:
        return ""
    first = next(part for part in parts if part["count"])
    return (
        f"{bounds.of}: {count:,} of {evidence.rows:,} rows outside [{bounds.least}, {bounds.most}], "
        f"first at row {first['row']}: {first['value']}"
    )


def _rising(rule: Rising, position: str, evidence: Evidence) -> str:
    of = rule.rising
    count, row = falls([scan["rules"][position] for scan in evidence.scans], strictly=of.strictly)
    if not count:
        return ""
    within = f" within equal {', '.join(of.match)}" if of.match else ""
    verb = "does not rise" if of.strictly else "falls"
    return f"{of.of}: {verb} at {count:,} of {evidence.rows:,} rows{within}, first at row {row}"


def _among(rule: Among, evidence: Evidence) -> str:
    of = rule.categories
    names = evidence.variables[of.of].attrs["categories"]
    counted = labels([scan["columns"][of.of] for scan in evidence.scans])
    strange = {names[int(code)]: int(rows) for code, rows in zip(counted.keys, counted.counts, strict=True)}
    for known in of.among:
        strange.pop(known, None)
    if not strange:
        return ""
    worst = sorted(strange, key=lambda label: (-strange[label], label))[:5]
    shown = ", ".join(f"{label!r} ({strange[label]:,} rows)" for label in worst)
    return f"{of.of}: {len(strange):,} categories are not among those listed: {shown}{', ...' * (len(strange) > 5)}"


def _fresh(rule: Fresh, evidence: Evidence) -> str:
    of, last = rule.fresh, evidence.profile["columns"][rule.fresh.of]["last"]
    if last is None:
        return f"{of.of}: holds no time, so how fresh it is cannot be told"
    age = evidence.now - int(np.datetime64(last, "ns").astype("int64")) / 1e9
    if age <= seconds(of.within):
        return ""
    return f"{of.of}: the newest time is {last}, {_span(age)} before now; at most {of.within} allowed"


def _span(age: float) -> str:
    return f"{age / 86400:,.1f} d" if age >= 86400 else f"{age / 3600:,.1f} h"


def _between(least: int | None, most: int | None) -> str:
    if least is None or most is None:
        return f"at most {most:,}" if least is None else f"at least {least:,}"
    return f"{least:,} to {most:,}"
