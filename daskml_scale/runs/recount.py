"""How far a lost run really got: its last heartbeat may be older than what it committed, so its ledgers are asked.

Counts the units in the segments that were written since the run began; reads nothing of the data.
"""

from __future__ import annotations

from dataclasses import replace

from daskml_scale.errors import DaskMLError
from daskml_scale.plan.records import OK
from daskml_scale.plan.table import Records
from daskml_scale.storage import files
from daskml_scale.storage.ledger_segments import NewerError, TornError, decode

from .state import RunRecord, StageRecord

SUFFIXES = (".seg", ".json")
"""Endings of ledger segments, whose names are numbers."""


def recounted(run: RunRecord) -> RunRecord:
    """Return a run with the units that its ledgers hold, where they hold more than it last told."""
    started = run.started
    if started is None:
        return run
    return replace(run, stages=tuple(_recounted(stage, run.store, started) for stage in run.stages))


def _recounted(stage: StageRecord, store: str, started: float) -> StageRecord:
    if stage.state not in ("running", "waiting"):
        return stage
    try:
        fresh = _committed(files.join(store, f"{stage.name}.ledger"), started)
    except (DaskMLError, OSError):
        return stage  # out of reach: what the run told last is what is known
    # A ledger that was compacted since holds what was reused, too.
    both = stage.reused + fresh
    done = max(stage.done, both if both <= stage.units else fresh)
    return replace(stage, done=done, units=max(stage.units, done))


def _committed(ledger: str, since: float) -> int:
    """Return the units that were committed since then, seconds since the epoch."""
    found = Records()
    for name in files.names(ledger):
        url = files.join(ledger, name)
        known = files.stat(url) if name.endswith(SUFFIXES) and name.partition(".")[0].isdigit() else None
        if known is not None and known[1] >= since * 1e9:
            try:
                found.add(decode(files.read_bytes(url) or b""))
            except (TornError, NewerError):
                continue
    return sum(record.status == OK for record in found.values())
