"""What a stage came to: units, reused, seconds, rows, cost; and the last stages of this process, for ``last_run``."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass


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
    worker_seconds : float
        Kernel time of the units that ran, summed over workers.
    idle_share : float
        Part of the slots' time in which none ran, while there were units to run.
    saved_seconds : float
        Kernel time that the reused units took when they ran.
    cost, cost_per_thousand : float
        Price of all workers while the stage had units to run, and per 1,000 rows of those; 0 without prices.
    """

    name: str
    kind: str
    units: int
    reused: int
    seconds: float
    rows: int
    bad_rows: int = 0
    warnings: tuple[str, ...] = ()
    worker_seconds: float = 0.0
    idle_share: float = 0.0
    saved_seconds: float = 0.0
    cost: float = 0.0
    cost_per_thousand: float = 0.0


LAST: deque[StageRow] = deque(maxlen=100)
"""Rows of the last stages run in this process, newest last; ``dms.last_run()`` reads it."""


@contextmanager
def noted(name: str, kind: str, units: int, rows: int) -> Iterator[None]:
    """Account for work that is done in this process without a ledger: all of it, every time."""
    began = time.monotonic()
    yield
    LAST.append(StageRow(name, kind, units, 0, time.monotonic() - began, rows))
