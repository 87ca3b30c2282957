"""How far a run is: a pure, bounded fold of the event vocabulary.

Progress bars of the command line, the run registry, ``/workflow.json`` and the ``/workflow`` page
all show a :class:`Progress`, so they cannot disagree. ``fold`` takes one event and returns the next
state.

Nothing here reads a clock, does I/O, or imports Bokeh or Dask. Events arrive from other processes:
counts are clamped, texts are cut, and what is not understood is ignored.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from itertools import islice
from typing import Any

from daskml_scale.dashboard import bounds
from daskml_scale.dashboard.stage import StageEvent, StageProgress, next_stage, stage_from_dict
from daskml_scale.events import (
    Event,
    RunFinished,
    RunStarted,
    Scaled,
    StageFinished,
    StagePlanned,
    StageStarted,
    UnitsCommitted,
    Warned,
    from_dict,
)

__all__ = ["Progress", "StageProgress", "fold"]


@dataclass(frozen=True, slots=True)
class Progress:
    """One run, or with an empty ``run`` the work started from Python without one: a workflow, or single stages.

    Attributes
    ----------
    run, workflow, store : str
    state : str
        waiting | running | succeeded | failed | partial | interrupted | cancelled
    stages : tuple of StageProgress
        In running order, at most ``MAX_STAGES`` (the newest).
    edges : tuple of (str, str)
        (stage, stage that reads what it wrote).
    hidden : int
        Stages left out because of that limit.
    scaled : tuple of Scaled
        The last ``MAX_NOTES`` scaling decisions, oldest first.
    warnings : tuple of Warned
        The last ``MAX_NOTES`` warnings, oldest first.
    started, updated : float
        First and last event, seconds since the epoch; 0 before.
    seconds : float
        Wall seconds once finished.
    message : str
    """

    run: str = ""
    workflow: str = ""
    store: str = ""
    state: str = "waiting"
    stages: tuple[StageProgress, ...] = ()
    edges: tuple[tuple[str, str], ...] = ()
    hidden: int = 0
    scaled: tuple[Scaled, ...] = ()
    warnings: tuple[Warned, ...] = ()
    started: float = 0.0
    updated: float = 0.0
    seconds: float = 0.0
    message: str = ""

    @property
    def finished(self) -> bool:
        return self.state not in ("waiting", "running")

    @property
    def loose(self) -> bool:
        """Whether these are single stages started from Python: nothing tells that no more will come."""
        return not (self.run or self.workflow)

    @property
    def fraction(self) -> float:
        """Mean of the stages' fractions: what a stage costs is unknown before it is planned."""
        return sum(stage.fraction for stage in self.stages) / len(self.stages) if self.stages else 0.0

    def stage(self, name: str) -> StageProgress | None:
        """Return the stage called ``name``."""
        return next((stage for stage in self.stages if stage.name == name), None)

    def elapsed(self, now: float) -> float:
        """Return the wall seconds so far."""
        if self.finished:
            return self.seconds
        return max(0.0, now - self.started) if self.started else 0.0

    def to_dict(self, now: float | None = None) -> dict[str, Any]:
        """Return a JSON-able dict; with ``now`` it also holds the derived numbers."""
        data = asdict(replace(self, scaled=(), warnings=()))
        data["stages"] = [dict(stage) for stage in data["stages"]]
        data["scaled"] = [event.to_dict() for event in self.scaled]
        data["warnings"] = [event.to_dict() for event in self.warnings]
        if now is not None:
            data.update(fraction=self.fraction, elapsed=self.elapsed(now))
            for stage, row in zip(self.stages, data["stages"], strict=True):
                row.update(total=stage.total, fraction=stage.fraction, rate=stage.rate(now), eta=stage.eta(now))
        return data

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Progress:
        """Rebuild what ``to_dict`` returned; unknown keys are dropped, limits are applied again."""
        stages = tuple(stage_from_dict(row) for row in data.get("stages", ()))
        notes = [from_dict(note) for key in ("scaled", "warnings") for note in data.get(key, ())]
        own = bounds.known(cls, data)
        own.update(
            stages=stages[-bounds.MAX_STAGES :],
            edges=_edges(data.get("edges", ())),
            scaled=tuple(bounds.clean(note) for note in notes if isinstance(note, Scaled))[-bounds.MAX_NOTES :],
            warnings=tuple(bounds.clean(note) for note in notes if isinstance(note, Warned))[-bounds.MAX_NOTES :],
        )
        return cls(**own)


def _edges(pairs: Iterable[Any]) -> tuple[tuple[str, str], ...]:
    return tuple((bounds.name(one), bounds.name(other)) for one, other in islice(pairs, bounds.MAX_EDGES))


def fold(progress: Progress, event: Event | None) -> Progress:
    """Return the progress after ``event``.

    Parameters
    ----------
    progress : Progress
    event : Event or None
        Events of another run, and ``None`` (an event of a newer version), change nothing.
    """
    if event is None:
        return progress
    event = bounds.clean(event)
    if progress.run and event.run and event.run != progress.run:
        return progress
    if isinstance(event, RunStarted):
        return _start_run(event)
    progress = replace(
        progress,
        run=progress.run or event.run,
        started=progress.started or event.time,
        updated=max(progress.updated, event.time),
    )
    if isinstance(event, Scaled):
        return replace(progress, scaled=bounds.keep(progress.scaled, event))
    if isinstance(event, Warned):
        return replace(progress, warnings=bounds.keep(progress.warnings, event))
    if isinstance(event, RunFinished):
        return _finish_run(progress, event)
    if isinstance(event, (StageStarted, StagePlanned, UnitsCommitted, StageFinished)):
        return _fold_stage(progress, event)
    return progress


def _start_run(event: RunStarted) -> Progress:
    # A resumed run has the same id and starts from its ledger, so its counts start anew, too.
    return Progress(
        run=event.run,
        workflow=event.workflow,
        store=event.store,
        state="running",
        stages=tuple(
            StageProgress(bounds.name(name), bounds.name(kind)) for name, kind in event.stages[: bounds.MAX_STAGES]
        ),
        edges=_edges(event.edges),
        hidden=max(0, len(event.stages) - bounds.MAX_STAGES),
        started=event.time,
        updated=event.time,
    )


def _fold_stage(progress: Progress, event: StageEvent) -> Progress:
    old = progress.stage(event.stage)
    stage = next_stage(old or StageProgress(event.stage), event)
    if old is not None:
        stages = tuple(stage if item is old else item for item in progress.stages)
    else:
        stages = (*progress.stages, stage)
    over = max(0, len(stages) - bounds.MAX_STAGES)
    progress = replace(progress, stages=stages[over:], hidden=progress.hidden + over)
    if progress.finished and not progress.loose:
        return progress  # a late event does not revive a finished run
    ended = isinstance(event, StageFinished) and all(item.state != "running" for item in stages)
    if not (progress.loose and ended):
        return replace(progress, state="running", seconds=0.0)
    # It has no RunFinished: it is over whenever nothing runs.
    state = "succeeded" if stage.state == "ok" else stage.state
    return replace(progress, state=state, seconds=max(0.0, progress.updated - progress.started))


def _finish_run(progress: Progress, event: RunFinished) -> Progress:
    stages = tuple(
        replace(stage, state="interrupted", wall=stage.elapsed(progress.updated)) if stage.state == "running" else stage
        for stage in progress.stages
    )
    return replace(
        progress,
        state=event.state or "failed",
        stages=stages,
        seconds=event.seconds,
        message=event.message,
    )
