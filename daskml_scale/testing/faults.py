"""Scripted faults: a stage whose kernel calls can be counted, slowed down, and made to kill their process.

Faults are scripts, not chance: the same script fails at the same unit and attempt every time.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from daskml_scale.engine.worker import WorkerContext
from daskml_scale.plan.records import Record
from daskml_scale.plan.units import Outcome, Plan, Unit
from daskml_scale.stages.base import Input, Ref, Stage, StageResult
from daskml_scale.storage.ledger import Ledger


@dataclass(frozen=True)
class Counted:
    """A stage that makes a file per kernel call and otherwise is the stage that it wraps.

    Attributes
    ----------
    stage : Stage
    folder : str
        Gets ``<stage>:<unit>:<n>`` per call, n from 0; ``/`` in the unit becomes ``.``.
    delay : float
        Seconds that each call takes longer.
    kills : tuple of (unit key, attempts)
        The first ``attempts`` calls of that unit kill their process by SIGKILL, after the file was made.
    """

    stage: Any
    folder: str
    delay: float = 0.0
    kills: tuple[tuple[str, int], ...] = ()

    @property
    def name(self) -> str:
        return str(self.stage.name)

    @property
    def kind(self) -> str:
        return str(self.stage.kind)

    @property
    def ledger(self) -> str:
        return str(self.stage.ledger)

    def reads(self) -> Mapping[str, Ref]:
        return self._stage.reads()

    def plan(self, inputs: Mapping[str, Input], records: Mapping[str, Record]) -> Plan:
        return self._stage.plan(inputs, records)

    def kernel(self, unit: Unit, worker: WorkerContext) -> Any:
        attempt = self._mark(unit)
        if attempt < dict(self.kills).get(unit.key, 0):
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(self.delay)
        return self._stage.kernel(unit, worker)

    def commit(self, outcomes: Sequence[Outcome], plan: Plan, ledger: Ledger) -> list[Record]:
        return self._stage.commit(outcomes, plan, ledger)

    def finish(self, inputs: Mapping[str, Input], records: Mapping[str, Record]) -> StageResult:
        return self._stage.finish(inputs, records)

    @property
    def _stage(self) -> Stage:
        found: Stage = self.stage
        return found

    def _mark(self, unit: Unit) -> int:
        attempt = 0
        while True:
            try:
                path = Path(self.folder) / f"{self.name}:{unit.key.replace('/', '.')}:{attempt}"
                os.close(os.open(path, os.O_CREAT | os.O_EXCL))
            except FileExistsError:
                attempt += 1
            else:
                return attempt


def executions(folder: str | Path, stage: str) -> dict[str, int]:
    """Return how often the kernel of each unit of a stage was called: unit key (``/`` as ``.``) -> calls."""
    calls: dict[str, int] = {}
    for path in Path(folder).iterdir():
        name, unit, _ = path.name.split(":")
        if name == stage:
            calls[unit] = calls.get(unit, 0) + 1
    return calls
