"""The Stage protocol: ``plan`` (pure), ``kernel`` (on a worker, unit by unit), ``commit`` (driver).

``stages.run.run_stage`` repeats *gather inputs, plan, dispatch, commit* until a plan has no unit left
to run. A stage with several passes (statistics, then the matrix) just plans the next pass once the
ledger holds the records of the one before: nothing else remembers where a stage stands.

A stage is a small frozen picklable dataclass: its spec and the URLs that it reads and writes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias, runtime_checkable

from daskml_scale.engine.worker import WorkerContext
from daskml_scale.events import Score
from daskml_scale.plan.records import Record, to_record
from daskml_scale.plan.table import total_rows
from daskml_scale.plan.units import FileId, Outcome, Plan, Snapshot, Unit
from daskml_scale.storage.ledger import Ledger
from daskml_scale.storage.stores import dataset_of


@dataclass(frozen=True, slots=True)
class Ref:
    """Something that a stage reads.

    Attributes
    ----------
    kind : str
        ``dataset`` (a Zarr dataset URL), ``file`` (any file), ``files`` (those that match a pattern, as a mapping
        of name to ``FileId``), ``sources`` (the same, by path or URL, as ``Source``; ``quick sources`` by size and
        stamp alone), ``cubes`` (gridded sources, each with its schema where it is known), ``json`` (a small
        document), ``result`` (the last result of another stage, found in that stage's ledger).
    """

    kind: str
    url: str


Input: TypeAlias = "Snapshot | FileId | Mapping[str, Any] | None"
"""A gathered input; ``None`` where it does not exist yet (a dry run)."""


@runtime_checkable
class Stage(Protocol):
    """What every stage kind provides. See the module docstring."""

    @property
    def name(self) -> str: ...
    @property
    def kind(self) -> str: ...
    @property
    def ledger(self) -> str:
        """URL of the stage's ledger."""
        ...

    def reads(self) -> Mapping[str, Ref]:
        """Return what to gather before each plan."""
        ...

    def plan(self, inputs: Mapping[str, Input], records: Mapping[str, Record]) -> Plan:
        """Decide what runs now. Pure: the same inputs and records give the same plan."""
        ...

    def kernel(self, unit: Unit, worker: WorkerContext) -> Any:
        """Run one unit on a worker; return ``Written`` or a small JSON value."""
        ...

    def commit(self, outcomes: Sequence[Outcome], plan: Plan, ledger: Ledger) -> list[Record]:
        """Make outcomes durable, in one ledger segment. Idempotent."""
        ...

    def trial_scores(self, outcomes: Sequence[Outcome], records: Sequence[Record]) -> tuple[Score, ...]:
        """Return what committed units say about the trials of a search."""
        ...

    def finish(self, inputs: Mapping[str, Input], records: Mapping[str, Record]) -> StageResult:
        """Fold the records of a complete stage into its result; write what the driver writes (small files)."""
        ...


@dataclass(frozen=True, slots=True)
class StageResult:
    """The end of a stage.

    Attributes
    ----------
    result : mapping
        Small JSON: metrics, best parameters, where a model lies.
    rows : int
        Rows of the stage, reused ones included.
    warnings : tuple of str
    bad_rows : int
        Rows that are written as missing with a status, those of units set aside included.
    missing : int
        Rows of units that were set aside because they ended their worker every time: nothing is written for them.
    """

    result: Mapping[str, Any] = field(default_factory=dict)
    rows: int = 0
    warnings: tuple[str, ...] = ()
    bad_rows: int = 0
    missing: int = 0


@dataclass(frozen=True)
class StageBase:
    """Shared behaviour of the kinds; subclasses add their fields, ``plan`` and ``kernel``.

    Attributes
    ----------
    name : str
    ledger : str
        URL of the stage's ledger.
    """

    name: str
    ledger: str

    @property
    def out(self) -> str:
        """URL of the dataset that the stage writes, if it writes one: beside the ledger."""
        return dataset_of(self.ledger)

    def reads(self) -> Mapping[str, Ref]:
        return {}

    def commit(self, outcomes: Sequence[Outcome], plan: Plan, ledger: Ledger) -> list[Record]:
        records = [to_record(outcome, plan) for outcome in outcomes]
        ledger.append(records)
        return records

    def trial_scores(self, outcomes: Sequence[Outcome], records: Sequence[Record]) -> tuple[Score, ...]:
        return ()

    def finish(self, inputs: Mapping[str, Input], records: Mapping[str, Record]) -> StageResult:
        return StageResult(rows=total_rows(records))
