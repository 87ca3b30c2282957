"""The runs that one scheduler sees: several :class:`Progress`, bounded, folded from one stream.

Pure, like :mod:`daskml_scale.dashboard.progress`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from daskml_scale.dashboard import bounds
from daskml_scale.dashboard.progress import Progress, fold
from daskml_scale.events import Event, Scaled, StageStarted, Warned


@dataclass(frozen=True, slots=True)
class Runs:
    """What one scheduler has seen: the last started run is the last in ``runs``.

    Attributes
    ----------
    runs : tuple of Progress
        At most ``MAX_RUNS``; finished ones are forgotten first.
    scaled : tuple of Scaled
        Decisions of the whole cluster, whichever run they were made for.
    """

    runs: tuple[Progress, ...] = ()
    scaled: tuple[Scaled, ...] = ()

    def get(self, run: str) -> Progress | None:
        """Return the run with this id."""
        return next((progress for progress in self.runs if progress.run == run), None)

    @property
    def newest(self) -> Progress | None:
        """The run that started last. A run that ended is shown until another starts."""
        return self.runs[-1] if self.runs else None

    def put(self, progress: Progress) -> Runs:
        """Return the runs with ``progress`` in place of the one with the same id, or appended."""
        old = self.get(progress.run)
        if old is not None and old.started == progress.started:
            return replace(self, runs=tuple(progress if item is old else item for item in self.runs))
        runs = [item for item in self.runs if item is not old]
        if len(runs) >= bounds.MAX_RUNS:
            runs.remove(next((item for item in runs if item.finished), runs[0]))
        return replace(self, runs=(*runs, progress))

    def adopt(self, progress: Progress) -> Runs:
        """Return the runs with a run as its driver knows it, whatever was seen of it before."""
        # Sent instead of events, so decisions of the whole cluster arrive in it, too; some are known already.
        scaled = sorted({*self.scaled, *progress.scaled}, key=lambda event: event.time)
        old = self.get(progress.run)
        if old is not None and old.loose and progress.loose:
            known = {stage.name for stage in progress.stages}  # a call from Python knows nothing of the one before
            before = (stage for stage in old.stages if stage.name not in known)
            progress = replace(progress, stages=(*before, *progress.stages)[-bounds.MAX_STAGES :])
        return replace(self.put(progress), scaled=tuple(scaled)[-bounds.MAX_NOTES :])


def fold_runs(runs: Runs, event: Event | None) -> Runs:
    """Return the runs after ``event``; an event of an unknown run starts that run."""
    if event is None:
        return runs
    event = bounds.clean(event)
    if isinstance(event, Scaled):
        runs = replace(runs, scaled=bounds.keep(runs.scaled, event))
    old = runs.get(event.run)
    if old is None and not event.run and isinstance(event, (Scaled, Warned)):
        return runs  # the cluster speaks, no work was started
    if old is not None and not event.run and old.finished and isinstance(event, StageStarted):
        # New work of a notebook becomes the newest, and is no part of a workflow that ended before.
        old = replace(old, started=0.0) if old.loose else Progress()
    return runs.put(fold(old or Progress(run=event.run), event))
