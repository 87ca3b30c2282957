"""Who pays: what each stage of a run took, folded from its events, and sums by run, label or owner. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from daskml_scale.events import ClusterStarted, Event, StageFinished, StageStarted, UnitsCommitted

from .state import RunRecord

START_UP = ""
"""The stage under which the start of a run's cluster is noted."""
NONE = "(none)"
"""The group of runs without a label."""


@dataclass(frozen=True, slots=True)
class Cost:
    """What one stage of a run took.

    Attributes
    ----------
    worker_seconds, idle_seconds : float
        Time of slots in which kernels ran, and in which none did, while the stage had units to run.
    saved_seconds : float
        Kernel time that reused units took when they ran.
    startup_seconds : float
        From asking for a cluster to its being there; of the stage ``START_UP``.
    money : float
        In the currency of the prices of the cluster's definition; 0 without any. An estimate.
    """

    run: str
    stage: str
    worker_seconds: float = 0.0
    idle_seconds: float = 0.0
    saved_seconds: float = 0.0
    startup_seconds: float = 0.0
    money: float = 0.0


@dataclass(frozen=True, slots=True)
class Bill:
    """Costs of the runs of a group; units as in `Cost`."""

    group: str
    runs: int
    worker_seconds: float
    idle_seconds: float
    saved_seconds: float
    startup_seconds: float
    money: float

    @property
    def idle_share(self) -> float:
        """Part of the slots' time in which no kernel ran, 0 to 1."""
        whole = self.worker_seconds + self.idle_seconds
        return self.idle_seconds / whole if whole > 0 else 0.0

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {**asdict(self), "idle_share": self.idle_share}


def charged(costs: Mapping[str, Cost], event: Event) -> Mapping[str, Cost]:
    """Return the costs of a run, by stage, after an event of it."""
    if isinstance(event, ClusterStarted):
        found = costs.get(START_UP, Cost(event.run, START_UP))
        return {**costs, START_UP: replace(found, startup_seconds=found.startup_seconds + event.seconds)}
    if isinstance(event, StageStarted):
        return {**costs, event.stage: costs.get(event.stage, Cost(event.run, event.stage))}
    if isinstance(event, UnitsCommitted):
        found = costs.get(event.stage, Cost(event.run, event.stage))
        return {**costs, event.stage: replace(found, worker_seconds=found.worker_seconds + event.seconds)}
    if isinstance(event, StageFinished):
        share = min(max(event.idle_share, 0.0), 0.999999)
        found = Cost(
            event.run, event.stage, event.worker_seconds, event.worker_seconds * share / (1 - share),
            event.saved_seconds, 0.0, event.cost,
        )  # fmt: skip
        return {**costs, event.stage: found}
    return costs


def bills(runs: Iterable[RunRecord], costs: Iterable[Cost], by: str) -> list[Bill]:
    """Return the sums of groups of runs, the dearest first.

    Parameters
    ----------
    by : str
        ``run``, ``owner``, ``label`` (each ``name=value``; a run with several counts in each), or ``label:NAME``.
    """
    of: dict[str, list[Cost]] = {}
    for cost in costs:
        of.setdefault(cost.run, []).append(cost)
    members: dict[str, list[str]] = {}
    for run in runs:
        for group in groups(run, by):
            members.setdefault(group, []).append(run.id)
    found = [_bill(group, listed, of) for group, listed in members.items()]
    return sorted(found, key=lambda bill: (-bill.money, -bill.worker_seconds, bill.group))


def groups(run: RunRecord, by: str) -> Sequence[str]:
    """Return the groups that a run counts in."""
    if by == "run":
        return [run.id]
    if by == "owner":
        return [run.owner or NONE]
    name = by.partition(":")[2]
    if name:
        return [run.labels.get(name, NONE)]
    return [f"{key}={value}" for key, value in sorted(run.labels.items())] or [NONE]


def _bill(group: str, members: Sequence[str], of: Mapping[str, Sequence[Cost]]) -> Bill:
    listed = [cost for run in members for cost in of.get(run, ())]
    sums = [
        sum(getattr(cost, name) for cost in listed)
        for name in ("worker_seconds", "idle_seconds", "saved_seconds", "startup_seconds", "money")
    ]
    return Bill(group, len(members), *sums)
