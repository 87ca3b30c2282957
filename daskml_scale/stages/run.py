"""Run one stage: gather its inputs, plan, dispatch, commit, until a plan has no unit left to run.

Everything a stage has to be resumed with is in its ledger; this loop holds no other state. It is the
same with and without a Dask client.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import replace
from typing import Any

from daskml_scale import events
from daskml_scale.engine.client import capacity, current_client
from daskml_scale.engine.dispatch import dispatch
from daskml_scale.engine.suspects import POISON
from daskml_scale.errors import ClusterError, DaskMLError, UsageError
from daskml_scale.plan.batching import MIN_SECONDS
from daskml_scale.plan.cells import Places
from daskml_scale.plan.records import Record
from daskml_scale.plan.table import Records
from daskml_scale.plan.units import Outcome, Plan, Unit
from daskml_scale.scaling.cost import Meter
from daskml_scale.storage import files, stores
from daskml_scale.storage.ledger import Ledger
from daskml_scale.storage.transactions import Pass, transaction

from . import failures, notebook
from .accounting import LAST, StageRow
from .base import Input, Stage, StageResult
from .durations import Durations
from .inputs import Remembered, checked_records, looked
from .publishing import published
from .shown import happened, has_bad_rows, mapped, todo
from .worker_memory import check_memory, memory_limit

CHUNK_SECONDS = 0.5
"""What a task shall last that writes chunks: in it a chunk is read and another one written while one is computed."""
LOOK_SECONDS = 5.0
"""Between two looks at how many workers there are."""


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
        Receives the events, instead of the page of the client's cluster.
    run : str, optional
        Run id, put into the events.

    Raises
    ------
    UnitsFailedError
        When units failed; all others were committed. What our own code refused is raised as that error.
    PlanError
        When an input is missing, or a unit needs more memory than a worker has.
    UsageError
        When ``client`` is something else.
    """
    if sink is not events.ignore:
        return accounted(stage, client=client, sink=sink, run=run)[0]
    with published(client) as sink:
        return accounted(stage, client=client, sink=sink, run=run)[0]


def run_where_reached(stage: Stage, urls: Iterable[str], client: Any | None = None) -> StageResult:
    """Run a stage on a client, by default the process's own, if there is one.

    Where one of the ``urls`` that it touches lies in this process's memory, which others cannot reach, it runs here.
    """
    return run_stage(stage, client=None if any(map(files.is_memory, urls)) else client or current_client())


def accounted(
    stage: Stage,
    *,
    client: Any | None = None,
    sink: events.Sink = events.ignore,
    run: str = "",
    check: Callable[[], None] | None = None,
) -> tuple[StageResult, StageRow]:
    """Run a stage as :func:`run_stage` does; return its result and its accounting. What ``check`` raises stops it."""
    if client is not None and not callable(client) and not hasattr(client, "submit"):
        raise UsageError(f"client is a {type(client).__name__}; give a distributed Client (cluster.get_client())")
    sink = notebook.sink(sink)
    sink(events.StageStarted(time=time.time(), run=run, stage=stage.name, stage_kind=stage.kind))
    loop = _Loop(stage, client, sink, run, check)
    try:
        result = loop.to_the_end()
    except BaseException as error:
        state = "failed" if isinstance(error, Exception) else "interrupted"
        loop.finished(state, StageResult(), message=str(error) or type(error).__name__)
        raise
    row = loop.finished("ok", result)
    LAST.append(row)
    return result, row


class _Loop:
    """One run of one stage."""

    def __init__(
        self, stage: Stage, client: Any | None, sink: events.Sink, run: str, check: Callable[[], None] | None = None
    ) -> None:
        self.stage, self.client, self.sink, self.run, self.check = stage, client, sink, run, check
        self.ledger = Ledger(stage.ledger)
        self.out = stores.dataset_of(stage.ledger)
        self.ids = Remembered(stage.ledger)
        self.starter: Any = None
        self.executed: set[str] = set()
        self.set_aside: dict[str, int] = {}
        self.told: set[str] = set()
        self.told_reused = 0
        self.durations = Durations(stage.ledger, stage.kind)
        self.began = time.monotonic()
        self.keys: tuple[str, ...] = ()
        self.meter, self.saved = Meter(), 0.0
        self.looked = -math.inf
        self.map: Places | None = None

    def to_the_end(self) -> StageResult:
        while True:
            inputs = looked(self.stage.reads(), self.ids.known)
            records = checked_records(self.ledger)
            self._tell_torn()
            plan = self.stage.plan(inputs, records)
            self.ids.keep()
            self.keys = plan.keys
            self._planned(plan)
            if self.set_aside.keys() >= {unit.key for unit in plan.units}:
                if plan.template is not None and not self.set_aside:
                    stores.create(self.out, plan.template)  # fewer rows than before, or none, need no unit
                break
            self._one_pass(plan)
        with transaction(self.out, f"end of {self.stage.name}", run=self.run, stage=self.stage.name, kind="files"):
            mine = records.only(plan.keys)
            self.saved = max(0.0, round(mine.total("seconds") - self.meter.busy, 6))  # sums of another order differ
            result = self._finish(inputs, mine, plan)
            if self.executed or len(mine) < len(records):
                self.ledger.compact(keep=plan.keys)
            self.ledger.put_result(result.result)
            self.durations.keep()
            self.ids.keep()  # what only the end has asked for
        for message in result.warnings:
            self._tell(message)
        return result

    def _finish(self, inputs: Mapping[str, Input], records: Records, plan: Plan) -> StageResult:
        if not self.set_aside:
            return self.stage.finish(inputs, records)
        done = records.only([key for key in plan.keys if key not in self.set_aside])
        result = self.stage.finish(inputs, done)
        missing = sum(self.set_aside.values())
        message = (
            f"{len(self.set_aside)} of {len(plan.keys)} units are set aside: they ended their worker every time; "
            f"{missing:,} rows are missing. First: {min(self.set_aside)}. They are tried again by the next run"
        )
        return replace(
            result, bad_rows=result.bad_rows + missing, missing=missing, warnings=(*result.warnings, message)
        )

    def _tell(self, message: str) -> None:
        self.sink(events.Warned(time=time.time(), run=self.run, stage=self.stage.name, message=message))

    def _tell_torn(self) -> None:
        for name in self.ledger.torn:
            message = f"{files.join(self.ledger.url, name)} is torn: the units that only it named run again"
            if message not in self.told:
                self.told.add(message)
                self._tell(message)

    def _planned(self, plan: Plan) -> None:
        reused = max(0, len(plan.keys) - len(plan.units) - len(self.executed.intersection(plan.keys)))
        fresh, self.told_reused = reused - self.told_reused, max(reused, self.told_reused)
        self.map = mapped(plan, self.executed)
        self.sink(
            events.StagePlanned(
                time=time.time(), run=self.run, stage=self.stage.name, units=len(plan.units), reused=max(0, fresh),
                later=plan.later, reasons=dict(plan.reasons), **todo(self.map, plan),
            )
        )  # fmt: skip

    def _one_pass(self, plan: Plan) -> None:
        again = self.executed.intersection(unit.key for unit in plan.units) - self.set_aside.keys()
        if again:
            raise DaskMLError(
                f"{self.stage.name}: unit {min(again)} was committed and is planned again: its inputs change while it "
                "runs, or this is a defect; stop what writes to the inputs and run again"
            )
        if callable(self.client):
            self.starter = self.client
        self._use_newest()
        check_memory(self.stage.name, plan, memory_limit(self.client))
        if plan.template is not None:
            stores.create(self.out, plan.template)
        for url, template in plan.beside.items():
            stores.create(url, template)
        failed: list[Record] = []
        wait = any(not isinstance(read, str) for read in plan.inputs.values())
        one = Pass(self.out, self.ids.known if wait else None, run=self.run, stage=self.stage.name)
        kernel = one.kernel(self.stage.kernel)
        groups = dispatch(
            kernel, plan.shared, plan.units, name=self.stage.name, client=self.client,
            reconnect=getattr(self.starter, "restart", None), tell=self._tell, check=self.check,
            seconds_per_weight=self.durations.estimate(plan.parts),
            aim=MIN_SECONDS if plan.template is None else CHUNK_SECONDS,
            retry=getattr(self.stage, "retry", None),  # only kinds that call the user's code have one
            resources=getattr(self.stage, "resources", None),
        )  # fmt: skip
        try:
            with closing(groups):
                self._commit(groups, plan, failed, one)
        finally:
            self.meter = self.meter.stopped(time.monotonic())
            self.ids.keep_on_the_way(at_once=wait)
        poison = [record for record in failed if record.error.startswith(POISON)]
        if len(poison) == len(failed) and plan.template is not None and not plan.later:
            # What these units would have written is missing, and nothing else is wrong.
            guilty = {record.unit for record in poison}
            aside = {unit.key: _rows(unit) for unit in plan.units if unit.key in guilty}
            if sum(aside.values()) <= getattr(self.stage, "max_bad", math.inf):
                self.set_aside.update(aside)
                return
        if failed:
            raise failures.failure(self.stage.name, failed, len(plan.units))

    def _commit(self, groups: Iterable[Sequence[Outcome]], plan: Plan, failed: list[Record], one: Pass) -> None:
        self._look()
        for group in groups:
            self._look()
            with one.commit(group) as outcomes:
                records = self.stage.commit(outcomes, plan, self.ledger)
            self.ids.keep_on_the_way()
            self.durations.add(plan.parts, outcomes)
            self.executed.update(record.unit for record in records)
            self.meter = self.meter.worked(sum(r.seconds for r in records), sum(r.rows for r in records))
            bad = [record for record in records if record.error]
            failed.extend(bad)
            self.sink(
                events.UnitsCommitted(
                    time=time.time(), run=self.run, stage=self.stage.name, units=len(records) - len(bad),
                    failed=len(bad), rows=sum(r.rows for r in records), seconds=sum(r.seconds for r in records),
                    reasons=dict(Counter(record.error.partition(":")[0] for record in bad)),
                    quarantined=sum(map(has_bad_rows, records)), cost=self.meter.money,
                    cells=happened(self.map, records), scores=self.stage.trial_scores(outcomes, records),
                )
            )  # fmt: skip

    def _use_newest(self) -> None:
        """Take the client that works now: a lost scheduler may have been replaced with all its cluster."""
        if self.starter is not None:
            self.client = self.starter()

    def _look(self) -> None:
        """Read the meter, and every few seconds how many workers there are."""
        now = time.monotonic()
        if now - self.looked < LOOK_SECONDS and self.meter.since is not None and self.meter.slots:
            self.meter = self.meter.at(now)
            return
        self._use_newest()
        with suppress(ClusterError, RuntimeError):  # a client that is closing: dispatching finds out, and goes on
            self.meter, self.looked = self.meter.seen(now, *capacity(self.client)), now

    def finished(self, state: str, result: StageResult, message: str = "") -> StageRow:
        """Emit the end of the stage and return its accounting."""
        now = time.time()
        row = StageRow(
            self.stage.name, self.stage.kind, len(self.keys), self.told_reused,
            time.monotonic() - self.began, result.rows, result.bad_rows, result.warnings,
            self.meter.busy, self.meter.idle_share, self.saved, self.meter.money, self.meter.per_thousand,
        )  # fmt: skip
        self.sink(
            events.StageFinished(
                time=now, run=self.run, stage=row.name, state=state, seconds=row.seconds, units=row.units,
                reused=row.reused, rows=row.rows, result=dict(result.result), message=message, bad_rows=row.bad_rows,
                worker_seconds=row.worker_seconds, saved_seconds=row.saved_seconds, idle_share=row.idle_share,
                cost=row.cost,
            )
        )  # fmt: skip
        return row


def _rows(unit: Unit) -> int:
    """Return the rows of a unit whose payload says so, else 1."""
    payload = unit.payload
    known = isinstance(payload, (tuple, list)) and len(payload) >= 2 and all(isinstance(x, int) for x in payload[:2])
    return int(payload[1] - payload[0]) if known else 1
