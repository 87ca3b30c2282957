"""Rows that could not be predicted and units that were set aside: what they are, and having them tried again.

``retry`` changes no data: it marks the units, and the next run repeats exactly these. It is for mends that
no fingerprint knows of: a library, a file that a function reads, more memory. A mended input runs again by itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from daskml_scale.plan.records import FAILED, RETRY, Record
from daskml_scale.storage.ledger import Ledger
from daskml_scale.storage.lock import hold

from .ledgers import chosen
from .show import columns
from .words import plural

MEANINGS = {0: "missing", 2: "bad input", 3: "model error"}


@dataclass(frozen=True, slots=True)
class Held:
    """One unit with rows in quarantine, or that failed as a whole.

    Attributes
    ----------
    bad_input, model_error : int
        Rows of each status; 0 for a unit that failed.
    reasons : tuple of (row or cell, status, text)
        The first ones.
    error : str
        Why the unit failed; empty when it did not.
    retry : bool
        Whether the next run repeats it.
    """

    stage: str
    unit: str
    bad_input: int = 0
    model_error: int = 0
    reasons: tuple[tuple[Any, int, str], ...] = ()
    error: str = ""
    retry: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        return asdict(self)


def held(store: str, stage: str | None = None) -> list[Held]:
    """Return the units in quarantine of a store, or of one stage, in the order of their keys.

    Raises
    ------
    UsageError
        When there is no such ledger.
    """
    return [
        found
        for name, url in chosen(store, stage).items()
        for record in _ordered(Ledger(url))
        if (found := _held(name, record)) is not None
    ]


def retry(store: str, stage: str | None = None) -> list[Held]:
    """Mark the units in quarantine, so that the next run repeats exactly these; return them.

    Raises
    ------
    ConflictError
        When a run holds the store.
    """
    listed = chosen(store, stage)
    marked = []
    with ExitStack() as locks:
        for folder in {url.rpartition("/")[0] for url in listed.values()} | set(listed.values()):
            locks.enter_context(hold(folder, "quarantine --retry"))
        for name, url in listed.items():
            ledger = Ledger(url)
            found = [one for record in _ordered(ledger) if (one := _held(name, record)) is not None]
            ledger.mark({one.unit: RETRY for one in found if not one.retry})
            marked += found
    return marked


def _ordered(ledger: Ledger) -> list[Record]:
    records = ledger.records()
    return [records[unit] for unit in sorted(records)]


def _held(stage: str, record: Record) -> Held | None:
    if record.status == FAILED:
        return Held(stage, record.unit, error=record.error.partition("\n")[0])
    found = record.result if isinstance(record.result, dict) else {}
    if not found.get("reasons"):
        return None
    reasons = tuple((row, status, text) for row, status, text in found["reasons"])
    counts = found.get("bad_input", 0), found.get("model_error", 0)
    return Held(stage, record.unit, *counts, reasons, retry=record.status == RETRY)


def table(found: Sequence[Held], retried: bool = False) -> RenderableType:
    """Return the table of reasons, and a sentence."""
    if not found:
        return Text("Nothing is in quarantine.")
    rows = [line for one in found for line in _lines(one)]
    bad = sum(one.bad_input + one.model_error for one in found)
    failed = sum(bool(one.error) for one in found)
    said = f"{plural(bad, 'row')} in {plural(len(found) - failed, 'unit')}"
    said += f", and {plural(failed, 'unit')} failed" if failed else ""
    marked = all(one.retry for one in found if not one.error) or retried
    end = "The next run repeats exactly these units." if marked else (
        "After a mend of anything but the input, have these units run again by --retry."
    )  # fmt: skip
    return Group(columns(("stage", "unit", "row", "is", "because"), rows), Text(), Text(f"{said}. {end}"))


def _lines(one: Held) -> list[tuple[str, ...]]:
    if one.error:
        return [(one.stage, one.unit, "all", "failed", one.error)]
    lines: list[tuple[str, ...]] = [
        (one.stage, one.unit, _place(row), MEANINGS.get(code, str(code)), text) for row, code, text in one.reasons
    ]
    more = one.bad_input + one.model_error - len(lines)
    return [*lines, (one.stage, one.unit, "...", "", f"and {more:,} more")] if more > 0 else lines


def _place(row: Any) -> str:
    return f"{row:,}" if isinstance(row, int) else str(row)
