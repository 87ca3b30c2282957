"""One run and its stages as frozen records; ids, states and where they are kept. No database, no clock.

A run is *queued*, then *running*, then *succeeded*, *partial* (done, with quarantined rows), *failed*,
*interrupted* or *cancelled*. ``lost`` is computed, never stored: a live run without a lease, or whose process is gone.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any

from daskml_scale import html
from daskml_scale.dashboard.progress import Progress
from daskml_scale.storage.home import home as home

LIVE = ("queued", "running")
"""States in which a process is, or will be, at work."""
LONGEST_LEASE = 300.0
"""Seconds; no lease is given for longer than a part of this."""


@dataclass(frozen=True, slots=True)
class StageRecord:
    """How far one stage of a run got.

    Attributes
    ----------
    state : str
        waiting | running | ok | failed | interrupted | skipped
    units : int
        Units known so far, reused ones included.
    done : int
        Units committed or reused.
    seconds : float
        Wall seconds so far.
    rate : float
        Units per second of late; 0 when unknown.
    eta : float or None
        Seconds left, estimated.
    """

    name: str
    kind: str = ""
    state: str = "waiting"
    units: int = 0
    done: int = 0
    reused: int = 0
    failed: int = 0
    rows: int = 0
    seconds: float = 0.0
    rate: float = 0.0
    eta: float | None = None


@dataclass(frozen=True, slots=True)
class RunRecord:
    """One run as the registry knows it. Times in seconds since the epoch.

    Attributes
    ----------
    source : str
        The workflow file.
    command : tuple of str
        Words after ``daskml-scale`` that continue this run from ``cwd``.
    state : str
        queued | running | succeeded | partial | failed | interrupted | cancelled | lost
    epoch : int
        How often the run was started; fences writes.
    log : str
        File with the output of a submitted run; empty for one in the foreground.
    summary : mapping
        What a finished run returned.
    owner : str
        Who started it.
    options : mapping
        What else it was started with: ``settings``, ``sample``, ``again``.
    queue, most, priority : str, int, int
        Of its turn, see `queue.Turn`.
    key : str, optional
        Under which it was submitted: the same key means the same run.
    """

    id: str
    workflow: str
    source: str
    store: str
    cluster: str
    command: tuple[str, ...]
    cwd: str
    state: str
    epoch: int
    lease_until: float
    host: str
    pid: int
    created: float
    started: float | None
    finished: float | None
    exit_code: int | None
    message: str
    log: str
    summary: dict[str, Any]
    stages: tuple[StageRecord, ...] = ()
    owner: str = ""
    labels: dict[str, str] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)
    queue: str = ""
    most: int = 0
    priority: int = 0
    key: str | None = None

    @property
    def live(self) -> bool:
        return self.state in LIVE

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-able dict."""
        return {**asdict(self), "command": list(self.command), "stages": [asdict(stage) for stage in self.stages]}

    def _repr_html_(self) -> str:
        rows = [
            (stage.name, stage.kind, stage.state, stage.units, stage.done, stage.reused, stage.failed, stage.rows)
            for stage in self.stages
        ]
        header = ("stage", "kind", "state", "units", "done", "reused", "failed", "rows")
        return html.table(header, rows, title=f"{self.id}: {self.state}")


def run_id(workflow: str, now: float, attempt: int = 0) -> str:
    """Return an id that sorts by time within a workflow: name, UTC day, and the time of day as 4 hex digits.

    Parameters
    ----------
    now : float
        Seconds since the epoch. Ids 1.4 s apart differ.
    attempt : int
        Added to the time of day when the id is taken.
    """
    moment = datetime.fromtimestamp(now, UTC)
    part = int((now % 86400.0) / 86400.0 * 0x10000) + attempt
    return f"{workflow}-{moment:%Y%m%d}-{part:04x}"


def state_at(state: str, lease_until: float, now: float) -> str:
    """Return the state to show: a live run without a lease is ``lost``.

    A lease expired, or ends later than any that is given: the clock was set back, and who is alive renews it soon.
    """
    return "lost" if state in LIVE and not now <= lease_until <= now + LONGEST_LEASE else state


def stage_records(progress: Progress, now: float) -> tuple[StageRecord, ...]:
    """Return the stages of a folded run as the registry keeps them and as a terminal shows them."""
    return tuple(
        StageRecord(
            name=stage.name, kind=stage.kind, state=stage.state, units=stage.total, done=stage.ready,
            reused=stage.reused, failed=stage.failed, rows=stage.rows, seconds=stage.elapsed(now),
            rate=stage.rate(now), eta=stage.eta(now),
        )
        for stage in progress.stages
    )  # fmt: skip
