"""Run a whole workflow: its stages in order, in one store, under one lock.

What was done lives in the stages' ledgers, so running again is resuming. This module starts no
cluster and knows no terminal: the client, when it is first needed, and the sink of events are given.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from daskml_scale import events
from daskml_scale.errors import DaskMLError, Exit, SpecError, UnitsFailedError
from daskml_scale.plan.dag import order, users
from daskml_scale.plan.records import RETRY
from daskml_scale.spec.base import seconds
from daskml_scale.spec.references import edges
from daskml_scale.spec.workflow import PredictSpec, Workflow
from daskml_scale.stages.accounting import StageRow
from daskml_scale.stages.base import Stage, StageResult
from daskml_scale.stages.registry import Builder
from daskml_scale.stages.run import accounted
from daskml_scale.storage import files
from daskml_scale.storage.ledger import Ledger
from daskml_scale.storage.lock import hold
from daskml_scale.storage.stores import dataset_of
from daskml_scale.storage.urls import is_icechunk

from .branches import Limits, Walk
from .planning import of_stage
from .provenance import versions
from .summary import RunSummary, cost_of, metrics_of


def execute(
    workflow: Workflow,
    store: str,
    *,
    base: Path,
    modules: Path | None = None,
    client: Callable[[], Any] | None = None,
    sink: events.Sink = events.ignore,
    run: str = "",
    again: str = "",
) -> RunSummary:
    """Run every stage of a workflow, or what is left of it.

    Parameters
    ----------
    workflow : Workflow
    store : str
        URL of the store.
    base : Path
        Folder that relative sources are resolved from.
    modules : Path, optional
        Folder of the workflow's file: Python beside it is found there.
    client : callable, optional
        Gives the Dask client; called when the first unit must run. Without it, this process runs them.
    sink : callable, optional
    run : str, optional
        Run id.
    again : str
        A stage that is done again with all that needs it, whatever is valid of them.

    Raises
    ------
    DaskMLError
        The first error; what was committed before stays and is reused by the next run.
    """
    store = files.normal(store)
    builder = Builder(workflow, store, base, modules)
    stages = [builder.build(name) for name in order(workflow)]
    work = _Execution(workflow, {stage.name: stage for stage in stages}, client, _in_turn(sink), run)
    with hold(store, f"run {run or workflow.name}"):
        work.sink(
            events.RunStarted(
                time=work.started, run=run, workflow=workflow.name, store=store,
                stages=tuple((stage.name, stage.kind) for stage in stages),
                edges=tuple((needed, name) for name, listed in edges(workflow).items() for needed in listed),
            )
        )  # fmt: skip
        try:
            for name in (again, *users(workflow, again)) if again else ():
                _forget(work.stages[name])
            at_once = 1 if client is None or is_icechunk(store) else workflow.parallel  # one committer there
            Walk(list(work.stages), edges(workflow), work.one, work.limits(), work.tell, at_once=at_once).to_the_end()
            summary = work.summary(store)
            files.write_json(files.join(store, "summary.json"), summary.to_dict())
        except BaseException as error:
            state, code = ("failed", Exit.FAILED) if isinstance(error, Exception) else ("interrupted", Exit.INTERRUPTED)
            code = error.exit_code if isinstance(error, DaskMLError) else code
            work.finished(state, code, str(error) or type(error).__name__)
            raise
        bad = sum(result.bad_rows for result in work.results.values())
        work.finished(summary.state, Exit(summary.exit_code), f"{bad} bad rows" if bad else "")
    return summary


def _in_turn(sink: events.Sink) -> events.Sink:
    """Return a sink that takes the events of several threads one at a time."""
    lock = threading.RLock()

    def take(event: events.Event) -> None:
        with lock:
            sink(event)

    return take


class _Execution:
    """What one execution of a workflow has done so far."""

    def __init__(
        self,
        workflow: Workflow,
        stages: Mapping[str, Stage],
        client: Callable[[], Any] | None,
        sink: events.Sink,
        run: str,
    ) -> None:
        self.workflow, self.stages, self.client, self.sink, self.run = workflow, stages, client, sink, run
        self.started = time.time()
        self.results: dict[str, StageResult] = {}
        self.rows: dict[str, StageRow] = {}
        self.skipped: dict[str, str] = {}

    def one(self, name: str, check: Callable[[], None]) -> None:
        """Run a stage, unless its condition does not hold."""
        stage = self.stages[name]
        if why := self._why_not(name):
            self._skip(stage, why)
            return
        with of_stage(name):
            lacking = {dataset_of(s.ledger): s.name for s in self.stages.values() if _lacks_rows(self.results, s)}
            _refuse_incomplete(stage, lacking)
            self.results[name], self.rows[name] = accounted(
                stage, client=self.client, sink=self.sink, run=self.run, check=check
            )

    def _why_not(self, name: str) -> str:
        """Return why a stage is skipped; empty when it runs.

        Raises
        ------
        SpecError
            When the metric that it waits for is no number.
        """
        spec = self.workflow.stages[name]
        needed = next((other for other in spec.references().values() if other in self.skipped), None)
        if needed is not None:
            return f"it needs {needed}, which is skipped"
        if spec.when is None:
            return ""
        value = self.results[spec.when.of].result.get("metrics", {}).get(spec.when.metric)
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise SpecError(f"{spec.when.of} found no number for {spec.when.metric}: {value!r}", path="when.metric")
        return "" if spec.when.holds(value) else spec.when.told(value)

    def _skip(self, stage: Stage, why: str) -> None:
        self.skipped[stage.name] = why
        self.rows[stage.name] = StageRow(stage.name, stage.kind, 0, 0, 0.0, 0)
        self.sink(
            events.StageFinished(
                time=time.time(), run=self.run, stage=stage.name, state="skipped", seconds=0.0, units=0, reused=0,
                message=why,
            )
        )  # fmt: skip

    def limits(self) -> dict[str, Limits]:
        """Return how often each stage is tried, and how long."""
        return {
            name: Limits(spec.retries, None if spec.timeout is None else seconds(spec.timeout))
            for name, spec in self.workflow.stages.items()
        }

    def tell(self, name: str, text: str) -> None:
        """Tell a line about a stage."""
        self.sink(events.Warned(time=time.time(), run=self.run, stage=name, message=text))

    def summary(self, store: str) -> RunSummary:
        """Return the end of a run in which no stage failed."""
        rows = [self.rows[name] for name in self.stages]
        bad = sum(result.bad_rows for result in self.results.values())
        kinds = self.workflow.stages
        return RunSummary(
            run=self.run,
            workflow=self.workflow.name,
            store=store,
            state="partial" if bad else "succeeded",
            stages=tuple(rows),
            metrics=metrics_of(
                self.workflow, {name: self.results[name].result for name in self.stages if name in self.results}
            ),
            rows_predicted=sum(row.rows for row in rows if isinstance(kinds[row.name], PredictSpec)),
            versions=versions(),
            seconds=time.time() - self.started,
            cost=cost_of(rows),
            skipped=dict(self.skipped),
        )

    def finished(self, state: str, code: Exit, message: str) -> None:
        """Tell how the run ended."""
        now = time.time()
        self.sink(
            events.RunFinished(
                time=now, run=self.run, state=state, seconds=now - self.started, exit_code=int(code), message=message
            )
        )


def _forget(stage: Stage) -> None:
    """Mark the units of a stage, so that all of them run again; what they wrote stays until then."""
    ledger = Ledger(stage.ledger)
    ledger.mark(dict.fromkeys(ledger.records(), RETRY))


def _refuse_incomplete(stage: Stage, incomplete: Mapping[str, str]) -> None:
    """Refuse to go on from a dataset that lacks rows.

    Raises
    ------
    UnitsFailedError
        Naming the stage that has units set aside.
    """
    for ref in stage.reads().values():
        if ref.url in incomplete:
            raise UnitsFailedError(
                f"{stage.name}: it reads {incomplete[ref.url]}, of which rows are missing (units set aside because "
                "they ended their worker every time); give its workers more memory or mend the input, and run again"
            )


def _lacks_rows(results: Mapping[str, StageResult], stage: Stage) -> bool:
    return stage.name in results and results[stage.name].missing > 0
