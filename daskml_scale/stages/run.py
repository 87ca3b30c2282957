"""Run one stage: gather its inputs, plan, dispatch, commit, until a plan has no unit left to run.

Everything a stage has to be resumed with is in its ledger; this loop holds no other state. It is the
same with and without a Dask client.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any

from daskml_scale import events
from daskml_scale.engine.client import workers
from daskml_scale.engine.dispatch import dispatch
from daskml_scale.errors import DaskMLError, PlanError, UnitsFailedError
from daskml_scale.plan.records import MISSING, Record
from daskml_scale.plan.units import Outcome, Plan
from daskml_scale.storage import files, stores
from daskml_scale.storage.ledger import Ledger

from .base import Input, Ref, Stage, StageResult


@dataclass(frozen=True, slots=True)
class StageRow:
    """Accounting of one stage.

    Attributes
    ----------
    units, reused : int
        All units of the stage, and those whose earlier output was still valid.
    seconds : float
        Wall time of the stage.
    rows : int
        Rows of the stage, reused ones included.
    """

    name: str
    kind: str
    units: int
    reused: int
    seconds: float
    rows: int
    bad_rows: int = 0
    warnings: tuple[str, ...] = ()


LAST: list[StageRow] = []
"""Rows of the last stages run in this process, newest last; ``dms.last_run()`` reads it."""


def gather(refs: Mapping[str, Ref], ledger_url: str = "") -> dict[str, Input]:
    """Look at the inputs of a stage: schemas, identities, small results. ``None`` where there is none yet."""
    found: dict[str, Input] = {}
    ids_url = files.join(ledger_url, "ids.json") if ledger_url else ""
    known = (
        {url: (int(s), int(m), str(d)) for url, (s, m, d) in (files.read_json(ids_url) or {}).items()}
        if ids_url
        else {}
    )
    before = dict(known)
    for name, ref in refs.items():
        if ref.kind == "dataset":
            found[name] = stores.snapshot(ref.url, Ledger(stores.beside(ref.url, "ledger")).records())
        elif ref.kind == "file":
            found[name] = files.file_id(ref.url, known) if files.stat(ref.url) is not None else None
        elif ref.kind == "result":
            found[name] = Ledger(ref.url).result()
        else:
            raise AssertionError(ref.kind)
    # Remembered ids save hashing a large source again; a dry run has no ledger yet and leaves no trace.
    if ids_url and known != before and files.names(ledger_url):
        files.write_json(ids_url, known)
    return found


def checked_records(ledger: Ledger) -> dict[str, Record]:
    """Return the ledger's records; those whose stored output is gone or altered are marked as missing."""
    url = stores.dataset_of(ledger.url)
    records = dict(ledger.records())
    for unit, record in records.items():
        if not all(stores.unchanged(url, key, stored) for key, stored in record.chunks.items()):
            records[unit] = replace(record, status=MISSING)
    return records


def run_stage(
    stage: Stage, *, client: Any | None = None, sink: events.Sink = events.ignore, run: str = ""
) -> StageResult:
    """Run a stage to its end and return its result.

    Parameters
    ----------
    stage : Stage
    client : distributed.Client, or a callable that returns one, optional
        The callable is called when the first unit must run. Without one the units run in this process.
    sink : callable, optional
        Receives the events.
    run : str, optional
        Run id, put into the events.

    Raises
    ------
    UnitsFailedError
        When units failed; all others were committed.
    PlanError
        When an input is missing, or a unit needs more memory than a worker has.
    """
    started = time.time()
    sink(events.StageStarted(time=started, run=run, stage=stage.name, stage_kind=stage.kind))
    loop = _Loop(stage, client, sink, run)
    try:
        result = loop.to_the_end()
    except BaseException as error:
        state = "failed" if isinstance(error, Exception) else "interrupted"
        loop.finished(state, started, StageResult(), message=str(error) or type(error).__name__)
        raise
    LAST.append(loop.finished("ok", started, result))
    del LAST[:-100]
    return result


class _Loop:
    """One run of one stage."""

    def __init__(self, stage: Stage, client: Any | None, sink: events.Sink, run: str) -> None:
        self.stage, self.client, self.sink, self.run = stage, client, sink, run
        self.ledger = Ledger(stage.ledger)
        self.out = stores.dataset_of(stage.ledger)
        self.executed: set[str] = set()
        self.told_reused = 0
        self.keys: tuple[str, ...] = ()

    def to_the_end(self) -> StageResult:
        while True:
            inputs = gather(self.stage.reads(), self.stage.ledger)
            records = checked_records(self.ledger)
            plan = self.stage.plan(inputs, records)
            self.keys = plan.keys
            self._planned(plan)
            if not plan.units:
                if plan.template is not None:
                    stores.create(self.out, plan.template)  # fewer rows than before, or none, need no unit
                break
            self._one_pass(plan)
        result = self.stage.finish(inputs, {key: records[key] for key in plan.keys if key in records})
        if self.executed or set(records) - set(plan.keys):
            self.ledger.compact(keep=plan.keys)
        self.ledger.put_result(result.result)
        for message in result.warnings:
            self.sink(events.Warned(time=time.time(), run=self.run, stage=self.stage.name, message=message))
        return result

    def _planned(self, plan: Plan) -> None:
        reused = max(0, len(plan.keys) - len(plan.units) - len(self.executed))
        fresh, self.told_reused = reused - self.told_reused, max(reused, self.told_reused)
        self.sink(
            events.StagePlanned(
                time=time.time(), run=self.run, stage=self.stage.name, units=len(plan.units), reused=max(0, fresh),
                later=plan.later, reasons=dict(plan.reasons),
            )
        )  # fmt: skip

    def _one_pass(self, plan: Plan) -> None:
        again = self.executed.intersection(unit.key for unit in plan.units)
        if again:
            raise DaskMLError(
                f"{self.stage.name}: unit {min(again)} was committed and is planned again: its inputs change while it "
                "runs, or this is a defect; stop what writes to the inputs and run again"
            )
        if callable(self.client):
            self.client = self.client()
        self._check_memory(plan)
        if plan.template is not None:
            stores.create(self.out, plan.template)
        failed: list[Record] = []
        groups = dispatch(self.stage.kernel, plan.shared, plan.units, name=self.stage.name, client=self.client)
        with closing(groups):
            self._commit(groups, plan, failed)
        if failed:
            first = failed[0]
            raise UnitsFailedError(
                f"{self.stage.name}: {len(failed)} of {len(plan.units)} units failed; the rest is committed. "
                f"First: {first.unit}: {first.error}"
            )

    def _commit(self, groups: Iterator[list[Outcome]], plan: Plan, failed: list[Record]) -> None:
        for outcomes in groups:
            records = self.stage.commit(outcomes, plan, self.ledger)
            self.executed.update(record.unit for record in records)
            bad = [record for record in records if record.error]
            failed.extend(bad)
            self.sink(
                events.UnitsCommitted(
                    time=time.time(), run=self.run, stage=self.stage.name, units=len(records) - len(bad),
                    failed=len(bad), rows=sum(r.rows for r in records), seconds=sum(r.seconds for r in records),
                )
            )  # fmt: skip

    def _check_memory(self, plan: Plan) -> None:
        limit = memory_limit(self.client)
        if limit and plan.memory > limit:
            raise PlanError(
                f"{self.stage.name}: one unit needs about {plan.memory / 2**20:,.0f} MiB and a worker has "
                f"{limit / 2**20:,.0f} MiB ({plan.grid}); use smaller chunks, or a cluster with more memory per worker"
            )

    def finished(self, state: str, started: float, result: StageResult, message: str = "") -> StageRow:
        """Emit the end of the stage and return its accounting."""
        now = time.time()
        row = StageRow(
            self.stage.name, self.stage.kind, len(self.keys), self.told_reused,
            now - started, result.rows, result.bad_rows, result.warnings,
        )  # fmt: skip
        self.sink(
            events.StageFinished(
                time=now, run=self.run, stage=row.name, state=state, seconds=row.seconds, units=row.units,
                reused=row.reused, rows=row.rows, result=dict(result.result), message=message,
            )
        )  # fmt: skip
        return row


def memory_limit(client: Any | None) -> int:
    """Return the memory of the smallest worker in bytes (of this machine without a client); 0 is unknown."""
    if client is None:
        import psutil

        return int(psutil.virtual_memory().available)
    limits = [worker["memory_limit"] for worker in workers(client).values()]
    return int(min((limit for limit in limits if limit), default=0))
