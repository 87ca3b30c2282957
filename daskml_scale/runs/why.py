"""Why a unit ran, and whether it would run again: its ledger record beside what a plan of today says."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from daskml_scale.errors import UsageError
from daskml_scale.plan.records import OK, Record, digest_read
from daskml_scale.plan.units import Plan

from .check import checked, sampled_in
from .enter import Options
from .planning import Planned, planned
from .show import pairs, state_text
from .state import RunRecord
from .words import took


@dataclass(frozen=True, slots=True)
class Account:
    """One unit of one stage.

    Attributes
    ----------
    now : str
        ``valid``, or why the next run runs it; what is not known before other stages have run says so.
    ran : mapping
        Of the record: status, why it ran, attempt, seconds, worker, rows, error. Empty when it never ran.
    changed : mapping of str to (before, now)
        The parts of its fingerprint that differ.
    """

    stage: str
    unit: str
    now: str
    ran: Mapping[str, Any] = field(default_factory=dict)
    changed: Mapping[str, tuple[str, str]] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        return asdict(self)


def of_run(run: RunRecord, unit: str) -> list[Account]:
    """Return why a unit of a run's workflow ran, and whether it would run again now.

    Parameters
    ----------
    run : RunRecord
    unit : str
        Key of the unit, or ``STAGE:KEY``.

    Returns
    -------
    list of Account
        One per stage that has such a unit.

    Raises
    ------
    UsageError
        When none has.
    """
    base = Path(run.cwd)
    source = base / run.source if (base / run.source).exists() else Path(run.source)
    options = Options.of(run)
    loaded = checked(source, store=run.store, cluster=run.cluster, settings=options.settings)
    with loaded.placing():
        model = sampled_in(loaded.model, options.sample, run.store)
        return accounts(planned(model, run.store, base=base, modules=loaded.folder), unit)


def accounts(stages: Iterable[Planned], unit: str) -> list[Account]:
    """Return the account of a unit in every stage that has one of that key.

    Parameters
    ----------
    stages : iterable of Planned
    unit : str
        Key of the unit; ``STAGE:KEY`` asks one stage.

    Raises
    ------
    UsageError
        When no stage has it: names some that there are.
    """
    wanted, _, key = unit.rpartition(":")
    found, known = [], []
    for one in stages:
        name = one.stage.name
        keys = one.plan.keys if one.plan is not None else tuple(one.records)
        if wanted in ("", name):
            if key in one.records or key in keys:
                plan = one.scan if one.scan is not None and key in one.scan.keys else one.plan
                found.append(_account(name, key, one.records.get(key), plan, one.row.note))
            known += [f"{name}:{some}" for some in keys[:2]]
    if not found:
        listed = f"; there are {', '.join(known[:8])}, ..." if known else ""
        raise UsageError(f"no stage has a unit {unit!r}{listed}: give STAGE:UNIT, see daskml-scale ledger show")
    return found


def _account(stage: str, key: str, record: Record | None, plan: Plan | None, note: str) -> Account:
    now, changed = note, {}
    if plan is not None:
        runs = any(unit.key == key for unit in plan.units)
        now = plan.why.get(key) if runs else "valid" if key in plan.keys else "no longer part of the stage"
        if record is not None and runs:
            before, after = asdict(record.parts), asdict(plan.parts)
            changed = {part: (before[part], after[part]) for part in before if before[part] != after[part]}
            if record.inputs != (read := digest_read(plan.inputs[key])):
                changed["inputs"] = record.inputs, read
    ran = {} if record is None else _ran(record)
    return Account(stage, key, now, ran, changed)


def _ran(record: Record) -> dict[str, Any]:
    shown = ("status", "why", "attempt", "seconds", "worker", "rows", "error")
    found = {name: getattr(record, name) for name in shown}
    return {name: value for name, value in found.items() if value not in ("", 0)}


def drawn(found: Iterable[Account]) -> RenderableType:
    """Return accounts for people."""
    parts: list[RenderableType] = []
    for account in found:
        parts += [Text()] if parts else []
        title = Text.assemble((f"{account.stage}:{account.unit}", "bold"), "  ")
        valid = account.now == "valid"
        title.append_text(state_text("ok") if valid else Text(f"runs again: {account.now}", "yellow"))
        if not account.ran and not valid:
            title = Text.assemble((f"{account.stage}:{account.unit}", "bold"), "  ", (f"runs: {account.now}", "yellow"))
        parts += [title, pairs([*_facts(account.ran), *_changes(account.changed)])]
    return Group(*parts)


def _facts(ran: Mapping[str, Any]) -> list[tuple[str, str]]:
    if not ran:
        return [("ran", "never")]
    took_text = f", {took(ran['seconds'])}" if "seconds" in ran else ""
    where = f" on {ran['worker']}" if "worker" in ran else ""
    facts = [("ran", f"because: {ran.get('why') or 'not noted'}{took_text}{where}, attempt {ran.get('attempt', 1)}")]
    if ran["status"] != OK:
        facts.append(("status", ran["status"]))
    return facts + ([("error", ran["error"])] if "error" in ran else [])


def _changes(changed: Mapping[str, tuple[str, str]]) -> list[tuple[str, str]]:
    return [(part, f"{before or '-'} -> {now or '-'}") for part, (before, now) in changed.items()]
